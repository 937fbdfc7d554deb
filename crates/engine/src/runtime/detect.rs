//! Finds a runtime's interpreter by running it, and what it needs mounted.
//!
//! The only place in the engine that starts a process, and only the operator's
//! own interpreters, before any request exists. Never hands a box a directory
//! that could hold anything but an interpreter: homes and the server's own data
//! are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

use super::manifest::{Detect, Manifest, Version, is_environment_name};

/// How long one candidate may take. A shim with a cold cache needs a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a running candidate is looked at.
const POLL: Duration = Duration::from_millis(2);
/// The most that is read of what a candidate prints, in bytes.
const REPORT_MAX: u64 = 64 * 1024;

/// Where interpreters are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    /// Directories in order of preference.
    pub(crate) path: &'a [PathBuf],
    /// Directories that no box may see, nor any directory above them.
    pub(crate) private: &'a [PathBuf],
    /// Whether boxes see everything in place, as users of this machine do.
    pub(crate) in_place: bool,
}

/// An interpreter on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// Its version, such as `3.11.2`.
    pub(crate) version: String,
    /// Its real path, the same inside the box.
    pub(crate) path: PathBuf,
    /// What compiled packages must be made for; empty where it does not matter.
    pub(crate) abi: String,
    /// Host paths the box sees read-only at the same place; files and
    /// directories, sorted, none below another.
    pub(crate) mounts: Vec<PathBuf>,
    /// Symbolic links the box needs: where, and what they say.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Environment that depends on where the interpreter is.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Interpreter {
    /// The first directory on the way to it that not everybody may enter.
    fn locked_up(&self) -> Option<PathBuf> {
        let mut paths = self.mounts.iter().chain([&self.path]);
        paths.find_map(|path| locked_up(path))
    }
}

/// The first directory from `path` upwards that not everybody may enter.
pub(super) fn locked_up(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|path| {
        let found = std::fs::metadata(path).ok()?;
        let open = !found.is_dir() || found.permissions().mode() & 0o001 != 0;
        (!open).then(|| path.to_owned())
    })
}

/// Tries the candidates in order of the search path; the first that is new enough wins.
///
/// # Errors
/// A sentence saying which candidates were tried and what was wrong with each.
pub(crate) fn detect(
    manifest: &Manifest,
    program: &str,
    search: Search<'_>,
) -> Result<Interpreter, String> {
    let mut complaints = Vec::new();
    for candidate in candidates(&manifest.detect, search.path) {
        let tried = ask(&manifest.detect, &candidate, program, search.path, PATIENCE)
            .and_then(|report| Report::parse(&report))
            .and_then(|report| report.accept(manifest, search.private))
            .and_then(|found| match found.locked_up().filter(|_| search.in_place) {
                Some(directory) => Err(format!(
                    "is out of reach of other users, as which code runs here: {} is not for all to enter",
                    directory.display()
                )),
                None => Ok(found),
            });
        match tried {
            Ok(interpreter) => return Ok(interpreter),
            Err(complaint) => complaints.push(format!("{} {complaint}", candidate.display())),
        }
    }
    Err(if complaints.is_empty() {
        format!(
            "no {} found in PATH",
            manifest.detect.candidates.join(" or ")
        )
    } else {
        complaints.join("; ")
    })
}

/// Executable files with a candidate's name; earlier directories first.
fn candidates(detect: &Detect, path: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    path.iter()
        .filter(|directory| directory.is_absolute())
        .flat_map(|directory| {
            detect
                .candidates
                .iter()
                .map(move |name| directory.join(name))
        })
        .filter(|file| {
            std::fs::metadata(file).is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        })
        .filter(|file| seen.insert(file.clone()))
        .collect()
}

/// Runs one candidate and returns what it printed.
#[expect(
    clippy::disallowed_methods,
    reason = "detection runs the operator's own interpreters, before any request exists"
)]
fn ask(
    detect: &Detect,
    candidate: &Path,
    program: &str,
    path: &[PathBuf],
    patience: Duration,
) -> Result<String, String> {
    let candidate = candidate.to_string_lossy();
    let words: Vec<String> = detect
        .argv
        .iter()
        .map(|word| match word.as_str() {
            "{program}" => program.to_owned(),
            word => word.replace("{candidate}", &candidate),
        })
        .collect();
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env(
            "PATH",
            std::env::join_paths(path).map_err(|error| error.to_string())?,
        )
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    // Version switchers (shims) keep their settings below the home directory.
    if let Some(home) = std::env::home_dir() {
        command.env("HOME", home);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("does not start: {error}"))?;
    let status = wait(&mut child, patience)?;
    let stdout = child.stdout.take().ok_or("has no output")?;
    if !status.success() {
        return Err(format!("failed with {status}"));
    }
    read(stdout).map_err(|error| format!("cannot be read: {error}"))
}

/// Waits for a child, and kills it and its own children when it takes too long.
fn wait(child: &mut Child, patience: Duration) -> Result<std::process::ExitStatus, String> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            Ok(None) => {
                kill_group(child);
                let why = format!("did not answer within {} s", patience.as_secs());
                return Err(match child.wait() {
                    Ok(_) => why,
                    Err(error) => format!("{why}: {error}"),
                });
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

fn kill_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let killed =
        group.is_some_and(|group| rustix::process::kill_process_group(group, Signal::KILL).is_ok());
    if !killed && let Err(error) = child.kill() {
        tracing::warn!(%error, "a late interpreter could not be killed");
    }
}

/// What is in the pipe. Does not wait for its end: a grandchild may hold it open.
fn read(stdout: ChildStdout) -> std::io::Result<String> {
    rustix::fs::fcntl_setfl(&stdout, OFlags::NONBLOCK)?;
    let mut bytes = Vec::new();
    match stdout.take(REPORT_MAX).read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// What a detection program printed: `key=value` lines, other lines ignored.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    version: String,
    path: PathBuf,
    abi: String,
    places: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
}

impl Report {
    fn parse(text: &str) -> Result<Self, String> {
        let mut report = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "version" => value.clone_into(&mut report.version),
                "interpreter" => report.path = value.into(),
                "abi" => value.clone_into(&mut report.abi),
                "mount" => report.places.push(value.into()),
                _ => {
                    if let Some(name) = key
                        .strip_prefix("env.")
                        .filter(|name| is_environment_name(name))
                    {
                        report.environment.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
        }
        if report.version.is_empty() || !report.path.is_absolute() {
            return Err("did not say its version and path".to_owned());
        }
        Ok(report)
    }

    fn accept(self, manifest: &Manifest, private: &[PathBuf]) -> Result<Interpreter, String> {
        let minimum = &manifest.detect.minimum;
        if Version::parse(&self.version).is_none_or(|version| version < *minimum) {
            return Err(format!("is version {}, which is too old", self.version));
        }
        let system = Mounts::of_system(&manifest.mounts);
        let mounts = system.with_places(&self.places, private);
        Ok(Interpreter {
            version: self.version,
            path: self.path,
            abi: self.abi,
            mounts: mounts.shown.into_iter().collect(),
            links: mounts.links,
            environment: self.environment,
        })
    }
}

/// The host paths of a box while they are gathered.
#[derive(Debug, Default)]
struct Mounts {
    shown: BTreeSet<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
}

impl Mounts {
    /// The system paths that exist here. A top-level symbolic link (`/bin`) stays one;
    /// below, links are followed by whoever mounts them.
    fn of_system(paths: &[PathBuf]) -> Self {
        let mut mounts = Self::default();
        for path in paths {
            match std::fs::read_link(path) {
                Ok(target) if depth(path) == 1 => mounts.links.push((path.clone(), target)),
                _ if path.exists() => {
                    mounts.shown.insert(path.clone());
                }
                _ => {}
            }
        }
        mounts
    }

    /// Adds places an interpreter named, but none that shows too much.
    fn with_places(mut self, places: &[PathBuf], private: &[PathBuf]) -> Self {
        let mut places = places.to_vec();
        places.sort();
        for place in places {
            // The parts of `/usr` and `/usr/local` that matter are shown already.
            let split = self.shown.iter().any(|shown| shown.starts_with(&place));
            let covered = self.shown.iter().any(|shown| place.starts_with(shown))
                || self.links.iter().any(|(at, _)| place.starts_with(at));
            if split || covered || !place.is_dir() {
                continue;
            }
            if depth(&place) < 2 || private.iter().any(|private| private.starts_with(&place)) {
                tracing::warn!(place = %place.display(), "not shown to programs: it holds more than an interpreter");
                continue;
            }
            self.shown.insert(place);
        }
        self
    }
}

/// Components below the root: `/usr/bin` is 2 deep.
fn depth(path: &Path) -> usize {
    path.components().count().saturating_sub(1)
}

#[cfg(test)]
mod tests;
