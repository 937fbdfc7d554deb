//! The product side: what ChatGPT or the Responses API does with a tunnel. It
//! makes a command of an MCP client's request, so that an ordinary client can
//! speak through the tunnel. It must never answer in the tunnel's place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;

use crate::answer::{Refusal, empty, json_answer, set};
use crate::rules::{self, PASSING};
use crate::state::{self, Shared};

/// Longest wait for a final answer; `RESPONSE_TIMEOUT` says the same.
const PATIENCE: Duration = Duration::from_secs(60);

/// What commands of the product say of it.
const RESPONSE_TIMEOUT: &str = "60s";

/// Longest wait for a tunnel's first poll.
const FIRST_POLL: Duration = Duration::from_secs(20);

/// Most commands in the queue.
const LONGEST_QUEUE: usize = 100;

/// Bytes of events that are on their way to a client.
const STREAM_BUFFER: usize = 64 << 10;

/// Request headers that pass, in lower case; those for MCP and custom ones by
/// the beginnings of their names.
const FORWARDED: [&str; 3] = ["authorization", "last-event-id", "x-request-id"];
const FORWARDED_STARTS: [&str; 2] = ["mcp-", "x-"];

/// Carries an MCP message through the tunnel and returns its answer: events where
/// the client takes them and notifications came first, else JSON.
pub(crate) async fn call(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let message: Value = match serde_json::from_slice(&body) {
        Ok(message @ Value::Object(_)) => message,
        _ => {
            let message = "the body is not one JSON-RPC message";
            return bad_request("invalid_json_payload", message);
        }
    };
    let mut command = state::command("jsonrpc", &forwarded(&headers), RESPONSE_TIMEOUT);
    command["jsonrpc"] = message;
    let takes_events = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream"));
    carry(shared, &id, command, takes_events).await
}

/// Ends a session through the tunnel.
pub(crate) async fn end(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !headers.contains_key("mcp-session-id") {
        return bad_request("missing_mcp_session_id", "a DELETE names its session");
    }
    let headers = forwarded(&headers);
    let command = state::command("session_termination", &headers, RESPONSE_TIMEOUT);
    carry(shared, &id, command, false).await
}

fn bad_request(code: &'static str, message: &str) -> Response {
    Refusal::new(StatusCode::BAD_REQUEST, code, message).answer()
}

fn forwarded(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let passes = |name: &str| {
        FORWARDED.contains(&name) || FORWARDED_STARTS.iter().any(|start| name.starts_with(start))
    };
    headers
        .iter()
        .filter(|(name, _)| passes(name.as_str()))
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect()
}

/// Queues a command for the tunnel, if it has a client and room.
async fn enqueue(shared: &Shared, tunnel: &str, command: Value) -> Result<(), Refusal> {
    if !rules::is_tunnel_id(tunnel) {
        let message = format!("not the id of a tunnel: {tunnel}");
        let status = StatusCode::BAD_REQUEST;
        return Err(Refusal::new(status, "invalid_tunnel_id_format", message));
    }
    let unseen = || {
        let message = format!("no client of {tunnel} was seen");
        Refusal::new(StatusCode::NOT_FOUND, "tunnel_client_not_seen", message)
    };
    if tunnel != shared.id {
        return Err(unseen());
    }
    let deadline = Instant::now() + FIRST_POLL;
    let seen = shared.wait(deadline, |state| state.polls.first().map(|_| ()));
    seen.await.ok_or_else(unseen)?;
    shared.with(|state| {
        if state.queue.len() >= LONGEST_QUEUE {
            let message = format!("{LONGEST_QUEUE} commands wait already");
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(Refusal::new(status, "tunnel_queue_full", message));
        }
        state.push(vec![command]);
        Ok(())
    })
}

/// What the tunnel's client posted first.
enum First {
    Notification(Value),
    Final(Value),
}

async fn carry(shared: Arc<Shared>, tunnel: &str, command: Value, takes_events: bool) -> Response {
    let id = state::text(&command, "request_id").to_owned();
    if let Err(refusal) = enqueue(&shared, tunnel, command).await {
        return refusal.answer();
    }
    let deadline = Instant::now() + PATIENCE;
    let first = shared.wait(deadline, |state| {
        let pending = state.pending.get(&id)?;
        let notification = pending.notifications.first().filter(|_| takes_events);
        let finished = pending.finished.as_ref();
        match (notification, finished) {
            (Some(body), _) => Some(First::Notification(body.clone())),
            (None, Some(finished)) => Some(First::Final(finished.body.clone())),
            (None, None) => None,
        }
    });
    match first.await {
        Some(First::Final(body)) => final_answer(&body),
        Some(First::Notification(body)) => {
            let (writer, reader) = tokio::io::duplex(STREAM_BUFFER);
            let mut response = Response::new(Body::from_stream(ReaderStream::new(reader)));
            pass_headers(&mut response, &body);
            set(&mut response, CONTENT_TYPE.as_str(), "text/event-stream");
            tokio::spawn(async move { relay(&shared, &id, deadline, writer).await.is_some() });
            response
        }
        None => {
            let message = "the tunnel's client gave no final answer in time";
            let status = StatusCode::GATEWAY_TIMEOUT;
            Refusal::new(status, "tunnel_response_timeout", message).answer()
        }
    }
}

/// Writes each notification and then the final answer as events. Returns none
/// where the client went away, or no final answer came in time.
async fn relay(
    shared: &Shared,
    id: &str,
    deadline: Instant,
    mut writer: DuplexStream,
) -> Option<()> {
    let mut sent = 0;
    loop {
        let next = shared.wait(deadline, |state| {
            let pending = state.pending.get(id)?;
            match pending.notifications.get(sent) {
                Some(body) => Some((body["resp_json"].clone(), false)),
                None => {
                    let finished = pending.finished.as_ref()?;
                    Some((finished.body["resp_json"].clone(), true))
                }
            }
        });
        let (message, is_final) = next.await?;
        let event = format!("event: message\ndata: {message}\n\n");
        writer.write_all(event.as_bytes()).await.ok()?;
        if is_final {
            return Some(());
        }
        sent += 1;
    }
}

/// Returns the final answer as one HTTP answer.
fn final_answer(body: &Value) -> Response {
    let code = body["resp_code"].as_u64().unwrap_or_default();
    let status = match u16::try_from(code).map(StatusCode::from_u16) {
        Ok(Ok(status)) if !status.is_informational() => status,
        _ => StatusCode::BAD_GATEWAY,
    };
    let mut response = match &body["resp_json"] {
        Value::Null => empty(status),
        message => json_answer(status, message),
    };
    pass_headers(&mut response, body);
    response
}

/// Copies the headers that pass, but for the content type, which is the product's.
fn pass_headers(response: &mut Response, body: &Value) {
    let headers = body["resp_headers"].as_object();
    for (name, values) in headers.into_iter().flatten() {
        let lower = name.to_lowercase();
        if lower == "content-type" || !PASSING.contains(&lower.as_str()) {
            continue;
        }
        for value in values.as_array().into_iter().flatten() {
            set(response, name, value.as_str().unwrap_or_default());
        }
    }
}
