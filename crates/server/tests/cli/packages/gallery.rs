//! The gallery: programs that people write, run as cells with the set of packages that
//! comes with the server. Each says in its first line which forms its results have.
//!
//! The pictures are kept below the build directory, to be looked at.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::{Home, Server};

/// A session for one program.
fn cell(server: &Server, token: &str, code: &str) -> Value {
    let call = |path: &str, body: &Value| {
        let (status, answer) = server.call("POST", path, Some(token), &body.to_string());
        assert!(status < 300, "{path}: {answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let session = call(
        "/sessions",
        &json!({ "language": "python", "memory_mb": 1024 }),
    );
    let body = json!({ "code": code, "session_id": session["id"], "timeout": 30 });
    let answer = call("/execute", &body);
    let path = format!("/sessions/{}", session["id"].as_str().unwrap());
    let ended = server.call("DELETE", &path, Some(token), "");
    assert_eq!(ended.0, 204, "{}", ended.1);
    answer
}

/// All forms of an answer's results, a chart with its type.
fn forms(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().into_iter().flatten();
    let forms = results.filter_map(|result| result["data"].as_object());
    let named = forms.flatten().map(|(form, data)| match &data["type"] {
        Value::String(kind) if form.contains("chart") => format!("{form}:{kind}"),
        _ => form.clone(),
    });
    named.collect()
}

fn keep(name: &str, answer: &Value) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gallery");
    fs::create_dir_all(&directory).unwrap();
    let results = answer["results"].as_array().into_iter().flatten();
    let pictures = results.filter_map(|result| result["data"]["image/png"].as_str());
    for (number, picture) in pictures.enumerate() {
        let bytes = BASE64.decode(picture).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{name}");
        let path = directory.join(format!("{name}-{number}.png"));
        fs::write(path, bytes).unwrap();
    }
}

/// Runs the whole gallery on a home that has packages.
pub(super) fn gallery(home: &Home) {
    let server = home.serve(&["serve", "--port", "0", "--rate-limit", "off"]);
    let token = server.token();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/python/gallery");
    let mut programs: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|one| one.unwrap().path())
        .collect();
    programs.sort();
    assert_eq!(programs.len(), 25);
    for program in programs {
        let name = program.file_stem().unwrap().to_string_lossy().into_owned();
        let code = fs::read_to_string(&program).unwrap();
        let expected = code
            .lines()
            .next()
            .unwrap()
            .strip_prefix("# expects: ")
            .unwrap();
        let answer = cell(&server, &token, &code);
        assert_eq!(answer["status"], "success", "{name}: {answer}");
        let found = forms(&answer);
        for form in expected.split_whitespace() {
            assert!(
                found.iter().any(|one| one == form),
                "{name}: {form} of {found:?}: {}",
                answer["error"]
            );
        }
        assert_eq!(answer["error"], "", "{name}");
        keep(&name, &answer);
    }
}
