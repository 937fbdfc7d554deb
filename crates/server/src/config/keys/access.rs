//! The settings of who is let in, and how often.

use super::{Key, Kind, Reach, form, key, number};
use crate::config::{Access, value};
use crate::public_url;

pub(super) const ACCESS: &[Key] = &[
    key(
        "open",
        Reach::Serve,
        "false",
        Kind::Switch(|s, v| s.config.access = if v { Access::Open } else { Access::Token }),
        "Let everybody in without a token; loopback only unless a host is given",
    ),
    key(
        "rate_limit",
        Reach::Serve,
        "120/minute a key; 10/minute in all with open",
        Kind::Text(
            form(
                "RATE",
                "N/second, N/minute or N/hour with N from 1 to 1000000, or off",
            ),
            |s, v| {
                s.config.rate = value::rate(v)?;
                Ok(())
            },
        ),
        "Requests a key may make (open: everybody together)",
    ),
    key(
        "rate_burst",
        Reach::NoFlag,
        "a quarter of the rate, at least 10 or the whole rate",
        Kind::Count(1, 1_000_000, |s, v| s.rate_burst = Some(number(v))),
        "Requests that may come at once",
    ),
    key(
        "cors_origin",
        Reach::Serve,
        "none: browsers may not call",
        Kind::List(form("URL", "scheme://host[:port], or *"), |s, v| {
            s.config.cors_origins.push(public_url::origin(v)?);
            Ok(())
        }),
        "Origin that browsers may call from",
    ),
    key(
        "oauth_host",
        Reach::NoFlag,
        "none: chatgpt.com, claude.ai, claude.com and this machine are known",
        Kind::List(form("HOST", "a host name"), |s, v| {
            let (host, port) = public_url::split_authority(v)?;
            if port.is_some() {
                return Err("has a port; give the host alone".to_owned());
            }
            s.config.oauth_hosts.push(host);
            Ok(())
        }),
        "Host of OAuth clients that people need not type to let a client in",
    ),
    key(
        "oauth_client_keys",
        Reach::NoFlag,
        "false",
        Kind::Switch(|s, v| s.config.oauth_client_keys = v),
        "Offer OAuth clients with a document to sign in with their own keys (`private_key_jwt`)",
    ),
];
