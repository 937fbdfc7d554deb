//! Which `Host` and `Origin` headers are accepted: pure rules, no state.
//!
//! They stop a web page in somebody's browser from reaching this server by a
//! DNS name that its author points here (DNS rebinding), or by a form that
//! any page may post. They are no defence against a client that writes its
//! own headers; tokens are.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header};

use crate::config::Access;
use crate::public_url;

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
            crate::api::error::quote(host),
            crate::api::error::quote(host),
        ))
    }

    /// Checks the origin of an unsafe request in open mode; the error is for the caller.
    pub(super) fn check_origin(&self, origin: &str) -> Result<(), String> {
        let listed = self.origins.iter().any(|o| o == "*" || o == origin);
        let host = origin
            .split_once("://")
            .and_then(|(_, authority)| parse(authority).ok());
        let known = host.is_some_and(|host| is_loopback(&host) || self.check_host(&host).is_ok());
        if listed || known {
            return Ok(());
        }
        Err(format!(
            "Pages of the origin \"{}\" may not call this open server. If they should, name that origin in the setting cors_origin (CODEX_CORS_ORIGIN), or run the server with tokens instead of --open.",
            crate::api::error::quote(origin),
        ))
    }
}

#[cfg(test)]
#[path = "host/tests.rs"]
mod tests;
