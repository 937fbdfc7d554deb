//! The one table of routes: a row says where an address leads, who is let in,
//! as what a call counts, and how the API documents it.
//!
//! Whatever depends on an address (gate, rate limit, idle time, documents)
//! asks this table, so that no second list can forget a route.

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::route::{Counted, Documentation, Door, Entrance, Route, Verb};
use super::state::Shared;
use super::{
    artifact, commands, docs, execute, health, hooks, languages, limits, oauth, pages, schema,
    scrape, session_files, sessions,
};
use crate::api::{Code, Problem};
use crate::auth::Scope;

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
            documentation: Some(Documentation {
                tag: $tag,
                path: <$operation as utoipa::Path>::path,
                operation: <$operation as utoipa::Path>::operation,
            }),
        }
    };
}

/// What a run can be refused with.
const RUN: &[Code] = &[
    Code::NotFound,
    Code::NotAcceptable,
    Code::RequestTimeout,
    Code::Conflict,
    Code::Gone,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::Unavailable,
    Code::WorkspaceFull,
];

/// What a hook can be refused with.
const HOOK: &[Code] = &[
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::Unavailable,
];

/// What making a session can be refused with.
const SESSION: &[Code] = &[
    Code::RequestTimeout,
    Code::Conflict,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::Unavailable,
];

/// What a call on a session can be refused with.
const NO_SESSION: &[Code] = &[Code::NotFound, Code::Gone];

/// What reading a file can end in.
const FILE: &[Code] = &[Code::NotFound, Code::Gone, Code::RangeNotSatisfiable];

/// What a change of files can be refused with.
const CHANGE: &[Code] = &[
    Code::NotFound,
    Code::RequestTimeout,
    Code::Conflict,
    Code::Gone,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::WorkspaceFull,
];

/// What running a command can be refused with.
const COMMAND: &[Code] = &[
    Code::NotFound,
    Code::NotAcceptable,
    Code::RequestTimeout,
    Code::Gone,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::Unavailable,
];

/// The same of a call that has a body.
const IN_SESSION: &[Code] = &[
    Code::NotFound,
    Code::RequestTimeout,
    Code::Gone,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
];

/// What forking a context can be refused with.
const FORK: &[Code] = &[
    Code::NotFound,
    Code::RequestTimeout,
    Code::Conflict,
    Code::Gone,
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
    row!(post Post "/hooks/run", Door::Body(Scope::Execute), Run, HOOK, "execution", hooks::run, hooks::__path_run),
    row!(post Post "/sessions", Door::Scope(Scope::Sessions), Run, SESSION, "sessions", sessions::create, sessions::__path_create),
    row!(get Get "/sessions", Door::Scope(Scope::Sessions), Use, &[], "sessions", sessions::list, sessions::__path_list),
    row!(get Get "/sessions/{id}", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", sessions::show, sessions::__path_show),
    row!(delete Delete "/sessions/{id}", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", sessions::delete, sessions::__path_delete),
    row!(post Post "/sessions/{id}/interrupt", Door::Scope(Scope::Sessions), Use, IN_SESSION, "sessions", sessions::interrupt, sessions::__path_interrupt),
    row!(post Post "/sessions/{id}/restart", Door::Scope(Scope::Sessions), Use, IN_SESSION, "sessions", sessions::restart, sessions::__path_restart),
    row!(post Post "/sessions/{id}/pause", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", sessions::pause, sessions::__path_pause),
    row!(post Post "/sessions/{id}/resume", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", sessions::resume, sessions::__path_resume),
    row!(post Post "/sessions/{id}/contexts", Door::Scope(Scope::Sessions), Use, IN_SESSION, "sessions", sessions::add_context, sessions::__path_add_context),
    row!(post Post "/sessions/{id}/fork", Door::Scope(Scope::Sessions), Use, FORK, "sessions", sessions::fork, sessions::__path_fork),
    row!(delete Delete "/sessions/{id}/contexts/{context}", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", sessions::end_context, sessions::__path_end_context),
    row!(post Post "/sessions/{id}/commands", Door::Scope(Scope::Sessions), Run, COMMAND, "sessions", commands::run, commands::__path_run),
    row!(get Get "/sessions/{id}/commands", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", commands::list, commands::__path_list),
    row!(get Get "/sessions/{id}/commands/{command}", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", commands::show, commands::__path_show),
    row!(post Post "/sessions/{id}/commands/{command}/stdin", Door::Scope(Scope::Sessions), Use, IN_SESSION, "sessions", commands::feed, commands::__path_feed),
    row!(delete Delete "/sessions/{id}/commands/{command}", Door::Scope(Scope::Sessions), Use, NO_SESSION, "sessions", commands::kill, commands::__path_kill),
    row!(get Get "/sessions/{id}/files", Door::Scope(Scope::Files), Use, NO_SESSION, "sessions", session_files::list, session_files::__path_list),
    row!(post Post "/sessions/{id}/files", Door::Scope(Scope::Files), Use, CHANGE, "sessions", session_files::change, session_files::__path_change),
    row!(get Get "/sessions/{id}/files/{*path}", Door::Scope(Scope::Files), Use, FILE, "sessions", session_files::get, session_files::__path_get),
    row!(put Put "/sessions/{id}/files/{*path}", Door::Scope(Scope::Files), Use, CHANGE, "sessions", session_files::put, session_files::__path_put),
    row!(delete Delete "/sessions/{id}/files/{*path}", Door::Scope(Scope::Files), Use, CHANGE, "sessions", session_files::delete, session_files::__path_delete),
    row!(get Get "/sessions/{id}/archive", Door::Scope(Scope::Files), Use, NO_SESSION, "sessions", session_files::archive, session_files::__path_archive),
    mcp(Verb::Post, Counted::Use),
    mcp(Verb::Get, Counted::No),
    mcp(Verb::Delete, Counted::No),
    row!(get Get "/artifacts/{id}/{name}", Door::Signed(Scope::Execute), Use, DOWNLOAD, "files", artifact::download, artifact::__path_download),
    row!(delete Delete "/artifacts/{id}/{name}", Door::Scope(Scope::Files), Use, &[Code::NotFound], "files", artifact::delete, artifact::__path_delete),
    oauth("/.well-known/oauth-protected-resource", Verb::Get, Door::Anyone, || get(oauth::resource).options(oauth::preflight)),
    oauth("/.well-known/oauth-protected-resource/mcp", Verb::Get, Door::Anyone, || get(oauth::resource).options(oauth::preflight)),
    oauth("/.well-known/oauth-authorization-server", Verb::Get, Door::Anyone, || get(oauth::server).options(oauth::preflight)),
    oauth("/.well-known/oauth-authorization-server/mcp", Verb::Get, Door::Anyone, || get(oauth::server).options(oauth::preflight)),
    oauth("/oauth/authorize", Verb::Get, Door::Open, || get(oauth::ask)),
    oauth("/oauth/authorize", Verb::Post, Door::Open, || post(oauth::agree)),
    oauth("/oauth/token", Verb::Post, Door::Anyone, || post(oauth::token).options(oauth::preflight)),
    oauth("/oauth/register", Verb::Post, Door::Anyone, || post(oauth::register).options(oauth::preflight)),
    oauth("/oauth/revoke", Verb::Post, Door::Anyone, || post(oauth::revoke).options(oauth::preflight)),
    row!(get Get "/health", Door::Open, No, &[], "server", health::health, health::__path_health),
    row!(get Get "/languages", Door::Open, No, &[], "server", languages::languages, languages::__path_languages),
    row!(get Get "/metrics", Door::Scope(Scope::Metrics), No, &[], "server", scrape::scrape, scrape::__path_scrape),
    row!(get Get "/", Door::Open, No, &[], "pages", pages::index, pages::__path_index),
    row!(get Get "/privacy", Door::Open, No, &[], "pages", pages::privacy, pages::__path_privacy),
    row!(get Get "/docs", Door::Open, No, &[], "pages", docs::docs, docs::__path_docs),
    row!(get Get "/openapi.json", Door::Open, No, &[], "schemas", schema::json, schema::__path_json),
    row!(get Get "/openapi.yaml", Door::Open, No, &[], "schemas", schema::yaml, schema::__path_yaml),
    row!(get Get "/actions/openapi.json", Door::Open, No, &[], "schemas", schema::actions_json, schema::__path_actions_json),
    row!(get Get "/actions/openapi.yaml", Door::Open, No, &[], "schemas", schema::actions_yaml, schema::__path_actions_yaml),
];

/// A row of the Model Context Protocol, whose messages describe themselves. Its
/// calls take from the caller's rate where they run something.
const fn mcp(verb: Verb, counted: Counted) -> Route {
    Route {
        path: "/mcp",
        verb,
        door: Door::Scope(Scope::Execute),
        counted,
        refusals: &[],
        handler: match verb {
            Verb::Get => || get(super::mcp::mcp),
            Verb::Post => || post(super::mcp::mcp),
            Verb::Put => || put(super::mcp::mcp),
            Verb::Delete => || delete(super::mcp::mcp),
        },
        documentation: None,
    }
}

/// A row of OAuth, whose own metadata describes it.
const fn oauth(
    path: &'static str,
    verb: Verb,
    door: Door,
    handler: fn() -> MethodRouter<Arc<Shared>>,
) -> Route {
    Route {
        path,
        verb,
        door,
        counted: Counted::No,
        refusals: &[],
        handler,
        documentation: None,
    }
}

/// Where clients look for documents that a server may or may not have: "not
/// here" is answered to everybody, so that they go on without.
const OPEN_PREFIX: &str = "/.well-known/";

/// Returns all rows, with those of the parts of pages.
pub(super) fn all() -> impl Iterator<Item = Route> + Clone {
    let parts = docs::paths().map(|path| Route {
        path,
        verb: Verb::Get,
        door: Door::Open,
        counted: Counted::No,
        refusals: &[],
        handler: || get(docs::part),
        documentation: None,
    });
    ROUTES.iter().copied().chain(parts)
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
        None if rows.all(|row| matches!(row.door, Door::Open | Door::Anyone)) => {
            refused(Door::Open)
        }
        None => nowhere,
    }
}

/// Returns the router of all routes.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for row in all() {
        let mut handler = (row.handler)();
        // Whose rate it is, is known to the handler alone where the body says it.
        if row.counted == Counted::Run && !matches!(row.door, Door::Body(_)) {
            let state = Arc::clone(shared);
            handler = handler.route_layer(middleware::from_fn_with_state(state, limits::limit));
        }
        router = router.route(row.path, handler);
    }
    router.fallback(nowhere).with_state(Arc::clone(shared))
}

async fn nowhere() -> Problem {
    Problem::new(
        Code::NotFound,
        "Nothing lives at this address. GET /openapi.json lists the addresses that this server knows.",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::http::route::documented;

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
        }
    }

    #[test]
    fn handlers_say_the_same_address() {
        for row in ROUTES {
            if let Some(documentation) = row.documentation {
                assert_eq!((documentation.path)(), documented(row.path));
            }
        }
    }
}
