//! Looks into the workspace of a session for its owner: what is there, and a file to be
//! read. Everything goes by descriptor below the directory, through no link.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat};

use super::open;
use crate::config::Bounds;
use crate::session::{FileEntry, FileKind, FileList, SessionFile};

/// Entries that one list tells.
const ENTRIES: usize = 10_000;

/// Opens a regular file.
///
/// # Errors
/// Whatever the file system says; `EISDIR` for a directory, `EINVAL` for what is no file.
pub(crate) fn open_file(root: BorrowedFd<'_>, path: &str) -> io::Result<SessionFile> {
    let fd = open(root, path, OFlags::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(SessionFile {
            size: size(&stat),
            modified: modified(&stat),
            file: fs::File::from(fd),
        }),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )),
    }
}

/// Names what is in a directory, and with `deep` in those below it.
///
/// # Errors
/// Whatever the file system says of the directory itself.
pub(crate) fn list(
    root: &OwnedFd,
    path: &str,
    deep: bool,
    bounds: &Bounds,
) -> io::Result<FileList> {
    let until = Instant::now() + bounds.collect_time;
    let mut found = FileList {
        entries: Vec::new(),
        truncated: false,
    };
    let mut left = VecDeque::from([(path.to_owned(), 0)]);
    let mut first = true;
    while let Some((directory, depth)) = left.pop_front() {
        let read = entries(root.as_fd(), &directory, &mut found, until);
        match read {
            Ok(below) if deep && depth < Bounds::PATH_DEPTH => {
                left.extend(below.into_iter().map(|path| (path, depth + 1)));
            }
            Ok(_) => {}
            Err(error) if first => return Err(error),
            // Gone or closed since it was seen.
            Err(_) => found.truncated = true,
        }
        first = false;
        if found.truncated {
            break;
        }
    }
    found.entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Adds what is in one directory, and returns the directories there.
fn entries(
    root: BorrowedFd<'_>,
    directory: &str,
    found: &mut FileList,
    until: Instant,
) -> io::Result<Vec<String>> {
    let name = if directory.is_empty() { "." } else { directory };
    let opened = open(root, name, OFlags::DIRECTORY)?;
    let mut below = Vec::new();
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            // It has no name that anybody could ask for.
            continue;
        };
        if name == "." || name == ".." {
            continue;
        }
        if found.entries.len() == ENTRIES || Instant::now() > until {
            found.truncated = true;
            break;
        }
        let Ok(stat) = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let path = match directory {
            "" => name.to_owned(),
            above => format!("{above}/{name}"),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        };
        if kind == FileKind::Directory {
            below.push(path.clone());
        }
        found.entries.push(FileEntry {
            path,
            kind,
            size: size(&stat),
            modified: modified(&stat),
        });
    }
    Ok(below)
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// A time that a program may have set to anything.
fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_is_listed_and_no_link_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("d/e")).unwrap();
        fs::write(root.path().join("a"), "four").unwrap();
        fs::write(root.path().join("d/e/f"), "").unwrap();
        symlink("/etc", root.path().join("out")).unwrap();
        let fd: OwnedFd = fs::File::open(root.path()).unwrap().into();
        let check = |path: &str, deep, expected: Result<&[&str], io::ErrorKind>| {
            let listed = list(&fd, path, deep, &Bounds::default());
            let told = listed.map(|found| {
                let entries = found.entries.iter();
                let told = entries.map(|one| format!("{} {}", one.kind.as_str(), one.path));
                told.collect::<Vec<_>>()
            });
            let expected = expected.map(|all| all.iter().map(|&one| one.to_owned()).collect());
            assert_eq!(told.map_err(|error| error.kind()), expected, "{path}");
        };
        let top = ["file a", "directory d", "link out"];
        check("", false, Ok(&top));
        let all = [
            "file a",
            "directory d",
            "directory d/e",
            "file d/e/f",
            "link out",
        ];
        check("", true, Ok(&all));
        check("d/e", false, Ok(&["file d/e/f"]));
        check("none", false, Err(io::ErrorKind::NotFound));
        check("a", false, Err(io::ErrorKind::NotADirectory));
        assert!(list(&fd, "out", false, &Bounds::default()).is_err());
        let opened = |path: &str| open_file(fd.as_fd(), path).map(|file| file.size).ok();
        assert_eq!(opened("a"), Some(4));
        for path in ["d", "out", "out/passwd", "none", "a/b"] {
            assert_eq!(opened(path), None, "{path}");
        }
    }
}
