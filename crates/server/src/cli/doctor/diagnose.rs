//! From what came back through the public URL to what is wrong and how to
//! mend it. Pure: a table of observations tests it.

use serde_json::Value;

use super::our_version;
use crate::config::Access;
use crate::public_url::{Platform, host_of};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// `GET /health` without the public URL.
    Local,
    /// `GET /health`, past a tunnel's warning page.
    Health,
    /// The same as ChatGPT would send it.
    HealthPlain,
    /// `POST /execute` with a token that cannot be right and no code.
    Execute,
    /// `GET /actions/openapi.json`.
    Actions,
    /// The document that tells MCP clients where to sign in.
    Resource,
    /// The document of the server where they sign in, which is this one.
    Authority,
    /// `POST /oauth/token` with nothing in it.
    Token,
    /// `POST /mcp` with a token that cannot be right.
    Mcp,
}

impl Probe {
    /// In that order: the first failure explains those after it.
    pub(super) const ALL: [Self; 9] = [
        Self::Local,
        Self::Health,
        Self::HealthPlain,
        Self::Execute,
        Self::Actions,
        Self::Resource,
        Self::Authority,
        Self::Token,
        Self::Mcp,
    ];

    /// Says whether it is of OAuth, which open servers lack.
    pub(super) fn is_of_oauth(self) -> bool {
        matches!(self, Self::Resource | Self::Authority | Self::Token)
    }

    /// What a person reads.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Local => "on this machine",
            Self::Health => "GET /health",
            Self::HealthPlain => "without headers",
            Self::Execute => "POST /execute",
            Self::Actions => "action schema",
            Self::Resource => "OAuth, resource",
            Self::Authority => "OAuth, server",
            Self::Token => "OAuth, tokens",
            Self::Mcp => "POST /mcp",
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Reached {
    /// An answer.
    Reply(Reply),
    /// The name has no address.
    NoName,
    /// The address refuses connections.
    Refused,
    /// Nothing came in time.
    Silent,
    /// The connection could not be secured.
    Tls(String),
    /// Something else.
    Broken(String),
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct Reply {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) content_type: String,
    /// `WWW-Authenticate`.
    pub(super) challenge: String,
    pub(super) body: String,
}

impl Reply {
    fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }

    fn is_html(&self) -> bool {
        self.content_type.starts_with("text/html")
            || self
                .body
                .trim_start()
                .to_ascii_lowercase()
                .starts_with("<!doctype html")
    }
}

/// What was called.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    /// The public URL.
    pub(super) url: &'a str,
    /// The hosting service.
    pub(super) platform: Option<&'a Platform>,
    /// The port that the server listens on.
    pub(super) port: u16,
    /// Whether callers need a token.
    pub(super) access: Access,
}

/// Something wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) problem: String,
    pub(super) cure: String,
}

fn finding(problem: impl Into<String>, cure: impl Into<String>) -> Option<Finding> {
    Some(Finding {
        problem: problem.into(),
        cure: cure.into(),
    })
}

/// What is wrong with the URL itself, before anybody calls it.
pub(super) fn diagnose_url(url: &str) -> Option<Finding> {
    let host = host_of(url).unwrap_or_default();
    let address = host.parse::<std::net::IpAddr>().ok();
    let private = match address {
        Some(std::net::IpAddr::V4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Some(std::net::IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unique_local(),
        None => host == "localhost" || host.ends_with(".local") || host.ends_with(".internal"),
    };
    if private {
        return finding(
            format!(
                "{host} is an address of this machine or network, which ChatGPT cannot reach, nor Claude"
            ),
            "name the public one: --public-url https://…",
        );
    }
    let Some(rest) = url.strip_prefix("https://") else {
        return finding(
            "it is plain http: ChatGPT calls https only, tokens would travel unprotected, and hosts that redirect to https turn a POST into a GET",
            format!(
                "--public-url https://{}, with a certificate at the proxy before this server",
                url.trim_start_matches("http://")
            ),
        );
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'))
    {
        return finding(
            "it names a port: ChatGPT calls port 443 only",
            "let the proxy answer on 443 and leave the port out of --public-url",
        );
    }
    None
}

/// What is wrong with what came back; `None` when it is as it should be.
pub(super) fn diagnose(target: &Target<'_>, probe: Probe, reached: &Reached) -> Option<Finding> {
    if probe == Probe::Local {
        return local(target, reached);
    }
    let host = host_of(target.url).unwrap_or(target.url);
    match reached {
        Reached::Reply(reply) => reply_to(target, probe, reply),
        Reached::NoName => finding(
            format!("the name {host} has no address (DNS)"),
            match target.platform {
                Some(Platform::Railway { .. }) => {
                    "make a public domain: Railway > service > Settings > Networking > Generate Domain"
                }
                Some(Platform::Fly { .. }) => {
                    "give the app an address: fly ips allocate-v4 --shared"
                }
                _ => {
                    "mend the name in --public-url, or make its DNS record and wait until it is known"
                }
            },
        ),
        Reached::Refused => finding(
            format!("{host} refuses connections"),
            match target.platform {
                Some(platform) => format!(
                    "{} must forward to port {}; start the server there",
                    platform.name(),
                    target.port
                ),
                None => format!(
                    "start the proxy on that machine, open the port in its firewall, and let it forward to port {}",
                    target.port
                ),
            },
        ),
        Reached::Silent => finding(
            format!("{host} does not answer in time"),
            "open the port in the firewall of the machine and of its provider; if this machine is behind a router, let that forward it, or use a tunnel",
        ),
        Reached::Tls(reason) => finding(
            format!("the connection to {host} cannot be secured: {reason}"),
            "give the proxy a certificate of a public authority for this very name (Caddy and most hosts make one by themselves); ChatGPT takes no self-signed one",
        ),
        Reached::Broken(reason) => finding(
            format!("calling {host} failed: {reason}"),
            "try again; if it stays, look at the proxy's own log",
        ),
    }
}

fn local(target: &Target<'_>, reached: &Reached) -> Option<Finding> {
    let ours = match reached {
        Reached::Reply(reply) => reply.json().as_ref().and_then(our_version).is_some(),
        _ => false,
    };
    if ours {
        return None;
    }
    finding(
        format!(
            "no codex-server answers on this machine's port {}",
            target.port
        ),
        "start it first (codex-server up), or say where it listens with --port",
    )
}

fn reply_to(target: &Target<'_>, probe: Probe, reply: &Reply) -> Option<Finding> {
    match reply.status {
        300..=399 => redirected(target, reply),
        403 if !reply.is_html() => finding(
            "the server refuses this host name (403): it was started with another public URL",
            format!("restart it with --public-url {}", target.url),
        ),
        404 => Some(not_found(target, probe, reply)),
        405 if probe == Probe::Execute => finding(
            "the POST arrived as something else (405): a proxy on the way redirects, which turns POST into GET",
            "call the https address that it redirects to: mend --public-url",
        ),
        429 => finding(
            "the server or its proxy is limiting calls (429)",
            "wait a minute and try again",
        ),
        401 | 403
            if !matches!(probe, Probe::Execute | Probe::Token | Probe::Mcp) || reply.is_html() =>
        {
            private_port(target, reply.status)
        }
        500..=599 => Some(bad_gateway(target, reply)),
        _ if reply.is_html() => interstitial(target, probe),
        _ => expected(target, probe, reply),
    }
}

fn expected(target: &Target<'_>, probe: Probe, reply: &Reply) -> Option<Finding> {
    let other = || {
        finding(
            format!(
                "another service answers at {} (status {}, {})",
                target.url,
                reply.status,
                shown_type(reply)
            ),
            format!(
                "let the proxy forward to this server's port {}, or mend --public-url",
                target.port
            ),
        )
    };
    match probe {
        Probe::Local => None,
        Probe::Health | Probe::HealthPlain => match reply.json().as_ref().and_then(our_version) {
            Some(_) => None,
            None => other(),
        },
        Probe::Execute => match (reply.status, target.access) {
            (401, Access::Token) | (400, Access::Open) => None,
            (200 | 400, Access::Token) => finding(
                "the server took a call with a wrong token: it runs in open mode, so anybody may run code on it",
                "restart it without --open",
            ),
            (401, Access::Open) => finding(
                "something asks for a token though the server is open",
                "ask the proxy, or restart the server with --open if that is meant",
            ),
            _ => other(),
        },
        Probe::Actions => {
            actions(target, reply).or_else(|| if reply.status == 200 { None } else { other() })
        }
        Probe::Resource => resource(target, reply),
        Probe::Authority => authority(target, reply),
        Probe::Token => match reply.json().as_ref().and_then(|told| told.get("error")) {
            Some(_) if matches!(reply.status, 400 | 401) => None,
            _ => other(),
        },
        Probe::Mcp if target.access == Access::Open => None,
        Probe::Mcp => mcp(target, reply),
    }
}

fn actions(target: &Target<'_>, reply: &Reply) -> Option<Finding> {
    let document = reply.json();
    let named = document
        .as_ref()
        .and_then(|document| document.pointer("/servers/0/url"))
        .and_then(Value::as_str);
    match named {
        Some(url) if url == target.url => None,
        Some(url) => finding(
            format!("the action schema names {url}, so ChatGPT would call that"),
            format!("restart the server with --public-url {}", target.url),
        ),
        None => finding(
            "what answers at /actions/openapi.json is no action schema",
            "let the proxy forward every path to this server",
        ),
    }
}

fn resource(target: &Target<'_>, reply: &Reply) -> Option<Finding> {
    let document = reply.json();
    let named = document
        .as_ref()
        .and_then(|document| document.get("resource"));
    match named.and_then(Value::as_str) {
        Some(resource) if resource.strip_suffix("/mcp") == Some(target.url) => None,
        Some(resource) => finding(
            format!("its OAuth is for {resource}: clients of another address are refused"),
            format!("restart the server with --public-url {}", target.url),
        ),
        None => finding(
            "what answers below /.well-known/ is not this server's, so MCP clients cannot sign in",
            "let the proxy forward every path to this server, /.well-known/ too",
        ),
    }
}

fn authority(target: &Target<'_>, reply: &Reply) -> Option<Finding> {
    let document = reply.json();
    let issuer = document
        .as_ref()
        .and_then(|document| document.get("issuer"));
    match issuer.and_then(Value::as_str) {
        Some(issuer) if issuer == target.url => None,
        Some(issuer) => finding(
            format!("its OAuth server calls itself {issuer}: clients refuse another name"),
            format!("restart the server with --public-url {}", target.url),
        ),
        None => finding(
            "what answers at /.well-known/oauth-authorization-server is not this server's, so MCP clients cannot sign in",
            "let the proxy forward every path to this server, /.well-known/ and /oauth/ too",
        ),
    }
}

fn mcp(target: &Target<'_>, reply: &Reply) -> Option<Finding> {
    let says = |words: &str| reply.challenge.contains(words);
    if reply.status != 401 {
        return finding(
            format!(
                "POST /mcp with a wrong token is answered with {}, not with 401",
                reply.status
            ),
            "let the proxy pass on /mcp as it comes, its Authorization header too",
        );
    }
    if !says("resource_metadata=") && target.url.starts_with("https://") {
        return finding(
            "a refusal at /mcp does not say where to sign in: something on the way drops WWW-Authenticate",
            "let the proxy pass on the headers of answers",
        );
    }
    if !says("invalid_token") && target.url.starts_with("https://") {
        return finding(
            "the token of a call to /mcp does not arrive: something on the way drops the Authorization header",
            "let the proxy pass on Authorization",
        );
    }
    None
}

fn redirected(target: &Target<'_>, reply: &Reply) -> Option<Finding> {
    let location = reply.location.as_deref().unwrap_or("nowhere");
    let sign_in = ["login", "signin", "sign-in", "/auth", "oauth"]
        .iter()
        .any(|word| location.contains(word));
    if sign_in {
        return private_port(target, reply.status);
    }
    let host = host_of(target.url).unwrap_or_default();
    if target.url.starts_with("http://")
        && location.starts_with("https://")
        && host_of(location) == Some(host)
    {
        return finding(
            format!(
                "plain http is redirected to https ({}), and a redirect turns POST into GET",
                reply.status
            ),
            format!(
                "--public-url https://{}",
                target.url.trim_start_matches("http://")
            ),
        );
    }
    finding(
        format!("it redirects ({}) to {}", reply.status, plain(location)),
        "name the address that answers itself in --public-url: ChatGPT's POST does not survive a redirect",
    )
}

fn private_port(target: &Target<'_>, status: u16) -> Option<Finding> {
    match target.platform {
        Some(Platform::Codespaces { name, .. }) => finding(
            format!("the port is private: Codespaces asks callers to sign in ({status})"),
            format!(
                "gh codespace ports visibility {}:public -c {name} (or PORTS tab > right-click > Port Visibility > Public; after each restart of the codespace again)",
                target.port
            ),
        ),
        _ => finding(
            format!("something before the server asks callers to sign in ({status})"),
            "switch off access control for this address at the proxy or host: the server checks tokens itself",
        ),
    }
}

fn not_found(target: &Target<'_>, probe: Probe, reply: &Reply) -> Finding {
    let ours = reply.content_type.starts_with("application/problem+json");
    let (problem, cure) = match target.platform {
        _ if ours => (
            format!("{} is not found there (404)", probe.name()),
            "leave the path out of --public-url, or let the proxy strip it".to_owned(),
        ),
        Some(Platform::Codespaces { name, .. }) => (
            "Codespaces does not forward this port (404)".to_owned(),
            format!(
                "start the server, then: gh codespace ports visibility {}:public -c {name}",
                target.port
            ),
        ),
        Some(Platform::Railway { .. }) => (
            "Railway knows no running service under this name (404)".to_owned(),
            "look whether the deployment is up, and whether the domain belongs to this service"
                .to_owned(),
        ),
        _ => (
            "nothing is found there (404)".to_owned(),
            format!(
                "let the proxy forward every path to port {}, or mend the path in --public-url",
                target.port
            ),
        ),
    };
    Finding { problem, cure }
}

fn bad_gateway(target: &Target<'_>, reply: &Reply) -> Finding {
    let problem = format!(
        "what stands before the server cannot reach it ({})",
        reply.status
    );
    let cure = match target.platform {
        Some(Platform::Codespaces { .. }) => format!(
            "start the server on port {}, the one that is forwarded",
            target.port
        ),
        Some(platform) => format!(
            "on {} the server must listen on all interfaces and on the port in PORT: leave --host and --port out",
            platform.name()
        ),
        None => format!(
            "let the proxy forward to 127.0.0.1:{}; from another machine or container the server needs --host 0.0.0.0",
            target.port
        ),
    };
    Finding { problem, cure }
}

fn interstitial(target: &Target<'_>, probe: Probe) -> Option<Finding> {
    if probe == Probe::HealthPlain {
        return finding(
            "a warning page stands before plain GETs; ChatGPT's POSTs pass it, people see it once in the browser",
            "nothing to do for Actions; to be rid of it use a host or tunnel without such a page",
        );
    }
    finding(
        format!(
            "a web page answers at {} in place of the server",
            target.url
        ),
        format!(
            "let the proxy forward to this server's port {}; if it is a tunnel's warning page, make the port public",
            target.port
        ),
    )
}

fn shown_type(reply: &Reply) -> String {
    let kind = reply.content_type.split(';').next().unwrap_or_default();
    if kind.is_empty() {
        "no content type".to_owned()
    } else {
        plain(kind)
    }
}

/// A stranger's text, fit for a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
