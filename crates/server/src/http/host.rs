//! Which `Host` and `Origin` headers are accepted: pure rules, no state.
//!
//! They stop a web page in somebody's browser from reaching this server by a
//! DNS name that its author points here (DNS rebinding), or by a form that
//! any page may post. They are no defence against a client that writes its
//! own headers; tokens are.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, Method, Uri, header};

use crate::api::error::quote;
use crate::api::{Code, Problem};
use crate::config::Access;
use crate::public_url;

/// In which relation the page that sends a request is to this server, as the
/// browser says.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the rules need to know of a server and a connection.
#[derive(Debug, Clone)]
pub(super) struct Rules<'a> {
    /// Who is let in.
    pub(super) access: Access,
    /// Names of the server besides loopback, without ports.
    pub(super) names: &'a [String],
    /// Origins that browsers may call from.
    pub(super) origins: &'a [String],
    /// Who called.
    pub(super) peer: IpAddr,
    /// The address that was called.
    pub(super) local: IpAddr,
    /// Whether the peer is a proxy whose forwarded headers are believed.
    pub(super) trusted: bool,
}

/// Why the address of a request cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHost {
    Missing,
    Repeated,
    Malformed,
}

impl BadHost {
    /// For the caller.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Missing => {
                "The Host header is missing. Send the name and port of this server in it."
            }
            Self::Repeated => "The Host header comes twice. Send it once.",
            Self::Malformed => {
                "The Host header is malformed. Send a name and an optional port, such as example.com:8000."
            }
        }
    }
}

/// The host name of a request, lower case, without port and brackets.
pub(super) fn host(uri: &Uri, headers: &HeaderMap) -> Result<String, BadHost> {
    if let Some(authority) = uri.authority() {
        return parse(authority.as_str());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = hosts.next().ok_or(BadHost::Missing)?;
    if hosts.next().is_some() {
        return Err(BadHost::Repeated);
    }
    let text = first.to_str().map_err(|_| BadHost::Malformed)?;
    parse(text)
}

/// The host that a trusted proxy was called at, when it says.
pub(super) fn forwarded_host(headers: &HeaderMap) -> Option<Result<String, BadHost>> {
    public_url::forwarded_host(headers).map(parse)
}

/// A name or address with an optional port, nothing else.
fn parse(text: &str) -> Result<String, BadHost> {
    let (host, _port) = public_url::split_authority(text).map_err(|_| BadHost::Malformed)?;
    let bare = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    Ok(bare.map_or_else(|| host.clone(), str::to_owned))
}

/// Whether a name or address means this very machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// Whether an address can be another machine's.
fn is_routable(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_loopback() && !ip.is_unspecified()
}

impl Rules<'_> {
    /// Checks the host; the error is for the caller.
    pub(super) fn check_host(&self, host: &str) -> Result<(), String> {
        let ours = self
            .names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(host));
        // An address cannot be rebound: a page has an address for a name only
        // if it came from there. It may be one that a port forwarder listens
        // on, so any will do for a connection from outside this machine.
        let literal = host.parse().is_ok_and(|ip: IpAddr| is_routable(ip));
        let ours = ours || (literal && is_routable(self.local));
        let loopback = is_loopback(host)
            && (self.access == Access::Open || self.peer.to_canonical().is_loopback());
        // With tokens a rebound page has none to send, so a proxy that is
        // trusted vouches for the name; in open mode it must be configured.
        let vouched = self.trusted && self.access == Access::Token;
        if ours || loopback || vouched {
            return Ok(());
        }
        Err(format!(
            "This server does not know itself as \"{}\". If clients should reach it by that name, start it with --public-url http(s)://{} (or CODEX_PUBLIC_URL).",
            quote(host),
            quote(host),
        ))
    }

    /// Checks that no foreign page sent an unsafe request, which its visitor's
    /// browser would do for it: by script, or by a plain form. `host` is the
    /// host of the request, checked before.
    ///
    /// # Errors
    /// 403 for a page of an origin that may not call, 415 for the body of a
    /// form where nothing tells whose page it was on.
    pub(super) fn check_page(
        &self,
        method: &Method,
        host: &str,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        // No page can send another's token: where one is shown, it was given.
        if self.access == Access::Token && headers.contains_key(header::AUTHORIZATION) {
            return Ok(());
        }
        let mut said = false;
        for origin in headers.get_all(header::ORIGIN) {
            said = true;
            self.check_origin(host, &String::from_utf8_lossy(origin.as_bytes()))?;
        }
        if said {
            return Ok(());
        }
        for site in headers.get_all(SEC_FETCH_SITE) {
            said = true;
            if !matches!(site.as_bytes(), b"same-origin" | b"none") {
                return Err(Problem::new(
                    Code::Forbidden,
                    "Pages of another site may not call this server in this way. Call it with a script that sends an Origin header, from an origin that the operator names in the setting cors_origin (CODEX_CORS_ORIGIN).",
                ));
            }
        }
        if self.access == Access::Open && !said && method == Method::POST {
            super::content_type::require_no_form(headers)?;
        }
        Ok(())
    }

    /// Checks the origin of a page.
    pub(super) fn check_origin(&self, host: &str, origin: &str) -> Result<(), Problem> {
        let listed = self.origins.iter().any(|o| o == "*" || o == origin);
        let page = origin
            .split_once("://")
            .and_then(|(_, authority)| parse(authority).ok());
        let known = page.as_deref().is_some_and(|page| {
            let named = self
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(page));
            named || page == host || is_loopback(page)
        });
        if listed || known {
            return Ok(());
        }
        Err(Problem::new(
            Code::Forbidden,
            format!(
                "Pages of the host \"{}\" may not call this server. If they should, name their origin in the setting cors_origin (CODEX_CORS_ORIGIN).",
                quote(page.as_deref().unwrap_or(origin)),
            ),
        ))
    }
}

#[cfg(test)]
#[path = "host/tests.rs"]
mod tests;
