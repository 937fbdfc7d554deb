//! Proof of clients that sign: their assertions, checked with their keys as new as
//! can be had. A stranger can send any assertion, so keys are fetched only for
//! clients that a person granted something, once a minute each, and as documents
//! are: by the guard, in its places, counted. What is kept serves on in an outage.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Clients, KeptClient};
use crate::oauth::assertion::{Assertion, REMEMBERED};
use crate::oauth::keys::{ClientKeys, read_set};
use crate::oauth::{Site, now, secret};
use crate::store::oauth::AssertionNote;
use crate::store::{Store, StoreError};

/// Bytes of a key set.
const SET_BYTES: usize = 64 * 1024;

/// How long a client's keys are left alone after they were asked for.
const PAUSE: Duration = Duration::from_secs(60);

/// Clients whose keys were asked for in a [`PAUSE`]. More wait for the next.
const MOST: usize = 1024;

/// Why a client has not shown that it is the one.
#[derive(Debug)]
pub(crate) enum Unproven {
    /// What it signed is not good; words for the log.
    Bad(&'static str),
    /// Its keys cannot be had just now, so nobody can say.
    Outage,
    /// It signed too often.
    Often,
    /// The database failed.
    Store(StoreError),
}

impl From<StoreError> for Unproven {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// When keys of clients were last asked for, and whether they came.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<HashMap<String, (Instant, bool)>>);

/// What is known of a client's last renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    /// Long ago, or never.
    Due,
    /// Just now; whether the keys came.
    Recent(bool),
}

impl Renewals {
    fn last(&self, id: &str, now: Instant) -> Renewal {
        let renewals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match renewals.get(id) {
            Some((at, came)) if now.duration_since(*at) < PAUSE => Renewal::Recent(*came),
            Some(_) => Renewal::Due,
            None if renewals.len() < MOST => Renewal::Due,
            None if renewals
                .values()
                .any(|(at, _)| now.duration_since(*at) >= PAUSE) =>
            {
                Renewal::Due
            }
            None => Renewal::Recent(false),
        }
    }

    fn note(&self, id: &str, now: Instant, came: bool) {
        let mut renewals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.retain(|_, (at, _)| now.duration_since(*at) < PAUSE);
        renewals.insert(id.to_owned(), (now, came));
    }
}

impl Clients {
    /// Checks that a client with keys signed an assertion for a site, and shows it for
    /// the first time. `may_fetch` says whether its keys may be fetched from a host.
    ///
    /// # Errors
    /// See [`Unproven`].
    pub(crate) async fn prove(
        &self,
        store: &Store,
        kept: &KeptClient,
        signed: &str,
        site: &Site,
        may_fetch: impl FnOnce(&str) -> bool,
    ) -> Result<(), Unproven> {
        let id = kept.row.id.as_str();
        let keys = kept.client.keys.as_ref();
        let keys = keys.ok_or(Unproven::Bad("the client has no keys"))?;
        if !kept.row.is_granted {
            return Err(Unproven::Bad("nobody granted the client anything"));
        }
        let assertion = Assertion::read(signed).map_err(Unproven::Bad)?;
        let endpoint = site.token_endpoint();
        let audiences = [site.issuer(), &endpoint];
        let once = assertion.check(id, &audiences, now());
        let once = once.map_err(Unproven::Bad)?;
        let (mut keys, mut is_sure) = (Cow::Borrowed(keys), true);
        if keys.fresh_until <= now() || keys.named(assertion.key_id()).is_none() {
            match self.renewed(store, kept, may_fetch).await? {
                Some(new) => keys = Cow::Owned(new),
                None => is_sure = false,
            }
        }
        let Some(key) = keys.named(assertion.key_id()) else {
            return Err(if is_sure {
                Unproven::Bad("it is signed with a key that the client does not have")
            } else {
                Unproven::Outage
            });
        };
        let verified = assertion.verify(keys.algorithm, key);
        verified.map_err(Unproven::Bad)?;
        // Longer than the assertion is good, so that no clock has to be trusted.
        let (hash, now) = (secret::hash(&format!("{id}\0{once}")), now());
        match store
            .note_assertion(&hash, id, now, now + REMEMBERED)
            .await?
        {
            AssertionNote::New => Ok(()),
            AssertionNote::Repeated => Err(Unproven::Bad("it was shown before")),
            AssertionNote::TooMany => Err(Unproven::Often),
        }
    }

    /// Returns a client's keys as new as can be had, and keeps them; nothing where they
    /// may not be fetched now, or do not come.
    async fn renewed(
        &self,
        store: &Store,
        kept: &KeptClient,
        may_fetch: impl FnOnce(&str) -> bool,
    ) -> Result<Option<ClientKeys>, StoreError> {
        let id = kept.row.id.as_str();
        let Ok(document) = self.url(id) else {
            return Ok(None);
        };
        let host = document.host_str().unwrap_or_default().to_owned();
        let last = || self.renewals.last(id, Instant::now());
        // A host has one place, so no other request fetches the same keys meanwhile. Who
        // holds it puts others off, so it is not even taken where no renewal is due.
        if last() == Renewal::Due
            && let Some(_place) = self.places.take(&host)
            && last() == Renewal::Due
            && may_fetch(&host)
        {
            self.renewals.note(id, Instant::now(), false);
            let keys = kept.client.keys.as_ref();
            let renewed = match keys.and_then(|keys| keys.address.as_deref()) {
                Some(address) => self.set_renewed(store, kept, address).await?,
                None => self.document_renewed(store, id, document).await?,
            };
            self.renewals.note(id, Instant::now(), renewed.is_some());
            return Ok(renewed);
        }
        if last() != Renewal::Recent(true) {
            return Ok(None);
        }
        // Another request fetched them, perhaps after this one read what is kept.
        let known = self.known(store, id).await?;
        Ok(known.and_then(|known| known.client.keys))
    }

    /// Fetches the key set of a client anew.
    async fn set_renewed(
        &self,
        store: &Store,
        kept: &KeptClient,
        address: &str,
    ) -> Result<Option<ClientKeys>, StoreError> {
        let id = kept.row.id.as_str();
        let mut client = kept.client.clone();
        let (Ok(url), Some(keys)) = (self.url(address), &mut client.keys) else {
            return Ok(None);
        };
        let (members, fresh) = match self.fetch_json(url, SET_BYTES).await {
            Ok(fetched) => fetched,
            Err(unfetched) => {
                tracing::debug!(
                    client = id,
                    why = unfetched.why,
                    "failed to fetch a client's keys"
                );
                return Ok(None);
            }
        };
        keys.set = match read_set(&members.into(), keys.algorithm) {
            Ok(set) => set,
            Err(why) => {
                tracing::debug!(client = id, why, "failed to read a client's keys");
                return Ok(None);
            }
        };
        keys.fresh_until = now() + fresh;
        let keys = keys.clone();
        // A document that came meanwhile is newer, and may have its keys elsewhere.
        let Ok(document) = serde_json::to_string(&client) else {
            return Ok(None);
        };
        let replaced = store
            .replace_client(id, &kept.row.document, &document)
            .await?;
        Ok(replaced.then_some(keys))
    }

    /// Fetches the document of a client anew, which holds its keys.
    async fn document_renewed(
        &self,
        store: &Store,
        id: &str,
        url: reqwest::Url,
    ) -> Result<Option<ClientKeys>, StoreError> {
        let (client, fresh) = match self.fetch(id, url).await {
            Ok(fetched) => fetched,
            Err(none) => {
                tracing::debug!(client = id, ?none, "failed to fetch a client's document");
                return Ok(None);
            }
        };
        let Ok(document) = serde_json::to_string(&client) else {
            return Ok(None);
        };
        store
            .keep_document(id, &document, now(), now() + fresh)
            .await?;
        Ok(client.keys)
    }
}

#[cfg(test)]
mod tests;
