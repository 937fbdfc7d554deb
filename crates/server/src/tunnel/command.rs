//! What the control plane hands out: one request's worth of MCP each. Read by
//! hand and each for itself, so that a bad command costs nothing but itself.
//! Only reads; runs and answers nothing.

use std::time::Duration;

use axum::http::HeaderValue;
use serde_json::{Map, Value};

/// The channel that this server serves.
pub(super) const MAIN: &str = "main";

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Task {
    /// A message for the MCP service.
    Message(Map<String, Value>),
    /// The end of a session of the older protocol.
    EndSession,
}

/// A command of the control plane.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    /// Names the command in its answers.
    pub(super) request_id: String,
    /// Goes back in a header of its own.
    pub(super) shard_token: String,
    /// The channel, in lower case.
    pub(super) channel: String,
    /// How long it may take from its receipt on; `None` when nobody says.
    pub(super) timeout: Option<Duration>,
    /// Headers for the MCP service, names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// The task.
    pub(super) task: Task,
}

/// Why a command is dropped. Nothing of it is repeated: it may hold secrets.
pub(super) type Dropped = &'static str;

/// Reads a command.
///
/// # Errors
/// What is missing, when it cannot even be answered.
pub(super) fn read(value: Value) -> Result<Command, Dropped> {
    let Value::Object(mut members) = value else {
        return Err("it is no object");
    };
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let request_id = text("request_id").ok_or("request_id is missing")?;
    let shard_token = text("shard_token").ok_or("shard_token is missing")?;
    if HeaderValue::try_from(shard_token.as_str()).is_err() {
        return Err("shard_token fits no header");
    }
    let kind = text("command_type").unwrap_or_else(|| "jsonrpc".to_owned());
    let channel = text("channel").unwrap_or_else(|| MAIN.to_owned());
    let channel = channel.trim().to_ascii_lowercase();
    let timeout = text("response_timeout").and_then(|text| duration(&text));
    let headers = members.remove("headers").map(headers).unwrap_or_default();
    let task = match (kind.as_str(), members.remove("jsonrpc")) {
        ("jsonrpc", Some(Value::Object(message))) => Task::Message(message),
        ("jsonrpc", _) => return Err("jsonrpc is no object"),
        ("session_termination", _) => {
            if !headers.iter().any(|(name, _)| name == "mcp-session-id") {
                return Err("the session to end is not named");
            }
            Task::EndSession
        }
        _ => return Err("its command_type is unknown"),
    };
    Ok(Command {
        request_id,
        shard_token,
        channel,
        timeout,
        headers,
        task,
    })
}

/// Returns the headers that concern MCP itself, each value apart. Who calls,
/// from where and at which host is never the command's to say.
fn headers(value: Value) -> Vec<(String, String)> {
    let Value::Object(members) = value else {
        return Vec::new();
    };
    let mut kept = Vec::new();
    for (name, values) in members {
        let name = name.to_ascii_lowercase();
        if !name.starts_with("mcp-") && name != "last-event-id" {
            continue;
        }
        let values = match values {
            Value::Array(values) => values,
            one => vec![one],
        };
        let texts = values.into_iter().filter_map(|value| match value {
            Value::String(text) => Some((name.clone(), text)),
            _ => None,
        });
        kept.extend(texts);
    }
    kept
}

/// Reads one whole number and one unit; `None` for everything else, which
/// counts as if it was not there.
fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ns" => Some(Duration::from_nanos(number)),
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn command(changes: Value) -> Value {
        let mut whole = json!({
            "request_id": "r", "shard_token": "s", "created_at": "2026-01-01T00:00:00Z",
            "jsonrpc": {"jsonrpc": "2.0", "id": 1, "method": "ping"}, "unknown": [1],
        });
        for (name, value) in changes.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        whole
    }

    #[test]
    fn timeouts_are_one_number_and_one_unit() {
        for (text, expected) in [
            (json!("30s"), Some(Duration::from_secs(30))),
            (json!("4500ms"), Some(Duration::from_millis(4500))),
            (json!("2m"), Some(Duration::from_secs(120))),
            (json!("1h"), Some(Duration::from_secs(3600))),
            (json!("7us"), Some(Duration::from_micros(7))),
            (json!("7ns"), Some(Duration::from_nanos(7))),
            (json!("0s"), Some(Duration::ZERO)),
            (json!("4.5s"), None),
            (json!("-1s"), None),
            (json!(" 1s"), None),
            (json!("1 s"), None),
            (json!("1d"), None),
            (json!("s"), None),
            (json!("1"), None),
            (json!(30), None),
            (json!(null), None),
            (json!("999999999999999999999999h"), None),
            (json!("9999999999999999999h"), None),
        ] {
            let read = read(command(json!({"response_timeout": text}))).expect("a command");
            assert_eq!(read.timeout, expected, "{text}");
        }
    }

    #[test]
    fn bad_commands_cost_only_themselves() {
        for (changes, expected) in [
            (json!({"request_id": null}), "request_id is missing"),
            (json!({"request_id": ""}), "request_id is missing"),
            (json!({"shard_token": 1}), "shard_token is missing"),
            (json!({"jsonrpc": [1]}), "jsonrpc is no object"),
            (
                json!({"command_type": "oauth_discovery"}),
                "its command_type is unknown",
            ),
            (
                json!({"command_type": "session_termination"}),
                "the session to end is not named",
            ),
        ] {
            assert_eq!(read(command(changes)), Err(expected));
        }
        for value in [json!(null), json!([]), json!("x"), json!(1)] {
            assert_eq!(read(value), Err("it is no object"));
        }
        let ended =
            json!({"command_type": "session_termination", "headers": {"Mcp-Session-Id": ["a"]}});
        assert_eq!(read(command(ended)).expect("one").task, Task::EndSession);
    }

    #[test]
    fn a_command_never_says_who_calls() {
        let told = json!({"headers": {
            "Authorization": ["Bearer x"], "cookie": ["a=b"], "Host": ["h"], "Origin": ["o"],
            "Forwarded": ["for=1"], "X-Forwarded-For": ["1"], "X-Forwarded-Host": "h",
            "MCP-Protocol-Version": ["2026-07-28"], "Mcp-Name": ["a", "b"], "Mcp-Method": "m",
            "Mcp-Other": [3, null],
        }, "channel": " MAIN "});
        let read = read(command(told)).expect("a command");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut kept = read.headers;
        kept.sort();
        assert_eq!(
            kept,
            [
                pair("mcp-method", "m"),
                pair("mcp-name", "a"),
                pair("mcp-name", "b"),
                pair("mcp-protocol-version", "2026-07-28"),
            ]
        );
        assert_eq!(read.channel, MAIN);
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_dropped(text in "\\PC{0,40}", number in any::<i64>()) {
            drop(read(command(json!({"headers": {text.clone(): [number, text.clone()]}, "channel": text, "response_timeout": text}))));
            prop_assert!(duration(&text).is_none_or(|read| read.as_nanos() > 0 || text.starts_with('0')));
        }
    }
}
