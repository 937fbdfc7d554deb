//! The two pages for people: where things are, and what becomes of data.
//!
//! They load nothing from anywhere, and their policy lets nothing be loaded.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use super::connection::Connection;
use super::state::Shared;
use crate::app::App;
use crate::config::Access;
use crate::public_url::of_request;
use crate::tunnel::{self, Condition};

/// The style of both pages.
const STYLE: &str = include_str!("pages/style.css");
const INDEX: &str = include_str!("pages/index.html");
const PRIVACY: &str = include_str!("pages/privacy.html");

/// What the start page says about tokens: a line of the example, a sentence
/// after it, and what to choose in ChatGPT.
const TOKEN_TEXTS: [&str; 3] = [
    "  -H \"Authorization: Bearer YOUR_TOKEN\" \\\n",
    "The operator makes a token with <code>codex-server token create NAME</code>.",
    "<em>API key</em>, <em>Bearer</em>, and paste the token",
];
const OPEN_TEXTS: [&str; 3] = [
    "",
    "This server runs without tokens: whoever reaches it may run code.",
    "<em>None</em>",
];

/// Allows the one inline style by its hash, and nothing else.
static POLICY: LazyLock<HeaderValue> =
    LazyLock::new(|| policy("'none'").expect("a hash in Base64 is plain ASCII"));

/// Returns the policy of a page whose form may end at some places; `None` where
/// these fit no header.
pub(super) fn policy(form_action: &str) -> Option<HeaderValue> {
    let hash = BASE64.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action {form_action}; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).ok()
}

/// Start page
///
/// A page for people that links to everything else.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "showIndex",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(super) async fn index(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
) -> Response {
    let App { engine, config, .. } = &*shared.app;
    // A URL that is put together here holds no character that HTML knows.
    let url = of_request(config, connection.peer.ip(), &headers);
    let languages = engine.languages().into_iter();
    let languages: Vec<String> = languages
        .filter(|language| language.available)
        .map(|language| language.title)
        .collect();
    let languages = match languages.as_slice() {
        [] => "none yet".to_owned(),
        some => some.join(", "),
    };
    let [token_line, token_words, chatgpt_auth] = match config.access {
        Access::Token => TOKEN_TEXTS,
        Access::Open => OPEN_TEXTS,
    };
    page(
        INDEX,
        &[
            ("url", &url),
            ("languages", &languages),
            ("isolation", engine.isolation().as_str()),
            ("token_line", token_line),
            ("token_words", token_words),
            ("chatgpt_auth", chatgpt_auth),
            ("tunnel", &tunnel_words(shared.app.tunnel.as_ref())),
        ],
    )
}

/// Privacy page
///
/// Says what this server does with code and data.
#[utoipa::path(
    get,
    path = "/privacy",
    operation_id = "showPrivacy",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(super) async fn privacy(State(shared): State<Arc<Shared>>) -> Response {
    let artifacts = &shared.app.config.artifacts;
    let kept = if artifacts.bytes == 0 || artifacts.count == 0 {
        "This server keeps no files.".to_owned()
    } else {
        format!(
            "Files that a program leaves in its working directory are kept on this machine for at most {}, so that they can be downloaded by the link in the answer or with the token of the run. Whoever has the link can download the file until then.",
            in_words(artifacts.lifetime)
        )
    };
    page(PRIVACY, &[("kept", &kept)])
}

/// Says how the tunnel is, to anybody: not which one it is, and not what is wrong.
fn tunnel_words(tunnel: Option<&tunnel::Status>) -> String {
    let Some(condition) = tunnel.map(tunnel::Status::get) else {
        return "ChatGPT reaches a server by OpenAI's tunnel, without a public port; this one has none yet.".to_owned();
    };
    let state = condition.as_str();
    let told = match condition {
        Condition::Ready | Condition::Connecting => "",
        Condition::Unreachable(_) | Condition::Refused(_) | Condition::Revoked => {
            " The server's log and <code>codex-server doctor</code> say what to do."
        }
    };
    let reaches = if told.is_empty() {
        "reaches"
    } else {
        "cannot reach"
    };
    format!(
        "ChatGPT {reaches} this server by OpenAI's tunnel: it is <strong>{state}</strong>.{told}"
    )
}

/// A time as people say it: exact to the minute, or to the second if short.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        3600 => "one hour".to_owned(),
        seconds if seconds < 120 => format!("{seconds} seconds"),
        seconds if seconds % 3600 == 0 => format!("{} hours", seconds / 3600),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// Returns a page with the words filled in; all of them are ours, plain or
/// escaped already.
pub(super) fn filled(body: &str, words: &[(&str, &str)]) -> String {
    let mut html = body
        .replace("{{style}}", STYLE)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{repository}}", env!("CARGO_PKG_REPOSITORY"));
    for (name, word) in words {
        html = html.replace(&format!("{{{{{name}}}}}"), word);
    }
    html
}

fn page(body: &str, words: &[(&str, &str)]) -> Response {
    let mut response = Html(filled(body, words)).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_words() {
        for (seconds, expected) in [
            (2, "2 seconds"),
            (90, "90 seconds"),
            (600, "10 minutes"),
            (601, "11 minutes"),
            (3600, "one hour"),
            (5400, "90 minutes"),
            (86_400, "24 hours"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), expected);
        }
    }
}
