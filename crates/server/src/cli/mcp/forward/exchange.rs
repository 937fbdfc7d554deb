//! The answer to one request: a stream of events, one JSON document, or a
//! refusal. The server is believed no more than it must be: what it sends is
//! bounded, and what is no message of the protocol is not printed.

use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::time::timeout;

use super::relay::Relay;
use crate::cli::peer::events::Reader;
use crate::cli::peer::refusal::{Refusal, quoted};
use crate::cli::peer::{ANSWER, REFUSAL, SILENCE, Server, innermost, media_type};

/// How long a stream may take to end behind the answer, for its connection to
/// serve again.
const END: Duration = Duration::from_secs(1);

/// The answer to a request.
pub(super) struct Answer {
    /// One line.
    pub(super) text: String,
    /// The stream that it came by, where that may not be at its end.
    pub(super) rest: Option<Response>,
}

/// Waits for the end of a stream that has nothing more to say.
pub(super) async fn drain(rest: Option<Response>) {
    if let Some(mut response) = rest {
        // Whatever comes, the connection is given back or closed.
        drop(timeout(END, response.chunk()).await);
    }
}

/// Says that a server is silent.
pub(super) fn silent(server: &Server) -> String {
    let seconds = SILENCE.as_secs();
    let url = &server.url;
    format!("{url} said nothing for {seconds} s; it may hang, so ask it again or start it again")
}

impl Relay {
    /// Returns the answer to the request with that id; what comes before it
    /// is printed if `told`.
    ///
    /// # Errors
    /// When there is none, with cause and cure in words.
    pub(super) async fn answer(
        &self,
        response: Response,
        id: &Value,
        told: bool,
    ) -> Result<Answer, String> {
        let status = response.status().as_u16();
        match (status, media_type(&response).as_str()) {
            (200, "text/event-stream") => self.stream(response, id, told).await,
            (200, "application/json") => {
                let body = self.read(response, ANSWER).await?;
                match sort(&String::from_utf8_lossy(&body), id) {
                    Some(Sorted::Answer(text)) => Ok(Answer { text, rest: None }),
                    _ => Err(self.foreign()),
                }
            }
            (201..=299, _) => Err(format!(
                "{} took it, but gave no answer ({status}); check that the address is a codex-server's",
                self.server.url
            )),
            _ => {
                let (answer, words) = self.refusal(response).await;
                let text = answer.and_then(|answer| with_id(answer, id)).ok_or(words)?;
                Ok(Answer { text, rest: None })
            }
        }
    }

    async fn stream(
        &self,
        mut response: Response,
        id: &Value,
        told: bool,
    ) -> Result<Answer, String> {
        let mut reader = Reader::default();
        loop {
            let bytes = match timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return Err(self.cut("it closed the stream")),
                Ok(Err(error)) => return Err(self.cut(&innermost(&error))),
                Err(_) => return Err(silent(&self.server)),
            };
            let events = reader.push(&bytes);
            for event in events.map_err(|error| format!("{}: {error}", self.server.url))? {
                // An event without data only keeps the stream open.
                if event.data.trim().is_empty() {
                    continue;
                }
                match sort(&event.data, id) {
                    Some(Sorted::Answer(text)) => {
                        let rest = Some(response);
                        return Ok(Answer { text, rest });
                    }
                    Some(Sorted::Other(text)) if told => self.say(text).await,
                    Some(Sorted::Other(_)) => {}
                    None => return Err(self.foreign()),
                }
            }
        }
    }

    /// Reads a refusal: the JSON-RPC error in it, if it is one, and what it
    /// means in words.
    pub(super) async fn refusal(&self, response: Response) -> (Option<Value>, String) {
        let mut refusal = Refusal::of(&response);
        let is_json = media_type(&response) == "application/json";
        // Without its words the refusal still has its status.
        let body = self.read(response, REFUSAL).await.unwrap_or_default();
        let answer = serde_json::from_slice(&body).ok().filter(|_| is_json);
        refusal.body = String::from_utf8_lossy(&body).into_owned();
        (answer, refusal.told(&self.server))
    }

    async fn read(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            match timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(bytes))) if body.len() + bytes.len() <= limit => {
                    body.extend_from_slice(&bytes);
                }
                Ok(Ok(Some(_))) => {
                    return Err(format!(
                        "{} sends more than {limit} bytes; ask for less at once",
                        self.server.url
                    ));
                }
                Ok(Ok(None)) => return Ok(body),
                Ok(Err(error)) => return Err(self.cut(&innermost(&error))),
                Err(_) => return Err(silent(&self.server)),
            }
        }
    }

    fn cut(&self, why: &str) -> String {
        format!(
            "the connection to {} was cut before the answer ({}), so the call may have run. A server that stopped does that, or a proxy that limits streams; call again if twice does no harm",
            self.server.url,
            quoted(why)
        )
    }

    fn foreign(&self) -> String {
        format!(
            "{} answered, but not as MCP says; check the address",
            self.server.url
        )
    }
}

/// What an event is to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sorted {
    /// Its answer.
    Answer(String),
    /// A notification or request that comes before.
    Other(String),
}

/// The members that tell messages apart.
#[derive(Deserialize)]
struct Head {
    jsonrpc: String,
    id: Option<Value>,
    method: Option<String>,
    result: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// Sorts a message by the request that it came for, as one line; `None` for
/// what is no message, or answers another request.
fn sort(text: &str, id: &Value) -> Option<Sorted> {
    let head: Head = serde_json::from_str(text).ok()?;
    // An array of the same values would be read as well.
    if head.jsonrpc != "2.0" || !text.trim_start().starts_with('{') {
        return None;
    }
    if head.method.is_some() {
        return Some(Sorted::Other(one_line(text)));
    }
    match (head.id, head.result, head.error) {
        (Some(answered), Some(_), None) | (Some(answered), None, Some(_)) if answered == *id => {
            Some(Sorted::Answer(one_line(text)))
        }
        // A server that could not read the id.
        (None, None, Some(_)) => with_id(serde_json::from_str(text).ok()?, id).map(Sorted::Answer),
        _ => None,
    }
}

/// Returns an error of JSON-RPC as the answer to a request.
fn with_id(mut answer: Value, id: &Value) -> Option<String> {
    let error = answer.get("error")?;
    if !error.get("code")?.is_i64() || !error.get("message")?.is_string() {
        return None;
    }
    answer.as_object_mut()?.insert("id".to_owned(), id.clone());
    Some(answer.to_string())
}

/// Returns JSON on one line: in JSON, line ends are only ever blanks.
fn one_line(text: &str) -> String {
    text.trim().replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_sorted_by_their_request() {
        let answer = |text: &str| Some(Sorted::Answer(text.to_owned()));
        let other = |text: &str| Some(Sorted::Other(text.to_owned()));
        let check = |text: &str, expected: Option<Sorted>| {
            assert_eq!(sort(text, &json!(7)), expected, "{text}");
        };
        let whole = r#"{"jsonrpc":"2.0","id":7,"result":{"b":1.10,"a":2}}"#;
        check(whole, answer(whole));
        let error = r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"m"}}"#;
        check(error, answer(error));
        check(
            &error.replace("7", "null"),
            answer(r#"{"error":{"code":1,"message":"m"},"id":7,"jsonrpc":"2.0"}"#),
        );
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
        check(progress, other(progress));
        check(
            "{\"jsonrpc\":\"2.0\",\r\n\"id\":7,\n\"result\":{}}\n",
            answer(r#"{"jsonrpc":"2.0",  "id":7, "result":{}}"#),
        );
        check(r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, None);
        check(r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, None);
        check(r#"{"jsonrpc":"2.0","id":7}"#, None);
        check(r#"{"jsonrpc":"2.0","id":null,"error":"no"}"#, None);
        check(r#"{"id":7,"result":{}}"#, None);
        check("[]", None);
        check(r#"["2.0",7,null,{},null]"#, None);
        check("<html>", None);
    }
}
