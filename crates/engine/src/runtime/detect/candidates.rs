//! Which files may be interpreters, in order of preference.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::Search;
use crate::runtime::manifest::{ANY, Detect, HOME, Pattern, Version};

/// The most files that are asked of one language.
const CANDIDATES_MAX: usize = 64;
/// The most directories that a place with `*` may stand for.
const PLACES_MAX: usize = 64;

/// Where a candidate was found; earlier ones are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// The operator named it.
    Named,
    /// In the search path, by a plain name.
    Path,
    /// In the search path, by the name of a version.
    Versioned,
    /// In the place of a version switcher.
    Switcher,
}

/// A file to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) file: PathBuf,
    pub(super) tier: Tier,
    /// The version in its name.
    pub(super) version: Option<Version>,
    /// Asked only where the others leave something open: a second plain name of
    /// one directory, or a script that may stand for a version. Most are
    /// shims, which take long to say no.
    pub(super) later: bool,
}

/// Executable files with a candidate's name.
pub(super) fn candidates(detect: &Detect, search: Search<'_>) -> Vec<Candidate> {
    let mut found = Found {
        detect,
        seen: BTreeSet::new(),
        list: Vec::new(),
    };
    if !search.named.is_empty() {
        for file in search.named {
            found.push(file.clone(), Tier::Named, None);
        }
        return found.list;
    }
    let path = || search.path.iter().filter(|path| path.is_absolute());
    for directory in path() {
        found.plain(directory, Tier::Path);
    }
    let Some(versions) = &detect.versions else {
        return found.list;
    };
    for directory in path() {
        found.versioned(directory, &versions.files);
    }
    if let Some(home) = search.home {
        for place in &versions.places {
            for directory in expand(place, home, &detect.minimum) {
                found.plain(&directory, Tier::Switcher);
            }
        }
    }
    found.list
}

struct Found<'a> {
    detect: &'a Detect,
    seen: BTreeSet<PathBuf>,
    list: Vec<Candidate>,
}

impl Found<'_> {
    /// Files with a plain name; the best name first.
    fn plain(&mut self, directory: &Path, tier: Tier) {
        let before = self.list.len();
        for name in &self.detect.candidates {
            let file = directory.join(name);
            if is_executable(&file) {
                self.push(file, tier, None);
            }
        }
        for second in self.list.iter_mut().skip(before + 1) {
            second.later = true;
        }
    }

    /// Files named by a version that is new enough, the newest first.
    fn versioned(&mut self, directory: &Path, patterns: &[Pattern]) {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut files: Vec<(Version, String)> = names
            .filter_map(|name| Some((version_in(patterns, &name)?, name)))
            .filter(|(version, _)| !version.is_before(&self.detect.minimum))
            .collect();
        files.sort_by(|one, other| other.cmp(one));
        for (version, name) in files {
            let file = directory.join(name);
            if is_executable(&file) {
                self.push(file, Tier::Versioned, Some(version));
            }
        }
    }

    fn push(&mut self, file: PathBuf, tier: Tier, version: Option<Version>) {
        let new = self.seen.insert(self.identity(&file));
        if !new || self.list.len() == CANDIDATES_MAX {
            return;
        }
        self.list.push(Candidate {
            later: version.is_some() && is_script(&file),
            file,
            tier,
            version,
        });
    }

    /// The same for two names of one file in one directory, however its path is
    /// written. A link to elsewhere is a candidate of its own, for what a venv
    /// or a shim is depends on the name it is called by.
    fn identity(&self, file: &Path) -> PathBuf {
        let canonical = |path: Option<&Path>| path.and_then(|path| path.canonicalize().ok());
        let (Some(directory), Some(name)) = (canonical(file.parent()), file.file_name()) else {
            return file.to_owned();
        };
        let versions = self.detect.versions.as_ref();
        let is_ours = |name: &str| {
            self.detect.candidates.iter().any(|own| own == name)
                || versions.is_some_and(|versions| version_in(&versions.files, name).is_some())
        };
        canonical(Some(file))
            .filter(|real| real.parent() == Some(&directory))
            .filter(|real| {
                let name = real.file_name().and_then(|name| name.to_str());
                name.is_some_and(is_ours)
            })
            .unwrap_or_else(|| directory.join(name))
    }
}

fn version_in(patterns: &[Pattern], name: &str) -> Option<Version> {
    patterns.iter().find_map(|pattern| pattern.parse(name))
}

fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether a file begins with `#!`.
fn is_script(file: &Path) -> bool {
    let mut start = [0; 2];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"#!"
}

/// The directories that a place stands for, in the order of their names. Of
/// those that are named by a version, only the ones that are new enough.
fn expand(place: &str, home: &Path, minimum: &Version) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in Path::new(place).components() {
        let Component::Normal(name) = part else {
            continue;
        };
        found = match name.to_str() {
            Some(HOME) => vec![home.to_owned()],
            Some(ANY) => found
                .iter()
                .flat_map(|path| folders(path))
                .filter(|path| !is_of_old_version(path, minimum))
                .collect(),
            _ => found.iter().map(|path| path.join(name)).collect(),
        };
        found.truncate(PLACES_MAX);
    }
    found.retain(|path| path.is_dir());
    found
}

/// Whether a directory is named like `3.7.16`, `v16.20.0` or `cpython-3.7.9-linux`.
fn is_of_old_version(path: &Path, minimum: &Version) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.map(|name| name.trim_start_matches(|c: char| !c.is_ascii_digit()));
    number
        .and_then(Version::parse)
        .is_some_and(|version| version.is_before(minimum))
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}
