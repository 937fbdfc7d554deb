//! What becomes of configurations, as their clients' parsers read them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Merges an entry of a process and returns the text.
fn merged(syntax: Syntax, key: &str, text: &str, entry: &Value) -> Result<MergeResult, MergeError> {
    let wanted = NewEntry {
        syntax,
        key,
        entry,
        question: None,
        keeps_credentials: true,
        is_our_url: &|url| url == "http://127.0.0.1:8000/mcp",
    };
    merge(text, &wanted)
}

fn process() -> Value {
    json!({"command": "/bin/codex-server", "args": ["mcp"]})
}

fn http() -> Value {
    json!({"url": "http://127.0.0.1:8000/mcp", "headers": {"Authorization": "Bearer ${CODEX_TOKEN}"}})
}

#[test]
fn what_is_there_stays_as_it_is() {
    let check = |syntax: Syntax, key: &str, before: &str, expected: &str| {
        let merged = merged(syntax, key, before, &process()).expect(before);
        assert_eq!(merged.text, expected);
        assert_eq!(merged.change, EntryChange::Added);
        let again = super::tests::merged(syntax, key, expected, &process()).expect(expected);
        assert_eq!(
            (again.text.as_str(), again.change),
            (expected, EntryChange::Nothing)
        );
    };
    let json = |before: &str, expected: &str| check(Syntax::Json, "mcpServers", before, expected);
    let alone = "{\n  \"mcpServers\": {\n    \"codex\": {\n      \"args\": [\n        \"mcp\"\n      ],\n      \"command\": \"/bin/codex-server\"\n    }\n  }\n}\n";
    json("", alone);
    json(" \n", alone);
    json(
        "{\n  // mine\n  \"theme\": \"dark\", /* why */\n  \"mcpServers\": {\n    \"other\": {\"url\": \"https://x.example/mcp\"}, // theirs\n  },\n}\n",
        "{\n  // mine\n  \"theme\": \"dark\", /* why */\n  \"mcpServers\": {\n    \"other\": {\"url\": \"https://x.example/mcp\"}, // theirs\n    \"codex\": {\n      \"args\": [\"mcp\"],\n      \"command\": \"/bin/codex-server\",\n    },\n  },\n}\n",
    );
    json(
        "{\r\n\t\"a\": 1\r\n}",
        "{\r\n\t\"a\": 1,\r\n\t\"mcpServers\": {\r\n\t\t\"codex\": {\r\n\t\t\t\"args\": [\"mcp\"],\r\n\t\t\t\"command\": \"/bin/codex-server\"\r\n\t\t}\r\n\t}\r\n}",
    );
    let toml = |before: &str, expected: &str| check(Syntax::Toml, "mcp_servers", before, expected);
    let entry = "[mcp_servers.codex]\nargs = [\"mcp\"]\ncommand = \"/bin/codex-server\"\n";
    toml("", entry);
    toml(
        "# mine\nmodel = 'x' # why\n\n[mcp_servers.other]\ncommand = \"npx\"\n\n[profiles.fast]\nmodel = \"y\"\n",
        &format!(
            "# mine\nmodel = 'x' # why\n\n[mcp_servers.other]\ncommand = \"npx\"\n\n{entry}\n[profiles.fast]\nmodel = \"y\"\n"
        ),
    );
    let yaml = |before: &str, expected: &str| check(Syntax::Yaml, "extensions", before, expected);
    let entry = "extensions:\n  codex:\n    args: [\"mcp\"]\n    command: \"/bin/codex-server\"\n";
    yaml("", entry);
    yaml(
        "# mine\nGOOSE_MODE: auto # why\n",
        &format!("# mine\nGOOSE_MODE: auto # why\n{entry}"),
    );
    yaml(
        "extensions: # all\n    developer:\n        enabled: true # yes\n    # last\nmodel: x",
        "extensions: # all\n    codex:\n      args: [\"mcp\"]\n      command: \"/bin/codex-server\"\n    developer:\n        enabled: true # yes\n    # last\nmodel: x\n",
    );
    yaml("extensions:\nmodel: x\n", &format!("{entry}model: x\n"));
    yaml(
        "extensions:\r\n  a:\r\n    b: 1\r\n",
        "extensions:\r\n  codex:\r\n    args: [\"mcp\"]\r\n    command: \"/bin/codex-server\"\r\n  a:\r\n    b: 1\r\n",
    );
}

#[test]
fn an_entry_of_ours_is_renewed_and_keeps_what_people_added() {
    let check = |syntax: Syntax, before: &str, entry: &Value, expected: &str| {
        let merged = merged(syntax, "s", before, entry).expect(before);
        assert_eq!(merged.text, expected);
        assert_eq!(merged.change, EntryChange::Updated);
    };
    // Another path, and a setting of their own with a comment.
    check(
        Syntax::Json,
        "{\"s\": {\"codex\": {\"command\": \"/old/codex-server\", \"args\": [\"mcp\"], \"disabled\": true /* for now */}}}",
        &process(),
        "{\"s\": {\"codex\": {\"command\": \"/bin/codex-server\", \"args\": [\"mcp\"], \"disabled\": true /* for now */}}}",
    );
    // From a process to HTTP.
    check(
        Syntax::Json,
        "{\"s\": {\"codex\": {\"command\": \"codex-server\", \"args\": [\"mcp\"], \"env\": {\"A\": \"b\"}}}}",
        &json!({"url": "http://127.0.0.1:8000/mcp"}),
        "{\"s\": {\"codex\": {\n      \"env\": {\"A\": \"b\"},\n      \"url\": \"http://127.0.0.1:8000/mcp\"\n    }}}",
    );
    // A token that works stays.
    let kept = "{\"s\": {\"codex\": {\"url\": \"http://127.0.0.1:8000/mcp\", \"headers\": {\"Authorization\": \"Bearer codex_x\", \"X\": \"y\"}}}}";
    let found = merged(Syntax::Json, "s", kept, &http()).expect(kept);
    assert_eq!(
        (found.text.as_str(), found.change),
        (kept, EntryChange::Nothing)
    );
    let wanted = NewEntry {
        syntax: Syntax::Json,
        key: "s",
        entry: &http(),
        question: None,
        keeps_credentials: false,
        is_our_url: &|_| true,
    };
    let found = merge(kept, &wanted).expect(kept);
    assert_eq!(found.text, kept.replace("codex_x", "${CODEX_TOKEN}"));
    check(
        Syntax::Toml,
        "[s.codex]\ncommand = \"codex-server\" # mine\nargs = [\"mcp\", \"--home\", \"/x\"]\nstartup_timeout_sec = 9\n",
        &process(),
        "[s.codex]\ncommand = \"/bin/codex-server\" # mine\nargs = [\"mcp\"]\nstartup_timeout_sec = 9\n",
    );
    check(
        Syntax::Toml,
        "s = { codex = { command = \"codex-server\" } }\n",
        &process(),
        "s = { codex = { command = \"/bin/codex-server\" , args = [\"mcp\"] } }\n",
    );
    check(
        Syntax::Yaml,
        "s:\n  a:\n    b: 1\n  codex:\n    cmd: codex-server\n    args:\n      - mcp\n    enabled: false\n\n  # last\n  z:\n    y: 1\n",
        &json!({"cmd": "/bin/codex-server", "args": ["mcp"], "enabled": true}),
        "s:\n  a:\n    b: 1\n  codex:\n    args: [\"mcp\"]\n    cmd: \"/bin/codex-server\"\n    enabled: false\n\n  # last\n  z:\n    y: 1\n",
    );
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let check = |syntax: Syntax, text: &str, expected: &str| {
        let refused = merged(syntax, "s", text, &process()).expect_err(text);
        let told = refused.to_string();
        assert!(told.contains(expected), "{text}: {told}");
    };
    for text in ["{", "{\"a\": 1} x", "nonsense", "{'a': 1}", "{\"a\" 1}"] {
        check(Syntax::Json, text, "cannot be read");
    }
    for text in ["[]", "1", "null", "\"x\""] {
        check(Syntax::Json, text, "something else");
    }
    check(Syntax::Json, "{\"s\": []}", "at s");
    check(
        Syntax::Json,
        "{\"s\": {\"codex\": {\"url\": \"https://x/mcp\"}, \"codex-server\": {}}}",
        "other servers",
    );
    // Twice the same name: which of them counts is the client's secret.
    check(
        Syntax::Json,
        "{\"s\": {\"a\": {}}, \"s\": {\"b\": {}}}",
        "cannot be",
    );
    check(Syntax::Toml, "a = ", "cannot be read");
    check(Syntax::Toml, "s = 1", "at s");
    check(Syntax::Yaml, "a: [", "cannot be read");
    check(Syntax::Yaml, "a: 1\n---\nb: 1\n", "cannot be read");
    check(Syntax::Yaml, "- a\n", "something else");
    for text in [
        "s: {a: {b: 1}}\n",
        "\"s\":\n  a: 1\n",
        "a: 1\n...\n",
        "s: &x\n  a: 1\n",
    ] {
        check(Syntax::Yaml, text, "safely");
    }
    // The name of another's server is not taken.
    let text = "{\"s\": {\"codex\": {\"command\": \"codex\", \"args\": [\"mcp-server\"]}}}";
    let found = merged(Syntax::Json, "s", text, &process()).expect(text);
    assert_eq!(
        (found.name, found.change, found.others),
        ("codex-server", EntryChange::Added, 1)
    );
    let goose = json!({"cmd": "x", "name": "codex"});
    let found =
        merged(Syntax::Yaml, "s", "s:\n  codex:\n    cmd: codex\n", &goose).expect("merged");
    assert!(
        found
            .text
            .contains("codex-server:\n    cmd: \"x\"\n    name: \"codex-server\""),
        "{}",
        found.text
    );
}

#[test]
fn a_question_is_asked_once() {
    let question = json!({"id": "codex_token", "type": "promptString"});
    let check = |text: &str, expected: Value| {
        let wanted = NewEntry {
            syntax: Syntax::Json,
            key: "servers",
            entry: &http(),
            question: Some(&question),
            keeps_credentials: true,
            is_our_url: &|_| true,
        };
        let found = merge(text, &wanted).expect(text);
        let whole: Value = json::parse(&found.text).expect("JSON");
        assert_eq!(whole["inputs"], expected, "{text}");
        assert_eq!(merge(&found.text, &wanted).expect("again").text, found.text);
    };
    check("{}", json!([question]));
    check("{\"inputs\": []}", json!([question]));
    let other = json!({"id": "x"});
    check("{\"inputs\": [{\"id\": \"x\"}]}", json!([other, question]));
    check(
        "{\"inputs\": [{\"id\": \"codex_token\"}]}",
        json!([{"id": "codex_token"}]),
    );
}

/// A value that all three syntaxes have.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

proptest! {
    /// Whatever others have in it is there afterwards, in every syntax.
    #[test]
    fn others_survive(others in prop::collection::btree_map("[a-z]{1,6}", any_value(), 0..4), more in any_value()) {
        let mut servers: Map<String, Value> = others.into_iter().collect();
        servers.remove("codex");
        let whole = json!({"s": servers.clone(), "more": {"x": more}});
        let texts = [
            (Syntax::Json, whole.to_string()),
            (Syntax::Toml, ::toml::to_string(&whole).unwrap_or_default()),
            (Syntax::Yaml, yaml::block(&whole, 0)),
        ];
        for (syntax, text) in texts {
            let Ok(before) = parse(syntax, &text) else { continue };
            match merged(syntax, "s", &text, &process()) {
                Ok(found) => {
                    let mut expected = before;
                    apply(&mut expected, &Edit::Set(vec!["s".to_owned(), "codex".to_owned()], process()));
                    prop_assert_eq!(parse(syntax, &found.text).expect("readable"), expected);
                }
                Err(refusal) => prop_assert!(syntax == Syntax::Yaml, "{:?}: {}", refusal, text),
            }
        }
    }

    #[test]
    fn any_text_is_edited_or_refused(text in "\\PC{0,80}", lines in "[a-z:{} \n\"\\[\\]#=-]{0,80}") {
        for text in [&text, &lines] {
            for syntax in [Syntax::Json, Syntax::Toml, Syntax::Yaml] {
                drop(merged(syntax, "s", text, &process()));
            }
        }
    }
}

#[test]
fn it_can_be_taken_out_again() {
    let check = |syntax: Syntax, text: &str, expected: Option<&str>| {
        let wanted = NewEntry {
            syntax,
            key: "s",
            entry: &process(),
            question: None,
            keeps_credentials: true,
            is_our_url: &|url| url == "http://127.0.0.1:8000/mcp",
        };
        let found = remove(text, &wanted).expect(text);
        assert_eq!(found.as_deref(), expected, "{text}");
    };
    check(Syntax::Json, "{}", None);
    check(
        Syntax::Json,
        "{\"s\": {\"codex\": {\"command\": \"codex\"}}}",
        None,
    );
    check(
        Syntax::Json,
        "{\n  // mine\n  \"s\": {\n    \"a\": {}, // theirs\n    \"codex\": {\"command\": \"x/codex-server\"}\n  }\n}\n",
        Some("{\n  // mine\n  \"s\": {\n    \"a\": {} // theirs\n  }\n}\n"),
    );
    check(
        Syntax::Toml,
        "a = 1 # mine\n\n[s.b]\nx = 1\n\n[s.codex]\ncommand = \"codex-server\"\n",
        Some("a = 1 # mine\n\n[s.b]\nx = 1\n"),
    );
    check(
        Syntax::Toml,
        "[s.codex]\ncommand = \"codex-server\"\n",
        Some(""),
    );
    check(
        Syntax::Yaml,
        "# mine\ns:\n  a:\n    b: 1\n  codex:\n    cmd: codex-server\n    args:\n      - mcp\n  # last\nz: 1\n",
        Some("# mine\ns:\n  a:\n    b: 1\n  # last\nz: 1\n"),
    );
    check(
        Syntax::Yaml,
        "s:\n  codex:\n    cmd: codex-server\n",
        Some("s:\n"),
    );
}

#[test]
fn what_only_looks_like_ours_is_not() {
    // A process that hands on to a server elsewhere, and another port.
    for text in [
        "{\"s\": {\"codex\": {\"command\": \"codex-server\", \"args\": [\"mcp\", \"--url\", \"https://far\"]}}}",
        "{\"s\": {\"codex\": {\"url\": \"http://127.0.0.1:9999/mcp\"}}}",
    ] {
        let found = merged(Syntax::Json, "s", text, &process()).expect(text);
        assert_eq!(
            (found.name, found.change),
            ("codex-server", EntryChange::Added)
        );
    }
    // Names that are there twice are refused, wherever they are.
    let text = "{\"s\": {\"codex\": {\"command\": \"codex-server\"}, \"codex\": {}}}";
    let refused = merged(Syntax::Json, "s", text, &process()).expect_err(text);
    assert!(refused.to_string().contains("\"codex\" twice"), "{refused}");
}

#[test]
fn a_new_token_leaves_no_old_one() {
    let entry = json!({"url": "http://127.0.0.1:8000/mcp", "bearer_token_env_var": "V"});
    let wanted = NewEntry {
        syntax: Syntax::Toml,
        key: "s",
        entry: &entry,
        question: None,
        keeps_credentials: false,
        is_our_url: &|_| true,
    };
    let text = "[s.codex]\nurl = \"http://127.0.0.1:8000/mcp\"\nhttp_headers = { authorization = \"Bearer codex_old\", X = \"y\" }\n";
    let found = merge(text, &wanted).expect(text);
    assert!(
        !found.text.contains("codex_old") && found.text.contains("X = \"y\""),
        "{}",
        found.text
    );
    let text = "[s.codex]\nurl = \"http://127.0.0.1:8000/mcp\"\nhttp_headers = { Authorization = \"Bearer codex_old\" }\n";
    let found = merge(text, &wanted).expect(text);
    assert!(!found.text.contains("http_headers"), "{}", found.text);
}
