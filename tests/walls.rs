//! What the architecture promises about the sources, and the documentation about the program.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a directory whose name ends so, sorted.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The source of a room without comments and without what is compiled for tests only, by file.
fn room(name: &str) -> Vec<(PathBuf, String)> {
    let all: Vec<(PathBuf, String)> = files(&root().join("src").join(name), ".rs")
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(&path).expect("it can be read")))
        .collect();
    // `#[cfg(test)] mod x;` exempts the file of x.
    let mut for_tests = BTreeSet::new();
    for (path, text) in &all {
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if line.trim() == "#[cfg(test)]"
                && let Some(module) = lines.peek().and_then(|next| next.trim().strip_suffix(';'))
            {
                let module = module.rsplit(' ').next().expect("it has a name");
                let own = path.with_extension("");
                let dir = if path.ends_with("mod.rs") { path.parent().expect("a room") } else { &own };
                for_tests.insert(dir.join(format!("{module}.rs")));
            }
        }
    }
    let kept = all.into_iter().filter(|(path, _)| !for_tests.contains(path));
    kept.map(|(path, text)| (path, product_code(&text))).collect()
}

/// The lines without comments and without items for tests.
fn product_code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = line.len() - line.trim_start().len();
            let mut item = lines.next();
            while let Some(inner) = item {
                let same_depth = inner.len() - inner.trim_start().len() == indent;
                if same_depth
                    && (inner.trim_end().ends_with(';')
                        || inner.trim() == "}"
                        || inner.trim_end().ends_with('}'))
                {
                    break;
                }
                item = lines.next();
            }
            continue;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// The rooms that a source imports, also by `use crate::{a::..., b}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            rooms.insert(name_at(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (offset, letter) in list.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                letter if start && letter.is_alphabetic() => {
                    rooms.insert(name_at(&list[offset..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let code = "use crate::{\n    model::{A, b::C},\n    cost,\n};\nfn f() { crate::policy::g() }";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["cost", "model", "policy"]);
    let kept =
        product_code("a;\n#[cfg(test)]\nmod tests;\nb;\n#[cfg(test)]\nmod more {\n    c;\n}\nd; // e\n");
    assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a;", "b;", "d;"]);
}

/// Time is an argument, and nothing comes in or goes out: so a recorded snapshot replays to the same decision.
#[test]
fn the_decision_knows_no_runtime_no_network_and_no_clock() {
    let forbidden = [
        "tokio",
        "hyper",
        "pingora",
        "axum",
        "async fn",
        ".await;",
        ".await?",
        ".await.",
        ".await)",
        "std::net::Tcp",
        "std::net::Udp",
        "TcpStream",
        "UdpSocket",
        "ToSocketAddrs",
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "std::io",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "fastrand",
        "println!",
        "tracing::",
    ];
    for name in ["model", "cost", "policy", "plan", "rules", "record", "report"] {
        let sources = room(name);
        assert!(!sources.is_empty());
        // A condition is compiled on a thread with a stack of its own.
        let may = |word: &str| name == "rules" && word == "std::thread";
        for (path, code) in sources {
            let found: Vec<&str> =
                forbidden.into_iter().filter(|word| code.contains(word) && !may(word)).collect();
            assert!(found.is_empty(), "{} uses {found:?}", path.display());
        }
    }
}

#[test]
fn imports_run_one_way() {
    // What each room may import beside itself; `demo` and `cli` are on top.
    let may: [(&str, &[&str]); 15] = [
        ("model", &[]),
        ("cost", &["model"]),
        ("policy", &["model", "cost"]),
        ("plan", &["model", "cost", "chart"]),
        ("simulate", &["model", "cost", "policy", "plan", "chart", "rules"]),
        // CEL stays in here: a decision reads what came out, which is plain data.
        ("rules", &["model", "cost"]),
        ("record", &["model", "cost", "policy"]),
        ("report", &["model", "policy", "record", "chart"]),
        ("signals", &["model"]),
        ("store", &["model"]),
        ("proxy", &["model", "signals", "telemetry"]),
        // A configuration names price sources, looks up fees in the tables of costs, and compiles rules.
        ("config", &["model", "cost", "rules", "signals"]),
        ("admin", &["model", "signals", "store", "config", "chart"]),
        ("telemetry", &["model", "signals", "config"]),
        (
            "control",
            &[
                "model",
                "cost",
                "policy",
                "rules",
                "record",
                "signals",
                "store",
                "proxy",
                "config",
                "admin",
                "telemetry",
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, allowed) in may {
        for (path, code) in room(name) {
            let beyond = imports(&code).into_iter().filter(|to| *to != name && !allowed.contains(&&**to));
            wrong.extend(beyond.map(|to| format!("{} imports {to}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (name, code) in room("demo") {
        assert!(!imports(&code).contains("cli"), "{} imports cli", name.display());
    }
}

/// The lines of commands in the fenced blocks of a page.
fn commands(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).expect("it can be read");
    let mut commands = Vec::new();
    let mut within = false;
    let mut continued = false;
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            within = !within && matches!(language.trim(), "sh" | "bash" | "console" | "shell");
            continue;
        }
        if within {
            let whole = line.trim_end_matches('\\').to_owned();
            match commands.last_mut() {
                Some(last) if continued => *last = format!("{last} {whole}"),
                _ => commands.push(whole),
            }
            continued = line.ends_with('\\');
        }
    }
    commands
}

/// Words as a shell splits them, as far as our pages need it.
fn words(command: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut open, mut quote) = (false, None);
    for letter in command.chars() {
        match (quote, letter) {
            (None, '#') if !open => break,
            (None, '"' | '\'') => {
                quote = Some(letter);
                if !open {
                    words.push(String::new());
                }
                open = true;
            }
            (Some(end), letter) if end == letter => quote = None,
            (None, letter) if letter.is_whitespace() => open = false,
            _ => {
                if !open {
                    words.push(String::new());
                }
                open = true;
                words.last_mut().expect("one was opened").push(letter);
            }
        }
    }
    words
}

#[test]
fn every_command_in_the_documentation_is_one_of_the_program() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("there is a Makefile");
    let mut pages = files(&root().join("docs"), ".md");
    pages.extend(["README.md", "ARCHITECTURE.md", "config/README.md"].map(|name| root().join(name)));
    let (mut ours, mut targets) = (0, 0);
    for page in pages.iter().filter(|page| page.exists()) {
        for command in commands(page) {
            let words = words(&command);
            let Some(program) = words.iter().position(|word| !word.contains('=')) else { continue };
            let words = &words[program..];
            if words[0] == "tradewind" || words[0].ends_with("/tradewind") {
                let pipe = words
                    .iter()
                    .position(|word| matches!(&**word, "|" | "&&" | ">" | "&"))
                    .unwrap_or(words.len());
                if let Err(error) = tradewind::cli::Cli::try_parse_from(&words[..pipe]) {
                    let help = matches!(
                        error.kind(),
                        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
                    );
                    assert!(help, "{}: `{command}`: {error}", page.display());
                }
                ours += 1;
            }
            if words[0] == "make" {
                for target in words[1..].iter().filter(|word| !word.contains('=') && !word.starts_with('-')) {
                    let rule = format!("\n{target}:");
                    assert!(makefile.contains(&rule), "{}: there is no `make {target}`", page.display());
                    targets += 1;
                }
            }
        }
    }
    assert!(ours >= 5 && targets >= 2, "{ours} commands and {targets} targets were found");
}

#[test]
fn every_file_that_the_documentation_links_to_is_there() {
    let mut pages = files(&root().join("docs"), ".md");
    let others = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "config/README.md", "tests/data/README.md"];
    pages.extend(others.map(|name| root().join(name)));
    for page in pages.iter().filter(|page| page.exists()) {
        let text = fs::read_to_string(page).expect("it can be read");
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let link = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let target = page.parent().expect("a directory").join(link);
            assert!(target.exists(), "{}: {link} is not there", page.display());
        }
    }
}
