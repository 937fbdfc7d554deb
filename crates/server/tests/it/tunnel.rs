//! OpenAI's tunnel against the [plane](::plane), which judges what the server
//! sends by the rules of the real service.

use std::time::{Duration, Instant};

use plane::{Door, Fault, Plane, Post};
use serde_json::{Value, json};

use crate::server::{wait_until, wait_within};
use crate::support::TestServer;

mod members;

fn server(plane: &Plane) -> TestServer {
    server_with(plane, &[])
}

fn server_with(plane: &Plane, settings: &[(&str, &str)]) -> TestServer {
    let url = plane.url();
    let mut all = vec![
        ("CODEX_TUNNEL", plane.id()),
        ("CODEX_TUNNEL_URL", &url),
        ("CODEX_TUNNEL_KEY", plane.key()),
        ("CODEX_LOG_LEVEL", "debug"),
    ];
    all.extend(settings);
    TestServer::with(&all)
}

/// Returns the body that ends a command.
fn ask(plane: &Plane, command: Value) -> Value {
    plane.call(command).body
}

/// Returns what has been posted for a command until now.
fn posted(plane: &Plane, request_id: &str) -> Vec<Post> {
    let of_it = |post: &Post| post.body["request_id"] == request_id;
    plane.posts().into_iter().filter(of_it).collect()
}

/// Returns what was posted for a command, once there are `count`.
fn answers(plane: &Plane, request_id: &str, count: usize) -> Vec<Post> {
    plane.until(&format!("{count} answers to {request_id}"), |plane| {
        posted(plane, request_id).len() >= count
    });
    posted(plane, request_id)
}

/// An answer in place of the plane's own: status, headers and body.
fn fault(code: u16, headers: &[(&str, &str)], body: &str) -> Fault {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Fault::Status {
        code,
        headers: headers.iter().map(owned).collect(),
        body: body.to_owned(),
    }
}

/// Queues faults, of which each request takes one.
fn fail(plane: &Plane, door: Door, faults: impl IntoIterator<Item = Fault>) {
    for fault in faults {
        plane.fail_next(door, fault);
    }
}

#[track_caller]
fn nothing_wrong(plane: &Plane) {
    assert_eq!(plane.violations(), Vec::<String>::new());
}

/// A command as the control plane makes it.
fn command(id: &str, headers: Value, jsonrpc: Value) -> Value {
    json!({
        "request_id": id,
        "shard_token": format!("shard-{id}"),
        "created_at": "2026-01-01T00:00:00Z",
        "response_timeout": "30s",
        "headers": headers,
        "jsonrpc": jsonrpc,
        "not_known_yet": {"a": 1},
    })
}

/// A command of the era without sessions, of a member of a workspace.
fn stateless(id: &str, member: &str, method: &str, name: Option<&str>, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        "openai/subject": member,
    });
    let mut headers = json!({
        "MCP-Protocol-Version": ["2026-07-28"],
        "Mcp-Method": [method],
        "Authorization": ["Bearer codex_of_somebody_else"],
        "Host": ["evil.example"],
        "Origin": ["https://evil.example"],
    });
    if let Some(name) = name {
        headers["Mcp-Name"] = json!([name]);
    }
    command(
        id,
        headers,
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}),
    )
}

fn run_code(id: &str, member: &str, arguments: Value) -> Value {
    let params = json!({"name": "run_code", "arguments": arguments});
    stateless(id, member, "tools/call", Some("run_code"), params)
}

fn state(server: &TestServer, wanted: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let health = server.get("/health").json();
        if health["tunnel"]["state"] == wanted {
            return;
        }
        assert!(Instant::now() < until, "{health}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_session_of_the_older_protocol_goes_through_the_tunnel() {
    let plane = Plane::start();
    let server = server(&plane);
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
    }});
    let told = ask(&plane, command("init", json!({}), initialize));
    assert_eq!(told["resp_code"], 200, "{told}");
    let session = told["resp_headers"]["mcp-session-id"].clone();
    let of_session = |id: &str, jsonrpc| {
        command(
            id,
            json!({"Mcp-Session-Id": session, "MCP-Protocol-Version": ["2025-11-25"]}),
            jsonrpc,
        )
    };
    // `notifications/initialized` may be missing; another notification is acknowledged.
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
        "name": "run_code",
        "arguments": {"code": "import time\nprint('one', flush=True)\ntime.sleep(2.2)\nprint('two')"},
        "_meta": {"progressToken": 1},
    }});
    let done = ask(&plane, of_session("call", call));
    assert_eq!(done["resp_json"]["id"], 7);
    assert_eq!(
        done["resp_json"]["result"]["structuredContent"]["output"], "one\ntwo\n",
        "{done}"
    );
    let told = answers(&plane, "call", 3);
    let (last, progress) = told.split_last().expect("posts");
    assert!(
        progress
            .iter()
            .all(|post| post.body["resp_type"] == "jsonrpc_notify")
    );
    assert!(
        progress
            .iter()
            .all(|post| post.body["resp_json"]["method"] == "notifications/progress")
    );
    let steps = progress
        .iter()
        .map(|post| post.body["resp_json"]["params"]["progress"].as_f64());
    assert!(steps.is_sorted_by(|a, b| a < b), "{progress:?}");
    assert_eq!(last.body["resp_type"], "jsonrpc_response");
    let notified = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let notified = ask(&plane, of_session("note", notified));
    assert_eq!(
        (&notified["resp_type"], &notified["resp_code"]),
        (&json!("notify_ack"), &json!(202))
    );
    let mut end = of_session("end", Value::Null);
    end["command_type"] = json!("session_termination");
    let ended = ask(&plane, end);
    assert_eq!(
        (&ended["resp_type"], &ended["resp_code"]),
        (&json!("session_termination_response"), &json!(204))
    );
    let list = json!({"jsonrpc": "2.0", "id": "x", "method": "tools/list"});
    assert_eq!(ask(&plane, of_session("after", list))["resp_code"], 404);
    nothing_wrong(&plane);
    state(&server, "ready");
}

#[test]
fn commands_fail_each_for_itself() {
    let plane = Plane::start();
    let server = server(&plane);
    let ping = |id: &str| stateless(id, "m", "tools/list", None, json!({}));
    let with = |id: &str, name: &str, value: Value| {
        let mut command = ping(id);
        command[name] = value;
        command
    };
    let mut silent = vec![
        with("late", "response_timeout", json!("0s")),
        with("unknown", "command_type", json!("of_tomorrow")),
        with("shardless", "shard_token", Value::Null),
        with("bodiless", "jsonrpc", json!([])),
        json!("nothing"),
    ];
    let mut slow = run_code(
        "slow",
        "m",
        json!({"code": "import time; time.sleep(20)", "timeout": 25}),
    );
    slow["response_timeout"] = json!("1s");
    silent.push(slow);
    let odd = json!([
        "4.5s",
        "-1s",
        " 1s",
        "999999999999999999999999h",
        "4500ms",
        30,
        null
    ]);
    let odd = odd.as_array().expect("a list").clone();
    let absent = ["absent"].map(|id| {
        let mut command = ping(id);
        let members = command.as_object_mut().expect("an object");
        members.remove("response_timeout");
        command
    });
    let odd = odd
        .into_iter()
        .enumerate()
        .map(|(at, value)| with(&format!("odd-{at}"), "response_timeout", value));
    let many = (0..26).map(|at| ping(&format!("many-{at}")));
    plane.push_all(silent);
    plane.push_all(odd.chain(absent).chain(many).collect());
    for id in (0..7)
        .map(|at| format!("odd-{at}"))
        .chain(["absent".to_owned()])
        .chain((0..26).map(|at| format!("many-{at}")))
    {
        let posts = answers(&plane, &id, 1);
        assert_eq!(posts[0].body["resp_json"]["id"], id.as_str());
        assert!(
            posts[0].body["resp_json"]["result"]["tools"].is_array(),
            "{posts:?}"
        );
    }
    let other = ask(&plane, with("harpoon", "channel", json!("harpoon")));
    assert_eq!(other["resp_code"], 400, "{other}");
    assert_eq!(other["resp_json"]["error"]["code"], -32603);
    let bad = ask(
        &plane,
        command(
            "bad",
            json!({}),
            json!({"jsonrpc": "1.0", "id": 1, "method": "x"}),
        ),
    );
    assert_eq!(bad["resp_json"]["error"]["code"], -32600, "{bad}");
    let unknown = ask(&plane, stateless("none", "m", "no/such", None, json!({})));
    assert_eq!(unknown["resp_json"]["error"]["code"], -32601, "{unknown}");
    let until = Instant::now() + Duration::from_secs(10);
    while server.running() > 0 {
        assert!(Instant::now() < until, "what was too late still runs");
        std::thread::sleep(Duration::from_millis(50));
    }
    for id in ["late", "unknown", "shardless", "bodiless", "slow"] {
        assert!(posted(&plane, id).is_empty(), "{id}");
    }
    nothing_wrong(&plane);
}

#[test]
fn a_control_plane_that_fails_is_asked_again() {
    let plane = Plane::start();
    let past = ("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT");
    let polls = [
        fault(500, &[], "broken"),
        fault(200, &[], "{\"commands\": ["),
        fault(200, &[], "[]"),
        fault(429, &[("retry-after", "1")], ""),
        fault(503, &[past], ""),
    ];
    fail(&plane, Door::Poll, polls);
    let server = server(&plane);
    state(&server, "ready");
    let busy = fault(503, &[("retry-after", "1")], "");
    fail(&plane, Door::Response, [busy, fault(502, &[], "")]);
    plane.push(stateless("again", "m", "tools/list", None, json!({})));
    let posts = answers(&plane, "again", 3);
    assert!(
        posts.iter().all(|post| post.bytes == posts[0].bytes),
        "the same bytes"
    );
    assert!(
        posts[1].at - posts[0].at >= Duration::from_secs(1),
        "as long as it asked"
    );
    fail(&plane, Door::Response, [fault(404, &[], "")]);
    plane.push(stateless("gone", "m", "tools/list", None, json!({})));
    answers(&plane, "gone", 1);
    fail(&plane, Door::Response, [fault(413, &[], "")]);
    plane.push(stateless("large", "m", "tools/list", None, json!({})));
    let large = answers(&plane, "large", 2);
    let told = large[1].body["resp_json"]["error"]["message"].to_string();
    assert!(told.contains("larger than the tunnel takes"), "{told}");
    assert_eq!(
        posted(&plane, "gone").len(),
        1,
        "what is settled is not posted again"
    );
    assert_eq!(large[0].status, Some(413));
    nothing_wrong(&plane);
}

#[test]
fn a_refusal_is_said_once_and_the_server_serves() {
    for (status, code, words) in [
        (401, "", "CODEX_TUNNEL_KEY"),
        (403, "tunnel_use_forbidden", "up to 30 minutes"),
        (302, "", "tunnel_url"),
    ] {
        let plane = Plane::start();
        let body = format!("{{\"error\": {{\"message\": \"no\", \"code\": {code:?}}}}}");
        let to = ("location", "http://127.0.0.1:1/stolen");
        let refusal = fault(status, &[to], &body);
        fail(&plane, Door::Poll, std::iter::repeat_n(refusal, 50));
        let server = server(&plane);
        state(&server, "refused");
        let line = server.log_line(&["ERROR", words]);
        assert!(!line.contains(plane.key()));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(plane.polls().len(), 1, "no tight loop");
        server.still_answers();
        nothing_wrong(&plane);
    }
}

#[test]
fn the_key_is_in_no_log_metric_or_box() {
    let plane = Plane::start();
    let server = server(&plane);
    let code = "import os, glob\nfor path in ['/proc/self/environ', *glob.glob('/proc/*/environ')]:\n    try: print(open(path).read())\n    except OSError: pass\nprint(os.environ)";
    let ran = ask(&plane, run_code("run", "m", json!({ "code": code })));
    let output = ran["resp_json"]["result"]["structuredContent"]["output"].to_string();
    assert!(output.contains("environ("), "{ran}");
    let token = format!("Authorization: Bearer {}", server.token);
    let scrape = || server.request("GET", "/metrics", &[&token], b"").text();
    // A command is counted once its answer was taken, which is seen here before.
    for line in [
        "codex_tunnel_ready 1",
        "codex_tunnel_commands_total{outcome=\"answered\"} 1",
        "codex_tunnel_posts_total{outcome=\"good\"} 1",
    ] {
        wait_until(line, || scrape().contains(line));
    }
    let metrics = scrape();
    let argv = std::fs::read_to_string(format!("/proc/{}/cmdline", server.id())).expect("argv");
    for text in [
        output,
        server.log(),
        metrics,
        server.get("/health").text(),
        argv,
    ] {
        assert!(!text.contains(plane.key()), "{text}");
    }
    nothing_wrong(&plane);
}

#[test]
fn revoking_its_token_closes_the_tunnel() {
    let plane = Plane::start();
    let server = server(&plane);
    state(&server, "ready");
    let (code, said) = server.beside(&["token", "revoke", "tunnel"]);
    assert_eq!(code, Some(0), "{said}");
    plane.push(stateless("after", "m", "tools/list", None, json!({})));
    state(&server, "revoked");
    let polls = plane.polls().len();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(plane.polls().len(), polls);
    assert!(posted(&plane, "after").is_empty());
    server.still_answers();
    nothing_wrong(&plane);
}

#[test]
fn repeated_headers_mean_what_they_mean_over_http() {
    let plane = Plane::start();
    let server = server(&plane);
    let bearer = server.bearer();
    let mut seen = std::collections::BTreeSet::new();
    for (at, (name, values)) in [
        ("Mcp-Method", ["tools/list", "tools/list"]),
        ("Mcp-Method", ["tools/list", "tools/call"]),
        ("Mcp-Method", ["tools/call", "tools/list"]),
        ("MCP-Protocol-Version", ["2026-07-28", "2025-11-25"]),
        ("MCP-Protocol-Version", ["1999-01-01", "2026-07-28"]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = stateless(&format!("r{at}"), "m", "tools/list", None, json!({}));
        command["headers"][name] = json!(values);
        let body = command["jsonrpc"].to_string();
        let mut lines = vec![
            bearer.clone(),
            "Content-Type: application/json".to_owned(),
            "Accept: application/json, text/event-stream".to_owned(),
        ];
        for header in ["Mcp-Method", "MCP-Protocol-Version"] {
            let values = command["headers"][header].as_array().expect("a list");
            let texts = values.iter().map(|one| one.as_str().expect("a text"));
            lines.extend(texts.map(|text| format!("{header}: {text}")));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let direct = server.request("POST", "/mcp", &lines, body.as_bytes());
        let tunnelled = ask(&plane, command);
        assert_eq!(
            tunnelled["resp_code"], direct.status,
            "{values:?}: {tunnelled}"
        );
        seen.insert(direct.status);
        if direct.status != 200 {
            assert_eq!(tunnelled["resp_json"], direct.json(), "{values:?}");
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<u16>>(), [200, 400]);
    nothing_wrong(&plane);
}

#[test]
fn ids_keep_their_kind() {
    let plane = Plane::start();
    let server = server(&plane);
    let ids = json!([0, 7, -1, 9_007_199_254_740_991_u64, "7", "x", "", "é\n"]);
    for (at, id) in ids.as_array().expect("a list").iter().enumerate() {
        for (kind, method) in [("ok", "tools/list"), ("no", "no/such")] {
            let mut command = stateless(&format!("{kind}-{at}"), "m", method, None, json!({}));
            command["jsonrpc"]["id"] = id.clone();
            let told = ask(&plane, command);
            assert_eq!(&told["resp_json"]["id"], id, "{told}");
            assert_eq!(told["resp_json"]["error"].is_null(), kind == "ok", "{told}");
        }
    }
    nothing_wrong(&plane);
    drop(server);
}

#[test]
fn ten_commands_end_in_any_order() {
    let plane = Plane::start();
    let server = server_with(&plane, &[("CODEX_CONCURRENCY", "10")]);
    let ids: Vec<String> = (0..10).map(|at| format!("run-{at}")).collect();
    let commands = ids.iter().enumerate().map(|(at, id)| {
        let code = format!("import time; time.sleep({} * 0.3); print({at})", 9 - at);
        run_code(id, "m", json!({ "code": code }))
    });
    plane.push_all(commands.collect());
    for (at, id) in ids.iter().enumerate() {
        let told = answers(&plane, id, 1).remove(0).body;
        let output = &told["resp_json"]["result"]["structuredContent"]["output"];
        assert_eq!(output, &format!("{at}\n"), "{told}");
    }
    let finals = plane.posts().into_iter();
    let finals = finals.filter(|post| post.body["resp_type"] == "jsonrpc_response");
    let order: Vec<Value> = finals.map(|post| post.body["request_id"].clone()).collect();
    assert_eq!(order.len(), 10, "each is answered once");
    assert_eq!(order[9], "run-0", "the first to come is the last to end");
    nothing_wrong(&plane);
    drop(server);
}

#[test]
fn a_lost_poll_is_asked_again() {
    let plane = Plane::start();
    fail(&plane, Door::Record, [Fault::Reset]);
    fail(&plane, Door::Poll, [Fault::Reset, Fault::HalfBody]);
    let server = server(&plane);
    state(&server, "ready");
    let polls = plane.polls().len();
    assert!((3..=6).contains(&polls), "{polls} polls: no tight loop");
    // Now in the middle of a poll that waits.
    plane.until("a poll that waits", |plane| {
        let polls = plane.polls();
        polls
            .iter()
            .any(|poll| poll.query.contains("timeout_ms=30000"))
    });
    fail(&plane, Door::Poll, [Fault::Reset]);
    let told = ask(
        &plane,
        stateless("list", "m", "tools/list", None, json!({})),
    );
    assert!(told["resp_json"]["result"]["tools"].is_array(), "{told}");
    state(&server, "ready");
    nothing_wrong(&plane);
}

#[test]
fn a_poll_without_an_answer_is_given_up() {
    let plane = Plane::start();
    let server = server(&plane);
    state(&server, "ready");
    fail(&plane, Door::Poll, [Fault::Silence]);
    let silent = Instant::now();
    // Handed out by the next poll, which comes when this one is given up.
    plane.push(stateless("list", "m", "tools/list", None, json!({})));
    let posted = || posted(&plane, "list");
    wait_within(Duration::from_secs(60), "another poll", || {
        !posted().is_empty()
    });
    assert!(
        silent.elapsed() >= Duration::from_secs(30),
        "as long as a poll may take"
    );
    let told = &posted()[0].body;
    assert!(told["resp_json"]["result"]["tools"].is_array(), "{told}");
    state(&server, "ready");
    nothing_wrong(&plane);
}

#[test]
fn progress_that_fails_once_is_not_told_again() {
    let plane = Plane::start();
    let server = server(&plane);
    fail(&plane, Door::Response, [Fault::status(500, "internal")]);
    let code = "import time\nfor n in range(4):\n    print(n, flush=True)\n    time.sleep(1.1)";
    let mut command = run_code("run", "m", json!({ "code": code }));
    command["jsonrpc"]["params"]["_meta"]["progressToken"] = json!(1);
    let told = ask(&plane, command);
    let output = &told["resp_json"]["result"]["structuredContent"]["output"];
    assert_eq!(output, "0\n1\n2\n3\n", "{told}");
    let posts = posted(&plane, "run");
    let seen: Vec<_> = posts
        .iter()
        .map(|post| {
            (
                post.body["resp_type"].as_str().unwrap_or_default(),
                post.status,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("jsonrpc_notify", Some(500)),
            ("jsonrpc_response", Some(200))
        ]
    );
    nothing_wrong(&plane);
    drop(server);
}

#[test]
fn an_answer_whose_connection_is_lost_is_posted_again() {
    let plane = Plane::start();
    let server = server(&plane);
    for (at, fault) in [Fault::Reset, Fault::status(500, "internal")]
        .into_iter()
        .enumerate()
    {
        fail(&plane, Door::Response, [fault.clone()]);
        let id = format!("run-{at}");
        let code = "import uuid; print(uuid.uuid4())";
        let told = ask(&plane, run_code(&id, "m", json!({ "code": code })));
        assert_eq!(
            told["resp_json"]["result"]["structuredContent"]["status"],
            "success"
        );
        let posts = posted(&plane, &id);
        assert_eq!(posts.len(), 2, "{posts:?}");
        assert_eq!(posts[0].bytes, posts[1].bytes, "it ran once");
    }
    nothing_wrong(&plane);
    drop(server);
}

#[test]
fn a_stop_finishes_what_was_begun() {
    let plane = Plane::start();
    let server = server_with(&plane, &[("CODEX_CONCURRENCY", "10")]);
    // All end at the same moment, and the drain with them.
    let code = "import time; end = time.time(); end += 6 - end % 1; time.sleep(end - time.time()); print('done')";
    let ids: Vec<String> = (0..10).map(|at| format!("run-{at}")).collect();
    let commands = ids
        .iter()
        .map(|id| run_code(id, "m", json!({ "code": code })));
    plane.push_all(commands.collect());
    wait_until("the runs' begin", || server.running() == 10);
    server.terminate();
    server.log_line(&["stopping, waiting"]);
    std::thread::sleep(Duration::from_secs(1));
    plane.push(stateless("later", "m", "tools/list", None, json!({})));
    for id in &ids {
        let told = answers(&plane, id, 1).remove(0).body;
        let output = &told["resp_json"]["result"]["structuredContent"]["output"];
        assert_eq!(output, "done\n", "{told}");
    }
    assert!(server.ended_well());
    assert!(posted(&plane, "later").is_empty(), "nothing new is begun");
    nothing_wrong(&plane);
}

#[test]
fn a_stop_drops_nothing_that_a_poll_brought() {
    let plane = Plane::start();
    let server = server(&plane);
    let ids = (0..300).map(|at| format!("c{at}"));
    let commands = ids.map(|id| stateless(&id, "m", "no/such", None, json!({})));
    plane.push_all(commands.collect());
    plane.until("an answer", |plane| !plane.posts().is_empty());
    server.terminate();
    assert!(server.ended_well());
    let posts = plane.posts();
    assert_eq!(
        posts.len(),
        300,
        "each is handed out once, and has to be answered"
    );
    assert!(posts.iter().all(|post| post.status == Some(200)));
    nothing_wrong(&plane);
}

#[test]
fn a_wait_until_a_date_is_kept() {
    let plane = Plane::start();
    let until = jiff::Timestamp::now() + Duration::from_secs(4);
    let date = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    fail(
        &plane,
        Door::Poll,
        [fault(429, &[("retry-after", &date)], "")],
    );
    let server = server(&plane);
    state(&server, "ready");
    let polls = plane.polls();
    let waited = polls[1].at - polls[0].at;
    // The date has whole seconds, and the server takes time to start.
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
    nothing_wrong(&plane);
}

#[test]
fn connecting_waits_for_the_first_poll_and_the_first_call() {
    let plane = Plane::start();
    fail(
        &plane,
        Door::Poll,
        [fault(500, &[], "broken"), fault(500, &[], "broken")],
    );
    let server = server(&plane);
    let (code, said) = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| server.beside(&["connect", "chatgpt", "--wait=30s"]));
        state(&server, "ready");
        std::thread::sleep(Duration::from_secs(1));
        assert!(!connecting.is_finished(), "nobody has called yet");
        ask(&plane, run_code("first", "m", json!({"code": "print(1)"})));
        connecting.join().expect("it ends")
    });
    assert_eq!(code, Some(0), "{said}");
    for words in [
        "the tunnel is open",
        plane.id(),
        "Add custom MCP server",
        "ChatGPT has called",
    ] {
        assert!(said.contains(words), "lacks {words:?}: {said}");
    }
    assert!(!said.contains(plane.key()));
    let (code, said) = server.beside(&["connect", "chatgpt", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let json: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&json["ready"], &json["tunnel"]["id"]),
        (&json!(true), &json!(plane.id()))
    );
    let (_, said) = server.beside(&["doctor"]);
    assert!(said.contains(&format!("{} is open", plane.id())), "{said}");
    nothing_wrong(&plane);
}

#[test]
fn what_is_wrong_is_told_to_the_operator_alone() {
    let plane = Plane::start();
    let body = r#"{"error": {"message": "no", "code": "tunnel_use_forbidden"}}"#;
    fail(
        &plane,
        Door::Poll,
        std::iter::repeat_n(fault(403, &[], body), 50),
    );
    let server = server(&plane);
    state(&server, "refused");
    let (_, admin) = server.beside(&["token", "create", "operator", "--scope", "admin"]);
    let admin = admin
        .lines()
        .find_map(|line| line.trim().strip_prefix("codex_"));
    let admin = format!("codex_{}", admin.expect("a token"));
    let ask = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        server.request("GET", "/health", &[&header], b"").json()["tunnel"].clone()
    };
    for stranger in [server.token.as_str(), "codex_wrong", ""] {
        assert_eq!(ask(stranger), json!({"state": "refused"}), "{stranger}");
    }
    let told = ask(&admin);
    assert_eq!(
        (&told["state"], &told["id"]),
        (&json!("refused"), &json!(plane.id()))
    );
    let detail = told["detail"].as_str().expect("words");
    assert!(detail.contains("Tunnels Read and Use"), "{detail}");
    let page = server.get("/").text();
    assert!(
        page.contains("<strong>refused</strong>") && !page.contains(plane.id()),
        "{page}"
    );
    // Without the key, what is wrong is in the log.
    let (code, said) = server.beside(&["connect", "chatgpt"]);
    assert_eq!(code, Some(8), "{said}");
    let words = "the server's tunnel is refused";
    assert!(
        said.contains(words) && said.contains("scope admin"),
        "{said}"
    );
    std::fs::write(server.home().join("tunnel.key"), plane.key()).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(server.home().join("tunnel.key"), mode).expect("chmod");
    let url = plane.url();
    let (_, said) = server.beside(&["doctor", "--tunnel", plane.id(), "--tunnel-url", &url]);
    // The key that is here is good for the record, and only polls are refused.
    assert!(said.contains("the server's tunnel is refused"), "{said}");
    fail(&plane, Door::Record, [fault(403, &[], body)]);
    let (_, said) = server.beside(&["doctor", "--tunnel", plane.id(), "--tunnel-url", &url]);
    assert!(said.contains("Tunnels Read and Use"), "{said}");
    nothing_wrong(&plane);
}

#[test]
fn one_member_keeps_no_other_from_being_served() {
    let plane = Plane::start();
    let server = server(&plane);
    let slow = |id: &str| {
        run_code(
            id,
            "a",
            json!({"code": "import time; time.sleep(20)", "timeout": 25}),
        )
    };
    let many: Vec<Value> = (0..30).map(|at| slow(&format!("a{at}"))).collect();
    plane.push_all(many);
    while server.running() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    let told = ask(&plane, stateless("b", "b", "tools/list", None, json!({})));
    assert!(told["resp_json"]["result"]["tools"].is_array(), "{told}");
    let answered = posted(&plane, "a0").len() + posted(&plane, "a1").len();
    assert_eq!(
        answered,
        0,
        "b did not wait for a, but {:?}",
        begun.elapsed()
    );
    nothing_wrong(&plane);
}
