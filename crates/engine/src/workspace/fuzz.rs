//! Trees that bytes describe, collected: never what lies outside, never more
//! than the bounds.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FileType, Mode};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{MAX_WARNINGS, collect};
use crate::config::Bounds;

/// Most entries of one tree: each costs a few system calls.
const ENTRIES: usize = 24;

/// Makes the tree that `bytes` describe and collects it. An entry is a byte for
/// its kind, then its path up to a NUL.
pub(crate) fn collections(bytes: &[u8]) {
    // What may never come along: no tree can hold it, for it is made of the tree.
    let digits = Sha256::digest(bytes);
    let canary: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    let holds = |text: &[u8]| {
        let mut parts = text.windows(canary.len());
        parts.any(|part| part == canary.as_bytes())
    };
    let scratch = Scratch::new(&canary);
    let root = scratch.0.join("tree");
    for entry in bytes.split(|byte| *byte == 0).take(ENTRIES) {
        if let [kind, path @ ..] = entry {
            make(&root, *kind, path, &scratch.0.join("outside"));
        }
    }
    let bounds = Bounds {
        files_out: 4,
        file_out_bytes: 64,
        files_out_bytes: 100,
        ..Bounds::default()
    };
    let directory = fs::File::open(&root).expect("it was made");
    let ignored = ["__pycache__".to_owned()];
    let cancel = CancellationToken::new();
    let collected = collect(directory.as_fd(), &[], &ignored, &bounds, &cancel);
    assert!(collected.files.len() <= bounds.files_out);
    // One warning counts the rest, two tell that something may be missing.
    assert!(collected.warnings.len() <= MAX_WARNINGS + 3);
    let sizes: u64 = collected.files.iter().map(|file| file.size).sum();
    assert!(sizes <= bounds.files_out_bytes);
    assert!(collected.files.is_sorted_by(|a, b| a.path < b.path));
    for file in &collected.files {
        assert_eq!(file.size, file.content.len() as u64);
        assert!(!holds(&file.content), "{} leaks", file.path);
        assert!(!file.path.split('/').any(|part| ignored[0] == part));
        let real = fs::symlink_metadata(root.join(&file.path)).expect("it is there");
        assert!(real.is_file(), "{} is no file", file.path);
    }
    for warning in &collected.warnings {
        assert!(!holds(warning.as_bytes()), "{warning} leaks");
    }
}

/// Makes one entry where that is possible; user code is refused the rest too.
fn make(root: &Path, kind: u8, path: &[u8], outside: &Path) {
    // Only the fuzzer itself must not be led out of its own tree.
    let parts = path.split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !matches!(*part, b"" | b"." | b".."));
    let mut at = root.to_owned();
    let parts: Vec<&[u8]> = parts.collect();
    let Some((last, folders)) = parts.split_last() else {
        return;
    };
    for folder in folders {
        at.push(OsStr::from_bytes(folder));
        drop(fs::create_dir(&at));
        if !fs::symlink_metadata(&at).is_ok_and(|found| found.is_dir()) {
            return;
        }
    }
    at.push(OsStr::from_bytes(last));
    if fs::symlink_metadata(&at).is_ok() {
        return;
    }
    let mode = Mode::from_raw_mode(0o600);
    match kind % 8 {
        0 | 1 => drop(fs::write(&at, path)),
        2 => drop(fs::create_dir(&at)),
        3 => drop(std::os::unix::fs::symlink(outside.join("canary"), &at)),
        4 => drop(std::os::unix::fs::symlink(outside, &at)),
        5 => drop(std::os::unix::fs::symlink(OsStr::from_bytes(path), &at)),
        6 => drop(rustix::fs::mknodat(CWD, &at, FileType::Fifo, mode, 0)),
        _ => drop(fs::File::create(&at).and_then(|file| file.set_len(1 << 40))),
    }
}

/// A directory for one tree and what lies outside of it; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(canary: &str) -> Self {
        // In memory where there is such a place; each thread its own.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("codex-fuzz-{}-{count}", std::process::id());
        let scratch = Self(parent.join(name));
        fs::create_dir_all(scratch.0.join("outside")).expect("a scratch directory can be made");
        fs::create_dir(scratch.0.join("tree")).expect("it was made a moment ago");
        fs::write(scratch.0.join("outside/canary"), canary).expect("the canary can be written");
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("what was made can be removed");
    }
}
