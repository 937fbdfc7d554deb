//! The service's rules for what a tunnel's client sends. They judge, and must
//! never change anything.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::answer::Refusal;
use crate::state::{self, Shared};

/// Keys that the body of an answer may have.
const KEYS: [&str; 6] = [
    "request_id",
    "resp_code",
    "resp_type",
    "channel",
    "resp_json",
    "resp_headers",
];

/// Response headers that pass the tunnel, in lower case.
pub(crate) const PASSING: [&str; 6] = [
    "content-type",
    "mcp-session-id",
    "mcp-protocol-version",
    "last-event-id",
    "access-control-expose-headers",
    "www-authenticate",
];

/// How long after a deadline an answer may still be on its way.
const ALLOWANCE: Duration = Duration::from_millis(500);

/// Most bytes of the header that describes the client's MCP servers.
const LONGEST_INFO: usize = 4096;

/// What a poll asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) limit: usize,
    pub(crate) timeout: Duration,
    /// Empty for all.
    pub(crate) channels: Vec<String>,
}

/// The kind of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Response,
    Notification,
    Acknowledgement,
    Termination,
}

/// The body of an answer, whose shape is right.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) request_id: String,
    pub(crate) shard_token: String,
    pub(crate) kind: ReplyKind,
    /// All of it.
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn is_final(&self) -> bool {
        self.kind != ReplyKind::Notification
    }
}

fn unprocessable(message: impl Into<String>) -> Refusal {
    Refusal::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "validation_error",
        message,
    )
}

/// Checks the shape of the tunnel's id and the key.
pub(crate) fn enter(shared: &Shared, id: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if !is_tunnel_id(id) {
        let message = format!("not the id of a tunnel: {id}");
        let status = StatusCode::BAD_REQUEST;
        return Err(Refusal::new(status, "invalid_tunnel_id_format", message));
    }
    let expected = format!("Bearer {}", shared.key);
    if headers.get(AUTHORIZATION).map(|value| value.as_bytes()) != Some(expected.as_bytes()) {
        let message = "the bearer token is not the tunnel's key";
        let status = StatusCode::UNAUTHORIZED;
        return Err(Refusal::new(status, "invalid_api_key", message));
    }
    Ok(())
}

/// Checks that the tunnel is the one that the key may use.
pub(crate) fn own(shared: &Shared, id: &str, status: StatusCode) -> Result<(), Refusal> {
    if id == shared.id {
        return Ok(());
    }
    let message = format!("the key may not use {id}");
    Err(Refusal::new(status, "tunnel_use_forbidden", message))
}

/// Says whether a tunnel may have this id.
pub(crate) fn is_tunnel_id(id: &str) -> bool {
    let is_ours = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    id.strip_prefix("tunnel_")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(is_ours))
}

/// Returns what is wrong with the headers by which a client describes itself.
pub(crate) fn introduction(headers: &HeaderMap) -> Vec<String> {
    let mut wrong = Vec::new();
    let text = |name: &str| {
        let value = headers.get(name)?;
        Some(value.to_str().unwrap_or_default())
    };
    if let Some(instance) = text("x-tunnel-client-instance-id") {
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if instance.len() != 32 || !instance.bytes().all(is_hex) {
            wrong.push(format!(
                "X-Tunnel-Client-Instance-Id is not 32 hexadecimal digits: {instance}"
            ));
        }
    }
    if let Some(info) = text("x-tunnel-mcp-server-info") {
        let value: Value = serde_json::from_str(info).unwrap_or_default();
        let version = value["version"].as_u64();
        let channels = value["channels"].as_array().map_or(&[][..], Vec::as_slice);
        let is_named = |one: &Value| is_channel(state::text(one, "name"));
        let good = matches!(version, Some(1 | 2))
            && (1..=32).contains(&channels.len())
            && channels.iter().all(is_named)
            && info.len() <= LONGEST_INFO;
        if !good {
            wrong.push(format!("X-Tunnel-MCP-Server-Info says nothing: {info}"));
        }
    }
    wrong
}

/// Returns what the query of a poll asks for.
pub(crate) fn query(query: &str) -> Result<Wish, Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", message);
    let (mut limit, mut timeout, mut channels) = (0, None, Vec::new());
    for (name, value) in query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        match name {
            "limit" => limit = value.parse().unwrap_or_default(),
            "timeout_ms" => timeout = value.parse().ok().filter(|&ms: &u64| ms > 0),
            "channel" if is_channel(value) => channels.push(value.to_owned()),
            _ => return Err(bad(format!("a poll with {name}={value}"))),
        }
    }
    if !(1..=25).contains(&limit) {
        return Err(bad(format!("the limit is not between 1 and 25: {query}")));
    }
    let timeout = timeout.ok_or_else(|| bad(format!("timeout_ms is not positive: {query}")))?;
    Ok(Wish {
        limit,
        timeout: Duration::from_millis(timeout),
        channels,
    })
}

fn is_channel(name: &str) -> bool {
    let is_ours = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(is_ours)
}

/// Returns the answer in a body, if its shape is right by itself.
pub(crate) fn reply(headers: &HeaderMap, bytes: &[u8]) -> Result<Reply, Refusal> {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let media = text(CONTENT_TYPE.as_str());
    if media.split(';').next().map(str::trim) != Some("application/json") {
        let message = format!("the content type of an answer is not JSON: {media}");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Refusal::new(status, "unsupported_media_type", message));
    }
    let shard_token = text("x-tunnel-shard-token");
    if shard_token.is_empty() {
        return Err(unprocessable("an answer without X-Tunnel-Shard-Token"));
    }
    let body: Value = serde_json::from_slice(bytes)
        .map_err(|error| unprocessable(format!("an answer that is not JSON: {error}")))?;
    let fields = body
        .as_object()
        .ok_or_else(|| unprocessable("an answer that is not an object"))?;
    if let Some(key) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(unprocessable(format!("an answer with the key {key}")));
    }
    let request_id = state::text(&body, "request_id").to_owned();
    if request_id.is_empty() {
        return Err(unprocessable("an answer without request_id"));
    }
    if !matches!(body["resp_code"].as_u64(), Some(100..=599)) {
        return Err(unprocessable(format!(
            "resp_code is no status: {}",
            body["resp_code"]
        )));
    }
    if fields.contains_key("channel") && !is_channel(state::text(&body, "channel")) {
        let message = format!("not the name of a channel: {}", body["channel"]);
        let status = StatusCode::BAD_REQUEST;
        return Err(Refusal::new(status, "invalid_channel_format", message));
    }
    let kind = kind(&body)?;
    message(kind, &body["resp_json"])?;
    lists(&body["resp_headers"])?;
    Ok(Reply {
        request_id,
        shard_token,
        kind,
        body,
    })
}

fn kind(body: &Value) -> Result<ReplyKind, Refusal> {
    match &body["resp_type"] {
        Value::Null => Ok(ReplyKind::Response),
        name => match name.as_str() {
            Some("jsonrpc_response") => Ok(ReplyKind::Response),
            Some("jsonrpc_notify") => Ok(ReplyKind::Notification),
            Some("notify_ack") => Ok(ReplyKind::Acknowledgement),
            Some("session_termination_response") => Ok(ReplyKind::Termination),
            _ => Err(unprocessable(format!("an unknown resp_type: {name}"))),
        },
    }
}

/// Checks the JSON-RPC message of an answer.
fn message(kind: ReplyKind, message: &Value) -> Result<(), Refusal> {
    let wrong = |why: &str| Err(unprocessable(format!("{why}: {message}")));
    if matches!(kind, ReplyKind::Acknowledgement | ReplyKind::Termination) {
        return match message {
            Value::Null => Ok(()),
            _ => wrong("resp_json in an answer that carries no message"),
        };
    }
    let Some(fields) = message.as_object() else {
        return wrong("resp_json is not an object");
    };
    if message["jsonrpc"] != "2.0" {
        return wrong("resp_json is not JSON-RPC 2.0");
    }
    let has = |name: &str| fields.contains_key(name);
    match kind {
        ReplyKind::Response if has("method") || has("result") == has("error") => {
            wrong("resp_json has not one of result and error")
        }
        ReplyKind::Notification if !has("method") || has("id") => {
            wrong("resp_json is not a notification")
        }
        _ => Ok(()),
    }
}

/// Checks that headers are lists of strings.
fn lists(headers: &Value) -> Result<(), Refusal> {
    let is_list = |value: &Value| {
        value
            .as_array()
            .is_some_and(|list| list.iter().all(Value::is_string))
    };
    let good = match headers {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_list),
        _ => false,
    };
    match good {
        true => Ok(()),
        false => Err(unprocessable(format!(
            "resp_headers is not a map of lists of strings: {headers}"
        ))),
    }
}

/// Checks that an answer is one to this command.
pub(crate) fn suits(reply: &Reply, command: &Value) -> Result<(), Refusal> {
    let is_termination = command["command_type"] == "session_termination";
    let request = &command["jsonrpc"];
    let id = request.get("id");
    let expected = match (is_termination, id) {
        (true, _) => &[ReplyKind::Termination][..],
        (false, None) => &[ReplyKind::Acknowledgement],
        (false, Some(_)) => &[ReplyKind::Response, ReplyKind::Notification],
    };
    if !expected.contains(&reply.kind) {
        return Err(unprocessable(format!(
            "a {:?} to a command that takes {expected:?}",
            reply.kind
        )));
    }
    let message = &reply.body["resp_json"];
    let answered = message.get("id");
    // JSON-RPC's answer to a request that is none.
    let is_anonymous = message.get("error").is_some() && answered == Some(&Value::Null);
    if reply.kind == ReplyKind::Response && answered != id && !is_anonymous {
        return Err(unprocessable(format!(
            "an answer to the id {answered:?} for the request {id:?}"
        )));
    }
    let channel = state::channel(command);
    if !reply.body["channel"].is_null() && reply.body["channel"] != channel.as_str() {
        return Err(unprocessable(format!(
            "the channel {} in an answer to one on {channel}",
            reply.body["channel"]
        )));
    }
    Ok(())
}

/// Returns what the service lets pass in an answer although it should not be there.
pub(crate) fn remarks(reply: &Reply) -> Vec<String> {
    let headers = reply.body["resp_headers"].as_object();
    let names = headers.into_iter().flat_map(serde_json::Map::keys);
    names
        .filter(|name| !PASSING.contains(&name.to_lowercase().as_str()))
        .map(|name| format!("resp_headers with {name}, which does not pass a tunnel"))
        .collect()
}

/// Says whether an answer that took `taken` comes after its command's deadline.
pub(crate) fn is_late(command: &Value, taken: Duration) -> bool {
    match state::timeout(command) {
        None => false,
        Some(Duration::ZERO) => true,
        Some(timeout) => taken > timeout + ALLOWANCE,
    }
}
