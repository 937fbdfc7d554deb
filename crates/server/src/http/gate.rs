//! Who gets past the door: host, origin and token, before any handler runs.
//!
//! Fails closed: an address that is not in [`is_open_path`] needs a token,
//! whether a route exists for it or not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access_log::Note;
use super::connection::Connection;
use super::failures::{REFUSALS, WINDOW};
use super::host::{self, Rules};
use super::peer::client_ip;
use super::state::Shared;
use super::{artifact, docs};
use crate::api::{Code, Problem};
use crate::auth::{Denied, Principal};
use crate::config::Access;
use crate::public_url::accepted_hosts;
use crate::telemetry::chain;

/// The name under which everybody is counted and logged in open mode.
pub(super) const OPEN_KEY: &str = "open";

/// Characters that a token may have; longer ones are not looked up.
const TOKEN_CHARS: usize = 256;

/// Whether an address is answered without a token.
pub(super) fn is_open_path(path: &str) -> bool {
    matches!(
        path,
        "/" | "/health"
            | "/languages"
            | "/openapi.json"
            | "/openapi.yaml"
            | "/actions/openapi.json"
            | "/actions/openapi.yaml"
            | "/docs"
            | "/privacy"
    ) || path.starts_with("/.well-known/")
        || docs::paths().any(|part| part == path)
}

/// Addresses behind the token that machines call by themselves.
const UNCOUNTED: [&str; 1] = ["/metrics"];

/// Whether a request that was let in counts as use of the server. `route` is
/// the template that its address matched, if it did.
fn counts(route: Option<&str>) -> bool {
    route.is_some_and(|route| !UNCOUNTED.contains(&route) && !is_open_path(route))
}

/// The layer.
pub(super) async fn gate(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Err(problem) = check_place(&shared, connection, &request) {
        return problem.into_response();
    }
    if !is_open_path(request.uri().path()) && !artifact::is_signed(&request) {
        let peer = connection.peer.ip();
        match admit(&shared, peer, request.headers()).await {
            Ok(principal) => {
                if let Some(note) = request.extensions().get::<Note>() {
                    note.key(&principal.key);
                    let route = request.extensions().get::<MatchedPath>();
                    if counts(route.map(MatchedPath::as_str)) {
                        note.in_use(shared.app.activity.begin());
                    }
                }
                request.extensions_mut().insert(principal);
            }
            Err(response) => return response,
        }
    }
    next.run(request).await
}

/// Host and origin. What is open to all is not asked for its host: load
/// balancers look at `/health` by whatever address they know.
fn check_place(shared: &Shared, connection: Connection, request: &Request) -> Result<(), Problem> {
    let config = &shared.app.config;
    let headers = request.headers();
    let bad_host = |bad: host::BadHost| Problem::new(Code::InvalidRequest, bad.detail());
    let host = host::host(request.uri(), headers);
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if safe && (is_open_path(request.uri().path()) || artifact::is_signed(request)) {
        // The probes of some load balancers speak HTTP/1.0, which knows no Host.
        let may_lack = request.version() == Version::HTTP_10;
        return match host {
            Err(host::BadHost::Missing) if may_lack => Ok(()),
            host => host.map(drop).map_err(bad_host),
        };
    }
    let mut host = host.map_err(bad_host)?;
    let trusted = config.trusts(connection.peer.ip());
    if trusted && let Some(forwarded) = host::forwarded_host(headers) {
        host = forwarded.map_err(bad_host)?;
    }
    let names = accepted_hosts(config);
    let rules = Rules {
        access: config.access,
        names: &names,
        origins: &config.cors_origins,
        peer: connection.peer.ip(),
        local: connection.local.ip(),
        trusted,
    };
    let forbidden = |detail| Problem::new(Code::Forbidden, detail);
    rules.check_host(&host).map_err(forbidden)?;
    if config.access == Access::Open && !safe {
        for origin in headers.get_all(header::ORIGIN) {
            rules
                .check_origin(&String::from_utf8_lossy(origin.as_bytes()))
                .map_err(forbidden)?;
        }
    }
    Ok(())
}

/// Finds out who is calling, or answers why not.
async fn admit(shared: &Shared, peer: IpAddr, headers: &HeaderMap) -> Result<Principal, Response> {
    if shared.app.config.access == Access::Open {
        return Ok(Principal {
            key: OPEN_KEY.to_owned(),
        });
    }
    let client = client_ip(&shared.app.config, peer, headers);
    let now = Instant::now();
    if let Some(wait) = shared.failures.shut_out(client, now) {
        return Err(too_many_refusals(wait).into_response());
    }
    let denied = match bearer(headers) {
        None => Denied::Missing,
        Some(token) if token.len() > TOKEN_CHARS => Denied::Unknown,
        Some(token) => match shared.app.store.authenticate(token).await {
            Ok(Ok(principal)) => return Ok(principal),
            Ok(Err(denied)) => denied,
            Err(error) => {
                tracing::error!(error = %chain(&error), "failed to check a token");
                return Err(Problem::internal().into_response());
            }
        },
    };
    Err(refuse(shared, client, now, denied))
}

fn refuse(shared: &Shared, client: IpAddr, now: Instant, denied: Denied) -> Response {
    match denied {
        Denied::Missing => Problem::unauthorized().into_response(),
        Denied::Forbidden { scope } => Problem::new(
            Code::Forbidden,
            format!(
                "This token lacks the scope `{scope}`. The operator can make one that has it: codex-server token create NAME --scope {scope}"
            ),
        )
        .into_response(),
        Denied::Unknown => {
            if let Some(wait) = shared.failures.over(client, now) {
                return too_many_refusals(wait).into_response();
            }
            shared.failures.note(client, now);
            let mut response = Problem::unauthorized().into_response();
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer error=\"invalid_token\""),
            );
            response
        }
    }
}

fn too_many_refusals(wait: std::time::Duration) -> Problem {
    Problem::new(
        Code::RateLimited,
        format!(
            "More than {REFUSALS} wrong tokens came from this address within {} s. Check the token (codex-server token list names the valid ones) and wait.",
            WINDOW.as_secs()
        ),
    )
    .retry_after(wait)
}

/// The token of the only `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_use_by_those_let_in_counts() {
        for (route, expected) in [
            (Some("/execute"), true),
            (Some("/sessions/{id}/files/{*path}"), true),
            (Some("/metrics"), false),
            (Some("/health"), false),
            (Some("/"), false),
            (Some("/openapi.json"), false),
            (None, false),
        ] {
            assert_eq!(counts(route), expected, "{route:?}");
        }
    }

    #[test]
    fn bearer_headers_are_read() {
        for (values, expected) in [
            (&["Bearer codex_x"][..], Some("codex_x")),
            (&["bearer  codex_x "], Some("codex_x")),
            (&["BEARER codex_x"], Some("codex_x")),
            (&["Basic codex_x"], None),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["codex_x"], None),
            (&["Bearer a", "Bearer b"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a value"));
            }
            assert_eq!(bearer(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn only_named_paths_are_open() {
        for (path, expected) in [
            ("/", true),
            ("/health", true),
            ("/actions/openapi.yaml", true),
            ("/docs/viewer.js", true),
            ("/docs/", false),
            ("/docs/other.js", false),
            ("/artifacts/0/a.png", false),
            ("/.well-known/anything", true),
            ("/execute", false),
            ("/health/", false),
            ("//health", false),
            ("/openapi.jsonx", false),
            ("/.well-known", false),
            ("/nope", false),
        ] {
            assert_eq!(is_open_path(path), expected, "{path}");
        }
    }
}
