//! Addresses that a client wants fetched, from any bytes.

use super::{Bounds, Fetcher, Url};
use crate::config::value::network;
use crate::outbound::Host;

/// A URL on the first line; on the next a host as the operator lists it, and a
/// network.
pub(crate) fn file_urls(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let (url, listed) = (lines.next().unwrap_or_default(), lines.next());
    let default = Fetcher::new(Bounds::default());
    if let Ok(url) = default.inner.guard.check(url) {
        assert_fetchable(&url);
        let host = url.host_str().unwrap_or_default();
        assert!(host.ends_with(".oaiusercontent.com"), "{url}");
        assert_eq!(url.port_or_known_default(), Some(443), "{url}");
    }
    let Some(Ok(listed)) = listed.map(Host::parse) else {
        return;
    };
    let networks = lines.next().map(network).and_then(Result::ok);
    let wider = Fetcher::new(Bounds {
        given_hosts: Some(vec![listed]),
        networks: networks.into_iter().collect(),
        ..Bounds::default()
    });
    if let Ok(url) = wider.inner.guard.check(url) {
        assert_fetchable(&url);
    }
}

fn assert_fetchable(url: &Url) {
    assert_eq!(url.scheme(), "https", "{url}");
    assert!(
        url.username().is_empty() && url.password().is_none(),
        "{url}"
    );
    assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{url}");
}
