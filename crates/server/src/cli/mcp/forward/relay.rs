//! Every line of the client's, until it is answered: calls run beside one
//! another, and what has no answer is posted in the order in which it came.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::exchange;
use super::message::Message;
use super::session::{self, Session};
use crate::cli::peer::refusal::quoted;
use crate::cli::peer::{SILENCE, Server};
use crate::config::BODY_LIMIT;
use crate::mcp::message::{self as rpc, INVALID_REQUEST};
use crate::mcp::pipes::{Input, remark};

/// Requests in flight at once.
const CALLS: usize = 64;
/// How long a server may take to accept what has no answer.
const TELL: Duration = Duration::from_secs(10);
/// How long a request that is cancelled may take to reach the server first.
const REACH: Duration = Duration::from_secs(1);
/// How long a session's call may take to end after it was cancelled.
const CANCELLED: Duration = Duration::from_secs(5);

/// JSON-RPC's code for our own failures.
const INTERNAL_ERROR: i32 = -32603;
/// JSON-RPC's code for our own refusals.
const REFUSED: i32 = -32000;

/// The way between one client and one server.
pub(super) struct Relay {
    pub(super) server: Server,
    client: Client,
    /// Where messages are posted.
    endpoint: String,
    out: Sender<String>,
    /// Held while a session is begun; nobody uses the old one meanwhile.
    pub(super) session: tokio::sync::Mutex<Option<Session>>,
    /// The requests in flight, by the JSON of their ids.
    calls: Mutex<HashMap<String, Call>>,
}

/// A request in flight.
#[derive(Debug, Clone)]
struct Call {
    id: Value,
    method: String,
    /// Whether closing its stream cancels it.
    stateless: bool,
    /// Cancelled once the server has it.
    reached: CancellationToken,
    cancelled: CancellationToken,
}

impl Call {
    /// Returns when nobody waits for its answer any more.
    async fn given_up(&self) {
        self.cancelled.cancelled().await;
        if !self.stateless {
            sleep(CANCELLED).await;
        }
    }
}

impl Relay {
    pub(super) fn new(server: Server, client: Client, out: Sender<String>) -> Self {
        Self {
            endpoint: format!("{}/mcp", server.url),
            server,
            client,
            out,
            session: tokio::sync::Mutex::new(None),
            calls: Mutex::default(),
        }
    }

    /// Takes a line: begins its call among `calls`, or posts it.
    pub(super) async fn take(self: &Arc<Self>, line: Input, calls: &mut JoinSet<()>) {
        let Input::Line(line) = line else {
            let words = format!("a line is longer than {BODY_LIMIT} bytes; send less at once");
            return self
                .say(rpc::error(INVALID_REQUEST, &words).to_string())
                .await;
        };
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(why) => return self.say(why.answer().to_string()).await,
        };
        match (&message.id, &message.method) {
            (Some(id), Some(method)) if method == "initialize" => {
                if let Err(why) = self.initialize(&message.body, id).await {
                    self.fail(id, method, &why).await;
                }
            }
            (Some(id), Some(method)) => {
                let call = Call {
                    id: id.clone(),
                    method: method.clone(),
                    stateless: message.version.is_some(),
                    reached: CancellationToken::new(),
                    cancelled: CancellationToken::new(),
                };
                self.begin(message, call, calls).await;
            }
            _ => match message.cancels.clone() {
                Some(id) => self.cancel(message, &id).await,
                None => self.tell(message).await,
            },
        }
    }

    async fn begin(self: &Arc<Self>, message: Message, call: Call, calls: &mut JoinSet<()>) {
        let key = call.id.to_string();
        let refused = {
            let mut calls = self.calls();
            if calls.contains_key(&key) {
                Some((
                    INVALID_REQUEST,
                    "a request with this id is still in flight; give each its own",
                ))
            } else if calls.len() >= CALLS {
                Some((
                    REFUSED,
                    "64 requests are in flight; wait for one of them to end",
                ))
            } else {
                calls.insert(key.clone(), call.clone());
                None
            }
        };
        if let Some((code, words)) = refused {
            let mut answer = rpc::error(code, words);
            answer["id"] = call.id;
            return self.say(answer.to_string()).await;
        }
        let relay = Arc::clone(self);
        calls.spawn(async move {
            let ended = tokio::select! {
                ended = relay.exchange(&message, &call) => Some(ended),
                () = call.given_up() => None,
            };
            relay.calls().remove(&key);
            match ended {
                Some(Ok(answer)) => {
                    relay.say(answer.text).await;
                    exchange::drain(answer.rest).await;
                }
                Some(Err(why)) if !call.cancelled.is_cancelled() => {
                    relay.fail(&call.id, &call.method, &why).await;
                }
                // Who cancels a request awaits no answer.
                _ => {}
            }
        });
    }

    async fn exchange(&self, message: &Message, call: &Call) -> Result<exchange::Answer, String> {
        let response = self.send(message).await?;
        call.reached.cancel();
        self.answer(response, &call.id, true).await
    }

    /// Cancels a request as its era does: by the end of its stream, or by a
    /// message of its session. One that has been answered needs neither.
    async fn cancel(&self, message: Message, id: &Value) {
        let call = self.calls().get(&id.to_string()).cloned();
        let Some(call) = call else {
            return;
        };
        if !call.stateless {
            // A server ignores what cancels a request that it has not got yet.
            let reached = timeout(REACH, call.reached.cancelled()).await;
            drop(reached);
            // First, since the stream may end before this is known to be accepted.
            call.cancelled.cancel();
            return self.tell(message).await;
        }
        call.cancelled.cancel();
    }

    /// Posts what has no answer.
    async fn tell(&self, message: Message) {
        let method = message.method.as_deref().unwrap_or("an answer");
        // All of it within the time: a refusal may drip as well.
        let telling = async {
            match self.send(&message).await {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(self.refusal(response).await.1),
                Err(why) => Some(why),
            }
        };
        let told = match timeout(TELL, telling).await {
            Ok(None) => return,
            Ok(Some(why)) => why,
            Err(_) => format!("no whole reply within {} s", TELL.as_secs()),
        };
        remark(&self.without_token(&format!("{} was not sent: {told}", quoted(method))));
    }

    /// Posts a message with the headers of its era. Where the server has
    /// forgotten the session, it has not begun the call either: that is then
    /// repeated once, in a new session.
    async fn send(&self, message: &Message) -> Result<Response, String> {
        let headers = self.headers(message).await?;
        let response = self.post(message.body.clone(), headers.clone()).await?;
        if response.status() != StatusCode::NOT_FOUND || !session::is_named(&headers) {
            return Ok(response);
        }
        self.renew(&headers).await?;
        let headers = self.headers(message).await?;
        self.post(message.body.clone(), headers).await
    }

    async fn headers(&self, message: &Message) -> Result<HeaderMap, String> {
        if message.version.is_some() {
            return message.headers();
        }
        let session = self.session.lock().await;
        Ok(session.as_ref().map(Session::headers).unwrap_or_default())
    }

    /// Posts a body, and returns the answer's head.
    ///
    /// # Errors
    /// When there is none, with cause and cure in words.
    pub(super) async fn post(&self, body: Bytes, headers: HeaderMap) -> Result<Response, String> {
        let request = self.request(Method::POST, headers).body(body);
        match timeout(SILENCE, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.server.failed(&error).error.to_string()),
            Err(_) => Err(exchange::silent(&self.server)),
        }
    }

    /// Makes a request to the server, with its token.
    pub(super) fn request(&self, method: Method, headers: HeaderMap) -> RequestBuilder {
        let request = self
            .client
            .request(method, &self.endpoint)
            .headers(headers)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream");
        match &self.server.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Prints a line. Where nobody reads, everything ends anyway.
    pub(super) async fn say(&self, line: String) {
        drop(self.out.send(line).await);
    }

    /// Answers every request in flight with an error.
    pub(super) async fn give_up(&self, why: &str) {
        let calls: Vec<Call> = self.calls().drain().map(|(_, call)| call).collect();
        for call in calls {
            self.fail(&call.id, &call.method, why).await;
        }
    }

    /// Answers a request with an error: the step, and then cause and cure.
    async fn fail(&self, id: &Value, method: &str, why: &str) {
        let message = format!("{} was not answered: {why}", quoted(method));
        let error = json!({ "code": INTERNAL_ERROR, "message": self.without_token(&message) });
        let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
        self.say(answer.to_string()).await;
    }

    /// Returns a text without the token, which a server may have repeated.
    fn without_token(&self, text: &str) -> String {
        match &self.server.token {
            Some(token) => text.replace(token.as_str(), "…"),
            None => text.to_owned(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
