//! Which addresses are on the public internet. Pure; whatever is not known to
//! be public is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address belongs to somebody out there: not to this machine, its
/// neighbours, a cloud's metadata service, or a form in which one of these
/// hides inside an IPv6 address.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let reserved = matches!(
        (a, b, c),
        // This network, private, loopback.
        (0 | 10 | 127, _, _)
            // Carrier-grade NAT.
            | (100, 64..=127, _)
            // Link-local, metadata services among it.
            | (169, 254, _)
            | (172, 16..=31, _)
            // Protocol assignments, documentation, AS112, 6to4 relays, private.
            | (192, 0, 0 | 2)
            | (192, 31, 196)
            | (192, 52, 193)
            | (192, 88, 99)
            | (192, 168, _)
            | (192, 175, 48)
            // Benchmarks, documentation.
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            // Multicast, reserved, broadcast.
            | (224..=255, _, _)
    );
    !reserved
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, _, e, f, ..] = ip.segments();
    // Only this eighth is given out at all. Outside it lie loopback, mapped and
    // compatible IPv4, NAT64, unique local, link-local, site-local, multicast.
    let global = (a & 0xe000) == 0x2000;
    // Teredo, ORCHID, benchmarks and other protocol assignments.
    let assignments = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    let as112 = a == 0x2620 && b == 0x004f && c == 0x8000;
    // ISATAP: an IPv4 address behind a mark in the lower half.
    let isatap = matches!(e, 0 | 0x0200) && f == 0x5efe;
    global && !assignments && !documentation && !six_to_four && !as112 && !isatap
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], expected: bool) {
        for text in addresses {
            let ip = text.parse().expect("an address");
            assert_eq!(is_public(ip), expected, "{text}");
        }
    }

    #[test]
    fn what_is_public() {
        check(
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.1",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.1",
                "192.0.3.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "2001:4860:4860::8888",
                "2606:4700::1111",
                "2a00:1450::1",
                "2001:200::1",
            ],
            true,
        );
    }

    #[test]
    fn what_is_not() {
        check(
            &[
                // IPv4 by range: first and last of each.
                "0.0.0.0",
                "0.255.255.255",
                "10.0.0.0",
                "10.255.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "127.0.0.1",
                "127.255.255.255",
                "169.254.0.0",
                "169.254.169.254",
                "169.254.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.0.0.0",
                "192.0.0.192",
                "192.0.2.1",
                "192.31.196.1",
                "192.52.193.1",
                "192.88.99.1",
                "192.168.0.0",
                "192.168.255.255",
                "192.175.48.1",
                "198.18.0.0",
                "198.19.255.255",
                "198.51.100.1",
                "203.0.113.1",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.0",
                "255.255.255.255",
            ],
            false,
        );
        check(
            &[
                // IPv6, and IPv4 in the forms that hide it.
                "::",
                "::1",
                "::ffff:127.0.0.1",
                "::ffff:8.8.8.8",
                "::127.0.0.1",
                "::ffff:0:127.0.0.1",
                "64:ff9b::7f00:1",
                "64:ff9b::808:808",
                "64:ff9b:1::1",
                "100::1",
                "2001::1",
                "2001:0:7f00:1::",
                "2001:10::1",
                "2001:20::1",
                "2001:2::1",
                "2001:db8::1",
                "2002:7f00:1::",
                "2002:808:808::",
                "3fff::1",
                "5f00::1",
                "2620:4f:8000::1",
                "fc00::1",
                "fd00:ec2::254",
                "fdff::1",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "ff02::1",
                "ffff::1",
                "2a00:1450::5efe:7f00:1",
                "2a00:1450::200:5efe:7f00:1",
            ],
            false,
        );
    }

    proptest! {
        #[test]
        fn no_form_of_a_hidden_address_is_public(v4 in any::<u32>()) {
            let v4 = Ipv4Addr::from(v4);
            let [high, low] = [v4.to_bits() >> 16, v4.to_bits() & 0xffff];
            let segment = |bits: u32| u16::try_from(bits).expect("sixteen bits");
            let (high, low) = (segment(high), segment(low));
            for hidden in [
                v4.to_ipv6_mapped(),
                v4.to_ipv6_compatible(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 0),
            ] {
                prop_assert!(!is_public(hidden.into()), "{}", hidden);
            }
        }

        #[test]
        fn the_standard_library_agrees_on_what_it_knows(v4 in any::<u32>()) {
            let ip = Ipv4Addr::from(v4);
            let known = ip.is_private() || ip.is_loopback() || ip.is_link_local()
                || ip.is_broadcast() || ip.is_documentation() || ip.is_multicast()
                || ip.is_unspecified();
            prop_assert!(!(known && is_public(ip.into())), "{}", ip);
        }
    }
}
