//! The table of keys.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{LAST_USED_STEP, Store, StoreError, now};
use crate::auth::{Scope, Token, check_name};

/// A key as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// Its name, unique among those not revoked.
    pub name: String,
    /// The first characters of its token.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// When it was last used, to the minute.
    pub last_used_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// A key together with what proves it.
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) token_hash: String,
}

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name will not do.
    #[error("{0}")]
    Name(String),
    /// A live key has this name.
    #[error(
        "there is a token named {0:?} already; choose another name, or revoke it first with: codex-server token revoke {0}"
    )]
    Taken(String),
    /// The kernel gave no randomness.
    #[error("failed to make a random token")]
    Random(#[source] getrandom::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes a key and gives its token, which cannot be had again.
    ///
    /// # Errors
    /// When the name is unfit or taken, or the database fails.
    pub async fn create_key(&self, name: &str, scopes: &[Scope]) -> Result<Token, CreateError> {
        check_name(name).map_err(CreateError::Name)?;
        let token = Token::generate().map_err(CreateError::Random)?;
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let insert = sqlx::query(
            "INSERT INTO keys (id, name, token_hash, prefix, scopes, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(uuid::Uuid::now_v7().to_string())
        .bind(name)
        .bind(token.hash())
        .bind(token.prefix())
        .bind(scopes.join(" "))
        .bind(now());
        match insert.execute(&self.pool).await {
            Ok(_) => Ok(token),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(CreateError::Taken(name.to_owned()))
            }
            Err(source) => Err(StoreError::at("store the new key")(source).into()),
        }
    }

    /// All keys, oldest first, revoked ones too.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        let rows = sqlx::query("SELECT id, name, prefix, scopes, created_at, last_used_at, revoked_at FROM keys ORDER BY created_at, id")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::at("list the keys"))?;
        rows.iter()
            .map(key_of)
            .collect::<Result<_, _>>()
            .map_err(StoreError::at("read a key"))
    }

    /// Revokes the live key of that name, and returns its id; `None` when
    /// there was none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_key(&self, name: &str) -> Result<Option<String>, StoreError> {
        const STEP: &str = "revoke the key";
        let row = sqlx::query(
            "UPDATE keys SET revoked_at = $1 WHERE name = $2 AND revoked_at IS NULL RETURNING id",
        )
        .bind(now())
        .bind(name)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::at(STEP))?;
        let id = row.map(|row| row.try_get("id")).transpose();
        id.map_err(StoreError::at(STEP))
    }

    /// Says whether the key with that id is there and not revoked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_live(&self, id: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM keys WHERE id = $1 AND revoked_at IS NULL")
            .bind(id)
            .fetch_optional(&self.pool)
            .await;
        let row = row.map_err(StoreError::at("look whether a key is revoked"))?;
        Ok(row.is_some())
    }

    /// Notes, once a minute at most, that the key with that id is used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_use(&self, id: &str) -> Result<(), StoreError> {
        let now = now();
        let row = sqlx::query("SELECT 1 FROM keys WHERE id = $1 AND last_used_at > $2")
            .bind(id)
            .bind(now - LAST_USED_STEP)
            .fetch_optional(&self.pool)
            .await;
        let row = row.map_err(StoreError::at("look when a key was used"))?;
        match row {
            Some(_) => Ok(()),
            None => self.touch_key(id, now).await,
        }
    }

    pub(super) async fn find_key(&self, token: &Token) -> Result<Option<Found>, StoreError> {
        const STEP: &str = "look up a token";
        let row = sqlx::query(
            "SELECT id, name, prefix, scopes, created_at, last_used_at, revoked_at, token_hash FROM keys WHERE token_hash = $1",
        )
        .bind(token.hash())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::at(STEP))?;
        let Some(row) = row else { return Ok(None) };
        let found = key_of(&row).and_then(|key| {
            let token_hash = row.try_get("token_hash")?;
            Ok(Found { key, token_hash })
        });
        found.map(Some).map_err(StoreError::at(STEP))
    }

    pub(super) async fn touch_key(&self, id: &str, now: i64) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE keys SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)",
        )
        .bind(now)
        .bind(id)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(StoreError::at("note the use of a key"))
    }
}

fn key_of(row: &SqliteRow) -> Result<Key, sqlx::Error> {
    let scopes: String = row.try_get("scopes")?;
    Ok(Key {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        // A word from a newer version grants nothing here.
        scopes: scopes
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect(),
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}
