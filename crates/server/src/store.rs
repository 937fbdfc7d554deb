//! Durable state in `state.db`, through migrations from the first day.
//! Portable SQL only; whatever is SQLite's alone stays in [`open`]. Never
//! holds a token, only its hash.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::Owner;
use sqlx::sqlite::SqlitePool;

use crate::auth::{Denied, Principal, Token};

mod keys;
mod known;
pub mod oauth;
mod open;

pub use keys::{CreateError, Key};
pub use open::OpenError;
pub(crate) use open::make_home;

/// Seconds after which a use of a key is written down again.
const LAST_USED_STEP: i64 = 60;

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    known: Arc<known::Known>,
}

impl Store {
    /// Closes the database once nobody uses it; the last process to do so
    /// leaves one whole file, without a log beside it.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Finds the key that `token` belongs to; what it may do is for the caller
    /// of this function to check.
    ///
    /// A revocation by another process holds from the next request on: a key is
    /// only remembered while no file of the database changes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate(&self, token: &str) -> Result<Result<Principal, Denied>, StoreError> {
        let Some(token) = Token::parse(token) else {
            return Ok(Err(Denied::Unknown));
        };
        let now = now();
        let hash = token.hash();
        // Taken before the look-up: a change meanwhile makes it worthless.
        let stamp = self.known.stamp();
        if let Some(found) = stamp.and_then(|stamp| self.known.find(stamp, &hash, now)) {
            return Ok(Ok(found));
        }
        let Some(found) = self.find_key(&token).await? else {
            return Ok(Err(Denied::Unknown));
        };
        // Found by equality already; this one takes the same time for every token.
        if !token.matches(&found.token_hash) || found.key.revoked_at.is_some() {
            return Ok(Err(Denied::Unknown));
        }
        let last_used_at = found.key.last_used_at;
        if last_used_at.is_none_or(|last| last <= now - LAST_USED_STEP)
            && let Err(error) = self.touch_key(&found.key.id, now).await
        {
            // A full disk must not lock everybody out.
            tracing::warn!(key = found.key.name, %error, "failed to note the use of a key");
        }
        let principal = Principal {
            id: Owner::new(&found.key.id),
            name: found.key.name,
            scopes: found.key.scopes,
        };
        if let (Some(stamp), Some(last_used_at)) = (stamp, last_used_at) {
            self.known
                .keep(stamp, hash, principal.clone(), last_used_at);
        }
        Ok(Ok(principal))
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The database failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}")]
pub struct StoreError {
    /// What was being done.
    pub step: &'static str,
    /// The database's reason.
    #[source]
    pub source: sqlx::Error,
}

impl StoreError {
    fn at(step: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self { step, source }
    }
}

#[cfg(test)]
mod tests;
