//! What is counted, who may see it, and that no caller can make it grow.

use std::io::Write as _;

use crate::events::Stream;
use crate::server::{wait_for, wait_until};
use crate::support::{Reply, TestServer};

fn scrape(server: &TestServer) -> String {
    let reply = server.request("GET", "/metrics", &[&server.bearer()], b"");
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    reply.text()
}

/// The value of the only line that begins so and holds all labels.
#[track_caller]
fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .collect();
    let [line] = found.as_slice() else {
        panic!("{} lines of {name} with {labels:?}: {found:?}", found.len());
    };
    let (_, value) = line.rsplit_once(' ').expect("a value");
    value.parse().expect("a number")
}

#[test]
fn runs_and_requests_are_counted() {
    let server = TestServer::start();
    server.execute(r#"{"code": "print('x' * 99)"}"#);
    server.execute(r#"{"code": "import sys; sys.exit(3)"}"#);
    server.execute(r#"{"code": "import time; time.sleep(9)", "timeout": 1}"#);
    server.execute(r#"{"code": "console.error(1)", "language": "js"}"#);
    server.execute(r#"{"code": ""}"#);
    let headers = [
        &server.bearer(),
        "Content-Type: application/json",
        "Accept: text/event-stream",
    ];
    let request = server.bytes("POST", "/execute", &headers, br#"{"code": "print(1)"}"#);
    let mut connection = server.connect();
    connection.write_all(&request).expect("write");
    assert!(Stream::open(connection).count() >= 3);
    let text = wait_for("the streamed run to be counted", || {
        let text = scrape(&server);
        // A place is free again when its box is dead.
        let all = text.contains("status=\"success\"} 2") && text.contains("codex_runs_live 0");
        all.then_some(text)
    });
    let python = "language=\"python\"";
    let isolation = server.get("/health").json()["isolation"].clone();
    let isolation = format!("isolation=\"{}\"", isolation.as_str().unwrap());
    for (status, count) in [("success", 2.0), ("error", 1.0), ("timeout", 1.0)] {
        let labels = [python, &format!("status=\"{status}\""), &isolation];
        assert_eq!(value(&text, "codex_runs_total", &labels), count, "{status}");
    }
    for step in ["prepare", "run", "collect"] {
        let labels = [python, &format!("step=\"{step}\"")];
        assert_eq!(value(&text, "codex_run_step_seconds_count", &labels), 4.0);
    }
    let run = value(&text, "codex_run_step_seconds_sum", &[python, "\"run\""]);
    assert!((1.0..9.0).contains(&run), "{run}");
    assert_eq!(value(&text, "codex_queue_wait_seconds_count", &[]), 5.0);
    let written = |stream| value(&text, "codex_run_output_bytes_total", &[stream]);
    assert_eq!(written("stdout"), 102.0);
    assert_eq!(written("stderr"), 2.0);
    let execute = "route=\"/execute\"";
    let requests = |status| value(&text, "codex_http_requests_total", &[execute, status]);
    assert!(requests("\"200\"") >= 4.0, "{text}");
    assert_eq!(requests("\"400\""), 1.0);
    assert_eq!(
        value(&text, "codex_http_problems_total", &["invalid-request"]),
        1.0
    );
    assert_eq!(value(&text, "codex_sandbox_healthy", &[]), 1.0);
    assert_eq!(value(&text, "codex_isolation_info", &[&isolation]), 1.0);
    for name in [
        "codex_build_info",
        "process_start_time_seconds",
        "process_open_fds",
    ] {
        assert!(value(&text, name, &[]) > 0.0, "{name}");
    }
    assert!(value(&text, "process_resident_memory_bytes", &[]) > 1e6);
}

#[test]
fn load_and_refusals_are_counted() {
    let server = TestServer::with(&[("CODEX_CONCURRENCY", "1"), ("CODEX_QUEUE", "0")]);
    let (bearer, json) = (server.bearer(), "Content-Type: application/json");
    let body = br#"{"code": "import time; time.sleep(25)", "timeout": 28}"#;
    let mut busy = server.connect();
    let request = server.bytes("POST", "/execute", &[&bearer, json], body);
    busy.write_all(&request).expect("write");
    wait_until("the run to begin", || server.running() == 1);
    server.execute(r#"{"code": "1"}"#).problem(503);
    let text = scrape(&server);
    assert_eq!(value(&text, "codex_runs_live", &[]), 1.0);
    assert_eq!(value(&text, "codex_runs_capacity", &[]), 1.0);
    let refused = |reason| value(&text, "codex_runs_refused_total", &[reason]);
    assert_eq!((refused("queue_full"), refused("draining")), (1.0, 0.0));
    drop(busy);
    wait_for("the run to be counted as cancelled", || {
        let text = scrape(&server);
        (text.contains("status=\"cancelled\"") && text.contains("status=\"499\"")).then_some(())
    });
}

#[test]
fn a_token_is_needed_and_the_loopback_rule_holds() {
    let server = TestServer::start();
    server.get("/metrics").problem(401);
    let open = TestServer::open(&[]);
    assert_eq!(open.get("/metrics").status, 200);
    let foreign = open.request("GET", "/metrics", &["Host: evil.example"], b"");
    foreign.problem(403);
}

#[test]
fn no_caller_makes_a_series() {
    let server = TestServer::start();
    let bearer = server.bearer();
    let ask = |number: u32| -> Vec<Reply> {
        let (path, method) = (format!("/evil-{number}"), format!("EVIL{number}"));
        let language = format!(r#"{{"code": "1", "language": "evil{number}"}}"#);
        vec![
            server.request("GET", &path, &[&bearer], b""),
            server.request(&method, "/health", &[&bearer], b""),
            server.execute(&language),
        ]
    };
    ask(0);
    scrape(&server);
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let before = series(&scrape(&server));
    for number in 1..8 {
        ask(number);
    }
    let text = scrape(&server);
    assert_eq!(series(&text), before, "{text}");
    assert!(!text.to_lowercase().contains("evil"), "{text}");
}

#[test]
fn each_line_of_a_request_carries_its_id() {
    let server = TestServer::with(&[("CODEX_LOG_FORMAT", "json"), ("CODEX_LOG_LEVEL", "debug")]);
    let id = ["X-Request-Id: followed"];
    server.execute_with(&id, br#"{"code": "print(1)"}"#);
    server.execute_with(&id, br#"{"code": ""}"#);
    // The engine's line says whose run it was.
    let line = server.log_line(&["a run has ended"]);
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["request_id"], "followed");
    assert!(line["run_id"].is_string(), "{line}");
    let line = server.log_line(&["access", "followed", "400"]);
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["request_id"], "followed");
    assert_eq!(line["path"], "/execute");
}
