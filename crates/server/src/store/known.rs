//! Keys that were looked up already, for as long as nobody has written the database.
//!
//! Any process may revoke a key at any time, which must hold from the next request on. So
//! each use asks the file system whether the database's files are what they were, which
//! takes two system calls in place of two ways to another thread. A process that is held
//! up for two seconds between the two halves of a commit could still be missed: for no
//! more than a minute, after which each use is noted, and the key looked up for that.
//! Never holds a token, only its hash, and only of keys that were let in.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::LAST_USED_STEP;
use crate::auth::Principal;

/// A file whose time of change is younger may change again without another time: file
/// systems count in steps of up to two seconds.
const SETTLED: Duration = Duration::from_secs(2);
/// Most keys that are kept; with one more all are forgotten.
const MOST: usize = 1000;

/// What a file is known by: device, inode, size in bytes, and the time of its last change
/// in seconds and nanoseconds.
type Mark = (u64, u64, u64, i64, i64);

/// What the database's files are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    database: Mark,
    /// The log of changes; there is none before the first.
    log: Option<Mark>,
}

/// A key, by the hash of its token.
#[derive(Debug, Clone)]
struct Entry {
    principal: Principal,
    /// When its use was last noted, in seconds since 1970.
    last_used_at: i64,
}

/// Keys that were looked up, and in which state of the database.
#[derive(Debug)]
pub(super) struct Known {
    database: PathBuf,
    log: PathBuf,
    seen: Mutex<(Option<Stamp>, HashMap<String, Entry>)>,
}

impl Known {
    /// Makes an empty memory for the database at this path.
    pub(super) fn new(database: &Path) -> Self {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Self {
            database: database.to_owned(),
            log: log.into(),
            seen: Mutex::default(),
        }
    }

    /// Returns what the files are known by now; `None` while they are too young to tell
    /// the next change from the last, or cannot be looked at.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let now = SystemTime::now();
        let settled = |found: &std::fs::Metadata| {
            let changed = found.modified().ok()?;
            (now.duration_since(changed).ok()? >= SETTLED).then_some(())
        };
        let mark = |found: &std::fs::Metadata| {
            (
                found.dev(),
                found.ino(),
                found.len(),
                found.mtime(),
                found.mtime_nsec(),
            )
        };
        let database = std::fs::metadata(&self.database).ok()?;
        let log = match std::fs::metadata(&self.log) {
            Ok(found) => {
                settled(&found)?;
                Some(mark(&found))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        settled(&database)?;
        Some(Stamp {
            database: mark(&database),
            log,
        })
    }

    /// Returns who has the key whose token has this hash. `None` where that is not known in
    /// this state of the database, or where its use at `now` must be noted.
    pub(super) fn find(&self, stamp: Stamp, hash: &str, now: i64) -> Option<Principal> {
        let seen = self.seen();
        let entry = (seen.0 == Some(stamp))
            .then(|| seen.1.get(hash))
            .flatten()?;
        (entry.last_used_at > now - LAST_USED_STEP).then(|| entry.principal.clone())
    }

    /// Keeps who has a key, as it was found in the database when that had this stamp.
    pub(super) fn keep(&self, stamp: Stamp, hash: String, principal: Principal, last_used_at: i64) {
        let mut seen = self.seen();
        if seen.0 != Some(stamp) || seen.1.len() >= MOST {
            *seen = (Some(stamp), HashMap::new());
        }
        let entry = Entry {
            principal,
            last_used_at,
        };
        seen.1.insert(hash, entry);
    }

    fn seen(&self) -> MutexGuard<'_, (Option<Stamp>, HashMap<String, Entry>)> {
        // Whole between any two statements, whoever panicked.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
