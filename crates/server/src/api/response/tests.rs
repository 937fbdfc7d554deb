//! Tests of the response: its five oldest fields, odd bytes, files within bounds.

use std::time::SystemTime;

use engine::{Isolation, Status};
use serde_json::Value;

use super::*;

fn outcome(stdout: &[u8], files: Vec<OutputFile>) -> Outcome {
    let stage = StageOutcome {
        name: "run".into(),
        status: Status::Success,
        exit_code: 0,
        signal: None,
        stdout: Output {
            bytes: stdout.to_vec(),
            total: stdout.len() as u64,
            truncated: false,
        },
        stderr: Output::default(),
        usage: Usage::default(),
    };
    Outcome {
        id: "id".into(),
        status: Status::Success,
        stages: vec![stage],
        files,
        usage: Usage {
            wall_time: Duration::from_nanos(12_345_678),
            ..Usage::default()
        },
        language: "python".into(),
        version: "3.11.2".into(),
        isolation: Isolation::Full,
        warnings: Vec::new(),
        denied_calls: None,
        results: Vec::new(),
        cell: None,
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
    }
}

#[test]
fn the_five_fields_have_their_types() {
    let response = ExecuteResponse::from(outcome(b"4\n", Vec::new()));
    let json = serde_json::to_value(&response).expect("serialises");
    assert_eq!(json["output"], "4\n");
    assert_eq!(json["error"], "");
    assert_eq!(json["exit_code"], 0);
    assert_eq!(json["execution_time"], 0.012_346);
    assert_eq!(json["timestamp"], "1970-01-01T00:00:01.500000Z");
    assert_eq!(json["usage"]["memory_peak"], Value::Null);
    assert!(
        json["usage"].get("cpu_time").is_none(),
        "nothing measured it"
    );
    assert!(json.get("stages").is_none(), "one stage is no list");
}

#[test]
fn odd_bytes_are_valid_json() {
    let response = ExecuteResponse::from(outcome(b"a\0\xff\x1b[31m", Vec::new()));
    assert_eq!(response.output, "a\0\u{fffd}\u{1b}[31m");
    let json = serde_json::to_string(&response).expect("serialises");
    let back: Value = serde_json::from_str(&json).expect("valid JSON");
    assert_eq!(back["output"], response.output);
}

#[test]
fn stages_are_listed_when_there_are_several() {
    let mut outcome = outcome(b"", Vec::new());
    outcome.stages.insert(0, outcome.stages[0].clone());
    outcome.stages[0].name = "compile".into();
    outcome.stages[0].stderr.truncated = true;
    let response = ExecuteResponse::from(outcome);
    assert_eq!(response.stages.len(), 2);
    assert_eq!(response.stages[0].name, "compile");
    assert!(response.truncated);
}

#[test]
fn files_are_inlined_up_to_the_bound() {
    let file = |path: &str, content: Vec<u8>| OutputFile {
        path: path.into(),
        size: content.len() as u64,
        content,
    };
    let response = ExecuteResponse::from(outcome(
        b"",
        vec![
            file("a.txt", b"hi".to_vec()),
            file("b.bin", vec![0xff, 0]),
            file("c.big", vec![b'x'; INLINE_BYTES - 3]),
            file("d.txt", b"ok!!".to_vec()),
        ],
    ));
    let files = &response.files;
    assert_eq!(files[0].content.as_deref(), Some("hi"));
    assert_eq!(files[0].encoding, Some(Encoding::Utf8));
    assert_eq!(files[1].content.as_deref(), Some("/wA="));
    assert_eq!(files[1].encoding, Some(Encoding::Base64));
    assert_eq!((files[2].content.as_ref(), files[2].encoding), (None, None));
    assert_eq!(files[2].size, (INLINE_BYTES - 3) as u64);
    assert_eq!(files[3].content.as_deref(), Some("ok!!"));
    assert!(response.warnings[0].starts_with("files listed without content: 1"));
}

#[test]
fn linked_files_are_offered_in_chatgpts_ways() {
    let file = |path: &str, size: usize| OutputFile {
        path: path.into(),
        size: size as u64,
        content: vec![0xff; size],
    };
    let mut files = vec![
        file("out/plot 1.png", 3),
        file("data.csv", 3),
        file("film.mp4", 3),
        file("lost.bin", 3),
        file("huge.bin", 10_000_001),
    ];
    files.extend((0..20).map(|at| file(&format!("{at}.png"), 1)));
    files.extend((0..20).map(|at| file(&format!("{at}.csv"), 1)));
    let links: Vec<Option<Link>> = files
        .iter()
        .map(|file| {
            (file.path != "lost.bin").then(|| Link {
                id: "0".repeat(32),
                url: format!(
                    "https://codex.example.com/{}",
                    file.path.replace(' ', "%20")
                ),
                expires: 1_767_325_445,
            })
        })
        .collect();
    let mut response = ExecuteResponse::from(outcome(b"", files.clone()));
    response.link(links.clone());
    let plot = &response.files[0];
    assert_eq!(
        (plot.name.as_str(), plot.path.as_str()),
        ("plot 1.png", "out/plot 1.png")
    );
    assert_eq!(plot.media_type, "image/png");
    assert_eq!(plot.expires.as_deref(), Some("2026-01-02T03:44:05Z"));
    assert!(plot.content.is_some(), "other clients still get it");
    assert_eq!(response.files[3].url, None);
    let json = serde_json::to_value(&response).expect("serialises");
    assert!(json.get("markdown").is_none() && json.get("openaiFileResponse").is_none());

    response.offer_to_chatgpt();
    let markdown = response.markdown.as_deref().expect("pictures");
    assert!(markdown.starts_with("![plot 1.png](https://codex.example.com/out/plot%201.png)\n"));
    assert_eq!(markdown.lines().count(), 10);
    let offered = &response.openai_files;
    assert_eq!(offered.len(), 10);
    assert_eq!(offered[0], "https://codex.example.com/data.csv");
    assert!(
        offered[1..].iter().all(|url| url.ends_with(".csv")),
        "{offered:?}"
    );
    assert_eq!(response.files[0].content, None, "a model cannot read it");
    assert!(
        response.files[3].content.is_some(),
        "there is no link to it"
    );

    let mut plain = ExecuteResponse::from(outcome(b"", files));
    let http = |link: Option<Link>| {
        link.map(|link| Link {
            url: link.url.replace("https", "http"),
            ..link
        })
    };
    plain.link(links.into_iter().map(http).collect());
    plain.offer_to_chatgpt();
    assert!(
        plain.openai_files.is_empty(),
        "ChatGPT fetches by https alone"
    );
    assert!(plain.markdown.is_some());
}
