//! `Forwarded` (RFC 7239) and `X-Forwarded-*`, read only from trusted
//! proxies. Of several values the last counts: the trusted peer added it,
//! those before it may be anybody's.

use axum::http::HeaderMap;

use super::normalise;

/// The URL that the proxy was called at; `None` when it did not say, or said
/// something that is no plain URL.
pub(super) fn url(headers: &HeaderMap, host: Option<&str>) -> Option<String> {
    let standard = last(headers, "forwarded").map(pairs).unwrap_or_default();
    let proto = standard
        .proto
        .or_else(|| last(headers, "x-forwarded-proto"));
    let forwarded_host = standard.host.or_else(|| legacy_host(headers));
    let prefix = last(headers, "x-forwarded-prefix").unwrap_or_default();
    if proto.is_none() && forwarded_host.is_none() {
        return None;
    }
    let (proto, host) = (proto.unwrap_or("http"), forwarded_host.or(host)?);
    if host.contains('/') || !(prefix.is_empty() || prefix.starts_with('/')) {
        return None;
    }
    normalise(&format!("{proto}://{host}{prefix}")).ok()
}

/// The host and port that the proxy was called at, when it says.
pub(crate) fn host(headers: &HeaderMap) -> Option<&str> {
    let standard = last(headers, "forwarded").and_then(|element| pairs(element).host);
    standard.or_else(|| legacy_host(headers))
}

fn legacy_host(headers: &HeaderMap) -> Option<&str> {
    last(headers, "x-forwarded-host")
}

/// The last element of the last header of that name.
fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    let element = value.rsplit(',').next()?.trim();
    (!element.is_empty()).then_some(element)
}

#[derive(Default)]
struct Standard<'a> {
    proto: Option<&'a str>,
    host: Option<&'a str>,
}

/// `for=…;proto=https;host="x.example:8443"`.
fn pairs(element: &str) -> Standard<'_> {
    let mut found = Standard::default();
    for (name, value) in element.split(';').filter_map(|pair| pair.split_once('=')) {
        let value = value.trim();
        let value = value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .unwrap_or(value);
        match name.trim().to_ascii_lowercase().as_str() {
            "proto" => found.proto = Some(value),
            "host" => found.host = Some(value),
            _ => {}
        }
    }
    found
}
