//! From the arrival of a request to its peer: route match, share, address. Goal: under 200 ns with 100 routes of 50 backends.

use std::sync::Arc;

use divan::{Bencher, black_box};
use pingora_http::RequestHeader;
use tradewind::{
    model::{Backend, BackendEntry, RouteEntry, RoutingTable},
    proxy::{Common, Publisher, incoming::Incoming, matcher::Found},
    signals::traffic::Meters,
};

mod worlds;

/// What the program allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// `routes` routes, each divided evenly among `backends` backends.
fn table(routes: usize, backends: usize) -> RoutingTable {
    let all: Vec<Arc<Backend>> = (0..backends).map(worlds::backend).collect();
    let share = 1.0 / backends as f64;
    RoutingTable {
        generation: 1,
        routes: (0..routes)
            .map(|n| RouteEntry {
                route: worlds::route(n, &all),
                shares: (0..backends).map(|b| (b, share)).collect(),
                failover: (0..backends).collect(),
                decision: None,
            })
            .collect(),
        backends: all
            .into_iter()
            .map(|backend| BackendEntry {
                backend,
                addresses: ["127.0.0.1:8000".parse().expect("an address")].into(),
            })
            .collect(),
    }
}

#[divan::bench(args = [1, 10, 100, 1000], sample_size = 1000)]
fn route_match_to_peer(bencher: Bencher<'_, '_>, routes: usize) {
    let publisher = Publisher::new(Arc::new(Meters::default()));
    publisher.publish(&table(routes, 50), Common::default());
    let tables = publisher.current();
    let path = format!("/model-{}/v1/chat/completions", routes / 2);
    let mut request = RequestHeader::build("POST", path.as_bytes(), None).expect("a valid request");
    request.insert_header("host", "api.example.com").expect("a valid header");
    bencher.bench_local(|| {
        let table = tables.load();
        let found = table.matcher.find(&Incoming::new(black_box(&request), &table.common));
        let Some(Found::Route(lane)) = found else { panic!("no route") };
        let lane = &table.lanes[lane];
        let position = lane.division.next_position();
        let target = lane.division.at(position).expect("a backend");
        // Dropped here, as a request does: keeping a thousand of them would measure the growth of the heap.
        drop(black_box(table.targets[target].peer(position as usize)));
    });
}
