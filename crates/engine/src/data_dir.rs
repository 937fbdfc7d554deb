//! The data directory: who may write it, and its files and folders, opened
//! through no link. A link or a pipe that somebody planted there must never be
//! followed, waited for, emptied, or given another mode.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Mode bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Mode bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Somebody else's hold on a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Others than the owner may write it: whatever lies in it may be theirs.
    Writable,
    /// It belongs to a user who is neither this one nor root.
    Owned {
        /// That user's number.
        uid: u32,
    },
}

impl Hold {
    /// Returns the worst hold that others have on the directory `found`, if any.
    #[must_use]
    pub fn of(found: &Metadata) -> Option<Self> {
        let uid = found.uid();
        if found.mode() & WRITABLE_BY_OTHERS != 0 {
            return Some(Self::Writable);
        }
        let ours = uid == 0 || uid == rustix::process::geteuid().as_raw();
        (!ours).then_some(Self::Owned { uid })
    }

    /// Returns what is wrong with the directory `home`, as a clause.
    #[must_use]
    pub fn problem(self, home: &Path) -> String {
        let home = home.display();
        match self {
            Self::Writable => format!("{home} can be written by other users"),
            Self::Owned { uid } => format!("{home} belongs to another user, uid {uid}"),
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn cure(self, home: &Path) -> String {
        let home = home.display();
        match self {
            Self::Writable => format!(
                "chmod go-w {home}, or name a directory of the server's own inside it with --home DIR"
            ),
            Self::Owned { .. } => {
                format!("chown {} {home}", rustix::process::geteuid().as_raw())
            }
        }
    }
}

/// Opens a file of the data directory as `options` say, made with mode 0600
/// where they make it. Never waits.
///
/// # Errors
/// When it is a link or not a plain file, with the cure, or cannot be opened.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = options
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    // A pipe nobody reads, and a socket, cannot even be opened.
    let odd = |error: &io::Error| error.raw_os_error() == Some(Errno::NXIO.raw_os_error());
    let file = match opened {
        Err(error) if is_link(&error) => return Err(link()),
        Err(error) if odd(&error) => return Err(not_plain()),
        opened => opened?,
    };
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(not_plain())
    }
}

/// Looks at a file of the data directory without opening it; `None` where
/// there is none.
///
/// # Errors
/// When it is a link or not a plain file, with the cure, or cannot be seen.
pub fn look(path: &Path) -> io::Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => Err(link()),
        Ok(found) if !found.is_file() => Err(not_plain()),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes a file of the data directory, or a folder, from everybody but its
/// owner, where it is not theirs alone.
///
/// # Errors
/// When it belongs to another user.
pub fn make_private(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode & 0o700))
}

/// Makes a folder of the data directory, unless it is there, with this mode
/// whatever the umask, and opens it.
///
/// # Errors
/// When it is a link or no folder, with the cure, or cannot be made.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<File> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let folder = match opened {
        // The kernel says of a link only that it is no directory.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory || is_link(&error) => {
            return Err(if path.is_symlink() { link() } else { error });
        }
        opened => opened?,
    };
    if folder.metadata()?.mode() & 0o777 != mode {
        folder.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(folder)
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

fn link() -> io::Error {
    io::Error::other(
        "it is a symbolic link, which is not followed here: put what it leads to in its place, or remove it",
    )
}

fn not_plain() -> io::Error {
    io::Error::other("it is not a plain file: move it away")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode};

    #[test]
    fn what_somebody_planted_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let victim = at("victim");
        fs::write(&victim, "precious").unwrap();
        fs::set_permissions(&victim, Permissions::from_mode(0o644)).unwrap();
        symlink(&victim, at("link")).unwrap();
        symlink(at("made"), at("dangling")).unwrap();
        symlink(home.path(), at("folder")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for (name, words) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("folder", "symbolic link"),
            ("pipe", "not a plain file"),
            ("directory", "not a plain file"),
        ] {
            let mut write = OpenOptions::new();
            write.write(true).create(true).truncate(true);
            for options in [OpenOptions::new().read(true), &mut write] {
                let error = open(&at(name), options).unwrap_err().to_string();
                let kernels = name == "directory" && error.contains("Is a directory");
                assert!(kernels || error.contains(words), "{name}: {error}");
            }
            let error = look(&at(name)).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        for (name, words) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("folder", "symbolic link"),
            ("pipe", "Not a directory"),
        ] {
            let error = make_folder(&at(name), 0o700).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(victim.metadata().unwrap().mode() & 0o777, 0o644);
        assert!(!at("made").exists());
    }

    #[test]
    fn modes_are_ours_whatever_was_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("folder");
        for before in [0o777, 0o700, 0o755] {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            let folder = make_folder(&path, 0o755).unwrap();
            assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o755);
        }
        let path = home.path().join("file");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        make_private(&File::open(&path).unwrap()).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn others_hold_on_a_data_directory_is_seen() {
        let check = |mode: u32, uid: u32, expected: Option<Hold>| {
            let home = tempfile::tempdir().unwrap();
            let owner = rustix::fs::Uid::from_raw(uid);
            rustix::fs::chown(home.path(), Some(owner), None).unwrap();
            fs::set_permissions(home.path(), Permissions::from_mode(mode)).unwrap();
            let found = home.path().metadata().unwrap();
            assert_eq!(Hold::of(&found), expected, "{mode:o} {uid}");
        };
        let own = rustix::process::geteuid().as_raw();
        check(0o700, own, None);
        check(0o711, own, None);
        check(0o755, own, None);
        check(0o777, own, Some(Hold::Writable));
        check(0o1777, own, Some(Hold::Writable));
        check(0o770, own, Some(Hold::Writable));
        if own == 0 {
            check(0o700, 12345, Some(Hold::Owned { uid: 12345 }));
            check(0o777, 12345, Some(Hold::Writable));
        }
    }
}
