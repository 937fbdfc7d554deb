//! An OAuth 2.1 authorization server, for clients of the Model Context Protocol
//! that take nothing else: ChatGPT by a public address, Claude, and others.
//!
//! A person who holds a token of this server grants a client part of what the
//! token may do, at `/mcp` alone, for a while. Registration is open, so nothing
//! that a client says of itself is believed. Reads and decides here; `http/oauth`
//! mounts it, `store/oauth` keeps hashes.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::auth::Scope;
use crate::config::{Access, Config};
use crate::public_url::{host_of, of_request};

pub(crate) mod assertion;
pub(crate) mod authorize;
pub(crate) mod client;
pub(crate) mod clients;
mod keys;
pub(crate) mod metadata;
pub(crate) mod params;
mod redirect;
pub(crate) mod secret;
pub(crate) mod token;

/// What a client can be granted: what the tools of `/mcp` need.
pub(crate) const OFFERED: [Scope; 1] = [Scope::Execute];

/// How long a code is good, in milliseconds.
pub(crate) const CODE_TIME: i64 = 60 * 1000;

/// How long an access token is good, in milliseconds.
pub(crate) const ACCESS_TIME: i64 = 3600 * 1000;

/// How long a grant is good, in milliseconds.
pub(crate) const GRANT_TIME: i64 = 90 * 24 * 3600 * 1000;

/// Hosts of which people know whose they are, each with the path at which it takes
/// answers; all below it, where it ends with a slash. Of OpenAI's and Anthropic's
/// pages for developers.
const KNOWN: [(&str, &str); 4] = [
    ("chatgpt.com", "/connector_platform_oauth_redirect"),
    ("chatgpt.com", "/connector/oauth/"),
    ("claude.ai", "/api/mcp/auth_callback"),
    ("claude.com", "/api/mcp/auth_callback"),
];

/// The server's address, as OAuth names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    base: String,
}

impl Site {
    /// Returns the address of the server for a request; `None` where there is no
    /// OAuth: in open mode, at a name that nobody vouches for, and by plain http
    /// from elsewhere.
    pub(crate) fn of(config: &Config, peer: IpAddr, headers: &HeaderMap) -> Option<Self> {
        if config.access == Access::Open {
            return None;
        }
        let base = of_request(config, peer, headers);
        let host = host_of(&base).unwrap_or_default();
        let is_local = host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        let vouched = config.public_url.is_some() || config.trusts(peer);
        // Elsewhere a token would be typed into a page that anybody on the way reads.
        let is_secure = base.starts_with("https://");
        (is_local || (vouched && is_secure)).then_some(Self { base })
    }

    #[cfg(test)]
    pub(crate) fn at(base: &str) -> Self {
        Self {
            base: base.to_owned(),
        }
    }

    /// Returns the issuer, without a trailing slash.
    pub(crate) fn issuer(&self) -> &str {
        &self.base
    }

    /// Returns the address at which tokens are given.
    pub(crate) fn token_endpoint(&self) -> String {
        format!("{}/oauth/token", self.base)
    }

    /// Returns the resource that tokens are for.
    pub(crate) fn resource(&self) -> String {
        format!("{}/mcp", self.base)
    }
}

/// Says whether people know whose a host is.
pub(crate) fn is_known(host: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == host)
}

/// Returns the origins that people know, as policies write them.
fn known_origins() -> String {
    let mut hosts: Vec<&str> = KNOWN.iter().map(|(host, _)| *host).collect();
    hosts.dedup();
    let origins: Vec<String> = hosts.iter().map(|host| format!("https://{host}")).collect();
    origins.join(" ")
}

/// Says whether a known host takes answers at a path.
fn known_path(host: &str, path: &str) -> bool {
    KNOWN.iter().any(|(known, prefix)| {
        let below = prefix.ends_with('/') && path.len() > prefix.len() && path.starts_with(prefix);
        *known == host && (path == *prefix || below)
    })
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Reads scopes out of a request: words that are not offered are ignored, and
/// where none is left, all that is offered is meant.
fn scopes(text: Option<&str>) -> Vec<Scope> {
    let mut asked = Vec::new();
    for word in text.unwrap_or_default().split(' ') {
        if let Ok(scope) = word.parse()
            && OFFERED.contains(&scope)
            && !asked.contains(&scope)
        {
            asked.push(scope);
        }
    }
    if asked.is_empty() {
        asked.extend(OFFERED);
    }
    asked
}

/// Returns scopes as one text.
pub(crate) fn words(scopes: &[Scope]) -> String {
    let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_are_not_offered_are_ignored() {
        for (text, expected) in [
            (None, &OFFERED[..]),
            (Some("openid claudeai"), &OFFERED),
            (Some("admin history"), &OFFERED),
            (Some("files execute execute x"), &[Scope::Execute]),
        ] {
            assert_eq!(scopes(text), expected, "{text:?}");
        }
        assert_eq!(words(&[Scope::Files, Scope::Execute]), "files execute");
    }

    #[test]
    fn hosts_are_known_by_their_whole_name() {
        for (host, known) in [
            ("chatgpt.com", true),
            ("claude.ai", true),
            ("chatgpt.com.evil.example", false),
            ("x.chatgpt.com", false),
            ("xn--chatgt-xyz.com", false),
        ] {
            assert_eq!(is_known(host), known, "{host}");
        }
    }
}
