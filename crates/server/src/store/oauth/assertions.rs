//! Assertions that clients showed. Kept on disk and not in memory: an assertion is
//! good for minutes, and a restart takes seconds, so that whoever read one could
//! otherwise show it again. Holds hashes alone.

use super::{Store, StoreError};

/// Assertions of one client that are kept at once. Each is good for minutes, and a
/// client gets few tokens with one; one that signs more waits, and no other does.
const EACH: i64 = 2048;

/// What came of noting an assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertionNote {
    /// It was noted, for the first time.
    New,
    /// It was shown before.
    Repeated,
    /// Its client showed too many others.
    TooMany,
}

impl Store {
    /// Notes that a client showed an assertion, until `ends_at`, in milliseconds since
    /// 1970.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_assertion(
        &self,
        hash: &str,
        client: &str,
        now: i64,
        ends_at: i64,
    ) -> Result<AssertionNote, StoreError> {
        const STEP: &str = "note a client's assertion";
        let at = StoreError::at;
        let mut writing = self.write(STEP).await?;
        sqlx::query("DELETE FROM oauth_assertions WHERE ends_at <= $1")
            .bind(now)
            .execute(&mut *writing)
            .await
            .map_err(at(STEP))?;
        let count = "SELECT count(*) FROM oauth_assertions WHERE client = $1";
        let count: i64 = sqlx::query_scalar(count)
            .bind(client)
            .fetch_one(&mut *writing)
            .await
            .map_err(at(STEP))?;
        let put = "INSERT INTO oauth_assertions (hash, client, ends_at) VALUES ($1, $2, $3) ON CONFLICT (hash) DO NOTHING";
        let put = sqlx::query(put)
            .bind(hash)
            .bind(client)
            .bind(ends_at)
            .execute(&mut *writing)
            .await
            .map_err(at(STEP))?;
        if put.rows_affected() == 0 {
            return Ok(AssertionNote::Repeated);
        }
        if count >= EACH {
            // What was put goes with the transaction.
            return Ok(AssertionNote::TooMany);
        }
        writing.commit().await.map_err(at(STEP))?;
        Ok(AssertionNote::New)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_is_good_once_and_its_clients_share() {
        let scratch = tempfile::tempdir().expect("a folder");
        let home = scratch.path().join("home");
        let mut store = Store::open(&home).await.expect("a store");
        let many = i64::MAX;
        for (hash, client, now, ends_at, expected) in [
            ("a", "c", 0, 100, AssertionNote::New),
            ("a", "c", 99, 100, AssertionNote::Repeated),
            ("b", "c", 99, 200, AssertionNote::New),
            // Its time is over, and with it that of whoever could show it.
            ("a", "c", 100, 300, AssertionNote::New),
            ("b", "c", 199, 300, AssertionNote::Repeated),
            ("b", "other", 199, 300, AssertionNote::Repeated),
        ] {
            let noted = store.note_assertion(hash, client, now, ends_at).await;
            assert_eq!(noted.expect("noted"), expected, "{hash} at {now}");
            // As after a restart.
            store = Store::open(&home).await.expect("a store");
        }
        for nth in 0..EACH {
            let hash = format!("d{nth}");
            let noted = store.note_assertion(&hash, "d", 1000, many).await;
            assert_eq!(noted.expect("noted"), AssertionNote::New);
        }
        for (hash, client, expected) in [
            ("e", "d", AssertionNote::TooMany),
            ("e", "d", AssertionNote::TooMany),
            ("d0", "d", AssertionNote::Repeated),
            ("e", "c", AssertionNote::New),
        ] {
            let noted = store.note_assertion(hash, client, 1000, many).await;
            assert_eq!(noted.expect("noted"), expected, "{hash} of {client}");
        }
    }
}
