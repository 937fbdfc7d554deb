//! Who called, when trusted proxies stand in between. Believes no header of
//! a peer that is not configured as a proxy.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::config::Config;

/// The header that proxies append the caller's address to.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the client: the peer itself, or behind trusted proxies the
/// last address in the chain that is not one of them.
pub(super) fn client_ip(config: &Config, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer.to_canonical();
    if !config.trusts(client) {
        return client;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let chain: Vec<&str> = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .collect();
    for entry in chain.into_iter().rev() {
        let Some(address) = parse(entry.trim()) else {
            return client;
        };
        client = address;
        if !config.trusts(client) {
            return client;
        }
    }
    client
}

/// An address, with or without a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let address = entry.parse().or_else(|_| {
        entry
            .parse()
            .map(|socket: std::net::SocketAddr| socket.ip())
    });
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let mut config = Config::defaults("/nowhere".into());
        config.trusted_proxies = ["10.0.0.1/32", "10.0.0.2/31", "fd00::/8"]
            .map(|network| network.parse().expect("a network"))
            .to_vec();
        for (peer, chain, expected) in [
            ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
            (
                "10.0.0.1",
                "1.1.1.1, 198.51.100.1, 10.0.0.2",
                "198.51.100.1",
            ),
            ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
            ("fd12::1", "198.51.100.1, 10.0.0.3", "198.51.100.1"),
            ("10.0.0.4", "198.51.100.1", "10.0.0.4"),
            ("10.0.0.1", "nonsense", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, chain.parse().expect("a value"));
            let peer = peer.parse().expect("an address");
            let expected: IpAddr = expected.parse().expect("an address");
            assert_eq!(
                client_ip(&config, peer, &headers),
                expected,
                "{peer} {chain}"
            );
        }
    }
}
