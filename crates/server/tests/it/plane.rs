//! A control plane of the tests' own, after the public description of
//! OpenAI's: hands out commands once, and keeps what is posted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

/// The only key that opens it.
pub(crate) const KEY: &str = "sk-the-key-of-the-tunnel";

/// The only tunnel that it knows.
pub(crate) const ID: &str = "tunnel_0123456789abcdef0123456789abcdef";

/// What it is told in place of its usual answer: status, headers, body.
pub(crate) type Fault = (u16, Vec<(&'static str, &'static str)>, &'static str);

/// An answer that was posted.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) bytes: Bytes,
    pub(crate) body: Value,
    pub(crate) at: Instant,
    pub(crate) status: u16,
}

#[derive(Debug, Default)]
struct Inner {
    commands: VecDeque<Vec<Value>>,
    polls: Vec<Instant>,
    posts: Vec<Post>,
    poll_faults: VecDeque<Fault>,
    post_faults: VecDeque<Fault>,
    wrongs: Vec<String>,
}

/// A control plane that runs until the test ends.
#[derive(Debug, Clone)]
pub(crate) struct Plane {
    inner: Arc<Mutex<Inner>>,
    pub(crate) address: SocketAddr,
}

impl Plane {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let plane = Self {
            inner: Arc::default(),
            address: listener.local_addr().expect("an address"),
        };
        let served = plane.clone();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let base = format!("/v1/tunnels/{ID}");
                let router = Router::new()
                    .route(&base, get(record))
                    .route(&format!("{base}/poll"), get(poll))
                    .route(&format!("{base}/response"), post(response))
                    .with_state(served);
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, router).await.expect("served");
            });
        });
        plane
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panicked in here")
    }

    /// Hands out commands with the next poll.
    pub(crate) fn push(&self, commands: Vec<Value>) {
        self.lock().commands.push_back(commands);
    }

    pub(crate) fn fail_polls(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().poll_faults.extend(faults);
    }

    pub(crate) fn fail_posts(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().post_faults.extend(faults);
    }

    pub(crate) fn polls(&self) -> usize {
        self.lock().polls.len()
    }

    /// What the client did that it must not.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.lock().wrongs.clone()
    }

    /// What was posted for a command, once there are `count`.
    pub(crate) fn posts(&self, request_id: &str, count: usize) -> Vec<Post> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let posts: Vec<Post> = self.posted(request_id);
            if posts.len() >= count {
                return posts;
            }
            assert!(Instant::now() < until, "{request_id}: {posts:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What has been posted for a command until now.
    pub(crate) fn posted(&self, request_id: &str) -> Vec<Post> {
        let inner = self.lock();
        let of_it = |post: &&Post| post.body["request_id"] == request_id;
        inner.posts.iter().filter(of_it).cloned().collect()
    }

    /// Hands out a command and returns the body that ends it.
    pub(crate) fn call(&self, command: &Value) -> Value {
        self.push(vec![command.clone()]);
        let id = command["request_id"].as_str().expect("an id");
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let last = self.posted(id).pop();
            if let Some(last) = last.filter(|last| last.body["resp_type"] != "jsonrpc_notify") {
                return last.body;
            }
            assert!(Instant::now() < until, "{id} was not answered");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn answer((status, headers, body): Fault) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).expect("a response")
}

fn opens(headers: &HeaderMap) -> bool {
    let key = headers.get("authorization");
    key.is_some_and(|key| key.as_bytes() == format!("Bearer {KEY}").as_bytes())
}

const UNKNOWN: &str = r#"{"error": {"message": "no", "type": "t", "param": null, "code": null}}"#;

async fn record(headers: HeaderMap) -> Response<Body> {
    if !opens(&headers) {
        return answer((401, Vec::new(), UNKNOWN));
    }
    answer((
        200,
        Vec::new(),
        r#"{"id": "x", "name": "laptop", "description": "", "new": 1}"#,
    ))
}

async fn poll(
    State(plane): State<Plane>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
) -> Response<Body> {
    plane.lock().polls.push(Instant::now());
    if !opens(&headers) {
        return answer((401, Vec::new(), UNKNOWN));
    }
    let limit = query
        .get("limit")
        .and_then(|limit| limit.parse::<u32>().ok());
    if !limit.is_some_and(|limit| (1..=25).contains(&limit)) {
        plane.lock().wrongs.push(format!("limit {limit:?}"));
    }
    if let Some(fault) = plane.lock().poll_faults.pop_front() {
        return answer(fault);
    }
    for _ in 0..50 {
        if let Some(commands) = plane.lock().commands.pop_front() {
            let body = json!({ "commands": commands }).to_string();
            return Response::new(Body::from(body));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answer((204, Vec::new(), ""))
}

async fn response(State(plane): State<Plane>, headers: HeaderMap, bytes: Bytes) -> Response<Body> {
    const TAKEN: [&str; 6] = [
        "request_id",
        "channel",
        "resp_type",
        "resp_code",
        "resp_json",
        "resp_headers",
    ];
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut inner = plane.lock();
    let shard = headers
        .get("x-tunnel-shard-token")
        .and_then(|shard| shard.to_str().ok());
    let id = body["request_id"].as_str().unwrap_or_default().to_owned();
    if !opens(&headers) || shard != Some(&format!("shard-{id}")) {
        inner.wrongs.push(format!("{id}: shard {shard:?}"));
    }
    let members = body.as_object().cloned().unwrap_or_default();
    for name in members
        .keys()
        .filter(|name| !TAKEN.contains(&name.as_str()))
    {
        inner.wrongs.push(format!("{id}: {name}"));
    }
    let is_json = members.get("resp_json").is_some_and(Value::is_object);
    let wants_json = matches!(
        body["resp_type"].as_str(),
        Some("jsonrpc_response" | "jsonrpc_notify")
    );
    if is_json != wants_json || !body["resp_code"].is_u64() {
        inner.wrongs.push(format!("{id}: {body}"));
    }
    let fault = inner.post_faults.pop_front();
    let fault = fault.unwrap_or((200, Vec::new(), r#"{"status": "ok"}"#));
    inner.posts.push(Post {
        bytes,
        body,
        at: Instant::now(),
        status: fault.0,
    });
    answer(fault)
}
