//! What a caller is told when a request is refused or we fail.
//!
//! One table, [`Code`], is the source of every status, title and sentence of
//! documentation: handlers, the OpenAPI document and the manual all read it.
//! A problem never carries more about our own failures than the request id;
//! the chain of causes goes to the log.

use std::time::Duration;

pub use engine::quote;
use engine::{Invalid, SessionEnd};
use serde::Serialize;
use utoipa::ToSchema;

/// Where each kind of problem is explained; the code is appended.
const DOCS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/errors.md#");

/// How long a caller waits when nothing better is known.
const RETRY: Duration = Duration::from_secs(5);

/// How long a caller waits for a language that somebody has to install.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(60);

/// Every kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is malformed, or a field is wrong.
    InvalidRequest,
    /// No token, or not one of ours.
    Unauthorized,
    /// The token, the host or the origin may not do this.
    Forbidden,
    /// No such address.
    NotFound,
    /// The address exists, the method does not.
    MethodNotAllowed,
    /// The client takes none of the forms that an answer has.
    NotAcceptable,
    /// The client took too long to send its request.
    RequestTimeout,
    /// What is there stands in the way.
    Conflict,
    /// It was there, and is not any more.
    Gone,
    /// The request body is over the limit.
    BodyTooLarge,
    /// The request body is not JSON by its content type.
    UnsupportedMediaType,
    /// The part of a file that was asked for is not there.
    RangeNotSatisfiable,
    /// Too many requests.
    RateLimited,
    /// We failed.
    Internal,
    /// We cannot now; later will do.
    Unavailable,
    /// The session's workspace has no room.
    WorkspaceFull,
}

/// A row of the table of problems.
#[derive(Debug, Clone, Copy)]
struct Row {
    status: u16,
    slug: &'static str,
    title: &'static str,
    doc: &'static str,
}

/// The table, in the order of the codes.
const ROWS: [Row; Code::ALL.len()] = [
    Row {
        status: 400,
        slug: "invalid-request",
        title: "Invalid request",
        doc: "The request is malformed or a field is wrong. `detail` names the field, what was sent and what to send instead.",
    },
    Row {
        status: 401,
        slug: "unauthorized",
        title: "Unauthorized",
        doc: "The bearer token is missing, unknown or revoked.",
    },
    Row {
        status: 403,
        slug: "forbidden",
        title: "Forbidden",
        doc: "The token lacks a scope, the Host, Origin or Sec-Fetch-Site header is not one that this server accepts, or the link to a file is expired or not signed by this server.",
    },
    Row {
        status: 404,
        slug: "not-found",
        title: "Not found",
        doc: "Nothing lives at this address.",
    },
    Row {
        status: 405,
        slug: "method-not-allowed",
        title: "Method not allowed",
        doc: "The address exists, but not for this method; the Allow header lists the ones that work.",
    },
    Row {
        status: 406,
        slug: "not-acceptable",
        title: "Not acceptable",
        doc: "The Accept header takes none of the forms in which this address answers.",
    },
    Row {
        status: 408,
        slug: "request-timeout",
        title: "Request timeout",
        doc: "The client took too long to send its request body.",
    },
    Row {
        status: 409,
        slug: "conflict",
        title: "Conflict",
        doc: "What is there already stands in the way: as many sessions as a token may have, or a folder where a file is to be. `detail` says what.",
    },
    Row {
        status: 410,
        slug: "gone",
        title: "Gone",
        doc: "The file or session was here and is no longer kept; `detail` says why. Run the program again, or make another session.",
    },
    Row {
        status: 413,
        slug: "body-too-large",
        title: "Body too large",
        doc: "The request body is larger than this server takes.",
    },
    Row {
        status: 415,
        slug: "unsupported-media-type",
        title: "Unsupported media type",
        doc: "The request body must be JSON and say so in its Content-Type header.",
    },
    Row {
        status: 416,
        slug: "range-not-satisfiable",
        title: "Range not satisfiable",
        doc: "The Range header asks for a part behind the end of the file.",
    },
    Row {
        status: 429,
        slug: "rate-limited",
        title: "Too many requests",
        doc: "The rate limit is used up; the Retry-After header says when the next request is possible.",
    },
    Row {
        status: 500,
        slug: "internal",
        title: "Internal error",
        doc: "The server failed. The request id finds the cause in its log.",
    },
    Row {
        status: 503,
        slug: "unavailable",
        title: "Temporarily unavailable",
        doc: "The server is busy, shutting down, or lacks what the request needs; the Retry-After header says when to try again.",
    },
    Row {
        status: 507,
        slug: "workspace-full",
        title: "Workspace full",
        doc: "The files do not fit into the session's workspace. Delete some of those that are there.",
    },
];

impl Code {
    /// Every code, in order of status.
    pub const ALL: [Self; 16] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::Conflict,
        Self::Gone,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::RangeNotSatisfiable,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
        Self::WorkspaceFull,
    ];

    fn row(self) -> Row {
        ROWS[self as usize]
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// The word that ends the `type` address and names the heading in the manual.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.row().slug
    }

    /// The same few words for every problem of this kind.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// A sentence or two for documents.
    #[must_use]
    pub fn doc(self) -> &'static str {
        self.row().doc
    }

    /// The `type` member: an address that explains the problem.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("{DOCS}{}", self.slug())
    }

    /// The code with this HTTP status, if the table has one.
    #[must_use]
    pub fn of_status(status: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.status() == status)
    }
}

/// A refused or failed request, before it is written down for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub code: Code,
    /// This very case, in whole sentences, safe to show to the caller.
    pub detail: String,
    /// The request's field that is wrong, where there is one.
    pub field: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem of a kind.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
            retry_after: None,
        }
    }

    /// A field is wrong: `problem` continues "`field` …", `cure` is a sentence.
    /// All three are ours; what they hold of a caller's went through [`quote`].
    #[must_use]
    pub fn field(field: impl Into<String>, problem: &str, cure: &str) -> Self {
        let field = field.into();
        Self {
            code: Code::InvalidRequest,
            detail: format!("`{field}` {problem}. {cure}"),
            field: Some(field),
            retry_after: None,
        }
    }

    /// The exact words that a caller without a good token gets.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(
            Code::Unauthorized,
            "Unauthorized. Include 'Authorization: Bearer YOUR_TOKEN' header",
        )
    }

    /// We failed; the caller learns nothing but the request id.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            Code::Internal,
            "The server failed to answer this request. Try again; if it happens again, give the operator the request_id, which finds the cause in the log.",
        )
    }

    /// Says when to try again, in whole seconds of at least one.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The document sent to the client.
    #[must_use]
    pub fn document(&self, request_id: &str) -> ProblemDocument {
        ProblemDocument {
            r#type: self.code.type_uri(),
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: self.detail.clone(),
            field: self.field.clone(),
            request_id: request_id.to_owned(),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let field = invalid.field;
        Self {
            code: Code::InvalidRequest,
            detail: format!("`{field}`: {}. {}", invalid.problem, invalid.cure),
            field: Some(field),
            retry_after: None,
        }
    }
}

impl From<&engine::Error> for Problem {
    fn from(error: &engine::Error) -> Self {
        match error {
            engine::Error::Overloaded {
                running,
                waiting,
                own_waiting,
                queue_full: _,
                retry_after,
            } => Self::new(
                Code::Unavailable,
                format!(
                    "The server is busy: {running} running, {waiting} waiting{}. Try again in {} s.",
                    own(*own_waiting, *waiting),
                    whole_seconds(*retry_after)
                ),
            )
            .retry_after(*retry_after),
            engine::Error::Draining => Self::new(
                Code::Unavailable,
                "The server is shutting down. Try again shortly.",
            )
            .retry_after(RETRY),
            engine::Error::Unavailable { language, cure } => Self::new(
                Code::Unavailable,
                format!("{language} is not available on this server. {cure}"),
            )
            .retry_after(RETRY_UNAVAILABLE),
            engine::Error::Invalid(invalid) => Self::from(invalid.clone()),
            engine::Error::Sandbox(_) | engine::Error::Io { .. } => Self::internal(),
            of_session => session(of_session),
        }
    }
}

/// Returns what is told of an error that has to do with a session.
fn session(error: &engine::Error) -> Problem {
    match error {
        engine::Error::NoSession {
            id,
            end: SessionEnd::Unknown,
        } => Problem::new(
            Code::NotFound,
            format!(
                "There is no session \"{}\" of this token. GET /sessions lists those there are; POST /sessions makes one.",
                quote(id)
            ),
        ),
        engine::Error::NoSession { id, end } => Problem::new(
            Code::Gone,
            format!(
                "The session \"{}\" is gone: {}. Its state and files are lost; POST /sessions makes another.",
                quote(id),
                end.reason()
            ),
        ),
        engine::Error::NoContext { name, known } => Problem {
            field: Some("context".to_owned()),
            ..Problem::new(
                Code::NotFound,
                format!(
                    "The session has no context \"{}\"{}. POST /sessions/{{id}}/contexts makes one.",
                    quote(name),
                    match known.is_empty() {
                        true => String::new(),
                        false => format!("; it has: {}", known.join(", ")),
                    }
                ),
            )
        },
        engine::Error::TooManySessions { limit, own: true } => Problem::new(
            Code::Conflict,
            format!("This token has {limit} sessions already, as many as it may. DELETE one first."),
        ),
        engine::Error::TooManySessions { limit, own: false } => Problem::new(
            Code::Unavailable,
            format!("The server has {limit} sessions already, as many as it may. Try again later."),
        )
        .retry_after(RETRY_UNAVAILABLE),
        engine::Error::ContextBusy { waiting } => Problem::new(
            Code::Unavailable,
            format!("{waiting} cells wait for this context already. Wait for them, interrupt the session, or use another context."),
        )
        .retry_after(RETRY),
        engine::Error::NotWritten { path, reason, full } => Problem::new(
            if *full { Code::WorkspaceFull } else { Code::Conflict },
            format!("The session's workspace does not take \"{}\": {reason}.", quote(path)),
        ),
        engine::Error::NoRoom { reason } => Problem::new(
            Code::Conflict,
            format!(
                "The session has no process or memory left to start that: {reason}. Interrupt or restart it, or end what it runs."
            ),
        ),
        engine::Error::NotForked { reasons } => Problem::new(
            Code::Conflict,
            format!("The context can't be forked: {}.", reasons.join("; ")),
        ),
        engine::Error::NoCommand { id } => Problem::new(
            Code::NotFound,
            format!(
                "The session has no command \"{}\"; the last 32 that have ended are remembered. GET its commands for those there are.",
                quote(id)
            ),
        ),
        engine::Error::NoFile { path, reason } => Problem::new(
            Code::NotFound,
            format!("The session has no file \"{}\": {reason}.", quote(path)),
        ),
        _ => Problem::internal(),
    }
}

/// Returns how many of those who wait are the caller's, where that says more
/// than their number does.
fn own(own_waiting: usize, waiting: usize) -> String {
    if own_waiting == waiting {
        return String::new();
    }
    format!(", {own_waiting} of them with this token")
}

/// The problem document of RFC 9457, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// Address that explains this kind of problem.
    #[schema(format = "uri")]
    pub r#type: String,
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this very request, and what to do about it.
    pub detail: String,
    /// The field of the request that is wrong, such as `files[2].path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// Finds this request in the server's log; also in the `X-Request-Id` header.
    pub request_id: String,
}

/// Seconds to write into `Retry-After`: rounded up, at least one.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    let up = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(up).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_told_once() {
        for (at, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, at, "the table has the order of the codes");
            assert_eq!(Code::of_status(code.status()), Some(code));
            let uri = code.type_uri();
            assert!(uri.starts_with("https://") && uri.ends_with(code.slug()));
        }
        for (code, status) in [
            (Code::InvalidRequest, 400),
            (Code::Gone, 410),
            (Code::RangeNotSatisfiable, 416),
            (Code::Unavailable, 503),
        ] {
            assert_eq!(code.status(), status);
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn the_engine_names_the_field_and_the_cure() {
        let problem = Problem::from(Invalid {
            field: "timeout".into(),
            problem: "31 s is out of range".into(),
            cure: "Send at most 30.".into(),
        });
        assert_eq!(problem.field.as_deref(), Some("timeout"));
        let expected = "`timeout`: 31 s is out of range. Send at most 30.";
        assert_eq!(problem.detail, expected);
    }

    #[test]
    fn our_failures_tell_nothing() {
        let error = engine::Error::Io {
            step: "open /secret/path",
            source: std::io::Error::other("secret"),
        };
        let problem = Problem::from(&error);
        assert_eq!(problem.code, Code::Internal);
        assert!(!problem.detail.contains("secret"));
    }
}
