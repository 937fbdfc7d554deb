//! OpenAI's side of a tunnel for tests: the control plane that a tunnel's client
//! polls and answers, and the product that calls through it. It listens on
//! 127.0.0.1 alone, in plain HTTP, and must never be part of a product.
//!
//! A [`Plane`] judges what its client sends by the rules of the real service.
//! Each breach is answered as the service would, and kept in
//! [`Plane::violations`].

#![forbid(unsafe_code)]

mod answer;
mod control;
mod listen;
mod product;
mod rules;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};

pub use answer::Fault;
use state::Shared;

/// Longest wait of [`Plane::call`] for the final answer.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Longest wait of [`Plane::until`].
const UNTIL_LIMIT: Duration = Duration::from_secs(20);

/// An endpoint that a tunnel's client calls, and that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `GET /v1/tunnels/{id}`.
    Record,
    /// `GET /v1/tunnels/{id}/poll`.
    Poll,
    /// `POST /v1/tunnels/{id}/response`, with a notification or a final answer.
    Response,
}

/// A request to the response endpoint, whatever was answered.
#[derive(Debug, Clone)]
pub struct Post {
    /// When its body was there.
    pub at: Instant,
    /// All of its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub bytes: Vec<u8>,
    /// Its body as JSON; null where it is none.
    pub body: Value,
    /// The status that it was answered with; none where a fault left it without
    /// an answer.
    pub status: Option<u16>,
}

/// A request to the poll endpoint, whatever was answered.
#[derive(Debug, Clone)]
pub struct Poll {
    /// When it came.
    pub at: Instant,
    /// What follows the question mark; empty where nothing does.
    pub query: String,
    /// All of its headers.
    pub headers: HeaderMap,
}

/// All that a client answered to one command.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The JSON-RPC messages of the notifications, in order.
    pub notifications: Vec<Value>,
    /// The whole posted body of the final answer.
    pub body: Value,
}

/// A running control plane with one tunnel, on a thread of its own. It ends when
/// this value is dropped. Its methods block, and are not for asynchronous code.
#[derive(Debug)]
pub struct Plane {
    shared: Arc<Shared>,
    url: String,
    runtime: Runtime,
}

impl Plane {
    /// Starts a plane on a free port of 127.0.0.1, and returns it once it listens.
    ///
    /// # Panics
    ///
    /// Panics where no thread or no port can be had.
    pub fn start() -> Plane {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("start the plane's thread");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("bind the plane to a free port");
        let address = listener.local_addr().expect("ask for the plane's port");
        let shared = Arc::new(Shared::new());
        runtime.spawn(listen::serve(listener, Arc::clone(&shared)));
        Plane {
            shared,
            url: format!("http://{address}"),
            runtime,
        }
    }

    /// Returns the base of all its addresses, without a slash at the end.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Returns the tunnel's id: `tunnel_` and 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Returns the runtime key that a client must send as its bearer token.
    pub fn key(&self) -> &str {
        &self.shared.key
    }

    /// Queues a command, well-formed or not, which one poll gets as it is.
    pub fn push(&self, command: Value) {
        self.push_all(vec![command]);
    }

    /// Queues commands that one poll gets together, even more than its limit.
    pub fn push_all(&self, commands: Vec<Value>) {
        self.shared.with(|state| state.push(commands));
    }

    /// Returns a well-formed command on the channel `main`, with 30 seconds to
    /// answer, that carries `request`; the plane knows its id from now on.
    /// A header named twice has two values. It is queued by [`Plane::push`].
    pub fn command(&self, request: Value, headers: &[(&str, &str)]) -> Value {
        let mut command = state::command("jsonrpc", headers, "30s");
        command["jsonrpc"] = request;
        self.shared.with(|state| state.know(&command));
        command
    }

    /// Returns a well-formed command that ends the session of the headers.
    pub fn termination(&self, headers: &[(&str, &str)]) -> Value {
        let command = state::command("session_termination", headers, "30s");
        self.shared.with(|state| state.know(&command));
        command
    }

    /// Queues a command and returns all that the client answers to it.
    ///
    /// # Panics
    ///
    /// Panics where no final answer came within 60 seconds, or where the command
    /// lacks an id or a shard token to answer it by.
    pub fn call(&self, command: Value) -> Exchange {
        let id = state::text(&command, "request_id").to_owned();
        self.push(command.clone());
        let known = self.shared.with(|state| state.pending.contains_key(&id));
        assert!(known, "nobody can answer {command}");
        let deadline = Instant::now() + CALL_LIMIT;
        let exchange = self.shared.wait(deadline, |state| {
            let pending = state.pending.get(&id)?;
            let body = pending.finished.as_ref()?.body.clone();
            let notifications = pending.notifications.iter();
            Some(Exchange {
                notifications: notifications.map(|one| one["resp_json"].clone()).collect(),
                body,
            })
        });
        match self.runtime.block_on(exchange) {
            Some(exchange) => exchange,
            None => panic!(
                "no final answer within {} s to {command}; violations: {:?}",
                CALL_LIMIT.as_secs(),
                self.violations()
            ),
        }
    }

    /// Queues a fault of a door: each request takes one, in order. A poll that
    /// waits for commands takes it at once.
    pub fn fail_next(&self, door: Door, fault: Fault) {
        self.shared.with(|state| state.faults.push((door, fault)));
    }

    /// Returns all requests to the response endpoint so far, in order.
    pub fn posts(&self) -> Vec<Post> {
        self.shared.with(|state| state.posts.clone())
    }

    /// Returns all requests to the poll endpoint so far, in order.
    pub fn polls(&self) -> Vec<Poll> {
        self.shared.with(|state| state.polls.clone())
    }

    /// Returns how often the tunnel's record was asked for.
    pub fn records(&self) -> usize {
        self.shared.with(|state| state.records)
    }

    /// Returns each breach of the protocol by the client, in order.
    pub fn violations(&self) -> Vec<String> {
        self.shared.with(|state| state.violations.clone())
    }

    /// Waits until the condition holds; it is asked again after each request.
    ///
    /// # Panics
    ///
    /// Panics with `what` where the condition does not hold within 20 seconds.
    pub fn until(&self, what: &str, condition: impl Fn(&Plane) -> bool) {
        assert!(
            self.wait(UNTIL_LIMIT, condition),
            "not within {} s: {what}; violations: {:?}",
            UNTIL_LIMIT.as_secs(),
            self.violations()
        );
    }

    /// Says whether the condition held within the limit.
    fn wait(&self, limit: Duration, condition: impl Fn(&Plane) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut changes = self.shared.changes();
        while !condition(self) {
            let changed =
                async { tokio::time::timeout_at(deadline.into(), changes.changed()).await };
            if self.runtime.block_on(changed).is_err() {
                return false;
            }
        }
        true
    }
}

/// What the tunnel's record says.
fn record(id: &str) -> Value {
    json!({
        "id": id,
        "name": "plane",
        "description": "A tunnel of tests",
        "object": "tunnel",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_condition_or_the_limit() {
        let plane = Plane::start();
        assert!(plane.wait(Duration::ZERO, |_| true));
        assert!(!plane.wait(Duration::ZERO, |plane| !plane.polls().is_empty()));
    }
}
