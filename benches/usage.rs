//! What it costs a request to have its tokens counted, and its key looked up.

use std::sync::Arc;

use divan::{Bencher, black_box, counter::BytesCount};
use http::HeaderMap;
use tradewind::{
    model::{Allowance, Digest, Tenant},
    proxy::{
        tenant::Guests,
        usage::{Kind, Reader},
    },
    signals::traffic::Meters,
};

/// What the program allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// An event as vLLM sends it, with one token: 250 bytes.
const EVENT: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
                     \"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" wind\"},\
                     \"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";

#[divan::bench(sample_size = 10_000)]
fn event(bencher: Bencher<'_, '_>) {
    let mut reader = Reader::new(Kind::Events);
    bencher.bench_local(|| reader.feed(black_box(EVENT.as_bytes())));
}

#[divan::bench(sample_size = 1000)]
fn last_event(bencher: Bencher<'_, '_>) {
    let usage = "{\"prompt_tokens\":1234,\"total_tokens\":1834,\"completion_tokens\":600,\"prompt_tokens_details\":null}";
    let last = EVENT.replace("\"usage\":null", &format!("\"usage\":{usage}"));
    bencher.bench_local(|| {
        let mut reader = Reader::new(Kind::Events);
        reader.feed(black_box(last.as_bytes()));
        reader.finish(5000)
    });
}

#[divan::bench(args = [1, 64, 1024])]
fn document(bencher: Bencher<'_, '_>, kib: usize) {
    let text = "It \\\"blows\\\" from the east, all year. ".repeat(kib * 1024 / 38);
    let body = format!(
        "{{\"choices\":[{{\"message\":{{\"content\":\"{text}\"}}}}],\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":5}}}}"
    );
    bencher.counter(BytesCount::new(body.len())).bench_local(|| {
        let mut reader = Reader::new(Kind::Json);
        reader.feed(black_box(body.as_bytes()));
        reader.finish(5000)
    });
}

#[divan::bench(args = [1, 1000], sample_size = 1000)]
fn key(bencher: Bencher<'_, '_>, tenants: usize) {
    let of = |n: usize| format!("tw-{n:043}");
    let tenants: Vec<_> = (0..tenants)
        .map(|n| {
            let keys = vec![Digest::of(of(n).as_bytes())];
            let id = format!("t{n}").parse().expect("a name");
            let allowance = Allowance { requests_per_minute: Some(1 << 30), ..Allowance::default() };
            Arc::new(Tenant { id, keys, routes: Vec::new(), models: Vec::new(), allowance })
        })
        .collect();
    let guests = Guests::new(&tenants, &Meters::default());
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {}", of(tenants.len() / 2)).parse().expect("a value"));
    bencher.bench_local(|| {
        let guest = guests.of(black_box(&headers)).expect("it is known");
        guest.usage.admit(&guest.tenant.allowance)
    });
}
