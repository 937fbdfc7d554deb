//! Files that a request names by URL: fetched by the server, within bounds.
//!
//! What may be called at all is [`outbound`](crate::outbound)'s to say. A caller
//! learns nothing of what lies behind a refused address.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::{FairPlace, FairPlaces, Owner};
use ipnet::IpNet;
use reqwest::{Client, Response, StatusCode, Url, header};
use tokio::time::Instant;

use crate::outbound::{Forbidden, Guard, Host, chain, led_astray};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

/// Redirects that are followed, each checked as the first address was.
const REDIRECTS: usize = 3;

/// Requests at once that may hold fetched files in memory, from the first
/// byte until the end of the run; one more of a caller who has no other.
pub(crate) const AT_ONCE: usize = 8;

/// Requests that may wait for that.
pub(crate) const WAITING: usize = 64;

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

impl From<Forbidden> for Refused {
    fn from(forbidden: Forbidden) -> Self {
        match forbidden {
            Forbidden::Url(why) => Self::Url(why),
            Forbidden::Host => Self::Host,
            Forbidden::Address => Self::Address,
        }
    }
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
    guard: Guard,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fetcher").field(&self.inner.bounds).finish()
    }
}

impl Fetcher {
    /// One that keeps to `bounds`.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let guard = Guard::new(bounds.hosts().to_vec(), bounds.networks.clone());
        Self::with(bounds, guard)
    }

    fn with(bounds: Bounds, guard: Guard) -> Self {
        Self {
            inner: Arc::new(Inner {
                bounds,
                client: OnceLock::new(),
                places: FairPlaces::new(AT_ONCE, WAITING),
                guard,
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
        let mut url = self.inner.guard.check(url)?;
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
        let client = self.inner.client.get_or_init(|| self.inner.guard.client());
        let client = client.as_ref().ok_or(Refused::Broken)?;
        let request = client.get(url).header(header::ACCEPT, "*/*");
        request.send().await.map_err(|error| {
            tracing::debug!(error = %chain(&error), "failed to fetch a file");
            if led_astray(&error) {
                Refused::Address
            } else {
                Refused::Broken
            }
        })
    }
}

impl Inner {
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
        self.guard.check_parsed(&next)?;
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

#[cfg(test)]
mod tests;
