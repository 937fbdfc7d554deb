//! Tests of the wire types: each bad field is named with what was sent and the cure.

use proptest::prelude::*;
use serde_json::json;

use super::super::error::Code;
use super::super::json::parse_object;
use super::*;

fn draft(body: &str) -> Result<Draft, Problem> {
    Ok(Order::try_from(parse_object(body.as_bytes())?)?.draft)
}

#[test]
fn a_full_request_becomes_a_draft() {
    let draft = draft(
        r#"{"code": "x", "language": "js", "timeout": 2.5, "stdin": "in", "args": ["-v"],
            "env": {"A": "1"}, "memory_mb": 256.0, "explain": true, "files": [
            {"path": "a.txt", "content": "hi"},
            {"path": "b.bin", "content": "/w\n A=\r\n", "encoding": "base64"}]}"#,
    )
    .expect("valid");
    assert_eq!(draft.code, "x");
    assert_eq!(draft.language.as_deref(), Some("js"));
    assert_eq!(draft.wall_time, Some(Duration::from_millis(2_500)));
    assert_eq!(draft.stdin, b"in");
    assert_eq!(draft.args, ["-v"]);
    assert_eq!(draft.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(draft.memory, Some(256 * MIB));
    assert!(draft.explain);
    assert_eq!(draft.files[0].content, b"hi");
    assert_eq!(draft.files[1].content, [0xff, 0]);
}

#[test]
fn null_is_the_default() {
    let sent = r#"{"code": "x", "language": null, "timeout": null, "stdin": null, "args": null,
        "env": null, "files": null, "memory_mb": null, "explain": null}"#;
    let draft = draft(sent).expect("valid");
    assert_eq!(
        (draft.language, draft.wall_time, draft.memory),
        (None, None, None)
    );
    assert!(!draft.explain);
    assert!(draft.args.is_empty() && draft.env.is_empty() && draft.files.is_empty());
}

/// A body, the field that is wrong with it, and words of the refusal.
const BAD: &[(&str, &str, &str)] = &[
    ("{}", "code", "`code` is missing. Send"),
    (
        r#"{"code": null}"#,
        "code",
        "`code` is null. Send the program",
    ),
    (r#"{"code": 5}"#, "code", "is the number 5"),
    (r#"{"code": ["x"]}"#, "code", "is an array"),
    (
        r#"{"code": "x", "language": 3}"#,
        "language",
        "GET /languages",
    ),
    (
        r#"{"code": "x", "timeout": -1}"#,
        "timeout",
        "is -1, out of range. Send a number of seconds, at least 1",
    ),
    (
        r#"{"code": "x", "timeout": 1e308}"#,
        "timeout",
        "is 1e308, out of range",
    ),
    (
        r#"{"code": "x", "timeout": "ten"}"#,
        "timeout",
        "is the string \"ten\"",
    ),
    (
        r#"{"code": "x", "timeout": "10"}"#,
        "timeout",
        "is the string \"10\". Send a number",
    ),
    (
        r#"{"code": "x", "timeout": true}"#,
        "timeout",
        "is the boolean true",
    ),
    (r#"{"code": "x", "timeout": {}}"#, "timeout", "is an object"),
    (r#"{"code": "x", "stdin": 1}"#, "stdin", "is the number 1"),
    (
        r#"{"code": "x", "args": "a"}"#,
        "args",
        "Send an array of strings",
    ),
    (
        r#"{"code": "x", "args": ["a", 2]}"#,
        "args[1]",
        "is the number 2",
    ),
    (r#"{"code": "x", "args": [null]}"#, "args[0]", "is null"),
    (r#"{"code": "x", "env": ["A=1"]}"#, "env", "Send an object"),
    (
        r#"{"code": "x", "env": {"A": 1}}"#,
        "env.A",
        "is the number 1",
    ),
    (r#"{"code": "x", "files": {}}"#, "files", "Send an array"),
    (
        r#"{"code": "x", "files": ["a"]}"#,
        "files[0]",
        "is the string \"a\"",
    ),
    (
        r#"{"code": "x", "files": [{"content": ""}]}"#,
        "files[0].path",
        "is missing",
    ),
    (
        r#"{"code": "x", "files": [{"path": "a"}]}"#,
        "files[0].content",
        "is missing",
    ),
    (
        r#"{"code": "x", "files": [{"path": "a", "content": "", "encoding": "hex"}]}"#,
        "files[0].encoding",
        "Send \"utf8\" or \"base64\"",
    ),
    (
        r#"{"code": "x", "files": [{"path": "a", "content": "?", "encoding": "base64"}]}"#,
        "files[0].content",
        "is not Base64",
    ),
    (
        r#"{"code": "x", "memory_mb": -1}"#,
        "memory_mb",
        "out of range",
    ),
    (
        r#"{"code": "x", "memory_mb": 1.5}"#,
        "memory_mb",
        "out of range",
    ),
    (
        r#"{"code": "x", "memory_mb": 18446744073709551615}"#,
        "memory_mb",
        "out of range",
    ),
    (
        r#"{"code": "x", "memory_mb": "1"}"#,
        "memory_mb",
        "is the string",
    ),
    (
        r#"{"code": "x", "explain": "yes"}"#,
        "explain",
        "is the string \"yes\". Send true or false",
    ),
];

#[test]
fn each_bad_field_is_named_with_its_cure() {
    for &(body, field, expected) in BAD {
        let problem = draft(body).expect_err(body);
        assert_eq!(problem.code, Code::InvalidRequest, "{body}");
        assert_eq!(problem.field.as_deref(), Some(field), "{body}");
        assert!(
            problem.detail.contains(expected),
            "{body}: {}",
            problem.detail
        );
    }
}

#[test]
fn unknown_fields_are_named_within_bounds() {
    let mut object = json!({"code": "x", "seed": "s"});
    let members = object.as_object_mut().expect("an object");
    let warned =
        |members: &Map<String, Value>| Order::try_from(members.clone()).expect("valid").warnings;
    assert_eq!(warned(members), ["unknown fields ignored: `seed`"]);
    for at in 0..1_000 {
        members.insert(format!("{}{at}", "z".repeat(500)), Value::Null);
    }
    let warnings = warned(members);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("and 993 more"), "{}", warnings[0]);
    assert!(warnings[0].len() < 1_000);
}

proptest! {
    #[test]
    fn any_object_is_a_draft_or_a_named_problem(
        timeout in prop_oneof![any::<f64>().prop_map(|n| json!(n)), any::<i64>().prop_map(|n| json!(n)), ".*".prop_map(|s| json!(s))],
        memory in prop_oneof![any::<u64>().prop_map(|n| json!(n)), any::<f64>().prop_map(|n| json!(n))],
        content in ".*",
    ) {
        let body = json!({"code": "x", "timeout": timeout, "memory_mb": memory,
            "files": [{"path": "a", "content": content, "encoding": "base64"}]});
        match draft(&body.to_string()) {
            Ok(draft) => prop_assert_eq!(draft.files[0].path.as_str(), "a"),
            Err(problem) => prop_assert!(problem.field.is_some()),
        }
    }
}
