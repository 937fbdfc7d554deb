//! A server's answer, read by shape alone: what is missing or odd is left
//! out, except for what every answer has.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::cli::run::files::Made;
use crate::cli::run::{Ended, denied};

/// Most files that are looked at.
const FILES: usize = 1000;
/// Most warnings that are passed on.
const WARNINGS: usize = 50;
/// Most denied calls that are named.
const DENIED: usize = 500;
/// Characters of a warning, or of what is told of a denied call.
const WARNING: usize = 1000;

/// Most values of one document. What a server of ours sends has some hundreds;
/// each takes far more memory than it is long.
const VALUES: usize = 200_000;

/// Reads JSON of a server; `None` when it is none, or is made of more values
/// than it should be.
pub(in crate::cli) fn parse(text: &[u8]) -> Option<Value> {
    let (mut values, mut quoted, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    if values > VALUES {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// What became of the run.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Answer {
    pub(in crate::cli) output: String,
    pub(super) error: String,
    pub(in crate::cli) exit_code: i32,
    pub(in crate::cli) status: String,
    seconds: f64,
    pub(super) files: Vec<Named>,
    pub(in crate::cli) warnings: Vec<String>,
    denied: Option<Vec<String>>,
    /// All of it.
    pub(in crate::cli) value: Value,
}

/// A file of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    name: String,
    pub(super) size: u64,
    /// Its content, or why there is none.
    pub(super) content: Result<Vec<u8>, String>,
    /// Where it can be fetched.
    pub(super) url: Option<String>,
}

impl Answer {
    /// Reads an answer; `None` when it is nothing that a server of ours sends.
    pub(super) fn of(value: Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let list = |name: &str| {
            value
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let exit_code = i32::try_from(value.get("exit_code")?.as_i64()?).ok()?;
        let short = |text: &str| text.chars().take(WARNING).collect();
        Some(Self {
            output: text("output")?,
            error: text("error")?,
            exit_code,
            // The first servers of this interface had no such word.
            status: text("status").unwrap_or_default(),
            seconds: value
                .get("execution_time")
                .and_then(Value::as_f64)
                .unwrap_or_default(),
            files: list("files").take(FILES).filter_map(Named::of).collect(),
            warnings: list("warnings")
                .take(WARNINGS)
                .filter_map(Value::as_str)
                .map(short)
                .collect(),
            denied: value
                .get("denied_calls")
                .and_then(Value::as_array)
                .map(|calls| {
                    let line = |call: &Value| {
                        let text = |name: &str| call.get(name).and_then(Value::as_str);
                        let count = call.get("count").and_then(Value::as_u64)?;
                        let (name, errno, reason) =
                            (text("name")?, text("errno")?, text("reason")?);
                        Some(short(&denied(name, count, errno, reason)))
                    };
                    calls.iter().take(DENIED).filter_map(line).collect()
                }),
            value,
        })
    }

    pub(super) fn ended(self, files: Vec<Made>, json: bool) -> Ended {
        let signal = (self.status == "signalled").then(|| self.exit_code - 128);
        Ended {
            interrupted: self.status == "cancelled",
            status: self.status,
            exit_code: self.exit_code,
            signal: signal.filter(|signal| *signal > 0),
            seconds: self.seconds,
            files,
            warnings: self.warnings,
            denied: self.denied,
            answer: json.then(|| format!("{:#}", self.value)),
        }
    }
}

impl Named {
    fn of(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let content = match (text("content"), text("encoding")) {
            (Some(content), Some("base64")) => BASE64
                .decode(content)
                .map_err(|_| "the server sent something else than Base64".to_owned()),
            (Some(content), _) => Ok(content.as_bytes().to_vec()),
            (None, _) => Err("the server sent no content of it".to_owned()),
        };
        let sent = content.as_ref().map_or(0, Vec::len) as u64;
        Some(Self {
            name: text("name")?.to_owned(),
            size: value.get("size").and_then(Value::as_u64).unwrap_or(sent),
            content,
            url: text("url").map(str::to_owned),
        })
    }

    /// The file with what was got of it.
    pub(super) fn made(&self, content: Result<Vec<u8>, String>) -> Made {
        Made {
            name: self.name.clone(),
            size: content
                .as_ref()
                .map_or(self.size, |content| content.len() as u64),
            content,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_document_takes_far_more_memory_than_it_is_long() {
        let check = |text: &str, expected: bool| {
            let shown: String = text.chars().take(40).collect();
            assert_eq!(parse(text.as_bytes()).is_some(), expected, "{shown}");
        };
        let commas = ",".repeat(2 * VALUES);
        check(r#"{"a": [1, {"b": null}]}"#, true);
        check(&format!("{{\"output\": \"{commas}\"}}"), true);
        check(&format!(r#"{{"output": "\"{commas}"}}"#), true);
        check(
            &format!(r#"{{"output": "\\", "x": [{}0]}}"#, "0,".repeat(VALUES)),
            false,
        );
        check(&format!("[{}0]", "0,".repeat(VALUES)), false);
        check(&format!("[{}[]]", "[],".repeat(VALUES)), false);
        check(&"[".repeat(VALUES), false);
        check("{", false);
        check("", false);
    }
}
