//! The settings of what requests may hold, and what may be given back.

use std::time::Duration;

use engine::Bounds;

use super::{GIB, KIB, Key, Kind, MIB, Reach, key, size};

pub(super) const REQUESTS: &[Key] = &[
    key(
        "max_body",
        Reach::NoFlag,
        "10 MiB",
        Kind::Bytes(KIB, GIB, |s, v| s.config.body_limit = size(v)),
        "Largest request body",
    ),
    key(
        "max_code",
        Reach::NoFlag,
        "1 MiB",
        Kind::Bytes(KIB, 64 * MIB, |s, v| s.config.bounds.code = size(v)),
        "Longest program text",
    ),
    key(
        "max_stdin",
        Reach::NoFlag,
        "8 MiB",
        Kind::Bytes(0, 256 * MIB, |s, v| s.config.bounds.stdin = size(v)),
        "Longest standard input",
    ),
    key(
        "max_args",
        Reach::NoFlag,
        "256",
        Kind::Count(0, 4096, |s, v| s.config.bounds.args = size(v)),
        "Program arguments of a run",
    ),
    key(
        "max_env",
        Reach::NoFlag,
        "128",
        Kind::Count(0, 4096, |s, v| s.config.bounds.env = size(v)),
        "Environment variables of a run",
    ),
    key(
        "max_args_bytes",
        Reach::NoFlag,
        "128 KiB",
        Kind::Bytes(KIB, Bounds::ARGS_BYTES_MAX as u64, |s, v| {
            s.config.bounds.args_bytes = size(v)
        }),
        "All arguments together, and again all environment variables together",
    ),
    key(
        "max_files_in",
        Reach::NoFlag,
        "100",
        Kind::Count(0, 1000, |s, v| s.config.bounds.files_in = size(v)),
        "Files sent with a run",
    ),
    key(
        "max_files_in_bytes",
        Reach::NoFlag,
        "32 MiB",
        Kind::Bytes(0, Bounds::FILES_IN_BYTES_MAX, |s, v| {
            s.config.bounds.files_in_bytes = v
        }),
        "All files sent with a run or fetched for it together; max_body holds for those sent",
    ),
    key(
        "max_files_out",
        Reach::NoFlag,
        "20",
        Kind::Count(0, 1000, |s, v| s.config.bounds.files_out = size(v)),
        "Files given back by a run",
    ),
    key(
        "max_file_out_bytes",
        Reach::NoFlag,
        "10 MiB",
        Kind::Bytes(0, GIB, |s, v| s.config.bounds.file_out_bytes = v),
        "Largest file given back",
    ),
    key(
        "max_files_out_bytes",
        Reach::NoFlag,
        "32 MiB",
        Kind::Bytes(0, GIB, |s, v| s.config.bounds.files_out_bytes = v),
        "All files given back by a run together, held in memory until they are sent",
    ),
    key(
        "collect_time",
        Reach::NoFlag,
        "2 s",
        Kind::Time(
            Duration::from_millis(100),
            Duration::from_secs(60),
            |s, v| s.config.bounds.collect_time = v,
        ),
        "How long the files of a run are looked for; what is found later is left out, with a warning",
    ),
];
