//! The first look at a message, by HTTP, by standard input or on its way to HTTP:
//! whether it is one request or notification of JSON-RPC at all, told in
//! JSON-RPC's own codes. What it asks for is rmcp's to read.

use rmcp::model::ClientJsonRpcMessage;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::api::parse_object;

/// JSON-RPC's code for what is no JSON.
const PARSE_ERROR: i32 = -32700;

/// JSON-RPC's code for JSON that is no message.
pub(crate) const INVALID_REQUEST: i32 = -32600;

/// JSON-RPC's code for parameters of the wrong shape.
const INVALID_PARAMS: i32 = -32602;

/// Why a body is no message that may be handed on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NoMessage {
    code: i32,
    words: String,
    /// The request that is refused, where that much can be read.
    id: Option<Value>,
}

impl NoMessage {
    /// Returns what says that something is no message at all.
    pub(super) fn invalid(words: &str) -> Self {
        Self {
            code: INVALID_REQUEST,
            words: words.to_owned(),
            id: None,
        }
    }

    /// Returns what refuses a request whose id another has that is not answered yet.
    pub(super) fn in_flight(id: &Value) -> Self {
        Self {
            id: Some(id.clone()),
            ..Self::invalid("a request with this id is still in flight; give each its own")
        }
    }

    /// Returns the answer to it.
    pub(crate) fn answer(&self) -> Value {
        let mut answer = error(self.code, &self.words);
        if let Some(id) = &self.id {
            answer["id"] = id.clone();
        }
        answer
    }
}

/// What has to be known of a message before it is handed on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    /// Its method; an answer has none.
    pub(super) method: Option<String>,
    /// Its id; a notification has none.
    pub(super) id: Option<Value>,
}

/// Returns a JSON-RPC error that answers no request in particular.
pub(crate) fn error(code: i32, words: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": words } })
}

/// Checks that a body is one message, and returns what it is.
///
/// # Errors
/// [`NoMessage`] with JSON-RPC's code and the cure.
pub(super) fn head(body: &[u8]) -> Result<Head, NoMessage> {
    let mut members = parse(body)?;
    let method = match members.remove("method") {
        Some(Value::String(method)) => Some(method),
        _ => None,
    };
    let id = members.remove("id");
    // rmcp answers what it cannot read without its id, or not at all.
    if serde_json::from_slice::<ClientJsonRpcMessage>(body).is_err() {
        return Err(NoMessage {
            id,
            ..NoMessage::invalid(
                "a member of the message comes twice, or has a shape that MCP does not know, such as a _meta that is no object",
            )
        });
    }
    Ok(Head { method, id })
}

/// Checks that a body is one message, and returns its members: a text as
/// `method`, or else a result or an error.
///
/// # Errors
/// [`NoMessage`] with JSON-RPC's code and the cure.
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>, NoMessage> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(NoMessage::invalid(
            "batches are not taken; send one message in each request",
        ));
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(NoMessage {
            code: PARSE_ERROR,
            ..NoMessage::invalid("the message begins with a byte order mark; send UTF-8 without")
        });
    }
    let object = parse_object(body).map_err(|problem| NoMessage {
        code: match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => INVALID_REQUEST,
            Err(_) => PARSE_ERROR,
        },
        words: problem.detail,
        id: None,
    })?;
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(NoMessage::invalid("jsonrpc must be \"2.0\""));
    }
    let good_id = match object.get("id") {
        None | Some(Value::String(_)) => true,
        Some(Value::Number(number)) => number.is_i64(),
        Some(_) => false,
    };
    if !good_id {
        return Err(NoMessage::invalid(
            "id must be a string or a whole number below 2^63",
        ));
    }
    match object.get("method") {
        Some(Value::String(_)) => match object.get("params") {
            None | Some(Value::Object(_)) => Ok(object),
            Some(_) => Err(NoMessage {
                code: INVALID_PARAMS,
                words: "params must be an object".to_owned(),
                id: object.get("id").cloned(),
            }),
        },
        Some(_) => Err(NoMessage::invalid("method must be a string")),
        None if object.contains_key("result") || object.contains_key("error") => Ok(object),
        None => Err(NoMessage::invalid("method is missing")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bodies_are_messages_or_are_told_why_not() {
        for (body, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
                Ok(Some("ping")),
            ),
            (r#"{"jsonrpc":"2.0","id":"a","method":"x"}"#, Ok(Some("x"))),
            (r#"{"jsonrpc":"2.0","method":"n"}"#, Ok(Some("n"))),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Ok(None)),
            ("", Err(PARSE_ERROR)),
            ("{", Err(PARSE_ERROR)),
            ("\u{1}", Err(PARSE_ERROR)),
            ("null", Err(INVALID_REQUEST)),
            ("7", Err(INVALID_REQUEST)),
            ("[]", Err(INVALID_REQUEST)),
            (" [{}]", Err(INVALID_REQUEST)),
            ("{}", Err(INVALID_REQUEST)),
            (
                r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#,
                Err(INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
                Err(INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#,
                Err(INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
                Err(INVALID_REQUEST),
            ),
            (r#"{"jsonrpc":"2.0","id":1}"#, Err(INVALID_REQUEST)),
            (
                r#"{"jsonrpc":"2.0","id":9223372036854775807,"method":"x"}"#,
                Ok(Some("x")),
            ),
            (
                r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"x"}"#,
                Err(INVALID_REQUEST),
            ),
            (
                "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}",
                Err(PARSE_ERROR),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":7}}"#,
                Err(INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":[]}}"#,
                Err(INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
                Err(INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":42,"id":42,"method":"ping"}"#,
                Err(INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}"#,
                Err(INVALID_PARAMS),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":null}"#,
                Err(INVALID_PARAMS),
            ),
        ] {
            let read = head(body.as_bytes());
            let read = read
                .as_ref()
                .map(|head| head.method.as_deref())
                .map_err(|why| why.code);
            assert_eq!(read, expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Err(why) = head(&body) {
                prop_assert!(why.answer()["error"]["message"].is_string());
            }
        }
    }
}
