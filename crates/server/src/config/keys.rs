//! Every setting, once: its names, default, range and where it goes. Flags,
//! environment, file and documentation all come from this list; a setting
//! that is not here cannot be set.

use std::time::Duration;

use crate::config::{Settings, value};

mod access;
mod address;
mod files;
mod log;
mod output;
mod places;
mod requests;
mod runs;
mod tunnel;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The longest wall time that `max_timeout` may allow. Proxies give up on
/// longer answers (Railway after 5 minutes).
const LONGEST: Duration = Duration::from_secs(300);

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
    /// Anything that its function accepts.
    Text(Form, fn(&mut Settings, &str) -> Result<(), String>),
    /// Several of such.
    List(Form, fn(&mut Settings, &str) -> Result<(), String>),
}

/// What people are told of a text's form.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// What stands for it in `--help`, such as `PATH`.
    pub value_name: &'static str,
    /// Which texts will do.
    pub range: &'static str,
}

const fn form(value_name: &'static str, range: &'static str) -> Form {
    Form { value_name, range }
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
            Kind::Text(form, _) | Kind::List(form, _) => form.range.to_owned(),
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
            Kind::Text(form, _) | Kind::List(form, _) => form.value_name,
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

/// Every setting by group, with the group's title, in the order of the documentation.
pub const GROUPS: &[(&str, &[Key])] = &[
    ("Places", places::PLACES),
    ("Address", address::ADDRESS),
    ("Access", access::ACCESS),
    ("Tunnel", tunnel::TUNNEL),
    ("Log", log::LOG),
    ("Runs", runs::RUNS),
    ("The box of a run", runs::BOX),
    ("Sessions", runs::SESSIONS),
    ("What requests may hold", requests::REQUESTS),
    ("Output", output::OUTPUT),
    ("Files kept and fetched", files::FILES),
];

/// Every setting, flat.
pub fn all() -> impl Iterator<Item = &'static Key> {
    GROUPS.iter().flat_map(|(_, keys)| keys.iter())
}
