//! The settings of what programs print: kept, read on, or streamed.

use std::time::Duration;

use super::{GIB, KIB, Key, Kind, LONGEST, MIB, Reach, key, size};

pub(super) const OUTPUT: &[Key] = &[
    key(
        "max_output",
        Reach::NoFlag,
        "1 MiB",
        Kind::Bytes(KIB, 64 * MIB, |s, v| s.config.bounds.output = size(v)),
        "Output kept of each stream: three quarters head, one quarter tail",
    ),
    key(
        "output_rate",
        Reach::NoFlag,
        "16 MiB",
        Kind::Bytes(MIB, 64 * GIB, |s, v| s.config.bounds.output_rate = v),
        "Output a second that is read on though it is neither kept nor streamed, after four seconds' worth: a program that floods waits, and is not killed",
    ),
    key(
        "max_stream",
        Reach::NoFlag,
        "16 MiB",
        Kind::Bytes(KIB, GIB, |s, v| s.config.bounds.stream_total = v),
        "Output told of a streamed run; what follows is only in the head and tail of its end",
    ),
    key(
        "stream_buffer",
        Reach::NoFlag,
        "256 KiB",
        Kind::Bytes(16 * KIB, 64 * MIB, |s, v| {
            s.config.bounds.stream_buffer = size(v)
        }),
        "Output of a streamed run that waits for its reader",
    ),
    key(
        "stream_wait",
        Reach::NoFlag,
        "500 ms",
        Kind::Time(Duration::ZERO, LONGEST, |s, v| {
            s.config.bounds.stream_wait = v
        }),
        "How long, in all, a streamed run may be held up by a reader that falls behind; from then on what does not fit is left out of its stream",
    ),
    key(
        "stream_keep_alive",
        Reach::NoFlag,
        "15 s",
        Kind::Time(Duration::from_secs(1), LONGEST, |s, v| {
            s.config.stream_keep_alive = v
        }),
        "The longest silence of a streamed answer; then a comment keeps proxies from closing it",
    ),
    key(
        "max_unread",
        Reach::NoFlag,
        "128 MiB",
        Kind::Bytes(MIB, 64 * GIB, |s, v| s.config.unread = v),
        "Finished answers that wait in memory for slow readers, all together; beyond it the oldest is cut off, of the token that has most waiting",
    ),
];
