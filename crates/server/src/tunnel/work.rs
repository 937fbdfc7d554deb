//! A command, done: handed to the MCP service as a request of the tunnel's own
//! caller, and answered message by message.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::command::{Command, MAIN, Task};
use super::patience::Backoff;
use super::plane::{Failed, Plane};
use super::status::{CommandEnd, Outcome, Status};
use crate::app::App;
use crate::auth::Principal;
use crate::mcp::Endpoint;
use crate::runs::{Caller, ClientLimits};

/// Attempts to post an answer.
const ATTEMPTS: u32 = 3;

/// Bytes of the largest answer that is read from the MCP service.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where a member of a workspace is named, by a pseudonym.
const SUBJECT: &str = "openai/subject";

/// Headers of an answer that the control plane takes.
const TAKEN: [&str; 5] = [
    "mcp-session-id",
    "mcp-protocol-version",
    "last-event-id",
    "access-control-expose-headers",
    "www-authenticate",
];

/// What it takes to do commands.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) app: Arc<App>,
    pub(super) endpoint: Endpoint,
    pub(super) plane: Plane,
    /// Who calls, before members are told apart.
    pub(super) principal: Principal,
    pub(super) status: Status,
}

/// Answers to one command, posted in order.
struct Answers<'a> {
    worker: &'a Worker,
    command: &'a Command,
    /// Whether what is told before the answer still arrives.
    telling: bool,
}

impl Worker {
    /// Does a command and posts what becomes of it, within its time. What is
    /// late is stopped, and nothing is posted of it.
    pub(super) async fn work(&self, command: Command, deadline: Instant) {
        let done = tokio::time::timeout_at(deadline, self.answer(&command)).await;
        match done {
            Ok(ended) => self.status.ended(ended),
            Err(_) => self.expired("its time was over"),
        }
    }

    /// Notes a command that is dropped for its time, and why.
    pub(super) fn expired(&self, why: &str) {
        tracing::warn!(why, "dropped a tunnel's command");
        self.status.ended(CommandEnd::Expired);
    }

    async fn answer(&self, command: &Command) -> CommandEnd {
        let mut answers = Answers {
            worker: self,
            command,
            telling: true,
        };
        let id = match &command.task {
            Task::Message(message) => message.get("id").cloned(),
            Task::EndSession => None,
        };
        let request = match request(command) {
            _ if command.channel != MAIN => Err("unsupported channel"),
            Some(request) => Ok(request),
            None => Err("Bad Request"),
        };
        let request = match request {
            Ok(request) => request,
            Err(words) => {
                let status = StatusCode::BAD_REQUEST;
                let failed = failure(id.as_ref(), words, None);
                return answers
                    .last("jsonrpc_response", status, json!({}), Some(failed))
                    .await;
            }
        };
        let _in_use = self.app.activity.begin();
        let (parts, body) = request.into_parts();
        let response = self
            .endpoint
            .answer(self.caller(command), parts, body, ())
            .await;
        let told = taken(response.headers());
        match (&command.task, &id) {
            (Task::EndSession, _) => {
                let status = match response.status() {
                    status if status.is_success() => StatusCode::NO_CONTENT,
                    status => status,
                };
                answers
                    .last("session_termination_response", status, json!({}), None)
                    .await
            }
            (Task::Message(_), None) if response.status().is_success() => {
                answers
                    .last("notify_ack", response.status(), told, None)
                    .await
            }
            (Task::Message(_), _) => answers.relay(response, id.as_ref()).await,
        }
    }

    /// Returns who calls. A pseudonym separates members from each other, and
    /// grants nothing.
    pub(super) fn caller(&self, command: &Command) -> Caller {
        let mut principal = self.principal.clone();
        if let Task::Message(message) = &command.task
            && let Some(params) = message.get("params")
            && let Some(subject) = params.get("_meta").and_then(|meta| meta.get(SUBJECT))
            && let Some(subject) = subject.as_str()
        {
            principal = principal.member(&hash(subject));
        }
        let config = &self.app.config;
        Caller {
            principal,
            base_url: config.public_url.clone().unwrap_or_default(),
            client: ClientLimits::default(),
        }
    }
}

/// The first half of SHA-256, in lower-case hex.
fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns a command as the request that an HTTP client would have sent here;
/// `None` when its headers are none.
pub(super) fn request(command: &Command) -> Option<Request<Bytes>> {
    let (method, body) = match &command.task {
        Task::Message(message) => (Method::POST, serde_json::to_vec(message).ok()?),
        Task::EndSession => (Method::DELETE, Vec::new()),
    };
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = "/mcp".parse().ok()?;
    let headers = request.headers_mut();
    let fixed = |text| HeaderValue::from_static(text);
    headers.insert(header::HOST, fixed("localhost"));
    headers.insert(header::ACCEPT, fixed("application/json, text/event-stream"));
    headers.insert(header::CONTENT_TYPE, fixed("application/json"));
    for (name, value) in &command.headers {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        headers.append(name, HeaderValue::try_from(value.as_str()).ok()?);
    }
    Some(request)
}

impl Answers<'_> {
    /// Posts each message of a response; the one with the id is the last.
    async fn relay(&mut self, mut response: Response<Body>, id: Option<&Value>) -> CommandEnd {
        let kind = response.headers().get(header::CONTENT_TYPE);
        let streams = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let status = response.status();
        let told = taken(response.headers());
        let mut body = std::mem::take(response.body_mut());
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let Some(data) = frame.ok().and_then(|frame| frame.into_data().ok()) else {
                break;
            };
            text.extend_from_slice(&data);
            if text.len() > ANSWER_BYTES {
                break;
            }
            while streams && let Some(event) = next_event(&mut text) {
                let Ok(Value::Object(message)) = serde_json::from_slice(&event) else {
                    continue;
                };
                match (message.contains_key("method"), message.get("id")) {
                    (true, None) => self.tell(message).await,
                    (true, Some(_)) => {
                        let failed = failure(id, "Bad Gateway", Some("protocol"));
                        let status = StatusCode::BAD_GATEWAY;
                        return self
                            .last("jsonrpc_response", status, json!({}), Some(failed))
                            .await;
                    }
                    (false, _) => {
                        let answer = Value::Object(message);
                        return self
                            .last("jsonrpc_response", status, told, Some(answer))
                            .await;
                    }
                }
            }
        }
        let whole: Option<Map<String, Value>> =
            serde_json::from_slice(&text).ok().filter(|_| !streams);
        let (status, answer) = match whole {
            Some(message) => (status, Value::Object(message)),
            None if status.is_success() => {
                let failed = failure(id, "Bad Gateway", Some("transport_closed"));
                (StatusCode::BAD_GATEWAY, failed)
            }
            None => (
                status,
                failure(id, status.canonical_reason().unwrap_or("failed"), None),
            ),
        };
        self.last("jsonrpc_response", status, told, Some(answer))
            .await
    }

    /// Posts a notification. What fails once is not tried again, since it may
    /// have arrived; the later ones are left out then.
    async fn tell(&mut self, message: Map<String, Value>) {
        if !self.telling {
            return;
        }
        let headers = json!({"content-type": ["text/event-stream"]});
        let body = self.body(
            "jsonrpc_notify",
            StatusCode::OK,
            headers,
            Some(Value::Object(message)),
        );
        if let Err(failed) = self.post_once(body).await {
            tracing::debug!(?failed, "failed to tell the tunnel of progress");
            self.telling = false;
        }
    }

    /// Posts the answer. A command that the control plane does not know any
    /// more has been answered; its work is never done twice.
    async fn last(
        &mut self,
        kind: &str,
        status: StatusCode,
        headers: Value,
        answer: Option<Value>,
    ) -> CommandEnd {
        let id = answer.as_ref().and_then(|answer| answer.get("id")).cloned();
        let body = self.body(kind, status, headers, answer);
        let posted = self.post(body).await;
        if let Err(Failed::Refused { status, .. }) = &posted
            && *status == StatusCode::PAYLOAD_TOO_LARGE
        {
            let words =
                "the result is larger than the tunnel takes: print less, or save smaller pictures";
            let failed = failure(id.as_ref(), words, None);
            let body = self.body(kind, StatusCode::OK, json!({}), Some(failed));
            // The log has why, where even this is not taken.
            drop(self.post(body).await);
        }
        match posted {
            Ok(()) => CommandEnd::Answered,
            Err(_) => CommandEnd::Undelivered,
        }
    }

    async fn post_once(&self, body: Bytes) -> Result<(), Failed> {
        let Worker { plane, status, .. } = self.worker;
        let posted = plane.post(&self.command.shard_token, body).await;
        status.posted(
            posted
                .as_ref()
                .map_or_else(Failed::outcome, |()| Outcome::Good),
        );
        posted
    }

    async fn post(&self, body: Bytes) -> Result<(), Failed> {
        let mut backoff = Backoff::default();
        let mut attempt = 1;
        loop {
            let posted = self.post_once(body.clone()).await;
            match &posted {
                Ok(()) => return posted,
                Err(Failed::Refused { status, .. }) if *status == StatusCode::NOT_FOUND => {
                    return Ok(());
                }
                Err(Failed::Later { after, .. }) if attempt < ATTEMPTS => {
                    tokio::time::sleep(backoff.next(*after)).await;
                    self.worker.status.retried();
                    attempt += 1;
                }
                Err(failed) => {
                    tracing::warn!(?failed, "failed to post a tunnel's answer");
                    return posted;
                }
            }
        }
    }

    fn body(&self, kind: &str, status: StatusCode, headers: Value, json: Option<Value>) -> Bytes {
        let mut body = json!({
            "request_id": self.command.request_id,
            "channel": self.command.channel,
            "resp_type": kind,
            "resp_code": status.as_u16(),
            "resp_headers": headers,
        });
        if let Some(json) = json {
            body["resp_json"] = json;
        }
        Bytes::from(body.to_string())
    }
}

/// Returns the headers that the control plane takes, each with its values. The
/// answer itself is one object, however it came.
fn taken(headers: &HeaderMap) -> Value {
    let mut kept = Map::new();
    for name in TAKEN {
        let values = headers.get_all(name).iter();
        let texts = values
            .filter_map(|value| value.to_str().ok())
            .filter(|text| !text.is_empty());
        let texts: Vec<Value> = texts.map(|text| json!(text)).collect();
        if !texts.is_empty() {
            kept.insert(name.to_owned(), Value::Array(texts));
        }
    }
    kept.insert("content-type".to_owned(), json!(["application/json"]));
    Value::Object(kept)
}

/// Takes the data of the first whole event out of a stream's text.
fn next_event(text: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = text.windows(2).position(|two| two == b"\n\n")?;
    let event: Vec<u8> = text.drain(..end + 2).collect();
    let lines = event.split(|byte| *byte == b'\n');
    let data: Vec<&[u8]> = lines
        .filter_map(|line| line.strip_prefix(b"data:"))
        .map(|data| data.strip_prefix(b" ").unwrap_or(data))
        .collect();
    Some(data.join(&b'\n'))
}

/// A JSON-RPC error of ours, with the source of the failure where there is one.
fn failure(id: Option<&Value>, words: &str, source: Option<&str>) -> Value {
    let mut error = json!({"code": -32603, "message": words});
    if let Some(source) = source {
        let told = json!({"version": 1, "source": source, "upstream_response_received": source != "transport_closed"});
        error["data"] = json!({ "tunnel_failure": told });
    }
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

/// How long a command without a time of its own may take (OpenAI's own
/// client: the same).
pub(super) const LONGEST: Duration = Duration::from_secs(600);
