//! The server's address as clients see it: flag, host's environment, or
//! forwarded headers of a trusted proxy. What a client sends may reach a
//! document only after [`normalise`] found nothing in it but a plain URL.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::HeaderMap;
use axum::http::header::HOST;

use crate::config::Config;

mod forwarded;
mod platform;

pub(crate) use forwarded::host as forwarded_host;
pub use platform::Platform;

/// Longest host name that DNS allows.
const HOST_LIMIT: usize = 253;
/// Longest path prefix that is taken over.
const PATH_LIMIT: usize = 256;

/// The base URL to print into documents for this request, without a trailing
/// slash: the configured one, else what a trusted proxy forwarded, else the
/// request's own `Host` with `http`, else the address listened on.
#[must_use]
pub fn of_request(config: &Config, peer: IpAddr, headers: &HeaderMap) -> String {
    if let Some(url) = &config.public_url {
        return url.clone();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if config.trusts(peer)
        && let Some(url) = forwarded::url(headers, host)
    {
        return url;
    }
    host.and_then(|host| normalise(&format!("http://{host}")).ok())
        // Nothing but host and port may come out of a Host header.
        .filter(|url| url.matches('/').count() == 2)
        .unwrap_or_else(|| local(config))
}

/// The address that a browser or curl on this machine can use.
#[must_use]
pub fn local(config: &Config) -> String {
    let host = match config.host.to_canonical() {
        IpAddr::V4(host) if host.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(host) if host.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    };
    format!("http://{host}:{}", config.port)
}

/// The host names (without port, IPv6 without brackets) that requests may
/// carry in `Host`, besides loopback.
#[must_use]
pub fn accepted_hosts(config: &Config) -> Vec<String> {
    let public = config
        .public_url
        .as_deref()
        .and_then(host_of)
        .map(str::to_owned);
    let bound = config.host.to_canonical();
    let bound = (!bound.is_unspecified() && !bound.is_loopback()).then(|| bound.to_string());
    public.into_iter().chain(bound).collect()
}

/// The host of a normalised URL, without port and brackets.
#[must_use]
pub fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split('/').next()?;
    if let Some(v6) = authority.strip_prefix('[') {
        return v6.split(']').next();
    }
    authority.split(':').next()
}

/// A public URL in its one spelling: lower-case scheme and host, no default
/// port, no trailing slash.
///
/// # Errors
/// When it is not `http(s)://host[:port][/path]` or holds anything more.
pub fn normalise(text: &str) -> Result<String, String> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("has no scheme, such as https://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Err("is neither http nor https".to_owned()),
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (host, port) = split_authority(authority)?;
    let path = path_prefix(path)?;
    match port {
        Some(port) if port != default_port => Ok(format!("{scheme}://{host}:{port}{path}")),
        _ => Ok(format!("{scheme}://{host}{path}")),
    }
}

/// An origin that browsers may call from: `*` or `scheme://host[:port]`.
///
/// # Errors
/// When it holds a path or anything else.
pub fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let url = normalise(text)?;
    if url.matches('/').count() > 2 {
        return Err("holds a path, which an origin has not".to_owned());
    }
    Ok(url)
}

/// A host, in lower case or in brackets, and the port behind it: nothing else.
///
/// # Errors
/// With the words that follow the text in a message.
pub(crate) fn split_authority(authority: &str) -> Result<(String, Option<u16>), String> {
    const WRONG: &str = "has no plain host name or address";
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(WRONG)?;
        let address: Ipv6Addr = address.parse().map_err(|_| WRONG)?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or(WRONG)?),
        };
        (format!("[{address}]"), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        (plain_host(host).ok_or(WRONG)?, port)
    };
    let port = match port {
        None => None,
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|port: &u16| *port > 0);
            Some(port.ok_or("has a port out of range: 1 to 65535")?)
        }
        Some(_) => return Err("has a port that is not a number".to_owned()),
    };
    Ok((host, port))
}

/// Letters, digits, dots and hyphens: nothing that could mean anything in JSON, YAML, HTML or a shell.
fn plain_host(host: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let host = host.strip_suffix('.').unwrap_or(host);
    let fits = !host.is_empty() && host.len() <= HOST_LIMIT && host.bytes().all(plain);
    let labels = host
        .split('.')
        .all(|label| !label.is_empty() && label.len() <= 63);
    (fits && labels).then(|| host.to_ascii_lowercase())
}

fn path_prefix(path: &str) -> Result<&str, String> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b'/');
    let path = path.trim_end_matches('/');
    if path.len() > PATH_LIMIT || !path.bytes().all(plain) {
        return Err("holds more than a plain path after the host".to_owned());
    }
    if path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err("has an empty part, . or .. in its path".to_owned());
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
