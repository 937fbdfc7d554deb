//! What a box is shown of the machine for an interpreter: real directories, and
//! the symbolic links by which it calls them.
//!
//! Never shows a directory that holds a home, the server's data or the root.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// The kernel's bound of links in one path.
const HOPS_MAX: usize = 40;

/// The host paths of a box while they are gathered.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) shown: BTreeSet<PathBuf>,
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

impl Mounts {
    /// The system paths that exist here. A top-level symbolic link (`/bin`) stays one;
    /// below, links are followed by whoever mounts them.
    pub(super) fn of_system(paths: &[PathBuf]) -> Self {
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

    /// Adds places an interpreter named, but none that shows too much. A place
    /// behind links is shown where it really is, with the links.
    pub(super) fn with_places(mut self, places: &[PathBuf], private: &[PathBuf]) -> Self {
        let ways: Vec<Way> = places.iter().filter_map(|place| Way::to(place)).collect();
        // The same directories, however their paths are written.
        let private: Vec<PathBuf> = private
            .iter()
            .flat_map(|path| [Some(path.clone()), path.canonicalize().ok()])
            .flatten()
            .collect();
        let real: BTreeSet<&PathBuf> = ways.iter().map(|way| &way.real).collect();
        let system = self.shown.clone();
        // Sorted: what is above comes first.
        for place in real {
            // The parts of `/usr` and `/usr/local` that matter are shown already.
            let split = system.iter().any(|shown| shown.starts_with(place));
            if split || self.shows(place) || !place.is_dir() {
                continue;
            }
            if depth(place) < 2 || private.iter().any(|private| private.starts_with(place)) {
                tracing::warn!(place = %place.display(), "not shown to programs: it holds more than an interpreter");
                continue;
            }
            self.shown.insert(place.clone());
        }
        for (at, target) in ways.into_iter().flat_map(|way| way.links) {
            if !self.shows(&at) && !self.links.iter().any(|(link, _)| *link == at) {
                self.links.push((at, target));
            }
        }
        self
    }

    /// Whether what is at a real path is seen already.
    pub(super) fn shows(&self, path: &Path) -> bool {
        self.shown.iter().any(|shown| path.starts_with(shown))
    }
}

/// How a path is resolved: the links on the way, and where it leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Each by its real directory, and what it says.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// Without any link.
    pub(super) real: PathBuf,
}

impl Way {
    /// Follows an absolute path as the kernel does; `None` when there is nothing.
    pub(super) fn to(path: &Path) -> Option<Self> {
        let mut links = Vec::new();
        let mut hops = 0;
        let mut real = PathBuf::from("/");
        // The next part last.
        let mut rest = parts(path);
        while let Some(part) = rest.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&part);
            let Ok(target) = std::fs::read_link(&next) else {
                real = next;
                continue;
            };
            hops += 1;
            if hops > HOPS_MAX {
                return None;
            }
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            rest.extend(parts(&target));
            if !links.iter().any(|(at, _)| *at == next) {
                links.push((next, target));
            }
        }
        let found = path.is_absolute() && real.exists();
        found.then_some(Self { links, real })
    }
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut parts: Vec<OsString> = parts.collect();
    parts.reverse();
    parts
}

/// The first directory from `path` upwards that not everybody may enter.
pub(in crate::runtime) fn locked_up(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find_map(|path| (!open_to_all(path)).then(|| path.to_owned()))
}

/// Whether everybody may enter a directory, or run a file. Nothing is in the
/// way where there is nothing.
pub(super) fn open_to_all(path: &Path) -> bool {
    let found = std::fs::metadata(path);
    found.map_or(true, |found| found.permissions().mode() & 0o001 != 0)
}

/// Components below the root: `/usr/bin` is 2 deep.
fn depth(path: &Path) -> usize {
    path.components().count().saturating_sub(1)
}
