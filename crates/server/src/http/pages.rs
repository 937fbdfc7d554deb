//! The two pages for people: where things are, and what becomes of data.
//!
//! They load nothing from anywhere, and their policy lets nothing be loaded.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

/// The style of both pages.
const STYLE: &str = include_str!("pages/style.css");
const INDEX: &str = include_str!("pages/index.html");
const PRIVACY: &str = include_str!("pages/privacy.html");

/// Allows the one inline style by its hash, and nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("a hash in Base64 is plain ASCII")
});

/// Start page
///
/// A page for people that links to everything else.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "showIndex",
    tag = "pages",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(super) async fn index() -> Response {
    page(INDEX)
}

/// Privacy page
///
/// Says what this server does with code and data.
#[utoipa::path(
    get,
    path = "/privacy",
    operation_id = "showPrivacy",
    tag = "pages",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(super) async fn privacy() -> Response {
    page(PRIVACY)
}

fn page(body: &str) -> Response {
    let html = body
        .replace("{{style}}", STYLE)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{repository}}", env!("CARGO_PKG_REPOSITORY"));
    let mut response = Html(html).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}
