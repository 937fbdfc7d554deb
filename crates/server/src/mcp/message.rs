//! The first look at a message that came over HTTP, or is on its way to HTTP:
//! whether it is one request or notification of JSON-RPC at all, told in
//! JSON-RPC's own codes. What it asks for is rmcp's to read.

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::api::parse_object;

/// JSON-RPC's code for what is no JSON.
const PARSE_ERROR: i32 = -32700;

/// JSON-RPC's code for JSON that is no message.
pub(crate) const INVALID_REQUEST: i32 = -32600;

/// Why a body is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoMessage {
    code: i32,
    words: String,
}

impl NoMessage {
    fn invalid(words: &str) -> Self {
        Self {
            code: INVALID_REQUEST,
            words: words.to_owned(),
        }
    }

    /// Returns the answer to it.
    pub(crate) fn answer(&self) -> Value {
        error(self.code, &self.words)
    }
}

/// Returns a JSON-RPC error that answers no request in particular.
pub(crate) fn error(code: i32, words: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": words } })
}

/// Checks that a body is one message, and returns its method, if it has one.
///
/// # Errors
/// [`NoMessage`] with JSON-RPC's code and the cure.
pub(super) fn method(body: &[u8]) -> Result<Option<String>, NoMessage> {
    match parse(body)?.remove("method") {
        Some(Value::String(method)) => Ok(Some(method)),
        _ => Ok(None),
    }
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
    let object = parse_object(body).map_err(|problem| NoMessage {
        code: match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => INVALID_REQUEST,
            Err(_) => PARSE_ERROR,
        },
        words: problem.detail,
    })?;
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(NoMessage::invalid("jsonrpc must be \"2.0\""));
    }
    let good_id = match object.get("id") {
        None | Some(Value::String(_)) => true,
        Some(Value::Number(number)) => number.is_i64() || number.is_u64(),
        Some(_) => false,
    };
    if !good_id {
        return Err(NoMessage::invalid("id must be a string or a whole number"));
    }
    match object.get("method") {
        Some(Value::String(_)) => Ok(object),
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
        ] {
            let read = method(body.as_bytes());
            let read = read.as_ref().map(Option::as_deref).map_err(|why| why.code);
            assert_eq!(read, expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Err(why) = method(&body) {
                prop_assert!(why.answer()["error"]["message"].is_string());
            }
        }
    }
}
