//! `/docs`: this API, to be read and tried in a browser.
//!
//! The viewer is part of the binary. The page loads nothing from elsewhere and
//! its policy would not let it; scripts are files of this server, so nothing
//! that an answer holds can become one.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

/// Version of the viewer, see `docs/README.md`.
const VIEWER: &str = "5.35.0";

/// No script and no style but files of this server; pictures inside the style
/// sheet, and what the viewer makes of an answer; calls to this server alone.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The parts change with the version that their addresses carry.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// A part of the page.
struct Part {
    path: &'static str,
    content_type: &'static str,
    /// Compressed where the name in the repository says so.
    compressed: bool,
    content: &'static [u8],
}

/// What the page loads, and the licences of what is not ours.
const PARTS: [Part; 4] = [
    Part {
        path: "/docs/viewer.js",
        content_type: "text/javascript; charset=utf-8",
        compressed: true,
        content: include_bytes!("docs/viewer.js.gz"),
    },
    Part {
        path: "/docs/viewer.css",
        content_type: "text/css; charset=utf-8",
        compressed: true,
        content: include_bytes!("docs/viewer.css.gz"),
    },
    Part {
        path: "/docs/start.js",
        content_type: "text/javascript; charset=utf-8",
        compressed: false,
        content: include_bytes!("docs/start.js"),
    },
    Part {
        path: "/docs/licenses.txt",
        content_type: "text/plain; charset=utf-8",
        compressed: false,
        content: include_bytes!("docs/licenses.txt"),
    },
];

/// The addresses of the parts.
pub(super) fn paths() -> impl Iterator<Item = &'static str> + Clone {
    PARTS.iter().map(|part| part.path)
}

/// Interactive documentation
///
/// A page for people that shows this API and lets them try it.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "showDocs",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(super) async fn docs() -> Response {
    let html = include_str!("docs/page.html")
        .replace("{{viewer}}", VIEWER)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"));
    let mut response = Html(html).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// A part of the page, by its address.
pub(super) async fn part(uri: axum::http::Uri) -> Response {
    let Some(part) = PARTS.iter().find(|part| part.path == uri.path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static(part.content_type);
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, CACHE);
    if part.compressed {
        // Every browser takes it; there is no other form to offer.
        let gzip = HeaderValue::from_static("gzip");
        headers.insert(header::CONTENT_ENCODING, gzip);
    }
    (headers, part.content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_its_own_parts_only() {
        let page = include_str!("docs/page.html");
        let loaded = page
            .split(['"', '?'])
            .filter(|text| text.starts_with("docs/"));
        let loaded: Vec<String> = loaded.map(|path| format!("/{path}")).collect();
        assert_eq!(loaded.len(), 3);
        for path in &loaded {
            assert!(paths().any(|part| part == path), "{path}");
        }
        assert!(!page.contains("://") && !page.contains("<script>"));
        assert!(!include_str!("docs/start.js").contains("://"));
    }

    #[test]
    fn the_viewer_is_compressed_and_of_the_version_named() {
        for part in &PARTS {
            let is_gzip = part.content.starts_with(&[0x1f, 0x8b]);
            assert_eq!(is_gzip, part.compressed, "{}", part.path);
        }
        let origin = include_str!("docs/README.md");
        assert!(origin.contains(&format!("`swagger-ui-dist` {VIEWER} ")));
        assert!(include_str!("docs/licenses.txt").contains(VIEWER));
    }
}
