//! Streamed runs: what is told, in which order, and what becomes of readers
//! that are slow, stalled or gone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::events::{Event, Stream};
use crate::processes;
use crate::server::{wait_for, wait_until};
use crate::support::TestServer;

const MIB: usize = 1 << 20;

/// Opens a stream of a run.
fn open(server: &TestServer, body: &Value, more: &[&str]) -> Stream {
    let bearer = server.bearer();
    let mut headers = vec![
        bearer.as_str(),
        "Content-Type: application/json",
        "Accept: text/event-stream",
    ];
    headers.extend(more);
    let request = server.bytes("POST", "/execute", &headers, body.to_string().as_bytes());
    let mut connection = server.connect();
    connection.write_all(&request).expect("write");
    Stream::open(connection)
}

/// All events of a run.
fn run(server: &TestServer, code: &str) -> Vec<Event> {
    let stream = open(server, &json!({"code": code}), &[]);
    assert_eq!(stream.reply.status, 200);
    stream.collect()
}

fn text(events: &[Event], name: &str) -> String {
    let texts = events.iter().filter(|event| event.name == name);
    texts
        .map(|event| event.data["text"].as_str().expect("text"))
        .collect()
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

#[test]
fn events_come_in_order_while_the_program_runs() {
    let server = TestServer::start();
    let code = "import os, time\nos.write(1, b'one\\n')\ntime.sleep(1)\nos.write(2, b'two\\n')\ntime.sleep(0.2)\nos.write(1, b'three\\n')";
    let mut stream = open(&server, &json!({"code": code}), &["X-Request-Id: told"]);
    let reply = &stream.reply;
    assert_eq!(reply.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("x-request-id", "told"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert!(reply.header("ratelimit").is_some());
    let first: Vec<Event> = stream.by_ref().take(2).collect();
    let begun = Instant::now();
    let rest: Vec<Event> = stream.collect();
    assert!(
        begun.elapsed() > Duration::from_millis(700),
        "the first came long before the last"
    );
    let events = [first, rest].concat();
    assert_eq!(
        names(&events),
        ["start", "stdout", "stderr", "stdout", "end"]
    );
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5"]);
    let (start, end) = (&events[0].data, &events[4].data);
    for field in ["id", "language", "version", "isolation"] {
        assert!(start[field].is_string(), "{start}");
        assert_eq!(start[field], end[field], "{field}");
    }
    assert_eq!(end["output"], "one\nthree\n");
    assert_eq!(end["error"], "two\n");
    let line = server.log_line(&["told", "access"]);
    assert!(
        line.contains("status=200") && line.contains("success"),
        "{line}"
    );
    let took = line.split("duration_ms=").nth(1).expect("a duration");
    let took: f64 = took.split(' ').next().unwrap_or_default().parse().unwrap();
    assert!(took > 1000.0, "the line is written at the end: {line}");
}

#[test]
fn the_end_is_the_answer_that_others_get() {
    let server = TestServer::start();
    for body in [
        json!({"code": "print(2+2)"}),
        json!({"code": "import sys; print('x', file=sys.stderr); sys.exit(3)"}),
        json!({"code": "console.log(1)", "language": "javascript"}),
        json!({"code": "print('x' * 3_000_000)"}),
        json!({"code": "open('a.txt', 'w').write('hi')", "unknown_field": 1}),
        json!({"code": "import time; print('so far', flush=True); time.sleep(9)", "timeout": 1}),
        json!({"code": "import os; os.write(1, b'\\xff\\xe6\\x97'); os.kill(os.getpid(), 9)"}),
    ] {
        let plain = server.execute(&body.to_string()).json();
        let events: Vec<Event> = open(&server, &body, &[]).collect();
        let end = events.last().expect("an end");
        assert_eq!(end.name, "end");
        let same = |answer: &Value| {
            let mut answer = answer.clone();
            for field in ["id", "timestamp", "execution_time", "usage"] {
                let member = answer.as_object_mut().expect("an object").remove(field);
                assert!(member.is_some(), "{field}");
            }
            for file in answer["files"].as_array_mut().into_iter().flatten() {
                for field in ["id", "url", "expires"] {
                    let member = file.as_object_mut().expect("a file").remove(field);
                    assert!(member.is_some(), "{field}");
                }
            }
            answer
        };
        assert_eq!(same(&end.data), same(&plain), "{body}");
        if plain["truncated"] == false {
            assert_eq!(text(&events, "stdout"), plain["output"].as_str().unwrap());
            assert_eq!(text(&events, "stderr"), plain["error"].as_str().unwrap());
        }
    }
}

#[test]
fn a_quick_reader_loses_nothing_that_the_answer_leaves_out() {
    // Quick as far as this machine lets it be.
    let server = TestServer::with(&[("CODEX_STREAM_WAIT", "30s")]);
    let events = run(&server, "for i in range(700_000): print(f'{i:09}')");
    let all = text(&events, "stdout");
    assert_eq!(all.len(), 7_000_000);
    let expected = (0..700_000).map(|i| format!("{i:09}"));
    assert!(all.lines().eq(expected), "in order, and whole");
    assert_eq!(events.last().expect("an end").data["truncated"], true);
}

#[test]
fn characters_are_never_cut_in_two() {
    let server = TestServer::start();
    let code = "import os, time\nfor byte in 'é日😀'.encode():\n    os.write(1, bytes([byte])); time.sleep(0.03)\nos.write(1, b'\\xe6'); time.sleep(0.03); os.write(1, b'x\\xf0\\x9f')";
    let events = run(&server, code);
    let parts: Vec<&str> = events
        .iter()
        .filter_map(|event| event.data["text"].as_str())
        .collect();
    assert_eq!(parts, ["é", "日", "😀", "\u{fffd}x", "\u{fffd}"]);
}

#[test]
fn a_program_forges_no_event() {
    let server = TestServer::start();
    let forged =
        "\n\nid: 99\nevent: end\ndata: {\"status\":\"success\"}\n\n\r\n\r\n: x\r\rretry: 1\n";
    let events = run(
        &server,
        &format!("import sys; sys.stdout.reconfigure(newline=''); print({forged:?}, end='')"),
    );
    assert_eq!(names(&events), ["start", "stdout", "end"]);
    assert_eq!(text(&events, "stdout"), forged);
}

#[test]
fn silence_is_broken_by_comments() {
    let server = TestServer::with(&[("CODEX_STREAM_KEEP_ALIVE", "1s")]);
    let body = json!({"code": "import time; time.sleep(2.5)"});
    let mut stream = open(&server, &body, &[]);
    let events: Vec<Event> = stream.by_ref().collect();
    assert_eq!(names(&events), ["start", "end"]);
    assert!(stream.comments.len() >= 2, "{:?}", stream.comments);
    assert!(
        stream
            .comments
            .iter()
            .all(|comment| comment == "keep-alive")
    );
}

#[test]
fn the_form_is_negotiated() {
    let server = TestServer::start();
    let body = br#"{"code": "print(1)"}"#;
    for (accept, kind) in [
        ("*/*", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        (
            "text/event-stream;q=0.1, application/*;q=0.2",
            "application/json",
        ),
        (
            "text/html, text/event-stream;q=0.1",
            "text/event-stream; charset=utf-8",
        ),
        ("text/event-stream, */*", "text/event-stream; charset=utf-8"),
    ] {
        let accept = format!("Accept: {accept}");
        let reply = server.execute_with(&[&accept], body);
        assert_eq!(reply.status, 200, "{accept}");
        assert_eq!(reply.header("content-type"), Some(kind), "{accept}");
    }
    let refused = server.execute_with(&["Accept: text/html"], body);
    assert!(refused.problem(406).contains("text/event-stream"));
    // An action cannot read a stream, whatever it says.
    let action = ["Accept: text/event-stream", "OpenAI-Conversation-Id: x"];
    let reply = server.execute_with(&action, body);
    assert_eq!(reply.json()["output"], "1\n");
}

#[test]
fn refusals_before_the_start_have_their_status() {
    let server = TestServer::with(&[("CODEX_CONCURRENCY", "1"), ("CODEX_QUEUE", "0")]);
    let stream = open(&server, &json!({"code": ""}), &[]);
    stream.reply.problem(400);
    let stream = open(&server, &json!({"code": "1", "language": "cobol"}), &[]);
    assert!(stream.reply.problem(400).contains("cobol"));
    let wrong = [
        "Authorization: Bearer codex_wrong",
        "Accept: text/event-stream",
    ];
    server
        .request("POST", "/execute", &wrong, b"{}")
        .problem(401);
    let mut busy = open(&server, &json!({"code": "import time; time.sleep(2)"}), &[]);
    assert_eq!(busy.next().expect("it runs").name, "start");
    let stream = open(&server, &json!({"code": "1"}), &[]);
    assert!(stream.reply.problem(503).contains("busy"));
    assert!(stream.reply.header("retry-after").is_some());
}

#[test]
fn a_long_wait_for_a_place_is_told() {
    let server = TestServer::with(&[
        ("CODEX_CONCURRENCY", "1"),
        ("CODEX_STREAM_KEEP_ALIVE", "1s"),
        ("CODEX_QUEUE_WAIT", "4s"),
    ]);
    let sleep = |seconds: f64| json!({"code": format!("import time; time.sleep({seconds})")});
    let mut busy = open(&server, &sleep(2.0), &[]);
    assert_eq!(busy.next().expect("it runs").name, "start");
    let waiting: Vec<Event> = open(&server, &sleep(0.0), &[]).collect();
    assert_eq!(names(&waiting), ["queued", "start", "end"]);
    assert_eq!(waiting[0].data, json!({"running": 1, "waiting": 1}));

    let mut busy = open(&server, &sleep(8.0), &[]);
    assert_eq!(busy.next().expect("it runs").name, "start");
    let mut stream = open(&server, &sleep(0.0), &["X-Request-Id: in-vain"]);
    let in_vain: Vec<Event> = stream.by_ref().collect();
    assert_eq!(names(&in_vain), ["queued", "error"]);
    let problem = &in_vain[1].data;
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["request_id"], "in-vain");
    assert!(problem["detail"].as_str().unwrap().contains("busy"));
    assert!(!stream.comments.is_empty());
}

/// Resident memory of the server in KiB, the most so far and now.
fn memory(server: &TestServer) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("status");
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let words = line.expect("a line").split_whitespace();
        words.rev().nth(1).expect("a number").parse().expect("KiB")
    };
    (of("VmHWM:"), of("VmRSS:"))
}

/// Reads a stream at so many bytes a second until the server has ended it.
fn read_slowly(stream: &mut TcpStream, rate: usize) -> Vec<u8> {
    let (mut all, begun) = (Vec::new(), Instant::now());
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut chunk).expect("read");
        all.extend_from_slice(&chunk[..count]);
        if count == 0 || all.ends_with(b"\r\n0\r\n\r\n") {
            return all;
        }
        let due = Duration::from_secs_f64(all.len() as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

#[test]
fn a_slow_reader_takes_no_memory_and_holds_nobody_up() {
    let server = TestServer::start();
    // What any run takes is there before it is measured.
    run(&server, "print('x' * 3_000_000)");
    let (before, _) = memory(&server);
    // Prints 32 MiB while its reader takes little of it.
    let code = "import time\nbegun = time.time()\nfor _ in range(512): print('x' * 65535)\nprint('took', time.time() - begun)";
    let body = json!({"code": code}).to_string();
    let bearer = server.bearer();
    let headers = [
        bearer.as_str(),
        "Content-Type: application/json",
        "Accept: text/event-stream",
        "X-Request-Id: slow",
    ];
    let mut connection = server.connect();
    let request = server.bytes("POST", "/execute", &headers, body.as_bytes());
    connection.write_all(&request).expect("write");
    std::thread::sleep(Duration::from_secs(1));
    wait_until("the run to end", || server.running() == 0);
    let all = read_slowly(&mut connection, 8 * MIB);
    let (most, _) = memory(&server);
    assert!(
        most < before + 12 * 1024,
        "grew from {before} KiB to {most} KiB"
    );
    let mut stream = Stream::of(&all);
    let events: Vec<Event> = stream.by_ref().collect();
    let end = events.last().expect("an end");
    assert_eq!(end.name, "end");
    let took = end.data["execution_time"].as_f64().unwrap();
    assert!(took < 4.0, "held up for {took} s");
    let dropped: u64 = events
        .iter()
        .filter_map(|event| event.data["bytes"].as_u64())
        .sum();
    let told = text(&events, "stdout").len() as u64;
    let written = end.data["output"].as_str().unwrap();
    let tail = written.rsplit('\n').nth(1).unwrap();
    assert!(tail.starts_with("took"), "the tail is kept: {tail:?}");
    let written = 512 * 65_536 + tail.len() as u64 + 1;
    assert!(dropped > 0, "{:?}", names(&events));
    assert_eq!(told + dropped, written, "what is missing is told");
}

/// Sends a request for an answer of 28 MiB, and does not read it.
fn large(server: &TestServer, accept: &str) -> TcpStream {
    let code = "import sys\nsys.stdout.write('\\x01' * 1_000_000)\nsys.stderr.write('\\x01' * 1_000_000)\nopen('f', 'wb').write(b'\\0' * 3_000_000)";
    let body = json!({"code": code}).to_string();
    let (bearer, accept) = (server.bearer(), format!("Accept: {accept}"));
    let headers = [bearer.as_str(), "Content-Type: application/json", &accept];
    let request = server.bytes("POST", "/execute", &headers, body.as_bytes());
    let mut connection = server.connect();
    connection.write_all(&request).expect("write");
    connection
}

/// Whether an answer comes to its end.
fn is_whole(connection: &mut TcpStream) -> bool {
    let mut all = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while !all.ends_with(b"\r\n0\r\n\r\n") && !all.ends_with(b"}") {
        match connection.read(&mut chunk) {
            Ok(count) if count > 0 => all.extend_from_slice(&chunk[..count]),
            _ => return false,
        }
    }
    all.len() > 25 * MIB
}

#[test]
fn answers_that_nobody_reads_do_not_pile_up() {
    let server = TestServer::with(&[("CODEX_MAX_UNREAD", "40MiB")]);
    let metric = |name: &str| -> u64 {
        let reply = server.request("GET", "/metrics", &[&server.bearer()], b"");
        let text = reply.text();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit_once(' '));
        value.expect("counted").1.parse().expect("a number")
    };
    let accepts = ["application/json", "text/event-stream"];
    let mut waiting = Vec::new();
    for (count, accept) in [0, 1, 0, 1].into_iter().enumerate() {
        waiting.push(large(&server, accepts[accept]));
        wait_for("the answer before to be cut off", || {
            let cut = metric("codex_answers_cut_off_total");
            let bytes = metric("codex_answers_unread_bytes");
            assert!(bytes < 40 << 20, "{bytes}");
            (cut == count as u64 && bytes > 25 << 20).then_some(())
        });
    }
    let mut last = waiting.pop().expect("the last");
    assert!(is_whole(&mut last), "the newest can be read");
    for connection in &mut waiting {
        assert!(!is_whole(connection), "cut off");
    }
    let none = |name| wait_for("nothing to wait", || (metric(name) == 0).then_some(()));
    none("codex_answers_unread_bytes");
    none("codex_streams_open");
    server.log_line(&["slow readers were cut off"]);
    for accept in accepts {
        assert!(is_whole(&mut large(&server, accept)), "{accept}");
    }
}

#[test]
fn results_that_wait_for_a_slow_reader_are_counted() {
    let server = TestServer::start();
    let code = "class Shown:\n  def _repr_html_(self): return 'x' * (7 << 20)\ndisplay(Shown())";
    let body = json!({ "code": code }).to_string();
    let bearer = server.bearer();
    let kind = "Content-Type: application/json";
    let headers = [bearer.as_str(), kind, "Accept: text/event-stream"];
    let request = server.bytes("POST", "/execute", &headers, body.as_bytes());
    let mut connection = server.connect();
    connection.write_all(&request).expect("write");
    let unread = || -> u64 {
        let reply = server.request("GET", "/metrics", &[&bearer], b"");
        let text = reply.text();
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("codex_answers_unread_bytes"));
        let value = line.and_then(|line| line.rsplit_once(' '));
        value.expect("counted").1.parse().expect("a number")
    };
    let held = wait_for("its end", || Some(unread()).filter(|held| *held > 0));
    // Once in the answer, and once as the result that is told before it.
    assert!(held > 14 << 20, "{held}");
    assert!(held < 16 << 20, "{held}");
    let events = Stream::open(connection);
    let mut sizes = Vec::new();
    for event in events {
        let data = match event.name.as_str() {
            "result" => &event.data["data"],
            "end" => &event.data["results"][0]["data"],
            _ => continue,
        };
        sizes.push(data["text/html"].as_str().expect("text").len());
    }
    assert_eq!(sizes, [7 << 20, 7 << 20]);
    wait_until("nothing to wait", || unread() == 0);
}

#[test]
fn no_more_than_the_bound_is_streamed() {
    let server = TestServer::with(&[("CODEX_MAX_STREAM", "100KiB")]);
    let events = run(
        &server,
        "for _ in range(200): print('é' * 511)\nprint('end')",
    );
    let last = &names(&events)[events.len() - 2..];
    assert_eq!(last, ["truncated", "end"]);
    assert_eq!(events[events.len() - 2].data, json!({"limit": 102_400}));
    let told = text(&events, "stdout");
    assert!((102_398..=102_400).contains(&told.len()), "{}", told.len());
    let end = &events[events.len() - 1].data;
    assert_eq!(end["truncated"], false, "the answer keeps more");
    assert!(end["output"].as_str().unwrap().ends_with("end\n"));
}

/// Starts a run that would take long, and gives its connection and its mark.
fn long_run(server: &TestServer, code: &str) -> (Stream, String) {
    let mark = format!("marker-{}-stream", server.address.port());
    let body = json!({"code": code, "timeout": 28, "args": [mark]});
    let mut stream = open(server, &body, &["X-Request-Id: gone"]);
    assert_eq!(stream.next().expect("it runs").name, "start");
    wait_until("the process", || processes::with(&[&mark]) > 0);
    (stream, mark)
}

#[test]
fn a_reader_that_vanishes_cancels_its_run() {
    for code in [
        "import time; time.sleep(25)",
        "while True: print('x' * 1000)",
        "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(25)",
    ] {
        let server = TestServer::start();
        let (stream, mark) = long_run(&server, code);
        drop(stream);
        server.cancels(&mark, Duration::from_secs(1));
        server.still_runs();
    }
}

#[test]
fn so_does_one_that_had_pipelined_more() {
    let server = TestServer::start();
    let (mut stream, mark) = long_run(&server, "import time; time.sleep(25)");
    let more = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.connection().write_all(more).expect("write");
    std::thread::sleep(Duration::from_millis(300));
    drop(stream);
    server.cancels(&mark, Duration::from_secs(1));
}

#[test]
fn one_that_stalls_is_cut_and_its_run_cancelled() {
    let server = TestServer::with(&[("CODEX_CLIENT_TIMEOUT", "1s")]);
    let (stream, mark) = long_run(&server, "while True: print('x' * 1000)");
    server.cancels(&mark, Duration::from_secs(8));
    drop(stream);
    server.still_runs();
}

#[test]
fn a_failure_of_ours_is_told_after_the_start() {
    let server = TestServer::start();
    let (stream, _) = long_run(&server, "import time; time.sleep(25)");
    server.kill_warden();
    let events: Vec<Event> = stream.collect();
    let last = events.last().expect("an error");
    assert_eq!(last.name, "error");
    assert_eq!(last.data["status"], 500);
    assert_eq!(last.data["request_id"], "gone");
    server.log_line(&["failed to run a job", "request_id=gone"]);
}

#[test]
fn a_stopping_server_tells_the_end() {
    let server = TestServer::with(&[("CODEX_DRAIN_GRACE", "1s")]);
    let code = "import time; print('so far', flush=True); time.sleep(25)";
    let (stream, _) = long_run(&server, code);
    server.terminate();
    let events: Vec<Event> = stream.collect();
    let end = events.last().expect("an end");
    assert_eq!(
        (end.name.as_str(), &end.data["status"]),
        ("end", &json!("cancelled"))
    );
    assert_eq!(end.data["output"], "so far\n");
    assert!(server.ended_well());
}
