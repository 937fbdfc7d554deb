//! Documents from a server of the test's own, over plain http; addresses by table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::outbound::Names;

#[test]
fn ids_are_addresses_in_one_spelling() {
    for (id, good) in [
        ("https://chatgpt.com/oauth/client.json", true),
        ("https://x.example/a", true),
        ("http://x.example/a", true), // the guard refuses it
        ("https://x.example/", false),
        ("https://x.example", false),
        ("https://x.example/a?b", false),
        ("https://x.example/a#b", false),
        ("https://u@x.example/a", true), // the guard refuses it
        ("https://x.example:443/a", false),
        ("https://x.example:8443/a", false),
        ("https://X.example/a", false),
        ("https://x.example/a/../b", false),
        ("https://x.example/%2e%2e/b", false),
        ("https://127.0.0.1/a", false),
        ("https://[::1]/a", false),
        ("https://2130706433/a", false),
        ("https://0x7f.1/a", false),
        ("https://localhost/a", false),
        ("https://x.example\\a", false),
    ] {
        assert_eq!(address(id).is_ok(), good, "{id}");
    }
    let guard = Guard::public();
    for refused in [
        "http://x.example/a",
        "https://u@x.example/a",
        "https://x.example:8443/a",
    ] {
        let url = Url::parse(refused).expect("a URL");
        assert!(guard.check_parsed(&url).is_err(), "{refused}");
    }
}

#[test]
fn documents_stay_good_as_their_server_says() {
    for (text, expected) in [
        (None, USUALLY_FRESH),
        (Some("public"), USUALLY_FRESH),
        (Some("max-age=90"), 90_000),
        (Some("Max-Age=60, must-revalidate"), 60_000),
        (Some("max-age=99999999999"), LONGEST_FRESH),
        (Some("max-age=-1"), LEAST_FRESH),
        (Some("max-age=x"), LEAST_FRESH),
        (Some("no-store, max-age=90"), LEAST_FRESH),
    ] {
        assert_eq!(freshness(text), expected, "{text:?}");
    }
}

/// Serves each path its own answer, and counts the calls.
async fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("an address");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, kind, id, pad) = match path.as_str() {
                    "/good" => ("200 OK", "application/json", "/good", 0),
                    "/other" => ("200 OK", "application/json", "/good", 0),
                    "/html" => ("200 OK", "text/html", "/html", 0),
                    "/large" => ("200 OK", "application/json", "/large", 20_000),
                    "/moved" => (
                        "302 Found\r\nLocation: /good",
                        "application/json",
                        "/moved",
                        0,
                    ),
                    _ => ("404 Not Found", "application/json", "", 0),
                };
                let body = format!(
                    "{{\"client_id\": \"http://docs.example{id}\", \"redirect_uris\": [\"https://x.example/cb\"], \"client_name\": \"{}\"}}",
                    "x".repeat(pad)
                );
                let text = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(text.as_bytes()).await.ok();
            });
        }
    });
    (address, calls)
}

fn clients(to: SocketAddr, networks: &[&str]) -> Clients {
    let names = Names::Fixed(Arc::new(move |_| vec![to]));
    let networks = networks.iter().map(|text| text.parse().expect("a network"));
    Clients::new(Guard::plain(None, networks.collect(), names), true)
}

async fn fetch(clients: &Clients, id: &str) -> Result<(Client, i64), NoClient> {
    let url = clients.url(id)?;
    clients.fetch(id, url).await
}

fn always(_: &str) -> bool {
    true
}

#[test]
fn strangers_take_no_place_of_those_that_people_know() {
    let places = Places::of(2);
    let one = places.take("a.example");
    assert!(one.is_some());
    assert!(places.take("a.example").is_none(), "one from each host");
    let two = places.take("b.example");
    assert!(two.is_some());
    assert!(places.take("c.example").is_none(), "two in all");
    assert!(places.take("chatgpt.com").is_some());
    drop(one);
    assert!(places.take("a.example").is_some());
    drop(two);
}

#[tokio::test]
async fn documents_are_fetched_within_bounds() {
    let (to, calls) = serve().await;
    let clients = clients(to, &["127.0.0.1/32"]);
    let (client, fresh) = fetch(&clients, "http://docs.example/good")
        .await
        .expect("a client");
    assert_eq!((client.redirects.len(), fresh), (1, 60_000));
    for (path, words) in [
        ("other", "client_id is not the address"),
        ("html", "is not JSON"),
        ("large", "larger than 16 KiB"),
        ("moved", "something else than 200"),
        ("gone", "something else than 200"),
    ] {
        let refused = fetch(&clients, &format!("http://docs.example/{path}")).await;
        let Err(NoClient::Unknown(told)) = refused else {
            panic!("{path}: {refused:?}");
        };
        assert!(told.contains(words), "{told}");
    }
    let before = calls.load(Ordering::Relaxed);
    let inward = self::clients(to, &[]);
    assert!(fetch(&inward, "http://docs.example/good").await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), before, "nobody was called");
}

#[tokio::test]
async fn what_is_kept_outlives_its_server() {
    let scratch = tempfile::tempdir().expect("a folder");
    let store = Store::open(&scratch.path().join("home"))
        .await
        .expect("a store");
    let (to, calls) = serve().await;
    let clients = clients(to, &["127.0.0.1/32"]);
    let id = "https://docs.example/good";
    let document =
        r#"{"name":"","redirects":["https://x.example/cb"],"method":"none","secret_hash":null}"#;
    store
        .keep_document(id, document, now(), now() + 60_000)
        .await
        .expect("kept");
    let none = |_: &str| -> bool { panic!("nothing is fetched") };
    assert!(clients.asking(&store, id, none).await.is_ok());
    assert_eq!(calls.load(Ordering::Relaxed), 0, "it is fresh");
    store
        .keep_document(id, document, now(), 0)
        .await
        .expect("kept");
    // Its server speaks no TLS: out of order, so what is kept serves on, and its
    // server is left alone for a while.
    let asked = clients.asking(&store, id, always).await;
    assert!(asked.is_ok(), "{asked:?}");
    assert!(clients.asking(&store, id, none).await.is_ok());
    store
        .keep_document(id, document, now(), 0)
        .await
        .expect("kept");
    let often = |_: &str| false;
    assert!(clients.asking(&store, id, often).await.is_ok());
    let other = "https://docs.example/other";
    let refused = clients.asking(&store, other, often).await;
    assert!(matches!(refused, Err(NoClient::Often)), "{refused:?}");
    let refused = clients.asking(&store, other, always).await;
    assert!(matches!(refused, Err(NoClient::Outage(_))), "{refused:?}");
    assert!(clients.known(&store, id).await.expect("read").is_some());
    let long = "c".repeat(600);
    for unknown in ["codex_cl_x", "", &long, "https://x.example/%2e%2e%2fx"] {
        assert!(matches!(
            clients.asking(&store, unknown, none).await,
            Err(NoClient::Unknown(_))
        ));
    }
    // A row that cannot be read is our trouble, not the client's.
    store
        .register_client("codex_cl_odd", "{\"name\": 1}", now())
        .await
        .expect("kept");
    let refused = clients.known(&store, "codex_cl_odd").await;
    assert!(refused.is_err(), "{refused:?}");
}
