//! Puts the files that a program left into a directory of this machine.
//!
//! Names and contents are the program's, or a server's, and hostile: nothing
//! is written outside the directory, through a link, over what is there
//! already, to a hidden name, or with leave to be executed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::output::terminal::printable;

/// Folders that a name may go through.
const DEPTH: usize = 32;
/// Names that are tried for one file when those before are taken.
const TRIES: usize = 1000;
/// New directories and files, before the umask.
const FOLDER: Mode = Mode::from_raw_mode(0o777);
const FILE: Mode = Mode::from_raw_mode(0o666);

/// A file that a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Made {
    /// Its path in the workspace, as the program named it.
    pub(in crate::cli) name: String,
    /// Bytes.
    pub(in crate::cli) size: u64,
    /// Its content, or why there is none here.
    pub(in crate::cli) content: Result<Vec<u8>, String>,
}

/// Where files go.
#[derive(Debug)]
pub(in crate::cli) struct Target {
    pub(in crate::cli) directory: PathBuf,
    /// Whether files that are there already are replaced.
    pub(in crate::cli) force: bool,
    /// Whether the directory itself may be a symbolic link: where a person named it.
    pub(in crate::cli) through_link: bool,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Saved {
    /// It is at this path below the directory, under its own name or another.
    As(String),
    /// The very same content is at this path already.
    There(String),
    /// It is not saved.
    Not(String),
}

impl Target {
    /// Saves one file.
    pub(in crate::cli) fn save(&self, made: &Made) -> Saved {
        let content = match &made.content {
            Ok(content) => content,
            Err(why) => return Saved::Not(why.clone()),
        };
        let Some(mut parts) = tame(&made.name) else {
            return Saved::Not("its path leads out of the directory".to_owned());
        };
        let Some(name) = parts.pop() else {
            return Saved::Not("it has no name".to_owned());
        };
        let placed = self.folder(&parts).and_then(|folder| {
            let folder = folder.as_fd();
            if self.force {
                replace(folder, &name, content).map(|()| (name.clone(), true))
            } else {
                place(folder, &name, content)
            }
        });
        match placed {
            Ok((name, new)) => {
                parts.push(name);
                let path = parts.join("/");
                if new {
                    Saved::As(path)
                } else {
                    Saved::There(path)
                }
            }
            Err(error) => Saved::Not(error.to_string()),
        }
    }

    /// Opens the folder of a file, making what is missing on the way.
    fn folder(&self, parts: &[String]) -> io::Result<OwnedFd> {
        fs::create_dir_all(&self.directory)?;
        let mut flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        if !self.through_link {
            flags |= OFlags::NOFOLLOW;
        }
        let mut folder = rustix::fs::open(&self.directory, flags, Mode::empty())
            .map_err(|error| in_the_way(error, &self.directory.to_string_lossy()))?;
        for part in parts {
            match rustix::fs::mkdirat(&folder, part, FOLDER) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            folder = rustix::fs::openat(&folder, part, flags, Mode::empty())
                .map_err(|error| in_the_way(error, part))?;
        }
        Ok(folder)
    }
}

fn in_the_way(error: Errno, name: &str) -> io::Error {
    if matches!(error, Errno::NOTDIR | Errno::LOOP) {
        let name = printable(name);
        return io::Error::other(format!(
            "{name} is there already and is no directory (links are not followed)"
        ));
    }
    error.into()
}

/// The parts of a path with nothing left in them that could do harm: control
/// characters would be obeyed by a terminal, hidden names by shells and git,
/// a dash by commands, and to who removes a folder called `~` by that name it
/// is the home directory. `None` when the path leads elsewhere.
fn tame(path: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > DEPTH || parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return None;
    }
    let tamed = |part: &&str| {
        let visible = printable(part);
        let plain: String = if visible == *part {
            visible
        } else {
            let keep = |c: char| printable(c.encode_utf8(&mut [0; 4])) == c.to_string();
            part.chars()
                .map(|c| if keep(c) { c } else { '_' })
                .collect()
        };
        match plain.strip_prefix(['.', '-', '~']) {
            Some(rest) => format!("_{rest}"),
            None => plain,
        }
    };
    Some(parts.iter().map(tamed).collect())
}

/// Writes a new file under the first name that is free; the second value says
/// whether it had to be written.
fn place(folder: BorrowedFd<'_>, name: &str, content: &[u8]) -> io::Result<(String, bool)> {
    let (stem, ending) = match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => (stem, format!(".{ending}")),
        _ => (name, String::new()),
    };
    for number in 1..=TRIES {
        let candidate = match number {
            1 => name.to_owned(),
            number => format!("{stem}-{number}{ending}"),
        };
        match write_new(folder, &candidate, content) {
            Ok(()) => return Ok((candidate, true)),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) if is_same(folder, &candidate, content) => return Ok((candidate, false)),
            Err(_) => {}
        }
    }
    Err(io::Error::other(format!(
        "it and {TRIES} names like it are taken; choose another directory with --out, or replace with --force"
    )))
}

/// Puts a file in the place of what is there: as a whole, and never through a link.
fn replace(folder: BorrowedFd<'_>, name: &str, content: &[u8]) -> io::Result<()> {
    let staging = format!(".codex-server-{}", uuid::Uuid::now_v7());
    write_new(folder, &staging, content)?;
    rustix::fs::renameat(folder, &staging, folder, name).map_err(|error| {
        remove(folder, &staging);
        io::Error::from(error)
    })
}

fn write_new(folder: BorrowedFd<'_>, name: &str, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, name, flags, FILE)?);
    file.write_all(content)
        .inspect_err(|_| remove(folder, name))
}

/// Half a file is worse than none.
fn remove(folder: BorrowedFd<'_>, name: &str) {
    if let Err(error) = rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        tracing::warn!(%error, name, "failed to remove a file that is not whole");
    }
}

/// Whether a regular file of that name holds just this.
fn is_same(folder: BorrowedFd<'_>, name: &str, content: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty()) else {
        return false;
    };
    let file = File::from(file);
    let length = content.len() as u64;
    if !file
        .metadata()
        .is_ok_and(|about| about.is_file() && about.len() == length)
    {
        return false;
    }
    let mut there = Vec::new();
    let read = file.take(length + 1).read_to_end(&mut there);
    read.is_ok() && there == content
}

/// The media type of a file, by what it holds; where that says nothing, by its name.
pub(in crate::cli) fn media_type(name: &str, content: &[u8]) -> &'static str {
    const SIGNATURES: [(&[u8], &str); 9] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"\x1f\x8b", "application/gzip"),
        (b"SQLite format 3\0", "application/vnd.sqlite3"),
        (b"PAR1", "application/vnd.apache.parquet"),
        (b"\x93NUMPY", "application/x-npy"),
    ];
    const ENDINGS: [(&str, &str); 13] = [
        ("csv", "text/csv"),
        ("tsv", "text/tab-separated-values"),
        ("json", "application/json"),
        ("html", "text/html"),
        ("svg", "image/svg+xml"),
        ("md", "text/markdown"),
        ("xml", "application/xml"),
        ("py", "text/x-python"),
        ("js", "text/javascript"),
        ("zip", "application/zip"),
        (
            "xlsx",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ),
        (
            "docx",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (
            "pptx",
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ),
    ];
    if content.starts_with(b"RIFF") && content.get(8..12) == Some(b"WEBP") {
        return "image/webp";
    }
    let signed = SIGNATURES
        .iter()
        .find(|(bytes, _)| content.starts_with(bytes));
    if let Some((_, kind)) = signed {
        return kind;
    }
    let ending = Path::new(name)
        .extension()
        .and_then(|ending| ending.to_str());
    let ending = ending.map(str::to_ascii_lowercase).unwrap_or_default();
    let named = ENDINGS
        .iter()
        .find(|(known, _)| *known == ending)
        .map(|(_, kind)| *kind);
    let is_zip = content.starts_with(b"PK\x03\x04");
    match named {
        // An ending alone makes no archive, and no text of an archive.
        Some(kind) if is_zip == (kind == "application/zip" || kind.contains("openxml")) => kind,
        _ if is_zip => "application/zip",
        _ if std::str::from_utf8(content).is_ok_and(|text| !text.contains('\0')) => "text/plain",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
