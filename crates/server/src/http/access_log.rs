//! One line for each request, whatever becomes of it. Never the token, the
//! code, the query, or an address that matched no route.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, header};

/// Characters of a user agent that are logged.
const USER_AGENT_CHARS: usize = 200;

/// The status logged for a client that did not wait for its answer.
const CLIENT_GONE: u16 = 499;

/// What inner layers tell the log; travels in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Note(Arc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    key: OnceLock<String>,
    run: OnceLock<String>,
}

impl Note {
    /// The name of the key that was let in; the first one counts.
    pub(super) fn key(&self, name: &str) {
        self.0.key.get_or_init(|| name.to_owned());
    }

    /// How the run ended; the first one counts.
    pub(super) fn run(&self, status: &str) {
        self.0.run.get_or_init(|| status.to_owned());
    }
}

/// A request in progress. Dropped without [`Record::finish`], it logs that
/// the client went away.
#[derive(Debug)]
pub(super) struct Record {
    method: Method,
    path: String,
    user_agent: String,
    request_id: String,
    note: Note,
    begun: Instant,
    finished: bool,
}

impl Record {
    /// Begins the record of a request.
    pub(super) fn begin(request: &Request, request_id: &str, note: Note) -> Self {
        let path = request.extensions().get::<MatchedPath>();
        Self {
            method: request.method().clone(),
            path: path.map_or("-", MatchedPath::as_str).to_owned(),
            user_agent: user_agent(request.headers()),
            request_id: request_id.to_owned(),
            note,
            begun: Instant::now(),
            finished: false,
        }
    }

    /// Writes the line of an answered request.
    pub(super) fn finish(mut self, status: u16) {
        self.finished = true;
        self.write(status);
    }

    fn write(&self, status: u16) {
        let duration_ms = self.begun.elapsed().as_secs_f64() * 1e3;
        let notes = &self.note.0;
        tracing::info!(
            target: "access",
            method = %self.method,
            path = %self.path,
            status,
            duration_ms = (duration_ms * 1e3).round() / 1e3,
            key = notes.key.get().map_or("-", String::as_str),
            run = notes.run.get().map_or("-", String::as_str),
            // Quoted in text, so that a client cannot write fields of its own.
            user_agent = self.user_agent.as_str(),
            request_id = %self.request_id,
            "request"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished {
            self.note.run("cancelled");
            self.write(CLIENT_GONE);
        }
    }
}

/// The user agent: short, on one line, and without anything a terminal obeys.
fn user_agent(headers: &HeaderMap) -> String {
    let Some(value) = headers.get(header::USER_AGENT) else {
        return "-".to_owned();
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let short = text.chars().take(USER_AGENT_CHARS);
    short
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_are_tamed() {
        for (sent, expected) in [
            (&b"curl/8.0"[..], "curl/8.0".to_owned()),
            (b"a\tb", "a\\tb".to_owned()),
            (b"\xc2\x9b31m", "\\u{9b}31m".to_owned()),
            (b"bad \xff", "bad \u{fffd}".to_owned()),
            (&[b'x'; 500], "x".repeat(USER_AGENT_CHARS)),
        ] {
            let mut headers = HeaderMap::new();
            let value = axum::http::HeaderValue::from_bytes(sent).expect("a value");
            headers.insert(header::USER_AGENT, value);
            assert_eq!(user_agent(&headers), expected);
        }
        assert_eq!(user_agent(&HeaderMap::new()), "-");
    }
}
