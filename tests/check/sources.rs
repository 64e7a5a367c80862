//! Several files, and variables of the environment.

use std::{fs, path::Path, process::Command};

use tradewind::config;

const MORE: &str = "[backends.c]\nurl = \"https://c.example.com\"\ncloud = \"other\"\nregion = \"x\"\n\
                    egress_usd_per_gb = 0\n";

/// What `check` says about a directory of these files, with these variables.
fn check(files: &[(&str, &str)], variables: &[(&str, &str)]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("prices.csv"),
        "at,cloud,region,zone,instance_type,offer,usd_per_hour\n\
         2026-01-01T00:00:00Z,aws,us-east-1,,g5.2xlarge,on_demand,1.2\n\
         2026-01-01T00:00:00Z,gcp,us-central1,,g2-standard-8,on_demand,0.8\n",
    )
    .unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tradewind"))
        .args(["check", "--config"])
        .arg(dir.path())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said.replace(&format!("{}/", dir.path().display()), ""))
}

#[test]
fn files_share_what_operators_name_and_nothing_else() {
    let (valid, said) = check(&[("a.toml", super::GOOD), ("b.toml", MORE)], &[]);
    assert!(valid && said.contains("backends: 3"), "{said}");
    let again = format!("\n\n{MORE}");
    let (valid, said) = check(&[("a.toml", super::GOOD), ("b.toml", MORE), ("c.toml", &again)], &[]);
    assert!(!valid);
    assert!(
        said.contains("c.toml:3:11: error: `backends.c` is written twice: it is at b.toml:1 as well"),
        "{said}"
    );
    let (valid, said) = check(&[("a.toml", super::GOOD), ("b.toml", "[prices]\nrefresh = \"1m\"\n")], &[]);
    assert!(!valid);
    assert!(
        said.contains("b.toml:1:2: error: `prices` is written twice: it is at a.toml:1 as well"),
        "{said}"
    );
    assert!(said.contains("keep it in one file"), "{said}");
}

#[test]
fn faults_name_the_file_that_they_are_in() {
    let broken = "\u{feff}# ü\n[backends.c]\nurl = 5\n[routes.chat2]\nmatch = { path = \"/v1/*\" }\nbackends = [\"nobody\"]\n";
    let (valid, said) = check(&[("a.toml", super::GOOD), ("b.toml", broken)], &[]);
    assert!(!valid);
    for part in [
        "b.toml:3:7: error: backends.c.url: found an integer",
        "b.toml:6:13: error: routes.chat2.backends[0]",
        "(a.toml:15) matches the same requests",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    let (valid, said) = check(&[("a.toml", super::GOOD), ("b.toml", "a = = 1\n")], &[]);
    assert!(!valid && said.contains("b.toml:1:5: error: not TOML"), "{said}");
    let (valid, said) = check(&[("notes.txt", "")], &[]);
    assert!(!valid && said.contains("there is no file *.toml in the directory"), "{said}");
}

#[test]
fn variables_replace_what_files_say() {
    let good = [("a.toml", super::GOOD)];
    // The route's list, a name with another case, and a number.
    let (valid, said) = check(
        &[("a.toml", super::GOOD), ("b.toml", &MORE.replace("backends.c", "backends.eks-use1"))],
        &[
            ("TRADEWIND__ROUTES__CHAT__BACKENDS", "[\"a\", \"eks-use1\"]"),
            ("TRADEWIND__BACKENDS__EKS_USE1__URL", "https://other.example.com"),
            ("TRADEWIND__BACKENDS__A__REPLICAS__MAX", "7"),
            ("TRADEWIND__CONTROL__TICK", "2s"),
        ],
    );
    assert!(valid && said.contains("backends: 3"), "{said}");
    let (valid, said) = check(&good, &[("TRADEWIND__BACKENDS__A__URL", "nonsense")]);
    assert!(!valid);
    assert!(
        said.contains("environment variable TRADEWIND__BACKENDS__A__URL: error: backends.a.url:"),
        "{said}"
    );
    let (valid, said) = check(&good, &[("TRADEWIND__LISTN__HTTP", "127.0.0.1:1")]);
    assert!(!valid);
    assert!(
        said.contains("environment variable TRADEWIND__LISTN__HTTP: error: unknown key `listn`"),
        "{said}"
    );
    assert!(said.contains("did you mean `listen`?"), "{said}");
    let (valid, said) = check(&good, &[("TRADEWIND__BACKENDS__A__REPLICAS__MAX", "many more")]);
    assert!(!valid && said.contains("REPLICAS__MAX: error: not a value in TOML"), "{said}");
    let (valid, said) =
        check(&good, &[("TRADEWIND__LISTEN__HTTP__ADDR", "127.0.0.1:1"), ("TRADEWIND__", "x")]);
    assert!(!valid && said.contains("listen.http: found a table"), "{said}");
    assert!(
        check(&good, &[("TRADEWIND_PORT", "tcp://10.0.0.1:80")]).0,
        "what Kubernetes sets is none of ours"
    );
}

#[test]
fn a_candidate_as_a_whole_is_named_by_itself() {
    let name = |files: &[&str]| {
        let files: Vec<_> = files.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        let faults =
            config::load_instead(&files, Path::new("running.toml")).expect_err("there is no backend");
        faults.faults[0].file.to_string()
    };
    assert_eq!(name(&["new.toml"]), "new.toml");
    assert_eq!(name(&["new/a.toml", "new/b.toml"]), "new");
    for mixed in [&["a.toml", "b.toml"][..], &["new/a.toml", "old/b.toml"], &[]] {
        assert_eq!(name(mixed), "the candidate", "{mixed:?}");
    }
}
