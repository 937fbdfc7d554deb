//! Files that a request names by URL: fetched by the server, within bounds.
//!
//! Whoever may run code could otherwise make the server call any address it
//! can reach itself (server-side request forgery). So only https, only hosts
//! that are listed, and only addresses of the public internet: the name is
//! resolved once for each connection and the connection made to what was
//! checked, so that no second answer of a name server counts. Proxies of the
//! environment are not used. A caller learns nothing of what lies behind a
//! refused address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::{FairPlace, FairPlaces, Owner};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use tokio::time::Instant;

mod address;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use address::is_public;

/// Redirects that are followed, each checked as the first address was.
const REDIRECTS: usize = 3;

/// Bytes of a URL.
const URL_BYTES: usize = 8192;

/// Requests at once that may hold fetched files in memory, from the first
/// byte until the end of the run; one more of a caller who has no other.
pub(crate) const AT_ONCE: usize = 8;

/// Requests that may wait for that.
pub(crate) const WAITING: usize = 64;

/// The port of https.
const HTTPS: u16 = 443;

/// What is fetched, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Hosts that files may come from, when configured; none at all switches
    /// fetching off. Else they come from where ChatGPT keeps them.
    pub given_hosts: Option<Vec<Host>>,
    /// Networks that are not public and may be reached all the same.
    pub networks: Vec<IpNet>,
    /// How long all files of a request may take together.
    pub time: Duration,
    /// Bytes of one file.
    pub file_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            given_hosts: None,
            networks: Vec::new(),
            time: Duration::from_secs(20),
            file_bytes: 10 * 1024 * 1024,
        }
    }
}

impl Bounds {
    /// Hosts that files may come from.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        self.given_hosts.as_deref().unwrap_or(&[Host::OPENAI])
    }
}

/// A host that files may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// In lower case, without a port.
    name: std::borrow::Cow<'static, str>,
    port: u16,
    /// Whether names below it count, and it itself does not.
    below: bool,
}

impl Host {
    /// Where the files of ChatGPT are.
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

/// Why a file was not fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The URL is not one that may be called.
    #[error("{0}")]
    Url(&'static str),
    /// The host is not listed.
    #[error("is at a host that files may not come from")]
    Host,
    /// The name leads to no address of the public internet.
    #[error("leads to an address that is not on the public internet")]
    Address,
    /// It redirects too often.
    #[error("redirects more than {REDIRECTS} times")]
    Redirects,
    /// The other side says no.
    #[error("was answered with status {0}")]
    Status(u16),
    /// There is more than fits.
    #[error("holds more than {0} bytes")]
    TooLarge(u64),
    /// It took too long.
    #[error("did not arrive in time")]
    Late,
    /// Too many requests fetch files now.
    #[error("could not be fetched: too many other files are being fetched")]
    Busy,
    /// No connection, or it broke.
    #[error("could not be fetched")]
    Broken,
}

/// Files that were fetched, and the right to hold them in memory: others wait
/// until this is dropped.
#[derive(Debug)]
pub struct Fetched {
    /// The contents, in the order asked for.
    pub files: Vec<Vec<u8>>,
    _place: FairPlace,
}

/// Fetches files.
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    bounds: Bounds,
    /// Made at the first use: most servers never fetch anything.
    client: OnceLock<Option<Client>>,
    places: FairPlaces,
    /// Whether http will do. Only tests say so, to do without certificates.
    plain: bool,
    names: Names,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fetcher").field(&self.inner.bounds).finish()
    }
}

/// Where the addresses of a name come from.
#[derive(Clone)]
enum Names {
    System,
    #[cfg(test)]
    Fixed(Arc<Answer>),
}

/// What a name server under test says.
#[cfg(test)]
type Answer = dyn Fn(&str) -> Vec<SocketAddr> + Send + Sync;

impl Fetcher {
    /// One that keeps to `bounds`.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self::with(bounds, false, Names::System)
    }

    fn with(bounds: Bounds, plain: bool, names: Names) -> Self {
        Self {
            inner: Arc::new(Inner {
                bounds,
                client: OnceLock::new(),
                places: FairPlaces::new(AT_ONCE, WAITING),
                plain,
                names,
            }),
        }
    }

    /// The bounds it keeps to.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.inner.bounds
    }

    /// Fetches files for an owner, one after the other until `deadline`, all
    /// together at most `total` bytes.
    ///
    /// # Errors
    /// The number of the first that cannot be had, and why.
    pub async fn fetch_all(
        &self,
        owner: &Owner,
        urls: &[&str],
        total: u64,
        deadline: Instant,
    ) -> Result<Fetched, (usize, Refused)> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let place = self.inner.places.enter(owner, patience).await;
        let place = place.map_err(|_| (0, Refused::Busy))?;
        let mut files: Vec<Vec<u8>> = Vec::with_capacity(urls.len());
        let mut left = total;
        for (at, url) in urls.iter().enumerate() {
            let room = left.min(self.inner.bounds.file_bytes);
            let fetched = tokio::time::timeout_at(deadline, self.fetch(url, room)).await;
            let content = fetched
                .unwrap_or(Err(Refused::Late))
                .map_err(|refused| (at, refused))?;
            left = left.saturating_sub(content.len() as u64);
            files.push(content);
        }
        Ok(Fetched {
            files,
            _place: place,
        })
    }

    async fn fetch(&self, url: &str, room: u64) -> Result<Vec<u8>, Refused> {
        let mut url = self.inner.check(url)?;
        for _ in 0..=REDIRECTS {
            let response = self.call(url.clone()).await?;
            match self.inner.next(&url, &response)? {
                Some(next) => url = next,
                None => return read(response, room).await,
            }
        }
        Err(Refused::Redirects)
    }

    async fn call(&self, url: Url) -> Result<Response, Refused> {
        let client = self.inner.client.get_or_init(|| self.inner.client());
        let client = client.as_ref().ok_or(Refused::Broken)?;
        let request = client.get(url).header(header::ACCEPT, "*/*");
        request.send().await.map_err(|error| {
            tracing::debug!(error = %chain(&error), "failed to fetch a file");
            let refused = causes(&error).any(|cause| cause.is::<NotPublic>());
            if refused {
                Refused::Address
            } else {
                Refused::Broken
            }
        })
    }
}

impl Inner {
    fn client(&self) -> Option<Client> {
        // A second installation changes nothing, which is fine.
        drop(rustls::crypto::ring::default_provider().install_default());
        let guard = Guard {
            networks: self.bounds.networks.clone(),
            names: self.names.clone(),
        };
        let built = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .https_only(!self.plain)
            // A kept connection was checked too, but nothing is gained by it.
            .pool_max_idle_per_host(0)
            .dns_resolver(guard)
            .user_agent(concat!("codex-server/", env!("CARGO_PKG_VERSION")))
            .build();
        built
            .inspect_err(|error| {
                tracing::error!(error = %chain(error), "failed to prepare for fetching files; is the package ca-certificates installed?");
            })
            .ok()
    }

    /// Checks everything about a URL but where its name leads.
    fn check(&self, text: &str) -> Result<Url, Refused> {
        if text.len() > URL_BYTES {
            return Err(Refused::Url("is longer than any URL of a file"));
        }
        let url = Url::parse(text).map_err(|_| Refused::Url("is not a URL"))?;
        self.check_parsed(&url)?;
        Ok(url)
    }

    fn check_parsed(&self, url: &Url) -> Result<(), Refused> {
        if url.scheme() != "https" && !(self.plain && url.scheme() == "http") {
            return Err(Refused::Url("is not an https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Url("holds a user name or password"));
        }
        let host = url.host_str().ok_or(Refused::Url("has no host"))?;
        let port = url.port_or_known_default().unwrap_or(HTTPS);
        let mut hosts = self.bounds.hosts().iter();
        if !hosts.any(|listed| listed.matches(host, port)) {
            return Err(Refused::Host);
        }
        // An address is not resolved, so the resolver never sees it.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(ip) if !is_allowed(ip, &self.bounds.networks) => Err(Refused::Address),
            _ => Ok(()),
        }
    }

    /// Where a response leads on to, if it does.
    fn next(&self, url: &Url, response: &Response) -> Result<Option<Url>, Refused> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(None);
        }
        let location = response.headers().get(header::LOCATION);
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            return Err(Refused::Status(status.as_u16()));
        };
        let next = location.to_str().ok().and_then(|text| url.join(text).ok());
        let next = next.ok_or(Refused::Url("redirects to what is not a URL"))?;
        self.check_parsed(&next)?;
        Ok(Some(next))
    }
}

/// Reads a whole file; stops at the first byte that is too much.
async fn read(mut response: Response, room: u64) -> Result<Vec<u8>, Refused> {
    if response
        .content_length()
        .is_some_and(|length| length > room)
    {
        return Err(Refused::TooLarge(room));
    }
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Refused::Url(
            "is answered in a compressed form that was not asked for",
        ));
    }
    let mut content = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Refused::Broken)? {
        if (content.len() + chunk.len()) as u64 > room {
            return Err(Refused::TooLarge(room));
        }
        content.extend_from_slice(&chunk);
    }
    Ok(content)
}

fn is_allowed(ip: IpAddr, networks: &[IpNet]) -> bool {
    is_public(ip) || networks.iter().any(|network| network.contains(&ip))
}

/// Resolves names, and gives out only addresses that may be connected to.
struct Guard {
    networks: Vec<IpNet>,
    names: Names,
}

/// A name leads to an address that nobody may be sent to.
#[derive(Debug, thiserror::Error)]
#[error("an address of the host is not on the public internet")]
struct NotPublic;

impl Resolve for Guard {
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

/// The causes of an error, itself first.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// An error with its causes but without the URL, which is as good as a password.
fn chain(error: &reqwest::Error) -> String {
    let inner = causes(error).skip(1).map(ToString::to_string);
    inner.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
