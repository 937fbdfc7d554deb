//! The kept files of some keys, counted and removed beside a running server.
//!
//! For the command line, which revokes tokens while the server runs: it finds
//! out at the next request for a file that the file is gone. Never follows a
//! link, and removes nothing that is not a whole artifact of one of them.

use std::path::{Path, PathBuf};

use super::{FOLDER, OpenError, files, now, whole};

/// What the runs of some keys left and can still be downloaded.
#[derive(Debug, Default)]
pub struct OwnedFiles {
    paths: Vec<PathBuf>,
    last_ends: u64,
}

impl OwnedFiles {
    /// Finds the files of the keys with the ids `owners` in the data directory.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn find(home: &Path, owners: &[String]) -> Result<Self, OpenError> {
        let folder = home.join(FOLDER);
        let listed = match files(&folder) {
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        let mut found = Self::default();
        for (id, path) in listed {
            let kept = id.and_then(|id| whole(id, &path));
            let alive =
                kept.filter(|one| owners.contains(&one.owner) && one.expires > now().as_secs());
            if let Some(one) = alive {
                found.paths.push(path);
                found.last_ends = found.last_ends.max(one.expires);
            }
        }
        Ok(found)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.paths.len()
    }

    /// Returns when the last link ends, in seconds since 1970; 0 for none.
    #[must_use]
    pub fn last_ends(&self) -> u64 {
        self.last_ends
    }

    /// Removes them all.
    ///
    /// # Errors
    /// The first that could not be removed, and why; the others are gone.
    pub fn remove(self) -> Result<(), OpenError> {
        let mut failed = None;
        for path in self.paths {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    failed.get_or_insert(OpenError {
                        step: "delete",
                        path,
                        source,
                    });
                }
                _ => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
