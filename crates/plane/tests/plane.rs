//! Tests of the plane with clients that speak HTTP by hand, so that tests of a
//! tunnel can trust it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use plane::{Door, Fault, Plane};
use serde_json::{Value, json};

/// An answer as it came; without a status where the connection was dropped.
#[derive(Debug)]
struct Answer {
    status: Option<u16>,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn code(&self) -> String {
        let body = self.json();
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

fn send(plane: &Plane, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let address = plane.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("connect to the plane");
    let mut request = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream
        .write_all(request.as_bytes())
        .expect("send a request");
    let mut bytes = Vec::new();
    // A dropped connection may end with an error: what came until then counts.
    let _ended = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("an answer is text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    Answer {
        status: head
            .split(' ')
            .nth(1)
            .map(|code| code.parse().expect("a status is a number")),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// A client of the tunnel that knows the key.
struct Client<'a>(&'a Plane);

impl Client<'_> {
    fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", self.0.key());
        let line = format!("GET /v1/tunnels/{}{path}", self.0.id());
        send(self.0, &line, &[("Authorization", &bearer)], "")
    }

    fn poll(&self) -> Vec<Value> {
        let answer = self.get("/poll?limit=25&timeout_ms=15000");
        assert_eq!(answer.status, Some(200), "{answer:?}");
        answer.json()["commands"]
            .as_array()
            .expect("a list of commands")
            .clone()
    }

    fn post(&self, tunnel: &str, shard: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.0.key());
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            ("X-Tunnel-Shard-Token", shard),
        ];
        let line = format!("POST /v1/tunnels/{tunnel}/response");
        send(self.0, &line, &headers, &body.to_string())
    }

    /// Answers a command with a body that has its request id.
    fn reply(&self, command: &Value, mut body: Value) -> Answer {
        body["request_id"] = command["request_id"].clone();
        let shard = command["shard_token"]
            .as_str()
            .expect("a command has a shard token");
        self.post(self.0.id(), shard, &body)
    }
}

fn request(id: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" })
}

fn result(id: Value) -> Value {
    let message = json!({ "jsonrpc": "2.0", "id": id, "result": {} });
    json!({ "resp_code": 200, "resp_json": message })
}

fn progress(at: u64) -> Value {
    json!({
        "resp_code": 200,
        "resp_type": "jsonrpc_notify",
        "resp_json": {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": { "progress": at, "progressToken": 1 },
        },
    })
}

const OTHER: &str = "tunnel_0123456789abcdef0123456789abcdef";

#[test]
fn a_record_is_for_those_who_have_the_key() {
    let plane = Plane::start();
    let answer = Client(&plane).get("");
    assert_eq!(answer.status, Some(200));
    assert_eq!(answer.json()["id"], plane.id());
    assert_eq!(plane.violations(), Vec::<String>::new());

    let bearer = format!("Bearer {}", plane.key());
    for (id, bearer, status, code) in [
        (plane.id(), "Bearer wrong", 401, "invalid_api_key"),
        (OTHER, bearer.as_str(), 403, "tunnel_use_forbidden"),
        ("tunnel_X", bearer.as_str(), 400, "invalid_tunnel_id_format"),
    ] {
        let line = format!("GET /v1/tunnels/{id}");
        let answer = send(&plane, &line, &[("Authorization", bearer)], "");
        assert_eq!(answer.status, Some(status), "{id}");
        assert_eq!(answer.code(), code, "{id}");
    }
    assert_eq!(plane.records(), 4);
    assert_eq!(plane.violations().len(), 3);
}

#[test]
fn a_poll_has_bounds() {
    let plane = Plane::start();
    for (query, status) in [
        ("?limit=0&timeout_ms=1", 400),
        ("?limit=26&timeout_ms=1", 400),
        ("?limit=25&timeout_ms=0", 400),
        ("?limit=25&timeout_ms=1&other=1", 400),
        ("?limit=25&timeout_ms=1", 204),
        ("?limit=1&timeout_ms=1&channel=main", 204),
    ] {
        let answer = Client(&plane).get(&format!("/poll{query}"));
        assert_eq!(answer.status, Some(status), "{query}");
    }
    assert_eq!(plane.polls().len(), 6);
    assert_eq!(plane.violations().len(), 4);
}

#[test]
fn commands_are_handed_out_once_and_together() {
    let plane = Plane::start();
    let client = Client(&plane);
    plane.push_all(
        (0..26)
            .map(|n| plane.command(request(json!(n)), &[]))
            .collect(),
    );
    plane.push(json!({ "command_type": "strange" }));
    plane.push(plane.command(request(json!("a")), &[("X-Two", "1"), ("X-Two", "2")]));
    assert_eq!(client.poll().len(), 26);
    let rest = client.poll();
    assert_eq!(rest.len(), 2);
    assert_eq!(rest[0], json!({ "command_type": "strange" }));
    assert_eq!(rest[1]["headers"], json!({ "X-Two": ["1", "2"] }));
    let answer = client.get("/poll?limit=25&timeout_ms=1");
    assert_eq!(answer.status, Some(204));
}

#[test]
fn a_call_gets_notifications_in_order_and_the_final_answer() {
    let plane = Plane::start();
    let client = Client(&plane);
    let command = plane.command(request(json!("one")), &[]);
    let exchange = thread::scope(|scope| {
        scope.spawn(|| {
            let command = client.poll().remove(0);
            for at in 1..=3 {
                let answer = client.reply(&command, progress(at));
                assert_eq!(answer.json(), json!({ "status": "ok" }));
            }
            client.reply(&command, result(json!("one")));
        });
        plane.call(command)
    });
    let steps: Vec<&Value> = exchange
        .notifications
        .iter()
        .map(|one| &one["params"]["progress"])
        .collect();
    assert_eq!(steps, [1, 2, 3]);
    assert_eq!(exchange.body["resp_json"]["id"], "one");
    assert_eq!(plane.posts().len(), 4);
    assert!(plane.posts().iter().all(|post| post.status == Some(200)));
    assert_eq!(plane.violations(), Vec::<String>::new());
}

/// Changes one thing of a good answer to a request with the id 1.
fn check_refused(change: impl Fn(&mut Value), status: u16) {
    let plane = Plane::start();
    let client = Client(&plane);
    plane.push(plane.command(request(json!(1)), &[]));
    let command = client.poll().remove(0);
    let mut body = result(json!(1));
    change(&mut body);
    let answer = client.reply(&command, body.clone());
    assert_eq!(answer.status, Some(status), "{body}: {answer:?}");
    assert_eq!(plane.violations().len(), 1, "{body}");
    let answer = client.reply(&command, result(json!(1)));
    assert_eq!(answer.status, Some(200), "the request waits still");
}

#[test]
fn answers_of_a_wrong_shape_are_refused() {
    for (key, value) in [
        ("shard_token", json!("in the body")),
        ("resp_code", json!("200")),
        ("resp_code", json!(99)),
        ("resp_type", json!("strange")),
        ("resp_type", json!("notify_ack")),
        ("resp_type", json!("session_termination_response")),
        ("resp_type", json!("jsonrpc_notify")),
        ("resp_json", json!(null)),
        ("resp_json", json!([])),
        ("resp_json", json!({ "jsonrpc": "2.0", "id": 1 })),
        (
            "resp_json",
            json!({ "jsonrpc": "2.0", "id": "1", "result": {} }),
        ),
        (
            "resp_json",
            json!({ "jsonrpc": "2.0", "id": null, "result": {} }),
        ),
        (
            "resp_headers",
            json!({ "Content-Type": "application/json" }),
        ),
        ("channel", json!("other")),
    ] {
        check_refused(|body| body[key] = value.clone(), 422);
    }
    check_refused(|body| body["channel"] = json!("NO"), 400);
}

#[test]
fn an_error_may_have_no_id() {
    let plane = Plane::start();
    let client = Client(&plane);
    plane.push(plane.command(request(json!(1)), &[]));
    let command = client.poll().remove(0);
    let message = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600 } });
    let body = json!({ "resp_code": 400, "resp_json": message });
    assert_eq!(client.reply(&command, body).status, Some(200));
    assert_eq!(plane.violations(), Vec::<String>::new());
}

#[test]
fn a_header_that_does_not_pass_is_a_violation() {
    let plane = Plane::start();
    let client = Client(&plane);
    plane.push(plane.command(request(json!(1)), &[]));
    let command = client.poll().remove(0);
    let mut body = result(json!(1));
    body["resp_headers"] = json!({ "Set-Cookie": ["a=b"], "Mcp-Session-Id": ["s"] });
    assert_eq!(client.reply(&command, body).status, Some(200));
    assert_eq!(plane.violations().len(), 1);
    assert!(plane.violations()[0].contains("Set-Cookie"));
}

#[test]
fn answers_to_what_does_not_wait_are_refused() {
    let plane = Plane::start();
    let client = Client(&plane);
    let never = plane.command(request(json!(0)), &[]);
    plane.push(plane.command(request(json!(1)), &[]));
    let command = client.poll().remove(0);
    let shard = command["shard_token"].as_str().unwrap();
    let mut body = result(json!(1));
    body["request_id"] = command["request_id"].clone();

    let answer = client.post(OTHER, shard, &body);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (Some(401), "tunnel_request_mismatch")
    );
    let answer = client.post(plane.id(), "another", &body);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (Some(404), "pending_request_not_found")
    );
    let answer = client.post(plane.id(), "", &body);
    assert_eq!(answer.status, Some(422));
    assert_eq!(client.reply(&never, result(json!(0))).status, Some(404));
    let unknown = json!({ "request_id": "req_unknown", "shard_token": "s" });
    assert_eq!(client.reply(&unknown, result(json!(1))).status, Some(404));
    assert_eq!(plane.violations().len(), 5);

    assert_eq!(client.post(plane.id(), shard, &body).status, Some(200));
    // The same bytes again are a retry; others are a second answer.
    assert_eq!(client.post(plane.id(), shard, &body).status, Some(404));
    assert_eq!(plane.violations().len(), 5);
    body["resp_code"] = json!(201);
    assert_eq!(client.post(plane.id(), shard, &body).status, Some(404));
    assert_eq!(plane.violations().len(), 6);
}

#[test]
fn an_expired_command_takes_no_answer() {
    let plane = Plane::start();
    let client = Client(&plane);
    let mut command = plane.command(request(json!(1)), &[]);
    command["response_timeout"] = json!("0s");
    plane.push(command);
    let command = client.poll().remove(0);
    assert_eq!(client.reply(&command, result(json!(1))).status, Some(404));
    assert_eq!(plane.violations().len(), 1);
}

#[test]
fn faults_come_in_order_and_take_nothing() {
    let plane = Plane::start();
    let client = Client(&plane);
    plane.fail_next(
        Door::Record,
        Fault::Redirect("http://127.0.0.1:1/".to_owned()),
    );
    let answer = client.get("");
    assert_eq!(answer.status, Some(307));
    assert!(answer.head.contains("location: http://127.0.0.1:1/"));

    plane.push(plane.command(request(json!(1)), &[]));
    plane.fail_next(Door::Poll, Fault::status(429, "rate_limit_exceeded"));
    plane.fail_next(Door::Poll, Fault::Reset);
    plane.fail_next(Door::Poll, Fault::HalfBody);
    let poll = "/poll?limit=1&timeout_ms=1000";
    let answer = client.get(poll);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (Some(429), "rate_limit_exceeded")
    );
    assert_eq!(client.get(poll).status, None);
    let half = client.get(poll);
    assert_eq!(half.status, Some(200));
    let length = format!("content-length: {}", 2 * half.body.len());
    assert!(
        !half.body.is_empty() && half.head.contains(&length),
        "{half:?}"
    );

    let command = client.poll().remove(0);
    let busy = Fault::Status {
        code: 503,
        headers: vec![("Retry-After".to_owned(), "1".to_owned())],
        body: "busy".to_owned(),
    };
    plane.fail_next(Door::Response, busy);
    plane.fail_next(Door::Response, Fault::Reset);
    let answer = client.reply(&command, result(json!(1)));
    assert_eq!((answer.status, answer.body.as_str()), (Some(503), "busy"));
    assert!(answer.head.contains("retry-after: 1"));
    assert_eq!(client.reply(&command, result(json!(1))).status, None);
    assert_eq!(client.reply(&command, result(json!(1))).status, Some(200));
    let statuses: Vec<Option<u16>> = plane.posts().iter().map(|post| post.status).collect();
    assert_eq!(statuses, [Some(503), None, Some(200)]);
    assert_eq!(plane.violations(), Vec::<String>::new());
}

#[test]
fn a_silent_plane_keeps_the_connection() {
    let plane = Plane::start();
    plane.fail_next(Door::Record, Fault::Silence);
    let mut open = TcpStream::connect(plane.url().replace("http://", "")).expect("connect");
    let bearer = format!("Authorization: Bearer {}\r\n", plane.key());
    let head = format!("GET /v1/tunnels/{} HTTP/1.1\r\nHost: x\r\n", plane.id());
    write!(open, "{head}{bearer}\r\n").expect("send a request");
    plane.until("the request", |plane| plane.records() == 1);
    let patience = Duration::from_millis(300);
    open.set_read_timeout(Some(patience)).expect("a timeout");
    let read = open.read(&mut [0]).expect_err("neither a byte nor an end");
    assert_eq!(read.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(Client(&plane).get("").status, Some(200), "others are heard");
}

#[test]
fn a_waiting_poll_gets_what_comes() {
    let plane = Plane::start();
    let client = Client(&plane);
    let begun = Instant::now();
    let commands = thread::scope(|scope| {
        scope.spawn(|| {
            plane.until("a poll", |plane| plane.polls().len() == 1);
            plane.push(plane.command(request(json!(1)), &[]));
        });
        client.poll()
    });
    assert_eq!(commands.len(), 1);
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "the poll ended by itself"
    );
}

/// Calls the product side while `answers` plays the tunnel's client.
fn through(
    plane: &Plane,
    line: &str,
    headers: &[(&str, &str)],
    body: Value,
    answers: impl FnOnce(&Client<'_>, &Value) + Send,
) -> Answer {
    let line = format!("{line} /v1/mcp/{}", plane.id());
    let body = body.to_string();
    thread::scope(|scope| {
        scope.spawn(|| {
            let command = Client(plane).poll().remove(0);
            answers(&Client(plane), &command);
        });
        send(plane, &line, headers, &body)
    })
}

#[test]
fn a_product_gets_json_with_the_headers_that_pass() {
    let plane = Plane::start();
    let headers = [
        ("Accept", "application/json, text/event-stream"),
        ("Authorization", "Bearer user"),
        ("Mcp-Method", "tools/list"),
        ("Cookie", "a=b"),
    ];
    let answer = through(
        &plane,
        "POST",
        &headers,
        request(json!(7)),
        |client, command| {
            let expected =
                json!({ "authorization": ["Bearer user"], "mcp-method": ["tools/list"] });
            assert_eq!(command["headers"], expected);
            assert_eq!(command["jsonrpc"], request(json!(7)));
            let mut body = result(json!(7));
            body["resp_code"] = json!(401);
            body["resp_headers"] =
                json!({ "WWW-Authenticate": ["Bearer"], "Mcp-Session-Id": ["s"] });
            client.reply(command, body);
        },
    );
    assert_eq!(answer.status, Some(401));
    assert_eq!(answer.json()["id"], 7);
    for header in [
        "www-authenticate: bearer",
        "mcp-session-id: s",
        "content-type: application/json",
    ] {
        assert!(answer.head.contains(header), "{header}: {answer:?}");
    }
    assert_eq!(plane.violations(), Vec::<String>::new());
}

#[test]
fn a_product_gets_notifications_as_events() {
    let plane = Plane::start();
    let answers = |client: &Client<'_>, command: &Value| {
        client.reply(command, progress(1));
        client.reply(command, progress(2));
        client.reply(command, result(json!(1)));
    };
    let events = [("Accept", "application/json, text/event-stream")];
    let answer = through(&plane, "POST", &events, request(json!(1)), answers);
    assert!(answer.head.contains("content-type: text/event-stream"));
    let data: Vec<&str> = answer
        .body
        .lines()
        .filter(|line| line.starts_with("data: "))
        .collect();
    assert_eq!(data.len(), 3, "{answer:?}");
    assert!(data[0].contains("\"progress\":1") && data[1].contains("\"progress\":2"));
    assert!(data[2].contains("\"result\""));

    let json = [("Accept", "application/json")];
    let answer = through(&plane, "POST", &json, request(json!(1)), answers);
    assert!(answer.json().get("result").is_some());
}

#[test]
fn a_product_gets_acknowledgements_and_ends_sessions() {
    let plane = Plane::start();
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let answer = through(&plane, "POST", &[], notification, |client, command| {
        let body = json!({ "resp_code": 202, "resp_type": "notify_ack" });
        client.reply(command, body);
    });
    assert_eq!((answer.status, answer.body.as_str()), (Some(202), ""));

    let session = [("Mcp-Session-Id", "s")];
    let answer = through(
        &plane,
        "DELETE",
        &session,
        json!(null),
        |client, command| {
            assert_eq!(command["command_type"], "session_termination");
            assert_eq!(command["headers"], json!({ "mcp-session-id": ["s"] }));
            let body = json!({ "resp_code": 204, "resp_type": "session_termination_response" });
            client.reply(command, body);
        },
    );
    assert_eq!(answer.status, Some(204));

    let line = format!("GET /v1/mcp/{}", plane.id());
    assert_eq!(send(&plane, &line, &[], "").status, Some(405));
    let line = format!("POST /v1/mcp/{}", plane.id());
    let answer = send(&plane, &line, &[], "[]");
    assert_eq!(answer.code(), "invalid_json_payload");
    assert_eq!(plane.violations(), Vec::<String>::new());
}

#[test]
fn a_dropped_plane_hears_nobody() {
    let plane = Plane::start();
    let address = plane.url().replace("http://", "");
    let mut open = TcpStream::connect(&address).unwrap();
    plane.until("nothing", |_| true);
    drop(plane);
    let mut byte = [0];
    let patience = Duration::from_secs(20);
    open.set_read_timeout(Some(patience)).expect("a timeout");
    let begun = Instant::now();
    let read = open.read(&mut byte);
    assert!(matches!(read, Ok(0) | Err(_)) && begun.elapsed() < patience);
}
