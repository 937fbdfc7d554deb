//! Work on a workspace's files that its owner asks for while programs run there.
//!
//! Done by a child of the box's init, with the rights of a program and no more: what it
//! writes counts as the box's, and whatever programs do to the tree meanwhile, they
//! could have done the work themselves. Nothing is reached but below the workspace, and
//! never through a link.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};

use crate::protocol::{Reader, Writer};
use crate::{error, uids};

/// What begins the name of a file that is being put in or taken away.
const TEMPORARY: &str = ".codex-";

/// Work on files. Paths are below the workspace: relative, without `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Put in a file, whose content comes by a pipe: all of it, or nothing changes.
    Put(Vec<u8>),
    /// Make a directory, and those on its way.
    MakeDirectory(Vec<u8>),
    /// Take away a file, or a directory with all that is in it.
    Remove(Vec<u8>),
    /// Give a file or directory another place, where nothing may be yet.
    Move {
        /// Where it is.
        from: Vec<u8>,
        /// Where it will be.
        to: Vec<u8>,
    },
}

impl Work {
    pub(crate) fn encode(&self, out: &mut Writer) {
        let (kind, first, second): (u8, &[u8], &[u8]) = match self {
            Self::Put(path) => (0, path, &[]),
            Self::MakeDirectory(path) => (1, path, &[]),
            Self::Remove(path) => (2, path, &[]),
            Self::Move { from, to } => (3, from, to),
        };
        out.u8(kind);
        out.bytes(first);
        out.bytes(second);
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, error::Error> {
        let kind = input.u8()?;
        let (first, second) = (input.bytes()?.to_vec(), input.bytes()?.to_vec());
        match (kind, second.is_empty()) {
            (0, true) => Ok(Self::Put(first)),
            (1, true) => Ok(Self::MakeDirectory(first)),
            (2, true) => Ok(Self::Remove(first)),
            (3, _) => Ok(Self::Move {
                from: first,
                to: second,
            }),
            _ => Err(crate::protocol::malformed()),
        }
    }

    /// Does the work. What a `Put` brings is read from `content`.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn carry_out(
        &self,
        workspace: BorrowedFd<'_>,
        content: Option<&OwnedFd>,
    ) -> io::Result<()> {
        let (Self::Put(path)
        | Self::MakeDirectory(path)
        | Self::Remove(path)
        | Self::Move { to: path, .. }) = self;
        if path.is_empty() || path.starts_with(b"/") {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        match self {
            Self::Put(path) => {
                let content = content.ok_or(io::ErrorKind::InvalidInput)?;
                put(workspace, path, content)
            }
            Self::MakeDirectory(path) => {
                let (parent, name) = way(workspace, path)?;
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Err(rustix::io::Errno::EXIST) if is_directory(&parent, name) => Ok(()),
                    made => Ok(made?),
                }
            }
            Self::Remove(path) => remove(workspace, path),
            Self::Move { from, to } => {
                let (old, name) = parent(workspace, from)?;
                let (new, new_name) = way(workspace, to)?;
                let only = RenameFlags::NOREPLACE;
                Ok(rustix::fs::renameat_with(old, name, new, new_name, only)?)
            }
        }
    }
}

/// Opens a directory below another, through no link.
fn directory(below: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    Ok(rustix::fs::openat2(
        below,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// The directory that a path is in, and its name there.
fn parent<'a>(workspace: BorrowedFd<'_>, path: &'a [u8]) -> io::Result<(OwnedFd, &'a [u8])> {
    let (above, name) = split(path);
    Ok((directory(workspace, above)?, name))
}

/// The same, with every directory on the way made that is not there.
fn way<'a>(workspace: BorrowedFd<'_>, path: &'a [u8]) -> io::Result<(OwnedFd, &'a [u8])> {
    let (above, name) = split(path);
    let mut at = directory(workspace, b"")?;
    for part in above
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
    {
        match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        at = directory(at.as_fd(), part)?;
    }
    Ok((at, name))
}

fn is_directory(parent: &OwnedFd, name: &[u8]) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// A name that nothing else has: this process has its number to itself.
fn temporary() -> String {
    format!("{TEMPORARY}{}", std::process::id())
}

fn put(workspace: BorrowedFd<'_>, path: &[u8], content: &OwnedFd) -> io::Result<()> {
    let (parent, name) = way(workspace, path)?;
    if is_directory(&parent, name) {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    let part = temporary();
    let file = rustix::fs::openat(
        &parent,
        part.as_str(),
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )?;
    let whole = copy(content, &file);
    let put = whole.and_then(|()| Ok(rustix::fs::renameat(&parent, part.as_str(), &parent, name)?));
    if put.is_err() {
        // What is left of it is the tenant's, as if a program had written it.
        rustix::fs::unlinkat(&parent, part.as_str(), AtFlags::empty()).ok();
    }
    put
}

/// Copies a content: pieces, each with its length (4 bytes, little-endian) before it, up
/// to one of no bytes. A sender that goes away before that puts in nothing.
fn copy(content: &OwnedFd, file: &OwnedFd) -> io::Result<()> {
    let mut content = fs::File::from(content.try_clone()?);
    let mut file = fs::File::from(file.try_clone()?);
    let gone = |_| io::Error::from_raw_os_error(libc::EPIPE);
    loop {
        let mut length = [0; 4];
        content.read_exact(&mut length).map_err(gone)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length == 0 {
            return Ok(());
        }
        let copied = io::copy(&mut (&mut content).take(length), &mut file)?;
        if copied < length {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
    }
}

/// Moves what is to go out of sight first, so that it is gone at once, however much it is.
fn remove(workspace: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    let (parent, name) = parent(workspace, path)?;
    if !is_directory(&parent, name) {
        return Ok(rustix::fs::unlinkat(&parent, name, AtFlags::empty())?);
    }
    let gone = temporary();
    let top = directory(workspace, b"")?;
    rustix::fs::renameat_with(&parent, name, &top, gone.as_str(), RenameFlags::NOREPLACE)?;
    rustix::fs::chmodat(&top, gone.as_str(), Mode::RWXU, AtFlags::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(&top, gone.as_str(), flags, Mode::empty())?;
    uids::empty(&directory)?;
    Ok(rustix::fs::unlinkat(
        &top,
        gone.as_str(),
        AtFlags::REMOVEDIR,
    )?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree {
        root: tempfile::TempDir,
        fd: OwnedFd,
    }

    impl Tree {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("d/e")).unwrap();
            fs::write(root.path().join("d/f"), "old").unwrap();
            symlink("/etc", root.path().join("out")).unwrap();
            symlink("f", root.path().join("d/link")).unwrap();
            let fd = fs::File::open(root.path()).unwrap().into();
            Self { root, fd }
        }

        fn do_(&self, work: &Work, content: &[u8]) -> Result<(), i32> {
            let (read, mut write) = io::pipe().unwrap();
            write.write_all(content).unwrap();
            drop(write);
            let done = work.carry_out(self.fd.as_fd(), Some(&read.into()));
            done.map_err(|error| error.raw_os_error().unwrap_or(-1))
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.root.path()).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn files_are_put_in_whole_or_not_at_all() {
        let tree = Tree::new();
        let check = |path: &str, content: &[u8], expected: Result<(), i32>| {
            let done = tree.do_(&Work::Put(path.into()), content);
            assert_eq!(done, expected, "{path}");
        };
        let end = &[0; 4][..];
        check("a", b"\x02\0\0\0te\x02\0\0\0xt\0\0\0\0", Ok(()));
        check("new/way/b", end, Ok(()));
        for cut in [&b""[..], b"\0\0", b"\x03\0\0\0cu", b"\x03\0\0\0cut"] {
            check("d/f", cut, Err(libc::EPIPE));
        }
        // A link is replaced, not followed.
        check("d/link", b"\x04\0\0\0mine\0\0\0\0", Ok(()));
        check("d", end, Err(libc::EISDIR));
        check("out/x", end, Err(libc::ELOOP));
        check("a/x", end, Err(libc::ENOTDIR));
        let read = |path: &str| fs::read_to_string(tree.root.path().join(path)).unwrap();
        assert_eq!(
            (read("a").as_str(), read("new/way/b").as_str()),
            ("text", "")
        );
        assert_eq!(
            (read("d/f").as_str(), read("d/link").as_str()),
            ("old", "mine")
        );
        assert_eq!(tree.names(), ["a", "d", "new", "out"]);
    }

    #[test]
    fn trees_are_made_moved_and_removed() {
        let tree = Tree::new();
        let check = |work: Work, expected: Result<(), i32>| {
            assert_eq!(tree.do_(&work, b""), expected, "{work:?}");
        };
        check(Work::MakeDirectory("x/y/z".into()), Ok(()));
        check(Work::MakeDirectory("x/y/z".into()), Ok(()));
        check(Work::MakeDirectory("d/f".into()), Err(libc::EEXIST));
        check(Work::MakeDirectory("out/x".into()), Err(libc::ELOOP));
        let moved = |from: &str, to: &str| Work::Move {
            from: from.into(),
            to: to.into(),
        };
        check(moved("d/f", "x/y/g"), Ok(()));
        check(moved("x/y/g", "x"), Err(libc::EEXIST));
        check(moved("none", "n"), Err(libc::ENOENT));
        check(moved("out/passwd", "p"), Err(libc::ELOOP));
        check(Work::Remove("x".into()), Ok(()));
        check(Work::Remove("out".into()), Ok(()));
        check(Work::Remove("none".into()), Err(libc::ENOENT));
        assert_eq!(tree.names(), ["d"]);
        assert!(fs::exists("/etc/passwd").unwrap());
    }
}
