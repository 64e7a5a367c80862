use std::fmt::Write as _;

use super::*;

/// Every problem of a condition, with the text from its place on.
fn problems(condition: &str) -> String {
    let problems = CompiledRule::compile("r", condition, Effect::Deny).expect_err(condition);
    let mut text = String::new();
    for Problem { offset, message, hint } in problems {
        let _ = writeln!(text, "{message} <- {:?}", condition.get(offset..).unwrap_or("NO SUCH PLACE"));
        if let Some(hint) = hint {
            let _ = writeln!(text, "    {hint}");
        }
    }
    text
}

#[test]
fn explore() {
    let parens = format!("{}true{}", "(".repeat(2000), ")".repeat(2000));
    let plus = format!("1{} == 1", "+1".repeat(2000));
    let nots = format!("{}true", "!".repeat(4000));
    let minus = format!("{}1 == 1", "- ".repeat(2000));
    let dots = format!("backend{} == 1", ".a".repeat(2000));
    let lists = format!("1 in {}{}", "[".repeat(2000), "]".repeat(2000));
    let index = format!("backend.zones{} == 1", "[0]".repeat(1300));
    let calls = format!("backend.id{}", ".size()".repeat(550));
    let tern = format!("{}true", "true ? true : ".repeat(290));
    let ands = format!("true{}", " && true".repeat(500));
    let long = [&parens, &plus, &nots, &minus, &dots, &lists, &index, &calls, &tern, &ands];
    for condition in [
        "", "backend.regoin == 'eu'", "backnd.region == 'eu'", "backend.region.startsWith('eu'", "backend.region = 'eu'",
        "backend.region", "backend.region > 3", "backend.price.spot * 2 > 3", "ü == 'ü' && x", "'ü' == backend.regio",
        "backend.zones.exists(z, z == 'a')", "backend.region.startswith('eu')", "backend.region.matches('eu')", "now.hour >= '7'", "has(backend.region.x)",
        "has(backend.prise.spot)", "1", "null == backend.region", "b'a' == b'a'", "1u == 1u", "{'a': 1}.a == 1", "Foo{a: 1} == 1", "backend.?region == 1",
        "'a' in 'abc'", "1 in backend.zones", "backend.zones[0] == 1", "backend['region'] == 'a'", "true &&\n  backend.regoin == 'a'", "backend.region == 'eu' and true", "@", "'abc", "\"\\q\"", "true ? 1 : 2", "type(1) == int", "1 < 2 < 3",
        "9223372036854775808 == 1", "now.hour in [1, 'a']", "[1,2] == ['a']", "size(1) == 1", "-backend.id == 1", "!now.hour",
    ].iter().map(|s| s.to_string()).chain(long.into_iter().cloned()) {
        eprintln!("{}", &condition.chars().take(60).collect::<String>());
        match CompiledRule::compile("r", &condition, Effect::Deny) {
            Ok(_) => eprintln!("    OK"),
            Err(_) => { let p = problems(&condition); eprintln!("    {}", p.chars().take(300).collect::<String>()) }
        }
    }
}

#[test]
fn explore_depth() {
    let n: usize = std::env::var("N").unwrap().parse().unwrap();
    let which = std::env::var("W").unwrap();
    let text = match which.as_str() {
        "parens" => format!("{}true{}", "(".repeat(n), ")".repeat(n)),
        "plus" => format!("1{} == 1", "+1".repeat(n)),
        "nots" => format!("{}true", "!".repeat(n)),
        "minus" => format!("{}1 == 1", "- ".repeat(n)),
        "dots" => format!("backend{} == 1", ".a".repeat(n)),
        "lists" => format!("1 in {}{}", "[".repeat(n), "]".repeat(n)),
        "index" => format!("backend.zones{} == 1", "[0]".repeat(n)),
        "calls" => format!("backend.id{}", ".size()".repeat(n)),
        "tern" => format!("{}true", "true ? true : ".repeat(n)),
        "ands" => format!("true{}", " && true".repeat(n)),
        "lt" => format!("1{}", "<1".repeat(n)),
        "mix" => format!("{}true{}", "!(true && ".repeat(n), ")".repeat(n)),
        _ => panic!(),
    };
    match CompiledRule::compile("r", &text[..text.len().min(40960)], Effect::Deny) { Ok(_) => eprintln!("OK"), Err(p) => eprintln!("{}", p[0].message.chars().take(100).collect::<String>()) }
}
