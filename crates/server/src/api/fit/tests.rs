//! Tests of [`fit`]: whatever the response, its JSON is short enough.

use proptest::prelude::*;

use super::super::execute::Encoding;
use super::super::response::{StageOut, UsageOut};
use super::*;

fn usage() -> UsageOut {
    UsageOut {
        wall_time: 0.25,
        cpu_time: Some(0.125),
        memory_peak: Some(1 << 20),
    }
}

fn response(output: String, error: String) -> ExecuteResponse {
    ExecuteResponse {
        output,
        error,
        exit_code: 0,
        execution_time: 0.25,
        timestamp: "2026-01-02T03:04:05.678901Z".into(),
        id: "019b7c1e-5a3f-7c10-8a51-0242ac120002".into(),
        status: "success".into(),
        truncated: false,
        usage: usage(),
        files: Vec::new(),
        markdown: None,
        results: Vec::new(),
        cell: None,
        openai_files: Vec::new(),
        language: "python".into(),
        version: "3.11.2".into(),
        isolation: "full".into(),
        warnings: Vec::new(),
        denied_calls: None,
        stages: Vec::new(),
    }
}

fn file(name: &str, content: String) -> FileOut {
    FileOut {
        id: Some("0".repeat(32)),
        name: name.into(),
        path: name.into(),
        size: content.len() as u64,
        media_type: "text/plain".into(),
        url: Some("https://codex.example.com/artifacts/…".into()),
        expires: None,
        content: Some(content),
        encoding: Some(Encoding::Utf8),
    }
}

#[test]
fn a_short_response_is_left_alone() {
    let before = response("4\n".into(), String::new());
    assert_eq!(fit(before.clone(), 99_000), before);
}

#[test]
fn a_flood_keeps_head_tail_and_the_traceback() {
    let output = format!("first\n{}last\n", "x".repeat(200_000));
    let error = "Traceback: boom\n".to_owned();
    let fitted = fit(response(output, error.clone()), 99_000);
    assert!(fitted.truncated);
    assert_eq!(fitted.error, error);
    assert!(fitted.output.starts_with("first\n"));
    assert!(fitted.output.ends_with("last\n"));
    assert!(fitted.output.contains("characters left out"));
    let length = document_chars(&fitted);
    assert!((98_000..=99_000).contains(&length), "{length}");
}

#[test]
fn a_picture_too_large_is_absent_but_listed() {
    let mut before = response("y".repeat(20_000), String::new());
    before.files = vec![
        file("small.txt", "ok".into()),
        file("plot.png", "A".repeat(90_000)),
    ];
    let fitted = fit(before, 99_000);
    assert_eq!(fitted.output.len(), 20_000, "text that fits stays whole");
    assert_eq!(fitted.files[0].content.as_deref(), Some("ok"));
    assert_eq!(fitted.files[1].content, None);
    assert_eq!(fitted.files[1].encoding, None);
    assert!(fitted.truncated);
    assert!(fitted.warnings[0].contains("files listed without content: 1"));
}

#[test]
fn warnings_leave_the_room_to_the_output() {
    let mut before = response("x".repeat(60_000), String::new());
    before.warnings = vec!["\n".repeat(8_000); 8];
    before.warnings.push("a short one".to_owned());
    let fitted = fit(before, 99_000);
    assert_eq!(fitted.output.len(), 60_000);
    assert_eq!(fitted.warnings[8], "a short one");
    let warnings: usize = fitted.warnings.iter().map(|text| json_chars(text)).sum();
    assert!(warnings <= 99_000 / WARNINGS_PART, "{warnings}");
}

#[test]
fn the_count_of_missing_characters_is_true() {
    let fitted = fit(response("é\n".repeat(100_000), String::new()), 50_000);
    let (head, rest) = fitted.output.split_once("\n[… ").expect("marker");
    let (missing, rest) = rest.split_once(" characters").expect("marker");
    let (_, tail) = rest.split_once("…]\n").expect("marker");
    let missing: usize = missing.parse().expect("a number");
    assert_eq!(
        head.chars().count() + missing + tail.chars().count(),
        200_000
    );
}

#[test]
fn levels_share_fairly() {
    for (lengths, room, expected) in [
        (vec![10, 20], 30, usize::MAX),
        (vec![10, 30], 30, 20),
        (vec![30, 30], 30, 15),
        (vec![5, 30, 30], 30, 12),
        (vec![], 0, usize::MAX),
        (vec![1], 0, 0),
    ] {
        assert_eq!(level(&lengths, room), expected, "{lengths:?}");
    }
}

fn texts_of(length: usize) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z ]{0,40}",
        "[\\x00-\\x1f\"\\\\]{0,40}",
        "\\PC{0,40}",
        Just("\u{1f600}".to_owned()),
    ];
    (part, 0..length).prop_map(|(part, times)| part.repeat(times))
}

#[test]
fn the_warning_of_files_not_listed_fits_where_there_is_no_text_to_cut() {
    let max_chars = LEAST_CHARS;
    // Without files and links the rest is just short enough.
    for spare in 0..200 {
        let mut before = response(String::new(), String::new());
        before.files = vec![file(&"n".repeat(1_000), "x".repeat(500)); 3];
        before.markdown = Some("m".repeat(4_000));
        before.warnings = vec![String::new()];
        let mut bare = strip(&before);
        bare.files.clear();
        bare.markdown = None;
        let length = max_chars - document_chars(&bare) - spare;
        before.warnings = vec!["w".repeat(length)];
        let fitted = fit(before, max_chars);
        assert!(document_chars(&fitted) <= max_chars, "{spare}");
    }
}

fn files() -> impl Strategy<Value = Vec<FileOut>> {
    let file = (texts_of(40), texts_of(2_000)).prop_map(|(name, content)| file(&name, content));
    proptest::collection::vec(file, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lengths_are_those_of_the_json(text in "\\PC{0,20}[\\x00-\\x7f]{0,20}") {
        let json = serde_json::to_string(&text).expect("a string");
        prop_assert_eq!(json_chars(&text), json.encode_utf16().count() - 2);
    }

    #[test]
    fn every_response_fits(
        output in texts_of(5_000),
        error in texts_of(3_000),
        files in files(),
        warnings in proptest::collection::vec(texts_of(30), 0..6),
        staged in any::<bool>(),
        max_chars in LEAST_CHARS..120_000,
    ) {
        let mut before = response(output.clone(), error.clone());
        before.openai_files = files.iter().map(|file| file.path.clone()).collect();
        before.markdown = files.first().map(|file| file.path.clone());
        before.files = files;
        before.warnings = warnings;
        if staged {
            before.stages = vec![StageOut {
                name: "run".into(),
                status: "error".into(),
                exit_code: 1,
                output,
                error,
                usage: usage(),
            }];
        }
        let was_short = document_chars(&before) <= max_chars;
        let fitted = fit(before.clone(), max_chars);
        prop_assert!(document_chars(&fitted) <= max_chars);
        prop_assert_eq!(was_short, fitted == before);
        prop_assert_eq!(fitted.truncated, !was_short);
    }
}
