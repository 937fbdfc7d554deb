//! The settings of the log.

use super::{Key, Kind, Reach, key, size};
use crate::config::LogFormat;

pub(super) const LOG: &[Key] = &[
    key(
        "log_format",
        Reach::Serve,
        "text",
        Kind::Word(&["text", "json"], |s, v| {
            s.config.log_format = if v == "json" {
                LogFormat::Json
            } else {
                LogFormat::Text
            };
        }),
        "Shape of the log lines on standard error",
    ),
    key(
        "log_level",
        Reach::Serve,
        "info",
        Kind::Word(
            &["off", "error", "warn", "info", "debug", "trace"],
            |s, v| v.clone_into(&mut s.log_level),
        ),
        "How much is logged; RUST_LOG, where set, says more",
    ),
    key(
        "log_queue",
        Reach::NoFlag,
        "4096",
        Kind::Count(1, 1_000_000, |s, v| s.config.log_queue = size(v)),
        "Log lines that wait while standard error is not read; those beyond are left out, and how many is told",
    ),
];
