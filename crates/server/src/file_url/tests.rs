//! Tests of fetching from a server of our own that answers as badly as it can. Only here may http and loopback be reached.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::config::value::network;
use crate::outbound::Names;

fn bounds(hosts: &[&str], networks: &[&str]) -> Bounds {
    Bounds {
        given_hosts: Some(
            hosts
                .iter()
                .map(|host| Host::parse(host).expect(host))
                .collect(),
        ),
        networks: networks
            .iter()
            .map(|text| network(text).expect(text))
            .collect(),
        ..Bounds::default()
    }
}

/// A fetcher that takes http, with a name server of the test's own.
fn plain(bounds: Bounds, names: Names) -> Fetcher {
    let (hosts, networks) = (bounds.hosts().to_vec(), bounds.networks.clone());
    Fetcher::with(bounds, Guard::plain(Some(hosts), networks, names))
}

/// A server that gives each path its own answer, and counts its calls.
async fn serve(answer: fn(&str) -> Vec<u8>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
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
                if path == "/silent" {
                    return std::future::pending().await;
                }
                stream.write_all(&answer(&path)).await.ok();
                while path == "/endless" && stream.write_all(&[b'x'; 1024]).await.is_ok() {}
            });
        }
    });
    (port, calls)
}

fn answer(path: &str) -> Vec<u8> {
    let ok = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let to = |to: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let text = match path {
        "/file" => ok("hello"),
        "/empty" => ok(""),
        "/large" => "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
        "/endless" => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
        "/short" => {
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf".to_owned()
        }
        "/zipped" => {
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx".to_owned()
        }
        "/one" => to("/file"),
        "/two" => to("/one"),
        "/three" => to("/two"),
        "/four" => to("/three"),
        "/loop" => to("/loop"),
        "/metadata" => to("http://169.254.169.254/latest/meta-data"),
        "/inward" => to("http://inward.example/"),
        "/scheme" => to("file:///etc/passwd"),
        "/odd" => to("http://[oops"),
        "/gone" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => "what?".to_owned(),
    };
    text.into_bytes()
}

/// Fetches from `host` on the port of our server; names lead to `addresses`.
async fn fetch(
    host: &str,
    port: u16,
    path: &str,
    networks: &[&str],
    addresses: &'static [&'static str],
) -> Result<String, Refused> {
    let hosts = [format!("{host}:{port}"), format!("inward.example:{}", 80)];
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let names = Names::Fixed(Arc::new(move |_| {
        let parse = |text: &&str| SocketAddr::new(text.parse().expect("an address"), 0);
        addresses.iter().map(parse).collect()
    }));
    let bounds = Bounds {
        file_bytes: 100_000,
        ..bounds(&hosts, networks)
    };
    let fetcher = plain(bounds, names);
    let url = format!("http://{host}:{port}{path}");
    let deadline =
        Instant::now() + Duration::from_millis(if path == "/silent" { 300 } else { 20_000 });
    let fetched = fetcher
        .fetch_all(&Owner::default(), &[&url], 50_000, deadline)
        .await;
    fetched
        .map(|mut fetched| String::from_utf8(fetched.files.remove(0)).expect("UTF-8"))
        .map_err(|(at, refused)| {
            assert_eq!(at, 0);
            refused
        })
}

#[tokio::test]
async fn answers_of_all_kinds() {
    let (port, _) = serve(answer).await;
    let text = |text: &str| Ok(text.to_owned());
    for (path, expected) in [
        ("/file", text("hello")),
        ("/empty", text("")),
        ("/one", text("hello")),
        ("/three", text("hello")),
        ("/four", Err(Refused::Redirects)),
        ("/loop", Err(Refused::Redirects)),
        ("/large", Err(Refused::TooLarge(50_000))),
        ("/endless", Err(Refused::TooLarge(50_000))),
        ("/short", Err(Refused::Broken)),
        (
            "/zipped",
            Err(Refused::Url(
                "is answered in a compressed form that was not asked for",
            )),
        ),
        ("/metadata", Err(Refused::Host)),
        ("/scheme", Err(Refused::Url("is not an https URL"))),
        ("/odd", Err(Refused::Url("redirects to what is not a URL"))),
        ("/gone", Err(Refused::Status(404))),
        ("/nonsense", Err(Refused::Broken)),
        ("/silent", Err(Refused::Late)),
    ] {
        let fetched = fetch("files.example", port, path, &["127.0.0.1"], &["127.0.0.1"]).await;
        assert_eq!(fetched, expected, "{path}");
    }
}

#[tokio::test]
async fn a_name_that_leads_inward_is_never_connected_to() {
    let (port, calls) = serve(answer).await;
    for addresses in [
        &["127.0.0.1"][..],
        &["::ffff:127.0.0.1"],
        &["::1", "127.0.0.1"],
    ] {
        let fetched = fetch("files.example", port, "/file", &[], addresses).await;
        assert_eq!(fetched, Err(Refused::Address), "{addresses:?}");
    }
    // One bad address spoils the rest, whatever their order.
    for addresses in [&["127.0.0.1", "10.0.0.1"][..], &["10.0.0.1", "127.0.0.1"]] {
        let fetched = fetch("files.example", port, "/file", &["127.0.0.1"], addresses).await;
        assert_eq!(fetched, Err(Refused::Address), "{addresses:?}");
    }
    let fetched = fetch("127.0.0.1", port, "/file", &[], &[]).await;
    assert_eq!(fetched, Err(Refused::Address), "an address is not resolved");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_gains_nothing() {
    let (port, calls) = serve(answer).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // Good at the first question, as a check before the call would ask it; then not.
    let names = Names::Fixed(Arc::new(move |_| {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        let ip = if first {
            [127, 0, 0, 2]
        } else {
            [127, 0, 0, 1]
        };
        vec![SocketAddr::from((ip, 0))]
    }));
    let host = format!("files.example:{port}");
    let fetcher = plain(bounds(&[&host], &["127.0.0.2"]), names);
    let deadline = Instant::now() + Duration::from_secs(20);
    let fetch = async |path: &str| {
        let url = format!("http://{host}{path}");
        let fetched = fetcher
            .fetch_all(&Owner::default(), &[&url], 100, deadline)
            .await;
        fetched
            .map(|fetched| fetched.files)
            .map_err(|(_, refused)| refused)
    };
    // Nothing listens on 127.0.0.2: had the name been asked twice, this would succeed.
    assert_eq!(fetch("/file").await, Err(Refused::Broken));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(fetch("/file").await, Err(Refused::Address));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_redirect_is_resolved_and_checked_anew() {
    let (port, calls) = serve(answer).await;
    let names = Names::Fixed(Arc::new(|name: &str| {
        let ip = if name == "inward.example" {
            [10, 0, 0, 1]
        } else {
            [127, 0, 0, 1]
        };
        vec![SocketAddr::from((ip, 0))]
    }));
    let host = format!("files.example:{port}");
    let fetcher = plain(bounds(&[&host, "inward.example:80"], &["127.0.0.1"]), names);
    let url = format!("http://{host}/inward");
    let deadline = Instant::now() + Duration::from_secs(20);
    let fetched = fetcher
        .fetch_all(&Owner::default(), &[&url], 100, deadline)
        .await;
    assert_eq!(fetched.err(), Some((0, Refused::Address)));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn files_share_their_room_and_the_failed_one_is_named() {
    let (port, _) = serve(answer).await;
    let names = Names::Fixed(Arc::new(|_| vec![SocketAddr::from(([127, 0, 0, 1], 0))]));
    let host = format!("files.example:{port}");
    let fetcher = plain(bounds(&[&host], &["127.0.0.1"]), names);
    let deadline = Instant::now() + Duration::from_secs(20);
    let url = format!("http://{host}/file");
    let two = [url.as_str(), url.as_str()];
    let fetched = fetcher
        .fetch_all(&Owner::default(), &two, 10, deadline)
        .await;
    assert_eq!(fetched.map(|fetched| fetched.files.len()), Ok(2));
    let fetched = fetcher
        .fetch_all(&Owner::default(), &two, 9, deadline)
        .await;
    assert_eq!(fetched.err(), Some((1, Refused::TooLarge(4))));
}

#[tokio::test]
async fn one_owner_keeps_no_other_from_fetching() {
    let (port, _) = serve(answer).await;
    let names = Names::Fixed(Arc::new(|_| vec![SocketAddr::from(([127, 0, 0, 1], 0))]));
    let host = format!("files.example:{port}");
    let fetcher = plain(bounds(&[&host], &["127.0.0.1"]), names);
    let url = format!("http://{host}/file");
    let fetch = async |name: &str, patience: Duration| {
        let (owner, deadline) = (Owner::new(name), Instant::now() + patience);
        fetcher.fetch_all(&owner, &[&url], 100, deadline).await
    };
    let mut held = Vec::new();
    for _ in 0..AT_ONCE {
        held.push(
            fetch("eve", Duration::from_secs(20))
                .await
                .expect("a place"),
        );
    }
    let refused = fetch("eve", Duration::from_millis(50)).await;
    assert_eq!(refused.err(), Some((0, Refused::Busy)));
    for _ in 0..3 {
        let fetched = fetch("bob", Duration::from_secs(20)).await;
        assert_eq!(fetched.expect("the kept place").files, [b"hello"]);
    }
    drop(held);
}
