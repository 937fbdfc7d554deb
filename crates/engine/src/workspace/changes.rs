//! What changed in the workspace of a session since somebody last looked.
//!
//! Programs may run meanwhile and change what is looked at: every step goes by
//! descriptor below the directory, as when all of them are dead, and a file that is
//! swapped between two steps is at most told of twice, or with the contents it has then.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{FileType, OFlags};
use tokio_util::sync::CancellationToken;

use super::{Basket, Collected, Skipped, Stopped, Time, Walk, open};
use crate::config::Bounds;

/// The files that were told of, or put in, as they were then: by the hash of the path,
/// and of what tells one state of a file from the next. Their names are a program's to
/// choose, and would be the server's memory to hold.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    files: HashMap<u64, u64>,
    /// Its keys are this session's own, so that nobody finds two names of one hash.
    hashes: RandomState,
}

impl Seen {
    /// Notes a file as it is now. Says whether it is new or changed.
    fn note(&mut self, path: &str, mark: &Mark) -> bool {
        let (path, mark) = (self.hashes.hash_one(path), self.hashes.hash_one(mark));
        self.files.insert(path, mark) != Some(mark)
    }

    /// Forgets all files but these.
    fn keep(&mut self, found: &[String]) {
        let kept = found.iter().filter_map(|path| {
            let path = self.hashes.hash_one(path);
            Some((path, *self.files.get(&path)?))
        });
        self.files = kept.collect();
    }
}

/// What tells one state of a file from the next; programs can't set the last.
type Mark = (u64, i64, [i64; 2], [i64; 2]);

fn mark(root: BorrowedFd<'_>, path: &str) -> Option<Mark> {
    let fd = open(root, path, OFlags::empty()).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    let nanos = |nanos| i64::try_from(nanos).unwrap_or_default();
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some((
        stat.st_ino,
        stat.st_size,
        [stat.st_mtime, nanos(stat.st_mtime_nsec)],
        [stat.st_ctime, nanos(stat.st_ctime_nsec)],
    ))
}

/// Notes files that were put in.
pub(crate) fn note(root: &OwnedFd, paths: &[String], seen: &mut Seen) {
    for path in paths {
        if let Some(mark) = mark(root.as_fd(), path) {
            seen.note(path, &mark);
        }
    }
}

/// Collects the files that are new or changed since the last time, in the bounds that
/// the files of a run have.
pub(crate) fn changed(
    root: &OwnedFd,
    seen: &mut Seen,
    ignored: &[String],
    bounds: &Bounds,
    cancel: &CancellationToken,
) -> Collected {
    let root = root.as_fd();
    let time = Time {
        deadline: Instant::now() + bounds.collect_time,
        cancel,
    };
    let mut walk = Walk::new(root, ignored, &time);
    walk.longest = Bounds::PATH_BYTES;
    walk.run();
    let mut found = std::mem::take(&mut walk.found);
    found.sort();
    // What is gone may come back, and is new then.
    if walk.stopped.is_none() || seen.files.len() > Bounds::COLLECT_ENTRIES {
        seen.keep(&found);
    }
    let mut basket = Basket {
        root,
        inputs: HashMap::new(),
        bounds,
        files: Vec::new(),
        left: bounds.files_out_bytes,
        surplus: 0,
        // Links and the like are told of once by a run; here they would be each time.
        skipped: Skipped::default(),
    };
    let mut unseen = 0_usize;
    for path in found {
        if time.is_up() {
            unseen += 1;
            continue;
        }
        let Some(mark) = mark(root, &path) else {
            continue;
        };
        if seen.note(&path, &mark) {
            basket.add(path);
        }
    }
    let stopped = walk.stopped;
    let mut collected = basket.finish();
    if unseen > 0 || matches!(stopped, Some(Stopped::Entries | Stopped::Time)) {
        collected.warnings.push(format!(
            "files may be missing: there are more than can be looked at in {} s",
            bounds.collect_time.as_secs_f64()
        ));
    }
    collected
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn changes_are_told_once() {
        let root = tempfile::tempdir().unwrap();
        let directory: OwnedFd = fs::File::open(root.path()).unwrap().into();
        let mut seen = Seen::default();
        let bounds = Bounds::default();
        let mut check = |expected: &[&str]| {
            let cancel = CancellationToken::new();
            let ignored = ["cache".to_owned()];
            let found = changed(&directory, &mut seen, &ignored, &bounds, &cancel);
            let paths: Vec<String> = found.files.into_iter().map(|file| file.path).collect();
            assert_eq!(paths, expected);
            assert_eq!(found.warnings, [""; 0]);
        };
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        check(&[]);
        fs::create_dir(root.path().join("d")).unwrap();
        fs::create_dir(root.path().join("cache")).unwrap();
        write("a", "1");
        write("d/b", "2");
        write("cache/c", "3");
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("link")).unwrap();
        check(&["a", "d/b"]);
        check(&[]);
        write("a", "3");
        check(&["a"]);
        fs::remove_file(root.path().join("a")).unwrap();
        check(&[]);
        write("a", "3");
        check(&["a"]);
    }

    #[test]
    fn what_was_put_in_is_no_change() {
        let root = tempfile::tempdir().unwrap();
        let directory: OwnedFd = fs::File::open(root.path()).unwrap().into();
        fs::write(root.path().join("in"), "given").unwrap();
        let mut seen = Seen::default();
        note(&directory, &["in".to_owned(), "none".to_owned()], &mut seen);
        let cancel = CancellationToken::new();
        let found = changed(&directory, &mut seen, &[], &Bounds::default(), &cancel);
        assert_eq!(found, Collected::default());
    }
}
