//! A client's configuration file: read, copied beside itself, and written whole
//! or not at all. Never follows a link to nowhere, never writes what it could
//! not read or what is another user's, who could swap it at any time, and never
//! makes a file that others may read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Bytes of the largest file that is read. Claude Code keeps what was said in its
/// own.
const LARGEST: u64 = 16 * 1024 * 1024;
/// The mode of a new file: it may get a token.
const PRIVATE: u32 = 0o600;
/// The mode of a new folder.
const PRIVATE_FOLDER: u32 = 0o700;
/// How many copies of a file there may be.
const COPIES: u32 = 1000;

/// A configuration, as it was when it was read.
#[derive(Debug)]
pub(super) struct ClientFile {
    /// Where it really is.
    path: PathBuf,
    /// Its text and what is known of it; `None` when it is not there.
    found: Option<(String, Metadata)>,
}

/// What went wrong with a file. The message has its path and the cure.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{0} is a link to a file that is not there; make that file, or remove the link")]
    Dangling(PathBuf),
    #[error("{0} is no plain file; remove it, or name another: --write=FILE")]
    NoFile(PathBuf),
    #[error(
        "{path} is not yours, and was not changed; run this as its owner: sudo -u '#{owner}' codex-server connect …"
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error("{0} is read-only, and was not changed; make it writable, or add the entry yourself")]
    ReadOnly(PathBuf),
    #[error("{0} has more than {LARGEST} bytes, and was not changed; add the entry yourself")]
    Large(PathBuf),
    #[error("{0} is not UTF-8 text, and was not changed; is it the right file?")]
    NotText(PathBuf),
    #[error("{0} was changed by somebody else just now, and not by this command; try again")]
    Changed(PathBuf),
    #[error("cannot {step} {path}: {cause}")]
    System {
        step: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
}

fn system(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |cause| FileError::System { step, path, cause }
}

impl ClientFile {
    /// Reads the file at `path`, or finds that there is none.
    ///
    /// # Errors
    /// When it is something that must not be written over.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(FileError::Dangling(path.to_owned()));
                }
                let path = std::path::absolute(path).map_err(system("find", path))?;
                let above = path.ancestors().skip(1).find(|folder| folder.is_dir());
                let above = above.unwrap_or(Path::new("/"));
                let known = above.metadata().map_err(system("look at", above))?;
                refuse_foreign(above, &known)?;
                return Ok(Self { path, found: None });
            }
            Err(cause) => return Err(system("find", path)(cause)),
        };
        let found = contents(&path)?;
        refuse_foreign(&path, &found.1)?;
        // Root could write it all the same, and others by replacing it.
        if found.1.permissions().readonly() {
            return Err(FileError::ReadOnly(path));
        }
        Ok(Self {
            path,
            found: Some(found),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its text, when it is there.
    pub(super) fn text(&self) -> Option<&str> {
        self.found.as_ref().map(|(text, _)| text.as_str())
    }

    /// Says whether others of this machine may read it.
    pub(super) fn is_for_others(&self) -> bool {
        let mode = self.found.as_ref().map(|(_, known)| known.mode());
        mode.is_some_and(|mode| mode & 0o044 != 0)
    }

    /// Writes a new text in its place, and returns where a copy of the old one is.
    ///
    /// # Errors
    /// When the file is as it was; a copy of it may be beside it.
    pub(super) fn write(&self, text: &str) -> Result<Option<PathBuf>, FileError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if self.found.is_none() {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(PRIVATE_FOLDER)
                .create(folder);
            made.map_err(system("make", folder))?;
        }
        let copy = match &self.found {
            Some((old, known)) => Some(self.copy(old, known)?),
            None => None,
        };
        let draft = beside(&self.path, &format!(".new-{}", std::process::id()));
        let mode = self
            .found
            .as_ref()
            .map_or(PRIVATE, |(_, known)| known.permissions().mode() & 0o777);
        let written = create(&draft, text, mode);
        written.map_err(system("write", &draft))?;
        let placed = self.put(&draft);
        if placed.is_err() {
            // What is left of it is of no use; the first error is the one to tell.
            drop(std::fs::remove_file(&draft));
        }
        placed.map(|()| copy)
    }

    /// Puts the draft in the file's place, when that is still as it was read.
    fn put(&self, draft: &Path) -> Result<(), FileError> {
        match &self.found {
            Some((old, _)) => {
                let now = contents(&self.path);
                if now.is_ok_and(|(now, _)| now == *old) {
                    std::fs::rename(draft, &self.path).map_err(system("replace", &self.path))
                } else {
                    Err(FileError::Changed(self.path.clone()))
                }
            }
            // A link replaces nothing.
            None => {
                let linked = std::fs::hard_link(draft, &self.path);
                linked.map_err(|cause| match cause.kind() {
                    io::ErrorKind::AlreadyExists => FileError::Changed(self.path.clone()),
                    _ => system("make", &self.path)(cause),
                })?;
                std::fs::remove_file(draft).map_err(system("remove", draft))
            }
        }
    }

    /// Keeps a copy of what was read, unless there is the same one already.
    fn copy(&self, old: &str, known: &Metadata) -> Result<PathBuf, FileError> {
        for number in 1..=COPIES {
            let suffix = match number {
                1 => ".before-codex".to_owned(),
                number => format!(".before-codex-{number}"),
            };
            let copy = beside(&self.path, &suffix);
            match create(&copy, old, known.mode() & PRIVATE) {
                Ok(()) => return Ok(copy),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if contents(&copy).is_ok_and(|(text, _)| text == old) {
                        return Ok(copy);
                    }
                }
                Err(cause) => return Err(system("write", &copy)(cause)),
            }
        }
        let cause = io::Error::other("there are too many copies; remove some");
        Err(system("copy", &self.path)(cause))
    }
}

/// Refuses what another user could swap for something else at any time: what
/// root writes there, or reads and copies, would be that user's to choose.
fn refuse_foreign(path: &Path, known: &Metadata) -> Result<(), FileError> {
    if known.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(FileError::Foreign {
        path: path.to_owned(),
        owner: known.uid(),
    })
}

/// Reads the file itself, no link that has taken its place.
fn contents(path: &Path) -> Result<(String, Metadata), FileError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = file.map_err(system("open", path))?;
    let known = file.metadata().map_err(system("look at", path))?;
    if !known.is_file() {
        return Err(FileError::NoFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(system("read", path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::Large(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText(path.to_owned()))?;
    Ok((text, known))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a file that is not there yet, and leaves none that is not whole.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(PRIVATE);
    let mut file = options.open(path)?;
    let filled = file
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all());
    if filled.is_err() {
        // The first error is the one to tell.
        drop(std::fs::remove_file(path));
    }
    filled
}

#[cfg(test)]
mod tests;
