//! Finds clients: registered ones in the store, and those whose id is the address
//! of a document by fetching it. An anonymous request can make the server fetch,
//! so the guard of [`outbound`](crate::outbound) decides where, and everything is
//! bounded. Documents of granted clients are kept: an outage of theirs ends nothing.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client as Http, StatusCode, Url, header};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::client::Client;
use super::now;
use crate::outbound::{Guard, chain};
use crate::store::oauth::ClientRow;
use crate::store::{Store, StoreError};

/// Bytes of a document.
const DOCUMENT_BYTES: usize = 16 * 1024;

/// How long a document may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Documents that are fetched at once.
const AT_ONCE: usize = 4;

/// How long a document is good at most, at least, and where its server does not
/// say, in milliseconds. Anybody can ask for one again and again.
const LONGEST_FRESH: i64 = 24 * 3600 * 1000;
const LEAST_FRESH: i64 = 60 * 1000;
const USUALLY_FRESH: i64 = 3600 * 1000;

/// Characters of a client's id.
const ID_CHARS: usize = 512;

/// Why there is no client.
#[derive(Debug)]
pub(crate) enum NoClient {
    /// Nobody of this name is known; words for the person.
    Unknown(String),
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
    places: Semaphore,
}

impl Clients {
    /// Returns clients whose documents come by a guard.
    pub(crate) fn new(guard: Guard) -> Self {
        Self {
            guard,
            http: OnceLock::new(),
            places: Semaphore::new(AT_ONCE),
        }
    }

    /// Finds a client that asks a person for a grant; fetches its document where
    /// that is not kept, or was for too long.
    ///
    /// # Errors
    /// See [`NoClient`].
    pub(crate) async fn asking(&self, store: &Store, id: &str) -> Result<Client, NoClient> {
        let kept = self.kept(store, id).await?;
        if !id.starts_with("https://") {
            return kept.map(|(_, client)| client).ok_or_else(unknown);
        }
        if let Some((row, client)) = kept
            && now() < row.fresh_until
        {
            return Ok(client);
        }
        let (client, fresh) = self.fetch(id).await?;
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
    ) -> Result<Option<Client>, StoreError> {
        Ok(self.kept(store, id).await?.map(|(_, client)| client))
    }

    async fn kept(
        &self,
        store: &Store,
        id: &str,
    ) -> Result<Option<(ClientRow, Client)>, StoreError> {
        if id.len() > ID_CHARS {
            return Ok(None);
        }
        let row = store.client(id).await?;
        Ok(row.and_then(|row| {
            let client = serde_json::from_str(&row.document).ok()?;
            Some((row, client))
        }))
    }

    /// Fetches a document; returns the client, and for how long it is good.
    async fn fetch(&self, id: &str) -> Result<(Client, i64), NoClient> {
        let bad = |why: &str| NoClient::Unknown(format!("The client's document at {id} {why}."));
        let url = address(id).map_err(bad)?;
        self.guard
            .check_parsed(&url)
            .map_err(|forbidden| bad(&forbidden.to_string()))?;
        let _place = self.places.try_acquire().map_err(|_| NoClient::Busy)?;
        let http = self.http.get_or_init(|| self.guard.client());
        let http = http.as_ref().ok_or_else(|| bad("could not be fetched"))?;
        let fetching = async {
            let request = http.get(url).header(header::ACCEPT, "application/json");
            let mut response = request.send().await.map_err(|error| {
                tracing::debug!(error = %chain(&error), "failed to fetch a client's document");
                bad("could not be fetched")
            })?;
            if response.status() != StatusCode::OK {
                return Err(bad(
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
                return Err(bad("is not JSON"));
            }
            let fresh = freshness(header_text(header::CACHE_CONTROL));
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|_| bad("broke off"))? {
                if body.len() + chunk.len() > DOCUMENT_BYTES {
                    return Err(bad("is larger than 16 KiB"));
                }
                body.extend_from_slice(&chunk);
            }
            Ok((body, fresh))
        };
        let fetched = tokio::time::timeout(PATIENCE, fetching).await;
        let (body, fresh) = fetched.map_err(|_| bad("did not come within 5 s"))??;
        let Ok(Value::Object(members)) = serde_json::from_slice(&body) else {
            return Err(bad("is no JSON object"));
        };
        let client = Client::of_document(id, &members);
        let client = client.map_err(|(_, words)| bad(&format!("is not taken: {words}")))?;
        Ok((client, fresh))
    }
}

fn unknown() -> NoClient {
    NoClient::Unknown("This server does not know the client. Remove the connection in the client, and add it again.".to_owned())
}

/// Reads an id as the address of a document: one spelling, and nothing in it but
/// host and path.
fn address(id: &str) -> Result<Url, &'static str> {
    let url = Url::parse(id).map_err(|_| "has no good address")?;
    let plain = url.as_str() == id && id.len() <= ID_CHARS;
    let bare = url.query().is_none() && url.fragment().is_none() && url.port().is_none();
    let named = url.domain().is_some_and(|host| host.contains('.'));
    let dots = url.path().split('/').any(|part| {
        matches!(
            part.to_ascii_lowercase().as_str(),
            "." | ".." | "%2e" | "%2e%2e" | ".%2e" | "%2e."
        )
    });
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
