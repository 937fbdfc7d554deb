//! Finds clients: registered ones in the store, and those whose id is the address
//! of a document by fetching it. An anonymous request can make the server fetch,
//! so the guard of [`outbound`](crate::outbound) decides where, and everything is
//! bounded. Documents of granted clients are kept: an outage of theirs ends nothing.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Client as Http, StatusCode, Url, header};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client::Client;
use super::{is_known, now};
use crate::outbound::{Guard, chain, led_astray};
use crate::store::oauth::ClientRow;
use crate::store::{Store, StoreError};

mod proof;

pub(crate) use proof::Unproven;

/// Bytes of a document.
const DOCUMENT_BYTES: usize = 16 * 1024;

/// How long a document may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many documents are fetched at once from hosts that people know, and as many
/// from all others; never two from one host. Slow strangers keep nobody from the
/// former.
const AT_ONCE: usize = 4;

/// How long a document is good whose server is out of order, in milliseconds.
const OUTAGE_FRESH: i64 = 60 * 1000;

/// How long a document is good at most, at least, and where its server does not
/// say, in milliseconds. Anybody can ask for one again and again.
const LONGEST_FRESH: i64 = 24 * 3600 * 1000;
const LEAST_FRESH: i64 = 60 * 1000;
const USUALLY_FRESH: i64 = 3600 * 1000;

/// Characters of a client's id that a person is shown.
const SHOWN_CHARS: usize = 80;

/// Characters of a client's id.
const ID_CHARS: usize = 512;

/// Why there is no client.
#[derive(Debug)]
pub(crate) enum NoClient {
    /// Nobody of this name is known; words for the person.
    Unknown(String),
    /// Its document could not be had just now; words for the person.
    Outage(String),
    /// Too many documents were asked for.
    Often,
    /// Too many documents are being fetched.
    Busy,
    /// The database failed.
    Store(StoreError),
}

impl From<StoreError> for NoClient {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The clients of a server.
#[derive(Debug)]
pub(crate) struct Clients {
    guard: Guard,
    http: OnceLock<Option<Http>>,
    places: Places,
    /// Whether clients may sign with keys of their own.
    takes_keys: bool,
    renewals: proof::Renewals,
}

/// A client that is kept.
#[derive(Debug)]
pub(crate) struct KeptClient {
    row: ClientRow,
    pub(crate) client: Client,
}

/// Places of documents that are being fetched.
#[derive(Debug)]
struct Places {
    known: Semaphore,
    others: Semaphore,
    hosts: Mutex<HashSet<String>>,
}

/// A place, which is free again when dropped.
struct HeldPlace<'a> {
    host: String,
    places: &'a Places,
    _permit: SemaphorePermit<'a>,
}

impl Places {
    fn of(each: usize) -> Self {
        Self {
            known: Semaphore::new(each),
            others: Semaphore::new(each),
            hosts: Mutex::default(),
        }
    }

    /// Takes a place for a host, if there is one.
    fn take(&self, host: &str) -> Option<HeldPlace<'_>> {
        let places = if is_known(host) {
            &self.known
        } else {
            &self.others
        };
        let permit = places.try_acquire().ok()?;
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.insert(host.to_owned()).then(|| HeldPlace {
            host: host.to_owned(),
            places: self,
            _permit: permit,
        })
    }
}

impl Drop for HeldPlace<'_> {
    fn drop(&mut self) {
        let hosts = &self.places.hosts;
        let mut hosts = hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.remove(&self.host);
    }
}

impl Clients {
    /// Returns clients whose documents come by a guard, and who may sign with keys of
    /// their own where `takes_keys`.
    pub(crate) fn new(guard: Guard, takes_keys: bool) -> Self {
        Self {
            guard,
            http: OnceLock::new(),
            places: Places::of(AT_ONCE),
            takes_keys,
            renewals: proof::Renewals::default(),
        }
    }

    /// Finds a client that asks a person for a grant; fetches its document where
    /// that is not kept, or was for too long, and `may_fetch` from its host lets it.
    /// What is kept serves on while the document's server is out of order.
    ///
    /// # Errors
    /// See [`NoClient`].
    pub(crate) async fn asking(
        &self,
        store: &Store,
        id: &str,
        may_fetch: impl FnOnce(&str) -> bool,
    ) -> Result<Client, NoClient> {
        let kept = self.known(store, id).await?;
        if !id.starts_with("https://") {
            return kept.map(|kept| kept.client).ok_or_else(unknown);
        }
        let old = match kept {
            Some(kept) if now() < kept.row.fresh_until => return Ok(kept.client),
            kept => kept.map(|kept| kept.client),
        };
        let url = self.url(id)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let fetched = match self.places.take(&host) {
            None => Err(NoClient::Busy),
            Some(_) if !may_fetch(&host) => Err(NoClient::Often),
            Some(_place) => self.fetch(id, url).await,
        };
        let (client, fresh) = match (fetched, old) {
            (Ok((mut client, fresh)), old) => {
                client.carry_keys_over(old);
                (client, fresh)
            }
            (Err(NoClient::Outage(_)), Some(old)) => (old, OUTAGE_FRESH),
            (Err(NoClient::Busy | NoClient::Often), Some(old)) => return Ok(old),
            (Err(none), _) => return Err(none),
        };
        let document = serde_json::to_string(&client).map_err(|_| unknown())?;
        store
            .keep_document(id, &document, now(), now() + fresh)
            .await?;
        Ok(client)
    }

    /// Finds a client that is known already, without fetching anything.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn known(
        &self,
        store: &Store,
        id: &str,
    ) -> Result<Option<KeptClient>, StoreError> {
        if id.len() > ID_CHARS {
            return Ok(None);
        }
        let row = store.client(id).await?;
        // One that cannot be read is our trouble, and no reason for the client to
        // throw away what it has.
        let read = row.map(|row| match serde_json::from_str(&row.document) {
            Ok(client) => Ok(KeptClient { row, client }),
            Err(error) => Err(StoreError {
                step: "read a client",
                source: sqlx::Error::Decode(Box::new(error)),
            }),
        });
        read.transpose()
    }

    /// Reads an id as the address of a document that may be fetched.
    fn url(&self, id: &str) -> Result<Url, NoClient> {
        let url = address(id).map_err(|why| bad(id, why))?;
        let checked = self.guard.check_parsed(&url);
        checked.map_err(|forbidden| bad(id, &forbidden.to_string()))?;
        Ok(url)
    }

    /// Fetches a document; returns the client, and for how long it is good.
    async fn fetch(&self, id: &str, url: Url) -> Result<(Client, i64), NoClient> {
        let fetched = self.fetch_json(url, DOCUMENT_BYTES).await;
        let (members, fresh) = fetched.map_err(|unfetched| {
            let told = told(id, &unfetched.why);
            if unfetched.is_outage {
                NoClient::Outage(told)
            } else {
                NoClient::Unknown(told)
            }
        })?;
        let client = Client::of_document(id, &members, self.takes_keys);
        let mut client = client.map_err(|(_, words)| bad(id, &format!("is not taken: {words}")))?;
        client.date_keys(now() + fresh);
        Ok((client, fresh))
    }

    /// Fetches JSON of so many bytes at most; returns its members, and for how long
    /// it is good, in milliseconds.
    async fn fetch_json(
        &self,
        url: Url,
        limit: usize,
    ) -> Result<(Map<String, Value>, i64), Unfetched> {
        let http = self.http.get_or_init(|| self.guard.client());
        let http = http.as_ref();
        let http = http.ok_or_else(|| Unfetched::bad("could not be fetched"))?;
        let fetching = async {
            let request = http.get(url).header(header::ACCEPT, "application/json");
            let mut response = request.send().await.map_err(|error| {
                tracing::debug!(error = %chain(&error), "failed to fetch what a client's id leads to");
                if led_astray(&error) {
                    return Unfetched::bad("is at an address that is not on the public internet");
                }
                Unfetched::outage("could not be fetched")
            })?;
            let status = response.status();
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                return Err(Unfetched::outage(
                    "could not be fetched: its server is out of order",
                ));
            }
            if status != StatusCode::OK {
                return Err(Unfetched::bad(
                    "was not given: its server answered something else than 200",
                ));
            }
            let header_text = |name| {
                response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
            };
            let kind = header_text(header::CONTENT_TYPE).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if kind != "application/json" && !kind.ends_with("+json") {
                return Err(Unfetched::bad("is not JSON"));
            }
            let fresh = freshness(header_text(header::CACHE_CONTROL));
            let mut body = Vec::new();
            let broke_off = |_| Unfetched::outage("broke off");
            while let Some(chunk) = response.chunk().await.map_err(broke_off)? {
                if body.len() + chunk.len() > limit {
                    let why = format!("is larger than {} KiB", limit / 1024);
                    return Err(Unfetched::bad(&why));
                }
                body.extend_from_slice(&chunk);
            }
            Ok((body, fresh))
        };
        let fetched = tokio::time::timeout(PATIENCE, fetching).await;
        let late = |_| Unfetched::outage("did not come within 5 s");
        let (body, fresh) = fetched.map_err(late)??;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(members)) => Ok((members, fresh)),
            _ => Err(Unfetched::bad("is no JSON object")),
        }
    }
}

/// Why something was not fetched.
#[derive(Debug)]
struct Unfetched {
    /// Words that follow its name.
    why: String,
    /// Whether its server may be in order again soon.
    is_outage: bool,
}

impl Unfetched {
    fn bad(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            is_outage: false,
        }
    }

    fn outage(why: &str) -> Self {
        Self {
            is_outage: true,
            ..Self::bad(why)
        }
    }
}

fn unknown() -> NoClient {
    NoClient::Unknown("This server does not know the client. Remove the connection in the client, and add it again.".to_owned())
}

/// Says what is wrong with a document. Its address is anybody's words.
fn told(id: &str, why: &str) -> String {
    let short: String = id.chars().take(SHOWN_CHARS).collect();
    format!("The client's document at {} {why}.", engine::quote(&short))
}

fn bad(id: &str, why: &str) -> NoClient {
    NoClient::Unknown(told(id, why))
}

/// Reads an id as the address of a document: one spelling, and nothing in it but
/// host and path.
pub(super) fn address(id: &str) -> Result<Url, &'static str> {
    let url = Url::parse(id).map_err(|_| "has no good address")?;
    let plain = url.as_str() == id && id.len() <= ID_CHARS;
    let bare = url.query().is_none() && url.fragment().is_none() && url.port().is_none();
    let named = url.domain().is_some_and(|host| host.contains('.'));
    let path = url.path().to_ascii_lowercase();
    let hidden = ["%2e", "%2f", "%5c"].iter().any(|part| path.contains(part));
    let dots = hidden || path.split('/').any(|part| matches!(part, "." | ".."));
    if !plain || !bare || !named || dots || url.path().len() < 2 {
        return Err("must be https, at a host name, with a path and nothing else");
    }
    Ok(url)
}

/// Returns for how long a document is good, in milliseconds.
fn freshness(cache_control: Option<&str>) -> i64 {
    let Some(text) = cache_control else {
        return USUALLY_FRESH;
    };
    let mut fresh = USUALLY_FRESH;
    for word in text.split(',').map(str::trim) {
        if word.eq_ignore_ascii_case("no-store") || word.eq_ignore_ascii_case("no-cache") {
            return LEAST_FRESH;
        }
        if let Some(seconds) = word.to_ascii_lowercase().strip_prefix("max-age=") {
            let seconds: i64 = seconds.parse().unwrap_or_default();
            fresh = seconds
                .saturating_mul(1000)
                .clamp(LEAST_FRESH, LONGEST_FRESH);
        }
    }
    fresh
}

#[cfg(test)]
mod tests;
