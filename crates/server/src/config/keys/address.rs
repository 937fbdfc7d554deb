//! The settings of where the server is reached, and how long it lets callers wait.

use std::net::IpAddr;
use std::time::Duration;

use super::{Key, Kind, LONGEST, Reach, form, key, size};
use crate::config::value;
use crate::public_url;

/// ChatGPT gives an Action up after 45 s.
const ACTION_LONGEST: Duration = Duration::from_secs(44);

pub(super) const ADDRESS: &[Key] = &[
    key(
        "host",
        Reach::Serve,
        "127.0.0.1; all interfaces on Railway, Render and Fly or when PORT is set",
        Kind::Text(form("ADDRESS", "an IP address"), |s, v| {
            s.config.host = address(v)?;
            Ok(())
        }),
        "Address to listen on",
    ),
    key(
        "port",
        Reach::Serve,
        "8000",
        Kind::Count(0, 65_535, |s, v| {
            s.config.port = u16::try_from(v).unwrap_or(0)
        }),
        "Port to listen on; 0 lets the system choose. PORT is honoured after CODEX_PORT",
    ),
    key(
        "public_url",
        Reach::Serve,
        "that of Codespaces, Railway, Render or Fly; else each request's own",
        Kind::Text(form("URL", "http(s)://host[:port][/path]"), |s, v| {
            s.config.public_url = Some(public_url::normalise(v)?);
            Ok(())
        }),
        "The server's address as clients see it",
    ),
    key(
        "trusted_proxy",
        Reach::Serve,
        "none",
        Kind::List(
            form("NETWORK", "addresses or networks such as 10.1.0.0/16"),
            |s, v| {
                s.config.trusted_proxies.push(value::network(v)?);
                Ok(())
            },
        ),
        "Proxy, or network of proxies, whose Forwarded and X-Forwarded-* headers are believed",
    ),
    key(
        "max_connections",
        Reach::NoFlag,
        "1024",
        Kind::Count(1, 65_536, |s, v| s.config.connections = size(v)),
        "Connections at once",
    ),
    key(
        "client_timeout",
        Reach::NoFlag,
        "30 s",
        Kind::Time(Duration::from_secs(1), LONGEST, |s, v| {
            s.config.client_timeout = v
        }),
        "How long a client may take to send its headers, and again its body",
    ),
    key(
        "action_timeout",
        Reach::NoFlag,
        "40 s",
        Kind::Time(Duration::from_secs(3), ACTION_LONGEST, |s, v| {
            s.config.action_timeout = v
        }),
        "Time from the request of a ChatGPT Action, which gives up after 45 s, to its answer",
    ),
    key(
        "mcp_timeout",
        Reach::NoFlag,
        "50 s",
        Kind::Time(Duration::from_secs(3), LONGEST, |s, v| {
            s.config.mcp_timeout = v
        }),
        "Time from an MCP call, which some clients give up after 60 s, to its result",
    ),
    key(
        "idle_shutdown",
        Reach::Serve,
        "off",
        Kind::Text(
            form("TIME", "off, or 60 s to 30 days, such as 30m"),
            |s, v| {
                s.config.idle_shutdown = value::idle(v)?;
                Ok(())
            },
        ),
        "End the server after so long without a call that was let in and without a run; /health and /metrics do not count",
    ),
    key(
        "drain_grace",
        Reach::NoFlag,
        "8 s",
        Kind::Time(Duration::ZERO, Duration::from_secs(600), |s, v| {
            s.config.drain_grace = v
        }),
        "How long running jobs are waited for at shutdown; Docker kills after 10 s",
    ),
];

fn address(text: &str) -> Result<IpAddr, String> {
    let text = if text == "localhost" {
        "127.0.0.1"
    } else {
        text
    };
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| "is not an IP address such as 127.0.0.1, 0.0.0.0 or ::".to_owned())
}
