//! The settings of files that are kept after a run, and of files that are
//! fetched for one.

use std::time::Duration;

use super::{GIB, KIB, Key, Kind, MIB, Reach, form, key, size};
use crate::config::value;
use crate::outbound::Host;

/// The longest that a file may be kept.
const LONGEST_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// ChatGPT's own links end after five minutes.
const LONGEST_FETCH: Duration = Duration::from_secs(300);

pub(super) const FILES: &[Key] = &[
    key(
        "artifact_lifetime",
        Reach::NoFlag,
        "1 h",
        Kind::Time(Duration::from_secs(1), LONGEST_KEPT, |s, v| {
            s.config.artifacts.lifetime = v
        }),
        "How long the files of a run can be downloaded",
    ),
    key(
        "max_artifacts_bytes",
        Reach::NoFlag,
        "1 GiB",
        Kind::Bytes(0, 1024 * GIB, |s, v| s.config.artifacts.bytes = v),
        "All files kept for download together; at the bound the oldest go, of the token that keeps most, and 0 keeps none",
    ),
    key(
        "max_artifacts",
        Reach::NoFlag,
        "10000",
        Kind::Count(0, 100_000, |s, v| s.config.artifacts.count = size(v)),
        "Files kept for download; at the bound the oldest go, of the token that keeps most, and 0 keeps none",
    ),
    key(
        "file_url_host",
        Reach::NoFlag,
        "*.oaiusercontent.com, where ChatGPT keeps files",
        Kind::List(form("HOST", "host, host:port, *.domain, or off"), |s, v| {
            // The first one given takes the place of the default.
            let hosts = s.config.file_urls.given_hosts.get_or_insert_default();
            if v != "off" {
                hosts.push(Host::parse(v)?);
            }
            Ok(())
        }),
        "Host that the server may fetch files from when a request names them by URL",
    ),
    key(
        "file_url_network",
        Reach::NoFlag,
        "none: public addresses only",
        Kind::List(
            form("NETWORK", "addresses or networks such as 10.1.0.0/16"),
            |s, v| {
                s.config.file_urls.networks.push(value::network(v)?);
                Ok(())
            },
        ),
        "Network of your own that such a host may be in",
    ),
    key(
        "file_url_timeout",
        Reach::NoFlag,
        "20 s",
        Kind::Time(Duration::from_secs(1), LONGEST_FETCH, |s, v| {
            s.config.file_urls.time = v
        }),
        "How long fetching all files of a request may take",
    ),
    key(
        "max_file_url_bytes",
        Reach::NoFlag,
        "10 MiB",
        Kind::Bytes(KIB, 128 * MIB, |s, v| s.config.file_urls.file_bytes = v),
        "Largest file that is fetched; max_files_in_bytes holds for all together",
    ),
];
