//! Clients that sign, with documents and key sets from a server of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::auth::Scope;
use crate::oauth::assertion::tests::TestKey;
use crate::oauth::client::Client;
use crate::outbound::{Guard, Names};
use crate::store::oauth::NewGrant;

const ID: &str = "http://docs.example/client.json";
const SET: &str = "/keys.json";

/// A server whose answers a test changes, with the clients and the store of ours.
struct Stage {
    answers: Arc<Mutex<HashMap<&'static str, Value>>>,
    calls: Arc<AtomicUsize>,
    clients: Clients,
    store: Store,
    _scratch: tempfile::TempDir,
}

/// Answers each path with what the table has, and with 503 where it has nothing.
async fn serve(
    answers: Arc<Mutex<HashMap<&'static str, Value>>>,
    calls: Arc<AtomicUsize>,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            calls.fetch_add(1, Ordering::Relaxed);
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let found = answers.lock().expect("answers").get(path).cloned();
            let status = if found.is_some() {
                "200 OK"
            } else {
                "503 Down"
            };
            let body = found.unwrap_or_default().to_string();
            let text = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(text.as_bytes()).await.ok();
        }
    });
    address
}

fn always(_: &str) -> bool {
    true
}

fn document(jwks: Option<Value>) -> Value {
    let mut document = json!({
        "client_id": ID,
        "redirect_uris": ["https://x.example/cb"],
        "token_endpoint_auth_method": "private_key_jwt",
    });
    match jwks {
        Some(jwks) => document["jwks"] = jwks,
        None => document["jwks_uri"] = json!(format!("http://docs.example{SET}")),
    }
    document
}

fn set(keys: &[(&TestKey, &str)]) -> Value {
    let keys: Vec<Value> = keys.iter().map(|(key, id)| key.jwk(id)).collect();
    json!({ "keys": keys })
}

impl Stage {
    /// Sets it up, with a client that a person granted something where `granted`.
    async fn new(jwks: Option<Value>, granted: bool) -> Self {
        let scratch = tempfile::tempdir().expect("a folder");
        let store = Store::open(&scratch.path().join("home")).await;
        let (answers, calls) = (Arc::default(), Arc::default());
        let to = serve(Arc::clone(&answers), Arc::clone(&calls)).await;
        let names = Names::Fixed(Arc::new(move |_| vec![to]));
        let networks = vec!["127.0.0.1/32".parse().expect("a network")];
        let stage = Self {
            answers,
            calls,
            clients: Clients::new(Guard::plain(None, networks, names), true),
            store: store.expect("a store"),
            _scratch: scratch,
        };
        let document = document(jwks);
        let client = Client::of_document(ID, document.as_object().expect("members"), true);
        let client = serde_json::to_string(&client.expect("a client")).expect("JSON");
        let kept = stage.store.keep_document(ID, &client, now(), 0).await;
        kept.expect("kept");
        stage.answer("/client.json", Some(document));
        if granted {
            stage.grant().await;
        }
        stage
    }

    async fn grant(&self) {
        let made = self.store.create_key("k", &[Scope::Execute]).await;
        made.expect("a key");
        let key = self.store.keys().await.expect("keys")[0].id.clone();
        let grant = NewGrant {
            client: ID,
            key: &key,
            host: "x.example",
            scopes: &[Scope::Execute],
            resource: "https://s.example/mcp",
            ends_at: now() + 1_000_000,
            code_hash: "h",
            code_ends_at: now() + 60_000,
            redirect: "https://x.example/cb",
            redirect_sent: true,
            challenge: "c",
        };
        assert!(self.store.grant(&grant, now()).await.expect("granted"));
    }

    fn answer(&self, path: &'static str, answer: Option<Value>) {
        let mut answers = self.answers.lock().expect("answers");
        match answer {
            Some(answer) => drop(answers.insert(path, answer)),
            None => drop(answers.remove(path)),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Lets a minute pass, as far as renewals go.
    fn wait(&self) {
        let mut renewals = self.clients.renewals.0.lock().expect("renewals");
        renewals.clear();
    }

    /// Makes what is kept of the keys too old.
    async fn age(&self) {
        let kept = self.kept().await;
        let mut client = kept.client.clone();
        client.keys.as_mut().expect("keys").fresh_until = 0;
        let client = serde_json::to_string(&client).expect("JSON");
        let replaced = self.store.replace_client(ID, &kept.row.document, &client);
        assert!(replaced.await.expect("replaced"));
        self.wait();
    }

    async fn kept(&self) -> KeptClient {
        let kept = self.clients.known(&self.store, ID).await;
        kept.expect("read").expect("a client")
    }

    async fn show(&self, text: &str, may: fn(&str) -> bool) -> &'static str {
        self.show_of(&self.kept().await, text, may).await
    }

    async fn show_of(&self, kept: &KeptClient, text: &str, may: fn(&str) -> bool) -> &'static str {
        let site = Site::at("https://s.example");
        let proven = self.clients.prove(&self.store, kept, text, &site, may);
        match proven.await {
            Ok(()) => "proven",
            Err(Unproven::Bad(why)) => why,
            Err(Unproven::Outage) => "outage",
            Err(Unproven::Often) => "often",
            Err(Unproven::Store(error)) => panic!("{error}"),
        }
    }
}

/// Signs an assertion that differs from every other.
fn signed(key: &TestKey, id: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    let header = json!({"alg": "RS256", "kid": id});
    let claims = json!({"iss": ID, "sub": ID, "aud": "https://s.example/oauth/token", "exp": now() / 1000 + 60, "jti": nth.to_string()});
    key.sign(&header.to_string(), &claims.to_string())
}

const STRANGE: &str = "it is signed with a key that the client does not have";

#[tokio::test]
async fn keys_are_fetched_when_they_are_missing_once_a_minute() {
    let stage = Stage::new(None, true).await;
    let (one, other) = (TestKey::usual(), TestKey::other());
    let first = signed(&one, "a");
    // Out of order: nobody can say, and it is left alone for a while.
    assert_eq!(stage.show(&first, always).await, "outage");
    assert_eq!(stage.show(&first, always).await, "outage");
    assert_eq!(stage.calls(), 1);
    stage.wait();
    stage.answer(SET, Some(set(&[(&one, "a")])));
    assert_eq!(stage.show(&first, |_| false).await, "outage");
    assert_eq!(stage.calls(), 1, "it was not let fetch, and may again");
    assert_eq!(stage.show(&first, always).await, "proven");
    assert_eq!(stage.show(&first, always).await, "it was shown before");
    assert_eq!(stage.show(&signed(&one, "a"), always).await, "proven");
    assert_eq!(
        stage.show(&signed(&other, "a"), always).await,
        "its signature is not good"
    );
    assert_eq!(stage.show("x", always).await, "it has no signature");
    assert_eq!(stage.calls(), 2);
    // Keys change; what is unknown is asked for once a minute.
    stage.answer(SET, Some(set(&[(&other, "b")])));
    assert_eq!(stage.show(&signed(&other, "b"), always).await, STRANGE);
    assert_eq!(stage.calls(), 2);
    stage.wait();
    assert_eq!(stage.show(&signed(&one, "c"), always).await, STRANGE);
    assert_eq!(stage.calls(), 3);
    assert_eq!(stage.show(&signed(&other, "b"), always).await, "proven");
    assert_eq!(stage.show(&signed(&one, "a"), always).await, STRANGE);
    assert_eq!(stage.calls(), 3);
}

#[tokio::test]
async fn kept_keys_outlive_their_server() {
    let stage = Stage::new(None, true).await;
    let one = TestKey::usual();
    stage.answer(SET, Some(set(&[(&one, "a")])));
    assert_eq!(stage.show(&signed(&one, "a"), always).await, "proven");
    for broken in [
        None,
        Some(json!([])),
        Some(json!({"keys": 1})),
        Some(json!("x".repeat(66_000))),
    ] {
        stage.answer(SET, broken);
        stage.age().await;
        let before = stage.calls();
        assert_eq!(stage.show(&signed(&one, "a"), always).await, "proven");
        assert_eq!(stage.calls(), before + 1);
        assert_eq!(stage.show(&signed(&one, "b"), always).await, "outage");
        assert_eq!(stage.calls(), before + 1);
    }
    // What is withdrawn is withdrawn.
    stage.answer(SET, Some(set(&[])));
    stage.age().await;
    assert_eq!(stage.show(&signed(&one, "a"), always).await, STRANGE);
    // A new document with the same address leaves what was fetched.
    let mut client = stage.kept().await.client;
    stage.answer(SET, Some(set(&[(&one, "a")])));
    stage.wait();
    assert_eq!(stage.show(&signed(&one, "a"), always).await, "proven");
    client.carry_keys_over(Some(stage.kept().await.client));
    assert_eq!(Some(client), Some(stage.kept().await.client));
}

#[tokio::test]
async fn keys_in_the_document_are_fetched_with_it() {
    let (one, other) = (TestKey::usual(), TestKey::other());
    let stage = Stage::new(Some(set(&[(&one, "a")])), true).await;
    assert_eq!(stage.show(&signed(&one, "a"), always).await, "proven");
    assert_eq!(stage.calls(), 1, "what is kept was too old");
    stage.wait();
    assert_eq!(stage.show(&signed(&one, "a"), always).await, "proven");
    assert_eq!(stage.calls(), 1);
    stage.answer("/client.json", Some(document(Some(set(&[(&other, "b")])))));
    stage.wait();
    assert_eq!(stage.show(&signed(&other, "b"), always).await, "proven");
    assert_eq!(stage.show(&signed(&one, "a"), always).await, STRANGE);
    assert_eq!(stage.calls(), 2);
}

#[tokio::test]
async fn strangers_make_nobody_fetch_keys() {
    let stage = Stage::new(None, false).await;
    let one = TestKey::usual();
    stage.answer(SET, Some(set(&[(&one, "a")])));
    let refused = stage.show(&signed(&one, "a"), always).await;
    assert_eq!(refused, "nobody granted the client anything");
    stage.grant().await;
    for bad in ["", "x.y.z", &"a".repeat(9000)] {
        assert_ne!(stage.show(bad, always).await, "proven");
    }
    assert_eq!(stage.calls(), 0);
    let kept = stage.kept().await;
    let [first, second, third] = [(); 3].map(|()| signed(&one, "a"));
    let (first, second) = tokio::join!(
        stage.show_of(&kept, &first, always),
        stage.show_of(&kept, &second, always)
    );
    assert_eq!((first, second), ("proven", "outage"), "one fetches");
    // One that read what was kept before the keys came finds them nevertheless.
    assert_eq!(stage.show_of(&kept, &third, always).await, "proven");
    assert_eq!(stage.calls(), 1);
}

#[test]
fn renewals_are_bounded() {
    let (renewals, begin) = (Renewals::default(), Instant::now());
    let check = |id: &str, after: u64, expected| {
        let at = begin + Duration::from_secs(after);
        assert_eq!(renewals.last(id, at), expected, "{id} after {after} s");
    };
    check("a", 0, Renewal::Due);
    renewals.note("a", begin, true);
    check("a", 59, Renewal::Recent(true));
    check("a", 60, Renewal::Due);
    for nth in 1..MOST {
        renewals.note(&nth.to_string(), begin, false);
    }
    check("1", 1, Renewal::Recent(false));
    check("b", 1, Renewal::Recent(false));
    check("b", 60, Renewal::Due);
    renewals.note("b", begin + Duration::from_secs(60), true);
    assert_eq!(renewals.0.lock().expect("renewals").len(), 1);
}
