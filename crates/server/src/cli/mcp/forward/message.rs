//! What the way to the server needs of a message: who awaits an answer, and
//! the headers that go with it. Pure; the message itself passes unchanged.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::mcp::message::{self, NoMessage};

/// The header that says which version of the protocol a message is of.
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The member of `_meta` that makes a message one of the era without sessions.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The parameter that `Mcp-Name` repeats, by method.
const NAMED: [(&str, &str); 8] = [
    ("tools/call", "name"),
    ("prompts/get", "name"),
    ("resources/read", "uri"),
    ("resources/subscribe", "uri"),
    ("resources/unsubscribe", "uri"),
    ("tasks/get", "taskId"),
    ("tasks/update", "taskId"),
    ("tasks/cancel", "taskId"),
];

/// A message of the client's.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// As it is posted.
    pub(super) body: Bytes,
    /// What its answer will have; a notification has none.
    pub(super) id: Option<Value>,
    /// None in an answer to the server.
    pub(super) method: Option<String>,
    /// The version that it names, in the era without sessions.
    pub(super) version: Option<String>,
    /// What `Mcp-Name` says of it.
    name: Option<String>,
    /// The id of the request that it cancels.
    pub(super) cancels: Option<Value>,
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// [`NoMessage`] with JSON-RPC's code and the cure.
    pub(super) fn read(line: Vec<u8>) -> Result<Self, NoMessage> {
        let mut members = message::parse(&line)?;
        let method = match members.remove("method") {
            Some(Value::String(method)) => Some(method),
            _ => None,
        };
        let params = match members.remove("params") {
            Some(Value::Object(params)) => params,
            _ => Map::new(),
        };
        let called = method.as_deref().unwrap_or_default();
        let text = |name: &str| params.get(name).and_then(Value::as_str).map(str::to_owned);
        let named = NAMED.iter().find(|(method, _)| *method == called);
        // `initialize` is what begins a session, whatever else it says.
        let meta = params.get("_meta").filter(|_| called != "initialize");
        let version = meta.and_then(|meta| meta.get(META_VERSION));
        let cancelled = called == "notifications/cancelled";
        Ok(Self {
            id: members.remove("id"),
            version: version.and_then(Value::as_str).map(str::to_owned),
            name: named.and_then(|(_, parameter)| text(parameter)),
            cancels: params.get("requestId").filter(|_| cancelled).cloned(),
            method,
            body: Bytes::from(line),
        })
    }

    /// Returns the headers of a message that names its version; none for others.
    ///
    /// # Errors
    /// When version or method fits no header, in words.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let Some(version) = &self.version else {
            return Ok(headers);
        };
        let fit = |what: &str, text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| format!("its {what} holds signs that no HTTP header may"))
        };
        headers.insert(VERSION, fit("protocol version", version)?);
        if let Some(method) = &self.method {
            headers.insert(METHOD, fit("method", method)?);
        }
        if let Some(name) = &self.name {
            headers.insert(NAME, fit("name", &encoded(name))?);
        }
        Ok(headers)
    }
}

/// Returns a name as it may stand in a header: wrapped in base64 where
/// anything in it could be changed on the way.
fn encoded(name: &str) -> String {
    let edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = name.as_bytes();
    let odd = bytes.iter().any(|byte| !matches!(byte, 0x20..=0x7e));
    let looks_wrapped = name.starts_with("=?base64?") && name.ends_with("?=");
    if odd || looks_wrapped || edge(bytes.first()) || edge(bytes.last()) {
        format!("=?base64?{}?=", BASE64.encode(name))
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_repeat_what_messages_say() {
        let check = |method: &str, mut params: Value, expected: Result<&[(&str, &str)], &str>| {
            params["_meta"] = json!({META_VERSION: "2026-07-28"});
            let line = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
            let message = Message::read(line.to_string().into_bytes()).unwrap();
            let found = message.headers();
            let found = found.as_ref().map(|headers| {
                let mut all: Vec<_> = headers
                    .iter()
                    .filter(|(name, _)| **name != VERSION)
                    .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                    .collect();
                all.sort_unstable();
                all
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{line}"),
                (Err(told), Err(words)) => assert!(told.contains(words), "{told}"),
                (found, _) => panic!("{line}: {found:?}"),
            }
        };
        let call = ("mcp-method", "tools/call");
        check(
            "tools/list",
            json!({"name": "x"}),
            Ok(&[("mcp-method", "tools/list")]),
        );
        check(
            "tools/call",
            json!({"name": "a b"}),
            Ok(&[call, ("mcp-name", "a b")]),
        );
        check("tools/call", json!({"name": 7}), Ok(&[call]));
        check(
            "tools/call",
            json!({"name": "é"}),
            Ok(&[call, ("mcp-name", "=?base64?w6k=?=")]),
        );
        check(
            "tools/call",
            json!({"name": " a"}),
            Ok(&[call, ("mcp-name", "=?base64?IGE=?=")]),
        );
        check(
            "tools/call",
            json!({"name": "=?base64?x?="}),
            Ok(&[call, ("mcp-name", "=?base64?PT9iYXNlNjQ/eD89?=")]),
        );
        check(
            "tools/call",
            json!({"name": "a\r\nb"}),
            Ok(&[call, ("mcp-name", "=?base64?YQ0KYg==?=")]),
        );
        check(
            "resources/read",
            json!({"uri": "codex://files/1/a"}),
            Ok(&[
                ("mcp-method", "resources/read"),
                ("mcp-name", "codex://files/1/a"),
            ]),
        );
        check("a\nb", json!({}), Err("its method"));
    }

    #[test]
    fn eras_are_told_apart() {
        let check = |line: &str, version: Option<&str>, cancels: Option<i64>| {
            let message = Message::read(line.as_bytes().to_vec()).unwrap();
            assert_eq!(message.version.as_deref(), version, "{line}");
            assert_eq!(
                message.cancels.and_then(|id| id.as_i64()),
                cancels,
                "{line}"
            );
        };
        let named = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"v"}"#;
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, None, None);
        check(
            &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{{named}}}}}"#),
            Some("v"),
            None,
        );
        check(
            &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{{named}}}}}"#),
            None,
            None,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}"#,
            None,
            Some(4),
        );
        check(
            r#"{"jsonrpc":"2.0","method":"other","params":{"requestId":4}}"#,
            None,
            None,
        );
        check(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, None, None);
    }
}
