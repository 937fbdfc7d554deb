//! Who gets past the door: host, origin and token, before any handler runs.
//!
//! Fails closed: an address that the [table of routes](super::routes) does not
//! call open needs a token, whether a route exists for it or not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access_log::Note;
use super::connection::Connection;
use super::connections::Busy;
use super::failures::{REFUSALS, WINDOW};
use super::host::{self, Rules};
use super::peer::client_ip;
use super::route::{Counted, Door, Entrance};
use super::state::Shared;
use super::{artifact, routes};
use crate::api::{Code, Problem};
use crate::auth::{Denied, Principal, Scope};
use crate::config::Access;
use crate::oauth::{self, Site, metadata, secret};
use crate::public_url::accepted_hosts;
use crate::telemetry::chain;

/// Characters that a token may have; longer ones are not looked up.
pub(super) const TOKEN_CHARS: usize = 256;

/// Checks a request's host, origin and token, and passes it on with its principal.
pub(super) async fn gate(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    mut request: Request,
    next: Next,
) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let matched = matched.map(MatchedPath::as_str);
    let is_mcp = matched == Some("/mcp");
    let entrance = routes::entrance(matched, request.uri().path(), request.method());
    let scope = match entrance.door {
        Door::Open | Door::Anyone | Door::Body(_) => None,
        Door::Signed(_) if artifact::is_signed(&request) => None,
        Door::Signed(scope) | Door::Scope(scope) => Some(scope),
    };
    if let Err(problem) = check_place(&shared, connection, &request, entrance, scope) {
        return problem.into_response();
    }
    if let Some(scope) = scope {
        let principal = match admit(&shared, connection, request.headers(), scope, is_mcp).await {
            Ok(principal) => principal,
            Err(mut response) => {
                if is_mcp {
                    challenge(&shared, connection, request.headers(), &mut response);
                }
                if let Some(busy) = request.extensions().get::<Arc<Busy>>() {
                    busy.belongs_to_nobody();
                }
                return response;
            }
        };
        welcome(
            &shared,
            request.extensions_mut(),
            principal,
            entrance.counted,
        );
    }
    next.run(request).await
}

/// Notes whose a request is, wherever that counts.
pub(super) fn welcome(
    shared: &Shared,
    extensions: &mut Extensions,
    principal: Principal,
    counted: Counted,
) {
    if let Some(busy) = extensions.get::<Arc<Busy>>() {
        busy.belongs_to(&principal.id);
        if counted != Counted::No {
            busy.count(shared.app.activity.begin());
        }
    }
    if let Some(note) = extensions.get::<Note>() {
        note.key(&principal.name);
    }
    extensions.insert(principal);
}

/// Checks host and origin. What is open to all is not asked for its host: load
/// balancers look at `/health` by whatever address they know.
fn check_place(
    shared: &Shared,
    connection: Connection,
    request: &Request,
    entrance: Entrance,
    scope: Option<Scope>,
) -> Result<(), Problem> {
    let config = &shared.app.config;
    let headers = request.headers();
    let bad_host = |bad: host::BadHost| Problem::new(Code::InvalidRequest, bad.detail());
    let host = host::host(request.uri(), headers);
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if safe && scope.is_none() {
        // The probes of some load balancers speak HTTP/1.0, which knows no Host.
        let may_lack = request.version() == Version::HTTP_10;
        return match host {
            Err(host::BadHost::Missing) if may_lack => Ok(()),
            host => host.map(drop).map_err(bad_host),
        };
    }
    let own = host.map_err(bad_host)?;
    let trusted = config.trusts(connection.peer.ip());
    let forwarded = host::forwarded_host(headers).filter(|_| trusted);
    let forwarded = forwarded.transpose().map_err(bad_host)?;
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
    // A page can write the forwarded header, and never its own Host.
    if config.access == Access::Open || forwarded.is_none() {
        rules.check_host(&own).map_err(forbidden)?;
    }
    let host = forwarded.unwrap_or(own);
    rules.check_host(&host).map_err(forbidden)?;
    // No page knows a token that it has to write into a body.
    let by_token = matches!(entrance.door, Door::Anyone | Door::Body(_));
    if !safe && entrance.is_route && !by_token {
        rules.check_page(request.method(), &host, headers)?;
    }
    Ok(())
}

/// Finds out who is calling and whether the caller may, or answers why not.
/// The token is looked at first, always: whoever shares an address with
/// somebody who guesses tokens is let in all the same.
async fn admit(
    shared: &Shared,
    connection: Connection,
    headers: &HeaderMap,
    scope: Scope,
    is_mcp: bool,
) -> Result<Principal, Response> {
    let identified = if shared.app.config.access == Access::Open {
        Ok(Principal::open())
    } else {
        match bearer(headers) {
            None => Err(Denied::Missing),
            Some(token) if token.len() > TOKEN_CHARS => Err(Denied::Unknown),
            // A grant opens this door and no other.
            Some(token) if is_mcp && secret::is(secret::Kind::Access, token) => {
                let site = Site::of(&shared.app.config, connection.peer.ip(), headers);
                let hash = secret::hash(token);
                match shared.app.store.access(&hash, oauth::now()).await {
                    Ok(access) => {
                        let here = site.map(|site| site.resource());
                        match access.filter(|access| here.as_ref() == Some(&access.resource)) {
                            Some(access) => Ok(access.principal),
                            // They run out all the time: only by a 401 does the client
                            // learn to refresh, whatever its neighbours do.
                            None => return Err(invalid_token()),
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "failed to check an access token");
                        return Err(Problem::internal().into_response());
                    }
                }
            }
            Some(token) => known(shared, token).await?,
        }
    };
    let admitted = identified.and_then(|principal| principal.check(scope).map(|()| principal));
    admitted.map_err(|denied| refusal(shared, connection, headers, denied))
}

/// Returns whose a token is that was shown in a header or in a body.
///
/// # Errors
/// The answer to a token that is missing, wrong, or may not do this.
pub(super) async fn identify(
    shared: &Shared,
    connection: Connection,
    headers: &HeaderMap,
    token: Option<&str>,
    scope: Scope,
) -> Result<Principal, Response> {
    let identified = match token {
        None => Err(Denied::Missing),
        Some(token) if token.len() > TOKEN_CHARS => Err(Denied::Unknown),
        Some(token) => known(shared, token).await?,
    };
    let admitted = identified.and_then(|principal| principal.check(scope).map(|()| principal));
    admitted.map_err(|denied| refusal(shared, connection, headers, denied))
}

async fn known(shared: &Shared, token: &str) -> Result<Result<Principal, Denied>, Response> {
    let known = shared.app.store.authenticate(token).await;
    known.map_err(|error| {
        tracing::error!(error = %chain(&error), "failed to check a token");
        Problem::internal().into_response()
    })
}

/// Returns the answer to a caller who may not do this.
fn refusal(
    shared: &Shared,
    connection: Connection,
    headers: &HeaderMap,
    denied: Denied,
) -> Response {
    let client = client_ip(&shared.app.config, connection.peer.ip(), headers);
    refuse(shared, client, Instant::now(), denied)
}

/// Tells a client of `/mcp` that is not let in where it can ask.
fn challenge(
    shared: &Shared,
    connection: Connection,
    headers: &HeaderMap,
    response: &mut Response,
) {
    let error = match response.status() {
        StatusCode::UNAUTHORIZED if headers.contains_key(header::AUTHORIZATION) => {
            Some("invalid_token")
        }
        StatusCode::UNAUTHORIZED => None,
        StatusCode::FORBIDDEN => Some("insufficient_scope"),
        _ => return,
    };
    let site = Site::of(&shared.app.config, connection.peer.ip(), headers);
    let challenge = site.map(|site| metadata::challenge(&site, error));
    if let Some(value) = challenge.and_then(|text| HeaderValue::try_from(text).ok()) {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value);
    }
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
            invalid_token()
        }
    }
}

fn invalid_token() -> Response {
    let mut response = Problem::unauthorized().into_response();
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer error=\"invalid_token\""),
    );
    response
}

fn too_many_refusals(wait: std::time::Duration) -> Problem {
    Problem::new(
        Code::RateLimited,
        format!(
            "This token is wrong, and more than {REFUSALS} wrong tokens came from this address within {} s. Check the token (codex-server token list names the valid ones) and wait; a valid one is let in at once.",
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
}
