//! One line for each request, whatever becomes of it. Never the token, the
//! code, the query, or an address that matched no route.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Span;

use super::metrics::Metrics;

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

/// Marks an answer, in its extensions, that lasts as long as its body: the
/// line is written at the body's end.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogAtEnd;

/// A request in progress. Dropped without [`Record::finish`], it logs that
/// the client went away.
#[derive(Debug)]
pub(super) struct Record {
    method: Method,
    /// The route's template, where the address matched one.
    path: Option<String>,
    user_agent: String,
    note: Note,
    metrics: Metrics,
    /// Carries the request id.
    span: Span,
    begun: Instant,
    finished: bool,
}

impl Record {
    /// Begins the record of a request.
    pub(super) fn begin(request: &Request, note: Note, metrics: Metrics, span: Span) -> Self {
        let path = request.extensions().get::<MatchedPath>();
        Self {
            method: request.method().clone(),
            path: path.map(|path| path.as_str().to_owned()),
            user_agent: user_agent(request.headers()),
            note,
            metrics,
            span,
            begun: Instant::now(),
            finished: false,
        }
    }

    /// Writes the line of an answered request.
    pub(super) fn finish(mut self, status: u16) {
        self.finished = true;
        self.write(status);
    }

    /// Writes the line of an answer: now, or when its body has been sent.
    pub(super) fn follow(self, response: Response) -> Response {
        let status = response.status().as_u16();
        if response.extensions().get::<LogAtEnd>().is_none() {
            self.finish(status);
            return response;
        }
        let record = Some(self);
        response.map(|body| {
            Body::new(Followed {
                body,
                record,
                status,
            })
        })
    }

    fn write(&self, status: u16) {
        let took = self.begun.elapsed().as_secs_f64();
        let path = self.path.as_deref();
        self.metrics.request(&self.method, path, status, took);
        let duration_ms = took * 1e3;
        let _entered = self.span.enter();
        let notes = &self.note.0;
        tracing::info!(
            target: "access",
            method = %self.method,
            path = %path.unwrap_or("-"),
            status,
            duration_ms = (duration_ms * 1e3).round() / 1e3,
            key = notes.key.get().map_or("-", String::as_str),
            run = notes.run.get().map_or("-", String::as_str),
            // Quoted in text, so that a client cannot write fields of its own.
            user_agent = self.user_agent.as_str(),
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

/// A body that ends its request's record.
#[derive(Debug)]
struct Followed {
    body: Body,
    record: Option<Record>,
    status: u16,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let whole = match &frame {
            // Nobody may ask again after the last part.
            Some(Ok(_)) => self.body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if whole && let Some(record) = self.record.take() {
            record.finish(self.status);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
