//! Answers of a plane: JSON, errors in the service's shape, and faults. It must
//! never decide which of them a request gets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::ReaderStream;

/// A failure in place of an answer. The request has no other effect: a poll gets
/// no command, and a posted answer is not taken.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An answer with a status, such as 503.
    Status {
        /// The status; 200 where it is not between 100 and 999.
        code: u16,
        /// Names and values of headers, such as `Retry-After`.
        headers: Vec<(String, String)>,
        /// The body, whatever it is.
        body: String,
    },
    /// A connection that is dropped without an answer.
    Reset,
    /// A connection that is dropped in the middle of an answer with status 200.
    HalfBody,
    /// A connection that stays open without an answer, until the client leaves it.
    Silence,
    /// Status 307 to another address.
    Redirect(String),
}

impl Fault {
    /// Returns a status with an error body of the service's shape and no header
    /// but its content type.
    pub fn status(code: u16, error: &str) -> Fault {
        Fault::Status {
            code,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: error_body("a fault of the plane", error).to_string(),
        }
    }

    /// Returns the status that a client sees; none where it sees no answer.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Fault::Status { code, .. } => Some(*code),
            Fault::Reset | Fault::Silence => None,
            Fault::HalfBody => Some(200),
            Fault::Redirect(_) => Some(307),
        }
    }

    /// Returns the answer that carries the fault out.
    pub(crate) fn answer(self) -> Response {
        match self {
            Fault::Status {
                code,
                headers,
                body,
            } => {
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
                for (name, value) in headers {
                    set(&mut response, &name, &value);
                }
                response
            }
            Fault::Reset => marked(Mark::Cut),
            Fault::Silence => marked(Mark::Silent),
            Fault::HalfBody => {
                let body = Body::from_stream(ReaderStream::new(Half::default()));
                let mut response = Response::new(body);
                let whole = HeaderValue::from(2 * HALF.len());
                response.headers_mut().insert(CONTENT_LENGTH, whole);
                set(&mut response, CONTENT_TYPE.as_str(), "application/json");
                response
            }
            Fault::Redirect(to) => {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
                set(&mut response, LOCATION.as_str(), &to);
                response
            }
        }
    }
}

/// What a client gets of an answer that breaks off.
const HALF: &[u8] = b"{\"commands\":[";

/// A body that ends after its first half.
#[derive(Debug, Default)]
struct Half {
    reads: usize,
}

impl AsyncRead for Half {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        match self.reads {
            1 => buffer.put_slice(HALF),
            2 => {
                // hyper sends what it has when the rest is not there yet; at an end
                // that came at once it would drop it.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

/// What becomes of a connection in place of the answer that is marked so.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    /// It is dropped.
    Cut,
    /// It stays as it is.
    Silent,
}

fn marked(mark: Mark) -> Response {
    let mut response = Response::default();
    response.extensions_mut().insert(mark);
    response
}

/// A request that is turned away.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The service's error code.
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            status,
            code,
            message: message.into(),
        }
    }

    /// Returns the answer that tells it.
    pub(crate) fn answer(&self) -> Response {
        json_answer(self.status, &error_body(&self.message, self.code))
    }
}

/// Returns a JSON answer.
pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE.as_str(), "application/json");
    response
}

/// Returns an answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// Adds a header, if HTTP can carry it.
pub(crate) fn set(response: &mut Response, name: &str, value: &str) {
    let name = HeaderName::try_from(name);
    if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
        response.headers_mut().append(name, value);
    }
}

fn error_body(message: &str, code: &str) -> Value {
    json!({
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": null,
            "code": code,
        }
    })
}
