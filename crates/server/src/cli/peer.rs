//! The server that a command of this machine calls: its address, the token
//! for it, and the client that calls it. Follows no redirect, so that the token
//! reaches nobody else, and never prints the token.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, redirect};

use super::Failure;
use super::doctor::{Reached, sorted};
use crate::config::{Env, Flags};
use crate::exit_code::Exit;
use crate::output::terminal;
use crate::public_url::{host_of, normalise};

pub(crate) mod events;
pub(in crate::cli) mod refusal;

use refusal::quoted;

/// How long the connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may say nothing at all: longer than the longest run and
/// the longest wait for a place, which a server without streams passes in silence.
pub(super) const SILENCE: Duration = Duration::from_secs(360);
/// How often the system looks whether the other end is still there.
const ALIVE: Duration = Duration::from_secs(15);
/// How long a connection is kept for the next call: less than servers and
/// proxies keep it, so that no call meets its end.
const IDLE: Duration = Duration::from_secs(20);
/// Longest refusal that is read, in bytes.
pub(super) const REFUSAL: usize = 64 * 1024;
/// Longest answer, in bytes: output and small files, as JSON.
pub(super) const ANSWER: usize = 64 * 1024 * 1024;

/// A server and the token for it.
pub(super) struct Server {
    /// Without a trailing slash.
    pub(super) url: String,
    pub(super) token: Option<String>,
    /// What the calling command is called in the server's log.
    name: &'static str,
}

/// Returns an address in its one spelling; `source` is where it was given.
///
/// # Errors
/// When it is none.
pub(super) fn address(source: &str, url: &str) -> Result<String, Failure> {
    normalise(url).map_err(|problem| {
        let url = terminal::printable(url);
        usage(format!(
            "{source}: {url:?} {problem}. Give https://host, or http://127.0.0.1:8000 for this machine"
        ))
    })
}

/// Refuses settings of this machine, which a server elsewhere does not take.
///
/// # Errors
/// When there are any, naming the first.
pub(super) fn refuse_settings(flags: &Flags, url: &str) -> Result<(), Failure> {
    let Some(setting) = flags.0.keys().next() else {
        return Ok(());
    };
    let flag = setting.replace('_', "-");
    Err(usage(format!(
        "--{flag} is a setting of this machine, but {url} runs the program by its own; leave it out"
    )))
}

/// Says whether the token of the environment is for this server: beside
/// `CODEX_URL` it is for that one, and no other shall learn it.
pub(super) fn owns_token(url: &str, env: &Env) -> bool {
    env.get("CODEX_URL")
        .is_none_or(|usual| normalise(usual).is_ok_and(|usual| usual == url))
}

fn usage(message: String) -> Failure {
    Failure::text(Exit::Usage, message)
}

impl Server {
    /// Makes one of an address in its one spelling; `name` is what the calling
    /// command is called in the server's log.
    ///
    /// # Errors
    /// When the token fits no header.
    pub(super) fn new(
        url: String,
        token: Option<&str>,
        name: &'static str,
    ) -> Result<Self, Failure> {
        let token = token.map(|token| token.trim().to_owned());
        if token
            .as_ref()
            .is_some_and(|token| token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(usage(
                "the token holds something else than letters, digits and signs; copy it again"
                    .to_owned(),
            ));
        }
        Ok(Self { url, token, name })
    }

    /// Whether somebody on the way could read the token.
    pub(super) fn is_unprotected(&self) -> bool {
        self.url.starts_with("http://") && !self.is_loopback()
    }

    fn is_loopback(&self) -> bool {
        host_of(&self.url).is_some_and(|host| {
            host == "localhost"
                || host
                    .parse()
                    .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        })
    }

    /// Makes the client that calls it.
    ///
    /// # Errors
    /// When TLS cannot be prepared.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        // A second installation changes nothing, which is fine.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tcp_keepalive(ALIVE)
            .pool_idle_timeout(IDLE)
            .user_agent(format!("{}/{}", self.name, env!("CARGO_PKG_VERSION")));
        if self.is_loopback() {
            builder = builder.no_proxy();
        }
        builder
            .build()
            .map_err(|error| Failure::new(Exit::Failed, error))
    }

    /// Says why a call did not get through, and what to do about it.
    pub(super) fn failed(&self, error: &reqwest::Error) -> Failure {
        let host = host_of(&self.url).unwrap_or(&self.url);
        Failure::text(
            Exit::Failed,
            match sorted(error) {
                Reached::NoName => format!("the name {host} has no address (DNS); check --url"),
                Reached::Refused => format!(
                    "{} refuses connections: is the server running, and on that port?",
                    self.url
                ),
                Reached::Silent => format!(
                    "{host} does not answer in time: check the address, the firewall, and whether the server runs"
                ),
                Reached::Tls(reason) => format!(
                    "the connection to {host} cannot be secured: {}. It needs a certificate of a public authority for this very name; plain http only for this machine",
                    quoted(&reason)
                ),
                Reached::Reply(_) => format!("{host} answered something else than HTTP"),
                Reached::Broken(reason) => {
                    format!("calling {} failed: {}", self.url, quoted(&reason))
                }
            },
        )
    }
}

/// Returns the media type of an answer in lower case, without parameters; empty
/// where it has none.
pub(super) fn media_type(response: &Response) -> String {
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// Returns the cause at the bottom of an error.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
