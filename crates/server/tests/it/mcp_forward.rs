//! `mcp --url`: both eras of the Model Context Protocol from standard input to
//! a server over HTTP, by a way that records what passes and may lead
//! elsewhere; and against servers that are none.

use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::mcp_stdio::Local;
use crate::server::wait_until;
use crate::support::TestServer;

/// The token where no server looks at it.
const TOKEN: &str = "codex_the_secret_of_this_test";

/// The way to a server: passes bytes on and records what clients send.
struct Way {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Way {
    fn to(server: &TestServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let way = Self {
            address: listener.local_addr().expect("an address"),
            target: Arc::new(Mutex::new(server.address)),
            sent: Arc::default(),
        };
        let (target, sent) = (Arc::clone(&way.target), Arc::clone(&way.sent));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = *target.lock().expect("not poisoned");
                // Without a server the connection closes.
                if let Ok(server) = TcpStream::connect(target) {
                    pass(client, server, Arc::clone(&sent));
                }
            }
        });
        way
    }

    fn leads_to(&self, server: &TestServer) {
        *self.target.lock().expect("not poisoned") = server.address;
    }

    /// All that clients have sent so far.
    fn sent(&self) -> String {
        String::from_utf8_lossy(&self.sent.lock().expect("not poisoned")).into_owned()
    }
}

/// Passes bytes both ways on threads; either end's going ends both.
fn pass(client: TcpStream, server: TcpStream, sent: Arc<Mutex<Vec<u8>>>) {
    let copy = |mut from: TcpStream, mut to: TcpStream, record: Option<Arc<Mutex<Vec<u8>>>>| {
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                if let Some(record) = &record {
                    record.lock().expect("not poisoned").extend(&bytes[..read]);
                }
                if to.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
            // One of them may be gone already.
            to.shutdown(Shutdown::Both).ok();
            from.shutdown(Shutdown::Both).ok();
        });
    };
    copy(
        client.try_clone().expect("a socket"),
        server.try_clone().expect("a socket"),
        Some(sent),
    );
    copy(server, client, None);
}

/// The command that forwards, without a data directory.
#[expect(
    clippy::disallowed_methods,
    reason = "the binary under test is a process of its own"
)]
fn command(args: &[&str], token: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codex-server"));
    command.env_clear().arg("mcp").args(args);
    command.envs(token.map(|token| ("CODEX_TOKEN", token)));
    command
}

fn forward(address: SocketAddr, token: &str) -> Local {
    let url = format!("http://{address}/mcp");
    Local::start(&mut command(&["--url", &url], Some(token)))
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// The parameters of `run_code`, with progress; `meta` gives the era.
fn run_code(code: &str, mut meta: Value) -> Value {
    meta["progressToken"] = json!("p");
    json!({"name": "run_code", "arguments": {"code": code, "timeout": 30}, "_meta": meta})
}

/// Sends a call that runs until it is cancelled, and waits for its first line.
fn begin_long(local: &mut Local, server: &TestServer, id: u32, meta: Value) {
    let params = run_code(
        "import time\nprint('begun', flush=True)\ntime.sleep(29)",
        meta,
    );
    let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    local.send(&call.to_string());
    while !local.next().to_string().contains("begun") {}
    assert_eq!(server.running(), 1);
}

/// Fails unless what came before an answer is progress, each more than the last.
#[track_caller]
fn in_order(before: &[Value]) {
    let progress: Vec<f64> = before
        .iter()
        .map(|message| message["params"]["progress"].as_f64().expect("progress"))
        .collect();
    assert!(progress.len() >= 2, "{before:?}");
    assert!(progress.is_sorted(), "{progress:?}");
}

const SLOW: &str = "import time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(1)";

#[test]
fn sessions_are_forwarded() {
    let server = TestServer::start();
    let way = Way::to(&server);
    let mut local = forward(way.address, &server.token);
    let told = local.initialize();
    assert_eq!(told["result"]["protocolVersion"], "2025-11-25", "{told}");
    let argv = std::fs::read_to_string(format!("/proc/{}/cmdline", local.id())).expect("argv");
    assert!(argv.contains("--url") && !argv.contains(&server.token));
    local.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let (_, listed) = local.ask(1, "tools/list", &json!({}));
    assert_eq!(listed["result"]["tools"][5]["name"], "run_code", "{listed}");
    let (before, ran) = local.ask(2, "tools/call", &run_code(SLOW, json!({})));
    assert_eq!(ran["result"]["structuredContent"]["output"], "0\n1\n2\n");
    in_order(&before);

    begin_long(&mut local, &server, 3, json!({}));
    // A call beside it is answered first.
    let (before, quick) = local.ask(4, "tools/call", &json!({"name": "list_languages"}));
    assert!(quick["result"].is_object(), "{quick}");
    assert!(before.iter().all(|message| message["id"] != 3));
    local.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#);
    wait_until("its end", || server.running() == 0);
    assert!(way.sent().contains("notifications/cancelled"));
    let (code, last) = local.end();
    assert_eq!(code, Some(0));
    assert!(
        last.iter().all(|line| line.contains("progress")),
        "{last:?}"
    );
    let sent = way.sent().to_ascii_lowercase();
    let (_, ended) = sent
        .split_once("delete /mcp")
        .expect("an end of the session");
    assert!(ended.contains("mcp-session-id: "), "{ended}");
}

#[test]
fn the_era_without_sessions_is_forwarded() {
    let server = TestServer::start();
    let way = Way::to(&server);
    let mut local = forward(way.address, &server.token);
    let (_, found) = local.ask(1, "server/discover", &json!({"_meta": meta()}));
    let versions = found["result"]["supportedVersions"].to_string();
    assert!(versions.contains("2026-07-28"), "{found}");
    let (before, ran) = local.ask(2, "tools/call", &run_code(SLOW, meta()));
    assert_eq!(ran["result"]["structuredContent"]["output"], "0\n1\n2\n");
    in_order(&before);
    let odd = json!({"name": "nö tool", "arguments": {}, "_meta": meta()});
    let (_, unknown) = local.ask(3, "tools/call", &odd);
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let (_, unknown) = local.ask(4, "no/such", &json!({"_meta": meta()}));
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");

    begin_long(&mut local, &server, 5, meta());
    let again = json!({"jsonrpc": "2.0", "id": 5, "method": "ping", "params": {"_meta": meta()}});
    local.send(&again.to_string());
    let refused = std::iter::repeat_with(|| local.next()).find(|message| message["id"] == 5);
    assert_eq!(refused.expect("an answer")["error"]["code"], -32600);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {
        "requestId": 5, "_meta": meta(),
    }});
    local.send(&cancel.to_string());
    wait_until("its end", || server.running() == 0);
    let (code, last) = local.end();
    assert_eq!(code, Some(0));
    assert!(
        last.iter().all(|line| line.contains("progress")),
        "{last:?}"
    );
    let sent = way.sent();
    assert!(!sent.contains("notifications/cancelled"), "{sent}");
    assert!(!sent.contains("mcp-session-id"), "{sent}");
    assert!(!sent.contains("DELETE"), "{sent}");
}

#[test]
fn a_session_that_the_server_forgot_is_begun_anew() {
    let server = TestServer::start();
    let way = Way::to(&server);
    let mut local = forward(way.address, &server.token);
    local.initialize();
    let server = server.crash_and_restart(&[]);
    way.leads_to(&server);
    for id in 1..3 {
        let (before, ran) = local.ask(id, "tools/call", &json!({"name": "list_languages"}));
        assert!(ran["result"].is_object(), "{ran}");
        assert_eq!(
            before,
            Vec::<Value>::new(),
            "the client hears nothing of it"
        );
    }
    assert_eq!(way.sent().matches(r#""method":"initialize""#).count(), 2);
    assert_eq!(local.end().0, Some(0));
}

#[test]
fn a_server_that_goes_leaves_no_call_unanswered() {
    let server = TestServer::start();
    let mut local = forward(server.address, &server.token);
    local.initialize();
    begin_long(&mut local, &server, 1, json!({}));
    let server = server.crash_and_restart(&[]);
    let mut messages = std::iter::repeat_with(|| local.next());
    let lost = messages.find(|message| message["id"] == 1);
    let lost = lost.expect("an answer")["error"].clone();
    assert_eq!(lost["code"], -32603, "{lost}");
    assert!(
        lost["message"].to_string().contains("was cut before"),
        "{lost}"
    );
    let (_, gone) = local.ask(2, "tools/list", &json!({}));
    let words = gone["error"]["message"].as_str().expect("words");
    assert!(words.contains("tools/list was not answered"), "{words}");
    assert!(words.contains("is the server running"), "{words}");
    drop(server);
    assert_eq!(local.end().0, Some(0));
}

#[test]
fn what_is_in_flight_at_the_end_of_input_is_answered() {
    let server = TestServer::start();
    let way = Way::to(&server);
    let mut local = forward(way.address, &server.token);
    local.initialize();
    let params = json!({"name": "run_code", "arguments": {"code": "import time; time.sleep(2); print(6 * 7)"}});
    for id in [1, 2] {
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        local.send(&call.to_string());
    }
    let (code, last) = local.end();
    assert_eq!(code, Some(0));
    let answers = last
        .iter()
        .filter(|line| line.contains(r#""output":"42\n""#));
    assert_eq!(answers.count(), 2, "{last:?}");
    assert!(way.sent().contains("DELETE /mcp"), "the session is ended");
}

#[test]
fn lines_that_are_no_messages_are_told_so() {
    let server = TestServer::start();
    let mut local = forward(server.address, &server.token);
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
        "x".repeat(10 << 20)
    );
    for (line, code) in [
        ("{", -32700),
        ("\u{1}", -32700),
        ("[]", -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
        ("null", -32600),
        (r#"{"jsonrpc":"2.0","id":5}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600),
        (&long, -32600),
    ] {
        local.send(line);
        let told = local.next();
        let line: String = line.chars().take(50).collect();
        assert_eq!(told["error"]["code"], code, "{line}: {told}");
        assert_eq!(told["id"], Value::Null, "{line}: {told}");
    }
    local.send("");
    let told = local.initialize();
    assert!(told["result"].is_object(), "{told}");
    assert_eq!(local.end().0, Some(0));
}

#[test]
fn a_wrong_token_is_told_with_the_cure() {
    let server = TestServer::start();
    let url = format!("http://{}", server.address);
    for (token, words) in [
        (Some(TOKEN), "refuses the token (401)"),
        (None, "Give one in CODEX_TOKEN"),
    ] {
        let mut local = Local::start(&mut command(&["--url", &url], token));
        for told in [
            local.initialize(),
            local.ask(1, "tools/list", &json!({"_meta": meta()})).1,
        ] {
            let told = told["error"]["message"].as_str().expect("words");
            assert!(told.contains(words) && !told.contains(TOKEN), "{told}");
        }
        assert_eq!(local.end().0, Some(0));
    }
}

/// A server that gives every request the same answer, and how many it was asked.
fn always(answer: &str) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(Mutex::new(0));
    let (count, answer) = (Arc::clone(&asked), answer.to_owned());
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            *count.lock().expect("not poisoned") += 1;
            let mut request = Vec::new();
            let mut bytes = [0; 4096];
            // The body is one object, the last that is sent.
            while !request.ends_with(b"}") {
                match client.read(&mut bytes) {
                    Ok(read @ 1..) => request.extend(&bytes[..read]),
                    _ => break,
                }
            }
            client.write_all(answer.as_bytes()).ok();
        }
    });
    (address, asked)
}

fn http(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What a server may say to every request, and the code and words of the error
/// that a client then gets.
fn answers() -> Vec<(String, i64, &'static str)> {
    let (json_kind, html, sse) = ("application/json", "text/html", "text/event-stream");
    let problem = "application/problem+json";
    let other = r#"{"jsonrpc":"2.0","id":99,"result":{}}"#;
    let no_id =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"too many sessions"}}"#;
    vec![
        (
            http("200 OK", html, "<html>"),
            -32603,
            "no codex-server answers",
        ),
        (
            http("200 OK", json_kind, "<html>"),
            -32603,
            "not as MCP says",
        ),
        (http("200 OK", json_kind, other), -32603, "not as MCP says"),
        (http("200 OK", sse, ""), -32603, "was cut before the answer"),
        (
            http("200 OK", sse, ": x\n\ndata: {\"jso"),
            -32603,
            "was cut before the answer",
        ),
        (
            http("200 OK", sse, "data: <html>\n\n"),
            -32603,
            "not as MCP says",
        ),
        (
            http("202 Accepted", html, ""),
            -32603,
            "gave no answer (202)",
        ),
        (
            http("403 Forbidden", html, "<html>"),
            -32603,
            "sign-in, a private port",
        ),
        (
            http("404 Not Found", html, "<html>"),
            -32603,
            "check the address",
        ),
        (
            http("413 Too Large", problem, r#"{"detail":"Send less."}"#),
            -32603,
            "(413): Send less.",
        ),
        (
            http("429 Too Many", problem, r#"{"detail":"slower"}"#),
            -32603,
            "wait a little",
        ),
        (
            http("429 Too Many", json_kind, no_id),
            -32000,
            "too many sessions",
        ),
        (
            http("502 Bad Gateway", html, "<html>"),
            -32603,
            "is the server running",
        ),
        (
            http("401 No", problem, &format!(r#"{{"detail":"{TOKEN}"}}"#)),
            -32603,
            "token list",
        ),
        (
            http("400 No", problem, &format!(r#"{{"detail":"not {TOKEN}"}}"#)),
            -32603,
            "refuses it (400): not …",
        ),
        ("nonsense\r\n\r\n".to_owned(), -32603, "calling http"),
    ]
}

#[test]
fn whatever_a_server_says_requests_are_answered() {
    for (answer, code, words) in answers() {
        let (address, _) = always(&answer);
        let mut local = forward(address, TOKEN);
        for told in [
            local.initialize(),
            local.ask(1, "tools/list", &json!({"_meta": meta()})).1,
        ] {
            let error = &told["error"];
            assert_eq!(error["code"], code, "{answer}: {told}");
            let message = error["message"].as_str().expect("words");
            assert!(message.contains(words), "{answer}: {message}");
            assert!(
                !message.contains(TOKEN) && !message.contains("<html>"),
                "{message}"
            );
        }
        assert_eq!(local.end(), (Some(0), Vec::new()), "{answer}");
    }
}

#[test]
fn requests_in_flight_are_bounded() {
    // It takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut local = forward(listener.local_addr().expect("an address"), TOKEN);
    for id in 0..65 {
        let ping =
            json!({"jsonrpc": "2.0", "id": id, "method": "ping", "params": {"_meta": meta()}});
        local.send(&ping.to_string());
    }
    let refused = local.next();
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!(64), &json!(-32000))
    );
}

#[test]
fn redirects_are_not_followed() {
    let (elsewhere, asked) = always(&http("200 OK", "application/json", "{}"));
    let (address, _) = always(&format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{elsewhere}/mcp\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ));
    let mut local = forward(address, TOKEN);
    let told = local.initialize();
    let message = told["error"]["message"].as_str().expect("words");
    assert!(message.contains("redirects (307) to http://"), "{message}");
    assert_eq!(local.end().0, Some(0));
    assert_eq!(*asked.lock().expect("not poisoned"), 0);
}

#[test]
fn answers_as_json_are_relayed_on_one_line() {
    let body = "{\n  \"jsonrpc\": \"2.0\",\n  \"id\": 0,\r\n  \"result\": {\"protocolVersion\": \"2025-11-25\", \"a\": 1.10}\n}\n";
    let (address, _) = always(&http("200 OK", "application/json", body));
    let mut local = forward(address, TOKEN);
    assert_eq!(local.initialize()["result"]["a"], json!(1.1));
    assert_eq!(local.end(), (Some(0), Vec::new()));
}

#[test]
fn a_signal_ends_the_session_and_the_program() {
    let server = TestServer::start();
    let way = Way::to(&server);
    let mut local = forward(way.address, &server.token);
    local.initialize();
    begin_long(&mut local, &server, 1, json!({}));
    crate::server::signal(local.id(), "TERM");
    local.ended_within(Duration::from_secs(10));
    assert!(way.sent().contains("DELETE /mcp"));
    wait_until("the program's end", || server.running() == 0);
}

#[test]
fn plain_http_elsewhere_and_settings_are_refused() {
    for (args, words) in [
        (&["--url", "http://code.example.com"][..], "is plain http"),
        (&["--url", "code.example.com"], "Give https://host"),
        (
            &["--url", "https://code.example.com", "--home", "/x"],
            "--home is a setting of this machine",
        ),
    ] {
        let done = command(args, Some(TOKEN)).output().expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words) && !said.contains(TOKEN), "{said}");
    }
}
