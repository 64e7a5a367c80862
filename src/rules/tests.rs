use std::{fmt::Write as _, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{LoadReport, Share},
    policy::worlds::{World, price},
};

/// The condition of a rule that denies.
fn compile(condition: &str) -> CompiledRule {
    CompiledRule::compile("r", condition, Effect::Deny)
        .unwrap_or_else(|problems| panic!("{condition}: {problems:?}"))
}

/// Every problem of a condition, with the text from its place on.
fn problems(condition: &str) -> String {
    let problems = CompiledRule::compile("r", condition, Effect::Deny).expect_err(condition);
    let mut text = String::new();
    for Problem { offset, message, hint } in problems {
        let _ = writeln!(text, "{message} @ {}", condition.get(offset..).expect("a place in the condition"));
        if let Some(hint) = hint {
            let _ = writeln!(text, "  {hint}");
        }
    }
    text
}

/// Wednesday, 2026-03-04, 08:30 UTC: the backend `full` about which everything is known, and `bare` about which little is.
fn snapshot() -> Snapshot {
    let mut world = World::new(&[("full", 0.5), ("bare", 1.0)]);
    world.configure("full", |backend| {
        backend.region = "eu-west-1".into();
        backend.cloud = crate::model::Cloud::Aws;
        backend.platform = crate::model::Platform::CloudRun;
        backend.zones = vec!["eu-west-1a".into(), "eu-west-1b".into()];
        backend.node.as_mut().unwrap().spot = Share::new(0.9).unwrap();
    });
    world.configure("bare", |backend| (backend.node, backend.replicas) = (None, None));
    let full = world.view_mut("full");
    full.on_demand = Some(price(1.25));
    full.load = LoadReport { ready_replicas: Some(3), ..LoadReport::default() };
    full.probe = Some(crate::model::ProbeView {
        connect: Duration::from_millis(5),
        first_byte: Some(Duration::from_millis(40)),
        at: crate::policy::worlds::at(0),
    });
    full.live.ttfb_p50 = Some(Duration::from_millis(200));
    full.live.ttfb_p95 = Some(Duration::from_millis(900));
    let bare = world.view_mut("bare");
    (bare.spot, bare.health) = (None, crate::model::Health::Unknown);
    let mut snapshot = world.snapshot;
    snapshot.at = "2026-03-04T08:30:00Z".parse().unwrap();
    snapshot.slo.ttft_p95 = Some(Duration::from_millis(800));
    snapshot
}

const FACTS: [Facts; 2] = [
    Facts { share: 0.75, unit_cost_usd_per_1k: Some(0.0125) },
    Facts { share: 0.25, unit_cost_usd_per_1k: None },
];

/// Whether a condition holds for `full` and for `bare`, or why that cannot be said.
fn asked(condition: &str) -> [Result<bool, String>; 2] {
    let (rule, snapshot) = (compile(condition), snapshot());
    let moment = Moment::of(&snapshot);
    [0, 1].map(|place| rule.holds(&moment.context(&snapshot.backends[place], FACTS[place])))
}

#[test]
fn conditions_see_what_is_known() {
    for condition in [
        "backend.id == 'full'",
        "backend.cloud == 'aws' && backend.platform == 'cloud-run'",
        "backend.region.startsWith('eu-') && backend.region.endsWith('-1') && backend.region.contains('west')",
        "'eu-west-1b' in backend.zones && size(backend.zones) == 2 && backend.zones[0] == 'eu-west-1a'",
        "backend.spot == 0.9",
        "backend.price.spot == 0.5 && backend.price.on_demand > 1 && backend.price.spot * 2.0 < backend.price.on_demand",
        "backend.unit_cost < 0.02",
        "backend.healthy && backend.share >= 0.75",
        "backend.ready_replicas < backend.max_replicas && backend.ready_replicas % 2 == 1",
        "backend.latency.probe_seconds < 0.05 && backend.latency.ttfb_p50_seconds < backend.latency.ttfb_p95_seconds",
        "has(backend.price.spot) ? backend.price.spot < 1.0 : false",
        "backend.latency.ttfb_p95_seconds > route.slo_ttft_p95_seconds && backend.id != 'x'",
        "double(backend.ready_replicas) / 2.0 == 1.5 && string(now.year) == '2026' && int(backend.share) == 0",
    ] {
        assert_eq!(asked(condition)[0], Ok(true), "{condition}");
        assert_ne!(asked(condition)[1], Ok(true), "{condition}");
    }
    for condition in [
        "now.year == 2026 && now.month == 3 && now.day == 4 && now.weekday == 3",
        "now.hour >= 7 && now.hour < 10 && now.minute == 30",
        "now.hour in [8, 9]",
        "route.id == 'chat' && load.demand_rps == 50.0 && load.demand_rps > 49",
        "has(route.slo_ttft_p95_seconds) && route.slo_ttft_p95_seconds < 1",
    ] {
        assert_eq!(asked(condition), [Ok(true), Ok(true)], "{condition}");
    }
}

/// Every field that the check knows is there when everything is known: the two lists of names are the same.
#[test]
fn every_field_has_a_value() {
    fn walk(prefix: &str, record: &vocabulary::Record, paths: &mut Vec<String>) {
        for field in record.fields {
            let path =
                if prefix.is_empty() { field.name.to_owned() } else { format!("{prefix}.{}", field.name) };
            match field.kind() {
                vocabulary::Kind::Record(record) => walk(&path, record, paths),
                _ => paths.push(path),
            }
        }
    }
    let mut paths = Vec::new();
    walk("", &vocabulary::VARIABLES, &mut paths);
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        let condition = format!("{path} == {path}");
        let [full, bare] = asked(&condition);
        assert_eq!(full, Ok(true), "{path}");
        // What can be missing is known to be so.
        assert_eq!(
            compile(&condition).unguarded().is_none(),
            bare.is_ok() && !path.starts_with("route.slo"),
            "{path}"
        );
    }
}

#[test]
fn what_is_not_known_decides_nothing_unless_it_does_not_matter() {
    let unknown = |what: &str| Err(format!("backend.{what} is not known"));
    assert_eq!(asked("backend.price.spot > 2.0")[1], unknown("price.spot"));
    assert_eq!(asked("!(backend.unit_cost < 1.0)")[1], unknown("unit_cost"));
    assert_eq!(asked("backend.price.spot > 2.0 || backend.id == 'bare'")[1], Ok(true));
    assert_eq!(asked("backend.id == 'x' && backend.price.spot > 2.0")[1], Ok(false));
    assert_eq!(asked("backend.price.spot > 2.0 && backend.id == 'x'")[1], Ok(false));
    assert_eq!(asked("has(backend.price.spot) && backend.price.spot > 2.0")[1], Ok(false));
    assert_eq!(asked("backend.zones[7] == 'x'")[0], Err("a list has no such place".into()));
    assert_eq!(asked("1 / (now.hour - 8) == 1")[0], Err("it divides by zero".into()));
    assert_eq!(asked("now.year * 9223372036854775807 > 1")[0], Err("a number gets too large".into()));
    let guard = |condition| compile(condition).unguarded().map(|(what, _)| what);
    assert_eq!(guard("backend.price.spot > 2.0").as_deref(), Some("backend.price.spot"));
    assert_eq!(
        guard("has(backend.price.on_demand) && backend.price.spot > 2.0").as_deref(),
        Some("backend.price.spot")
    );
    assert_eq!(guard("!has(backend.price.spot) || backend.price.spot > 2.0"), None);
}

#[test]
fn slips_are_named_with_their_place() {
    let all = [
        "",
        "backend.regoin == 'eu'",
        "backnd.region == 'eu'",
        "now.hour >= 7 && backend.colour == 'red' && foo",
        "backend.region.startsWith('eu'",
        "backend.region = 'eu'",
        "backend.region == 'eu' and true",
        "backend.region == 'eu",
        "'ü' == backend.regio",
        "true &&\n  backend.regoin == 'a'",
    ];
    insta::assert_snapshot!(all.map(problems).join("\n"), @"
    is empty, expected a condition @ 

    unknown field `regoin` @ regoin == 'eu'
      did you mean `region`?

    unknown variable `backnd` @ backnd.region == 'eu'
      did you mean `backend`?

    unknown field `colour` @ colour == 'red' && foo
      did you mean `cloud`?
    unknown variable `foo` @ foo
      there are: `backend`, `route`, `load`, `now`

    is not CEL: missing ')' at the end @ 

    is not CEL: this cannot be read @ = 'eu'
      `==` compares

    is not CEL: 'and' is not expected here @ and true
      write `&&` for and

    is not CEL: this cannot be read @ 'eu

    unknown field `regio` @ regio
      did you mean `region`?

    unknown field `regoin` @ regoin == 'a'
      did you mean `region`?
    ");
}

#[test]
fn kinds_that_do_not_fit_are_named_before_anything_is_evaluated() {
    let all = [
        "backend.region",
        "backend.price",
        "now.hour + 1",
        "backend.region > 3",
        "now.hour >= '7'",
        "backend.price.spot * 2 > 3.0",
        "now.hour && true",
        "!now.hour",
        "-backend.id == 'x'",
        "'a' in 'abc'",
        "1 in backend.zones",
        "now.hour in [1, 'a']",
        "backend['region'] == 'a'",
        "has(backend.region.x)",
        "has(backend.prise.spot)",
        "size(1) == 1",
        "true ? 1 : '2'",
    ];
    insta::assert_snapshot!(all.map(problems).join("\n"), @"
    is a text, expected a condition: true or false @ backend.region
      compare it with something

    is a value with fields, expected a condition: true or false @ backend.price
      compare it with something

    is a whole number, expected a condition: true or false @ now.hour + 1
      compare it with something

    `>` does not go between a text and a whole number @ > 3

    `>=` does not go between a whole number and a text @ >= '7'

    `*` does not go between a number with a fraction and a whole number @ * 2 > 3.0
      write 2.0 for 2, or double(x) for x

    found a whole number, but `&&` joins conditions @ now.hour && true

    found a whole number, but `!` turns around conditions @ now.hour

    found a text, but `-` needs a number @ backend.id == 'x'

    found a text, but `in` looks into a list; a text has `contains` @ 'abc'

    a whole number is never in a list of texts @ 1 in backend.zones

    a list of whole numbers has a text in it @ 'a']

    `[]` takes a part of a list, not of a value with fields @ ['region'] == 'a'
      fields are written with a dot: `backend.region`

    a text has no field `x` @ x)

    unknown field `prise` @ prise.spot)
      did you mean `price`?

    found a whole number, but `size` counts a text or a list @ 1) == 1

    is a whole number or a text, expected one kind @ ? 1 : '2'
    ");
}

#[test]
fn what_is_no_part_of_the_language_here_is_refused() {
    let all = [
        "backend.zones.exists(z, z == 'a')",
        "[1, 2].all(x, x > 0)",
        "backend.region.startswith('eu')",
        "backend.region.matches('^eu')",
        "type(1) == type(2)",
        "null == backend.region",
        "backend.ready_replicas > 1u",
        "{'a': 1}.a == 1",
        "Foo{a: 1} == 1",
        "backend.?region == 'a'",
        "startsWith('a', 'b')",
    ];
    insta::assert_snapshot!(all.map(problems).join("\n"), @"
    `exists` goes through a list, which is not allowed: evaluation takes bounded time @ exists(z, z == 'a')
      `'us-east-1a' in backend.zones` looks into a list; a rule is evaluated for each backend anyway

    `all` goes through a list, which is not allowed: evaluation takes bounded time @ all(x, x > 0)
      `'us-east-1a' in backend.zones` looks into a list; a rule is evaluated for each backend anyway

    there is no function `startswith` @ startswith('eu')
      did you mean `startsWith`?

    there is no function `matches` @ matches('^eu')
      functions here: `contains`, `double`, `endsWith`, `has`, `int`, `size`, `startsWith`, `string`

    there is no function `type` @ type(1) == type(2)
      functions here: `contains`, `double`, `endsWith`, `has`, `int`, `size`, `startsWith`, `string`

    nothing is ever `null` here @ null == backend.region
      what is not known is not there: ask `has(backend.price.spot)`

    unsigned numbers are not used here @ 1u
      leave the `u` out

    maps and messages are not allowed @ {'a': 1}.a == 1

    maps and messages are not allowed @ {a: 1} == 1

    is not CEL: unsupported syntax '.?' @ .?region == 'a'

    `startsWith` is called in another way @ startsWith('a', 'b')
      write it like `text.startsWith('part')`
    ");
}

#[test]
fn neither_length_nor_depth_is_boundless() {
    let pieces: [(&str, &str, &str); 10] = [
        ("(", "true", ")"),
        ("!(true && ", "true", ")"),
        ("", "1", "+1"),
        ("", "1", "<1"),
        ("", "backend", ".a"),
        ("", "backend.zones", "[0]"),
        ("", "backend.id", ".size()"),
        ("[", "1", "]"),
        ("true ? true : ", "true", ""),
        ("size(", "'a'", ")"),
    ];
    for (before, middle, after) in pieces {
        let times = (CONDITION_LEN_MAX - 20) / (before.len() + after.len());
        let condition = format!("{}{middle}{} == 1", before.repeat(times), after.repeat(times));
        assert!(condition.len() <= CONDITION_LEN_MAX);
        assert!(CompiledRule::compile("r", &condition, Effect::Deny).is_err(), "{before}{middle}{after}");
    }
    assert!(
        problems(&format!("true {}", " ".repeat(CONDITION_LEN_MAX)))
            .starts_with("has 4101 bytes, expected at most 4096")
    );
    assert!(problems(&format!("{}true{}", "(".repeat(500), ")".repeat(500))).contains("nested too deeply"));
    assert!(problems(&format!("1{} == 1", "+1".repeat(60))).contains("nested deeper than 32 levels"));
    // As deep as allowed, on the stack of a test; and wide.
    let deep = format!("1{} == 30", "+1".repeat(29));
    assert_eq!(asked(&deep)[0], Ok(true));
    assert_eq!(asked(&format!("true{}", " && true".repeat(500)))[0], Ok(true));
    assert_eq!(asked(&format!("{}1 == 1", "-".repeat(4000)))[0], Ok(true));
}

/// What binds `full` and `bare`, and what cannot be decided.
fn judged(rules: &[(&str, &str, Effect)]) -> String {
    let compiled = rules.iter().map(|(name, condition, effect)| {
        CompiledRule::compile(name, condition, *effect).unwrap_or_else(|problems| panic!("{problems:?}"))
    });
    let rulings = RuleSet::new(compiled.collect()).judge(&snapshot(), &FACTS);
    let mut text = String::new();
    for (name, rules) in ["full", "bare"].iter().zip(&rulings.backends) {
        let rules =
            rules.iter().map(|r| format!("{}{}={}", r.effect, if r.undecided { "?" } else { "" }, r.rule));
        let _ = writeln!(text, "{name}: {}", rules.collect::<Vec<_>>().join(", "));
    }
    rulings.undecided.iter().for_each(|undecided| _ = writeln!(text, "{undecided}"));
    text
}

fn share(share: f64) -> Share {
    Share::new(share).unwrap()
}

#[test]
fn the_first_allow_or_deny_decides() {
    let (eu, all, none) = ("backend.region.startsWith('eu')", "true", "false");
    assert_eq!(judged(&[("n", none, Effect::Deny), ("d", eu, Effect::Deny)]), "full: deny=d\nbare: \n");
    assert_eq!(
        judged(&[("a", eu, Effect::Allow), ("d", all, Effect::Deny)]),
        "full: allow=a\nbare: deny=d\n"
    );
    assert_eq!(judged(&[("d", all, Effect::Deny), ("a", eu, Effect::Allow)]), "full: deny=d\nbare: deny=d\n");
}

#[test]
fn of_caps_the_lowest_of_floors_and_preferences_the_highest() {
    let rules = [
        ("c5", "true", Effect::Cap(share(0.5))),
        ("c3", "true", Effect::Cap(share(0.3))),
        ("f1", "true", Effect::Floor(share(0.1))),
        ("f2", "true", Effect::Floor(share(0.2))),
        ("p2", "true", Effect::Prefer(share(0.2))),
        ("p1", "true", Effect::Prefer(share(0.1))),
        ("p0", "false", Effect::Prefer(share(0.9))),
        ("h", "backend.id == 'full'", Effect::Hold),
    ];
    let line = "cap 30%=c3, floor 20%=f2, prefer 20%=p2";
    assert_eq!(judged(&rules), format!("full: {line}, hold=h\nbare: {line}\n"));
}

#[test]
fn an_undecided_rule_is_on_the_safe_side_and_says_so() {
    let dear = "backend.price.spot > 2.0";
    insta::assert_snapshot!([
        // Nobody knows whether it is denied.
        judged(&[("deny dear", dear, Effect::Deny)]),
        // It is denied either way; allowed either way.
        judged(&[("deny dear", dear, Effect::Deny), ("deny all", "true", Effect::Deny)]),
        judged(&[("allow dear", dear, Effect::Allow), ("allow all", "true", Effect::Allow)]),
        // Nobody knows whether it is shielded.
        judged(&[("allow dear", dear, Effect::Allow), ("deny all", "true", Effect::Deny)]),
        judged(&[("cap dear", dear, Effect::Cap(share(0.2))), ("cap all", "true", Effect::Cap(share(0.5)))]),
        judged(&[("hold", dear, Effect::Hold), ("floor", dear, Effect::Floor(share(0.2)))]),
        judged(&[("prefer", "!(backend.unit_cost > 1.0)", Effect::Prefer(share(0.2)))]),
    ]
    .join("\n"), @r#"
    full: 
    bare: deny?=deny dear
    the rule "deny dear" cannot be decided for bare: backend.price.spot is not known; until it can, the backend gets no more than it has

    full: deny=deny all
    bare: deny=deny all
    the rule "deny dear" cannot be decided for bare: backend.price.spot is not known; until it can, the backend gets no more than it has

    full: allow=allow all
    bare: allow=allow all
    the rule "allow dear" cannot be decided for bare: backend.price.spot is not known; until it can, a backend that it would shield gets no more than it has

    full: deny=deny all
    bare: deny?=allow dear
    the rule "allow dear" cannot be decided for bare: backend.price.spot is not known; until it can, a backend that it would shield gets no more than it has

    full: cap 50%=cap all
    bare: cap 50%=cap all, cap 20%?=cap dear
    the rule "cap dear" cannot be decided for bare: backend.price.spot is not known; until it can, the backend gets no more than the cap, or than it has

    full: 
    bare: hold?=hold
    the rule "hold" cannot be decided for bare: backend.price.spot is not known; until it can, nothing moves for money
    the rule "floor" cannot be decided for bare: backend.price.spot is not known; until it can, it does not apply

    full: prefer 20%=prefer
    bare: 
    the rule "prefer" cannot be decided for bare: backend.unit_cost is not known; until it can, it does not apply
    "#);
}

#[test]
fn without_rules_nothing_is_said() {
    let rulings = RuleSet::default().judge(&snapshot(), &FACTS);
    assert!(rulings.is_empty() && rulings.backends.is_empty());
    assert!(RuleSet::new(vec![compile("false")]).judge(&snapshot(), &[]).is_empty());
}

#[test]
fn rules_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&Arc::new(RuleSet::new(vec![compile("true")])));
}

/// Conditions that fit together more often than chance would have it.
fn conditions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("backend.price.spot".to_owned()),
        Just("backend.unit_cost".to_owned()),
        Just("backend.region".to_owned()),
        Just("backend.zones".to_owned()),
        Just("backend.ready_replicas".to_owned()),
        Just("backend.latency.ttfb_p95_seconds".to_owned()),
        Just("now.hour".to_owned()),
        Just("load.demand_rps".to_owned()),
        Just("'eu'".to_owned()),
        Just("1.5".to_owned()),
        Just("0".to_owned()),
        Just("backend.healthy".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operator =
            prop::sample::select(vec!["&&", "||", "==", "!=", "<", ">=", "+", "-", "*", "/", "%", "in"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            inner.clone().prop_map(|a| format!("size({a})")),
            inner.clone().prop_map(|a| format!("{a}.startsWith('e')")),
            inner.clone().prop_map(|a| format!("{a}[0]")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_is_too_odd_for_an_answer(text in "\\PC{0,40}|[a-z.()\\[\\]'\"+!&|? :0-9]{0,60}") {
        match CompiledRule::compile("r", &text, Effect::Deny) {
            Ok(_) => {}
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!(text.is_char_boundary(problem.offset), "{:?}", problem);
                }
            }
        }
    }

    /// What the check lets pass has an outcome, unless a value is missing, or arithmetic fails.
    #[test]
    fn what_passes_the_check_is_true_or_false(condition in conditions()) {
        let Ok(rule) = CompiledRule::compile("r", &condition, Effect::Deny) else { return Ok(()) };
        let snapshot = snapshot();
        let context = Moment::of(&snapshot).context(&snapshot.backends[0], FACTS[0]);
        if let Err(why) = rule.holds(&context) {
            let known = ["it divides by zero", "a number gets too large", "a list has no such place"];
            prop_assert!(known.contains(&why.as_str()), "{condition}: {why}");
        }
    }
}
