//! What is said about models in routes.

use insta::assert_snapshot;

use super::{GOOD, said, with};

fn matching(conditions: &str) -> String {
    with("{ path = \"/v1/*\" }", &format!("{{ path = \"/v1/*\", {conditions} }}"))
}

#[test]
fn models_are_one_or_a_list() {
    for good in ["model = \"llama-3-8b\"", "model = \"*\"", "model = [\"llama-*\", \"org/mixtral 8x7b\"]"] {
        assert_eq!(matching(good), "", "{good}");
    }
    assert_snapshot!(matching("modle = \"llama-*\""), @"
    t.toml:16:27: error: routes.chat.match: unknown key `modle`
        hint: did you mean `model`?
    ");
    assert_snapshot!(matching("model = 5"), @r#"
    t.toml:16:35: error: routes.chat.match.model: found an integer, expected a string
        hint: write it like "llama-3-8b" or "llama-*" or "*"
    "#);
    assert_snapshot!(matching("model = []"), @"t.toml:16:35: error: routes.chat.match.model: the list is empty");
    assert_snapshot!(matching("model = [\"a\", 5, \"b*c\", \"\"]"), @r#"
    t.toml:16:41: error: routes.chat.match.model[1]: found an integer, expected a string
        hint: write it like "llama-3-8b" or "llama-*" or "*"
    t.toml:16:44: error: routes.chat.match.model[2]: `b*c` is not a model pattern: `*` may only be its last character, for every name that begins so
        hint: write it like "llama-3-8b" or "llama-*" or "*"
    t.toml:16:51: error: routes.chat.match.model[3]: `` is not a model pattern: it is empty
        hint: write it like "llama-3-8b" or "llama-*" or "*"
    "#);
    assert_snapshot!(matching("model = { name = \"a\" }"), @r#"
    t.toml:16:27: error: routes.chat.match.model: found a table, expected a string
        hint: write it like "llama-3-8b" or "llama-*" or "*"
    "#);
    assert_snapshot!(matching("model = [\"a\", \"b\", \"a\"]"), @"
    t.toml:16:46: error: routes.chat.match.model[2]: the model `a` is there twice
        hint: take one out
    ");
}

#[test]
fn two_routes_do_not_take_the_same_model() {
    let routes = |first: &str, second: &str| {
        let route = |name: &str, model: &str| {
            format!("[routes.{name}]\nmatch = {{ path = \"/v2/*\", model = {model} }}\nbackends = [\"a\"]\n")
        };
        said(&format!("{GOOD}{}{}", route("one", first), route("two", second)))
    };
    assert_eq!(routes("\"a\"", "\"a*\""), "");
    assert_snapshot!(routes("\"a\"", "\"a\""), @"
    t.toml:22:1: error: routes.two.match: the route `one` (line 18) matches the same requests
        hint: join the two, or give one of them a further condition
    ");
    assert_snapshot!(routes("[\"a\", \"b\"]", "[\"c\", \"b\"]"), @"
    t.toml:22:1: error: routes.two.match: the route `one` (line 18) matches the same requests for the model `b`
        hint: join the two, or give one of them a further condition
    ");
}

#[test]
fn aliases_are_names_that_come_to_the_route() {
    let aliases = |conditions: &str, models: &str| {
        let route = format!("match = {{ path = \"/v1/*\"{conditions} }}\nmodels = {models}");
        with("match = { path = \"/v1/*\" }", &route)
    };
    assert_eq!(aliases("", "{ \"gpt-4o\" = \"llama-3-8b\" }"), "");
    assert_eq!(aliases(", model = \"gpt-*\"", "{ \"gpt-4o\" = \"llama-3-8b\" }"), "");
    assert_snapshot!(aliases(", model = \"llama-*\"", "{ \"gpt-4o\" = \"llama-3-8b\" }"), @"
    t.toml:17:23: warning: routes.chat.models.gpt-4o: no request for it comes to this route
        hint: add it to `match.model`, which sees the name that the client used
    ");
    assert_snapshot!(aliases("", "{ \"gpt-*\" = \"llama-3-8b\", b = \"\", c = \"c\" }"), @r#"
    t.toml:17:12: error: routes.chat.models: `gpt-*` is not the name of a model: an alias is one name, without `*`
    t.toml:17:40: error: routes.chat.models.b: `` is not the name of a model: it is empty
        hint: write it like "llama-3-8b"
    t.toml:17:48: warning: routes.chat.models.c: it is the name that it stands for
        hint: take it out
    "#);
}

#[test]
fn what_is_read_of_a_body_is_bounded() {
    let listen = |keys: &str| said(&format!("[listen]\n{keys}\n{GOOD}"));
    assert_eq!(listen("body_peek_max = \"256KiB\"\nmodel_header = \"X-My-Model\""), "");
    assert_eq!(listen("body_peek_max = 4096"), "");
    assert_snapshot!(listen("body_peek_max = \"1GiB\""), @"t.toml:2:17: error: listen.body_peek_max: found 1GiB, expected 1KiB to 64MiB");
    assert_snapshot!(listen("body_peek_max = \"1MB\"\nmodel_headr = \"x\""), @r#"
    t.toml:2:17: error: listen.body_peek_max: `1MB` is not a size: expected whole bytes, or a number with KiB, MiB or GiB
        hint: write it like "1MiB" or "256KiB"
    t.toml:3:1: error: listen: unknown key `model_headr`
        hint: did you mean `model_header`?
    "#);
}

#[test]
fn affinity_goes_by_one_thing() {
    let keeping = |by: &str| {
        with("backends = [\"a\", \"b\"]", &format!("backends = [\"a\", \"b\"]\naffinity = {{ {by} }}"))
    };
    for good in ["header = \"X-Session-Id\"", "cookie = \"sid\"", "user = true", "prompt = \"1KiB\""] {
        assert_eq!(keeping(good), "", "{good}");
    }
    assert_snapshot!(keeping(""), @"t.toml:18:1: error: routes.chat.affinity: found nothing to go by, expected one of `header`, `cookie`, `user = true` and `prompt`");
    assert_snapshot!(keeping("user = false"), @"t.toml:18:1: error: routes.chat.affinity: found nothing to go by, expected one of `header`, `cookie`, `user = true` and `prompt`");
    assert_snapshot!(keeping("cookie = \"a\", user = true"), @"
    t.toml:18:1: error: routes.chat.affinity: found several, expected one of `header`, `cookie`, `user` and `prompt`
        hint: requests are kept together by one of them
    ");
    assert_snapshot!(keeping("prompt = 8"), @"t.toml:18:23: error: routes.chat.affinity.prompt: found 8 bytes, expected 16 to 65536 (64KiB)");
    assert_snapshot!(keeping("heder = \"x\""), @"
    t.toml:18:14: error: routes.chat.affinity: unknown key `heder`
        hint: did you mean `header`?
    ");
}
