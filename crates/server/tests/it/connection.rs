//! Slow clients, clients that go away, and connections that are kept.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::processes;
use crate::server::wait_until;
use crate::support::{Reply, TestServer};

const SLOW: [(&str, &str); 1] = [("CODEX_CLIENT_TIMEOUT", "1s")];

fn is_closed(stream: &mut std::net::TcpStream) -> bool {
    // An answer may come first; what matters is the end after it.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_ok()
}

#[test]
fn slow_headers_end_the_connection() {
    let server = TestServer::with(&SLOW);
    let begun = Instant::now();
    let mut stream = server.connect();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: loc")
        .expect("write");
    assert!(is_closed(&mut stream));
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(10)).contains(&took),
        "{took:?}"
    );
    let mut silent = server.connect();
    assert!(
        is_closed(&mut silent),
        "a connection without a request ends too"
    );
    server.still_answers();
}

#[test]
fn a_slow_body_is_told() {
    let server = TestServer::with(&SLOW);
    let mut stream = server.connect();
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: localhost\r\n{}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        server.bearer()
    );
    stream.write_all(head.as_bytes()).expect("write");
    let reply = Reply::read(&mut stream, false);
    assert!(reply.problem(408).contains("did not arrive within 1 s"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(is_closed(&mut stream));
    server.still_answers();
}

#[test]
fn an_idle_connection_is_kept_for_a_while_only() {
    let server = TestServer::with(&SLOW);
    let mut stream = server.connect();
    for _ in 0..3 {
        let request = server.bytes("GET", "/health", &[], b"");
        stream.write_all(&request).expect("write");
        assert_eq!(Reply::read(&mut stream, false).status, 200);
    }
    let begun = Instant::now();
    assert!(is_closed(&mut stream));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let mut stream = server.connect();
    let request = [
        server.bytes("GET", "/health", &["X-Request-Id: one"], b""),
        server.bytes("GET", "/languages", &["X-Request-Id: two"], b""),
    ];
    stream.write_all(&request.concat()).expect("write");
    for id in ["one", "two"] {
        let reply = Reply::read(&mut stream, false);
        assert_eq!(reply.header("x-request-id"), Some(id));
    }
}

/// A run that would take long is gone soon after its client, with the
/// processes that it started and hid.
fn disconnect_cancels(extra: &[u8], within: Duration) {
    let server = TestServer::start();
    let mut stream = server.connect();
    let marker = format!("marker-{}-{}", server.address.port(), extra.len());
    let code =
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\ntime.sleep(25)";
    let body = serde_json::json!({"code": code, "timeout": 28, "args": [marker]}).to_string();
    let bearer = server.bearer();
    let headers = [
        bearer.as_str(),
        "Content-Type: application/json",
        "X-Request-Id: gone",
    ];
    let mut request = server.bytes("POST", "/execute", &headers, body.as_bytes());
    request.extend_from_slice(extra);
    stream.write_all(&request).expect("write");
    wait_until("three processes", || processes::with(&[&marker]) == 3);
    drop(stream);
    server.cancels(&marker, within);
}

#[test]
fn a_client_that_goes_away_cancels_its_run() {
    disconnect_cancels(b"", Duration::from_secs(1));
}

#[test]
fn so_does_one_that_pipelined_more() {
    let more = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    disconnect_cancels(more, Duration::from_secs(1));
}

#[test]
fn so_does_one_with_more_than_a_buffer_of_it() {
    let more = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(10_000);
    // The end of its stream waits behind bytes that nobody reads.
    disconnect_cancels(&more, Duration::from_secs(5));
}

#[test]
fn a_stopping_server_finishes_what_it_began() {
    let server = TestServer::start();
    let mut busy = server.connect();
    let body = br#"{"code": "import time; time.sleep(1.5); print('done')"}"#;
    let bearer = server.bearer();
    let headers = [bearer.as_str(), "Content-Type: application/json"];
    let request = server.bytes("POST", "/execute", &headers, body);
    busy.write_all(&request).expect("write");
    wait_until("the run to begin", || server.running() == 1);
    let mut idle = server.connect();
    idle.write_all(&server.bytes("GET", "/health", &[], b""))
        .expect("write");
    assert_eq!(Reply::read(&mut idle, false).status, 200);
    server.terminate();
    assert!(is_closed(&mut idle), "an idle connection is not waited for");
    let reply = Reply::read(&mut busy, false);
    assert_eq!(reply.json()["output"], "done\n");
    assert!(server.ended_well());
}

#[test]
fn a_stopping_server_kills_what_outlasts_the_grace_and_gives_its_output() {
    let server = TestServer::with(&[("CODEX_DRAIN_GRACE", "1s")]);
    let marker = format!("marker-{}-drain", server.address.port());
    let code = "import os, time\nprint('so far', flush=True)\nif os.fork() == 0:\n    os.setsid()\ntime.sleep(25)";
    let body = serde_json::json!({"code": code, "timeout": 28, "args": [marker]}).to_string();
    let bearer = server.bearer();
    let headers = [bearer.as_str(), "Content-Type: application/json"];
    let mut busy = server.connect();
    let request = server.bytes("POST", "/execute", &headers, body.as_bytes());
    busy.write_all(&request).expect("write");
    wait_until("two processes", || processes::with(&[&marker]) == 2);
    let begun = Instant::now();
    server.terminate();
    let reply = Reply::read(&mut busy, false);
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!(answer["status"], "cancelled");
    assert_eq!(answer["exit_code"], 137);
    assert_eq!(answer["output"], "so far\n");
    assert!(server.ended_well());
    let took = begun.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    assert_eq!(processes::with(&[&marker]), 0);
}

#[test]
fn the_quietest_connection_makes_way_at_the_bound() {
    let server = TestServer::with(&[("CODEX_MAX_CONNECTIONS", "2")]);
    let is_closed = |stream: &mut TcpStream| {
        let patience = Some(Duration::from_millis(500));
        stream.set_read_timeout(patience).expect("a timeout");
        matches!(stream.read(&mut [0]), Ok(0))
    };
    // One that showed a token stays; one that says nothing goes.
    let mut known = server.connect();
    let request = server.bytes("GET", "/metrics", &[&server.bearer()], b"");
    known.write_all(&request).expect("write");
    assert_eq!(Reply::read(&mut known, false).status, 200);
    let mut silent = server.connect();
    assert!(!is_closed(&mut silent));
    let mut third = server.connect();
    third
        .write_all(&server.bytes("GET", "/health", &[], b""))
        .expect("write");
    assert_eq!(Reply::read(&mut third, false).status, 200);
    assert!(is_closed(&mut silent), "it made way");
    known.write_all(&request).expect("write");
    assert_eq!(Reply::read(&mut known, false).status, 200);
}

#[test]
fn a_thousand_silent_sockets_shut_nobody_out() {
    let server = TestServer::with(&[("CODEX_MAX_CONNECTIONS", "64")]);
    let mut silent: Vec<TcpStream> = Vec::new();
    for round in 0..10 {
        silent.extend((0..100).map(|_| server.connect()));
        for headers in [vec![], vec![server.bearer()]] {
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let reply = server.request("GET", "/health", &headers, b"");
            assert_eq!(reply.status, 200, "{round}");
        }
        assert_eq!(
            server
                .request("GET", "/metrics", &[&server.bearer()], b"")
                .status,
            200
        );
    }
}

#[test]
fn a_connection_that_asks_nothing_is_closed_soon() {
    let server = TestServer::start();
    let begun = Instant::now();
    let mut silent = server.connect();
    silent
        .write_all(b"GET /health HTTP/1.1\r\nHost: ")
        .expect("write");
    silent
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_client_that_closes_its_side_is_answered() {
    let server = TestServer::start();
    for path in ["/health", "/languages", "/openapi.json", "/nope"] {
        let mut stream = server.connect();
        stream
            .write_all(&server.bytes("GET", path, &[&server.bearer()], b""))
            .expect("write");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        let expected = if path == "/nope" { 404 } else { 200 };
        assert_eq!(Reply::read(&mut stream, false).status, expected, "{path}");
    }
    server.still_runs();
}
