//! What MCP clients write, from any bytes.

use serde_json::Value;

use super::{files, message};
use crate::cli::mcp::headers_of;

/// A message, as it comes by HTTP or on a line, and on to its headers.
pub(crate) fn messages(bytes: &[u8]) {
    match message::head(bytes) {
        Ok(head) => {
            let whole: Value = serde_json::from_slice(bytes).expect("it is JSON");
            assert_eq!(head.id.as_ref(), whole.get("id"));
            assert_eq!(
                head.method.as_deref(),
                whole.get("method").and_then(Value::as_str)
            );
            assert!(whole.get("params").is_none_or(Value::is_object) || head.method.is_none());
            headers_of(bytes);
        }
        Err(why) => {
            let answer = why.answer();
            assert!(answer["error"]["code"].is_i64(), "{answer}");
            assert!(
                answer["error"]["message"]
                    .as_str()
                    .is_some_and(|words| !words.is_empty())
            );
        }
    }
}

/// The address of a file.
pub(crate) fn resources(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some((id, name)) = files::named(&text) {
        // What is read is what was written, in the one form that there is.
        assert_eq!(
            files::named(&files::uri(id, &name)),
            Some((id, name.clone()))
        );
    }
}
