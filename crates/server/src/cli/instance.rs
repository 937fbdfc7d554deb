//! One server for one data directory: a lock that dies with its process,
//! and in the locked file a note of who holds it.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::data_dir;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::api;
use crate::config::{Access, Config, Settings};
use crate::exit_code::Exit;

const FILE: &str = "server.lock";
/// `doctor` holds the lock for a moment while it looks.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// Longest note that is read.
const NOTE_LIMIT: u64 = 4096;

/// The lock, held as long as this lives.
#[derive(Debug)]
pub(super) struct Instance {
    file: File,
}

/// What the holder wrote down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    /// Its process id.
    pub(super) pid: u32,
    /// Its version.
    pub(super) version: String,
    /// When it started, RFC 3339.
    pub(super) started: String,
    /// Where it listens; empty while it starts.
    pub(super) url: String,
    /// Its public URL, where it knows one; `doctor --public` calls that.
    #[serde(default)]
    pub(super) public_url: Option<String>,
    /// Whether it lets everybody in.
    #[serde(default)]
    pub(super) open: bool,
    /// The id of its tunnel, where it has one.
    #[serde(default)]
    pub(super) tunnel: Option<String>,
    /// The interpreter that it runs each language by: packages are made for it.
    #[serde(default)]
    pub(super) interpreters: Vec<(String, PathBuf)>,
}

impl Running {
    /// This process, before it listens.
    pub(super) fn starting() -> Self {
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: api::whole_seconds(Timestamp::now()),
            url: String::new(),
            public_url: None,
            open: false,
            tunnel: None,
            interpreters: Vec::new(),
        }
    }

    /// This process, listening at `url`.
    pub(super) fn here(
        url: &str,
        config: &Config,
        interpreters: Vec<(String, PathBuf)>,
        started: Timestamp,
    ) -> Self {
        Self {
            interpreters,
            started: api::whole_seconds(started),
            url: url.to_owned(),
            public_url: config.public_url.clone(),
            open: config.access == Access::Open,
            tunnel: config.tunnel.id.clone(),
            ..Self::starting()
        }
    }
}

/// What somebody hears who wants to start a second one.
pub(super) struct Told<'a> {
    pub(super) running: &'a Running,
    pub(super) settings: &'a Settings,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running;
        // No note yet: nothing is known, and `kill 0` would hit the reader's own shell.
        if running.pid == 0 {
            return f.write_str(
                "another codex-server is starting with this data directory; try again in a moment",
            );
        }
        match running.url.as_str() {
            "" => writeln!(
                f,
                "codex-server {} is starting (process {})",
                running.version, running.pid
            )?,
            url => writeln!(
                f,
                "codex-server {} is already running at {url} (process {}, since {})",
                running.version, running.pid, running.started
            )?,
        }
        let ours = env!("CARGO_PKG_VERSION");
        if running.version != ours {
            writeln!(
                f,
                "This is version {ours}: stop that one and start again to upgrade."
            )?;
        }
        writeln!(f, "Stop it with:      kill {}", running.pid)?;
        let create = self.settings.command("token create NAME");
        write!(f, "Make a token with: {create}")
    }
}

/// Who has the data directory.
#[derive(Debug)]
pub(super) enum Claim {
    /// We.
    Ours(Instance),
    /// A server that runs.
    Running(Running),
}

impl Instance {
    /// Takes the lock, or tells who has it.
    pub(super) fn claim(home: &Path) -> Result<Claim, Failure> {
        Self::lock(home).map_err(|error| {
            let path = home.join(FILE);
            Failure::text(
                Exit::State,
                format!(
                    "failed to lock {}: {error}. {}, or name another with --home DIR",
                    path.display(),
                    match error.kind() {
                        io::ErrorKind::StorageFull => "Make room on the data directory's disk",
                        _ => "Make the data directory writable for this user",
                    }
                ),
            )
        })
    }

    fn lock(home: &Path) -> io::Result<Claim> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = data_dir::open(&home.join(FILE), &mut options)?;
        for attempt in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    let instance = Self { file };
                    instance.announce(&Running::starting())?;
                    return Ok(Claim::Ours(instance));
                }
                Err(TryLockError::WouldBlock) if attempt + 1 < TRIES => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Claim::Running(read(&mut file)))
    }

    /// Writes down who we are.
    pub(super) fn announce(&self, running: &Running) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(serde_json::to_string(running)?.as_bytes())
    }
}

/// The server that runs with this data directory, if one does. Changes nothing.
pub(super) fn running(home: &Path) -> Option<Running> {
    let mut file = data_dir::open(&home.join(FILE), OpenOptions::new().read(true)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read(&mut file)),
        _ => None,
    }
}

fn read(file: &mut File) -> Running {
    let mut text = String::new();
    let read = file.take(NOTE_LIMIT).read_to_string(&mut text);
    read.ok()
        .and_then(|_| serde_json::from_str(&text).ok())
        // Caught between lock and note.
        .unwrap_or_else(|| Running {
            pid: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: String::new(),
            url: String::new(),
            public_url: None,
            open: false,
            tunnel: None,
            interpreters: Vec::new(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_of_the_first() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(running(home.path()), None);
        let Claim::Ours(instance) = Instance::claim(home.path()).unwrap() else {
            panic!("the lock is free")
        };
        assert_eq!(running(home.path()).unwrap().url, "");
        let config = Config::defaults("/data".into());
        let python = vec![("python".to_owned(), PathBuf::from("/usr/bin/python3"))];
        let note = Running::here("http://127.0.0.1:8000", &config, python, Timestamp::now());
        instance.announce(&note).unwrap();
        let Claim::Running(found) = Instance::claim(home.path()).unwrap() else {
            panic!("the lock is held")
        };
        assert_eq!(found, note);
        let settings = Settings::defaults("/data".into());
        let told = Told {
            running: &found,
            settings: &settings,
        }
        .to_string();
        assert!(
            told.contains("already running at http://127.0.0.1:8000"),
            "{told}"
        );
        drop(instance);
        assert_eq!(running(home.path()), None);
        assert!(matches!(
            Instance::claim(home.path()).unwrap(),
            Claim::Ours(_)
        ));
    }
}
