//! Packages for programs: what is installed, what is being installed, and the
//! installation itself, from the lock to the set that runs see.
//!
//! An installation is a process of its own, `codex-server packages install`,
//! which `up` starts beside the server. It starts the language's installer on
//! the host, which runs no code of a package; what the packages do when they
//! are loaded is tried in a box. How far it is stands in a file, so that the
//! server and `doctor` tell the same.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use engine::{Engine, InstallLock, Outcome, Package, PackageKit, PackageState, Stage, Status};

use crate::config::Env;
use crate::output::terminal::printable;

mod installer;
pub mod progress;
pub mod specifier;
mod state;

pub use installer::environment;
pub use progress::Display;
pub use state::{Intent, Phase, Standing, Underway, forget_failures, standing};

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;
/// What was fetched is kept for the next time up to this size, in bytes.
const CACHE_MAX: u64 = 1 << 30;
/// Characters of a check's last words that a message quotes.
const QUOTED: usize = 600;
/// Notes of a check that are told.
const NOTES: usize = 3;

/// Why packages were not installed. The old ones stay in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}. {cure}")]
pub struct Refused {
    /// What is wrong, lower case, no full stop.
    pub problem: String,
    /// What to do, sentences.
    pub cure: String,
}

impl Refused {
    fn new(problem: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            cure: cure.into(),
        }
    }

    /// A system call failed.
    fn io(step: &str, place: &Path, error: &io::Error) -> Self {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let cure = if full {
            "Make room there and try again."
        } else {
            "Look at the owner and the rights of that directory."
        };
        Self::new(
            format!("failed to {step} in {}: {error}", place.display()),
            cure,
        )
    }
}

/// Where and with what an installer runs.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where programs are looked for.
    pub search_path: Vec<PathBuf>,
    /// The variables it may see; see [`environment`].
    pub environment: Vec<(String, std::ffi::OsString)>,
}

impl Surroundings {
    /// Out of a process environment, of which only what installers need is taken.
    #[must_use]
    pub fn new(search_path: &[PathBuf], env: &Env) -> Self {
        Self {
            search_path: search_path.to_vec(),
            environment: environment(env),
        }
    }
}

/// What came of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// There was nothing to do.
    Already,
    /// Programs see the new set from now on.
    Installed {
        /// Its packages.
        packages: usize,
    },
}

/// What is to be another than it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Specifiers to add, checked; a new version takes the place of an old one.
    pub add: Vec<String>,
    /// Names of added packages that are to go.
    pub remove: Vec<String>,
}

impl Change {
    /// What is added afterwards.
    fn apply(&self, added: &[String]) -> Vec<String> {
        let key = |spec: &String| specifier::key(specifier::name(spec));
        let mut all = added.to_vec();
        all.retain(|old| !self.remove.iter().any(|name| key(name) == key(old)));
        for spec in &self.add {
            all.retain(|old| key(old) != key(spec));
            all.push(spec.clone());
        }
        all
    }
}

/// Takes the right to install packages of a language. Waits while another
/// process has it.
///
/// # Errors
/// When the data directory cannot be written.
pub fn claim(kit: &PackageKit, display: &mut Display) -> Result<InstallLock, Refused> {
    let lock = match kit.lock(false) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            display.say("another process is installing; waiting until it is done");
            kit.lock(true)
        }
        locked => locked,
    };
    lock.map_err(|error| Refused::io("lock the packages", &kit.directory, &error))
}

/// Builds the set with what was added, changed as asked, and lets programs see
/// it, unless it is what they see already.
///
/// # Errors
/// [`Refused`] says what is wrong and the cure; programs see what they saw before.
pub async fn install(
    engine: &Engine,
    kit: &PackageKit,
    lock: InstallLock,
    change: &Change,
    around: &Surroundings,
    display: &mut Display,
) -> Result<Done, Refused> {
    let failed = |step, error: io::Error| Refused::io(step, &kit.directory, &error);
    kit.sweep(&lock);
    let before = kit
        .added()
        .map_err(|error| failed("read what was added", error))?;
    let added = change.apply(&before);
    let current = || {
        let state = engine.packages_of(&kit.language);
        // Another process may want to remove what is seen here.
        kit.release();
        state.is_some_and(|state| state.current)
    };
    if added == before && current() {
        state::clear(&kit.directory);
        return Ok(Done::Already);
    }
    display.begin(&kit.title);
    let mut watch = state::Watch::begin(&kit.directory, display);
    let built = match room(kit) {
        Ok(()) => match kit.stage(&lock, &added) {
            Ok(stage) => build(engine, kit, stage, &added, around, &mut watch).await,
            Err(error) => Err(failed("prepare the installation", error)),
        },
        Err(refused) => Err(refused),
    };
    match built {
        Ok(packages) => {
            watch.end();
            kit.sweep(&lock);
            trim(&kit.cache());
            Ok(Done::Installed { packages })
        }
        Err(refused) => {
            // What was asked for beside a good set is between us and who asked.
            if current() {
                watch.end();
            } else {
                watch.failed(&refused);
            }
            Err(refused)
        }
    }
}

async fn build(
    engine: &Engine,
    kit: &PackageKit,
    stage: Stage,
    added: &[String],
    around: &Surroundings,
    watch: &mut state::Watch<'_>,
) -> Result<usize, Refused> {
    let packages = installer::run(kit, &stage, around, watch)?;
    let installed: BTreeSet<String> = packages
        .iter()
        .map(|package| specifier::key(&package.name))
        .collect();
    let mut names = wanted(kit.main(), added);
    // An operator's own lock may leave some of them out.
    names.retain(|name| installed.contains(&specifier::key(name)));
    let outcome = engine
        .try_packages(kit, &stage, names)
        .await
        .map_err(|error| {
            Refused::new(
                format!(
                    "the packages could not be tried in a sandbox: {:#}",
                    anyhow::Error::new(error)
                ),
                "Look at: codex-server doctor",
            )
        })?;
    checked(&outcome)?;
    for note in notes(&outcome) {
        watch.say(&note);
    }
    let failed =
        |error: io::Error| Refused::io("put the packages into place", &kit.directory, &error);
    for file in &outcome.files {
        stage.keep(&file.path, &file.content).map_err(failed)?;
    }
    let count = packages.len();
    // Tens of thousands of files are written out; nothing else runs in this process.
    stage.finish(packages).map_err(failed)?;
    Ok(count)
}

/// What the check has to tell the operator.
fn notes(outcome: &Outcome) -> Vec<String> {
    let said = String::from_utf8_lossy(&outcome.last().stdout.bytes);
    let notes = said.lines().filter_map(|line| line.strip_prefix("note="));
    let short = notes.map(|note| note.chars().take(QUOTED).collect());
    short.take(NOTES).collect()
}

/// Whether the packages loaded in a box.
fn checked(outcome: &Outcome) -> Result<(), Refused> {
    if outcome.status == Status::Success {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&outcome.last().stderr.bytes);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = printable(&said).chars().take(QUOTED).collect();
    let problem = match outcome.status {
        Status::Error => format!("packages cannot be loaded: {said}"),
        status => format!(
            "loading the packages in a sandbox ended with {}: {said}",
            status.as_str()
        ),
    };
    Err(Refused::new(
        problem,
        "Leave the package out, ask for another version of it, or install the system library that it names.",
    ))
}

/// The packages that have to load: what people expect, and what was added.
fn wanted(main: &[String], added: &[String]) -> Vec<String> {
    let added = added.iter().map(|spec| specifier::name(spec).to_owned());
    let mut seen = BTreeSet::new();
    let all = main.iter().cloned().chain(added);
    all.filter(|name| seen.insert(specifier::key(name)))
        .collect()
}

/// Those of the installed packages that are worth naming, in that order.
#[must_use]
pub fn named(state: &PackageState) -> Vec<Package> {
    let installed = state.installed.as_deref().unwrap_or_default();
    let find = |name: &String| {
        let key = specifier::key(name);
        installed
            .iter()
            .find(|package| specifier::key(&package.name) == key)
    };
    wanted(&state.main, &state.added)
        .iter()
        .filter_map(find)
        .cloned()
        .collect()
}

/// Whether the disk has room for another set.
fn room(kit: &PackageKit) -> Result<(), Refused> {
    let Ok(found) = rustix::fs::statvfs(&kit.directory) else {
        return Ok(());
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize) / MIB;
    let needed = kit.disk_mib();
    if free >= needed {
        return Ok(());
    }
    Err(Refused::new(
        format!(
            "the disk is full: {free} MiB are free in {}, and {needed} are needed",
            kit.directory.display()
        ),
        "Make room there, name another data directory with --home DIR, or leave the packages out with --minimal.",
    ))
}

/// Forgets what was fetched when it has become too much.
fn trim(cache: &Path) {
    if size(cache) > CACHE_MAX
        && let Err(error) = std::fs::remove_dir_all(cache)
    {
        tracing::debug!(%error, "the package cache is left as it is");
    }
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_version_takes_the_place_of_the_old() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let check = |added: &[&str], add: &[&str], remove: &[&str], expected: &[&str]| {
            let change = Change {
                add: words(add),
                remove: words(remove),
            };
            assert_eq!(change.apply(&words(added)), words(expected));
        };
        check(&[], &[], &[], &[]);
        check(&["a"], &[], &[], &["a"]);
        check(&[], &["polars", "polars==1"], &[], &["polars==1"]);
        check(&["a", "B_c==1"], &["b-c==2"], &[], &["a", "b-c==2"]);
        check(&["@x/y@1"], &["@x/y@2", "y"], &[], &["@x/y@2", "y"]);
        check(&["A_b==1", "c"], &[], &["a-b"], &["c"]);
    }

    #[test]
    fn what_is_wanted_is_named_once_and_in_order() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let found = wanted(
            &words(&["numpy", "scikit-learn"]),
            &words(&["Scikit_Learn", "polars>=1", "@types/node@20"]),
        );
        assert_eq!(found, ["numpy", "scikit-learn", "polars", "@types/node"]);
    }
}
