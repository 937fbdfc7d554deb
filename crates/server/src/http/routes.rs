//! The one table of routes: a row says where an address leads, who is let in,
//! as what a call counts, and how the API documents it.
//!
//! Whatever depends on an address (gate, rate limit, idle time, documents)
//! asks this table, so that no second list can forget a route.

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{MethodRouter, delete, get, post};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{HttpMethod, OpenApi};

use super::state::Shared;
use super::{artifact, docs, execute, health, languages, limits, metrics, pages, schema};
use crate::api::Code;
use crate::auth::Scope;

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Everybody.
    Open,
    /// The holder of a token with this scope.
    Scope(Scope),
    /// The holder of a signed link, or of a token with this scope.
    Signed(Scope),
}

/// As what a call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// As nothing: machines call by themselves.
    No,
    /// As use of the server, which an idle shutdown waits for.
    Use,
    /// As use, and against the caller's rate.
    Run,
}

/// A method that a route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    /// Returns the verb of a request's method; `HEAD` is a `GET` here.
    fn of(method: &axum::http::Method) -> Option<Self> {
        match method.as_str() {
            "GET" | "HEAD" => Some(Self::Get),
            "POST" => Some(Self::Post),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }

    /// Returns the key of an operation in an OpenAPI document.
    fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }
}

/// What the documents say of a route.
#[derive(Debug, Clone, Copy)]
struct Documented {
    /// The chapter.
    tag: &'static str,
    operation: fn() -> Operation,
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
    handler: fn() -> MethodRouter<Arc<Shared>>,
    /// Its place in the documents; `None` for a part of a page.
    documented: Option<Documented>,
}

/// A row, with the operation that `#[utoipa::path]` made of the handler.
macro_rules! row {
    ($method:ident $verb:ident $path:literal, $door:expr, $counted:ident, $refusals:expr,
     $tag:literal, $($handler:ident)::+, $operation:path) => {
        Route {
            path: $path,
            verb: Verb::$verb,
            door: $door,
            counted: Counted::$counted,
            refusals: $refusals,
            handler: || $method($($handler)::+),
            documented: Some(Documented {
                tag: $tag,
                operation: <$operation as utoipa::Path>::operation,
            }),
        }
    };
}

/// What a run can be refused with.
const RUN: &[Code] = &[
    Code::NotAcceptable,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::Unavailable,
];

/// What the download of a file can end in.
const DOWNLOAD: &[Code] = &[Code::NotFound, Code::Gone, Code::RangeNotSatisfiable];

/// The routes, in the order of the documents.
#[rustfmt::skip]
const ROUTES: &[Route] = &[
    row!(post Post "/execute", Door::Scope(Scope::Execute), Run, RUN, "execution", execute::execute, execute::__path_execute),
    row!(get Get "/artifacts/{id}/{name}", Door::Signed(Scope::Execute), Use, DOWNLOAD, "files", artifact::download, artifact::__path_download),
    row!(delete Delete "/artifacts/{id}/{name}", Door::Scope(Scope::Files), Use, &[Code::NotFound], "files", artifact::delete, artifact::__path_delete),
    row!(get Get "/health", Door::Open, No, &[], "server", health::health, health::__path_health),
    row!(get Get "/languages", Door::Open, No, &[], "server", languages::languages, languages::__path_languages),
    row!(get Get "/metrics", Door::Scope(Scope::Metrics), No, &[], "server", metrics::metrics, metrics::__path_metrics),
    row!(get Get "/", Door::Open, No, &[], "pages", pages::index, pages::__path_index),
    row!(get Get "/privacy", Door::Open, No, &[], "pages", pages::privacy, pages::__path_privacy),
    row!(get Get "/docs", Door::Open, No, &[], "pages", docs::docs, docs::__path_docs),
    row!(get Get "/openapi.json", Door::Open, No, &[], "schemas", schema::json, schema::__path_json),
    row!(get Get "/openapi.yaml", Door::Open, No, &[], "schemas", schema::yaml, schema::__path_yaml),
    row!(get Get "/actions/openapi.json", Door::Open, No, &[], "schemas", schema::actions_json, schema::__path_actions_json),
    row!(get Get "/actions/openapi.yaml", Door::Open, No, &[], "schemas", schema::actions_yaml, schema::__path_actions_yaml),
];

/// Where clients look for documents that a server may or may not have: "not
/// here" is answered to everybody, so that they go on without.
const OPEN_PREFIX: &str = "/.well-known/";

/// All rows, with those of the parts of pages.
fn all() -> impl Iterator<Item = Route> + Clone {
    let parts = docs::paths().map(|path| Route {
        path,
        verb: Verb::Get,
        door: Door::Open,
        counted: Counted::No,
        refusals: &[],
        handler: || get(docs::part),
        documented: None,
    });
    ROUTES.iter().copied().chain(parts)
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

/// Returns how an address is entered. `matched` is the template that the
/// router found for it. An address without a route asks for a token as well,
/// so that nothing is learnt without one.
pub(super) fn entrance(matched: Option<&str>, path: &str, method: &axum::http::Method) -> Entrance {
    let refused = |door| Entrance {
        door,
        counted: Counted::No,
        is_route: false,
    };
    let nowhere = refused(if path.starts_with(OPEN_PREFIX) {
        Door::Open
    } else {
        Door::Scope(Scope::Execute)
    });
    let Some(matched) = matched else {
        return nowhere;
    };
    let verb = Verb::of(method);
    let mut rows = all().filter(|row| row.path == matched);
    let exact = rows.clone().find(|row| Some(row.verb) == verb);
    match exact {
        Some(row) => Entrance {
            door: row.door,
            counted: row.counted,
            is_route: true,
        },
        // To be told that the method is wrong one needs what the address needs.
        None if rows.all(|row| row.door == Door::Open) => refused(Door::Open),
        None => nowhere,
    }
}

/// Returns the row of an operation of the documents.
pub(super) fn documented(path: &str, word: &str) -> Option<Route> {
    all().find(|row| row.path == path && row.verb.word() == word)
}

/// Adds the operations of all routes to a document.
pub(super) fn document(api: &mut OpenApi) {
    for row in ROUTES {
        let Some(documented) = row.documented else {
            continue;
        };
        let mut operation = (documented.operation)();
        operation.tags = Some(vec![documented.tag.to_owned()]);
        let method = match row.verb {
            Verb::Get => HttpMethod::Get,
            Verb::Post => HttpMethod::Post,
            Verb::Delete => HttpMethod::Delete,
        };
        api.paths
            .add_path_operation(row.path, vec![method], operation);
    }
}

/// Returns the router of all routes.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for row in all() {
        let mut handler = (row.handler)();
        if row.counted == Counted::Run {
            let state = Arc::clone(shared);
            handler = handler.route_layer(middleware::from_fn_with_state(state, limits::limit));
        }
        router = router.route(row.path, handler);
    }
    router
        .fallback(super::nowhere)
        .with_state(Arc::clone(shared))
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use utoipa::Path;

    use super::*;

    #[test]
    fn who_is_let_in_where() {
        let run = (Door::Scope(Scope::Execute), Counted::Run);
        let token = (Door::Scope(Scope::Execute), Counted::No);
        let open = (Door::Open, Counted::No);
        let artifact = Some("/artifacts/{id}/{name}");
        for (matched, path, method, expected) in [
            (Some("/execute"), "/execute", Method::POST, run),
            (Some("/execute"), "/execute", Method::GET, token),
            (Some("/health"), "/health", Method::GET, open),
            (Some("/health"), "/health", Method::HEAD, open),
            (Some("/health"), "/health", Method::PATCH, open),
            (
                Some("/docs/viewer.js"),
                "/docs/viewer.js",
                Method::GET,
                open,
            ),
            (
                Some("/metrics"),
                "/metrics",
                Method::GET,
                (Door::Scope(Scope::Metrics), Counted::No),
            ),
            (
                artifact,
                "/artifacts/0/a.png",
                Method::GET,
                (Door::Signed(Scope::Execute), Counted::Use),
            ),
            (
                artifact,
                "/artifacts/0/a.png",
                Method::DELETE,
                (Door::Scope(Scope::Files), Counted::Use),
            ),
            (artifact, "/artifacts/0/a.png", Method::POST, token),
            (None, "/.well-known/anything", Method::GET, open),
            (None, "/.well-known", Method::GET, token),
            (None, "/docs/other.js", Method::GET, token),
            (None, "/health/", Method::GET, token),
            (None, "//health", Method::GET, token),
            (None, "/nope", Method::GET, token),
        ] {
            let found = entrance(matched, path, &method);
            let found = (found.door, found.counted);
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn no_row_stands_twice() {
        for row in all() {
            let same = |other: &Route| other.path == row.path && other.verb == row.verb;
            assert_eq!(all().filter(same).count(), 1, "{row:?}");
            assert_eq!(
                documented(row.path, row.verb.word()).map(|row| row.door),
                Some(row.door)
            );
        }
    }

    #[test]
    fn handlers_say_the_same_address() {
        fn check<P: Path>(verb: Verb, path: &str) {
            assert_eq!(P::path(), path);
            let words: Vec<String> = P::methods().iter().map(word).collect();
            assert_eq!(words, [verb.word()], "{path}");
        }
        fn word(method: &HttpMethod) -> String {
            let word = serde_json::to_value(method).expect("a word");
            word.as_str().expect("a word").to_owned()
        }
        check::<execute::__path_execute>(Verb::Post, "/execute");
        check::<artifact::__path_download>(Verb::Get, "/artifacts/{id}/{name}");
        check::<artifact::__path_delete>(Verb::Delete, "/artifacts/{id}/{name}");
        check::<metrics::__path_metrics>(Verb::Get, "/metrics");
    }
}
