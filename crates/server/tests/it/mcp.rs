//! The Model Context Protocol over HTTP, in both of its eras, spoken to over
//! plain sockets.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Reply, TestServer, chunks};

/// What every client sends.
const BOTH: [&str; 2] = [
    "Content-Type: application/json",
    "Accept: application/json, text/event-stream",
];

/// The newest version that begins with `initialize`.
const SESSIONS: &str = "2025-11-25";

/// The version without sessions.
const STATELESS: &str = "2026-07-28";

/// Sends a message, with more headers, as the holder of a token.
fn send(server: &TestServer, bearer: &str, more: &[String], message: &Value) -> Reply {
    let mut headers: Vec<&str> = BOTH.to_vec();
    headers.push(bearer);
    headers.extend(more.iter().map(String::as_str));
    let request = server.bytes("POST", "/mcp", &headers, message.to_string().as_bytes());
    let mut stream = server.connect();
    stream.write_all(&request).expect("write");
    let mut reply = Reply::read(&mut stream, false);
    if reply.header("transfer-encoding") == Some("chunked") {
        reply.body = chunks(&mut stream).expect("a whole body");
    }
    reply
}

/// The JSON-RPC answer in a reply, which is JSON or the last event of a stream.
fn answer(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let last = data.rfind(|data| !data.trim().is_empty());
    let json = last.unwrap_or(&text);
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Sends a request of the era without sessions, and returns the answer.
pub(crate) fn stateless(
    server: &TestServer,
    method: &str,
    name: Option<&str>,
    params: Value,
) -> Value {
    stateless_as(server, &json!({}), method, name, params)
}

/// Sends such a request as a client that has `capabilities`.
fn stateless_as(
    server: &TestServer,
    capabilities: &Value,
    method: &str,
    name: Option<&str>,
    mut params: Value,
) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": STATELESS,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": method, "params": params});
    let mut headers = vec![
        format!("MCP-Protocol-Version: {STATELESS}"),
        format!("Mcp-Method: {method}"),
    ];
    headers.extend(name.map(|name| format!("Mcp-Name: {name}")));
    let reply = send(server, &server.bearer(), &headers, &message);
    assert_eq!(reply.header("mcp-session-id"), None);
    answer(&reply)
}

/// A session of the older protocol.
struct Session<'a> {
    server: &'a TestServer,
    bearer: String,
    id: String,
}

impl<'a> Session<'a> {
    fn open(server: &'a TestServer, bearer: &str) -> Self {
        Self::open_as(server, bearer, &json!({}))
    }

    /// Opens a session of a client that has `capabilities`.
    fn open_as(server: &'a TestServer, bearer: &str, capabilities: &Value) -> Self {
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": SESSIONS,
            "capabilities": capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        }});
        let reply = send(server, bearer, &[], &initialize);
        let id = reply
            .header("mcp-session-id")
            .expect("a session")
            .to_owned();
        let told = answer(&reply);
        assert_eq!(told["result"]["protocolVersion"], SESSIONS, "{told}");
        let offered = &told["result"]["capabilities"]["extensions"];
        assert_eq!(*offered, json!({"io.modelcontextprotocol/ui": {}}));
        let instructions = told["result"]["instructions"].as_str().expect("some");
        let essential: String = instructions.chars().take(512).collect();
        for words in ["No network", "files", "MiB"] {
            assert!(essential.contains(words), "{instructions}");
        }
        Self {
            server,
            bearer: bearer.to_owned(),
            id,
        }
    }

    fn headers(&self) -> Vec<String> {
        vec![
            format!("Mcp-Session-Id: {}", self.id),
            format!("MCP-Protocol-Version: {SESSIONS}"),
        ]
    }

    fn call(&self, id: u32, method: &str, params: Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        answer(&send(self.server, &self.bearer, &self.headers(), &message))
    }

    /// Calls `run_code`, and returns its result.
    fn run(&self, arguments: Value) -> Value {
        let params = json!({"name": "run_code", "arguments": arguments});
        self.call(1, "tools/call", params)["result"].clone()
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn a_session_lists_and_calls_tools() {
    let server = TestServer::start();
    let session = Session::open(&server, &server.bearer());
    let tools = session.call(1, "tools/list", json!({}))["result"]["tools"].clone();
    let names: Vec<&str> = tools
        .as_array()
        .expect("a list")
        .iter()
        .map(|tool| tool["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names,
        [
            "create_session",
            "fork_context",
            "list_files",
            "list_languages",
            "read_file",
            "run_code",
            "run_command",
            "write_file"
        ]
    );
    let text = tools.to_string();
    for word in ["$ref", "$defs", "anyOf", "\"format\""] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    for tool in tools.as_array().expect("a list") {
        for hint in ["readOnlyHint", "destructiveHint", "openWorldHint"] {
            assert!(tool["annotations"][hint].is_boolean(), "{tool}");
        }
        assert!(tool["outputSchema"].is_object(), "{tool}");
    }
    let result = session.run(json!({"code": "print(2 + 2)"}));
    assert_eq!(result["isError"], false, "{result}");
    assert_eq!(result["content"][0]["text"], "4");
    let structured = &result["structuredContent"];
    assert_eq!(structured["status"], "success");
    assert_eq!(structured["output"], "4\n");
    let required = tools[5]["outputSchema"]["required"].as_array();
    for name in required.expect("a list") {
        let name = name.as_str().expect("a name");
        assert!(!structured[name].is_null(), "{name}: {structured}");
    }
    let languages = session.call(2, "tools/call", json!({"name": "list_languages"}));
    let languages = &languages["result"]["structuredContent"]["languages"];
    assert_eq!(languages[0]["name"], "python", "{languages}");
}

#[test]
fn a_program_that_fails_is_a_result_and_a_refusal_is_none() {
    let server = TestServer::start();
    let session = Session::open(&server, &server.bearer());
    let result = session.run(json!({"code": "import sys; print('so far'); sys.exit(3)"}));
    assert_eq!(result["isError"], false, "{result}");
    assert_eq!(result["structuredContent"]["exit_code"], 3);
    let text = result["content"][0]["text"].as_str().expect("a text");
    assert!(
        text.contains("so far") && text.contains("exit code 3"),
        "{text}"
    );
    for (arguments, words) in [
        (json!({}), "`code` is missing"),
        (json!({"code": "x", "language": "cobol"}), "Send one of"),
        (json!({"code": "x", "timeout": 900}), "out of range"),
        (
            json!({"code": "x", "files": [{"path": "../x", "content": ""}]}),
            "files[0].path",
        ),
    ] {
        let result = session.run(arguments.clone());
        assert_eq!(result["isError"], true, "{arguments}: {result}");
        let text = result["content"][0]["text"].as_str().expect("a text");
        assert!(text.contains(words), "{arguments}: {text}");
    }
    let unknown = session.call(2, "tools/call", json!({"name": "rm"}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let crooked = session.call(3, "tools/call", json!({"name": 7}));
    assert_eq!(crooked["error"]["code"], -32602, "{crooked}");
}

#[test]
fn files_go_in_and_come_out_to_their_owner_alone() {
    let server = TestServer::start();
    let session = Session::open(&server, &server.bearer());
    let code = "open('out.txt', 'w').write(open('in.csv').read().upper())\nopen('p.png', 'wb').write(bytes.fromhex('89504e470d0a1a0a00ff'))";
    let result = session.run(json!({
        "code": code,
        "files": [{"path": "in.csv", "content": "a,b\n"}],
    }));
    let content = result["content"].as_array().expect("blocks");
    let mut pictures = content.iter().filter(|block| block["type"] == "image");
    let picture = pictures.next().expect("the picture");
    assert_eq!(picture["mimeType"], "image/png");
    let links = content
        .iter()
        .filter(|block| block["type"] == "resource_link");
    assert_eq!(links.count(), 2, "{result}");
    let files = result["structuredContent"]["files"]
        .as_array()
        .expect("files");
    assert!(!result["structuredContent"].to_string().contains("iVBOR"));
    for file in files {
        assert!(file["url"].is_null(), "nobody could open it: {file}");
    }
    let uri = files[0]["uri"].as_str().expect("an address");
    let read = session.call(5, "resources/read", json!({"uri": uri}));
    assert_eq!(read["result"]["contents"][0]["text"], "A,B\n", "{read}");
    let uri = files[1]["uri"].as_str().expect("an address");
    let read = session.call(6, "resources/read", json!({"uri": uri}));
    assert!(read["result"]["contents"][0]["blob"].is_string(), "{read}");
    let other = bearer(&server.another_token("other"));
    let other = Session::open(&server, &other);
    for uri in [
        uri,
        "codex://files/0/x",
        "codex://files/%zz/..",
        "file:///etc/passwd",
        "",
    ] {
        let read = other.call(7, "resources/read", json!({"uri": uri}));
        assert_eq!(read["error"]["code"], -32002, "{uri}: {read}");
    }
}

#[test]
fn a_chat_that_shows_pages_gets_the_page_of_a_run_and_its_pictures() {
    let server = TestServer::start();
    let shows = json!({"extensions": {"io.modelcontextprotocol/ui": {
        "mimeTypes": ["text/html;profile=mcp-app"],
    }}});
    let plain = Session::open(&server, &server.bearer());
    let chat = Session::open_as(&server, &server.bearer(), &shows);
    let tools = chat.call(1, "tools/list", json!({}))["result"]["tools"].clone();
    let uri = &tools[5]["_meta"]["ui"]["resourceUri"];
    assert_eq!(uri, "ui://codex/run.html", "{tools}");
    let listed = chat.call(2, "resources/list", json!({}));
    assert_eq!(listed["result"]["resources"][0]["uri"], *uri, "{listed}");
    let read = chat.call(3, "resources/read", json!({"uri": uri}));
    let page = &read["result"]["contents"][0];
    assert_eq!(page["mimeType"], "text/html;profile=mcp-app", "{read}");
    let csp = page["_meta"]["ui"]["csp"].as_object().expect("a policy");
    assert!(csp.values().all(|domains| *domains == json!([])), "{csp:?}");
    let html = page["text"].as_str().expect("a text");
    assert!(html.starts_with("<!doctype html>"), "{html:.200}");

    let code = "open('p.png', 'wb').write(bytes.fromhex('89504e470d0a1a0a00ff'))";
    let arguments = json!({"code": code});
    let pictures = json!([
        {"name": "p.png", "media_type": "image/png", "data": "iVBORw0KGgoA/w=="},
    ]);
    let call = json!({"name": "run_code", "arguments": arguments});
    let stateless = |capabilities: &Value| {
        let name = Some("run_code");
        stateless_as(&server, capabilities, "tools/call", name, call.clone())["result"].clone()
    };
    for (result, expected) in [
        (chat.run(arguments.clone()), &pictures),
        (plain.run(arguments.clone()), &Value::Null),
        (stateless(&shows), &pictures),
        (stateless(&json!({})), &Value::Null),
    ] {
        assert_eq!(result["_meta"]["codex/pictures"], *expected, "{result}");
        // It is whole without the page, and a model reads no picture as text.
        let content = result["content"].as_array().expect("blocks");
        let images: Vec<&Value> = content
            .iter()
            .filter(|one| one["type"] == "image")
            .collect();
        assert_eq!(images.len(), 1, "{result}");
        assert_eq!(images[0]["data"], pictures[0]["data"]);
        assert!(!result["structuredContent"].to_string().contains("iVBOR"));
    }
}

#[test]
fn a_session_opens_nothing_to_another_token() {
    let server = TestServer::start();
    let session = Session::open(&server, &server.bearer());
    let other = bearer(&server.another_token("other"));
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let reply = send(&server, &other, &session.headers(), &ping);
    assert_eq!(reply.status, 404, "{}", reply.text());
    for method in ["GET", "DELETE"] {
        let id = format!("Mcp-Session-Id: {}", session.id);
        let headers = [other.as_str(), "Accept: text/event-stream", id.as_str()];
        let reply = server.request(method, "/mcp", &headers, b"");
        assert_eq!(reply.status, 404, "{method}");
    }
    assert!(session.call(1, "ping", json!({}))["result"].is_object());
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let nobody = server.request("POST", "/mcp", &BOTH, message.to_string().as_bytes());
    assert_eq!(nobody.status, 401);
}

#[test]
fn the_stateless_era_needs_no_session() {
    let server = TestServer::start();
    let call =
        |method: &str, name: Option<&str>, params: Value| stateless(&server, method, name, params);
    let found = call("server/discover", None, json!({}));
    let versions = found["result"]["supportedVersions"].to_string();
    assert!(versions.contains(STATELESS), "{found}");
    let instructions = found["result"]["instructions"].as_str().expect("some");
    assert!(instructions.contains("No network"), "{instructions}");
    let arguments = json!({"name": "run_code", "arguments": {"code": "print(7 * 6)"}});
    let ran = call("tools/call", Some("run_code"), arguments);
    assert_eq!(
        ran["result"]["structuredContent"]["output"], "42\n",
        "{ran}"
    );
}

#[test]
fn an_id_in_flight_is_not_taken_twice() {
    let server = TestServer::start();
    let session = Session::open(&server, &server.bearer());
    let call = |id: u32, code: &str| {
        let params = json!({"name": "run_code", "arguments": {"code": code}});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        send(&server, &server.bearer(), &session.headers(), &message)
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| call(7, "import time; time.sleep(2); print('first')"));
        while server.running() == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let second = call(7, "print('second')");
        assert_eq!(second.status, 400, "{}", second.text());
        let told = second.json();
        assert_eq!(
            (&told["id"], &told["error"]["code"]),
            (&json!(7), &json!(-32600))
        );
        let other = Session::open(&server, &server.bearer());
        assert_eq!(other.call(7, "tools/list", json!({}))["id"], 7);
        let first = answer(&first.join().expect("it ends"));
        assert_eq!(first["result"]["structuredContent"]["output"], "first\n");
    });
    for _ in 0..20 {
        let again = answer(&call(7, "print('again')"));
        assert_eq!(again["result"]["structuredContent"]["output"], "again\n");
    }
}

#[test]
fn what_is_no_message_is_told_in_json_rpc() {
    let server = TestServer::start();
    for (body, code) in [
        ("{", -32700),
        ("", -32700),
        ("[]", -32600),
        ("{}", -32600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
            -32602,
        ),
    ] {
        let mut headers: Vec<&str> = BOTH.to_vec();
        let bearer = server.bearer();
        headers.push(&bearer);
        let reply = server.request("POST", "/mcp", &headers, body.as_bytes());
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(reply.json()["error"]["code"], code, "{body}");
    }
    server.still_runs();
}

#[test]
fn a_client_that_closes_its_stream_stops_its_program() {
    let server = TestServer::start();
    let marker = "mcp-closed-4711";
    let code = format!("import time; '{marker}'; time.sleep(25)");
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": STATELESS,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": "p",
    });
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {
        "name": "run_code", "arguments": {"code": code, "timeout": 30}, "_meta": meta,
    }});
    let bearer = server.bearer();
    let version = format!("MCP-Protocol-Version: {STATELESS}");
    let headers = [
        BOTH[0],
        BOTH[1],
        bearer.as_str(),
        version.as_str(),
        "Mcp-Method: tools/call",
        "Mcp-Name: run_code",
    ];
    let mut stream = server.connect();
    let request = server.bytes("POST", "/mcp", &headers, message.to_string().as_bytes());
    stream.write_all(&request).expect("write");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut told = String::new();
    while !told.contains("notifications/progress") {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).expect("progress");
        assert!(read > 0, "{told}");
        told.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    crate::server::wait_until("the run", || server.running() == 1);
    drop(stream);
    crate::server::wait_until("its end", || server.running() == 0);
}

#[test]
fn an_open_stream_keeps_no_server_from_stopping() {
    let server = TestServer::start();
    let session = Session::open(&server, &server.bearer());
    let id = format!("Mcp-Session-Id: {}", session.id);
    let bearer = server.bearer();
    let headers = [bearer.as_str(), "Accept: text/event-stream", id.as_str()];
    let mut stream = server.connect();
    stream
        .write_all(&server.bytes("GET", "/mcp", &headers, b""))
        .expect("write");
    assert_eq!(Reply::read(&mut stream, false).status, 200);
    server.terminate();
    let begun = std::time::Instant::now();
    assert!(server.ended_well());
    // Connections that will not end get five seconds; this one ends at once.
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_call_that_outlives_its_client_still_counts() {
    let server = TestServer::start();
    let session = Session::open(&server, &server.bearer());
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "run_code",
        "arguments": {"code": "import time; time.sleep(3)", "stdin": "x".repeat(1_000_000)},
    }});
    let bearer = server.bearer();
    let more = session.headers();
    let mut headers: Vec<&str> = BOTH.to_vec();
    headers.push(&bearer);
    headers.extend(more.iter().map(String::as_str));
    let request = server.bytes("POST", "/mcp", &headers, message.to_string().as_bytes());
    let mut stream = server.connect();
    stream.write_all(&request).expect("write");
    assert_eq!(Reply::read(&mut stream, false).status, 200);
    let held = || {
        let text = server
            .request("GET", "/metrics", &[&server.bearer()], b"")
            .text();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("codex_request_bytes "));
        line.expect("the gauge").parse::<u64>().expect("a number")
    };
    crate::server::wait_until("the run", || server.running() == 1);
    drop(stream);
    // Longer than it takes to see that a client is gone.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.running(), 1, "a session's call goes on");
    assert!(held() >= 1_000_000, "and so does what it holds");
    crate::server::wait_until("its end", || server.running() == 0 && held() == 0);
}

#[test]
fn files_of_a_session_are_resources_of_its_owner() {
    let server = TestServer::start();
    let chat = Session::open(&server, &server.bearer());
    let make = json!({"name": "create_session", "arguments": {}});
    let made = chat.call(1, "tools/call", make);
    let id = &made["result"]["structuredContent"]["session_id"];
    let id = id.as_str().expect("an id");
    let code = "import os; os.mkdir('d'); open('d/ä b.txt', 'w').write('here')";
    chat.run(json!({"code": code, "session_id": id}));
    let listed = chat.call(
        7,
        "tools/call",
        json!({"name": "list_files", "arguments": {"session_id": id, "deep": true}}),
    );
    let links = listed["result"]["content"].as_array().expect("content");
    let link = links.iter().find(|one| one["type"] == "resource_link");
    let uri = link.expect("a link")["uri"].as_str().expect("an address");
    assert_eq!(uri, format!("codex://sessions/{id}/d/%C3%A4%20b.txt"));
    let read = chat.call(8, "resources/read", json!({"uri": uri}));
    assert_eq!(read["result"]["contents"][0]["text"], "here", "{read}");
    let token = server.another_token("stranger");
    let stranger = Session::open(&server, &format!("Authorization: Bearer {token}"));
    for (who, uri) in [
        (&stranger, uri.to_owned()),
        (&chat, format!("codex://sessions/{id}/../x")),
        (&chat, format!("codex://sessions/{id}/d/none")),
        (&chat, format!("codex://sessions/{id}")),
        (&chat, "codex://sessions/ses_0/a".to_owned()),
    ] {
        let read = who.call(9, "resources/read", json!({"uri": uri}));
        assert_eq!(read["error"]["code"], -32002, "{uri}: {read}");
    }
}

#[test]
fn a_chat_works_in_steps() {
    let server = TestServer::start();
    let chat = Session::open(&server, &server.bearer());
    let made = chat.call(
        1,
        "tools/call",
        json!({"name": "create_session", "arguments": {"name": "chat"}}),
    );
    let made = &made["result"];
    assert_eq!(made["isError"], false, "{made}");
    let id = made["structuredContent"]["session_id"]
        .as_str()
        .expect("an id");
    assert!(
        made["content"][0]["text"]
            .as_str()
            .expect("words")
            .contains(id)
    );
    let step = |code: &str, language: &str| {
        chat.run(json!({"code": code, "language": language, "session_id": id}))
    };
    assert_eq!(
        step("x = 40", "python")["content"][0]["text"],
        "[no output]"
    );
    let value = step("print('so'); x + 2", "python");
    assert_eq!(value["content"][0]["text"], "so\n42");
    let structured = &value["structuredContent"];
    assert_eq!(
        structured["results"],
        json!([{"is_value": true, "text": "42", "forms": ["text/plain"]}])
    );
    assert_eq!(
        (&structured["session_id"], &structured["context"]),
        (&json!(id), &json!("python"))
    );
    let picture = step(
        "class P:\n  def _repr_png_(self): return b'\\x89PNG'\nP()",
        "python",
    );
    let image = picture["content"]
        .as_array()
        .expect("content")
        .iter()
        .find(|one| one["type"] == "image");
    assert_eq!(image.expect("an image")["data"], "iVBORw==", "{picture}");
    assert_eq!(
        step("const y = 1; y", "javascript")["content"][0]["text"],
        "1"
    );
    let failed = step("1 / 0", "python");
    assert_eq!(failed["structuredContent"]["status"], "error");
    let refused = chat.run(json!({"code": "1", "session_id": "ses_0"}));
    assert_eq!(refused["isError"], true);
    assert!(
        refused["content"][0]["text"]
            .as_str()
            .expect("words")
            .contains("no session")
    );
    let odd = chat.call(
        9,
        "tools/call",
        json!({"name": "create_session", "arguments": {"idle_timeout": "x"}}),
    );
    assert_eq!(odd["result"]["isError"], true, "{odd}");
}
