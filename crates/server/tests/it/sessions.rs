//! Sessions over HTTP: made, used, looked at, ended; and whom they are hidden from.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::support::{Reply, TestServer, chunks};

const JSON: &str = "Content-Type: application/json";

/// A caller of a server.
pub(crate) struct Caller<'a> {
    server: &'a TestServer,
    pub(crate) bearer: String,
}

impl<'a> Caller<'a> {
    pub(crate) fn of(server: &'a TestServer) -> Self {
        Self {
            server,
            bearer: server.bearer(),
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = [JSON, self.bearer.as_str()];
        let headers = &headers[usize::from(body.is_empty())..];
        self.server.request(method, path, headers, body.as_bytes())
    }

    #[track_caller]
    pub(crate) fn good(&self, method: &str, path: &str, body: &Value) -> Value {
        let reply = self.ask(method, path, body);
        assert!(reply.status < 300, "{method} {path}: {}", reply.text());
        if reply.status == 204 {
            return Value::Null;
        }
        reply.json()
    }

    #[track_caller]
    fn refused(&self, method: &str, path: &str, body: &Value, status: u16, words: &str) {
        let reply = self.ask(method, path, body);
        let text = reply.text();
        assert_eq!(reply.status, status, "{method} {path}: {text}");
        assert!(text.contains(words), "{method} {path}: {text}");
    }

    #[track_caller]
    pub(crate) fn session(&self, body: &Value) -> String {
        let made = self.good("POST", "/sessions", body);
        made["id"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    fn cell(&self, session: &str, code: &str) -> Value {
        let body = json!({ "code": code, "session_id": session });
        self.good("POST", "/execute", &body)
    }
}

#[test]
fn a_session_keeps_its_state_and_files() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let made = caller.good(
        "POST",
        "/sessions",
        &json!({ "language": "python", "name": "march", "metadata": { "chat": "7" }, "ttl": 600, "odd": 1 }),
    );
    let id = made["id"].as_str().expect("an id");
    assert_eq!(made["state"], "live");
    assert_eq!(made["isolation"], server.get("/health").json()["isolation"]);
    assert_eq!(made["contexts"][0]["state"], "new");
    assert!(
        made["warnings"][0]
            .as_str()
            .expect("a warning")
            .contains("odd")
    );
    let first = caller.cell(id, "x = 40\nopen('a.csv', 'w').write('1,2')");
    assert_eq!(first["status"], "success", "{first}");
    assert_eq!(first["files"][0]["path"], "a.csv");
    assert!(first["files"][0]["url"].is_string(), "{first}");
    let second = caller.cell(id, "print('hi')\nx + 2");
    assert_eq!(second["output"], "hi\n");
    let shown = json!([{ "is_value": true, "data": { "text/plain": "42" } }]);
    assert_eq!(second["results"], shown);
    let cell = json!({ "session_id": id, "context": "python", "number": 2 });
    assert_eq!(second["cell"], cell);
    let failed = caller.cell(id, "1 / 0");
    assert_eq!(
        (&failed["status"], &failed["exit_code"]),
        (&json!("error"), &json!(1))
    );
    assert_eq!(failed["cell"]["exception"]["name"], "ZeroDivisionError");
    assert!(
        failed["error"]
            .as_str()
            .expect("text")
            .contains("division by zero")
    );
    let state = caller.good("GET", &format!("/sessions/{id}"), &Value::Null);
    assert_eq!(
        (&state["name"], &state["metadata"]["chat"]),
        (&json!("march"), &json!("7"))
    );
    assert_eq!(state["contexts"][0]["cells"], 3);
    let listed = caller.good("GET", "/sessions", &Value::Null);
    assert_eq!(listed["sessions"].as_array().expect("a list").len(), 1);
    assert_eq!(
        caller.good("DELETE", &format!("/sessions/{id}"), &Value::Null),
        Value::Null
    );
    let gone = json!({ "code": "x", "session_id": id });
    caller.refused("POST", "/execute", &gone, 410, "it was deleted");
    caller.refused(
        "GET",
        &format!("/sessions/{id}"),
        &Value::Null,
        410,
        "it was deleted",
    );
}

#[test]
fn contexts_are_made_restarted_and_ended() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let path = |rest: &str| format!("/sessions/{id}{rest}");
    // Without a language it is the default one's.
    assert_eq!(caller.cell(&id, "y = 1")["language"], "python");
    let made = caller.good(
        "POST",
        &path("/contexts"),
        &json!({ "language": "py", "name": "b" }),
    );
    assert_eq!(made["contexts"].as_array().expect("a list").len(), 2);
    let in_b = |code: &str| {
        let body = json!({ "code": code, "session_id": id, "context": "b" });
        caller.good("POST", "/execute", &body)
    };
    assert_eq!(
        in_b("'y' in globals()")["results"][0]["data"]["text/plain"],
        "False"
    );
    caller.good("POST", &path("/restart"), &json!({ "context": "python" }));
    assert_eq!(
        caller.cell(&id, "'y' in globals()")["results"][0]["data"]["text/plain"],
        "False"
    );
    let state = caller.good("DELETE", &path("/contexts/b"), &Value::Null);
    assert_eq!(state["contexts"].as_array().expect("a list").len(), 1);
    let none = json!({ "code": "1", "session_id": id, "context": "b" });
    caller.refused("POST", "/execute", &none, 404, "no context");
    caller.refused(
        "POST",
        &path("/contexts"),
        &json!({}),
        400,
        "`language` is missing",
    );
    caller.refused(
        "POST",
        &path("/contexts"),
        &json!({ "language": "bash" }),
        400,
        "no language that sessions have",
    );
    caller.refused(
        "POST",
        &path("/contexts"),
        &json!({ "language": "python", "name": "python" }),
        400,
        "another context",
    );
    for _ in 0..3 {
        caller.good("POST", &path("/contexts"), &json!({ "language": "python" }));
    }
    caller.refused(
        "POST",
        &path("/contexts"),
        &json!({ "language": "python" }),
        400,
        "4 contexts already",
    );
    // Paused, and woken by the next cell.
    assert_eq!(
        caller.good("POST", &path("/pause"), &Value::Null)["state"],
        "paused"
    );
    assert_eq!(
        caller.good("GET", &path(""), &Value::Null)["state"],
        "paused"
    );
    assert_eq!(caller.cell(&id, "1")["status"], "success");
    assert_eq!(caller.good("GET", &path(""), &Value::Null)["state"], "live");
    caller.good("POST", &path("/pause"), &Value::Null);
    assert_eq!(
        caller.good("POST", &path("/resume"), &Value::Null)["state"],
        "live"
    );
}

#[test]
fn a_running_cell_is_interrupted() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&json!({ "language": "python" }));
    caller.cell(&id, "x = 5");
    let endless = std::thread::scope(|scope| {
        let running = scope.spawn(|| Caller::of(&server).cell(&id, "while True: pass"));
        // Until it runs there is nothing to interrupt.
        loop {
            let state = caller.good("POST", &format!("/sessions/{id}/interrupt"), &Value::Null);
            std::thread::sleep(std::time::Duration::from_millis(100));
            if state["contexts"][0]["state"] == "busy" {
                break running.join().expect("it ends");
            }
        }
    });
    assert_eq!(
        (&endless["status"], &endless["exit_code"]),
        (&json!("interrupted"), &json!(130))
    );
    assert_eq!(
        caller.cell(&id, "x")["results"][0]["data"]["text/plain"],
        "5"
    );
}

#[test]
fn nobody_else_finds_a_session() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&json!({ "language": "python" }));
    let other = Caller {
        server: &server,
        bearer: format!("Authorization: Bearer {}", server.another_token("other")),
    };
    let null = &Value::Null;
    let words = "There is no session";
    let path = format!("/sessions/{id}");
    other.refused("GET", &path, null, 404, words);
    other.refused("DELETE", &path, null, 404, words);
    for what in ["pause", "resume", "interrupt", "restart"] {
        other.refused("POST", &format!("{path}/{what}"), null, 404, words);
    }
    let cell = json!({ "code": "1", "session_id": id });
    other.refused("POST", "/execute", &cell, 404, words);
    assert_eq!(other.good("GET", "/sessions", null)["sessions"], json!([]));
    assert_eq!(caller.cell(&id, "1")["status"], "success");
}

#[test]
fn bad_input_is_named() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    for (body, words) in [
        (json!({ "language": 7 }), "`language` is"),
        (
            json!({ "language": "cobol" }),
            "no language that sessions have",
        ),
        (json!({ "ttl": "soon" }), "Send a number of seconds"),
        (json!({ "ttl": 0 }), "between 1 and 86400 seconds"),
        (json!({ "ttl": 1e300 }), "out of range"),
        (
            json!({ "idle_timeout": 99_999_999 }),
            "between 1 and 86400 seconds",
        ),
        (json!({ "name": "" }), "is empty"),
        (json!({ "name": "a\u{1b}b" }), "control characters"),
        (json!({ "metadata": { "a": 1 } }), "metadata.a"),
        (json!({ "metadata": { "a": "x".repeat(2000) } }), "metadata"),
        (json!({ "env": { "1": "x" } }), "is not a variable's name"),
        (json!({ "memory_mb": 1 }), "memory_mb"),
        (json!([1]), "must be a JSON object"),
    ] {
        caller.refused("POST", "/sessions", &body, 400, words);
    }
    let id = caller.session(&Value::Null);
    for (body, words) in [
        (
            json!({ "code": "1", "context": "python" }),
            "without `session_id`",
        ),
        (json!({ "code": "1", "session_id": 7 }), "`session_id` is"),
        (
            json!({ "code": "1", "session_id": id, "args": ["a"] }),
            "for a run of its own",
        ),
        (
            json!({ "code": "1", "session_id": id, "memory_mb": 64 }),
            "for a run of its own",
        ),
        (
            json!({ "code": "1", "session_id": id, "explain": true }),
            "for a run of its own",
        ),
        (json!({ "code": " ", "session_id": id }), "is empty"),
        (
            json!({ "code": "1", "session_id": id, "language": "bash" }),
            "no language that sessions have",
        ),
        (
            json!({ "code": "1", "session_id": id, "files": [{ "path": "../a", "content": "" }] }),
            "files[0].path",
        ),
    ] {
        caller.refused("POST", "/execute", &body, 400, words);
    }
    for (path, status) in [
        ("none", 404),
        ("..%2f..%2fetc", 404),
        ("ses_0000000000000000000000000000000000000000", 410),
    ] {
        caller.refused(
            "GET",
            &format!("/sessions/{path}"),
            &Value::Null,
            status,
            "session",
        );
    }
    // A folder, a link and a full disk stand in the way of files.
    caller.cell(&id, "import os; os.mkdir('d'); os.symlink('/tmp', 'out')");
    for (path, status) in [("d", 409), ("out/x", 409)] {
        let body =
            json!({ "code": "1", "session_id": id, "files": [{ "path": path, "content": "x" }] });
        caller.refused("POST", "/execute", &body, status, "does not take");
    }
    assert_eq!(caller.cell(&id, "1")["status"], "success");
}

#[test]
fn a_token_has_so_many_sessions_and_no_more() {
    let server = TestServer::with(&[("CODEX_SESSIONS_EACH", "2")]);
    let caller = Caller::of(&server);
    let first = caller.session(&Value::Null);
    caller.session(&Value::Null);
    caller.refused(
        "POST",
        "/sessions",
        &Value::Null,
        409,
        "This token has 2 sessions already",
    );
    caller.good("DELETE", &format!("/sessions/{first}"), &Value::Null);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    // Its seat is free when its box is dead.
    while caller.ask("POST", "/sessions", &Value::Null).status != 201 {
        assert!(std::time::Instant::now() < until, "no seat came free");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_cell_is_followed_while_it_runs() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let body = json!({ "code": "print('a'); 5", "session_id": id }).to_string();
    let headers = [JSON, caller.bearer.as_str(), "Accept: text/event-stream"];
    let mut stream = server.connect();
    let request = server.bytes("POST", "/execute", &headers, body.as_bytes());
    stream.write_all(&request).expect("it is sent");
    let mut text = String::new();
    let mut chunk = [0; 4096];
    // To the end of the event that is the last.
    while !text.contains("event: end") || !text.ends_with("\n\n\r\n") && !text.contains("0\r\n\r\n")
    {
        let count = stream.read(&mut chunk).expect("it goes on");
        assert!(count > 0, "{text}");
        text += &String::from_utf8_lossy(&chunk[..count]);
    }
    for part in [
        "event: start",
        "event: stdout",
        "\"text/plain\":\"5\"",
        "event: end",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_crash_loses_sessions_and_says_so() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let ids: Vec<String> = (0..3).map(|_| caller.session(&Value::Null)).collect();
    for id in &ids {
        assert_eq!(caller.cell(id, "x = 1")["status"], "success");
    }
    drop(caller);
    let server = server.crash_and_restart(&[]);
    let caller = Caller::of(&server);
    for id in &ids {
        let cell = json!({ "code": "x", "session_id": id });
        let words = "lost when the server was started again";
        caller.refused("POST", "/execute", &cell, 410, words);
    }
    assert_eq!(
        caller.good("GET", "/sessions", &Value::Null)["sessions"],
        json!([])
    );
}

/// A session's files, asked for with headers of one's own.
fn raw(caller: &Caller<'_>, id: &str, call: (&str, &str), more: &[&str], body: &[u8]) -> Reply {
    let mut headers = vec![caller.bearer.as_str()];
    headers.extend(more);
    let path = format!("/sessions/{id}/files{}", call.1);
    caller.server.request(call.0, &path, &headers, body)
}

#[test]
fn files_go_in_and_out_while_code_runs() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    // A kind of content that no other address takes.
    let kind = ["Content-Type: image/x-odd"];
    let put = raw(&caller, &id, ("PUT", "/data/in.bin"), &kind, b"\0\xff1234");
    assert_eq!(put.status, 201, "{}", put.text());
    let told = put.json();
    assert_eq!(
        (&told["path"], &told["size"]),
        (&json!("data/in.bin"), &json!(6))
    );
    let read = caller.cell(&id, "open('data/in.bin', 'rb').read()");
    assert_eq!(
        read["results"][0]["data"]["text/plain"],
        "b'\\x00\\xff1234'"
    );
    // What was put in is nothing that the cell left, and belongs to the program.
    assert_eq!(read["files"], json!([]));
    caller.cell(&id, "open('data/in.bin', 'ab').write(b'!')");
    let get = |more: &[&str]| raw(&caller, &id, ("GET", "/data/in.bin"), more, b"");
    let whole = get(&[]);
    assert_eq!(
        (whole.status, whole.body.as_slice()),
        (200, &b"\0\xff1234!"[..])
    );
    assert_eq!(
        whole.header("content-type"),
        Some("application/octet-stream")
    );
    let policy = whole.header("content-security-policy").expect("a policy");
    assert!(policy.contains("sandbox"), "{policy}");
    let part = get(&["Range: bytes=2-3"]);
    assert_eq!((part.status, part.body.as_slice()), (206, &b"12"[..]));
    assert_eq!(part.header("content-range"), Some("bytes 2-3/7"));
    assert_eq!(get(&["Range: bytes=9-"]).status, 416);
    let coded = ["Content-Encoding: gzip"];
    assert_eq!(raw(&caller, &id, ("PUT", "/x"), &coded, b"x").status, 415);
    let archive = format!("/sessions/{id}/archive");
    let zip = server.request("GET", &archive, &[&caller.bearer], b"");
    let kind = zip.header("content-type");
    assert_eq!((zip.status, kind), (200, Some("application/zip")));
}

#[test]
fn no_path_leads_out_of_a_workspace() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let path = |rest: &str| format!("/sessions/{id}/files{rest}");
    caller.cell(&id, "import os; os.mkdir('data'); open('data/f', 'w').write('1'); os.mkfifo('pipe'); os.symlink('/etc/passwd', 'link')");
    let listed = caller.good("GET", &path("?deep=true"), &Value::Null);
    let entries = listed["files"].as_array().expect("a list").iter();
    let word = |one: &Value, name: &str| one[name].as_str().expect("a word").to_owned();
    let entries: Vec<String> = entries
        .map(|one| format!("{} {}", word(one, "kind"), word(one, "path")))
        .collect();
    assert_eq!(
        entries,
        ["directory data", "file data/f", "link link", "other pipe"]
    );
    for (at, status) in [
        ("/link", 404),
        ("/pipe", 404),
        ("/data", 404),
        ("/none", 404),
        ("/data/../data/f", 400),
        ("/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 400),
        ("/a%00b", 400),
        ("/a%0ab", 400),
    ] {
        caller.refused("GET", &path(at), &Value::Null, status, "");
        let put = raw(&caller, &id, ("PUT", at), &[], b"x").status;
        let expected = match at {
            "/data" => 409,
            _ if status == 400 => 400,
            _ => 201,
        };
        assert_eq!(put, expected, "{at}");
    }
    // A link was replaced by what was put in its place, not followed.
    assert_eq!(raw(&caller, &id, ("GET", "/link"), &[], b"").body, b"x");
    let long = path(&format!("/{}", "x".repeat(5000)));
    caller.refused("GET", &long, &Value::Null, 400, "bytes long");
}

#[test]
fn files_are_moved_and_deleted_by_their_owner() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let path = |rest: &str| format!("/sessions/{id}/files{rest}");
    let null = &Value::Null;
    caller.cell(
        &id,
        "import os; os.mkdir('data'); open('data/f', 'w').write('1')",
    );
    caller.good("POST", &path(""), &json!({ "mkdir": "new/deep" }));
    let to = |from: &str, to: &str| json!({ "move": { "from": from, "to": to } });
    caller.good("POST", &path(""), &to("data/f", "new/deep/g"));
    caller.refused("GET", &path("/data/f"), null, 404, "no file");
    caller.refused("POST", &path(""), &to("new", "data"), 409, "does not take");
    caller.refused("POST", &path(""), &to("../a", "data"), 400, "from");
    caller.refused("POST", &path(""), &json!({}), 400, "both missing");
    caller.refused("POST", &path(""), &json!({ "move": "x" }), 400, "move");
    let other = Caller {
        server: &server,
        bearer: format!("Authorization: Bearer {}", server.another_token("other")),
    };
    for method in ["GET", "DELETE"] {
        other.refused(method, &path("/new"), null, 404, "There is no session");
    }
    other.refused("GET", &path(""), null, 404, "There is no session");
    caller.good("DELETE", &path("/new"), null);
    caller.refused("DELETE", &path("/new"), null, 404, "no file");
}

#[test]
fn commands_run_in_the_session() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let path = |rest: &str| format!("/sessions/{id}/commands{rest}");
    caller.cell(&id, "open('f', 'w').write('of a cell')");
    let ran = caller.good("POST", &path(""), &json!({ "command": "cat f; exit 3" }));
    assert_eq!(
        (&ran["output"], &ran["exit_code"], &ran["running"]),
        (&json!("of a cell"), &json!(3), &json!(false))
    );
    let begun = caller.ask(
        "POST",
        &path(""),
        &json!({ "command": "cat", "background": true }),
    );
    assert_eq!(begun.status, 201, "{}", begun.text());
    let command = begun.json()["id"].as_str().expect("an id").to_owned();
    let at = path(&format!("/{command}"));
    let feed = server.request(
        "POST",
        &format!("{at}/stdin?close=true"),
        &[&caller.bearer],
        b"fed\n",
    );
    assert_eq!(feed.status, 200, "{}", feed.text());
    let ended = caller.good("GET", &format!("{at}?wait=5"), &Value::Null);
    assert_eq!(
        (&ended["output"], &ended["status"]),
        (&json!("fed\n"), &json!("success"))
    );
    let begun = caller.good(
        "POST",
        &path(""),
        &json!({ "command": "sleep 30", "background": true }),
    );
    let at = path(&format!("/{}", begun["id"].as_str().expect("an id")));
    assert_eq!(caller.good("DELETE", &at, &Value::Null)["exit_code"], 143);
    let listed = caller.good("GET", &path(""), &Value::Null);
    assert_eq!(listed["commands"].as_array().expect("a list").len(), 3);
    for (body, words) in [
        (json!({}), "`command` is missing"),
        (json!({ "command": " " }), "is empty"),
        (json!({ "command": "ls", "directory": "../x" }), "directory"),
        (json!({ "command": "ls", "timeout": 999 }), "timeout"),
        (
            json!({ "command": "ls", "background": "yes" }),
            "background",
        ),
    ] {
        caller.refused("POST", &path(""), &body, 400, words);
    }
    caller.refused("GET", &path("/99"), &Value::Null, 404, "no command");
}

#[test]
fn a_full_workspace_takes_no_more_and_goes_on() {
    let server = TestServer::with(&[("CODEX_SESSION_WORKSPACE", "4 MiB")]);
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let put = |name: &str, bytes: usize| {
        let path = format!("/sessions/{id}/files/{name}");
        server.request("PUT", &path, &[&caller.bearer], &vec![7; bytes])
    };
    assert_eq!(put("first", 2 << 20).status, 201);
    let full = put("second", 3 << 20);
    assert_eq!(full.status, 507, "{}", full.text());
    assert_eq!(put("huge", 6 << 20).status, 507);
    // Nothing is left of what did not fit.
    let listed = caller.good("GET", &format!("/sessions/{id}/files"), &Value::Null);
    assert_eq!(
        listed["files"].as_array().expect("a list").len(),
        1,
        "{listed}"
    );
    let body = json!({ "code": "1", "session_id": id, "files": [{ "path": "a", "content": "x".repeat(3 << 20) }] });
    caller.refused("POST", "/execute", &body, 507, "does not take");
    assert_eq!(caller.cell(&id, "2")["status"], "success");
}

#[test]
fn a_context_is_forked_and_both_go_on() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&json!({}));
    let path = format!("/sessions/{id}/fork");
    caller.refused("POST", &path, &json!({}), 400, "Run a cell first");
    caller.cell(&id, "x = [1]");
    let made = caller.good("POST", &path, &json!({ "name": "second" }));
    assert_eq!(
        (&made["forked"], made.get("warnings")),
        (&json!("second"), None)
    );
    assert_eq!(made["contexts"].as_array().map(Vec::len), Some(2));
    let run = |context: &str, code: &str| {
        let body = json!({ "code": code, "session_id": id, "context": context });
        let answer = caller.good("POST", "/execute", &body);
        answer["results"][0]["data"]["text/plain"].clone()
    };
    assert_eq!(run("second", "x.append(2); x"), "[1, 2]");
    assert_eq!(run("python", "x"), "[1]");
    let check = |body: Value, status, words| caller.refused("POST", &path, &body, status, words);
    check(json!({}), 400, "Name one of: python, second");
    check(json!({ "context": "third" }), 404, "it has: python, second");
    check(json!({ "context": 3 }), 400, "context");
    check(
        json!({ "context": "python", "name": "second" }),
        400,
        "another context",
    );
    check(json!({ "context": "python", "name": "" }), 400, "name");
    check(
        json!({ "context": "python", "name": "javascript" }),
        400,
        "another language",
    );
    run(
        "python",
        "import threading; stop = threading.Event()\nt = threading.Thread(target=stop.wait, name='reader'); t.start()",
    );
    check(json!({ "context": "python" }), 409, "threads run (reader)");
    caller.good("POST", &path, &json!({ "context": "second" }));
    caller.good("POST", &path, &json!({ "context": "second" }));
    check(json!({ "context": "second" }), 400, "End one first");
    caller.refused(
        "POST",
        "/sessions/ses_0/fork",
        &json!({}),
        404,
        "no session",
    );
}

#[test]
fn commands_and_results_are_followed_as_events() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let events = |path: &str, body: &Value| {
        let headers = [JSON, caller.bearer.as_str(), "Accept: text/event-stream"];
        let mut stream = server.connect();
        let request = server.bytes("POST", path, &headers, body.to_string().as_bytes());
        stream.write_all(&request).expect("it is sent");
        let reply = Reply::read(&mut stream, false);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let text = chunks(&mut stream).expect("a whole body");
        let text = String::from_utf8(text).expect("text");
        let events = text.split("\n\n").filter_map(|event| {
            let (head, data) = event.split_once("\ndata: ")?;
            let name = head.split_once("event: ")?.1.to_owned();
            Some((name, serde_json::from_str::<Value>(data).expect("JSON")))
        });
        events.collect::<Vec<(String, Value)>>()
    };
    let path = format!("/sessions/{id}/commands");
    let command = json!({ "command": "echo out; sleep 0.1; echo err >&2; exit 3" });
    let told = events(&path, &command);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["start", "stdout", "stderr", "end"], "{told:?}");
    assert_eq!(told[1].1["text"], "out\n");
    let end = &told[3].1;
    assert_eq!(
        (&end["exit_code"], &end["output"]),
        (&json!(3), &json!("out\n"))
    );
    assert_eq!(told[0].1["id"], end["id"]);
    let background = json!({ "command": "echo x", "background": true });
    let headers = [JSON, caller.bearer.as_str(), "Accept: text/event-stream"];
    let reply = server.request("POST", &path, &headers, background.to_string().as_bytes());
    assert_eq!(reply.status, 201, "{}", reply.text());
    // Results come when they are shown, in a cell and in a run.
    let cell = json!({ "code": "display(1)\nimport time; time.sleep(0.1)\nprint('x'); 2", "session_id": id });
    let run = json!({ "code": "display(1)\nprint('x', flush=True)\ndisplay(2)" });
    for (body, expected) in [
        (cell, ["start", "result", "stdout", "result", "end"]),
        (run, ["start", "stdout", "result", "result", "end"]),
    ] {
        let told = events("/execute", &body);
        let mut names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        if names[1..4] == ["result", "result", "stdout"] {
            // Results and output come by different ways.
            names.swap(2, 3);
        }
        assert_eq!(names, expected, "{told:?}");
        let results: Vec<&Value> = told
            .iter()
            .filter(|(name, _)| name == "result")
            .map(|(_, data)| data)
            .collect();
        let end = &told.last().expect("an end").1;
        let all = end["results"].as_array().expect("results");
        assert_eq!(all.iter().collect::<Vec<_>>(), results);
        assert_eq!(all[0]["data"]["text/plain"], "1");
    }
}
