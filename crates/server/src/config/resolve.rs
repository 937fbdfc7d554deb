//! The layers of the configuration, one over the other. [`resolve`] is pure:
//! no clock, no file, no environment but the ones it is given.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::keys::{self, Key, Kind};
use crate::config::nearest::nearest;
use crate::config::{Access, Env, RateLimit, Settings, file, home_directory, value};
use crate::public_url::Platform;
use crate::tunnel;

const OUT_OF_RANGE: &str = "is out of range";

/// What was said on the command line: values by setting name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(pub BTreeMap<&'static str, Vec<String>>);

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag(String),
    /// An environment variable.
    Env(String),
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Env(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was said; `None` when something is missing altogether.
    pub source: Option<Source>,
    /// What is wrong and what to give instead.
    pub message: String,
}

/// Everything that is wrong with the configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The problems; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            if let Some(source) = &problem.source {
                write!(f, "{source}: ")?;
            }
            f.write_str(&problem.message)?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// Whether everything wrong was said on the command line.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        self.problems
            .iter()
            .all(|problem| matches!(problem.source, Some(Source::Flag(_))))
    }

    pub(super) fn one(source: Option<Source>, message: String) -> Self {
        Self {
            problems: vec![Problem { source, message }],
        }
    }
}

/// A value as one layer gave it.
struct Given {
    source: Source,
    values: Vec<String>,
}

/// Reads the file and resolves the layers.
///
/// # Errors
/// When no data directory can be told, the file cannot be read, or a value is wrong.
pub fn load(flags: &Flags, env: &Env) -> Result<Settings, ConfigError> {
    let home = home_directory(flags, env)?;
    let file = file::read(flags, env, &home)?;
    let file = file
        .as_ref()
        .map(|(path, text)| (path.as_path(), text.as_str()));
    resolve(flags, env, file, home)
}

/// Lays flags over environment over file over defaults.
///
/// # Errors
/// With every problem at once: unknown keys, values of the wrong kind or out of range.
pub fn resolve(
    flags: &Flags,
    env: &Env,
    file: Option<(&Path, &str)>,
    home: PathBuf,
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::defaults(home.clone());
    let mut problems = Vec::new();
    let mut in_file = file.map_or_else(BTreeMap::new, |(path, text)| {
        parse_file(path, text, &mut problems)
    });
    if let Some(path) = env.get("PATH") {
        settings.config.search_path = std::env::split_paths(path)
            .filter(|p| p.is_absolute())
            .collect();
    }
    // Where daemons without one have their home; a search path takes its place.
    let own_home = env.get("HOME").filter(|home| !home.is_empty());
    settings.config.switchers = Some(own_home.map_or_else(|| "/".into(), PathBuf::from));
    for key in keys::all() {
        let given = from_flags(key, flags)
            .or_else(|| from_env(key, env, &mut problems))
            .or_else(|| in_file.remove(key.name));
        let Some(given) = given else { continue };
        match apply(key, &given.values, &mut settings) {
            Ok(()) => {
                settings.sources.insert(key.name, given.source);
            }
            Err(message) => problems.push(Problem {
                source: Some(given.source),
                message,
            }),
        }
    }
    settings.config.home = home;
    settings.file = file.map(|(path, _)| path.to_owned());
    settings.warnings = misspelt(env);
    settings.log_filter = env.get("RUST_LOG").map(str::to_owned);
    follow(&mut settings, env);
    if problems.is_empty() {
        contradictions(&settings, &mut problems);
    }
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(ConfigError { problems })
    }
}

fn from_flags(key: &Key, flags: &Flags) -> Option<Given> {
    let values = flags.0.get(key.name).filter(|values| !values.is_empty())?;
    let source = Source::Flag(format!("--{}", key.flag()));
    Some(Given {
        source,
        values: values.clone(),
    })
}

fn from_env(key: &Key, env: &Env, problems: &mut Vec<Problem>) -> Option<Given> {
    let mut name = key.env();
    if key.name == "port" && env.raw(&name).is_none() {
        "PORT".clone_into(&mut name);
    }
    let raw = env.raw(&name)?;
    let source = Source::Env(name);
    let Some(value) = raw.to_str() else {
        // Paths of any bytes are read elsewhere as they are.
        if !matches!(key.name, "home" | "config") {
            problems.push(Problem {
                source: Some(source),
                message: "is not valid UTF-8".to_owned(),
            });
        }
        return None;
    };
    Some(Given {
        source,
        values: vec![value.to_owned()],
    })
}

fn apply(key: &Key, values: &[String], settings: &mut Settings) -> Result<(), String> {
    let text = values.last().map_or("", |value| value.trim());
    let refused = |text: &str, problem: String| {
        format!("{} = {text:?} {problem}. Give {}", key.name, key.range())
    };
    let refuse = |problem: String| refused(text, problem);
    match key.kind {
        Kind::Count(least, most, put) => {
            let number: i128 = text
                .parse()
                .map_err(|_| refuse("is not a whole number".to_owned()))?;
            // What is negative is a number, but out of any range.
            let number = u64::try_from(number).map_err(|_| OUT_OF_RANGE.to_owned());
            let number = number.and_then(|number| within(number, least..=most));
            put(settings, number.map_err(refuse)?);
        }
        Kind::Bytes(least, most, put) => {
            let bytes = value::bytes(text).and_then(|bytes| within(bytes, least..=most));
            put(settings, bytes.map_err(refuse)?);
        }
        Kind::Time(least, most, put) => {
            let time = value::duration(text).and_then(|time| within(time, least..=most));
            put(settings, time.map_err(refuse)?);
        }
        Kind::Word(words, put) => {
            if !words.contains(&text) {
                let problem = match (key.name, text) {
                    ("min_isolation" | "max_isolation", "landlock") => {
                        "no longer exists: the weakest level is uids"
                    }
                    _ => "is not known",
                };
                return Err(refuse(problem.to_owned()));
            }
            put(settings, text);
        }
        Kind::Switch(put) => put(settings, value::switch(text).map_err(refuse)?),
        Kind::Text(_, put) => put(settings, text).map_err(refuse)?,
        Kind::List(_, put) => {
            let values = values.iter().flat_map(|value| value.split(','));
            for value in values.map(str::trim).filter(|value| !value.is_empty()) {
                put(settings, value).map_err(|problem| refused(value, problem))?;
            }
        }
    }
    Ok(())
}

fn within<T: PartialOrd>(value: T, range: RangeInclusive<T>) -> Result<T, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(OUT_OF_RANGE.to_owned())
    }
}

fn parse_file(
    path: &Path,
    text: &str,
    problems: &mut Vec<Problem>,
) -> BTreeMap<&'static str, Given> {
    let at = |offset: usize| {
        let line = 1 + text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count();
        Source::File {
            path: path.to_owned(),
            line,
        }
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let source = at(error.span().map_or(0, |span| span.start));
            let message = format!("is not TOML: {}", error.message());
            problems.push(Problem {
                source: Some(source),
                message,
            });
            return BTreeMap::new();
        }
    };
    let mut given = BTreeMap::new();
    for (name, found) in &table {
        let source = at(name.span().start);
        match (file_key(name.get_ref()), plain_values(found)) {
            (Ok(key), Ok(values)) => {
                given.insert(key.name, Given { source, values });
            }
            (Err(message), _) => problems.push(Problem {
                source: Some(source),
                message,
            }),
            (Ok(key), Err(problem)) => {
                let message = format!("{} {problem}. Give {}", key.name, key.range());
                problems.push(Problem {
                    source: Some(source),
                    message,
                });
            }
        }
    }
    given
}

fn file_key(name: &str) -> Result<&'static Key, String> {
    let known = |key: &&Key| key.in_file;
    if let Some(key) = keys::all().filter(known).find(|key| key.name == name) {
        return Ok(key);
    }
    if let Some(key) = keys::all().find(|key| key.name == name) {
        return Err(format!(
            "{name} cannot stand in the file; use --{} or {}",
            key.flag(),
            key.env()
        ));
    }
    // Flags' spelling is the likeliest slip of all.
    let near = nearest(
        &name.replace('-', "_"),
        keys::all().filter(known).map(|key| key.name),
    );
    Err(match near {
        Some(near) => format!("unknown setting {name:?}; did you mean {near}?"),
        None => format!("unknown setting {name:?}; docs/configuration.md lists them all"),
    })
}

/// A TOML value as the texts that a flag would have carried.
fn plain_values(found: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    match found.get_ref() {
        DeValue::String(text) => Ok(vec![text.as_ref().to_owned()]),
        DeValue::Integer(number) if number.radix() == 10 => Ok(vec![number.as_str().to_owned()]),
        DeValue::Float(number) => Ok(vec![number.as_str().to_owned()]),
        DeValue::Boolean(switch) => Ok(vec![switch.to_string()]),
        DeValue::Array(items) => {
            let texts = items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned));
            texts
                .collect::<Option<_>>()
                .ok_or_else(|| "is a list of something else than text".to_owned())
        }
        other => Err(format!("is a {}", other.type_str())),
    }
}

/// Variables that are ours and no settings: of `run`, which tell where to call,
/// and a key.
const OF_CALLERS: [&str; 3] = ["CODEX_URL", "CODEX_TOKEN", TUNNEL_KEY];

/// The variable of the tunnel's key, which is no setting: it may neither be a
/// flag nor stand in a file that is shown around.
const TUNNEL_KEY: &str = "CODEX_TUNNEL_KEY";

/// Variables that look like ours but are not; other programs use the prefix
/// too, so only a near miss is worth a word.
fn misspelt(env: &Env) -> Vec<String> {
    let known: Vec<String> = keys::all().map(Key::env).collect();
    env.names("CODEX_")
        .filter(|name| !known.iter().any(|known| known == name) && !OF_CALLERS.contains(name))
        .filter_map(|name| {
            let near = nearest(name, known.iter().map(String::as_str))?;
            Some(format!("{name} is not a setting; did you mean {near}?"))
        })
        .collect()
}

/// The defaults that follow from other settings and from where this runs.
fn follow(settings: &mut Settings, env: &Env) {
    let given = |name: &str| settings.sources.contains_key(name);
    let (host, rate, public_url) = (given("host"), given("rate_limit"), given("public_url"));
    let (timeout, memory) = (given("timeout"), given("memory"));
    settings.platform = Platform::detect(env);
    settings.host_is_default = !host;
    let config = &mut settings.config;
    config.tunnel.key = env.get(TUNNEL_KEY).map(tunnel::Key::parse);
    config.tunnel.usual_key_file = config.home.join(tunnel::KEY_FILE);
    if !host && config.access == Access::Token {
        let port_given = env.get("PORT").is_some();
        config.host = default_host(settings.platform.as_ref(), port_given);
    }
    if !rate && config.access == Access::Open {
        config.rate = RateLimit::OPEN;
    }
    if let Some(burst) = settings.rate_burst
        && !config.rate.is_off()
    {
        config.rate.burst = burst;
    }
    if !timeout {
        config.bounds.wall_time = config.bounds.wall_time.min(config.bounds.wall_time_max);
    }
    if !memory {
        config.bounds.memory = config.bounds.memory.min(config.bounds.memory_max);
    }
    if !settings.sources.contains_key("shm") {
        config.bounds.shm = config.bounds.shm.min(config.bounds.memory);
    }
    if public_url {
        config.public_url_source = settings.sources.get("public_url").map(ToString::to_string);
    }
    settings.bound_to(settings.config.port);
}

/// Where to listen when nobody said: Codespaces' port forwarding reaches
/// loopback; hosts that hand out a port connect from outside. `::` takes
/// IPv4 too, and is what Fly's and Railway's private networks need.
fn default_host(platform: Option<&Platform>, port_given: bool) -> IpAddr {
    match platform {
        Some(Platform::Codespaces { .. }) => Ipv4Addr::LOCALHOST.into(),
        Some(Platform::Railway { .. } | Platform::Fly { .. }) => Ipv6Addr::UNSPECIFIED.into(),
        Some(Platform::Render { .. }) => Ipv4Addr::UNSPECIFIED.into(),
        None if port_given => Ipv4Addr::UNSPECIFIED.into(),
        None => Ipv4Addr::LOCALHOST.into(),
    }
}

/// Settings that are each in range but do not fit together.
fn contradictions(settings: &Settings, problems: &mut Vec<Problem>) {
    let bounds = &settings.config.bounds;
    let body = settings.config.body_limit as u64;
    let bytes = value::show_bytes;
    let time = value::show_duration;
    let given = |name| settings.sources.contains_key(name);
    let code_is_why = given("max_code");
    // Whether it is so; the setting to name, and what to say of it.
    let pairs = [
        (
            bounds.wall_time > bounds.wall_time_max,
            "timeout",
            format!(
                "timeout of {} is above max_timeout of {}: raise max_timeout or lower timeout",
                time(bounds.wall_time),
                time(bounds.wall_time_max)
            ),
        ),
        (
            bounds.memory > bounds.memory_max,
            "memory",
            format!(
                "memory of {} is above max_memory of {}: raise max_memory or lower memory",
                bytes(bounds.memory),
                bytes(bounds.memory_max)
            ),
        ),
        (
            bounds.shm > bounds.memory,
            "shm",
            format!(
                "shm of {} is above memory of {}, which it is inside of: lower shm",
                bytes(bounds.shm),
                bytes(bounds.memory)
            ),
        ),
        (
            bounds.code as u64 > body,
            if code_is_why { "max_code" } else { "max_body" },
            format!(
                "max_code of {} does not fit into max_body of {}: raise max_body or lower max_code",
                bytes(bounds.code as u64),
                bytes(body)
            ),
        ),
    ];
    for (_, name, message) in pairs.into_iter().filter(|(contradict, ..)| *contradict) {
        let source = settings.sources.get(name).cloned();
        problems.push(Problem { source, message });
    }
}

#[cfg(test)]
mod tests;
