//! Every setting, once: its names, default, range and where it goes. Flags,
//! environment, file and documentation all come from this list; a setting
//! that is not here cannot be set.

use std::net::IpAddr;
use std::time::Duration;

use engine::{Bounds, Isolation};

use crate::config::{Access, Settings, value};
use crate::public_url;

mod files;
mod log;
mod output;
mod places;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The longest wall time that `max_timeout` may allow. Proxies give up on
/// longer answers (Railway after 5 minutes).
const LONGEST: Duration = Duration::from_secs(300);

/// ChatGPT gives an Action up after 45 s.
const ACTION_LONGEST: Duration = Duration::from_secs(44);

/// Which commands take a setting as a flag; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Every command.
    Every,
    /// Those that run code.
    Engine,
    /// Those that serve.
    Serve,
    /// None: file and environment only.
    NoFlag,
}

/// What a setting's value is, how far it may go, and where it is put.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A number.
    Count(u64, u64, fn(&mut Settings, u64)),
    /// A size in bytes.
    Bytes(u64, u64, fn(&mut Settings, u64)),
    /// A duration.
    Time(Duration, Duration, fn(&mut Settings, Duration)),
    /// One of some words.
    Word(&'static [&'static str], fn(&mut Settings, &str)),
    /// True or false.
    Switch(fn(&mut Settings, bool)),
    /// Anything its function accepts; the text names the range.
    Text(&'static str, fn(&mut Settings, &str) -> Result<(), String>),
    /// Several of such.
    List(&'static str, fn(&mut Settings, &str) -> Result<(), String>),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in `codex.toml`; flag and variable follow from it.
    pub name: &'static str,
    /// Which commands take it as a flag.
    pub reach: Reach,
    /// Whether it may stand in the file.
    pub in_file: bool,
    /// The default, as documented.
    pub default: &'static str,
    /// What it does, a sentence.
    pub about: &'static str,
    /// Its value.
    pub kind: Kind,
}

impl Key {
    /// The environment variable.
    #[must_use]
    pub fn env(&self) -> String {
        format!("CODEX_{}", self.name.to_ascii_uppercase())
    }

    /// The flag, without the dashes before it.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The range, as documented and as errors name it.
    #[must_use]
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Count(least, most, _) => format!("{least} to {most}"),
            Kind::Bytes(least, most, _) => {
                format!(
                    "{} to {}",
                    value::show_bytes(least),
                    value::show_bytes(most)
                )
            }
            Kind::Time(least, most, _) => {
                format!(
                    "{} to {}",
                    value::show_duration(least),
                    value::show_duration(most)
                )
            }
            Kind::Word(words, _) => words.join(", "),
            Kind::Switch(_) => "true, false".to_owned(),
            Kind::Text(range, _) | Kind::List(range, _) => range.to_owned(),
        }
    }

    /// The kind of value, for `--help`.
    #[must_use]
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Count(..) => "N",
            Kind::Bytes(..) => "SIZE",
            Kind::Time(..) => "TIME",
            Kind::Word(..) => "WORD",
            Kind::Switch(_) => "BOOL",
            Kind::Text(..) | Kind::List(..) => match self.name {
                "home" | "search_path" | "config" => "PATH",
                "interpreter" => "LANGUAGE=FILE",
                "host" | "trusted_proxy" => "ADDRESS",
                "public_url" | "cors_origin" => "URL",
                "rate_limit" => "RATE",
                "idle_shutdown" => "TIME",
                _ => "TEXT",
            },
        }
    }
}

const fn key(
    name: &'static str,
    reach: Reach,
    default: &'static str,
    kind: Kind,
    about: &'static str,
) -> Key {
    Key {
        name,
        reach,
        in_file: true,
        default,
        about,
        kind,
    }
}

const fn outside_file(key: Key) -> Key {
    Key {
        in_file: false,
        ..key
    }
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn number(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Every setting, in the order of the documentation.
pub const KEYS: &[&[Key]] = &[
    places::PLACES,
    ADDRESS,
    ACCESS,
    log::LOG,
    RUN,
    BOX,
    LIMITS,
    output::OUTPUT,
    files::FILES,
];

/// Every setting, flat.
pub fn all() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().flat_map(|group| group.iter())
}

const ADDRESS: &[Key] = &[
    key(
        "host",
        Reach::Serve,
        "127.0.0.1; all interfaces on Railway, Render and Fly or when PORT is set",
        Kind::Text("an IP address", |s, v| {
            s.config.host = address(v)?;
            Ok(())
        }),
        "Address to listen on",
    ),
    key(
        "port",
        Reach::Serve,
        "8000",
        Kind::Count(0, 65_535, |s, v| {
            s.config.port = u16::try_from(v).unwrap_or(0)
        }),
        "Port to listen on; 0 lets the system choose. PORT is honoured after CODEX_PORT",
    ),
    key(
        "public_url",
        Reach::Serve,
        "that of Codespaces, Railway, Render or Fly; else each request's own",
        Kind::Text("http(s)://host[:port][/path]", |s, v| {
            s.config.public_url = Some(public_url::normalise(v)?);
            Ok(())
        }),
        "The server's address as clients see it",
    ),
    key(
        "trusted_proxy",
        Reach::Serve,
        "none",
        Kind::List("IP addresses", |s, v| {
            s.config.trusted_proxies.push(address(v)?);
            Ok(())
        }),
        "Proxy whose Forwarded and X-Forwarded-* headers are believed",
    ),
    key(
        "max_connections",
        Reach::NoFlag,
        "1024",
        Kind::Count(1, 65_536, |s, v| s.config.connections = size(v)),
        "Connections at once",
    ),
    key(
        "client_timeout",
        Reach::NoFlag,
        "30 s",
        Kind::Time(Duration::from_secs(1), LONGEST, |s, v| {
            s.config.client_timeout = v
        }),
        "How long a client may take to send its headers, and again its body",
    ),
    key(
        "action_timeout",
        Reach::NoFlag,
        "40 s",
        Kind::Time(Duration::from_secs(3), ACTION_LONGEST, |s, v| {
            s.config.action_timeout = v
        }),
        "Time from the request of a ChatGPT Action, which gives up after 45 s, to its answer",
    ),
    key(
        "idle_shutdown",
        Reach::Serve,
        "off",
        Kind::Text("off, or 60 s to 30 days, such as 30m", |s, v| {
            s.config.idle_shutdown = value::idle(v)?;
            Ok(())
        }),
        "End the server after so long without a call that was let in and without a run; /health and /metrics do not count",
    ),
    key(
        "drain_grace",
        Reach::NoFlag,
        "8 s",
        Kind::Time(Duration::ZERO, Duration::from_secs(600), |s, v| {
            s.config.drain_grace = v
        }),
        "How long running jobs are waited for at shutdown; Docker kills after 10 s",
    ),
];

const ACCESS: &[Key] = &[
    key(
        "open",
        Reach::Serve,
        "false",
        Kind::Switch(|s, v| s.config.access = if v { Access::Open } else { Access::Token }),
        "Let everybody in without a token; loopback only unless a host is given",
    ),
    key(
        "rate_limit",
        Reach::Serve,
        "120/minute a key; 10/minute in all with open",
        Kind::Text(
            "N/second, N/minute or N/hour with N from 1 to 1000000, or off",
            |s, v| {
                s.config.rate = value::rate(v)?;
                Ok(())
            },
        ),
        "Requests a key may make (open: everybody together)",
    ),
    key(
        "rate_burst",
        Reach::NoFlag,
        "a quarter of the rate, at least 10 or the whole rate",
        Kind::Count(1, 1_000_000, |s, v| s.rate_burst = Some(number(v))),
        "Requests that may come at once",
    ),
    key(
        "cors_origin",
        Reach::Serve,
        "none: browsers may not call",
        Kind::List("scheme://host[:port], or *", |s, v| {
            s.config.cors_origins.push(public_url::origin(v)?);
            Ok(())
        }),
        "Origin that browsers may call from",
    ),
];

const RUN: &[Key] = &[
    key(
        "min_isolation",
        Reach::Engine,
        "uids",
        Kind::Word(&["full", "namespaces", "uids", "landlock"], |s, v| {
            if let Ok(rung) = v.parse::<Isolation>() {
                s.config.min_isolation = rung;
            }
        }),
        "The least isolation that will do; the server refuses to start below it (landlock is reserved and not built yet)",
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

const BOX: &[Key] = &[
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
];

const LIMITS: &[Key] = &[
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

fn address(text: &str) -> Result<IpAddr, String> {
    let text = if text == "localhost" {
        "127.0.0.1"
    } else {
        text
    };
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| "is not an IP address such as 127.0.0.1, 0.0.0.0 or ::".to_owned())
}
