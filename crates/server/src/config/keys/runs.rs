//! The settings of runs: where they may run, how long and how many, and the box of each.

use std::time::Duration;

use engine::{Bounds, Isolation};

use super::{GIB, Key, Kind, LONGEST, MIB, Reach, key, number, size};

/// A day: the longest idle time.
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) const RUNS: &[Key] = &[
    key(
        "min_isolation",
        Reach::Engine,
        "uids",
        Kind::Word(&["full", "namespaces", "uids"], |s, v| {
            if let Ok(rung) = v.parse::<Isolation>() {
                s.config.min_isolation = rung;
            }
        }),
        "The least isolation that will do; the server refuses to start below it",
    ),
    key(
        "max_isolation",
        Reach::Engine,
        "full",
        Kind::Word(&["full", "namespaces", "uids"], |s, v| {
            if let Ok(rung) = v.parse::<Isolation>() {
                s.config.max_isolation = rung;
            }
        }),
        "The strongest isolation to try: to see on this machine what a weaker host would give",
    ),
    key(
        "timeout",
        Reach::NoFlag,
        "10 s",
        Kind::Time(Duration::from_secs(1), LONGEST, |s, v| {
            s.config.bounds.wall_time = v
        }),
        "Wall time of a run when the caller names none",
    ),
    key(
        "max_timeout",
        Reach::Engine,
        "30 s",
        Kind::Time(Duration::from_secs(1), LONGEST, |s, v| {
            s.config.bounds.wall_time_max = v
        }),
        "The longest wall time a caller may ask for",
    ),
    key(
        "memory",
        Reach::NoFlag,
        "512 MiB",
        Kind::Bytes(16 * MIB, 64 * GIB, |s, v| s.config.bounds.memory = v),
        "Memory of a run when the caller names none",
    ),
    key(
        "max_memory",
        Reach::Engine,
        "4 GiB",
        Kind::Bytes(16 * MIB, 64 * GIB, |s, v| s.config.bounds.memory_max = v),
        "The most memory a caller may ask for",
    ),
    key(
        "concurrency",
        Reach::Serve,
        "2 x cores",
        Kind::Count(1, Bounds::CONCURRENCY_MAX as u64, |s, v| {
            s.config.bounds.concurrency = size(v)
        }),
        "Runs at once",
    ),
    key(
        "queue",
        Reach::NoFlag,
        "64",
        Kind::Count(0, 10_000, |s, v| s.config.bounds.queue = size(v)),
        "Jobs that may wait for a place",
    ),
    key(
        "queue_wait",
        Reach::NoFlag,
        "30 s",
        Kind::Time(Duration::ZERO, LONGEST, |s, v| {
            s.config.bounds.queue_wait = v
        }),
        "How long a job may wait for a place",
    ),
];

pub(super) const BOX: &[Key] = &[
    key(
        "processes",
        Reach::NoFlag,
        "64; 128 for JavaScript",
        Kind::Count(1, 4096, |s, v| s.config.bounds.processes = Some(number(v))),
        "Processes and threads of a run; when given, of every language",
    ),
    key(
        "cpu_millis",
        Reach::NoFlag,
        "1000",
        Kind::Count(50, 64_000, |s, v| s.config.bounds.cpu_millis = number(v)),
        "CPU of a run in thousandths of a core",
    ),
    key(
        "workspace",
        Reach::NoFlag,
        "256 MiB",
        Kind::Bytes(MIB, 16 * GIB, |s, v| s.config.bounds.workspace = v),
        "Size of workspace and /tmp of a run together",
    ),
    key(
        "inodes",
        Reach::NoFlag,
        "20000",
        Kind::Count(100, 10_000_000, |s, v| s.config.bounds.inodes = v),
        "Files and folders in workspace and /tmp of a run together",
    ),
    key(
        "shm",
        Reach::NoFlag,
        "64 MiB",
        Kind::Bytes(MIB, 16 * GIB, |s, v| s.config.bounds.shm = v),
        "Size of /dev/shm of a run, inside its memory",
    ),
    key(
        "ready_boxes",
        Reach::NoFlag,
        "2",
        Kind::Count(0, 16, |s, v| s.config.bounds.ready = size(v)),
        "Sandboxes of each language that wait for a program in quiet times, with an interpreter that has started; four times as many when there is much to do, none for 0",
    ),
];

pub(super) const SESSIONS: &[Key] = &[
    key(
        "sessions",
        Reach::NoFlag,
        "64",
        Kind::Count(0, 500, |s, v| s.config.bounds.sessions = size(v)),
        "Sessions at once; each holds its memory while it lives",
    ),
    key(
        "sessions_each",
        Reach::NoFlag,
        "16",
        Kind::Count(0, 500, |s, v| s.config.bounds.sessions_each = size(v)),
        "Sessions of one token at once",
    ),
    key(
        "session_idle",
        Reach::NoFlag,
        "10 min",
        Kind::Time(Duration::from_secs(1), DAY, |s, v| {
            s.config.bounds.session_idle = v;
        }),
        "How long a session may be idle before it is paused, when its caller says nothing; it ends after an hour, or twice that time if that is longer",
    ),
    key(
        "session_ttl",
        Reach::NoFlag,
        "24 h",
        Kind::Time(
            Duration::from_secs(1),
            Duration::from_secs(30 * 24 * 3600),
            |s, v| {
                s.config.bounds.session_ttl = v;
            },
        ),
        "How long a session may live, and the longest that a caller may ask for",
    ),
    key(
        "session_workspace",
        Reach::NoFlag,
        "1 GiB",
        Kind::Bytes(MIB, 64 * GIB, |s, v| s.config.bounds.session_workspace = v),
        "Size of workspace and /tmp of a session together; what is in them counts as its memory",
    ),
];
