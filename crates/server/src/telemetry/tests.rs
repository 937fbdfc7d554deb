//! Lines as they are written, caught in memory.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Debug, Clone, Default)]
struct Caught(Arc<Mutex<Vec<u8>>>);

impl io::Write for Caught {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Caught {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn lines(format: LogFormat, level: &str, act: impl FnOnce()) -> Vec<String> {
    let caught = Caught::default();
    let filter = EnvFilter::new(level);
    tracing::subscriber::with_default(subscriber(format, filter, caught.clone()), act);
    let text = String::from_utf8(caught.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What a request logs, with the engine's part inside.
fn request() {
    let _request = tracing::error_span!("request", request_id = %"abc").entered();
    tracing::info!(target: "access", status = 200, ok = true, "request");
    let _run = tracing::error_span!("run", run_id = "r1").entered();
    tracing::warn!(target: "engine::executor", error = %"no \"space\" left", "failed");
}

#[test]
fn every_line_of_a_request_carries_its_id() {
    for format in [LogFormat::Text, LogFormat::Json] {
        for (level, count) in [("info", 2), ("warn", 1), ("error", 0)] {
            let lines = lines(format, level, request);
            assert_eq!(lines.len(), count, "{lines:?}");
            for line in &lines {
                assert!(line.contains("abc"), "{line}");
                assert_eq!(line.matches("request_id").count(), 1, "{line}");
            }
        }
    }
}

#[test]
fn json_lines_are_flat() {
    let lines = lines(LogFormat::Json, "info", request);
    let parsed: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(parsed[0]["status"], 200);
    assert_eq!(parsed[0]["ok"], true);
    assert_eq!(parsed[0]["message"], "request");
    assert_eq!(parsed[0]["level"], "INFO");
    assert_eq!(parsed[0]["target"], "access");
    assert!(parsed[0]["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(parsed[1]["error"], "no \"space\" left");
    assert_eq!(parsed[1]["run_id"], "r1");
    assert_eq!(parsed[1]["request_id"], "abc");
}
