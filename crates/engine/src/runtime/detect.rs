//! Finds a runtime's interpreters by running them, and what they need mounted.
//!
//! Never hands a box a directory that could hold anything but an interpreter:
//! homes and the server's own data are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, Version, is_environment_name};
use ask::{PATIENCE, ask_all};
use candidates::{Candidate, Tier, candidates};
pub(super) use places::locked_up;
use places::{Mounts, Way, open_to_all};

mod ask;
mod candidates;
mod places;

/// Where interpreters are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    /// Interpreters that the operator named: where there are any, nothing else
    /// is looked at.
    pub(crate) named: &'a [PathBuf],
    /// Directories in order of preference.
    pub(crate) path: &'a [PathBuf],
    /// Home directory below which version switchers keep interpreters; `None`
    /// keeps to the path.
    pub(crate) home: Option<&'a Path>,
    /// Directories that no box may see, nor any directory above them.
    pub(crate) private: &'a [PathBuf],
    /// How the programs of a box reach what is lent to them.
    pub(crate) reach: Reach,
}

/// As whom, and where, programs use an interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// As the server's own user, in a root of their own.
    Own,
    /// As another user, in a root of their own: what is lent must be open to all.
    Lent,
    /// As another user, where it is: the way there must be open to all, too.
    InPlace,
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
    /// Why programs could not use it, if so. What every box shows of the
    /// `system` is as open as the system made it.
    fn out_of_reach(&self, reach: Reach, system: &[PathBuf]) -> Option<String> {
        let Way { links, real } = Way::to(&self.path)?;
        let directories = || self.mounts.iter().filter(|mount| mount.is_dir());
        let closed = match reach {
            Reach::Own => None,
            Reach::Lent => {
                let shown = |path: &&Path| self.mounts.iter().any(|mount| path.starts_with(mount));
                let own = directories().filter(|mount| !system.contains(mount));
                own.map(PathBuf::as_path)
                    .chain(real.ancestors().take_while(shown))
                    .find(|path| !open_to_all(path))
                    .map(Path::to_owned)
            }
            Reach::InPlace => links
                .iter()
                .filter_map(|(at, _)| at.parent())
                .chain(directories().map(PathBuf::as_path))
                .chain([real.as_path()])
                .find_map(locked_up),
        }?;
        Some(format!(
            "is out of reach of other users, as which code runs here: {} is not for all to enter",
            closed.display()
        ))
    }
}

/// What there is of a language on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The interpreters that will do: the preferred one, and then those of other
    /// versions, where these have names; the newest first.
    pub(crate) usable: Vec<Interpreter>,
    /// The candidates that will not do, each with the reason.
    pub(crate) passed_over: Vec<String>,
}

/// Asks the candidates. The first that will do, in the order of the search
/// path, is the preferred one.
///
/// Without any, [`Found::passed_over`] says at least that there is none.
pub(crate) fn detect(manifest: &Manifest, program: &str, search: Search<'_>) -> Found {
    let list = candidates(&manifest.detect, search);
    let mut answers: Vec<Option<Result<Interpreter, String>>> = vec![None; list.len()];
    for later in [false, true] {
        let chosen: Vec<usize> = (0..list.len())
            .filter(|index| list[*index].later == later && is_open(*index, &list, &answers))
            .collect();
        let files: Vec<&Path> = chosen
            .iter()
            .map(|index| list[*index].file.as_path())
            .collect();
        let reports = ask_all(&manifest.detect, &files, program, search.path, PATIENCE);
        for (index, report) in chosen.into_iter().zip(reports) {
            answers[index] = Some(judge(manifest, search, report));
        }
    }
    let mut found = Found::default();
    let mut usable = Vec::new();
    for (candidate, answer) in list.into_iter().zip(answers) {
        match answer {
            Some(Ok(interpreter)) => usable.push((candidate.tier, interpreter)),
            Some(Err(why)) => {
                let line = format!("{} {why}", candidate.file.display());
                found.passed_over.push(line);
            }
            None => {}
        }
    }
    found.usable = ranked(manifest, usable);
    if found.usable.is_empty() && found.passed_over.is_empty() {
        let names = manifest.detect.candidates.join(" or ");
        found.passed_over.push(format!("no {names} found in PATH"));
    }
    found
}

/// Whether it is worth asking a candidate after those that were asked.
fn is_open(
    index: usize,
    list: &[Candidate],
    answers: &[Option<Result<Interpreter, String>>],
) -> bool {
    let candidate = &list[index];
    if !candidate.later {
        return true;
    }
    let mut good = list
        .iter()
        .zip(answers)
        .filter_map(|(other, answer)| match answer {
            Some(Ok(interpreter)) => Some((other, interpreter)),
            _ => None,
        });
    match &candidate.version {
        Some(version) => !good.any(|(_, found)| {
            Version::parse(&found.version).is_some_and(|found| found.begins_with(version))
        }),
        None => !good.any(|(other, _)| other.file.parent() == candidate.file.parent()),
    }
}

fn judge(
    manifest: &Manifest,
    search: Search<'_>,
    report: Result<String, String>,
) -> Result<Interpreter, String> {
    let found = Report::parse(&report?)?.accept(manifest, search.private)?;
    match found.out_of_reach(search.reach, &manifest.mounts) {
        Some(why) => Err(why),
        None => Ok(found),
    }
}

/// The preferred interpreter, then one of each other version that has a name.
fn ranked(manifest: &Manifest, mut usable: Vec<(Tier, Interpreter)>) -> Vec<Interpreter> {
    let version = |found: &Interpreter| Version::parse(&found.version);
    // Stable: within the path the order of the path decides.
    usable.sort_by(|(tier, one), (other_tier, other)| {
        let newest = || match tier {
            Tier::Named | Tier::Path => std::cmp::Ordering::Equal,
            Tier::Versioned | Tier::Switcher => version(other).cmp(&version(one)),
        };
        tier.cmp(other_tier).then_with(newest)
    });
    let mut names = BTreeSet::new();
    let mut usable: Vec<Interpreter> = usable
        .into_iter()
        .map(|(_, interpreter)| interpreter)
        .enumerate()
        .filter(|(index, found)| {
            let name = version(found).and_then(|version| manifest.of_version(&version));
            let first = name.is_some_and(|manifest| names.insert(manifest.name));
            first || *index == 0
        })
        .map(|(_, interpreter)| interpreter)
        .collect();
    if let Some((_, others)) = usable.split_first_mut() {
        others.sort_by_key(|found| std::cmp::Reverse(version(found)));
    }
    usable
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
        let way = Way::to(&self.path).ok_or("says that it is where nothing is")?;
        let mut places = self.places;
        places.extend(way.real.parent().map(Path::to_owned));
        places.push(self.path.clone());
        let system = Mounts::of_system(&manifest.mounts);
        let mounts = system.with_places(&places, private);
        if !mounts.shows(&way.real) {
            return Err(format!(
                "cannot be shown to programs: {} holds more than an interpreter",
                way.real.parent().unwrap_or(&way.real).display()
            ));
        }
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

#[cfg(test)]
mod tests;
