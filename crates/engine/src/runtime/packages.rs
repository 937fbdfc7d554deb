//! Package sets on disk: which one programs see now, and when an old one goes.
//!
//! Below `packages/<language>` of the data directory each set has a directory
//! of its own, and the link `current` names the one in use. A set is built
//! aside and never changed afterwards, so replacing that link is the whole
//! switch, and a running server follows it with its next run. Whoever uses a
//! set holds a lock on its directory; the last user of an old one removes it.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// The link that names the set in use.
pub(crate) const CURRENT: &str = "current";
/// What the names of sets begin with.
pub(crate) const SET: &str = "set-";
/// What the names of half-built sets begin with.
pub(crate) const STAGING: &str = ".building-";
/// Written last: without it a directory is no set.
pub(crate) const MARKER: &str = "ready.toml";
/// The part of a set that boxes see.
pub(crate) const TREE: &str = "tree";
/// What the check saw of the machine, in the tree: a line for each directory, of
/// its time in nanoseconds (0 where there was none) and its path.
const SEEN: &str = "kept/seen";
/// Longest marker, or list of what was seen, that is read, in bytes.
const MARKER_MAX: u64 = 1 << 20;
/// How often the link is followed again when its set went away meanwhile.
const TRIES: usize = 3;

/// A package of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name, as the language's own tools spell it.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a set is: the text of its marker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// A hash of all that it was made from.
    pub(crate) key: String,
    /// What its compiled packages are made for.
    pub(crate) abi: String,
    /// What it holds, sorted by name.
    pub(crate) packages: Vec<Package>,
}

/// A set that programs can see. It is not removed as long as this lives.
#[derive(Debug)]
pub(crate) struct PackageSet {
    /// Its directory.
    directory: PathBuf,
    /// What it is.
    pub(crate) marker: Marker,
    /// Held by a shared lock.
    in_use: Option<fs::File>,
    /// Whether it is the pinned one, as soon as somebody wants to know.
    pub(crate) pinned: OnceLock<bool>,
}

impl PackageSet {
    /// Opens a set for use; `None` when it is none.
    fn open(directory: PathBuf) -> io::Result<Option<Self>> {
        let in_use = fs::File::open(&directory)?;
        // Refused while somebody removes it.
        in_use.try_lock_shared()?;
        let mut text = String::new();
        let marker = fs::File::open(directory.join(MARKER))?;
        marker.take(MARKER_MAX).read_to_string(&mut text)?;
        let marker = toml::from_str(&text).ok();
        Ok(marker.map(|marker| Self {
            directory,
            marker,
            in_use: Some(in_use),
            pinned: OnceLock::new(),
        }))
    }

    /// A set that is still being built, to be tried.
    pub(crate) fn staged(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            marker: Marker::default(),
            in_use: None,
            pinned: OnceLock::new(),
        }
    }

    /// Whether the machine's directories are as the check saw them, so that what
    /// it kept, such as a list of fonts, is still true. The list comes from a box.
    pub(crate) fn fits_machine(&self) -> bool {
        let Ok(seen) = fs::File::open(self.tree().join(SEEN)) else {
            return true;
        };
        let mut text = String::new();
        let read = seen.take(MARKER_MAX).read_to_string(&mut text);
        let is_as_seen = |line: &str| {
            let (time, path) = line.split_once(' ')?;
            let found = fs::symlink_metadata(path).ok();
            let found = found.filter(fs::Metadata::is_dir);
            let now = found.map_or(0, |found| {
                i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())
            });
            Some(time.parse() == Ok(now))
        };
        read.is_ok() && text.lines().all(|line| is_as_seen(line).unwrap_or(false))
    }

    /// What boxes see of it.
    pub(crate) fn tree(&self) -> PathBuf {
        self.directory.join(TREE)
    }
}

impl Drop for PackageSet {
    /// The last user of a set that is no longer the current one removes it.
    fn drop(&mut self) {
        let Some(in_use) = self.in_use.take() else {
            return;
        };
        let named = self
            .directory
            .parent()
            .map(|shelf| fs::read_link(shelf.join(CURRENT)));
        let is_current = match named {
            Some(Ok(name)) => self.directory.ends_with(name),
            // Nobody can tell; a sweep will.
            _ => true,
        };
        if is_current || in_use.try_lock().is_err() {
            return;
        }
        let directory = std::mem::take(&mut self.directory);
        // Tens of thousands of files: not on a thread that answers requests.
        let removal = std::thread::Builder::new().name("remove-packages".to_owned());
        let started = removal.spawn(move || {
            if let Err(error) = fs::remove_dir_all(&directory) {
                tracing::debug!(%error, "an old package set is left for the next sweep");
            }
            drop(in_use);
        });
        if let Err(error) = started {
            tracing::debug!(%error, "an old package set is left for the next sweep");
        }
    }
}

/// The sets of one language, and the one in use.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// `packages/<language>` of the data directory.
    pub(crate) directory: PathBuf,
    /// What this machine's interpreter can load.
    abi: String,
    seen: RwLock<Seen>,
}

/// What the link named when it was followed last.
#[derive(Debug, Default)]
struct Seen {
    name: PathBuf,
    set: Option<Arc<PackageSet>>,
}

impl Shelf {
    pub(crate) fn new(directory: PathBuf, abi: String) -> Self {
        Self {
            directory,
            abi,
            seen: RwLock::default(),
        }
    }

    /// The set that programs see now. One system call while nothing changes.
    pub(crate) fn current(&self) -> Option<Arc<PackageSet>> {
        for _ in 0..TRIES {
            let name = fs::read_link(self.directory.join(CURRENT)).unwrap_or_default();
            {
                let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
                if seen.name == name {
                    return seen.set.clone();
                }
            }
            let set = match self.open(&name) {
                Ok(set) => set,
                // Removed between the two: the link names another by now.
                Err(_)
                    if fs::read_link(self.directory.join(CURRENT)).ok() != Some(name.clone()) =>
                {
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, set = %name.display(), "packages cannot be used");
                    None
                }
            };
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            *seen = Seen { name, set };
            return seen.set.clone();
        }
        None
    }

    /// Lets go of the set that was seen last, unless a run still uses it.
    pub(crate) fn release(&self) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let set = std::mem::take(&mut *seen).set;
        if let Some(mut last) = set.and_then(Arc::into_inner) {
            // Whoever sweeps removes it now, before its process ends.
            last.in_use = None;
        }
    }

    fn open(&self, name: &Path) -> io::Result<Option<Arc<PackageSet>>> {
        let plain = name
            .to_str()
            .is_some_and(|name| name.starts_with(SET) && !name.contains('/'));
        if !plain {
            return Ok(None);
        }
        let set = PackageSet::open(self.directory.join(name))?;
        // Made for an interpreter that was here before: programs do without
        // until there is a set for this one.
        let fitting = set.filter(|set| set.marker.abi == self.abi && set.tree().is_dir());
        Ok(fitting.map(Arc::new))
    }
}

/// Removes what crashed builds left, and sets that are neither current nor
/// used. The caller holds the language's installation lock.
pub(crate) fn sweep(directory: &Path) {
    let current = fs::read_link(directory.join(CURRENT)).unwrap_or_default();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let removed = if text.starts_with(STAGING) {
            fs::remove_dir_all(entry.path())
        } else if text.starts_with(SET) && Path::new(&name) != current {
            remove_unused(&entry.path())
        } else {
            continue;
        };
        if let Err(error) = removed {
            tracing::debug!(%error, path = %entry.path().display(), "left as it is");
        }
    }
}

fn remove_unused(set: &Path) -> io::Result<()> {
    let unused = fs::File::open(set)?;
    unused.try_lock()?;
    fs::remove_dir_all(set)
}

#[cfg(test)]
mod tests;
