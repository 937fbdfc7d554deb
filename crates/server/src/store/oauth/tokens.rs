//! Codes and tokens: what a client shows, and what it gets for it. Each request is
//! one transaction.

use engine::Owner;
use sqlx::sqlite::Sqlite;
use sqlx::{Row as _, Transaction};

use super::{scopes, words};
use crate::auth::{Principal, Scope};
use crate::store::{Store, StoreError};

/// How long a refresh token that was just spent gives the same successor.
const GRACE: i64 = 30 * 1000;

/// Access tokens that a grant gives in a minute: what is given is kept until the
/// grant is long over.
pub(crate) const EACH_MINUTE: i64 = 60;

/// How often a use of a grant is written down.
const USED_STEP: i64 = 60 * 1000;

/// A code that a client shows.
#[derive(Debug, Clone)]
pub struct Exchange<'a> {
    /// Hash of the code.
    pub code_hash: &'a str,
    /// The client, which has shown that it is the one.
    pub client: &'a str,
    /// The redirect URI that it repeats.
    pub redirect: Option<&'a str>,
    /// S256 of the verifier that it shows.
    pub challenge: &'a str,
    /// Where it wants to use the token.
    pub resource: Option<&'a str>,
    /// The tokens to give.
    pub tokens: NewTokens<'a>,
}

/// Tokens to give, as hashes.
#[derive(Debug, Clone)]
pub struct NewTokens<'a> {
    /// Hash of the access token.
    pub access_hash: &'a str,
    /// When it ends, unless the grant does before.
    pub access_ends_at: i64,
    /// Hash of the refresh token.
    pub refresh_hash: &'a str,
}

/// A refresh token that a client shows.
#[derive(Debug, Clone)]
pub struct Refresh<'a> {
    /// Hash of the refresh token.
    pub token_hash: &'a str,
    /// The client, which has shown that it is the one.
    pub client: &'a str,
    /// The scopes that it wants, of those that it has; all, where it says nothing.
    pub scopes: Option<&'a [Scope]>,
    /// Where it wants to use the token.
    pub resource: Option<&'a str>,
    /// The tokens to give.
    pub tokens: NewTokens<'a>,
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The scopes of the access token.
    pub scopes: Vec<Scope>,
    /// When the access token ends.
    pub ends_at: i64,
}

/// Why a client got nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// There is no such code or token of this client's that is good.
    Grant,
    /// It asked for another resource than it was granted.
    Resource,
    /// It asked for more than it was granted.
    Scope,
    /// It got very many in the last minute.
    Often,
}

/// Who an access token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The owner of the grant's key, with the scopes of the token.
    pub principal: Principal,
    /// Where the token may be used.
    pub resource: String,
}

impl Store {
    /// Gives tokens for a code. One that was used already ends its grant, whatever
    /// else is shown with it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn exchange(
        &self,
        shown: &Exchange<'_>,
        now: i64,
    ) -> Result<Result<Given, Withheld>, StoreError> {
        const STEP: &str = "exchange a code";
        let at = StoreError::at;
        if !self
            .has_row("SELECT 1 FROM oauth_codes WHERE hash = $1", shown.code_hash)
            .await?
        {
            return Ok(Err(Withheld::Grant));
        }
        let mut writing = self.write(STEP).await?;
        let row = sqlx::query("SELECT c.grant_id, c.redirect, c.redirect_sent, c.challenge, c.ends_at AS code_ends_at, c.used_at, g.client, g.scopes, g.resource, g.ends_at, g.ended_at, k.revoked_at FROM oauth_codes c JOIN oauth_grants g ON g.id = c.grant_id JOIN keys k ON k.id = g.key_id WHERE c.hash = $1")
            .bind(shown.code_hash)
            .fetch_optional(&mut *writing)
            .await
            .map_err(at(STEP))?;
        let Some(row) = row else {
            return Ok(Err(Withheld::Grant));
        };
        let text = |name: &str| row.try_get::<String, _>(name).map_err(at(STEP));
        let time = |name: &str| row.try_get::<Option<i64>, _>(name).map_err(at(STEP));
        let grant = text("grant_id")?;
        if text("client")? != shown.client {
            return Ok(Err(Withheld::Grant));
        }
        if time("used_at")?.is_some() {
            end(&mut writing, &grant, "a code was shown twice", now).await?;
            writing.commit().await.map_err(at(STEP))?;
            return Ok(Err(Withheld::Grant));
        }
        let ends_at = time("ends_at")?.unwrap_or_default();
        let lives = time("ended_at")?.is_none() && time("revoked_at")?.is_none() && now < ends_at;
        let redirect = text("redirect")?;
        let sent: bool = row.try_get("redirect_sent").map_err(at(STEP))?;
        let same_redirect = match shown.redirect {
            Some(asked) => sent && asked == redirect,
            None => !sent,
        };
        let in_time = now < time("code_ends_at")?.unwrap_or_default();
        if !lives || !in_time || !same_redirect || text("challenge")? != shown.challenge {
            return Ok(Err(Withheld::Grant));
        }
        if shown
            .resource
            .is_some_and(|asked| row.try_get::<&str, _>("resource").ok() != Some(asked))
        {
            return Ok(Err(Withheld::Resource));
        }
        sqlx::query("UPDATE oauth_codes SET used_at = $1 WHERE hash = $2")
            .bind(now)
            .bind(shown.code_hash)
            .execute(&mut *writing)
            .await
            .map_err(at(STEP))?;
        let scopes = scopes(&text("scopes")?);
        let access_ends_at = shown.tokens.access_ends_at.min(ends_at);
        put_token(
            &mut writing,
            shown.tokens.refresh_hash,
            &grant,
            "refresh",
            &scopes,
            (now, ends_at),
        )
        .await?;
        put_token(
            &mut writing,
            shown.tokens.access_hash,
            &grant,
            "access",
            &scopes,
            (now, access_ends_at),
        )
        .await?;
        writing.commit().await.map_err(at(STEP))?;
        Ok(Ok(Given {
            scopes,
            ends_at: access_ends_at,
        }))
    }

    /// Gives the next tokens for a refresh token. One that was spent a while ago
    /// ends its grant: two have it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh(
        &self,
        shown: &Refresh<'_>,
        now: i64,
    ) -> Result<Result<Given, Withheld>, StoreError> {
        let query = "SELECT 1 FROM oauth_tokens WHERE hash = $1";
        if !self.has_row(query, shown.token_hash).await? {
            return Ok(Err(Withheld::Grant));
        }
        self.rotate(shown, now).await
    }

    /// Spends a refresh token and gives its successor, in one transaction.
    async fn rotate(
        &self,
        shown: &Refresh<'_>,
        now: i64,
    ) -> Result<Result<Given, Withheld>, StoreError> {
        const STEP: &str = "refresh a token";
        let at = StoreError::at;
        let mut writing = self.write(STEP).await?;
        let row = sqlx::query("SELECT t.grant_id, t.spent_at, g.client, g.scopes, g.resource, g.ends_at, g.ended_at, k.revoked_at, (SELECT n.spent_at FROM oauth_tokens n WHERE n.hash = $2) AS next_spent_at FROM oauth_tokens t JOIN oauth_grants g ON g.id = t.grant_id JOIN keys k ON k.id = g.key_id WHERE t.hash = $1 AND t.kind = 'refresh'")
            .bind(shown.token_hash)
            .bind(shown.tokens.refresh_hash)
            .fetch_optional(&mut *writing)
            .await
            .map_err(at(STEP))?;
        let Some(row) = row else {
            return Ok(Err(Withheld::Grant));
        };
        let text = |name: &str| row.try_get::<String, _>(name).map_err(at(STEP));
        let time = |name: &str| row.try_get::<Option<i64>, _>(name).map_err(at(STEP));
        let grant = text("grant_id")?;
        let ends_at = time("ends_at")?.unwrap_or_default();
        let lives = time("ended_at")?.is_none() && time("revoked_at")?.is_none() && now < ends_at;
        if text("client")? != shown.client || !lives {
            return Ok(Err(Withheld::Grant));
        }
        let spent = time("spent_at")?;
        if let Some(spent) = spent {
            if now - spent >= GRACE {
                end(&mut writing, &grant, "a refresh token was shown again", now).await?;
                writing.commit().await.map_err(at(STEP))?;
                return Ok(Err(Withheld::Grant));
            }
            // The client has gone on with the successor: this one comes too late.
            if time("next_spent_at")?.is_some() {
                return Ok(Err(Withheld::Grant));
            }
        }
        if shown
            .resource
            .is_some_and(|asked| row.try_get::<&str, _>("resource").ok() != Some(asked))
        {
            return Ok(Err(Withheld::Resource));
        }
        if given_lately(&mut writing, &grant, now).await? >= EACH_MINUTE {
            return Ok(Err(Withheld::Often));
        }
        let granted = scopes(&text("scopes")?);
        let wanted = shown.scopes.unwrap_or(&granted).to_vec();
        if wanted.is_empty() || !wanted.iter().all(|scope| granted.contains(scope)) {
            return Ok(Err(Withheld::Scope));
        }
        if spent.is_none() {
            sqlx::query("UPDATE oauth_tokens SET spent_at = $1 WHERE hash = $2")
                .bind(now)
                .bind(shown.token_hash)
                .execute(&mut *writing)
                .await
                .map_err(at(STEP))?;
            put_token(
                &mut writing,
                shown.tokens.refresh_hash,
                &grant,
                "refresh",
                &granted,
                (now, ends_at),
            )
            .await?;
        }
        let access_ends_at = shown.tokens.access_ends_at.min(ends_at);
        put_token(
            &mut writing,
            shown.tokens.access_hash,
            &grant,
            "access",
            &wanted,
            (now, access_ends_at),
        )
        .await?;
        prune(&mut writing, &grant, now).await?;
        writing.commit().await.map_err(at(STEP))?;
        Ok(Ok(Given {
            scopes: wanted,
            ends_at: access_ends_at,
        }))
    }

    /// Says whether there is a row of a hash. What is made up must not take the one
    /// place of who writes.
    async fn has_row(&self, query: &'static str, hash: &str) -> Result<bool, StoreError> {
        let found = sqlx::query(query).bind(hash);
        let found = found.fetch_optional(&self.pool).await;
        let found = found.map_err(StoreError::at("look up a code or token"))?;
        Ok(found.is_some())
    }

    /// Finds who an access token stands for, if it is good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn access(&self, token_hash: &str, now: i64) -> Result<Option<Access>, StoreError> {
        const STEP: &str = "look up an access token";
        let at = StoreError::at;
        let row = sqlx::query("SELECT t.scopes, g.id AS grant_id, g.resource, g.used_at, k.id, k.name, k.scopes AS key_scopes FROM oauth_tokens t JOIN oauth_grants g ON g.id = t.grant_id JOIN keys k ON k.id = g.key_id WHERE t.hash = $1 AND t.kind = 'access' AND t.ends_at > $2 AND g.ends_at > $2 AND g.ended_at IS NULL AND k.revoked_at IS NULL")
            .bind(token_hash)
            .bind(now)
            .fetch_optional(&self.pool)
            .await
            .map_err(at(STEP))?;
        let Some(row) = row else { return Ok(None) };
        let text = |name: &str| row.try_get::<String, _>(name).map_err(at(STEP));
        let used: Option<i64> = row.try_get("used_at").map_err(at(STEP))?;
        if used.is_none_or(|used| used <= now - USED_STEP) {
            let note = sqlx::query("UPDATE oauth_grants SET used_at = $1 WHERE id = $2");
            let noted = note
                .bind(now)
                .bind(text("grant_id")?)
                .execute(&self.pool)
                .await;
            if let Err(error) = noted {
                // A full disk must not lock everybody out.
                tracing::warn!(%error, "failed to note the use of a grant");
            }
        }
        let key = scopes(&text("key_scopes")?);
        let mut may = scopes(&text("scopes")?);
        may.retain(|scope| key.contains(scope));
        Ok(Some(Access {
            principal: Principal {
                id: Owner::new(&text("id")?),
                name: text("name")?,
                scopes: may,
            },
            resource: text("resource")?,
        }))
    }
}

async fn put_token(
    writing: &mut Transaction<'static, Sqlite>,
    hash: &str,
    grant: &str,
    kind: &str,
    scopes: &[Scope],
    (now, ends_at): (i64, i64),
) -> Result<(), StoreError> {
    let put = sqlx::query(
        "INSERT INTO oauth_tokens (hash, grant_id, kind, scopes, made_at, ends_at) VALUES ($1, $2, $3, $4, $5, $6)",
    );
    let put = put
        .bind(hash)
        .bind(grant)
        .bind(kind)
        .bind(words(scopes))
        .bind(now)
        .bind(ends_at);
    put.execute(&mut **writing)
        .await
        .map(drop)
        .map_err(StoreError::at("keep a token"))
}

/// Returns how many access tokens a grant gave in the last minute.
async fn given_lately(
    writing: &mut Transaction<'static, Sqlite>,
    grant: &str,
    now: i64,
) -> Result<i64, StoreError> {
    let young = sqlx::query_scalar(
        "SELECT count(*) FROM oauth_tokens WHERE grant_id = $1 AND kind = 'access' AND made_at > $2",
    );
    let young = young.bind(grant).bind(now - 60 * 1000);
    let counted = young.fetch_one(&mut **writing).await;
    counted.map_err(StoreError::at("count a grant's tokens"))
}

/// Lets the access tokens of a grant go that are over.
async fn prune(
    writing: &mut Transaction<'static, Sqlite>,
    grant: &str,
    now: i64,
) -> Result<(), StoreError> {
    let over = sqlx::query(
        "DELETE FROM oauth_tokens WHERE kind = 'access' AND grant_id = $1 AND ends_at < $2",
    );
    let over = over.bind(grant).bind(now).execute(&mut **writing).await;
    over.map(drop).map_err(StoreError::at("let old tokens go"))
}

async fn end(
    writing: &mut Transaction<'static, Sqlite>,
    grant: &str,
    why: &str,
    now: i64,
) -> Result<(), StoreError> {
    let ending = sqlx::query(
        "UPDATE oauth_grants SET ended_at = $1, why = $2 WHERE id = $3 AND ended_at IS NULL",
    );
    let ending = ending.bind(now).bind(why).bind(grant);
    ending
        .execute(&mut **writing)
        .await
        .map(drop)
        .map_err(StoreError::at("end a grant"))
}
