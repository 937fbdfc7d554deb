//! Durable state in `state.db`, through migrations from the first day.
//! Portable SQL only; whatever is SQLite's alone stays in [`open`]. Never
//! holds a token, only its hash.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::Owner;
use sqlx::sqlite::SqlitePool;

use crate::auth::{Denied, Principal, Token};

mod keys;
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
    /// Nothing is cached: a revocation by another process holds from the
    /// next request on. The look-up is by an index and costs some 60 µs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate(&self, token: &str) -> Result<Result<Principal, Denied>, StoreError> {
        let Some(token) = Token::parse(token) else {
            return Ok(Err(Denied::Unknown));
        };
        let Some(found) = self.find_key(&token).await? else {
            return Ok(Err(Denied::Unknown));
        };
        // Found by equality already; this one takes the same time for every token.
        if !token.matches(&found.token_hash) || found.key.revoked_at.is_some() {
            return Ok(Err(Denied::Unknown));
        }
        let now = now();
        if found
            .key
            .last_used_at
            .is_none_or(|last| last <= now - LAST_USED_STEP)
            && let Err(error) = self.touch_key(&found.key.id, now).await
        {
            // A full disk must not lock everybody out.
            tracing::warn!(key = found.key.name, %error, "failed to note the use of a key");
        }
        Ok(Ok(Principal {
            id: Owner::new(&found.key.id),
            name: found.key.name,
            scopes: found.key.scopes,
        }))
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
