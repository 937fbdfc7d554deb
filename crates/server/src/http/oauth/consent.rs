//! The page on which a person lets a client in. Anybody may register under any
//! name, so the host that gets the answer is what is shown; where nobody knows
//! whose that is, it has to be typed. The token comes in the body of a form and is
//! kept nowhere.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::{Visit, asking, form};
use crate::auth::{Principal, Scope};
use crate::http::pages;
use crate::http::state::Shared;
use crate::oauth::authorize::{self, Answer, Asked, Stop};
use crate::oauth::client::Client;
use crate::oauth::params::Params;
use crate::oauth::secret::{Kind, Secret};
use crate::oauth::{CODE_TIME, GRANT_TIME, OFFERED, now, words};
use crate::store::oauth::NewGrant;
use crate::telemetry::chain;

const PAGE: &str = include_str!("../pages/consent.html");
const STOPPED: &str = include_str!("../pages/stopped.html");

/// A request that is put before a person, with its client.
struct Question {
    query: String,
    id: String,
    client: Client,
    asked: Asked,
}

/// `GET /oauth/authorize`: asks the person.
pub(in crate::http) async fn ask(
    State(shared): State<Arc<Shared>>,
    visit: Visit,
    RawQuery(query): RawQuery,
) -> Response {
    match question(&shared, &visit, query.unwrap_or_default()).await {
        Ok(question) => page(&shared, &visit, &question, ""),
        Err(response) => response,
    }
}

/// `POST /oauth/authorize`: the person has decided. Nothing was remembered: all of
/// the request is checked again.
pub(in crate::http) async fn agree(
    State(shared): State<Arc<Shared>>,
    visit: Visit,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = match form(&shared, &headers, body).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let query = form.get("query").unwrap_or_default().to_owned();
    let question = match question(&shared, &visit, query).await {
        Ok(question) => question,
        Err(response) => return response,
    };
    let answer = &question.asked.answer;
    if form.get("decision") != Some("allow") {
        let denied = [
            ("error", "access_denied"),
            ("error_description", "the person said no"),
        ];
        return back(&shared, answer, &answer.url(&visit.site, &denied));
    }
    let is_known = answer.receiver.is_known(&shared.app.config.oauth_hosts);
    let typed = form.get("host").unwrap_or_default().trim();
    if !is_known && !typed.eq_ignore_ascii_case(answer.receiver.shown()) {
        return page(
            &shared,
            &visit,
            &question,
            "The host was not typed as it stands above.",
        );
    }
    let token = form.get("token").unwrap_or_default().trim();
    let principal = match authenticate(&shared, &visit, token).await {
        Ok(Some(principal)) => principal,
        Ok(None) => return page(&shared, &visit, &question, "This token is not good."),
        Err(response) => return response,
    };
    let may = |scope: &Scope| principal.scopes.contains(scope);
    let scopes: Vec<Scope> = question.asked.scopes.iter().copied().filter(may).collect();
    if scopes.is_empty() {
        return page(
            &shared,
            &visit,
            &question,
            "This token may do nothing of it itself.",
        );
    }
    grant(&shared, &visit, &question, &principal, &scopes).await
}

/// Reads the request again, from the beginning.
async fn question(shared: &Shared, visit: &Visit, query: String) -> Result<Question, Response> {
    let stop = |status, words: &str| stopped(status, words, None);
    let params = match Params::parse(query.as_bytes()) {
        Ok(params) => params,
        Err(why) => {
            return Err(stop(
                StatusCode::BAD_REQUEST,
                &format!("The client's request is not good: {}.", why.words()),
            ));
        }
    };
    let Some(id) = params.get("client_id").map(str::to_owned) else {
        return Err(stop(
            StatusCode::BAD_REQUEST,
            "The client does not say who it is.",
        ));
    };
    let client = match asking(shared, visit, &id).await {
        Ok(client) => client,
        Err((status, words)) => return Err(stop(status, &words)),
    };
    match authorize::check(&visit.site, &client, &params) {
        Ok(asked) => Ok(Question {
            query,
            id,
            client,
            asked,
        }),
        Err(Stop::Page(words)) => Err(stop(StatusCode::BAD_REQUEST, words)),
        Err(Stop::Back(answer, code, words)) => {
            let url = answer.url(
                &visit.site,
                &[("error", code), ("error_description", words)],
            );
            Err(back(shared, &answer, &url))
        }
    }
}

/// Finds whose a token is; none where it is nobody's. Wrong ones count as anywhere.
async fn authenticate(
    shared: &Shared,
    visit: &Visit,
    token: &str,
) -> Result<Option<Principal>, Response> {
    match shared.app.store.authenticate(token).await {
        Ok(Ok(principal)) => Ok(Some(principal)),
        Ok(Err(_)) => {
            let now = Instant::now();
            if shared.failures.over(visit.ip, now).is_some() {
                let words = "Too many wrong tokens came from this address. Wait a minute.";
                return Err(stopped(StatusCode::TOO_MANY_REQUESTS, words, None));
            }
            shared.failures.note(visit.ip, now);
            Ok(None)
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "failed to check a token");
            let words = "The server cannot check the token now. Try again.";
            Err(stopped(StatusCode::SERVICE_UNAVAILABLE, words, None))
        }
    }
}

/// Notes the grant, and sends its code.
async fn grant(
    shared: &Shared,
    visit: &Visit,
    question: &Question,
    principal: &Principal,
    scopes: &[Scope],
) -> Response {
    let failed = |error: &dyn std::error::Error| {
        tracing::error!(error = %chain(error), "failed to note a grant");
        let words = "The server cannot note your decision now. Try again.";
        stopped(StatusCode::SERVICE_UNAVAILABLE, words, None)
    };
    let code = match Secret::generate(Kind::Code) {
        Ok(code) => code,
        Err(error) => return failed(&error),
    };
    let (asked, now) = (&question.asked, now());
    let grant = NewGrant {
        client: &question.id,
        key: principal.key(),
        host: asked.answer.receiver.shown(),
        scopes,
        resource: &visit.site.resource(),
        ends_at: now + GRANT_TIME,
        code_hash: &code.hash(),
        code_ends_at: now + CODE_TIME,
        redirect: &asked.answer.redirect,
        redirect_sent: asked.redirect_sent,
        challenge: &asked.challenge,
    };
    if let Err(error) = shared.app.store.grant(&grant, now).await {
        return failed(&error);
    }
    tracing::info!(
        host = %engine::quote(grant.host),
        key = principal.name,
        scopes = words(scopes),
        "a client was granted access"
    );
    see_other(&asked.answer.url(&visit.site, &[("code", code.reveal())]))
}

/// Sends an answer that gives nothing: by itself to who is known, else by a link,
/// so that nobody makes this server lead people to any place (RFC 9700, 4.11.2).
fn back(shared: &Shared, answer: &Answer, url: &str) -> Response {
    if answer.receiver.is_known(&shared.app.config.oauth_hosts) {
        return see_other(url);
    }
    let words = "Nothing was granted. The client can be told so:";
    stopped(
        StatusCode::BAD_REQUEST,
        words,
        Some((answer.receiver.shown(), url)),
    )
}

fn see_other(url: &str) -> Response {
    let Ok(location) = HeaderValue::try_from(url) else {
        return stopped(
            StatusCode::BAD_REQUEST,
            "The answer's address fits no header.",
            None,
        );
    };
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    guarded(response, "'none'")
}

/// The page that asks.
fn page(shared: &Shared, visit: &Visit, question: &Question, problem: &str) -> Response {
    let receiver = &question.asked.answer.receiver;
    let host = escaped(receiver.shown());
    let document = question
        .id
        .strip_prefix("https://")
        .and_then(|rest| rest.split('/').next());
    let document = document.map_or_else(String::new, |host| {
        format!("Its description is at {}.", escaped(host))
    });
    let typed = if receiver.is_known(&shared.app.config.oauth_hosts) {
        String::new()
    } else {
        format!(
            "<p><label>This server does not know whose {host} is. If you do, type it here once more<br><input name=\"host\" size=\"56\" autocomplete=\"off\"></label></p>"
        )
    };
    let name = if question.client.name.is_empty() {
        "nothing"
    } else {
        &question.client.name
    };
    let problem = match problem {
        "" => String::new(),
        words => format!("<strong>{words}</strong>"),
    };
    let html = pages::filled(
        PAGE,
        &[
            ("site", &escaped(visit.site.issuer())),
            ("host", &host),
            ("name", &escaped(name)),
            ("document", &document),
            ("scopes", &deeds(&question.asked.scopes)),
            ("problem", &problem),
            ("query", &escaped(&question.query)),
            ("typed", &typed),
        ],
    );
    // Chromium holds the redirect after a form against the form's policy.
    let source = format!("'self' {}", receiver.source());
    guarded(Html(html).into_response(), &source)
}

/// What scopes mean, for a person.
fn deeds(scopes: &[Scope]) -> String {
    let deed = |scope: &Scope| match scope {
        Scope::Execute => "run code",
        Scope::Sessions => "keep programs and files between runs",
        Scope::Files => "delete and change your files here",
        _ => "run code in the background",
    };
    let deeds: Vec<&str> = OFFERED
        .iter()
        .filter(|scope| scopes.contains(scope))
        .map(deed)
        .collect();
    deeds.join(", ")
}

/// A page that says why nothing comes of it.
fn stopped(status: StatusCode, words: &str, link: Option<(&str, &str)>) -> Response {
    let link = link.map_or_else(String::new, |(host, url)| {
        format!(
            "<a href=\"{}\" rel=\"noreferrer\">Back to {}</a>",
            escaped(url),
            escaped(host)
        )
    });
    let html = pages::filled(STOPPED, &[("words", &escaped(words)), ("link", &link)]);
    guarded((status, Html(html)).into_response(), "'none'")
}

/// Adds what keeps a page from being framed, kept, or told on.
fn guarded(mut response: Response, form_action: &str) -> Response {
    let headers = response.headers_mut();
    match pages::policy(form_action) {
        Some(policy) => headers.insert(header::CONTENT_SECURITY_POLICY, policy),
        // Without its policy there is no page.
        None => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        // By `no-referrer` browsers send the form with `Origin: null`, which says
        // nothing of whose page it was on, and is refused.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns a text that means nothing in HTML but itself.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '"' | '\'' | '`' | '{' | '}' => {
                write!(safe, "&#{};", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_nothing_in_html() {
        assert_eq!(
            escaped("a<b>&\"'{{x}}"),
            "a&#60;b&#62;&#38;&#34;&#39;&#123;&#123;x&#125;&#125;"
        );
        assert_eq!(
            deeds(&[Scope::Files, Scope::Execute]),
            "run code, delete and change your files here"
        );
    }
}
