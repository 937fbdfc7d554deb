//! Tables of URLs, good and hostile.

use std::net::Ipv4Addr;

use axum::http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn config() -> Config {
    Config::defaults("/nowhere".into())
}

#[test]
fn urls_have_one_spelling() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(normalise(text).ok().as_deref(), expected, "{text}");
    };
    check("https://X.Example/", Some("https://x.example"));
    check("HTTPS://x.example:443", Some("https://x.example"));
    check("http://x.example:80/a/", Some("http://x.example/a"));
    check(
        "https://x.example:8443/a/b",
        Some("https://x.example:8443/a/b"),
    );
    check("http://127.0.0.1:8000", Some("http://127.0.0.1:8000"));
    check("http://[::1]:8000", Some("http://[::1]:8000"));
    check("http://x.example.", Some("http://x.example"));
    for wrong in [
        "",
        "x.example",
        "ftp://x.example",
        "https://",
        "https:///a",
        "https://user@x.example",
        "https://x.example?q",
        "https://x.example#f",
        "https://x.example:0",
        "https://x.example:65536",
        "https://x.example:",
        "https://x.example:+80",
        "https://x example",
        "https://x..example",
        "https://x.example/../a",
        "https://x.example//a",
        "https://x.example/a b",
        "https://x.example/\"",
        "https://x.example\r\nA: b",
        "https://[::1",
        "https://[::1]x",
        "https://[x]",
        "https://ü.example",
        "javascript://x.example/%0aalert(1)",
    ] {
        check(wrong, None);
    }
    check(&format!("https://{}", "a".repeat(64)), None);
    check(&format!("https://{}a", "a.".repeat(127)), None);
    check(&format!("https://a/{}", "a".repeat(300)), None);
}

#[test]
fn origins_have_no_path() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(origin(text).ok().as_deref(), expected, "{text}")
    };
    check("*", Some("*"));
    check("https://app.example", Some("https://app.example"));
    check("http://localhost:5173/", Some("http://localhost:5173"));
    check("https://app.example/x", None);
    check("null", None);
}

const HOST_IS: (&str, &str) = ("host", "inner:8000");

fn forwarded_as(peer: IpAddr, pairs: &[(&str, &str)], expected: &str) {
    let config = Config {
        trusted_proxies: vec![LOOPBACK.into()],
        ..config()
    };
    assert_eq!(
        of_request(&config, peer, &headers(pairs)),
        expected,
        "{pairs:?}"
    );
}

#[test]
fn forwarded_headers_count_from_trusted_proxies() {
    forwarded_as(LOOPBACK, &[HOST_IS], "http://inner:8000");
    forwarded_as(
        LOOPBACK,
        &[HOST_IS, ("x-forwarded-proto", "https")],
        "https://inner:8000",
    );
    forwarded_as(
        LOOPBACK,
        &[
            HOST_IS,
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "x.example"),
        ],
        "https://x.example",
    );
    forwarded_as(
        LOOPBACK,
        &[HOST_IS, ("x-forwarded-host", "evil.example, x.example")],
        "http://x.example",
    );
    forwarded_as(
        LOOPBACK,
        &[
            HOST_IS,
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "x.example"),
            ("x-forwarded-prefix", "/run/"),
        ],
        "https://x.example/run",
    );
    forwarded_as(
        LOOPBACK,
        &[
            HOST_IS,
            (
                "forwarded",
                "for=1.2.3.4;proto=https;host=\"x.example:8443\"",
            ),
        ],
        "https://x.example:8443",
    );
    forwarded_as(
        LOOPBACK,
        &[
            HOST_IS,
            ("forwarded", "host=evil.example, proto=https;host=x.example"),
        ],
        "https://x.example",
    );
    forwarded_as(
        "::ffff:127.0.0.1".parse().unwrap(),
        &[HOST_IS, ("x-forwarded-proto", "https")],
        "https://inner:8000",
    );
}

#[test]
fn forwarded_headers_of_strangers_and_hostile_ones_do_not() {
    // A stranger's are nothing, and a hostile one of a trusted proxy is no better.
    forwarded_as(
        STRANGER,
        &[
            HOST_IS,
            ("x-forwarded-proto", "https"),
            ("forwarded", "proto=https;host=evil.example"),
        ],
        "http://inner:8000",
    );
    forwarded_as(
        LOOPBACK,
        &[HOST_IS, ("x-forwarded-host", "x.example/\"><script>")],
        "http://inner:8000",
    );
    forwarded_as(
        LOOPBACK,
        &[
            HOST_IS,
            ("x-forwarded-host", "x.example"),
            ("x-forwarded-prefix", "@evil.example"),
        ],
        "http://inner:8000",
    );
    forwarded_as(
        LOOPBACK,
        &[
            HOST_IS,
            ("x-forwarded-proto", "javascript"),
            ("x-forwarded-host", "x.example"),
        ],
        "http://inner:8000",
    );
}

#[test]
fn a_hostile_host_never_reaches_a_document() {
    let check = |host: &str| {
        let url = of_request(&config(), STRANGER, &headers(&[("host", host)]));
        assert_eq!(url, "http://127.0.0.1:8000", "{host}");
    };
    for hostile in [
        "",
        "x.example/path",
        "x\"y",
        "<script>",
        "a b",
        "x.example:99999",
        "user@x.example",
        "x.example?q=1",
        "${jndi}",
    ] {
        check(hostile);
    }
}

#[test]
fn hosts_that_may_call() {
    let check = |public_url: Option<&str>, host: &str, expected: &[&str]| {
        let config = Config {
            public_url: public_url.map(str::to_owned),
            host: host.parse().unwrap(),
            ..config()
        };
        assert_eq!(accepted_hosts(&config), expected, "{public_url:?} {host}");
    };
    check(None, "127.0.0.1", &[]);
    check(None, "0.0.0.0", &[]);
    check(None, "::", &[]);
    check(None, "192.0.2.1", &["192.0.2.1"]);
    check(
        Some("https://x.example:8443/a"),
        "127.0.0.1",
        &["x.example"],
    );
    check(Some("https://[2001:db8::1]"), "::", &["2001:db8::1"]);
}

proptest! {
    #[test]
    fn nothing_but_a_plain_url_comes_out(host in "\\PC{0,60}", forwarded in "\\PC{0,60}") {
        let mut map = HeaderMap::new();
        for (name, value) in [("host", &host), ("x-forwarded-host", &forwarded), ("forwarded", &forwarded)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                map.append(name, value);
            }
        }
        let config = Config { trusted_proxies: vec![LOOPBACK.into()], ..config() };
        let url = of_request(&config, LOOPBACK, &map);
        prop_assert_eq!(normalise(&url), Ok(url.clone()));
        prop_assert!(url.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/[]-_~".contains(&b)), "{}", url);
    }
}
