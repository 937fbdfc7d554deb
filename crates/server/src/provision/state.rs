//! How an installation stands, in a file beside the sets: written by who
//! installs, read by everybody else. The file alone proves nothing: whether
//! somebody installs is told by the lock, what is installed by the set.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::PackageState;
use serde::{Deserialize, Serialize};

use super::{Display, Refused};
use crate::output::terminal::printable;

const FILE: &str = "status.json";
/// Longest file that is read, in bytes.
const LONGEST: u64 = 16 * 1024;
/// The file is not written more often.
const REWRITE: Duration = Duration::from_millis(200);
/// Characters of what is being done.
const WHAT: usize = 80;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    done: u32,
    total: u32,
    what: String,
    /// Why the last attempt failed, if it did.
    failed: Option<String>,
}

/// Where the packages of a language stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Programs see them.
    Ready,
    /// They are being installed; programs see the old ones meanwhile, if there are any.
    Installing,
    /// The last attempt failed.
    Failed,
    /// Nobody has installed them.
    Absent,
    /// They were left out on purpose.
    Minimal,
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Installing => "installing",
            Self::Failed => "failed",
            Self::Absent => "absent",
            Self::Minimal => "minimal",
        }
    }
}

/// What is meant to become of packages that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Nothing, until somebody asks for them.
    Nothing,
    /// They were left out on purpose.
    Minimal,
    /// An installation was started and has not ended.
    Install,
}

impl Intent {
    /// Of who starts no installation; `minimal` when they were left out.
    #[must_use]
    pub fn without_installation(minimal: bool) -> Self {
        if minimal {
            Self::Minimal
        } else {
            Self::Nothing
        }
    }
}

/// Whether an installation that this process started goes on; shared by all
/// who are asked.
#[derive(Debug, Clone, Default)]
pub struct Underway(Arc<AtomicBool>);

impl Underway {
    /// Says that it goes on, or that it has ended.
    pub fn set(&self, underway: bool) {
        self.0.store(underway, Ordering::Relaxed);
    }

    /// Whether it goes on.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The packages of a language, for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where they stand.
    pub phase: Phase,
    /// Steps done, while they are being installed.
    pub done: u32,
    /// All steps; 0 while that is not known.
    pub total: u32,
    /// What a person should know of it; empty when there is nothing to say.
    pub message: String,
}

/// Where the packages of a language stand.
#[must_use]
pub fn standing(state: &PackageState, intent: Intent) -> Standing {
    judge(state, &read(&state.directory), intent)
}

fn judge(state: &PackageState, note: &Note, intent: Intent) -> Standing {
    let of = |phase, message: String| Standing {
        phase,
        done: 0,
        total: 0,
        message,
    };
    if state.installing {
        return Standing {
            phase: Phase::Installing,
            done: note.done,
            total: note.total,
            message: match note.what.as_str() {
                "" => "about to begin".to_owned(),
                what => what.to_owned(),
            },
        };
    }
    const INSTALL: &str = "codex-server packages install";
    let failure = note.failed.clone();
    // Started, and not yet at this language: a note of a failure would be its own.
    let coming = intent == Intent::Install && failure.is_none() && state.obstacle.is_none();
    match (&state.installed, failure) {
        (Some(_), _) if state.current => of(Phase::Ready, String::new()),
        (_, None) if coming => of(Phase::Installing, "about to begin".to_owned()),
        (Some(_), Some(why)) => of(
            Phase::Ready,
            format!("The newer set is not installed: {why}"),
        ),
        (Some(_), None) => of(
            Phase::Ready,
            format!("A newer set can be installed: {INSTALL}"),
        ),
        (None, _) if intent == Intent::Minimal => {
            of(Phase::Minimal, "Left out, as --minimal says.".to_owned())
        }
        (None, _) if state.obstacle.is_some() => {
            of(Phase::Absent, state.obstacle.clone().unwrap_or_default())
        }
        (None, Some(why)) => of(Phase::Failed, format!("{why} Try again with: {INSTALL}")),
        (None, None) => of(Phase::Absent, format!("Install them with: {INSTALL}")),
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

fn read(directory: &Path) -> Note {
    let mut text = String::new();
    let file = fs::File::open(path(directory));
    let read = file.and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.ok()
        .and_then(|_| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// Forgets how earlier attempts ended, for one that begins now.
pub fn forget_failures(states: &[PackageState]) {
    for state in states.iter().filter(|state| !state.installing) {
        clear(&state.directory);
    }
}

/// Forgets how the last attempt ended.
pub(super) fn clear(directory: &Path) {
    match fs::remove_file(path(directory)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "the state of an installation cannot be cleared");
        }
        _ => {}
    }
}

/// Tells everybody how far an installation is.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    directory: PathBuf,
    display: &'a mut Display,
    written: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(super) fn begin(directory: &Path, display: &'a mut Display) -> Self {
        let mut watch = Self {
            directory: directory.to_owned(),
            display,
            written: None,
        };
        watch.progress(0, 0, "preparing");
        watch
    }

    pub(super) fn progress(&mut self, done: u32, total: u32, what: &str) {
        let what: String = what
            .chars()
            .filter(|c| !c.is_control())
            .take(WHAT)
            .collect();
        self.display.progress(done, total, &what);
        if self
            .written
            .is_some_and(|written| written.elapsed() < REWRITE)
        {
            return;
        }
        self.written = Some(Instant::now());
        self.write(&Note {
            done,
            total,
            what,
            failed: None,
        });
    }

    /// Tells a line that stays, which may come from a box.
    pub(super) fn say(&mut self, text: &str) {
        self.display.say(&printable(text));
    }

    pub(super) fn end(self) {
        clear(&self.directory);
    }

    pub(super) fn failed(self, refused: &Refused) {
        self.write(&Note {
            failed: Some(refused.to_string()),
            ..Note::default()
        });
    }

    /// Readers never see half of it. What cannot be written is only not told.
    fn write(&self, note: &Note) {
        let aside = self.directory.join(format!("{FILE}.new"));
        let written = serde_json::to_string(note)
            .map_err(io::Error::other)
            .and_then(|text| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, path(&self.directory)));
        if let Err(error) = written {
            tracing::debug!(%error, "the state of an installation cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_packages_stand() {
        let note = |failed: Option<&str>| Note {
            done: 3,
            total: 9,
            what: "numpy".to_owned(),
            failed: failed.map(str::to_owned),
        };
        use Intent::{Install, Minimal, Nothing};
        let install = "packages install";
        // Installed, current, installing; then what failed, what is meant, and what is in the way.
        #[rustfmt::skip]
        let cases = [
            ((true, true, false), None, Nothing, None, Phase::Ready, ""),
            ((true, true, false), None, Minimal, None, Phase::Ready, ""),
            ((true, false, false), None, Nothing, None, Phase::Ready, "newer set can be"),
            ((true, false, false), Some("no net"), Nothing, None, Phase::Ready, "no net"),
            ((true, true, true), None, Nothing, None, Phase::Installing, "numpy"),
            ((false, false, true), Some("no net"), Minimal, None, Phase::Installing, "numpy"),
            ((false, false, false), Some("no net"), Nothing, None, Phase::Failed, "no net Try again"),
            ((false, false, false), None, Nothing, None, Phase::Absent, install),
            ((false, false, false), None, Minimal, None, Phase::Minimal, "--minimal"),
            ((false, false, false), Some("no net"), Minimal, None, Phase::Minimal, "--minimal"),
            ((false, false, false), None, Nothing, Some("Get X."), Phase::Absent, "Get X."),
            ((false, false, false), None, Install, None, Phase::Installing, "about to"),
            ((true, false, false), None, Install, None, Phase::Installing, "about to"),
            ((true, true, false), None, Install, None, Phase::Ready, ""),
            ((false, false, false), Some("no net"), Install, None, Phase::Failed, "no net"),
            ((false, false, false), None, Install, Some("Get X."), Phase::Absent, "Get X."),
        ];
        for ((installed, current, installing), failed, intent, obstacle, expected, words) in cases {
            let state = PackageState {
                language: "x".to_owned(),
                title: "X".to_owned(),
                directory: "/nowhere".into(),
                main: Vec::new(),
                added: Vec::new(),
                installed: installed.then(Vec::new),
                current,
                installing,
                obstacle: obstacle.map(str::to_owned),
            };
            let found = judge(&state, &note(failed), intent);
            assert_eq!(found.phase, expected, "{found:?}");
            assert!(found.message.contains(words), "{found:?}");
            assert_eq!(found.total > 0, installing);
        }
    }

    #[test]
    fn nonsense_in_the_file_is_no_state() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(read(home.path()), Note::default());
        fs::write(path(home.path()), "{\"done\": -1").unwrap();
        assert_eq!(read(home.path()), Note::default());
        let mut display = Display::new();
        let watch = Watch::begin(home.path(), &mut display);
        watch.failed(&Refused::new("it broke", "Mend it."));
        assert_eq!(
            read(home.path()).failed.as_deref(),
            Some("it broke. Mend it.")
        );
        clear(home.path());
        assert_eq!(read(home.path()), Note::default());
    }
}
