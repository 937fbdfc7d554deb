//! What is known of a route: who is let in, as what a call counts, and how the
//! API documents it. Plain data; the table is [`routes`](super::routes).

use std::sync::Arc;

use axum::routing::MethodRouter;
use utoipa::openapi::path::Operation;

use super::state::Shared;
use crate::api::Code;
use crate::auth::Scope;

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Everybody.
    Open,
    /// Everybody, from any page: what is asked for there is never a browser's to
    /// give.
    Anyone,
    /// The holder of a token with this scope.
    Scope(Scope),
    /// The holder of a signed link, or of a token with this scope.
    Signed(Scope),
    /// The holder of a token with this scope, which may be in the body: the handler
    /// asks for it, also where nobody else needs one.
    Body(Scope),
}

/// As what a call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// As nothing: machines call by themselves.
    No,
    /// As use of the server where a token was shown, which an idle shutdown
    /// waits for.
    Use,
    /// As use, and against the caller's rate.
    Run,
}

/// A method that a route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    /// Returns the verb of a request's method; `HEAD` is a `GET` here.
    pub(super) fn of(method: &axum::http::Method) -> Option<Self> {
        match method.as_str() {
            "GET" | "HEAD" => Some(Self::Get),
            "POST" => Some(Self::Post),
            "PUT" => Some(Self::Put),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }

    /// Returns the key of an operation in an OpenAPI document.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// What the documents say of a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Documentation {
    /// The chapter.
    pub(super) tag: &'static str,
    /// The address that stands beside the handler.
    pub(super) path: fn() -> String,
    /// The operation that was made of the handler.
    pub(super) operation: fn() -> Operation,
}

/// A template as documents write it: without the mark of a part that may have slashes.
pub(super) fn documented(path: &str) -> String {
    path.replace("{*", "{")
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// The template of the address.
    pub(super) path: &'static str,
    /// The method.
    pub(super) verb: Verb,
    /// Who is let in.
    pub(super) door: Door,
    /// As what a call counts.
    pub(super) counted: Counted,
    /// Problems that the handler itself answers with, besides those of the
    /// gate and of every request.
    pub(super) refusals: &'static [Code],
    /// What answers.
    pub(super) handler: fn() -> MethodRouter<Arc<Shared>>,
    /// Its place in the documents; `None` for a part of a page and for what
    /// describes itself.
    pub(super) documentation: Option<Documentation>,
}

/// What the gate needs to know of the address of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entrance {
    /// Who is let in.
    pub(super) door: Door,
    /// As what the call counts.
    pub(super) counted: Counted,
    /// Whether a handler will see it; else it is refused by its address.
    pub(super) is_route: bool,
}
