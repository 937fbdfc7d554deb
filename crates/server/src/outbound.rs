//! Calls to addresses that others name: a caller, a client, a document.
//!
//! Whoever may name one could otherwise make the server call any address that it
//! can reach itself (server-side request forgery). So only https, only hosts that
//! are listed, and only addresses of the public internet: the name is resolved
//! once for each connection and the connection made to what was checked, so that
//! no second answer of a name server counts. Proxies of the environment are not
//! used. Nothing else in this server may call what others name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
#[cfg(test)]
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect};

mod address;

use address::is_public;

/// Bytes of a URL.
const URL_BYTES: usize = 8192;

/// The port of https.
const HTTPS: u16 = 443;

/// A host that may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// In lower case, without a port.
    name: std::borrow::Cow<'static, str>,
    port: u16,
    /// Whether names below it count, and it itself does not.
    below: bool,
}

impl Host {
    /// Where ChatGPT keeps files.
    pub const OPENAI: Self = Self {
        name: std::borrow::Cow::Borrowed("oaiusercontent.com"),
        port: HTTPS,
        below: true,
    };

    /// Reads `host`, `host:port` or `*.domain`.
    ///
    /// # Errors
    /// With the words that follow the text in a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (name, port) = crate::public_url::split_authority(rest)?;
        if below && (!name.contains('.') || name.parse::<IpAddr>().is_ok()) {
            return Err("lets in a whole top-level domain; name one below it".to_owned());
        }
        Ok(Self {
            name: name.into(),
            port: port.unwrap_or(HTTPS),
            below,
        })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let named = if self.below {
            let above = host.strip_suffix(&*self.name);
            above.is_some_and(|above| above.len() > 1 && above.ends_with('.'))
        } else {
            host == self.name
        };
        named && port == self.port
    }
}

/// Why an address may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The URL is not one that may be called.
    #[error("{0}")]
    Url(&'static str),
    /// The host is not listed.
    #[error("is at a host that may not be called")]
    Host,
    /// The name leads to no address of the public internet.
    #[error("leads to an address that is not on the public internet")]
    Address,
}

/// The rules for what may be called.
#[derive(Clone)]
pub struct Guard {
    /// Hosts that may be called; any on the port of https, where none is listed.
    hosts: Option<Vec<Host>>,
    networks: Vec<IpNet>,
    /// Whether http will do. Only tests say so, to do without certificates.
    plain: bool,
    names: Names,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("hosts", &self.hosts)
            .field("networks", &self.networks)
            .finish_non_exhaustive()
    }
}

/// Where the addresses of a name come from.
#[derive(Clone)]
pub(crate) enum Names {
    System,
    #[cfg(test)]
    Fixed(Arc<Answer>),
}

/// What a name server under test says.
#[cfg(test)]
pub(crate) type Answer = dyn Fn(&str) -> Vec<SocketAddr> + Send + Sync;

impl Guard {
    /// Returns the rules that let through these hosts, at public addresses and in
    /// these networks.
    #[must_use]
    pub fn new(hosts: Vec<Host>, networks: Vec<IpNet>) -> Self {
        Self {
            hosts: Some(hosts),
            networks,
            ..Self::public()
        }
    }

    /// Returns the rules that let through every host at public addresses.
    #[must_use]
    pub fn public() -> Self {
        Self {
            hosts: None,
            networks: Vec::new(),
            plain: false,
            names: Names::System,
        }
    }

    /// Returns rules that let http through, with a name server of the test's own.
    #[cfg(test)]
    pub(crate) fn plain(hosts: Option<Vec<Host>>, networks: Vec<IpNet>, names: Names) -> Self {
        Self {
            hosts,
            networks,
            plain: true,
            names,
        }
    }

    /// Returns a client that connects to what may be called and to nothing else.
    /// It follows no redirect: where one leads is checked first.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        // A second installation changes nothing, which is fine.
        drop(rustls::crypto::ring::default_provider().install_default());
        let resolver = PublicNames {
            networks: self.networks.clone(),
            names: self.names.clone(),
        };
        let built = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .https_only(!self.plain)
            // A kept connection was checked too, but nothing is gained by it.
            .pool_max_idle_per_host(0)
            .dns_resolver(resolver)
            .user_agent(concat!("codex-server/", env!("CARGO_PKG_VERSION")))
            .build();
        built
            .inspect_err(|error| {
                tracing::error!(error = %chain(error), "failed to prepare for calls to other servers; is the package ca-certificates installed?");
            })
            .ok()
    }

    /// Checks everything about a URL but where its name leads.
    ///
    /// # Errors
    /// Why it may not be called.
    pub fn check(&self, text: &str) -> Result<Url, Forbidden> {
        if text.len() > URL_BYTES {
            return Err(Forbidden::Url("is longer than any URL of a file"));
        }
        let url = Url::parse(text).map_err(|_| Forbidden::Url("is not a URL"))?;
        self.check_parsed(&url)?;
        Ok(url)
    }

    /// Checks a URL as [`Guard::check`] does.
    ///
    /// # Errors
    /// Why it may not be called.
    pub fn check_parsed(&self, url: &Url) -> Result<(), Forbidden> {
        if url.scheme() != "https" && !(self.plain && url.scheme() == "http") {
            return Err(Forbidden::Url("is not an https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Forbidden::Url("holds a user name or password"));
        }
        let host = url.host_str().ok_or(Forbidden::Url("has no host"))?;
        let port = url.port_or_known_default().unwrap_or(HTTPS);
        let listed = match &self.hosts {
            Some(hosts) => hosts.iter().any(|listed| listed.matches(host, port)),
            None => self.plain || port == HTTPS,
        };
        if !listed {
            return Err(Forbidden::Host);
        }
        // An address is not resolved, so the resolver never sees it.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(ip) if !is_allowed(ip, &self.networks) => Err(Forbidden::Address),
            _ => Ok(()),
        }
    }
}

fn is_allowed(ip: IpAddr, networks: &[IpNet]) -> bool {
    is_public(ip) || networks.iter().any(|network| network.contains(&ip))
}

/// Resolves names, and gives out only addresses that may be connected to.
struct PublicNames {
    networks: Vec<IpNet>,
    names: Names,
}

/// A name leads to an address that nobody may be sent to.
#[derive(Debug, thiserror::Error)]
#[error("an address of the host is not on the public internet")]
struct NotPublic;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, networks) = (self.names.clone(), self.networks.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = match &names {
                Names::System => {
                    // The port is put in later.
                    tokio::net::lookup_host((name.as_str(), 0)).await?.collect()
                }
                #[cfg(test)]
                Names::Fixed(answer) => answer(name.as_str()),
            };
            // One bad address among good ones is no accident.
            if found.iter().any(|found| !is_allowed(found.ip(), &networks)) {
                return Err(NotPublic.into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// Says whether a call failed because its name leads where nobody may be sent.
pub(crate) fn led_astray(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.is::<NotPublic>())
}

/// The causes of an error, itself first.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// An error with its causes but without the URL, which is as good as a password.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let inner = causes(error).skip(1).map(ToString::to_string);
    inner.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
