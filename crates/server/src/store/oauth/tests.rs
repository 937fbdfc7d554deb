//! Grants on a real database: who wins, what ends what, and what is kept.

use super::*;

const HOUR: i64 = 3600 * 1000;

struct Home {
    store: Store,
    key: String,
    _scratch: tempfile::TempDir,
}

async fn home() -> Home {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("home")).await.unwrap();
    let all = [Scope::Execute, Scope::Files];
    store.create_key("laptop", &all).await.unwrap();
    let key = store.keys().await.unwrap()[0].id.clone();
    store.register_client("c", "{}", 0).await.unwrap();
    store.register_client("other", "{}", 0).await.unwrap();
    Home {
        store,
        key,
        _scratch: scratch,
    }
}

impl Home {
    async fn grant(&self, code: &str) {
        let grant = NewGrant {
            client: "c",
            key: &self.key,
            host: "x.example",
            scopes: &[Scope::Execute, Scope::Files],
            resource: "https://s/mcp",
            ends_at: 90 * 24 * HOUR,
            code_hash: code,
            code_ends_at: 60_000,
            redirect: "https://x/cb",
            redirect_sent: true,
            challenge: "good",
        };
        assert!(self.store.grant(&grant, 1).await.unwrap());
    }

    async fn refresh(
        &self,
        from: &str,
        to: &str,
        access: &str,
        now: i64,
    ) -> Result<Given, Withheld> {
        let shown = Refresh {
            token_hash: from,
            client: "c",
            scopes: None,
            resource: None,
            tokens: tokens(access, to, now),
        };
        self.store.refresh(&shown, now).await.unwrap()
    }

    async fn lives(&self, access: &str, now: i64) -> bool {
        self.store.access(access, now).await.unwrap().is_some()
    }
}

fn tokens<'a>(access: &'a str, refresh: &'a str, now: i64) -> NewTokens<'a> {
    NewTokens {
        access_hash: access,
        access_ends_at: now + HOUR,
        refresh_hash: refresh,
    }
}

fn exchange<'a>(code: &'a str, access: &'a str, refresh: &'a str) -> Exchange<'a> {
    Exchange {
        code_hash: code,
        client: "c",
        redirect: Some("https://x/cb"),
        challenge: "good",
        resource: None,
        tokens: tokens(access, refresh, 10),
    }
}

#[tokio::test]
async fn a_code_is_good_once_and_for_its_client() {
    let home = home().await;
    home.grant("code").await;
    let good = exchange("code", "a", "r");
    for (bad, why) in [
        (
            Exchange {
                client: "other",
                ..good.clone()
            },
            Withheld::Grant,
        ),
        (
            Exchange {
                code_hash: "none",
                ..good.clone()
            },
            Withheld::Grant,
        ),
        (
            Exchange {
                redirect: None,
                ..good.clone()
            },
            Withheld::Grant,
        ),
        (
            Exchange {
                redirect: Some("https://x/CB"),
                ..good.clone()
            },
            Withheld::Grant,
        ),
        (
            Exchange {
                challenge: "bad",
                ..good.clone()
            },
            Withheld::Grant,
        ),
        (
            Exchange {
                resource: Some("https://s/"),
                ..good.clone()
            },
            Withheld::Resource,
        ),
    ] {
        assert_eq!(
            home.store.exchange(&bad, 10).await.unwrap(),
            Err(why),
            "{bad:?}"
        );
    }
    assert_eq!(
        home.store.exchange(&good, 60_000).await.unwrap(),
        Err(Withheld::Grant),
        "late"
    );
    let given = home.store.exchange(&good, 10).await.unwrap().unwrap();
    assert_eq!(given.scopes, [Scope::Execute, Scope::Files]);
    assert_eq!(given.ends_at, 10 + HOUR);
    let access = home.store.access("a", 11).await.unwrap().unwrap();
    assert_eq!(access.principal.id.as_str(), home.key);
    assert_eq!(access.resource, "https://s/mcp");
    assert!(
        !home.lives("r", 11).await,
        "a refresh token is no access token"
    );
    assert!(!home.lives("a", 11 + HOUR).await);
    assert_eq!(home.store.grants(11).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_code_that_is_shown_again_ends_all() {
    let home = home().await;
    home.grant("code").await;
    let good = exchange("code", "a", "r");
    home.store.exchange(&good, 10).await.unwrap().unwrap();
    // Even much later, and with a wrong verifier.
    let again = Exchange {
        challenge: "bad",
        ..exchange("code", "a2", "r2")
    };
    assert_eq!(
        home.store.exchange(&again, 2 * HOUR).await.unwrap(),
        Err(Withheld::Grant)
    );
    assert!(!home.lives("a", 12).await);
    assert_eq!(
        home.refresh("r", "r3", "a3", 12).await,
        Err(Withheld::Grant)
    );
    assert_eq!(home.store.grants(11).await.unwrap(), []);
}

#[tokio::test]
async fn refresh_tokens_go_on_in_one_chain() {
    let home = home().await;
    home.grant("code").await;
    home.store
        .exchange(&exchange("code", "a0", "r0"), 10)
        .await
        .unwrap()
        .unwrap();
    home.refresh("r0", "r1", "a1", 1000).await.unwrap();
    // A repeat within the grace gives the same successor.
    home.refresh("r0", "r1", "a1b", 20_000).await.unwrap();
    assert!(home.lives("a1", 20_001).await && home.lives("a1b", 20_001).await);
    home.refresh("r1", "r2", "a2", 21_000).await.unwrap();
    // The client has gone on: too late, and no theft.
    assert_eq!(
        home.refresh("r0", "r1", "a1c", 22_000).await,
        Err(Withheld::Grant)
    );
    assert!(home.lives("a2", 22_000).await);
    let narrow = Refresh {
        token_hash: "r2",
        client: "c",
        scopes: Some(&[Scope::Execute]),
        resource: Some("https://s/mcp"),
        tokens: tokens("a3", "r3", 60_000),
    };
    let wide = Refresh {
        scopes: Some(&[Scope::Execute, Scope::Jobs]),
        ..narrow.clone()
    };
    assert_eq!(
        home.store.refresh(&wide, 60_000).await.unwrap(),
        Err(Withheld::Scope)
    );
    let foreign = Refresh {
        client: "other",
        ..narrow.clone()
    };
    assert_eq!(
        home.store.refresh(&foreign, 60_000).await.unwrap(),
        Err(Withheld::Grant)
    );
    let given = home.store.refresh(&narrow, 60_000).await.unwrap().unwrap();
    assert_eq!(given.scopes, [Scope::Execute]);
    let given = home.refresh("r3", "r4", "a4", 61_000).await.unwrap();
    assert_eq!(given.scopes.len(), 2, "the grant is never narrowed");
    // Spent for longer than the grace: two have it, and all ends.
    assert_eq!(
        home.refresh("r2", "r3", "a5", 90_000).await,
        Err(Withheld::Grant)
    );
    assert!(!home.lives("a4", 90_001).await);
}

#[tokio::test]
async fn a_grant_ends_with_its_key_and_by_hand() {
    for how in ["key", "client", "hand", "time"] {
        let home = home().await;
        home.grant("code").await;
        home.store
            .exchange(&exchange("code", "a", "r"), 10)
            .await
            .unwrap()
            .unwrap();
        home.store.end_grant_of("a", "other", 11).await.unwrap();
        assert!(home.lives("a", 12).await, "another's word ends nothing");
        let mut now = 12;
        match how {
            "key" => drop(home.store.revoke_key("laptop").await.unwrap()),
            "client" => home.store.end_grant_of("r", "c", 12).await.unwrap(),
            "hand" => {
                let id = home.store.grants(12).await.unwrap()[0].id.clone();
                assert!(home.store.end_grant(&id, 12).await.unwrap());
                assert!(!home.store.end_grant(&id, 12).await.unwrap());
            }
            _ => now = 91 * 24 * HOUR,
        }
        assert!(!home.lives("a", now).await, "{how}");
        assert_eq!(
            home.refresh("r", "r2", "a2", now).await,
            Err(Withheld::Grant),
            "{how}"
        );
        assert_eq!(home.store.grants(now).await.unwrap(), [], "{how}");
    }
}

#[tokio::test]
async fn of_many_at_once_one_wins() {
    let home = home().await;
    home.grant("code").await;
    let mut tries = tokio::task::JoinSet::new();
    for at in 0..8 {
        let store = home.store.clone();
        tries.spawn(async move {
            let (access, refresh) = (format!("a{at}"), format!("r{at}"));
            store
                .exchange(&exchange("code", &access, &refresh), 10)
                .await
                .unwrap()
        });
    }
    let results = tries.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for at in 0..8 {
        let access = format!("a{at}");
        assert!(
            !home.lives(&access, 11).await,
            "the second one ended the grant"
        );
    }
}

#[tokio::test]
async fn a_flood_of_clients_locks_nobody_out() {
    let home = home().await;
    home.grant("code").await;
    let day = 24 * HOUR;
    home.store
        .register_client("new", "{}", day + 1)
        .await
        .unwrap();
    assert!(
        home.store.client("other").await.unwrap().is_none(),
        "unused for a day"
    );
    assert!(
        home.store.client("c").await.unwrap().is_some(),
        "granted once: never"
    );
    assert!(home.store.client("new").await.unwrap().is_some());
    home.store
        .keep_document("https://d", "1", 5, 10)
        .await
        .unwrap();
    home.store
        .keep_document("https://d", "2", 6, 20)
        .await
        .unwrap();
    let kept = home.store.client("https://d").await.unwrap().unwrap();
    assert_eq!((kept.document.as_str(), kept.fresh_until), ("2", 20));
}

#[tokio::test]
async fn of_ten_thousand_unused_clients_the_oldest_goes() {
    let home = home().await;
    home.grant("code").await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10100) INSERT INTO oauth_clients (id, kind, document, made_at, fresh_until) SELECT 'many' || i, 'registered', '{}', i, 0 FROM n";
    sqlx::query(many).execute(&home.store.pool).await.unwrap();
    home.store
        .register_client("new", "{}", 20_000)
        .await
        .unwrap();
    let count = "SELECT count(*) FROM oauth_clients WHERE granted_at IS NULL";
    let count: i64 = sqlx::query_scalar(count)
        .fetch_one(&home.store.pool)
        .await
        .unwrap();
    assert_eq!(count, UNUSED);
    for (id, is_there) in [
        ("many1", false),
        ("many10100", true),
        ("new", true),
        ("c", true),
    ] {
        let found = home.store.client(id).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{id}");
    }
}

#[tokio::test]
async fn one_grant_gives_so_many_tokens_and_one_key_so_many_grants() {
    let home = home().await;
    home.grant("code").await;
    home.store
        .exchange(&exchange("code", "a", "r0"), 10)
        .await
        .unwrap()
        .unwrap();
    let mut given = 1;
    loop {
        let (from, to) = (format!("r{}", given - 1), format!("r{given}"));
        match home.refresh(&from, &to, &format!("a{given}"), 11).await {
            Ok(_) => given += 1,
            Err(withheld) => break assert_eq!(withheld, Withheld::Often),
        }
    }
    assert_eq!(given, EACH_MINUTE);
    // A minute later it goes on where it was.
    let (from, to) = (format!("r{}", given - 1), format!("r{given}"));
    home.refresh(&from, &to, "later", 60_012).await.unwrap();

    for at in 1..GRANTS_EACH {
        home.grant(&format!("code{at}")).await;
    }
    let grant = |now: i64, code: &'static str| NewGrant {
        client: "c",
        key: &home.key,
        host: "x",
        scopes: &[Scope::Execute],
        resource: "https://s/mcp",
        ends_at: now + HOUR,
        code_hash: code,
        code_ends_at: now + 60_000,
        redirect: "https://x/cb",
        redirect_sent: true,
        challenge: "good",
    };
    assert!(!home.store.grant(&grant(2, "more"), 2).await.unwrap());
    // What nobody exchanged is gone two days later; what was used stays.
    let now = 48 * HOUR;
    assert!(home.store.grant(&grant(now, "new"), now).await.unwrap());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_grants")
        .fetch_one(&home.store.pool)
        .await
        .unwrap();
    assert_eq!(left, 2);
}
