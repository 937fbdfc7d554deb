//! Requests as they are written, and answers as they are read.

use std::time::Duration;

use proptest::prelude::{Strategy, any, proptest};

use super::*;

fn server(url: &str) -> Server {
    Server::new(url.to_owned(), None, "test").unwrap()
}

#[test]
fn requests_say_what_was_asked_for() {
    let draft = Draft {
        owner: engine::Owner::default(),
        code: "1".to_owned(),
        language: Some("python".to_owned()),
        stdin: b"in".to_vec(),
        args: vec!["-v".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        files: vec![
            engine::DraftFile {
                path: "a".to_owned(),
                content: b"text".to_vec(),
            },
            engine::DraftFile {
                path: "b".to_owned(),
                content: vec![0xff],
            },
        ],
        wall_time: Some(Duration::from_millis(1500)),
        memory: Some(256 * MIB),
        queue_wait: None,
        session: None,
        explain: true,
    };
    let expected = json!({
        "code": "1", "language": "python", "timeout": 1.5, "memory_mb": 256, "stdin": "in", "explain": true,
        "args": ["-v"], "env": {"A": "b"},
        "files": [{"path": "a", "content": "text"}, {"path": "b", "content": "/w==", "encoding": "base64"}],
    });
    assert_eq!(body(draft).unwrap(), expected);
    assert_eq!(body(Draft::default()).unwrap(), json!({"code": ""}));
    let refused = |draft: Draft| body(draft).unwrap_err().error.to_string();
    let binary = Draft {
        stdin: vec![0xff],
        ..Draft::default()
    };
    assert!(refused(binary).contains("--file"));
    let odd = Draft {
        memory: Some(MIB + 1),
        ..Draft::default()
    };
    assert!(refused(odd).contains("whole MiB"));
}

#[test]
fn only_the_named_server_is_called() {
    let check = |url: &str, address: &str, expected: Option<&str>| {
        assert_eq!(server(url).place(address).as_deref(), expected, "{address}");
    };
    let here = "http://127.0.0.1:8000";
    check(
        here,
        "http://127.0.0.1:8000/f/1?sig=x",
        Some("http://127.0.0.1:8000/f/1?sig=x"),
    );
    check(
        here,
        "https://public.example/f/1?sig=x",
        Some("http://127.0.0.1:8000/f/1?sig=x"),
    );
    check(here, "/f/1", Some("http://127.0.0.1:8000/f/1"));
    check(
        here,
        "http://127.0.0.1:80001/x",
        Some("http://127.0.0.1:8000/x"),
    );
    check(
        here,
        "http://127.0.0.1:8000@evil.example/x",
        Some("http://127.0.0.1:8000/x"),
    );
    for odd in [
        "",
        "f",
        "//evil.example/f",
        "https://evil.example",
        "file:///etc/passwd?\n",
        "/a\\b",
        "/a b",
        "http:///x//",
    ] {
        let place = server(here).place(odd);
        assert!(
            place.is_none_or(|place| place.starts_with("http://127.0.0.1:8000/")),
            "{odd}"
        );
    }
    let below = "https://x.example/codex";
    check(
        below,
        "https://x.example/codex/f",
        Some("https://x.example/codex/f"),
    );
    check(below, "/f", Some("https://x.example/codex/f"));
    check(
        below,
        "https://other.example/codex/f",
        Some("https://x.example/codex/f"),
    );
}

#[test]
fn answers_are_read_by_shape() {
    let answer = |value: Value| Answer::of(value);
    let whole = json!({
        "output": "o", "error": "e", "exit_code": 143, "status": "signalled", "execution_time": 0.5,
        "files": [
            {"name": "a", "size": 1, "content": "x", "encoding": "utf8"},
            {"name": "b", "size": 1, "content": "/w==", "encoding": "base64"},
            {"name": "c", "size": 9, "url": "/f/c"},
            {"name": "d", "size": 1, "content": "!", "encoding": "base64"},
            {"size": 1}, 7,
        ],
        "warnings": ["w", 1],
        "denied_calls": [
            {"name": "bpf", "count": 2, "errno": "EPERM", "reason": "it runs code"},
            {"name": "x"}, 7,
        ],
    });
    let read = answer(whole.clone()).unwrap();
    assert_eq!(read.files.len(), 4);
    assert_eq!(read.files[1].content, Ok(vec![0xff]));
    assert_eq!(read.files[2].url.as_deref(), Some("/f/c"));
    assert!(read.files[3].content.is_err());
    let ended = read.ended(Vec::new(), true);
    assert_eq!((ended.signal, ended.warnings.len()), (Some(15), 1));
    let denied = ["denied bpf 2 times (EPERM): it runs code".to_owned()];
    assert_eq!(ended.denied.as_deref(), Some(&denied[..]));
    assert_eq!(ended.answer, Some(format!("{whole:#}")));
    let first =
        json!({"output": "", "error": "", "exit_code": 0, "execution_time": 0.1, "timestamp": ""});
    assert!(answer(first).is_some());
    for odd in [
        json!({}),
        json!([]),
        json!(null),
        json!({"output": "x"}),
        json!({"output": 1, "error": "", "exit_code": 0}),
        json!({"output": "", "error": "", "exit_code": "0"}),
        json!({"output": "", "error": "", "exit_code": 99_999_999_999_i64}),
    ] {
        assert!(answer(odd.clone()).is_none(), "{odd}");
    }
}

proptest! {
    #[test]
    fn no_address_leads_elsewhere(address in "(https?://|/|//|@|:|[a-z.]{1,5}|\\?|#|%2f|\\\\){0,10}") {
        for url in ["http://127.0.0.1:8000", "https://x.example/codex"] {
            if let Some(place) = server(url).place(&address) {
                let parsed = reqwest::Url::parse(&place).unwrap();
                let ours = reqwest::Url::parse(url).unwrap();
                assert_eq!(parsed.origin(), ours.origin(), "{address:?} → {place}");
                assert_eq!(parsed.username(), "");
            }
        }
    }

    #[test]
    fn no_answer_panics(value in json_value()) {
        drop(Answer::of(value).map(|answer| answer.ended(Vec::new(), true)));
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = any::<(u8, i64, String)>().prop_map(|(kind, number, text)| match kind % 4 {
        0 => Value::Null,
        1 => number.into(),
        2 => i64::from(i32::MIN).into(),
        _ => text.into(),
    });
    let name = "output|error|exit_code|status|files|warnings|name|size|content|encoding|url";
    let member = (name, leaf.clone());
    let file = proptest::collection::btree_map(name, leaf, 0..6)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    (
        proptest::collection::vec(member, 0..8),
        proptest::collection::vec(file, 0..3),
    )
        .prop_map(|(members, files)| {
            let mut object: Map<String, Value> = members.into_iter().collect();
            object.insert("output".to_owned(), "".into());
            object.insert("error".to_owned(), "".into());
            object.insert("files".to_owned(), files.into());
            Value::Object(object)
        })
}
