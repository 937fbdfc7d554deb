//! Collects the files that a program left in its workspace.
//!
//! The tree is hostile: links out of it, FIFOs that block, sparse files of a
//! petabyte, names in no encoding. Nothing is reached but by descriptor below
//! the directory that was opened before the program ran, never through a link
//! and never onto another file system; only regular files are opened for
//! reading, and without blocking. It is called when every process that could
//! change the tree is dead. It must never write, and never cost more time or
//! memory than its bounds say, whatever the tree looks like.

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use sandbox::File;
use tokio_util::sync::CancellationToken;

use crate::config::Bounds;
use crate::outcome::OutputFile;
use crate::quote::quote;

mod changes;
mod left;
mod look;
mod results;

pub(crate) use changes::{Seen, changed, note};
pub(crate) use left::left;
pub(crate) use look::{list, open_file};
pub(crate) use results::results;

/// Warnings about single files; the rest are counted.
const MAX_WARNINGS: usize = 8;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// New and changed files, sorted by path.
    pub(crate) files: Vec<OutputFile>,
    /// What was left out, and why.
    pub(crate) warnings: Vec<String>,
    /// What the program showed, as it is left in a file of its own; a part of it where
    /// that is longer than may be shown.
    pub(crate) results: Vec<u8>,
}

/// Collects new and changed regular files below `root`, at most as many and
/// as large as `bounds` say, and for no longer. `inputs` that were not changed
/// are left out, and so is everything named in `ignored`. Ends soon after
/// `cancel`, and what it gives then is of no use.
pub(crate) fn collect(
    root: BorrowedFd<'_>,
    inputs: &[File],
    ignored: &[String],
    bounds: &Bounds,
    cancel: &CancellationToken,
) -> Collected {
    let time = Time {
        deadline: Instant::now() + bounds.collect_time,
        cancel,
    };
    let mut walk = Walk::new(root, ignored, &time);
    walk.run();
    let Walk {
        mut found,
        skipped,
        stopped,
        ..
    } = walk;
    found.sort();
    let mut basket = Basket {
        root,
        inputs: inputs
            .iter()
            .map(|input| (input.path.as_slice(), input))
            .collect(),
        bounds,
        files: Vec::new(),
        left: bounds.files_out_bytes,
        surplus: 0,
        skipped,
    };
    let mut unseen = 0_usize;
    for path in found {
        if time.is_up() {
            unseen += 1;
        } else {
            basket.add(path);
        }
    }
    let mut collected = basket.finish();
    if stopped == Some(Stopped::Entries) {
        collected.warnings.push(format!(
            "files may be missing: only the first {} names in the workspace are looked at",
            Bounds::COLLECT_ENTRIES
        ));
    }
    if unseen > 0 || stopped == Some(Stopped::Time) {
        collected.warnings.push(format!(
            "files may be missing: collecting them was given up after {} s, with {unseen} found but not looked at",
            bounds.collect_time.as_secs_f64()
        ));
    }
    collected
}

/// Until when to go on.
struct Time<'a> {
    deadline: Instant,
    cancel: &'a CancellationToken,
}

impl Time<'_> {
    fn is_up(&self) -> bool {
        self.cancel.is_cancelled()
            || self.deadline.saturating_duration_since(Instant::now()) == Duration::ZERO
    }
}

/// The files to give back, as far as there is room for them.
struct Basket<'a> {
    root: BorrowedFd<'a>,
    inputs: HashMap<&'a [u8], &'a File>,
    bounds: &'a Bounds,
    files: Vec<OutputFile>,
    /// Bytes that still fit.
    left: u64,
    /// Files that did not fit any more.
    surplus: usize,
    skipped: Skipped,
}

impl Basket<'_> {
    /// Adds a file if it is new or changed. What is read of it, and of all
    /// others, is never more than what fits and what was sent in.
    fn add(&mut self, path: String) {
        let input = self.inputs.get(path.as_bytes()).copied();
        let full = self.files.len() == self.bounds.files_out || self.left == 0;
        if full && input.is_none() {
            self.surplus += 1;
            return;
        }
        let most = self.bounds.file_out_bytes;
        let room = if full { 0 } else { self.left.min(most) };
        match read(self.root, &path, input, room) {
            Ok(Read::Whole(content)) => {
                let size = content.len() as u64;
                self.left -= size;
                self.files.push(OutputFile {
                    path,
                    size,
                    content,
                });
            }
            Ok(Read::TooLarge(size)) if size > most => self.skipped.add(
                &format!("not collected ({size} bytes, at most {most})"),
                &path,
            ),
            Ok(Read::TooLarge(_)) => self.surplus += 1,
            Ok(Read::Unchanged | Read::NotAFile) => {}
            Err(error) => self.skipped.add(&format!("not collected ({error})"), &path),
        }
    }

    fn finish(mut self) -> Collected {
        if self.surplus > 0 {
            self.skipped.note(format!(
                "{} more files were not collected: at most {} files of {} bytes together are given back",
                self.surplus, self.bounds.files_out, self.bounds.files_out_bytes
            ));
        }
        Collected {
            files: self.files,
            warnings: self.skipped.finish(),
            results: Vec::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Skipped {
    warnings: Vec<String>,
    more: usize,
}

impl Skipped {
    /// Notes what became of the file that a program called `name`. The reason
    /// is ours and stands first.
    fn add(&mut self, reason: &str, name: &str) {
        self.note(format!("{reason}: \"{}\"", quote(name)));
    }

    fn note(&mut self, warning: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            let more = self.more;
            self.warnings
                .push(format!("{more} more files were left out"));
        }
        self.warnings
    }
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    ignored: &'a [String],
    found: Vec<String>,
    skipped: Skipped,
    entries: usize,
    /// Paths longer than this, in bytes, are passed over.
    longest: usize,
    /// Why it did not see everything.
    stopped: Option<Stopped>,
    time: &'a Time<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Entries,
    Time,
}

impl<'a> Walk<'a> {
    fn new(root: BorrowedFd<'a>, ignored: &'a [String], time: &'a Time<'a>) -> Self {
        Self {
            root,
            ignored,
            found: Vec::new(),
            skipped: Skipped::default(),
            entries: 0,
            longest: usize::MAX,
            stopped: None,
            time,
        }
    }

    fn run(&mut self) {
        let mut directories = VecDeque::from([(String::new(), 0)]);
        while let Some((directory, depth)) = directories.pop_front() {
            if self.stopped.is_some() {
                return;
            }
            if depth > Bounds::PATH_DEPTH {
                self.skipped.add("not collected (too deep)", &directory);
                continue;
            }
            match self.look_into(&directory) {
                Ok(below) => directories.extend(below.into_iter().map(|path| (path, depth + 1))),
                Err(error) => self
                    .skipped
                    .add(&format!("not collected (unreadable: {error})"), &directory),
            }
        }
    }

    /// Notes the files of one directory and gives its directories.
    fn look_into(&mut self, directory: &str) -> io::Result<Vec<String>> {
        let name = if directory.is_empty() { "." } else { directory };
        let fd = open(self.root, name, OFlags::DIRECTORY)?;
        let mut below = Vec::new();
        for entry in Dir::new(fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries > Bounds::COLLECT_ENTRIES {
                self.stopped = Some(Stopped::Entries);
            } else if self.time.is_up() {
                self.stopped = Some(Stopped::Time);
            }
            if self.stopped.is_some() {
                return Ok(Vec::new());
            }
            let Ok(name) = name.to_str() else {
                self.skipped
                    .add("not collected (name not UTF-8)", &name.to_string_lossy());
                continue;
            };
            if self.ignored.iter().any(|ignored| ignored == name) {
                continue;
            }
            let path = if directory.is_empty() {
                name.to_owned()
            } else {
                format!("{directory}/{name}")
            };
            if path.len() > self.longest {
                self.skipped.add("not collected (path too long)", &path);
                continue;
            }
            match self.kind(&path, entry.file_type()) {
                FileType::Directory => below.push(path),
                FileType::RegularFile => self.found.push(path),
                FileType::Symlink => self.skipped.add("not collected (symbolic link)", &path),
                _ => self
                    .skipped
                    .add("not collected (not a regular file)", &path),
            }
        }
        Ok(below)
    }

    /// What the directory says, or the file itself where it does not.
    fn kind(&self, path: &str, said: FileType) -> FileType {
        if said != FileType::Unknown {
            return said;
        }
        rustix::fs::statat(self.root, path, AtFlags::SYMLINK_NOFOLLOW)
            .map_or(FileType::Unknown, |stat| {
                FileType::from_raw_mode(stat.st_mode)
            })
    }
}

/// Opens below the root, through no link and onto no other file system.
fn open(root: BorrowedFd<'_>, path: &str, extra: OFlags) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let flags = OFlags::RDONLY
        | OFlags::CLOEXEC
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::NOFOLLOW
        | extra;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

enum Read {
    Whole(Vec<u8>),
    /// Larger than the room for it, and changed if it was sent in.
    TooLarge(u64),
    /// It is as it was sent in.
    Unchanged,
    /// It is something else than it was a moment ago.
    NotAFile,
}

/// Reads a file of at most `room` bytes, or of as many as `input`, which was
/// sent in under its name, has. A sparse file counts with its whole size: that
/// is what reading and sending it costs, however few blocks it has.
fn read(root: BorrowedFd<'_>, path: &str, input: Option<&File>, room: u64) -> io::Result<Read> {
    let fd = open(root, path, OFlags::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Read::NotAFile);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    let input = input.filter(|input| input.content.len() as u64 == size);
    if size > room && input.is_none() {
        return Ok(Read::TooLarge(size));
    }
    let most = input.map_or(room, |_| room.max(size));
    let mut content = Vec::new();
    // One more than allowed shows a file that grew since.
    fs::File::from(fd)
        .take(most.saturating_add(1))
        .read_to_end(&mut content)?;
    let size = content.len() as u64;
    if input.is_some_and(|input| input.content == content) {
        return Ok(Read::Unchanged);
    }
    if size > room {
        return Ok(Read::TooLarge(size));
    }
    Ok(Read::Whole(content))
}

#[cfg(any(test, fuzzing, feature = "hooks"))]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests;
