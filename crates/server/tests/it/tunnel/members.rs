//! Members of a workspace, who share one tunnel and its token: what one has and
//! uses is closed to the others, and to tokens that come by HTTP.

use ::plane::Plane;
use serde_json::{Value, json};

use super::{ask, command, nothing_wrong, run_code, server, server_with, stateless};
use crate::support::TestServer;

/// A program that leaves a file of all bytes.
const LEAVE: &str = "open('out.bin', 'wb').write(bytes(range(256)))";

/// Lets a member leave a file, and returns its address.
fn leave(plane: &Plane, id: &str, member: &str) -> String {
    let ran = ask(plane, run_code(id, member, json!({"code": LEAVE})));
    let file = &ran["resp_json"]["result"]["structuredContent"]["files"][0];
    file["uri"].as_str().expect("a resource").to_owned()
}

/// Lets a member read an address, and returns the answer.
fn read(plane: &Plane, id: &str, member: &str, uri: &str) -> Value {
    let params = json!({ "uri": uri });
    let command = stateless(id, member, "resources/read", Some(uri), params);
    ask(plane, command)["resp_json"].clone()
}

#[track_caller]
fn has_the_file(answer: &Value) {
    let blob = answer["result"]["contents"][0]["blob"].as_str();
    let blob = blob.unwrap_or_default();
    assert!(
        blob.starts_with("AAECAwQF") && blob.len() == 344,
        "{answer}"
    );
}

/// Sends a request by HTTP as the holder of a token, and returns its status.
fn status(server: &TestServer, method: &str, path: &str, headers: &[&str], token: &str) -> u16 {
    let bearer = format!("Authorization: Bearer {token}");
    let headers = [&[bearer.as_str()], headers].concat();
    server.request(method, path, &headers, b"").status
}

#[test]
fn members_cannot_reach_each_other_s_files() {
    let plane = Plane::start();
    let server = server(&plane);
    let code = "print(open('in.csv').read()); open('out.bin', 'wb').write(bytes(range(256)))";
    let files = json!([{"path": "in.csv", "content": "a,b\n1,2\n"}]);
    let ran = ask(
        &plane,
        run_code("run", "member-a", json!({"code": code, "files": files})),
    );
    let result = &ran["resp_json"]["result"]["structuredContent"];
    assert_eq!(result["output"], "a,b\n1,2\n\n", "{ran}");
    assert_eq!(
        result["files"][0].get("url"),
        None,
        "no public address: {ran}"
    );
    let uri = result["files"][0]["uri"].as_str().expect("a resource");
    has_the_file(&read(&plane, "own", "member-a", uri));
    for (id, member) in [("other", "member-b"), ("nobody", ""), ("near", "member-A")] {
        let answer = read(&plane, id, member, uri);
        assert!(answer["error"].is_object(), "{member:?}: {answer}");
    }
    nothing_wrong(&plane);
    drop(server);
}

#[test]
fn members_find_nothing_of_others_by_lists_and_guesses() {
    let plane = Plane::start();
    let server = server(&plane);
    let uri = leave(&plane, "run", "member-a");
    let list = stateless("list", "member-b", "resources/list", None, json!({}));
    let listed = ask(&plane, list)["resp_json"].clone();
    // The page that shows results is the same for all.
    let listed = listed["result"]["resources"].as_array().expect("a list");
    let uris: Vec<&Value> = listed.iter().map(|listed| &listed["uri"]).collect();
    assert_eq!(uris, ["ui://codex/run.html"]);
    // B's own file shows that it is no wrong guess which is refused, but a stranger.
    let own = leave(&plane, "own", "member-b");
    has_the_file(&read(&plane, "mine", "member-b", &own));
    let path = |uri: &str| {
        let path = uri.strip_prefix("codex://files/").expect("its scheme");
        let (id, name) = path.split_once('/').expect("an id and a name");
        (id.to_owned(), name.to_owned())
    };
    let ((id, name), (own_id, _)) = (path(&uri), path(&own));
    let guesses = [
        uri.clone(),
        format!("codex://files/{id}/"),
        format!("codex://files/{}/{name}", id.to_uppercase()),
        format!("codex://files/{id}/{name}?owner=member-b"),
        format!("codex://files/{own_id}/../{id}/{name}"),
        format!("codex://files/{own_id}/..%2f{id}%2f{name}"),
        format!("codex://files//{id}/{name}"),
        format!("/artifacts/{id}/{name}"),
        "codex://files/".to_owned(),
    ];
    for (at, guess) in guesses.iter().enumerate() {
        let answer = read(&plane, &format!("guess-{at}"), "member-b", guess);
        assert!(answer["error"].is_object(), "{guess}: {answer}");
        assert!(!answer.to_string().contains("AAECAwQF"), "{guess}");
    }
    has_the_file(&read(&plane, "still", "member-a", &uri));
    nothing_wrong(&plane);
    drop(server);
}

#[test]
fn a_token_by_http_reaches_nothing_of_a_member() {
    let plane = Plane::start();
    let server = server(&plane);
    let uri = leave(&plane, "run", "member-a");
    let path = uri.replace("codex://files/", "/artifacts/");
    for token in [server.token.clone(), server.another_token("other")] {
        for method in ["GET", "DELETE"] {
            assert_eq!(status(&server, method, &path, &[], &token), 404, "{method}");
        }
        // Whoever has no token learns as little.
        assert_eq!(server.get(&path).status, 401);
    }
    let by_mcp = crate::mcp::stateless(
        &server,
        "resources/read",
        Some(&uri),
        json!({ "uri": uri, "_meta": {"openai/subject": "member-a"} }),
    );
    assert!(by_mcp["error"].is_object(), "{by_mcp}");
    has_the_file(&read(&plane, "still", "member-a", &uri));
    nothing_wrong(&plane);
}

#[test]
fn the_session_of_another_member_opens_none_of_its_files() {
    let plane = Plane::start();
    let server = server(&plane);
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
        "_meta": {"openai/subject": "member-a"},
    }});
    let told = ask(&plane, command("init", json!({}), initialize));
    let session = told["resp_headers"]["mcp-session-id"].clone();
    let call = |id: &str, member: &str, method: &str, mut params: Value| {
        params["_meta"] = json!({"openai/subject": member});
        let headers = json!({"Mcp-Session-Id": session, "MCP-Protocol-Version": ["2025-11-25"]});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        ask(&plane, command(id, headers, message))["resp_json"].clone()
    };
    let run = json!({"name": "run_code", "arguments": {"code": LEAVE}});
    let ran = call("run", "member-a", "tools/call", run.clone());
    let uri = ran["result"]["structuredContent"]["files"][0]["uri"].clone();
    has_the_file(&call(
        "own",
        "member-a",
        "resources/read",
        json!({ "uri": uri }),
    ));
    // Members share sessions, since the product may; what is done in one is still B's.
    let other = call("b-reads", "member-b", "resources/read", json!({"uri": uri}));
    assert!(other["error"].is_object(), "{other}");
    let ran = call("b-runs", "member-b", "tools/call", run);
    let of_b = ran["result"]["structuredContent"]["files"][0]["uri"].clone();
    let params = json!({ "uri": of_b });
    has_the_file(&call("b-own", "member-b", "resources/read", params.clone()));
    assert!(call("a-reads", "member-a", "resources/read", params)["error"].is_object());

    // By HTTP there is no such session, to use or to end.
    let id = session[0].as_str().or(session.as_str()).expect("an id");
    let header = format!("Mcp-Session-Id: {id}");
    let headers = [header.as_str(), "Accept: text/event-stream"];
    for method in ["GET", "DELETE"] {
        let got = status(&server, method, "/mcp", &headers, &server.token);
        assert_eq!(got, 404, "{method}");
    }
    has_the_file(&call(
        "still",
        "member-a",
        "resources/read",
        json!({ "uri": uri }),
    ));
    nothing_wrong(&plane);
}

#[test]
fn a_member_that_calls_too_often_keeps_no_other_waiting() {
    let plane = Plane::start();
    let server = server_with(&plane, &[("CODEX_RATE_LIMIT", "2/hour")]);
    let run = |id: &str, member: &str| {
        let ran = ask(&plane, run_code(id, member, json!({"code": "print(4)"})));
        ran["resp_json"]["result"].clone()
    };
    let ran = |result: Value| {
        let output = &result["structuredContent"]["output"];
        assert_eq!(output, "4\n", "{result}");
    };
    for id in ["a-1", "a-2"] {
        ran(run(id, "member-a"));
    }
    let refused = run("a-3", "member-a");
    assert_eq!(refused["isError"], true, "{refused}");
    let words = refused["content"][0]["text"].as_str().expect("words");
    assert!(words.contains("2 runs in 3600 s"), "{words}");
    for id in ["b-1", "b-2"] {
        ran(run(id, "member-b"));
    }
    assert_eq!(run("b-3", "member-b")["isError"], true);
    // Nor whoever comes by HTTP.
    server.still_runs();
    nothing_wrong(&plane);
}
