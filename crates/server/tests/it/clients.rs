//! Clients with limits of their own: ChatGPT Actions.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::wait_until;
use crate::support::TestServer;

const ACTION: &str = "openai-conversation-id: 0123";

#[test]
fn an_action_gets_fewer_than_a_hundred_thousand_characters() {
    let server = TestServer::start();
    let code = "print('first'); print('\"\\n\u{1}' * 100_000); print('last')";
    let body = json!({ "code": code }).to_string();
    let cut = server.execute_with(&[ACTION], body.as_bytes());
    let characters = cut.text().encode_utf16().count();
    assert!(characters < 100_000, "{characters}");
    let json = cut.json();
    assert_eq!(json["truncated"], true);
    let output = json["output"].as_str().expect("a string");
    assert!(output.starts_with("first\n") && output.ends_with("last\n"));
    assert!(output.contains("characters left out"));

    let whole = server.execute(&body);
    assert!(whole.text().len() > 500_000);
    assert_eq!(whole.json()["truncated"], false);
}

#[test]
fn an_action_is_answered_in_its_time() {
    // The default is ten times as long; what follows from it is the same.
    let settings = [("CODEX_CONCURRENCY", "1"), ("CODEX_ACTION_TIMEOUT", "4s")];
    let server = TestServer::with(&settings);
    let code = "print('begun', flush=True); import time; time.sleep(28)";
    let slow = json!({"code": code, "timeout": 30}).to_string();

    // A program that would take longer is stopped, and nothing is lost.
    let begun = Instant::now();
    let reply = server.execute_with(&[ACTION], slow.as_bytes()).json();
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(reply["status"], "timeout");
    assert_eq!(reply["output"], "begun\n");
    let warnings = reply["warnings"].to_string();
    assert!(
        warnings.contains("was lowered from 30.0 s to"),
        "{warnings}"
    );

    // One that can't begin in time is refused at once.
    let mut other = server.connect();
    let bearer = server.bearer();
    let headers = [bearer.as_str(), "Content-Type: application/json"];
    let request = server.bytes("POST", "/execute", &headers, slow.as_bytes());
    other.write_all(&request).expect("write");
    wait_until("the other run", || server.running() == 1);
    let begun = Instant::now();
    let reply = server.execute_with(&[ACTION], slow.as_bytes());
    assert!(begun.elapsed() < Duration::from_secs(1));
    reply.problem(503);
    assert!(reply.header("retry-after").is_some());

    // What is out of range stays so.
    let long = json!({"code": code, "timeout": 31}).to_string();
    let reply = server.execute_with(&[ACTION], long.as_bytes());
    assert!(reply.problem(400).contains("timeout"));
}
