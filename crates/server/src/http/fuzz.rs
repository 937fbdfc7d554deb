//! Headers and queries that a client writes, from any bytes.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::host::{Rules, host, is_loopback};
use super::{accept, artifact, gate};
use crate::config::{Access, Config};
use crate::public_url::{normalise, of_request};

/// The headers that are read, in the order of the lines of an input.
const READ: [HeaderName; 8] = [
    header::HOST,
    header::ACCEPT,
    header::ORIGIN,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-prefix"),
    header::AUTHORIZATION,
];

/// A line for each header that is read; a tab parts two headers of one name.
pub(crate) fn headers(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for (line, name) in bytes.split(|byte| *byte == b'\n').zip(READ) {
        for value in line.split(|byte| *byte == b'\t') {
            if let Ok(value) = HeaderValue::from_bytes(value)
                && !value.is_empty()
            {
                headers.append(name.clone(), value);
            }
        }
    }
    drop((accept::form(&headers), gate::bearer(&headers)));
    let uri = Uri::from_static("/execute");
    let told = host(&uri, &headers);
    let mut config = Config::defaults("/data".into());
    let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let direct = of_request(&config, stranger, &headers);
    assert_eq!(
        normalise(&direct).as_ref(),
        Ok(&direct),
        "it is a plain URL"
    );
    config.trusted_proxies = vec![stranger.into()];
    let trusted = of_request(&config, stranger, &headers);
    assert_eq!(
        normalise(&trusted).as_ref(),
        Ok(&trusted),
        "it is a plain URL"
    );
    if let Some(Ok(host)) = super::host::forwarded_host(&headers) {
        assert_plain(&host);
    }
    let Ok(told) = told else {
        return;
    };
    assert_plain(&told);
    let rules = |access| Rules {
        access,
        names: &[],
        origins: &[],
        peer: stranger,
        local: IpAddr::V4(Ipv4Addr::LOCALHOST),
        trusted: false,
    };
    // What is behind loopback and has no name answers to loopback names alone,
    // and with tokens to nobody from elsewhere.
    if rules(Access::Open).check_host(&told).is_ok() {
        assert!(is_loopback(&told), "{told:?}");
    }
    assert!(rules(Access::Token).check_host(&told).is_err(), "{told:?}");
    for origin in headers.get_all(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        if let Err(told) = rules(Access::Open).check_origin("localhost", &origin) {
            assert!(!told.detail.contains(char::is_control), "{told:?}");
        }
    }
}

fn assert_plain(host: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    assert!(!host.is_empty() && host.bytes().all(plain), "{host:?}");
}

/// A signed link's query, then a line for the `Range` header.
pub(crate) fn links(bytes: &[u8]) {
    let (query, range) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    crate::artifact::fuzz::queries(&String::from_utf8_lossy(query));
    artifact::fuzz::ranges(range);
}
