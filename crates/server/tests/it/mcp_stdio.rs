//! The Model Context Protocol on standard input and output, beside a server
//! on the same data directory.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::wait_within;
use crate::support::TestServer;

/// `codex-server mcp`, with the lines that it prints.
pub(crate) struct Local {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Local {
    fn beside(server: &TestServer) -> Self {
        let mut command = server.command();
        command.arg("mcp");
        Self::start(&mut command)
    }

    /// Starts a command that speaks the protocol.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the binary runs");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let input = process.stdin.take();
        Self {
            process,
            input,
            lines,
        }
    }

    pub(crate) fn send(&mut self, line: &str) {
        let input = self.input.as_mut().expect("an open pipe");
        writeln!(input, "{line}").expect("write");
    }

    pub(crate) fn next(&self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(20));
        let line = line.expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends a request; returns what came before its answer, and the answer.
    pub(crate) fn ask(&mut self, id: u32, method: &str, params: &Value) -> (Vec<Value>, Value) {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(&request.to_string());
        let mut before = Vec::new();
        loop {
            let message = self.next();
            if message["id"] == id {
                return (before, message);
            }
            before.push(message);
        }
    }

    pub(crate) fn initialize(&mut self) -> Value {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        self.ask(0, "initialize", &params).1
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end, with its input open.
    pub(crate) fn ended_within(&mut self, time: Duration) {
        let has_ended = || {
            self.process
                .try_wait()
                .expect("a child can be asked")
                .is_some()
        };
        wait_within(time, "its end", has_ended);
    }

    /// Closes its input; returns its exit code and what it printed last.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>) {
        drop(self.input.take());
        let status = self.process.wait().expect("an end");
        (status.code(), self.lines.try_iter().collect())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_local_client_needs_no_token_and_no_server_s_leave() {
    let server = TestServer::start();
    let before = kept_files(&server);
    let mut local = Local::beside(&server);
    // Nothing may wait for `notifications/initialized`.
    let told = local.initialize();
    assert_eq!(told["result"]["serverInfo"]["name"], "codex-server");
    let code = "import sys; print(sys.stdin.read()); print(open('in.txt').read()); open('out.bin', 'wb').write(bytes(range(256)))";
    let arguments = json!({
        "code": code,
        "stdin": "from stdin",
        "files": [{"path": "in.txt", "content": "from a file"}],
    });
    let call = json!({"name": "run_code", "arguments": arguments, "_meta": {"progressToken": 7}});
    let (progress, ran) = local.ask(1, "tools/call", &call);
    let method = |message: &Value| message["method"] == "notifications/progress";
    assert!(!progress.is_empty() && progress.iter().all(method));
    let result = &ran["result"]["structuredContent"];
    assert_eq!(result["output"], "from stdin\nfrom a file\n", "{ran}");
    let file = &result["files"][0];
    assert_eq!(
        file.get("url"),
        None,
        "no link that nobody could open: {ran}"
    );
    let (_, read) = local.ask(2, "resources/read", &json!({"uri": file["uri"]}));
    let blob = read["result"]["contents"][0]["blob"]
        .as_str()
        .expect("bytes");
    assert!(blob.starts_with("AAECAwQF") && blob.len() == 344, "{read}");
    assert_ne!(kept_files(&server), before);
    let (code, last) = local.end();
    assert_eq!((code, last), (Some(0), Vec::new()));
    assert_eq!(kept_files(&server), before, "what it kept is gone with it");
    server.still_answers();
}

fn kept_files(server: &TestServer) -> usize {
    let folder = server.home().join("artifacts");
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn local_calls_are_cancelled_and_bad_lines_stop_nothing() {
    let server = TestServer::start();
    let mut local = Local::beside(&server);
    for (line, id, code) in [
        ("{", Value::Null, -32700),
        ("[]", Value::Null, -32600),
        ("null", Value::Null, -32600),
        (r#"{"jsonrpc":"2.0","id":5}"#, Value::Null, -32600),
        ("\u{1}", Value::Null, -32700),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":["run_code"]}"#,
            json!(5),
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":6,"method":"ping","params":{"_meta":7}}"#,
            json!(6),
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":6,"id":6,"method":"ping"}"#,
            json!(6),
            -32600,
        ),
    ] {
        local.send(line);
        let told = local.next();
        assert_eq!(
            (&told["id"], &told["error"]["code"]),
            (&id, &json!(code)),
            "{line}"
        );
    }
    local.initialize();
    let (_, unknown) = local.ask(6, "no/such", &json!({}));
    let unknown_tool = local.ask(7, "tools/call", &json!({"name": "no"})).1;
    let wrong_shape = local.ask(8, "tools/call", &json!({"name": 1})).1;
    let codes = [unknown, unknown_tool, wrong_shape].map(|answer| answer["error"]["code"].clone());
    assert_eq!(codes, [json!(-32601), json!(-32602), json!(-32602)]);
    let call = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {
        "name": "run_code",
        "arguments": {"code": "import time\nprint('begun', flush=True)\ntime.sleep(29)", "timeout": 30},
        "_meta": {"progressToken": 1},
    }});
    local.send(&call.to_string());
    while !local.next().to_string().contains("begun") {}
    local.send(r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#);
    let twice = std::iter::repeat_with(|| local.next()).find(|told| told.get("error").is_some());
    let twice = twice.expect("a refusal");
    assert_eq!(
        (&twice["id"], &twice["error"]["code"]),
        (&json!(9), &json!(-32600))
    );
    local.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#);
    // Its program may still be ending: its answer must not become another's.
    local.send(r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#);
    assert_eq!(local.next()["error"]["code"], -32600);
    let arguments = json!({"name": "run_code", "arguments": {"code": "print(6 * 7)"}});
    let (_, ran) = local.ask(10, "tools/call", &arguments);
    assert_eq!(ran["result"]["structuredContent"]["output"], "42\n");
    assert_eq!(local.end().0, Some(0));
}

#[test]
fn the_era_without_sessions_is_spoken_locally() {
    let server = TestServer::start();
    let mut local = Local::beside(&server);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let (_, found) = local.ask(1, "server/discover", &json!({"_meta": meta}));
    let versions = found["result"]["supportedVersions"].to_string();
    assert!(versions.contains("2026-07-28"), "{found}");
    let params = json!({"name": "list_languages", "arguments": {}, "_meta": meta});
    let (_, listed) = local.ask(2, "tools/call", &params);
    let listed = listed["result"]["structuredContent"]["languages"].to_string();
    assert!(listed.contains("python"), "{listed}");
    assert_eq!(local.end().0, Some(0));
}
