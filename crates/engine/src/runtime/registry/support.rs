//! The support files of runtimes on disk, under names made of their content.
//!
//! A directory appears whole and is never changed; a server holds a lock on
//! those that it uses, and old ones that nobody holds are removed.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::data_dir;

/// Hexadecimal digits of the hash in a directory's name.
const HASH_DIGITS: usize = 16;
/// How long support files that no server uses are kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long after its start a directory may be half-written; then its writer crashed.
const STAGING_KEPT: Duration = Duration::from_secs(3600);

/// Marks a directory as used: by a lock while this server lives, by its time
/// for a while after.
pub(super) fn hold(directory: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<fs::File> {
    let held = fs::File::open(directory)?;
    // Both fail on some network file systems, where nothing is swept either.
    if let Err(error) = held.lock_shared() {
        tracing::debug!(%error, "support files are not locked");
    }
    held.set_modified(SystemTime::now()).ok();
    if holds(directory, files) {
        Ok(held)
    } else {
        Err(io::Error::other("they were removed at once; start again"))
    }
}

/// Removes support files of other versions, old and unused, and what crashed
/// servers left half-written. What cannot be removed is left for the next start.
pub(super) fn sweep(root: &Path, now: SystemTime) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if let Err(error) = sweep_one(&path, now) {
            tracing::debug!(%error, path = %path.display(), "left as it is");
        }
    }
}

fn sweep_one(path: &Path, now: SystemTime) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kept = match name.rsplit_once('-') {
        Some((before, hash)) if !before.is_empty() && is_hash(hash) => KEPT,
        _ if name.starts_with('.') => STAGING_KEPT,
        // Not of our making.
        _ => return Ok(()),
    };
    let metadata = fs::symlink_metadata(path)?;
    // A time in the future is that of a clock put back: no reason to remove.
    let age = now.duration_since(metadata.modified()?).unwrap_or_default();
    if !metadata.is_dir() || age < kept {
        return Ok(());
    }
    // Held until the removal is done: nobody can begin to use it meanwhile.
    let unused = fs::File::open(path)?;
    unused.try_lock()?;
    fs::remove_dir_all(path)
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes files into `root/<name>-<hash of the files>` and returns that directory.
///
/// The directory appears whole, by a rename. One that is there already is used
/// if its content is right, and replaced if somebody changed it.
pub(super) fn materialise(
    root: &Path,
    name: &str,
    files: &[(&str, Vec<u8>)],
) -> io::Result<PathBuf> {
    let target = root.join(format!("{name}-{}", hash(files)));
    if holds(&target, files) {
        return Ok(target);
    }
    fs::create_dir_all(root.parent().unwrap_or(root))?;
    data_dir::make_folder(root, 0o755)?;
    // A box's user must be able to look through: the data directory's own mode guards the rest.
    let staging = root.join(format!(".{name}-{}", uuid::Uuid::now_v7()));
    let written = write(&staging, files).and_then(|()| install(&staging, &target, files));
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    written.map(|()| target)
}

/// A hash of names and contents that is the same for every build of the server.
fn hash(files: &[(&str, Vec<u8>)]) -> String {
    let mut hasher = Sha256::new();
    let parts = files
        .iter()
        .flat_map(|(name, content)| [name.as_bytes(), content]);
    for text in parts {
        // With its length, so that no two lists of files read the same.
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    let mut digits = String::new();
    for byte in hasher.finalize().iter().take(HASH_DIGITS / 2) {
        write!(digits, "{byte:02x}").expect("writing to a String cannot fail");
    }
    digits
}

/// Whether a directory holds exactly these files, readable by all.
fn holds(directory: &Path, files: &[(&str, Vec<u8>)]) -> bool {
    let mode = |path: &Path| {
        fs::symlink_metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777)
    };
    let count = fs::read_dir(directory).map_or(0, Iterator::count);
    mode(directory).is_ok_and(|mode| mode == 0o755)
        && count == files.len()
        && files.iter().all(|(name, content)| {
            let path = directory.join(name);
            let regular = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
            regular
                && mode(&path).is_ok_and(|mode| mode == 0o644)
                && fs::read(&path).is_ok_and(|found| found == *content)
        })
}

fn write(directory: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir(directory)?;
    for (name, content) in files {
        let mut file = fs::File::create_new(directory.join(name))?;
        file.write_all(content)?;
        // The umask has no say in what a box can read.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}

/// Renames `staging` to `target`, unless another server did so first.
fn install(staging: &Path, target: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let renamed = fs::rename(staging, target);
    if renamed.is_ok() || holds(target, files) {
        return Ok(());
    }
    // Something else is in the way: a changed copy, or a file. Move it aside, then away.
    let aside = staging.with_extension("old");
    fs::rename(target, &aside)?;
    let installed = fs::rename(staging, target);
    if aside.is_dir() {
        fs::remove_dir_all(&aside)?;
    } else {
        fs::remove_file(&aside)?;
    }
    if installed.is_ok() || holds(target, files) {
        return Ok(());
    }
    installed
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::time::SystemTime;

    use super::{KEPT, STAGING_KEPT, hash, hold, holds, materialise, sweep};

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![("boot.x", b"one".to_vec()), ("more.x", b"two".to_vec())]
    }

    fn entries(root: &Path) -> usize {
        fs::read_dir(root).unwrap().count()
    }

    #[test]
    fn support_files_are_readable_by_all_and_named_by_content() {
        let root = tempfile::tempdir().unwrap();
        let first = materialise(root.path(), "x", &files()).unwrap();
        assert_eq!(fs::read_to_string(first.join("boot.x")).unwrap(), "one");
        assert_eq!(
            fs::metadata(&first).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(
            fs::metadata(first.join("boot.x"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o644
        );
        assert_eq!(materialise(root.path(), "x", &files()).unwrap(), first);
        let other = materialise(root.path(), "x", &[("boot.x", b"changed".to_vec())]).unwrap();
        assert_ne!(other, first);
        assert_eq!(entries(root.path()), 2, "staging directories were left");
    }

    #[test]
    fn whatever_is_in_the_way_is_replaced() {
        let check = |spoil: &dyn Fn(&Path)| {
            let root = tempfile::tempdir().unwrap();
            let target = materialise(root.path(), "x", &files()).unwrap();
            spoil(&target);
            assert!(!holds(&target, &files()));
            assert_eq!(materialise(root.path(), "x", &files()).unwrap(), target);
            assert!(holds(&target, &files()));
            assert_eq!(entries(root.path()), 1, "something was left");
        };
        check(&|target| fs::write(target.join("boot.x"), "evil").unwrap());
        check(&|target| fs::remove_file(target.join("boot.x")).unwrap());
        check(&|target| fs::write(target.join("extra"), "").unwrap());
        check(&|target| fs::set_permissions(target, fs::Permissions::from_mode(0o700)).unwrap());
        check(&|target| {
            fs::remove_dir_all(target).unwrap();
            fs::write(target, "a file").unwrap();
        });
        check(&|target| {
            fs::remove_file(target.join("boot.x")).unwrap();
            symlink("/etc/passwd", target.join("boot.x")).unwrap();
        });
    }

    #[test]
    fn names_are_the_same_for_every_build() {
        assert_eq!(hash(&files()), "565cbe95babb040d");
        let moved = [("boot.xone", Vec::new()), ("more.x", b"two".to_vec())];
        assert_ne!(hash(&moved), hash(&files()));
    }

    #[test]
    fn what_is_old_and_unused_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let held = materialise(root.path(), "x", &files()).unwrap();
        let lock = hold(&held, &files()).unwrap();
        let old = materialise(root.path(), "x", &[("a", b"1".to_vec())]).unwrap();
        let names = [".x-crashed", "backup", ".x-crashed.old", "x-0123"];
        let [crashed, foreign, aside, short] = names.map(|name| root.path().join(name));
        for directory in [&crashed, &foreign, &aside, &short] {
            fs::create_dir(directory).unwrap();
        }
        let check = |now, left: &[&Path]| {
            sweep(root.path(), now);
            for path in [&held, &old, &crashed, &foreign, &aside, &short] {
                assert_eq!(path.exists(), left.contains(&path.as_path()), "{path:?}");
            }
        };
        let now = SystemTime::now();
        check(now, &[&held, &old, &crashed, &foreign, &aside, &short]);
        check(
            now - KEPT,
            &[&held, &old, &crashed, &foreign, &aside, &short],
        );
        check(
            now + STAGING_KEPT + STAGING_KEPT,
            &[&held, &old, &foreign, &short],
        );
        check(now + KEPT + KEPT, &[&held, &foreign, &short]);
        drop(lock);
        check(now + KEPT + KEPT, &[&foreign, &short]);
    }

    #[test]
    fn servers_that_start_at_once_agree() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| materialise(root.path(), "x", &files()).unwrap()))
                .collect();
            for worker in workers {
                assert!(holds(&worker.join().unwrap(), &files()));
            }
        });
        assert_eq!(entries(root.path()), 1);
    }
}
