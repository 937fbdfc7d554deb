//! The matrix of hosts and origins, in open mode and with tokens.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 1] = ["codex.example.com"];

fn rules<'a>(access: Access, names: &'a [String], peer: &str, local: &str) -> Rules<'a> {
    Rules {
        access,
        names,
        origins: &[],
        peer: peer.parse().expect("an address"),
        local: local.parse().expect("an address"),
        trusted: false,
    }
}

fn names() -> Vec<String> {
    NAMES.map(str::to_owned).to_vec()
}

fn with_host(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
    headers.append(header::HOST, value);
    headers
}

#[test]
fn hosts_are_read() {
    let uri = Uri::from_static("/execute");
    for (value, expected) in [
        ("example.com", Ok("example.com")),
        ("Example.COM:8000", Ok("example.com")),
        ("example.com.", Ok("example.com")),
        ("127.0.0.1:1", Ok("127.0.0.1")),
        ("[::1]:8000", Ok("::1")),
        ("", Err(BadHost::Malformed)),
        ("a b", Err(BadHost::Malformed)),
        ("example.com:", Err(BadHost::Malformed)),
        ("example.com:99999", Err(BadHost::Malformed)),
        ("user@example.com", Err(BadHost::Malformed)),
        ("example.com/path", Err(BadHost::Malformed)),
        ("exämple.com", Err(BadHost::Malformed)),
        (":8000", Err(BadHost::Malformed)),
        ("example.com:+80", Err(BadHost::Malformed)),
        ("a:1:2", Err(BadHost::Malformed)),
        ("[]", Err(BadHost::Malformed)),
        ("[::1", Err(BadHost::Malformed)),
        ("[::1]x", Err(BadHost::Malformed)),
        ("[example.com]", Err(BadHost::Malformed)),
        ("a[::1]", Err(BadHost::Malformed)),
    ] {
        let expected = expected.map(str::to_owned);
        assert_eq!(host(&uri, &with_host(value)), expected, "{value:?}");
    }
    assert_eq!(host(&uri, &HeaderMap::new()), Err(BadHost::Missing));
    let mut twice = with_host("a");
    twice.append(header::HOST, "b".parse().expect("a value"));
    assert_eq!(host(&uri, &twice), Err(BadHost::Repeated));
    let absolute = Uri::from_static("http://other.example/execute");
    let read = host(&absolute, &with_host("ignored"));
    assert_eq!(read.as_deref(), Ok("other.example"));
}

#[test]
fn the_matrix_of_hosts() {
    let (near, lan) = ("127.0.0.1", "192.168.1.9");
    let own = "192.168.1.5";
    for (access, peer, local, host, expected) in [
        // The public name works from everywhere.
        (Access::Token, lan, own, "codex.example.com", true),
        (Access::Open, lan, own, "codex.example.com", true),
        // Loopback names: with tokens from loopback peers only.
        (Access::Token, near, near, "localhost", true),
        (Access::Token, near, near, "app.localhost", true),
        (Access::Token, near, near, "127.0.0.1", true),
        (Access::Token, "::1", "::1", "::1", true),
        (Access::Token, "::ffff:127.0.0.1", near, "localhost", true),
        (Access::Token, lan, own, "localhost", false),
        (Access::Open, lan, own, "localhost", true),
        // Addresses, unless the connection came over loopback.
        (Access::Token, lan, own, "192.168.1.5", true),
        (Access::Open, lan, own, "192.168.1.5", true),
        (
            Access::Token,
            lan,
            "::ffff:192.168.1.5",
            "192.168.1.5",
            true,
        ),
        (Access::Token, lan, "172.17.0.2", "192.168.1.5", true),
        (Access::Token, near, near, "192.168.1.5", false),
        (Access::Open, near, near, "192.168.1.5", false),
        (Access::Open, lan, "0.0.0.0", "0.0.0.0", false),
        // Names that somebody points here.
        (Access::Token, near, near, "evil.example", false),
        (Access::Open, near, near, "evil.example", false),
        (Access::Open, near, near, "localhost.evil.example", false),
        (Access::Open, near, near, "notlocalhost", false),
        (
            Access::Open,
            near,
            near,
            "codex.example.com.evil.example",
            false,
        ),
    ] {
        let names = names();
        let verdict = rules(access, &names, peer, local).check_host(host);
        assert_eq!(
            verdict.is_ok(),
            expected,
            "{access:?} {peer} {local} {host}"
        );
        if let Err(detail) = verdict {
            assert!(detail.contains("--public-url"), "{detail}");
        }
    }
}

#[test]
fn a_trusted_proxy_vouches_only_with_tokens() {
    let names = names();
    for (access, expected) in [(Access::Token, true), (Access::Open, false)] {
        let mut rules = rules(access, &names, "10.0.0.1", "10.0.0.2");
        rules.trusted = true;
        assert_eq!(rules.check_host("any.example").is_ok(), expected);
    }
}

#[test]
fn the_matrix_of_origins() {
    let names = names();
    let origins = ["https://tool.example".to_owned()];
    let mut rules = rules(Access::Open, &names, "127.0.0.1", "127.0.0.1");
    rules.origins = &origins;
    for (origin, expected) in [
        ("http://localhost:8000", true),
        ("https://localhost", true),
        ("http://127.0.0.1:3000", true),
        ("http://[::1]:8000", true),
        ("https://codex.example.com", true),
        ("https://tool.example", true),
        ("http://tool.example", false),
        ("https://evil.example", false),
        ("https://localhost.evil.example", false),
        ("null", false),
        ("", false),
        ("file://", false),
    ] {
        let told = rules.check_origin("127.0.0.1", origin);
        assert_eq!(told.is_ok(), expected, "{origin:?}");
    }
}

const AUTHORIZATION: &str = "authorization";
const SITE: &str = "sec-fetch-site";
const TYPE: &str = "content-type";

#[test]
fn a_foreign_page_sends_nothing_that_changes_anything() {
    let names = names();
    let json = (TYPE, "application/json");
    let form = (TYPE, "application/x-www-form-urlencoded");
    let foreign = (SITE, "cross-site");
    for (access, method, lines, expected) in [
        (Access::Open, Method::POST, &[json][..], None),
        (Access::Open, Method::POST, &[form], Some(415)),
        (
            Access::Open,
            Method::POST,
            &[(TYPE, "text/plain;a=b")],
            Some(415),
        ),
        (
            Access::Open,
            Method::POST,
            &[(TYPE, "Multipart/Form-Data")],
            Some(415),
        ),
        (Access::Open, Method::POST, &[json, form], Some(415)),
        (Access::Open, Method::POST, &[], Some(415)),
        (
            Access::Open,
            Method::POST,
            &[form, (SITE, "same-origin")],
            None,
        ),
        (Access::Open, Method::POST, &[form, (SITE, "none")], None),
        (Access::Open, Method::POST, &[json, foreign], Some(403)),
        (
            Access::Open,
            Method::POST,
            &[json, (SITE, "same-site")],
            Some(403),
        ),
        (Access::Open, Method::DELETE, &[], None),
        (Access::Open, Method::DELETE, &[foreign], Some(403)),
        // A token is given by who has it, wherever the page is from.
        (
            Access::Token,
            Method::POST,
            &[json, foreign, (AUTHORIZATION, "Bearer codex_x")],
            None,
        ),
        (
            Access::Open,
            Method::POST,
            &[json, foreign, (AUTHORIZATION, "Bearer codex_x")],
            Some(403),
        ),
        (Access::Token, Method::POST, &[form], None),
        (Access::Token, Method::POST, &[json, foreign], Some(403)),
        (
            Access::Token,
            Method::POST,
            &[json, ("origin", "https://evil.example")],
            Some(403),
        ),
        (
            Access::Token,
            Method::POST,
            &[("origin", "http://localhost:3000"), (SITE, "same-site")],
            None,
        ),
        (
            Access::Token,
            Method::POST,
            &[("origin", "https://vouched.example"), (SITE, "same-origin")],
            None,
        ),
    ] {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a value"));
        }
        let rules = rules(access, &names, "127.0.0.1", "127.0.0.1");
        let told = rules.check_page(&method, "vouched.example", &headers);
        let status = told.err().map(|problem| problem.code.status());
        assert_eq!(status, expected, "{access:?} {method} {lines:?}");
    }
}

proptest! {
    #[test]
    fn any_host_is_read_or_refused(value in "[ -~]{0,40}") {
        if let Ok(host) = host(&Uri::from_static("/"), &with_host(&value)) {
            prop_assert!(!host.is_empty());
            prop_assert!(!host.contains(['@', '/', ' ', '[']));
        }
    }

    #[test]
    fn no_other_name_is_let_in(label in "[a-z]{1,12}", suffix in "(com|example|localhost)") {
        let names = names();
        let host = format!("{label}.evil-{suffix}");
        for access in [Access::Open, Access::Token] {
            prop_assert!(rules(access, &names, "127.0.0.1", "127.0.0.1").check_host(&host).is_err());
        }
    }
}

#[test]
fn the_trusted_proxy_s_own_word_counts() {
    let check = |lines: &[(&'static str, &str)], expected: Option<Result<&str, BadHost>>| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a value"));
        }
        let found = forwarded_host(&headers);
        assert_eq!(
            found,
            expected.map(|host| host.map(str::to_owned)),
            "{lines:?}"
        );
    };
    const NAME: &str = "x-forwarded-host";
    check(&[], None);
    check(&[(NAME, "A.example:443")], Some(Ok("a.example")));
    // Those before the last may be anybody's.
    check(&[(NAME, "evil.example, a.example")], Some(Ok("a.example")));
    check(
        &[(NAME, "evil.example"), (NAME, "a.example")],
        Some(Ok("a.example")),
    );
    check(
        &[(
            "forwarded",
            "host=evil.example, for=1.2.3.4;host=\"[::1]:8\"",
        )],
        Some(Ok("::1")),
    );
    check(&[(NAME, "a/b")], Some(Err(BadHost::Malformed)));
}
