//! A table of addresses that may be called, and that may not.

use super::*;
use crate::config::value::network;

fn guard(hosts: &[&str], networks: &[&str]) -> Guard {
    let hosts = hosts.iter().map(|host| Host::parse(host).expect(host));
    let networks = networks.iter().map(|text| network(text).expect(text));
    Guard::new(hosts.collect(), networks.collect())
}

#[test]
fn urls_that_may_be_called() {
    let hosts = [
        "files.example.com",
        "*.oaiusercontent.com",
        "files.corp.example:8443",
        "10.1.2.3",
        "127.0.0.1",
        "[fd00::1]",
        "localhost",
    ];
    let guard = guard(&hosts, &["10.1.2.0/24"]);
    let url = |what: &'static str| Err(Forbidden::Url(what));
    let https = "is not an https URL";
    for (text, expected) in [
        ("https://files.example.com/x?sig=1", Ok(())),
        ("https://FILES.example.com:443/x", Ok(())),
        ("https://files.example.com./x", Ok(())),
        ("https://files.oaiusercontent.com/file-abc", Ok(())),
        ("https://a.b.oaiusercontent.com/", Ok(())),
        ("https://files.corp.example:8443/x", Ok(())),
        ("https://10.1.2.3/x", Ok(())),
        ("https://oaiusercontent.com/", Err(Forbidden::Host)),
        ("https://eviloaiusercontent.com/", Err(Forbidden::Host)),
        (
            "https://oaiusercontent.com.evil.example/",
            Err(Forbidden::Host),
        ),
        ("https://.oaiusercontent.com/", Err(Forbidden::Host)),
        ("https://files.example.com:8443/x", Err(Forbidden::Host)),
        ("https://files.corp.example/x", Err(Forbidden::Host)),
        ("https://sub.files.example.com/", Err(Forbidden::Host)),
        (
            "https://evil.example\\@files.example.com/",
            Err(Forbidden::Host),
        ),
        (
            "https://evil.example#@files.example.com/",
            Err(Forbidden::Host),
        ),
        (
            "https://169.254.169.254/latest/meta-data",
            Err(Forbidden::Host),
        ),
        ("https://127.0.0.1/", Err(Forbidden::Address)),
        ("https://2130706433/", Err(Forbidden::Address)),
        ("https://0x7f000001/", Err(Forbidden::Address)),
        ("https://0177.0.0.1/", Err(Forbidden::Address)),
        ("https://127.1/", Err(Forbidden::Address)),
        ("https://[fd00::1]/", Err(Forbidden::Address)),
        ("https://[::ffff:10.1.2.3]/", Err(Forbidden::Host)),
        ("http://files.example.com/x", url(https)),
        ("ftp://files.example.com/x", url(https)),
        ("file:///etc/passwd", url(https)),
        ("data:text/plain,hi", url(https)),
        ("gopher://files.example.com:443/", url(https)),
        (
            "https://files.example.com@evil.example/",
            url("holds a user name or password"),
        ),
        (
            "https://me:pw@files.example.com/",
            url("holds a user name or password"),
        ),
        ("file-abc123", url("is not a URL")),
        ("", url("is not a URL")),
        ("https://", url("is not a URL")),
    ] {
        assert_eq!(guard.check(text).map(drop), expected, "{text}");
    }
    let long = format!("https://files.example.com/{}", "x".repeat(URL_BYTES));
    assert!(guard.check(&long).is_err());
    let none = self::guard(&[], &[]);
    assert_eq!(
        none.check("https://files.oaiusercontent.com/").map(drop),
        Err(Forbidden::Host)
    );
}

#[test]
fn hosts_and_networks_are_read() {
    for (text, good) in [
        ("files.example.com", true),
        ("*.example.com", true),
        ("host:8443", true),
        ("*.com", false),
        ("*", false),
        ("*.10.0.0.1", false),
        ("https://files.example.com", false),
        ("a b", false),
        ("", false),
    ] {
        assert_eq!(Host::parse(text).is_ok(), good, "{text}");
    }
    for (text, expected) in [
        ("10.1.2.3/16", Some("10.1.0.0/16")),
        ("10.1.2.3", Some("10.1.2.3/32")),
        ("fd00::1", Some("fd00::1/128")),
        ("10.0.0.0/33", None),
        ("intranet", None),
    ] {
        let read = network(text).ok().map(|network| network.to_string());
        assert_eq!(read.as_deref(), expected, "{text}");
    }
}
