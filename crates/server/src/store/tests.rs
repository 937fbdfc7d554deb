//! The store on real files, from several processes' point of view.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Timespec, Timestamps};

use super::*;
use crate::auth::Scope;

async fn store() -> (Store, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("home")).await.unwrap();
    (store, scratch)
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_token_lives_until_it_is_revoked() {
    let (store, scratch) = store().await;
    let other = Store::open(&scratch.path().join("home")).await.unwrap();
    let token = other.create_key("laptop", &[Scope::Execute]).await.unwrap();
    let known = store.authenticate(token.reveal()).await.unwrap().unwrap();
    assert_eq!(known.name, "laptop");
    assert_eq!(known.id.as_str(), store.keys().await.unwrap()[0].id);
    assert_eq!(known.scopes, [Scope::Execute]);
    assert!(store.is_live(known.id.as_str()).await.unwrap());
    let unused = other.create_key("tunnel", &[Scope::Execute]).await.unwrap();
    let last = async |store: &Store| store.keys().await.unwrap().pop().unwrap();
    let key = last(&store).await;
    assert_eq!(
        (key.prefix.as_str(), key.last_used_at),
        (unused.prefix(), None)
    );
    other.note_use(&key.id).await.unwrap();
    assert!(last(&store).await.last_used_at.is_some());
    let revoked = other.revoke_key("laptop").await.unwrap();
    assert_eq!(revoked.as_deref(), Some(known.id.as_str()));
    assert!(!store.is_live(known.id.as_str()).await.unwrap());
    assert!(!store.is_live("nobody").await.unwrap());
    assert_eq!(
        store.authenticate(token.reveal()).await.unwrap(),
        Err(Denied::Unknown)
    );
    assert_eq!(other.revoke_key("laptop").await.unwrap(), None);
}

#[tokio::test]
async fn strangers_are_unknown() {
    let (store, _scratch) = store().await;
    let stranger = Token::generate().unwrap();
    for token in ["", "codex_", "x", stranger.reveal(), "' OR 1=1 --"] {
        assert_eq!(
            store.authenticate(token).await.unwrap(),
            Err(Denied::Unknown),
            "{token}"
        );
    }
}

#[tokio::test]
async fn names_are_unique_among_the_living() {
    let (store, _scratch) = store().await;
    let first = store.create_key("a", &[Scope::Execute]).await.unwrap();
    let taken = store.create_key("a", &[Scope::Execute]).await.unwrap_err();
    assert!(matches!(taken, CreateError::Taken(_)), "{taken}");
    assert!(matches!(
        store.create_key("a b", &[]).await,
        Err(CreateError::Name(_))
    ));
    store.revoke_key("a").await.unwrap();
    let second = store
        .create_key("a", &[Scope::Execute, Scope::Admin])
        .await
        .unwrap();
    assert_eq!(
        store.authenticate(first.reveal()).await.unwrap(),
        Err(Denied::Unknown)
    );
    let known = store.authenticate(second.reveal()).await.unwrap().unwrap();
    assert_eq!(known.check(Scope::Admin), Ok(()));
    let keys = store.keys().await.unwrap();
    assert_ne!(known.id.as_str(), keys[0].id, "a name again, an id never");
    assert_eq!(keys.len(), 2);
    assert!(keys[0].revoked_at.is_some() && keys[1].revoked_at.is_none());
    assert_eq!(keys[1].prefix, second.prefix());
}

#[tokio::test]
async fn last_use_is_noted_once_a_minute() {
    let (store, _scratch) = store().await;
    let token = store.create_key("a", &[Scope::Execute]).await.unwrap();
    let last = || async { store.keys().await.unwrap()[0].last_used_at };
    assert_eq!(last().await, None);
    store.authenticate(token.reveal()).await.unwrap().unwrap();
    let first = last().await.unwrap();
    assert!(first >= now() - 5);
    let set = |to: i64| {
        sqlx::query("UPDATE keys SET last_used_at = $1")
            .bind(to)
            .execute(&store.pool)
    };
    set(first - 30).await.unwrap();
    store.authenticate(token.reveal()).await.unwrap().unwrap();
    assert_eq!(last().await, Some(first - 30));
    set(first - 61).await.unwrap();
    store.authenticate(token.reveal()).await.unwrap().unwrap();
    assert!(last().await >= Some(first));
}

#[tokio::test]
async fn nothing_readable_by_others_and_no_token_on_disk() {
    let (store, scratch) = store().await;
    let token = store.create_key("a", &[Scope::Execute]).await.unwrap();
    let home = scratch.path().join("home");
    assert_eq!(mode(&home), 0o700);
    for file in std::fs::read_dir(&home).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        let secret = &token.reveal().as_bytes()[12..];
        assert!(
            !bytes.windows(secret.len()).any(|window| window == secret),
            "{}",
            path.display()
        );
    }
}

#[tokio::test]
async fn first_starts_at_the_same_time_all_succeed() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().join("home");
    let opens = (0..8).map(|i| {
        let home = home.clone();
        // A thread and a runtime each, as processes have.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let store = Store::open(&home).await.unwrap();
                store
                    .create_key(&format!("k{i}"), &[Scope::Execute])
                    .await
                    .unwrap();
            });
        })
    });
    for open in opens.collect::<Vec<_>>() {
        open.join().unwrap();
    }
    assert_eq!(
        Store::open(&home)
            .await
            .unwrap()
            .keys()
            .await
            .unwrap()
            .len(),
        8
    );
}

#[tokio::test]
async fn each_broken_store_has_its_cure() {
    let check = |home: &Path, expected: &str| {
        let home = home.to_owned();
        let expected = expected.to_owned();
        async move {
            let error = Store::open(&home).await.unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
        }
    };
    let scratch = tempfile::tempdir().unwrap();
    let damaged = scratch.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(
        damaged.join("state.db"),
        "this is not a database at all, ".repeat(100),
    )
    .unwrap();
    check(&damaged, "is damaged or not a database").await;

    let newer = scratch.path().join("newer");
    let store = Store::open(&newer).await.unwrap();
    let row = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', TRUE, x'00', 0)";
    sqlx::query(row).execute(&store.pool).await.unwrap();
    check(
        &newer,
        "written by a newer codex-server (its migration 9999 is unknown here)",
    )
    .await;

    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    check(&file, "failed to make the data directory").await;
    // A directory where the database should be: root may write everything,
    // so a mode would not do.
    let folder = scratch.path().join("folder");
    std::fs::create_dir_all(folder.join("state.db")).unwrap();
    check(&folder, "it is not a plain file").await;
}

/// Has the database's files look as if they had changed so many seconds ago. By path: to
/// close a file of SQLite's would give up this process's locks on it.
fn age(home: &Path, seconds: i64) {
    let ago = Timespec {
        tv_sec: now() - seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: ago,
        last_modification: ago,
    };
    for name in ["state.db", "state.db-wal"] {
        let path = home.join(name);
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::empty()).unwrap();
    }
}

#[tokio::test]
async fn a_key_that_is_remembered_can_be_revoked_by_another_process() {
    let (store, scratch) = store().await;
    let home = scratch.path().join("home");
    let other = Store::open(&home).await.unwrap();
    let token = other.create_key("laptop", &[Scope::Execute]).await.unwrap();
    store.authenticate(token.reveal()).await.unwrap().unwrap();
    age(&home, 60);
    let stamp = store.known.stamp().expect("the files are old enough");
    let hash = Token::parse(token.reveal()).unwrap().hash();
    assert_eq!(store.known.find(stamp, &hash, now()), None);
    let found = store.authenticate(token.reveal()).await.unwrap();
    let remembered = store.known.find(stamp, &hash, now());
    assert_eq!(remembered, found.ok());
    assert!(remembered.is_some());
    // Its use is noted once a minute all the same.
    assert_eq!(store.known.find(stamp, &hash, now() + LAST_USED_STEP), None);
    other.revoke_key("laptop").await.unwrap();
    for round in 0..50 {
        if round == 25 {
            // The files are old enough to be compared, and are not what they were.
            age(&home, 50);
            assert!(store.known.stamp().is_some());
        }
        let found = store.authenticate(token.reveal()).await.unwrap();
        assert_eq!(found, Err(Denied::Unknown));
    }
}
