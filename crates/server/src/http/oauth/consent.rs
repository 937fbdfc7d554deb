//! The page on which a person lets a client in. Anybody may register under any
//! name, so the host that gets the answer is what is shown; where nobody knows
//! whose that is, it has to be typed. The token comes in the body of a form and is
//! kept nowhere. The page keeps its opener, which some clients wait for: an opener
//! reads nothing here, but may lead the window elsewhere, so the address bar is what
//! tells whose page it is.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::{BadForm, Visit, asking, form};
use crate::auth::{Principal, Scope};
use crate::http::pages;
use crate::http::state::Shared;
use crate::oauth::authorize::{self, Answer, Asked, Stop, Trust, document_host};
use crate::oauth::client::Client;
use crate::oauth::params::Params;
use crate::oauth::secret::{Kind, Secret};
use crate::oauth::{CODE_TIME, GRANT_TIME, OFFERED, now, words};
use crate::store::oauth::NewGrant;
use crate::telemetry::chain;

const PAGE: &str = include_str!("../pages/consent.html");
const STOPPED: &str = include_str!("../pages/stopped.html");
const ONWARD: &str = include_str!("../pages/onward.html");

/// Bytes of a request for a grant. The state may have 4096 bytes, and
/// percent-encoding makes three of each.
const QUERY_BYTES: usize = 20 * 1024;

/// Bytes of the form, in which the request stands encoded once more.
const FORM_BYTES: usize = 4 * QUERY_BYTES;

/// What is said of a token that is nobody's.
const BAD_TOKEN: &str = "This is no valid token of this server. Make one where the server runs: codex-server token create NAME --scope execute";

/// What browsers tell of a page with a form. By `no-referrer` they send it with
/// `Origin: null`, which says nothing of whose page it was on, and is refused.
const SAME_ORIGIN: &str = "same-origin";

/// What browsers tell of all other pages and answers.
const NOTHING: &str = "no-referrer";

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
        Ok(question) => page(&visit, &question, ""),
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
    let form = match form(&shared, &headers, body, FORM_BYTES).await {
        Ok(form) => form,
        Err(BadForm::Words(words)) => return stopped(StatusCode::BAD_REQUEST, words, None),
        Err(BadForm::Problem(problem)) => {
            let status = StatusCode::from_u16(problem.code.status());
            let status = status.unwrap_or(StatusCode::BAD_REQUEST);
            return stopped(status, &problem.detail, None);
        }
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
        return back(answer, &answer.url(&visit.site, &denied));
    }
    // A client's document may say something else by now. Our page always says what
    // it showed; who sends the form by a script agrees to what it asks.
    let shown = form.get("answer").unwrap_or(&answer.redirect);
    if shown != answer.redirect {
        let words = "What the client asks has changed. Look at it once more.";
        return page(&visit, &question, words);
    }
    let typed = form.get("host").unwrap_or_default().trim();
    if !answer.is_expected() && !typed.eq_ignore_ascii_case(answer.receiver.typed()) {
        let words = format!(
            "Type {} in the second field, exactly so.",
            answer.receiver.typed()
        );
        return page(&visit, &question, &words);
    }
    // As people copy it, out of a header or a file.
    let token = form.get("token").unwrap_or_default().trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    let token = token.trim_matches(['"', '\'', ' ']);
    let principal = match authenticate(&shared, &visit, token).await {
        Ok(Some(principal)) => principal,
        Ok(None) => return page(&visit, &question, BAD_TOKEN),
        Err(response) => return response,
    };
    let may = |scope: &Scope| principal.scopes.contains(scope);
    let scopes: Vec<Scope> = question.asked.scopes.iter().copied().filter(may).collect();
    if scopes.is_empty() {
        let words = "This token may do nothing of it itself.";
        return page(&visit, &question, words);
    }
    grant(&shared, &visit, &question, &principal, &scopes).await
}

/// Reads the request again, from the beginning.
async fn question(shared: &Shared, visit: &Visit, query: String) -> Result<Question, Response> {
    let stop = |status, words: &str| stopped(status, words, None);
    if query.len() > QUERY_BYTES {
        let words = "The client's request is too long.";
        return Err(stop(StatusCode::URI_TOO_LONG, words));
    }
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
    match authorize::check(
        &visit.site,
        &client,
        &params,
        &shared.app.config.oauth_hosts,
    ) {
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
            Err(back(&answer, &url))
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
    match shared.app.store.grant(&grant, now).await {
        Ok(true) => {}
        Ok(false) => {
            let words = "This token let in very many clients today. Take another, or revoke this one if that was not you.";
            return stopped(StatusCode::TOO_MANY_REQUESTS, words, None);
        }
        Err(error) => return failed(&error),
    }
    tracing::info!(
        host = %engine::quote(grant.host),
        key = principal.name,
        scopes = words(scopes),
        "a client was granted access"
    );
    let url = asked.answer.url(&visit.site, &[("code", code.reveal())]);
    let words = format!("{} may run code here now.", asked.answer.receiver.shown());
    onward(&asked.answer, &url, "Connected", &words)
}

/// Leads on to a client after a form: by a redirect where the form's policy names
/// the client, else by a page that goes on by itself.
fn onward(answer: &Answer, url: &str, heading: &str, words: &str) -> Response {
    if answer.form_sources().is_some() {
        return see_other(url);
    }
    let html = pages::filled(
        ONWARD,
        &[
            ("heading", heading),
            ("words", &escaped(words)),
            ("host", &escaped(answer.receiver.shown())),
            ("url", &escaped(url)),
        ],
    );
    guarded(Html(html).into_response(), "'none'", NOTHING)
}

/// Sends an answer that gives nothing: by itself to who is known, else by a link,
/// so that nobody makes this server lead people to any place (RFC 9700, 4.11.2).
fn back(answer: &Answer, url: &str) -> Response {
    if answer.is_expected() {
        return onward(answer, url, "Not connected", "Nothing was granted.");
    }
    if answer.receiver.is_app() {
        return stopped(StatusCode::BAD_REQUEST, "Nothing was granted.", None);
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
    guarded(response, "'none'", NOTHING)
}

/// The page that asks.
fn page(visit: &Visit, question: &Question, problem: &str) -> Response {
    let answer = &question.asked.answer;
    let host = escaped(answer.receiver.shown());
    let document = document_host(&question.id).map_or_else(String::new, |host| {
        format!("Its description is at {}.", escaped(host))
    });
    let who = match answer.trust {
        Trust::Local => "it".to_owned(),
        _ => host.clone(),
    };
    let local = match answer.trust {
        Trust::Local => {
            "<p>That is a program on the device that you sit at. Whoever asks you to copy the address that your browser shows next wants to run code in your name.</p>"
        }
        _ => "",
    };
    let typed = if answer.is_expected() {
        String::new()
    } else {
        format!(
            "<p><label>This server does not know {}. If you do, type it here once more<br><input name=\"host\" autocomplete=\"off\"></label></p>",
            escaped(answer.receiver.typed())
        )
    };
    let name = if question.client.name.is_empty() {
        "nothing"
    } else {
        &question.client.name
    };
    let problem = match problem {
        "" => String::new(),
        words => format!("<strong>{}</strong>", escaped(words)),
    };
    let html = pages::filled(
        PAGE,
        &[
            ("site", &escaped(visit.site.issuer())),
            ("host", &host),
            ("name", &escaped(name)),
            ("document", &document),
            ("local", local),
            ("answer", &escaped(&answer.redirect)),
            ("who", &who),
            ("scopes", &deeds(&question.asked.scopes)),
            ("problem", &problem),
            ("query", &escaped(&question.query)),
            ("typed", &typed),
        ],
    );
    // Browsers hold the redirect after a form against the form's policy.
    let source = match answer.form_sources() {
        Some(sources) => format!("'self' {sources}"),
        None => "'self'".to_owned(),
    };
    guarded(Html(html).into_response(), &source, SAME_ORIGIN)
}

/// What scopes mean, for a person.
fn deeds(scopes: &[Scope]) -> String {
    let deed = |scope: &Scope| match scope {
        Scope::Execute => "run code",
        other => other.as_str(),
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
    guarded((status, Html(html)).into_response(), "'none'", NOTHING)
}

/// Adds what keeps a page from being framed, kept, or told on.
fn guarded(mut response: Response, form_action: &str, referrer: &'static str) -> Response {
    let headers = response.headers_mut();
    match pages::policy(form_action) {
        Some(policy) => headers.insert(header::CONTENT_SECURITY_POLICY, policy),
        // Without its policy there is no page.
        None => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, referrer),
        (header::X_FRAME_OPTIONS, "DENY"),
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
        assert_eq!(deeds(&[Scope::Files, Scope::Execute]), "run code");
    }
}
