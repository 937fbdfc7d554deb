//! Small fake servers on loopback, each broken in one way.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;

/// Answers each request with what `answer` makes of its first line.
fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let Ok(length @ 1..) = stream.read(&mut request) else {
                continue;
            };
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            // A client that refuses us (TLS) is gone already.
            drop(stream.write_all(answer(&text).as_bytes()));
        }
    });
    url
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn healthy() -> String {
    http(
        "200 OK",
        "Content-Type: application/json\r\n",
        r#"{"status":"healthy","version":"0.1.0","isolation":"full"}"#,
    )
}

async fn examine_url(public: &str, here: &str) -> Report {
    let mut settings = Settings::defaults("/data".into());
    settings.config.public_url = Some(public.to_owned());
    let checks = checks(&settings, here).await.unwrap();
    Report {
        sections: vec![Section::new("public URL", checks)],
    }
}

async fn check(public: &str, expected: &str) {
    let here = serve(|_| healthy());
    let report = examine_url(public, &here).await;
    assert!(
        report.to_string().contains(expected),
        "lacks {expected:?}:\n{report}"
    );
    assert_eq!(report.exit(), Exit::Public);
}

/// A server that is whole, as far as these calls go.
fn whole() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let named = url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let answer = if text.starts_with("GET /health") {
                healthy()
            } else if text.starts_with("POST /execute") || text.starts_with("POST /mcp") {
                assert!(
                    text.to_ascii_lowercase()
                        .contains("authorization: bearer codex_")
                );
                http(
                    "401 Unauthorized",
                    "Content-Type: application/problem+json\r\n",
                    "{}",
                )
            } else {
                http(
                    "200 OK",
                    "Content-Type: application/json\r\n",
                    &format!(r#"{{"servers":[{{"url":"{named}"}}],"resource":"{named}/mcp"}}"#),
                )
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_whole_server_passes_every_call() {
    let url = whole();
    let report = examine_url(&url, &url).await.to_string();
    // Only its address is one that ChatGPT cannot call; by plain http it has no OAuth.
    let probes = Probe::ALL.iter().filter(|probe| !probe.is_of_oauth());
    assert_eq!(report.matches('✓').count(), probes.count(), "{report}");
    assert!(report.contains("✗ address"), "{report}");
}

#[tokio::test]
async fn nothing_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    check(&url, "refuses connections").await;
    let report = examine_url(&url, &url).await.to_string();
    assert!(
        report.contains("no codex-server answers on this machine"),
        "{report}"
    );
}

#[tokio::test]
async fn a_name_without_address() {
    check("http://nowhere.invalid", "has no address (DNS)").await;
}

#[tokio::test]
async fn https_to_a_port_that_speaks_http() {
    let url = serve(|_| http("400 Bad Request", "", "")).replace("http://", "https://");
    check(&url, "cannot be secured").await;
}

#[tokio::test]
async fn a_sign_in_page() {
    let url = serve(|_| http("302 Found", "Location: https://github.com/login?x\r\n", ""));
    check(&url, "asks callers to sign in (302)").await;
}

#[tokio::test]
async fn another_service_or_a_page() {
    check(
        &serve(|_| http("200 OK", "Content-Type: application/json\r\n", "{}")),
        "another service answers",
    )
    .await;
    check(
        &serve(|_| http("200 OK", "Content-Type: text/html\r\n", "<html>")),
        "a web page answers",
    )
    .await;
    check(
        &serve(|_| http("404 Not Found", "", "")),
        "nothing is found there",
    )
    .await;
    check(
        &serve(|_| http("502 Bad Gateway", "", "")),
        "cannot reach it (502)",
    )
    .await;
    check(
        &serve(|_| {
            http(
                "403 Forbidden",
                "Content-Type: application/problem+json\r\n",
                "{}",
            )
        }),
        "refuses this host name",
    )
    .await;
}

#[tokio::test]
async fn a_warning_page_before_plain_gets_is_no_failure() {
    let url = serve(|request| {
        if request.to_ascii_lowercase().contains("x-tunnel-skip") || !request.starts_with("GET") {
            healthy()
        } else {
            http("200 OK", "Content-Type: text/html\r\n", "<html>")
        }
    });
    let here = serve(|_| healthy());
    let report = examine_url(&url, &here).await.to_string();
    assert!(report.contains("! without headers"), "{report}");
}

#[tokio::test]
async fn a_post_that_arrives_as_a_get() {
    let url = serve(|request| {
        if request.starts_with("POST") {
            http("405 Method Not Allowed", "", "")
        } else {
            healthy()
        }
    });
    check(&url, "arrived as something else (405)").await;
}

#[tokio::test]
async fn no_public_url() {
    let checks = checks(&Settings::defaults("/data".into()), "http://127.0.0.1:1")
        .await
        .unwrap();
    let report = Report {
        sections: vec![Section::new("public URL", checks)],
    };
    assert!(report.to_string().contains("no public URL is known"));
}
