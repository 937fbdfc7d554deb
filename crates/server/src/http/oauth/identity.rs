//! Which client asks for tokens, and whether it is the one. What is wrong is told to
//! the log alone: every client that is refused reads the same words.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::{OFTEN_WAIT, Visit, broken, failed, later, too_many};
use crate::http::state::Shared;
use crate::oauth::clients::Unproven;
use crate::oauth::params::Params;
use crate::oauth::token::{self, Credentials, Refusal};

/// How long a client waits whose keys did not come.
const KEYS_WAIT: Duration = Duration::from_secs(5);

/// Finds out which client asks, and whether it is the one.
pub(super) async fn client(
    shared: &Shared,
    visit: &Visit,
    headers: &HeaderMap,
    form: &Params,
) -> Result<Credentials, Response> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    let has_header = authorization.is_some();
    let refuse = |refusal: Refusal| {
        let now = Instant::now();
        if let Some(wait) = shared.oauth.wrong.over(visit.ip, now) {
            return too_many(wait);
        }
        shared.oauth.wrong.note(visit.ip, now);
        refused(refusal, has_header)
    };
    if authorizations.next().is_some() {
        return Err(refuse(Refusal::Client));
    }
    let text = authorization.map(|value| value.to_str().unwrap_or_default());
    let takes_keys = shared.app.config.oauth_client_keys;
    let credentials = token::credentials(text, form, takes_keys).map_err(refuse)?;
    let (clients, store) = (&shared.oauth.clients, &shared.app.store);
    let known = clients.known(store, &credentials.id).await;
    let known = known.map_err(|error| broken("look up a client", &error))?;
    let kept = known.ok_or_else(|| refuse(Refusal::Client))?;
    if let Some(signed) = credentials.check(&kept.client).map_err(refuse)? {
        let may_fetch = |host: &str| shared.oauth.count_fetch(visit.ip, host);
        let proven = clients.prove(store, &kept, signed, &visit.site, may_fetch);
        proven.await.map_err(|unproven| match unproven {
            Unproven::Bad(why) => {
                tracing::debug!(client = credentials.id, why, "refused a client's assertion");
                refuse(Refusal::Client)
            }
            Unproven::Outage => {
                let words = "the client's keys cannot be had now; try again";
                later(StatusCode::SERVICE_UNAVAILABLE, words, KEYS_WAIT)
            }
            Unproven::Often => too_many(OFTEN_WAIT),
            Unproven::Store(error) => broken("check a client's assertion", &error),
        })?;
    }
    Ok(credentials)
}

/// Returns the answer to who gets nothing.
pub(super) fn refused(refusal: Refusal, has_header: bool) -> Response {
    let status = match refusal {
        Refusal::Client => StatusCode::UNAUTHORIZED,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = failed(status, refusal.code(), refusal.words());
    if refusal == Refusal::Client && has_header {
        let basic = HeaderValue::from_static("Basic realm=\"oauth\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, basic);
    }
    response
}
