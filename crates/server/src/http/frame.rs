//! The outermost layer: what every request and every answer has in common.
//!
//! Gives each request an id, logs it, and puts the security headers on its
//! answer. This is also the only place where a [`Problem`] becomes a problem
//! document, so that refusals of the router itself look like all others.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;

use super::access_log::{Note, Record};
use super::body::{CODINGS, Lent};
use super::metrics::Metrics;
use crate::api::error::whole_seconds;
use crate::api::{Code, Problem};

/// Carries the request id both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a client's own request id.
const REQUEST_ID_CHARS: usize = 64;

/// The id of a request, in its extensions.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// When a request's headers had arrived, in its extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived(pub(super) Instant);

/// What a handler said when it panicked, in its response's extensions.
#[derive(Debug, Clone)]
pub(super) struct Panic(pub(super) String);

/// What the layer knows of the server.
#[derive(Debug, Clone)]
pub(super) struct Around {
    /// How long what a handler leaves of a body is read.
    pub(super) patience: Duration,
    pub(super) metrics: Metrics,
}

/// Wraps every request.
pub(super) async fn frame(
    State(around): State<Around>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    let note = Note::default();
    // Every line that is logged on the way, the engine's too, carries the id.
    // At this level the span is there as long as anything is logged at all.
    let span = tracing::error_span!("request", request_id = %id);
    let metrics = around.metrics;
    let record = Record::begin(&request, note.clone(), metrics.clone(), span.clone());
    let extensions = request.extensions_mut();
    extensions.insert(RequestId(id.clone()));
    extensions.insert(Arrived(Instant::now()));
    extensions.insert(note);
    let (parts, body) = request.into_parts();
    let lent = Lent::new(&parts.headers, body);
    let request = Request::from_parts(parts, lent.body());

    let response = next.run(request).instrument(span.clone()).await;
    if let Some(Panic(message)) = response.extensions().get() {
        span.in_scope(|| tracing::error!(message, "a handler panicked"));
    }
    let (mut response, problem) = render(response, &id);
    if let Some(code) = problem {
        metrics.problem(code);
    }
    // A client that was too slow once is not waited for again.
    if response.status() != StatusCode::REQUEST_TIMEOUT {
        lent.discard(around.patience).await;
    }
    secure(response.headers_mut(), &id);
    record.follow(response)
}

/// The client's own id when it is a sane one, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |text: &&str| {
        (1..=REQUEST_ID_CHARS).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    given
        .filter(sane)
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

impl IntoResponse for Problem {
    /// A bare status with the problem in its extensions; [`frame`] writes the rest.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes down the problem of a response, or of a bare status of the router's,
/// and says which one it is.
fn render(mut response: Response, id: &str) -> (Response, Option<Code>) {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => match bare_problem(&response) {
            Some(problem) => problem,
            None => return (response, None),
        },
    };
    let json =
        serde_json::to_vec(&problem.document(id)).expect("strings and numbers always serialise");
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if problem.code == Code::Unauthorized {
        headers
            .entry(header::WWW_AUTHENTICATE)
            .or_insert(HeaderValue::from_static("Bearer"));
    }
    if problem.code == Code::UnsupportedMediaType {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(CODINGS));
    }
    if problem.code == Code::RequestTimeout {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(wait) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
    }
    *response.body_mut() = Body::from(json);
    (response, Some(problem.code))
}

/// Says whether an answer of this type says itself what is wrong: in OAuth's own
/// JSON, or on a page for people.
fn is_told(kind: &HeaderValue) -> bool {
    kind == "application/json" || kind.as_bytes().starts_with(b"text/html")
}

/// The problem behind an error status that no handler of ours made. JSON is
/// ours: the router and its layers refuse in plain text or with nothing.
fn bare_problem(response: &Response) -> Option<Problem> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !(status.is_client_error() || status.is_server_error()) || kind.is_some_and(is_told) {
        return None;
    }
    let code = Code::of_status(status.as_u16()).unwrap_or(if status.is_server_error() {
        Code::Internal
    } else {
        Code::InvalidRequest
    });
    Some(match code {
        Code::Internal => Problem::internal(),
        _ => Problem::new(code, code.doc()),
    })
}

/// Headers that every answer carries.
fn secure(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept() {
        let long = "x".repeat(65);
        for (sent, kept) in [
            ("abc-123_x.y", true),
            ("", false),
            ("a b", false),
            ("é", false),
            (long.as_str(), false),
        ] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(sent.as_bytes()).expect("a value");
            headers.insert(REQUEST_ID, value);
            assert_eq!(request_id(&headers) == sent, kept, "{sent:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
