//! Reads the file in which a program leaves what it shows, in the directory of temporary
//! files. As hostile as all that is left: opened through no link, read if it is a regular
//! file, and no further than results may be large.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};

use super::open;
use crate::config::Bounds;

/// Name of the file. The support files of languages know it.
const NAME: &str = ".codex-results";
/// Bytes that are read: what is shown is less, as JSON counts it.
const MOST: u64 = 2 * Bounds::RESULTS_BYTES as u64;

/// Returns what the file below `root` holds; nothing where there is none.
pub(crate) fn results(root: BorrowedFd<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(file) = open(root, NAME, OFlags::empty()) else {
        return bytes;
    };
    let regular = rustix::fs::fstat(&file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    if regular && let Err(error) = File::from(file).take(MOST).read_to_end(&mut bytes) {
        tracing::debug!(%error, "failed to read what a program showed");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[test]
    fn only_a_regular_file_is_read() {
        let check = |make: &dyn Fn(&Path), expected: usize| {
            let root = tempfile::tempdir().unwrap();
            make(&root.path().join(NAME));
            let directory = fs::File::open(root.path()).unwrap();
            assert_eq!(results(directory.as_fd()).len(), expected);
        };
        check(&|_| {}, 0);
        check(&|at| fs::write(at, "abc").unwrap(), 3);
        check(&|at| symlink("/etc/passwd", at).unwrap(), 0);
        check(&|at| fs::create_dir(at).unwrap(), 0);
        check(
            &|at| {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, at, FileType::Fifo, mode, 0).unwrap();
            },
            0,
        );
        let sparse = |at: &Path| fs::File::create(at).unwrap().set_len(1 << 40).unwrap();
        check(&sparse, 2 * Bounds::RESULTS_BYTES);
    }
}
