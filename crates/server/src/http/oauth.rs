//! OAuth over HTTP: mounts [`oauth`](crate::oauth). Every answer is `no-store`;
//! clients may call from any page but the one on which a person agrees.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::body;
use super::connection::Connection;
use super::failures::Failures;
use super::peer::client_ip;
use super::state::Shared;
use crate::api::{Code, Problem, parse_object};
use crate::oauth::client::{Client, Method};
use crate::oauth::clients::{Clients, NoClient};
use crate::oauth::params::Params;
use crate::oauth::secret::{self, Kind, Secret};
use crate::oauth::token::{self, Credentials, Refusal, Wanted};
use crate::oauth::{ACCESS_TIME, OFFERED, Site, is_known, metadata, now, words};
use crate::outbound::Guard;
use crate::store::oauth::{Exchange, Given, NewTokens, Refresh, Withheld};
use crate::telemetry::chain;

mod consent;
mod identity;

pub(super) use consent::{agree, ask};
use identity::{client, refused};

/// Bytes of a request's body.
const BODY_BYTES: usize = 16 * 1024;

/// Registrations, and documents to fetch, in a minute: from one address, and in
/// all.
pub(crate) const EACH: u32 = 20;
pub(crate) const ALL: u32 = 300;

/// Wrong credentials of clients in a minute from one address.
const WRONG: u32 = 30;

/// How long a client waits that asked for too many tokens.
const OFTEN_WAIT: Duration = Duration::from_secs(60);

/// What OAuth keeps in memory.
#[derive(Debug)]
pub(super) struct OAuth {
    clients: Clients,
    /// What strangers made the server keep or fetch, by address and in all.
    strangers: Failures,
    everybody: Failures,
    /// Documents fetched from hosts that people know, by address and in all.
    known: Failures,
    known_by_all: Failures,
    /// Wrong credentials of clients.
    wrong: Failures,
}

impl OAuth {
    /// Returns what an idle server keeps; `takes_keys` says whether clients may sign.
    pub(super) fn new(takes_keys: bool) -> Self {
        Self {
            clients: Clients::new(Guard::public(), takes_keys),
            strangers: Failures::of(EACH),
            everybody: Failures::of(ALL),
            known: Failures::of(EACH),
            known_by_all: Failures::of(ALL),
            wrong: Failures::of(WRONG),
        }
    }

    /// Notes that a document is fetched from a host, unless that was too often. What
    /// strangers do must keep nobody from the hosts that people know.
    fn count_fetch(&self, ip: IpAddr, host: &str) -> bool {
        let counted = if is_known(host) {
            count(ip, &self.known, &self.known_by_all)
        } else {
            self.count(ip)
        };
        counted.is_ok()
    }

    /// Notes that a stranger made the server keep or fetch something.
    ///
    /// # Errors
    /// With the time to wait, when it was too often.
    fn count(&self, ip: IpAddr) -> Result<(), Duration> {
        count(ip, &self.strangers, &self.everybody)
    }
}

/// Notes something by address and in all, or returns the time to wait.
fn count(ip: IpAddr, each: &Failures, all: &Failures) -> Result<(), Duration> {
    let now = Instant::now();
    let anybody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if let Some(wait) = each.over(ip, now).or(all.over(anybody, now)) {
        return Err(wait);
    }
    each.note(ip, now);
    all.note(anybody, now);
    Ok(())
}

/// What each handler needs to know of its request.
#[derive(Debug)]
pub(super) struct Visit {
    site: Site,
    ip: IpAddr,
}

impl FromRequestParts<Arc<Shared>> for Visit {
    type Rejection = Problem;

    /// Refuses where there is no OAuth, as if nothing lived here.
    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let connection = parts.extensions.get::<ConnectInfo<Connection>>();
        let Some(ConnectInfo(connection)) = connection else {
            tracing::error!("a request reached OAuth without its connection");
            return Err(Problem::internal());
        };
        let config = &shared.app.config;
        let peer = connection.peer.ip();
        let site = Site::of(config, peer, &parts.headers);
        let site = site.ok_or_else(|| {
            Problem::new(
                Code::NotFound,
                "There is no OAuth here: the server runs without tokens, or is called by plain http or by a name that is not its own.",
            )
        })?;
        let ip = client_ip(config, peer, &parts.headers);
        Ok(Self { site, ip })
    }
}

/// Says whether any page may call what is at a path; `None` for what is not OAuth's.
pub(super) fn may_be_called(path: &str) -> Option<bool> {
    match path {
        "/oauth/authorize" => Some(false),
        path if path.starts_with("/oauth/") => Some(true),
        path if path.starts_with("/.well-known/oauth-") => Some(true),
        _ => None,
    }
}

/// Answers the question of a foreign page whether it may call.
pub(super) async fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, mcp-protocol-version"),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("3600"),
    );
    response
}

/// Returns an answer that every page may read and nobody may keep.
fn shared_with_pages(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn failed(status: StatusCode, code: &str, words: &str) -> Response {
    shared_with_pages(status, &json!({"error": code, "error_description": words}))
}

/// Says that a client has to wait: never with a code on which it throws away what
/// it has.
fn later(status: StatusCode, words: &str, wait: Duration) -> Response {
    let mut response = failed(status, "temporarily_unavailable", words);
    let wait = crate::api::error::whole_seconds(wait);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, wait.into());
    response
}

fn too_many(wait: Duration) -> Response {
    let words = "too many requests came; wait";
    later(StatusCode::TOO_MANY_REQUESTS, words, wait)
}

fn broken(step: &str, error: &dyn std::error::Error) -> Response {
    tracing::error!(step, error = %chain(error), "OAuth failed");
    let words = "the server cannot answer now; try again";
    later(
        StatusCode::SERVICE_UNAVAILABLE,
        words,
        Duration::from_secs(5),
    )
}

/// `GET /.well-known/oauth-protected-resource`, also with `/mcp`.
pub(super) async fn resource(visit: Visit) -> Response {
    shared_with_pages(StatusCode::OK, &metadata::resource(&visit.site))
}

/// `GET /.well-known/oauth-authorization-server`, also with `/mcp`.
pub(super) async fn server(State(shared): State<Arc<Shared>>, visit: Visit) -> Response {
    let takes_keys = shared.app.config.oauth_client_keys;
    shared_with_pages(StatusCode::OK, &metadata::server(&visit.site, takes_keys))
}

/// Reads a body of so many bytes at most.
async fn read(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Vec<u8>, Problem> {
    let nobody = engine::Owner::default();
    let patience = shared.app.config.client_timeout;
    let (bytes, _room) =
        body::read(headers, body, (&shared.requests, &nobody), limit, patience).await?;
    Ok(bytes.to_vec())
}

/// Why a form cannot be read.
enum BadForm {
    /// It did not come whole.
    Problem(Problem),
    /// It is no form, or not a well-formed one.
    Words(&'static str),
}

impl IntoResponse for BadForm {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Words(words) => failed(StatusCode::BAD_REQUEST, "invalid_request", words),
        }
    }
}

/// Reads the parameters of a form.
async fn form(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Params, BadForm> {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.unwrap_or_default().split(|byte| *byte == b';').next();
    let is_form = kind.is_some_and(|kind| {
        kind.trim_ascii()
            .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    });
    if !is_form {
        return Err(BadForm::Words("send application/x-www-form-urlencoded"));
    }
    let bytes = read(shared, headers, body, limit).await;
    let bytes = bytes.map_err(BadForm::Problem)?;
    Params::parse(&bytes).map_err(|why| BadForm::Words(why.words()))
}

/// `POST /oauth/register` (RFC 7591).
pub(super) async fn register(
    State(shared): State<Arc<Shared>>,
    visit: Visit,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let bytes = match read(&shared, &headers, body, BODY_BYTES).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    let members = match parse_object(&bytes) {
        Ok(members) => members,
        Err(problem) => {
            return failed(
                StatusCode::BAD_REQUEST,
                "invalid_client_metadata",
                &problem.detail,
            );
        }
    };
    let client = match Client::registered(&members) {
        Ok(client) => client,
        Err((code, words)) => return failed(StatusCode::BAD_REQUEST, code, &words),
    };
    if let Err(wait) = shared.oauth.count(visit.ip) {
        return too_many(wait);
    }
    match keep(&shared, client).await {
        Ok(answer) => shared_with_pages(StatusCode::CREATED, &answer),
        Err(response) => response,
    }
}

/// Gives a client its id, and a secret where it wants one.
async fn keep(shared: &Shared, mut client: Client) -> Result<Value, Response> {
    let random = |error: getrandom::Error| broken("make a secret", &error);
    let id = Secret::generate(Kind::ClientSecret).map_err(random)?;
    // An id is no secret; it only has to be nobody else's.
    let id = format!("codex_cl_{}", &id.hash()[..32]);
    let mut answer = Map::new();
    if client.method != Method::None {
        let secret = Secret::generate(Kind::ClientSecret).map_err(random)?;
        client.secret_hash = Some(secret.hash());
        answer.insert("client_secret".to_owned(), json!(secret.reveal()));
        answer.insert("client_secret_expires_at".to_owned(), json!(0));
    }
    let document =
        serde_json::to_string(&client).map_err(|error| broken("write a client", &error))?;
    let kept = shared
        .app
        .store
        .register_client(&id, &document, now())
        .await;
    kept.map_err(|error| broken("keep a client", &error))?;
    let more = json!({
        "client_id": id,
        "client_id_issued_at": now() / 1000,
        "client_name": client.name,
        "redirect_uris": client.redirects,
        "token_endpoint_auth_method": client.method.as_str(),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "scope": words(&OFFERED),
    });
    answer.extend(more.as_object().cloned().unwrap_or_default());
    Ok(Value::Object(answer))
}

/// `POST /oauth/token`. The work is a task of its own: a client that hangs up cuts
/// nothing in half.
pub(super) async fn token(
    State(shared): State<Arc<Shared>>,
    visit: Visit,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = match form(&shared, &headers, body, BODY_BYTES).await {
        Ok(form) => form,
        Err(bad) => return bad.into_response(),
    };
    let giving = tokio::spawn(async move {
        match client(&shared, &visit, &headers, &form).await {
            Ok(credentials) => give(&shared, &credentials, &form).await,
            Err(response) => response,
        }
    });
    giving
        .await
        .unwrap_or_else(|error| broken("give tokens", &error))
}

async fn give(shared: &Shared, credentials: &Credentials, form: &Params) -> Response {
    let wanted = match token::wanted(form) {
        Ok(wanted) => wanted,
        Err(refusal) => return refused(refusal, false),
    };
    let access = match Secret::generate(Kind::Access) {
        Ok(access) => access,
        Err(error) => return broken("make a token", &error),
    };
    let (store, now) = (&shared.app.store, now());
    let (access_hash, access_ends_at) = (access.hash(), now + ACCESS_TIME);
    let (given, refresh) = match wanted {
        Wanted::Exchange {
            code,
            verifier,
            redirect,
        } => {
            let refresh = match Secret::generate(Kind::Refresh) {
                Ok(refresh) => refresh,
                Err(error) => return broken("make a token", &error),
            };
            let shown = Exchange {
                code_hash: &secret::hash(code),
                client: &credentials.id,
                redirect,
                challenge: &secret::challenge(verifier),
                resource: form.get("resource"),
                tokens: NewTokens {
                    access_hash: &access_hash,
                    access_ends_at,
                    refresh_hash: &refresh.hash(),
                },
            };
            (store.exchange(&shown, now).await, refresh)
        }
        Wanted::Refresh { token, scope } => {
            // The same token gives the same successor: only their hashes are kept.
            let successor = shared
                .app
                .artifacts
                .derive(b"codex-server refresh token 1\0", token.as_bytes());
            let refresh = Secret::of(Kind::Refresh, &successor);
            let scopes = scope.map(|text| {
                let words = text.split(' ').filter(|word| !word.is_empty());
                words.map(str::parse).collect::<Result<Vec<_>, _>>()
            });
            let scopes = match scopes.transpose() {
                Ok(scopes) => scopes,
                Err(_) => return refused(Refusal::Scope, false),
            };
            let shown = Refresh {
                token_hash: &secret::hash(token),
                client: &credentials.id,
                scopes: scopes.as_deref(),
                resource: form.get("resource"),
                tokens: NewTokens {
                    access_hash: &access_hash,
                    access_ends_at,
                    refresh_hash: &refresh.hash(),
                },
            };
            (store.refresh(&shown, now).await, refresh)
        }
    };
    match given {
        Ok(Ok(Given { scopes, ends_at })) => shared_with_pages(
            StatusCode::OK,
            &json!({
                "access_token": access.reveal(),
                "token_type": "Bearer",
                "expires_in": (ends_at - now) / 1000,
                "refresh_token": refresh.reveal(),
                "scope": words(&scopes),
            }),
        ),
        Ok(Err(why)) => withheld(why),
        Err(error) => broken("give tokens", &error),
    }
}

fn withheld(why: Withheld) -> Response {
    match why {
        Withheld::Often => too_many(OFTEN_WAIT),
        Withheld::Grant => refused(Refusal::Grant, false),
        Withheld::Resource => refused(Refusal::Target, false),
        Withheld::Scope => refused(Refusal::Scope, false),
    }
}

/// `POST /oauth/revoke` (RFC 7009): ends the grant of the client's own token, and
/// says the same of any other.
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    visit: Visit,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = match form(&shared, &headers, body, BODY_BYTES).await {
        Ok(form) => form,
        Err(bad) => return bad.into_response(),
    };
    let ending = tokio::spawn(async move {
        let credentials = match client(&shared, &visit, &headers, &form).await {
            Ok(credentials) => credentials,
            Err(response) => return response,
        };
        let Some(token) = form.get("token") else {
            return refused(Refusal::Request("token is missing"), false);
        };
        let store = &shared.app.store;
        match store
            .end_grant_of(&secret::hash(token), &credentials.id, now())
            .await
        {
            Ok(()) => shared_with_pages(StatusCode::OK, &json!({})),
            Err(error) => broken("end a grant", &error),
        }
    });
    ending
        .await
        .unwrap_or_else(|error| broken("end a grant", &error))
}

/// Finds the client that asks a person for a grant.
async fn asking(shared: &Shared, visit: &Visit, id: &str) -> Result<Client, (StatusCode, String)> {
    let later = |words: &str| (StatusCode::SERVICE_UNAVAILABLE, words.to_owned());
    let oauth = &shared.oauth;
    let may_fetch = |host: &str| oauth.count_fetch(visit.ip, host);
    let found = oauth.clients.asking(&shared.app.store, id, may_fetch).await;
    found.map_err(|none| match none {
        NoClient::Unknown(words) => (StatusCode::BAD_REQUEST, words),
        NoClient::Often => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many clients were asked for. Wait a minute.".to_owned(),
        ),
        NoClient::Busy => later("Too many clients are being looked up. Try again in a moment."),
        NoClient::Outage(words) => (StatusCode::BAD_GATEWAY, words),
        NoClient::Store(error) => {
            tracing::error!(error = %chain(&error), "failed to look up a client");
            later("The server cannot look up the client now. Try again.")
        }
    })
}
