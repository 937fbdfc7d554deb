//! Counts wrong tokens by client address, so that nobody can try many.
//!
//! Holds a bounded number of addresses. Must be asked only about a token that
//! was found wrong: many callers can share an address (proxies, tunnels, port
//! forwarders), and one who guesses must not shut out the others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refused tokens that an address may send in a [`WINDOW`].
pub(crate) const REFUSALS: u32 = 20;

/// The time in which refusals are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Addresses remembered at once.
const ADDRESSES: usize = 4096;

/// What was refused, or only counted, in the last minute, by address.
#[derive(Debug)]
pub(super) struct Failures {
    most: u32,
    counts: Mutex<HashMap<IpAddr, Count>>,
}

impl Default for Failures {
    fn default() -> Self {
        Self::of(REFUSALS)
    }
}

#[derive(Debug, Clone, Copy)]
struct Count {
    refused: u32,
    since: Instant,
}

impl Failures {
    /// Those of which an address has so many in a [`WINDOW`].
    pub(super) fn of(most: u32) -> Self {
        Self {
            most,
            counts: Mutex::default(),
        }
    }

    /// How long `ip` has to wait for having sent too many refused tokens.
    pub(super) fn over(&self, ip: IpAddr, now: Instant) -> Option<Duration> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&network(ip))?;
        let left = WINDOW.checked_sub(now.duration_since(count.since))?;
        (count.refused >= self.most).then_some(left)
    }

    /// Notes a refused token.
    pub(super) fn note(&self, ip: IpAddr, now: Instant) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |count: &Count| now.duration_since(count.since) < WINDOW;
        if counts.len() >= ADDRESSES && !counts.contains_key(&network(ip)) {
            counts.retain(|_, count| fresh(count));
            if counts.len() >= ADDRESSES {
                // Full of fresh addresses: an attack from thousands of hosts.
                // Tokens are too long to guess at any rate; forgetting is safe.
                counts.clear();
            }
        }
        let count = counts.entry(network(ip)).or_insert(Count {
            refused: 0,
            since: now,
        });
        if !fresh(count) {
            *count = Count {
                refused: 0,
                since: now,
            };
        }
        count.refused = count.refused.saturating_add(1);
    }
}

/// One host has a whole /64 of IPv6 addresses to call from.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let high = u128::from(v6) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(high))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn too_many_refusals_count_for_the_window() {
        let (failures, start) = (Failures::default(), Instant::now());
        for _ in 0..REFUSALS {
            assert_eq!(failures.over(ip("192.0.2.1"), start), None);
            failures.note(ip("192.0.2.1"), start);
        }
        assert_eq!(failures.over(ip("192.0.2.1"), start), Some(WINDOW));
        assert_eq!(failures.over(ip("192.0.2.2"), start), None);
        let later = start + WINDOW + Duration::from_millis(1);
        assert_eq!(failures.over(ip("192.0.2.1"), later), None);
        failures.note(ip("192.0.2.1"), later);
        assert_eq!(failures.over(ip("192.0.2.1"), later), None);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let (failures, start) = (Failures::default(), Instant::now());
        for at in 0..REFUSALS {
            failures.note(ip(&format!("2001:db8::{at:x}")), start);
        }
        assert!(failures.over(ip("2001:db8::ffff"), start).is_some());
        assert!(failures.over(ip("2001:db8:0:1::1"), start).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let (failures, start) = (Failures::default(), Instant::now());
        for at in 0..20_000_u32 {
            failures.note(IpAddr::V4(at.into()), start);
        }
        let counts = failures.counts.lock().expect("not poisoned");
        assert!(counts.len() <= ADDRESSES);
    }
}
