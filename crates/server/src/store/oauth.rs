//! OAuth's tables: clients and grants here, codes and tokens in [`tokens`]. Each
//! request of a client is one transaction, so that two at once cannot both win;
//! ending a grant is one row that every use looks at. Holds hashes alone: no
//! secret, code or token.

use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Row as _, Transaction};

use super::{Store, StoreError};
use crate::auth::Scope;

mod assertions;
mod tokens;

pub use assertions::AssertionNote;
#[cfg(test)]
pub(crate) use tokens::EACH_MINUTE;
pub use tokens::{Access, Exchange, Given, NewTokens, Refresh, Withheld};

/// Clients that were never granted anything, at most.
const UNUSED: i64 = 10_000;

/// How long a client that was never granted anything is kept.
const UNUSED_KEPT: i64 = 24 * 3600 * 1000;

/// How long a grant that ended is kept, for the list and against replays.
const ENDED_KEPT: i64 = 30 * 24 * 3600 * 1000;

/// Grants that a key gives in a day.
pub(crate) const GRANTS_EACH: i64 = 200;

/// A day, in milliseconds.
const DAY: i64 = 24 * 3600 * 1000;

/// A client as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRow {
    /// Its id.
    pub id: String,
    /// The client, JSON.
    pub document: String,
    /// Until when a document is good without being fetched again.
    pub fresh_until: i64,
    /// Whether a person ever granted it anything.
    pub is_granted: bool,
}

/// A grant that a person gives, with the code that the client gets first.
#[derive(Debug, Clone)]
pub struct NewGrant<'a> {
    /// The client.
    pub client: &'a str,
    /// The key that it is given from.
    pub key: &'a str,
    /// The host that the answer goes to.
    pub host: &'a str,
    /// What the client may do.
    pub scopes: &'a [Scope],
    /// Where.
    pub resource: &'a str,
    /// When it ends.
    pub ends_at: i64,
    /// Hash of the code.
    pub code_hash: &'a str,
    /// When the code ends.
    pub code_ends_at: i64,
    /// Where the answer goes.
    pub redirect: &'a str,
    /// Whether the client said so itself.
    pub redirect_sent: bool,
    /// The challenge of PKCE, S256.
    pub challenge: &'a str,
}

/// A grant as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: String,
    /// The host that the answer went to.
    pub host: String,
    /// The name of the key that it was given from.
    pub key: String,
    /// What the client may do.
    pub scopes: Vec<Scope>,
    /// When it was made, in milliseconds since 1970, as all times here.
    pub made_at: i64,
    /// When it was last used.
    pub used_at: Option<i64>,
    /// When it ends.
    pub ends_at: i64,
}

impl Store {
    /// Keeps a client that registered itself.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register_client(
        &self,
        id: &str,
        document: &str,
        now: i64,
    ) -> Result<(), StoreError> {
        const STEP: &str = "keep a client";
        let mut writing = self.write(STEP).await?;
        put_client(&mut writing, id, "registered", document, now, 0).await?;
        writing.commit().await.map_err(StoreError::at(STEP))
    }

    /// Keeps what a client's document says, which may be kept already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_document(
        &self,
        id: &str,
        document: &str,
        now: i64,
        fresh_until: i64,
    ) -> Result<(), StoreError> {
        const STEP: &str = "keep a client's document";
        let mut writing = self.write(STEP).await?;
        put_client(&mut writing, id, "document", document, now, fresh_until).await?;
        writing.commit().await.map_err(StoreError::at(STEP))
    }

    /// Puts a client in the place of what is kept of it, if that is still `before`;
    /// says whether it was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_client(
        &self,
        id: &str,
        before: &str,
        document: &str,
    ) -> Result<bool, StoreError> {
        let replaced =
            sqlx::query("UPDATE oauth_clients SET document = $1 WHERE id = $2 AND document = $3")
                .bind(document)
                .bind(id)
                .bind(before)
                .execute(&self.pool)
                .await
                .map_err(StoreError::at("keep a client's keys"))?;
        Ok(replaced.rows_affected() > 0)
    }

    /// Finds a client.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn client(&self, id: &str) -> Result<Option<ClientRow>, StoreError> {
        const STEP: &str = "look up a client";
        let row = sqlx::query("SELECT document, fresh_until, granted_at IS NOT NULL AS is_granted FROM oauth_clients WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::at(STEP))?;
        let read = |row: SqliteRow| {
            Ok(ClientRow {
                id: id.to_owned(),
                document: row.try_get("document")?,
                fresh_until: row.try_get("fresh_until")?,
                is_granted: row.try_get("is_granted")?,
            })
        };
        row.map(read).transpose().map_err(StoreError::at(STEP))
    }

    /// Notes a grant with its code; `false` when its key gave too many today.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn grant(&self, grant: &NewGrant<'_>, now: i64) -> Result<bool, StoreError> {
        const STEP: &str = "note a grant";
        let mut writing = self.write(STEP).await?;
        let today = "SELECT count(*) FROM oauth_grants WHERE key_id = $1 AND made_at > $2";
        let today: i64 = sqlx::query_scalar(today)
            .bind(grant.key)
            .bind(now - DAY)
            .fetch_one(&mut *writing)
            .await
            .map_err(StoreError::at(STEP))?;
        if today >= GRANTS_EACH {
            return Ok(false);
        }
        let id = uuid::Uuid::now_v7().simple().to_string();
        let insert = sqlx::query(
            "INSERT INTO oauth_grants (id, client, key_id, host, scopes, resource, made_at, ends_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        );
        let insert = insert
            .bind(&id)
            .bind(grant.client)
            .bind(grant.key)
            .bind(grant.host);
        let insert = insert
            .bind(words(grant.scopes))
            .bind(grant.resource)
            .bind(now)
            .bind(grant.ends_at);
        insert
            .execute(&mut *writing)
            .await
            .map_err(StoreError::at(STEP))?;
        let insert = sqlx::query(
            "INSERT INTO oauth_codes (hash, grant_id, redirect, redirect_sent, challenge, ends_at) VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let insert = insert.bind(grant.code_hash).bind(&id).bind(grant.redirect);
        let insert = insert
            .bind(grant.redirect_sent)
            .bind(grant.challenge)
            .bind(grant.code_ends_at);
        insert
            .execute(&mut *writing)
            .await
            .map_err(StoreError::at(STEP))?;
        let used = sqlx::query(
            "UPDATE oauth_clients SET granted_at = COALESCE(granted_at, $1) WHERE id = $2",
        );
        used.bind(now)
            .bind(grant.client)
            .execute(&mut *writing)
            .await
            .map_err(StoreError::at(STEP))?;
        // What is long over goes when something new comes.
        let prune = sqlx::query(
            "DELETE FROM oauth_grants WHERE ends_at < $1 OR ended_at < $1 OR id IN (SELECT grant_id FROM oauth_codes WHERE used_at IS NULL AND ends_at < $2)",
        );
        prune
            .bind(now - ENDED_KEPT)
            .bind(now - DAY)
            .execute(&mut *writing)
            .await
            .map_err(StoreError::at(STEP))?;
        let prune = sqlx::query("DELETE FROM oauth_tokens WHERE kind = 'access' AND ends_at < $1");
        prune
            .bind(now)
            .execute(&mut *writing)
            .await
            .map_err(StoreError::at(STEP))?;
        writing.commit().await.map_err(StoreError::at(STEP))?;
        Ok(true)
    }

    /// Ends the grant of a client's token; nothing where it has no such token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_grant_of(
        &self,
        token_hash: &str,
        client: &str,
        now: i64,
    ) -> Result<(), StoreError> {
        const STEP: &str = "end a grant";
        sqlx::query("UPDATE oauth_grants SET ended_at = $1, why = 'the client gave it back' WHERE ended_at IS NULL AND client = $2 AND id IN (SELECT grant_id FROM oauth_tokens WHERE hash = $3)")
            .bind(now)
            .bind(client)
            .bind(token_hash)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(StoreError::at(STEP))
    }

    /// Ends a grant by its id; says whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_grant(&self, id: &str, now: i64) -> Result<bool, StoreError> {
        let ended = sqlx::query("UPDATE oauth_grants SET ended_at = $1, why = 'revoked' WHERE ended_at IS NULL AND id = $2")
            .bind(now)
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(StoreError::at("end a grant"))?;
        Ok(ended.rows_affected() > 0)
    }

    /// All grants that are good, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn grants(&self, now: i64) -> Result<Vec<Grant>, StoreError> {
        const STEP: &str = "list the grants";
        let rows = sqlx::query("SELECT g.id, g.host, g.scopes, g.made_at, g.used_at, g.ends_at, k.name FROM oauth_grants g JOIN keys k ON k.id = g.key_id WHERE g.ended_at IS NULL AND g.ends_at > $1 AND k.revoked_at IS NULL AND EXISTS (SELECT 1 FROM oauth_tokens t WHERE t.grant_id = g.id) ORDER BY g.made_at, g.id")
            .bind(now)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::at(STEP))?;
        let read = |row: &SqliteRow| -> Result<Grant, sqlx::Error> {
            Ok(Grant {
                id: row.try_get("id")?,
                host: row.try_get("host")?,
                key: row.try_get("name")?,
                scopes: scopes(row.try_get("scopes")?),
                made_at: row.try_get("made_at")?,
                used_at: row.try_get("used_at")?,
                ends_at: row.try_get("ends_at")?,
            })
        };
        rows.iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map_err(StoreError::at(STEP))
    }
}

/// Keeps a client, and lets those go that nobody granted anything: the old ones,
/// and the oldest where there are too many.
async fn put_client(
    writing: &mut Transaction<'static, Sqlite>,
    id: &str,
    kind: &str,
    document: &str,
    now: i64,
    fresh_until: i64,
) -> Result<(), StoreError> {
    let put = sqlx::query(
        "INSERT INTO oauth_clients (id, kind, document, made_at, fresh_until) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET document = excluded.document, fresh_until = excluded.fresh_until",
    );
    let put = put
        .bind(id)
        .bind(kind)
        .bind(document)
        .bind(now)
        .bind(fresh_until);
    let step = StoreError::at("keep a client");
    put.execute(&mut **writing).await.map_err(step)?;
    let prune = sqlx::query(
        "DELETE FROM oauth_clients WHERE granted_at IS NULL AND (made_at < $1 OR id IN (SELECT id FROM oauth_clients WHERE granted_at IS NULL ORDER BY made_at DESC, id LIMIT 1000000 OFFSET $2))",
    );
    let prune = prune.bind(now - UNUSED_KEPT).bind(UNUSED);
    let step = StoreError::at("let unused clients go");
    prune.execute(&mut **writing).await.map(drop).map_err(step)
}

fn words(scopes: &[Scope]) -> String {
    let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    words.join(" ")
}

/// Reads scopes as they are stored; a word of a later version is left out.
fn scopes(text: &str) -> Vec<Scope> {
    text.split(' ')
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests;
