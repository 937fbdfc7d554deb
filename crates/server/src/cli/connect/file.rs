//! A client's configuration file: read, copied beside itself, and written whole
//! or not at all. Never follows a link to nowhere, never writes what it could
//! not read, and never keeps a secret where others may read it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

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
                return Ok(Self { path, found: None });
            }
            Err(cause) => return Err(system("find", path)(cause)),
        };
        let found = contents(&path)?;
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
    /// When nothing was changed.
    pub(super) fn write(&self, text: &str) -> Result<Option<PathBuf>, FileError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if self.found.is_none() {
            make_folders(folder).map_err(system("make", folder))?;
        }
        let copy = match &self.found {
            Some((old, known)) => Some(self.copy(old, known)?),
            None => None,
        };
        let draft = beside(&self.path, &format!(".new-{}", std::process::id()));
        let owner = match &self.found {
            Some((_, known)) => Ok(known.clone()),
            None => folder.metadata(),
        };
        let owner = owner.map_err(system("look at", folder))?;
        let mode = self
            .found
            .as_ref()
            .map_or(PRIVATE, |(_, known)| known.permissions().mode() & 0o777);
        let written = create(&draft, text, mode, &owner);
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
            match create(&copy, old, known.mode() & PRIVATE, known) {
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

fn contents(path: &Path) -> Result<(String, Metadata), FileError> {
    let known = path.metadata().map_err(system("look at", path))?;
    if !known.is_file() {
        return Err(FileError::NoFile(path.to_owned()));
    }
    let file = File::open(path).map_err(system("open", path))?;
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

/// Makes a file that is not there yet, with the owner of another.
fn create(path: &Path, text: &str, mode: u32, owner: &Metadata) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path)?;
    let made = file.metadata()?;
    // Only root meets with another's file here.
    if (made.uid(), made.gid()) != (owner.uid(), owner.gid()) {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes the folders of a path that are not there, with the owner of the first
/// that is.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new("/"));
    make_folders(above)?;
    std::fs::create_dir(folder)?;
    let (owner, made) = (above.metadata()?, File::open(folder)?);
    made.set_permissions(std::fs::Permissions::from_mode(PRIVATE_FOLDER))?;
    let now = made.metadata()?;
    if (now.uid(), now.gid()) != (owner.uid(), owner.gid()) {
        fchown(&made, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
