//! A new configuration is taken up as a whole and unnoticed by clients, or not at all and said why.

mod harness;

use std::time::Duration;

use harness::{Backend, Config, Load, Tradewind, client::Exchange, eventually, load, put, until};
use serde_json::Value;

fn reload(tradewind: &Tradewind) -> (u16, Value) {
    tradewind.call("POST", "/v1/reload", None)
}

fn write(tradewind: &Tradewind, config: &Config) {
    config.write(tradewind.dir());
}

fn generation(tradewind: &Tradewind) -> u64 {
    tradewind.json("/v1/status")["config_generation"].as_u64().expect("it is a number")
}

/// What the journal says about reloads, newest first.
fn journal(tradewind: &Tradewind) -> Vec<Value> {
    let journal = tradewind.json("/v1/decisions");
    let entries = journal["decisions"].as_array().expect("a list");
    entries.iter().filter(|entry| entry["kind"] == "config").cloned().collect()
}

#[test]
fn a_thousand_reloads_under_load_fail_no_request() {
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let one = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    let other =
        Config::new(&[(&a, 1.0), (&b, 2.0), (&c, 0.5)]).policy("hold = \"0s\"\nramp = \"1000%/s\"").slo("5s");
    let tradewind = Tradewind::start(&one);
    let load = Load::start(tradewind.http, &["GET", "POST", "GET", "POST"], Duration::from_millis(5));
    let before = generation(&tradewind);
    for n in 0..1000 {
        write(&tradewind, if n % 2 == 0 { &other } else { &one });
        let (status, answer) = reload(&tradewind);
        assert_eq!(status, 200, "reload {n}: {answer}");
    }
    // The watched file may have been taken up in between as well.
    assert!(generation(&tradewind) >= before + 1000);
    let records = load.finish();
    assert!(load::failures(&records).is_empty(), "{:?}", load::failures(&records));
    eprintln!("1000 reloads: {} requests, none failed; c had {}", records.len(), c.requests());
    assert!(records.len() > 200 && c.requests() > 0);
}

#[test]
fn a_broken_file_leaves_the_old_configuration_running_and_says_why() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let good = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    let tradewind = Tradewind::start(&good);
    let in_force = tradewind.json("/v1/config");
    // One part of it is good, and would be seen.
    let text = good
        .text()
        .replace("shift_at = \"15%\"", "shift_at = \"40%\"")
        .replace("hold = \"0s\"", "hodl = \"0 seconds\"");
    put(tradewind.dir(), "t.toml", &text.replace("backends = [\"a\", \"b\"]", "backends = [\"a\", \"x\"]"));
    let (status, problem) = reload(&tradewind);
    assert_eq!((status, &problem["code"]), (422, &"invalid_config".into()));
    let faults = problem["faults"].to_string();
    for part in ["hodl", "did you mean", "`x`"] {
        assert!(faults.contains(part), "{part:?} is not in {faults}");
    }
    assert!(problem["faults"].as_array().unwrap().len() >= 2, "all faults at once: {faults}");
    let said = tradewind.json("/v1/status")["config_error"].to_string();
    assert!(said.contains("t.toml") && said.contains("hodl"), "{said}");
    assert!(tradewind.metric("tradewind_config_reload_failures_total{}").is_some_and(|count| count >= 1.0));
    let output = tradewind.cli(&["status"]);
    assert!(harness::stdout(&output).contains("the last reload was refused"));
    assert_eq!(tradewind.json("/v1/config"), in_force);
    assert_eq!(tradewind.explain()["decision"]["shift_at"], 0.15);
    assert_eq!(tradewind.fetch("/").text(), "a");
    eventually("the journal has it", || journal(&tradewind).iter().any(|entry| entry["event"] == "refused"));

    std::fs::remove_file(tradewind.dir().join("prices.csv")).unwrap();
    put(tradewind.dir(), "t.toml", &good.text());
    let (status, problem) = reload(&tradewind);
    assert_eq!(status, 422, "a file that it names is missing: {problem}");
    assert_eq!(tradewind.fetch("/").text(), "a");

    write(&tradewind, &good);
    assert_eq!(reload(&tradewind).0, 200);
    assert_eq!(tradewind.json("/v1/status")["config_error"], Value::Null);
}

#[test]
fn a_hang_up_and_a_changed_file_reload_too() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    let tradewind = Tradewind::start(&config);
    tradewind.signal("HUP");
    eventually("the signal is followed", || {
        journal(&tradewind).iter().any(|entry| entry["author"] == "SIGHUP")
    });
    assert_eq!(generation(&tradewind), 2);
    write(&tradewind, &config.policy("shift_at = \"40%\""));
    eventually("the change is seen", || tradewind.explain()["decision"]["shift_at"] == 0.4);
    eventually("the journal has it", || {
        let taken_up = |entry: &Value| entry["author"] == "file watch" && entry["event"] == "reloaded";
        journal(&tradewind).iter().any(taken_up)
    });
}

#[test]
fn what_needs_a_restart_is_refused_with_all_that_came_with_it() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    let tradewind = Tradewind::start(&config);
    let text = config.text().replace("shift_at = \"15%\"", "shift_at = \"40%\"");
    put(tradewind.dir(), "t.toml", &text.replacen("127.0.0.1:0", "127.0.0.1:1", 1));
    let (status, problem) = reload(&tradewind);
    assert_eq!((status, &problem["code"]), (409, &"needs_restart".into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("listen.http"), "{problem}");
    assert_eq!(tradewind.explain()["decision"]["shift_at"], 0.15);
    assert_eq!(generation(&tradewind), 1);
    assert_eq!(tradewind.fetch("/").text(), "a");
}

#[test]
fn a_backend_that_is_added_gets_traffic_and_one_that_is_removed_loses_it_but_no_stream() {
    let (a, push) = Backend::pausing("a");
    let b = Backend::named("b");
    let tradewind = Tradewind::start(&Config::new(&[(&a, 1.0)]));
    let mut stream = Exchange::begin(tradewind.http, "POST", "/stream", &[], b"{}").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    let load = Load::start(tradewind.http, &["GET", "POST"], Duration::from_millis(5));
    eventually("there is traffic", || load.count() > 20);

    write(&tradewind, &Config::new(&[(&a, 1.0), (&b, 0.5)]));
    assert_eq!(reload(&tradewind).0, 200);
    let share = until("the cheaper newcomer gets traffic", || {
        let share = tradewind.share("b");
        (share > 0.0).then_some(share)
    });
    assert!(share < 1.0, "it is warmed, not given all at once");
    tradewind.wait_for_share("b", 1.0);

    write(&tradewind, &Config::new(&[(&b, 0.5)]));
    assert_eq!(reload(&tradewind).0, 200);
    assert_eq!(tradewind.json("/v1/status")["routes"][0]["backends"].as_array().unwrap().len(), 1);
    assert_eq!(tradewind.fetch("/").text(), "b");
    push.send(()).unwrap();
    assert_eq!(stream.rest().unwrap(), b"data: 2\n\n");
    // The other way round there is no time for a ramp: nobody else is left.
    write(&tradewind, &Config::new(&[(&a, 1.0)]));
    assert_eq!(reload(&tradewind).0, 200);
    eventually("the only one serves", || tradewind.fetch("/").text() == "a");
    let records = load.finish();
    assert!(load::failures(&records).is_empty(), "{:?}", load::failures(&records));
}

/// A ConfigMap in a pod: `t.toml` leads to `..data/t.toml`, and `..data` to a directory that is replaced as a whole.
#[test]
fn a_swapped_config_map_is_taken_up() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    let dir = tempfile::tempdir().unwrap();
    let mount = |name: &str, config: &Config| {
        let version = dir.path().join(name);
        std::fs::create_dir(&version).unwrap();
        config.write(&version);
        let beside = dir.path().join("..data_tmp");
        std::os::unix::fs::symlink(name, &beside).unwrap();
        std::fs::rename(&beside, dir.path().join("..data")).unwrap();
    };
    // Written as it starts, and then replaced by what a kubelet makes of it.
    let tradewind = {
        mount("..2026_03_02_10_00_00.1", &config);
        let started = Tradewind::start_in(dir.path(), &config);
        for name in ["t.toml", "prices.csv"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
            std::os::unix::fs::symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
        }
        started
    };
    assert_eq!(tradewind.explain()["decision"]["shift_at"], 0.15);
    for (version, shift_at) in [("..2026_03_02_11_00_00.2", "30%"), ("..2026_03_02_12_00_00.3", "45%")] {
        // Of the same length: nothing but the file itself tells them apart.
        let policy =
            format!("shift_at = \"{shift_at}\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"100%/s\"");
        mount(version, &config.clone().policy(&policy));
        let expected: f64 = shift_at.trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
        eventually("the new one is in force", || {
            tradewind.explain()["decision"]["shift_at"]
                .as_f64()
                .is_some_and(|at| (at - expected).abs() < 1e-9)
        });
    }
    let events: Vec<Value> = journal(&tradewind).into_iter().map(|entry| entry["event"].clone()).collect();
    assert!(events.iter().all(|event| event == "reloaded"), "{events:?}");
}
