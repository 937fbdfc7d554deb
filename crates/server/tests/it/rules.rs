//! Hosts, origins and content types, in open mode and with tokens.

use crate::support::TestServer;

const JSON: &str = "Content-Type: application/json";
const BODY: &[u8] = br#"{"code": "print(1)"}"#;

#[test]
fn open_mode_takes_json_from_its_own_pages_only() {
    let server = TestServer::open(&[("CODEX_PUBLIC_URL", "https://codex.example.com")]);
    for (headers, status) in [
        (&[JSON][..], 200),
        (&["Content-Type: application/json; charset=utf-8"], 200),
        (&[JSON, "Host: localhost:9"], 200),
        (&[JSON, "Host: codex.example.com"], 200),
        (&[JSON, "Origin: https://codex.example.com"], 200),
        (&[JSON, "Origin: http://localhost:3000"], 200),
        (&[JSON, "Authorization: Bearer anything"], 200),
        (&[], 415),
        (&["Content-Type: text/plain"], 415),
        (&["Content-Type: application/x-www-form-urlencoded"], 415),
        (&["Content-Type: multipart/form-data; boundary=x"], 415),
        (&[JSON, "Host: evil.example"], 403),
        (&[JSON, "Host: localhost.evil.example"], 403),
        (
            &[JSON, "Host: evil.example", "X-Forwarded-Host: localhost"],
            403,
        ),
        (&[JSON, "Origin: https://evil.example"], 403),
        (&[JSON, "Origin: null"], 403),
        (&[JSON, "Host: a b"], 400),
        (&[JSON, "Host: a", "Host: b"], 400),
        (&[JSON, "Host:"], 400),
    ] {
        let reply = server.request("POST", "/execute", headers, BODY);
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.text());
        if status != 200 {
            reply.problem(status);
        }
    }
    let reply = server.request("POST", "/execute", &[JSON, "Host: evil.example"], BODY);
    assert!(reply.problem(403).contains("--public-url"));
}

#[test]
fn with_tokens_the_host_must_be_known() {
    let server = TestServer::with(&[("CODEX_PUBLIC_URL", "https://codex.example.com")]);
    for (host, status) in [
        ("Host: codex.example.com", 200),
        ("Host: localhost", 200),
        ("Host: [::1]:8000", 200),
        ("Host: evil.example", 403),
        ("Host: 192.0.2.7", 403),
    ] {
        let reply = server.execute_with(&[host], BODY);
        assert_eq!(reply.status, status, "{host}: {}", reply.text());
    }
    // No page has a token but by who gave it to it: gateways and editors say
    // origins of all kinds.
    for line in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: vscode-webview://abc",
        "Sec-Fetch-Site: cross-site",
    ] {
        let reply = server.execute_with(&[line], BODY);
        assert_eq!(reply.status, 200, "{line}: {}", reply.text());
        let reply = server.request("POST", "/execute", &[JSON, line], BODY);
        assert_eq!(reply.status, 403, "{line}: {}", reply.text());
    }
    // Load balancers ask by any name.
    let reply = server.request("GET", "/health", &["Host: 10.0.0.7"], b"");
    assert_eq!(reply.status, 200);
}

#[test]
fn a_request_without_a_host_is_malformed() {
    let server = TestServer::start();
    let reply = server.raw(b"GET /health HTTP/1.1\r\n\r\n");
    assert!(reply.problem(400).contains("Host header is missing"));
    // Only the probes of old load balancers may do without one.
    let reply = server.raw(b"GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(reply.status, 200);
    let reply = server.raw(b"GET /execute HTTP/1.0\r\n\r\n");
    reply.problem(400);
    server.still_answers();
}

#[test]
fn browsers_are_let_in_only_where_configured() {
    let origin = "https://tool.example";
    let server = TestServer::open(&[("CODEX_CORS_ORIGIN", origin)]);
    let preflight = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let headers = [
            origin.as_str(),
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type,authorization",
        ];
        server.request("OPTIONS", "/execute", &headers, b"")
    };
    let reply = preflight(origin);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
    let reply = preflight("https://evil.example");
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let origin_line = format!("Origin: {origin}");
    let reply = server.request("POST", "/execute", &[JSON, &origin_line], BODY);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
}

#[test]
fn the_documents_name_the_public_address() {
    let server = TestServer::with(&[("CODEX_PUBLIC_URL", "https://codex.example.com")]);
    for path in ["/openapi.json", "/actions/openapi.json"] {
        let json = server.get(path).json();
        assert_eq!(
            json["servers"][0]["url"], "https://codex.example.com",
            "{path}"
        );
    }
    let yaml = server.get("/actions/openapi.yaml");
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    assert!(yaml.text().contains("url: https://codex.example.com"));

    let server = TestServer::start();
    let json = server.get("/openapi.json").json();
    assert_eq!(
        json["servers"][0]["url"],
        format!("http://{}", server.address)
    );
    assert_eq!(
        json["paths"]["/execute"]["post"]["security"][0]["BearerAuth"],
        serde_json::json!([])
    );
    let server = TestServer::open(&[]);
    let json = server.get("/actions/openapi.json").json();
    assert!(json["paths"]["/execute"]["post"].get("security").is_none());
}

#[test]
fn wrong_tokens_are_slowed_and_good_ones_never() {
    let server = TestServer::with(&[("CODEX_TRUSTED_PROXY", "127.0.0.1")]);
    let from = |address: &str, token: &str| {
        let forwarded = format!("X-Forwarded-For: {address}");
        let bearer = format!("Authorization: Bearer {token}");
        let headers = [bearer.as_str(), JSON, forwarded.as_str()];
        server.request("POST", "/execute", &headers, BODY)
    };
    for _ in 0..20 {
        from("203.0.113.9", "codex_wrong").problem(401);
    }
    let guessed = from("203.0.113.9", "codex_wrong");
    assert!(guessed.problem(429).contains("wrong tokens"));
    assert!(guessed.header("retry-after").is_some());
    // Somebody else may call from there.
    assert_eq!(from("203.0.113.9", &server.token).status, 200);
    assert_eq!(from("203.0.113.10", "codex_wrong").status, 401);
    // The proxy itself names the host that clients know.
    let reply = server.execute_with(&["X-Forwarded-Host: any.example"], BODY);
    assert_eq!(reply.status, 200);
}

#[test]
fn a_stranger_may_not_name_hosts_or_addresses() {
    let server = TestServer::start();
    let reply = server.execute_with(&["Host: evil.example", "X-Forwarded-Host: localhost"], BODY);
    reply.problem(403);
    let json = server
        .request(
            "GET",
            "/openapi.json",
            &["X-Forwarded-Host: evil.example"],
            b"",
        )
        .json();
    assert!(!json.to_string().contains("evil.example"));
}
