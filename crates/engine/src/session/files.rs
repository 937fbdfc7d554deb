//! Files of a session while code may run in it: those that a call puts in, those that a
//! cell left, and what its owner does to them besides.
//!
//! What changes the workspace is done in the box, with its programs' rights; what reads
//! it goes by descriptor below the directory that was opened before anything ran.

use std::fs::File as OpenedFile;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use sandbox::{File, How, Work};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::SessionEnd;
use super::live::Session;
use crate::boxes::{STEP_TIMEOUT, broken, broken_io, late};
use crate::error::Error;
use crate::workspace::{self, Collected};

/// Bytes of a content that are handed over at once.
const PIECE: usize = 64 * 1024;

/// What can be asked of the files of a session. Paths are below its working directory.
#[derive(Debug)]
pub enum FileCall {
    /// Name what is in a directory; the whole tree below it with `deep`.
    List {
        /// The directory; empty for the working directory itself.
        path: String,
        /// Whether to go into the directories there.
        deep: bool,
    },
    /// Open a file, to be read while code runs.
    Open(String),
    /// Put in a file, in place of what is there: all of it, or nothing changes.
    Put(String, Content),
    /// Make a directory, and those on its way.
    MakeDirectory(String),
    /// Take away a file, or a directory with all that is in it.
    Remove(String),
    /// Give a file or directory another place.
    Move {
        /// Where it is.
        from: String,
        /// Where it will be; nothing may be there yet.
        to: String,
    },
}

/// A file's content, as it comes.
pub struct Content(pub Pin<Box<dyn AsyncRead + Send>>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content")
    }
}

/// A file of a session, opened.
#[derive(Debug)]
pub struct SessionFile {
    /// The file itself: a regular one.
    pub file: OpenedFile,
    /// Its size in bytes when it was opened.
    pub size: u64,
    /// When it was changed last.
    pub modified: SystemTime,
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the working directory.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// When it was changed last.
    pub modified: SystemTime,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, which nothing here follows.
    Link,
    /// A pipe, a socket or the like.
    Other,
}

impl FileKind {
    /// Every kind, for schemas.
    pub const ALL: [Self; 4] = [Self::File, Self::Directory, Self::Link, Self::Other];

    /// The word used on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Other => "other",
        }
    }
}

/// What is in a directory, as far as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    /// The entries, by path.
    pub entries: Vec<FileEntry>,
    /// Whether there are more.
    pub truncated: bool,
}

/// Puts files into the workspace; they are nothing that a cell leaves. By children of
/// init, like any other: what does not fit into the box's memory is the end of one of
/// them, and not of init.
pub(super) async fn write(session: &Session, files: Vec<File>) -> Result<(), Error> {
    for file in files {
        let path = String::from_utf8_lossy(&file.path).into_owned();
        let content = Content(Box::pin(io::Cursor::new(file.content)));
        put(session, path, content).await?;
    }
    Ok(())
}

/// Notes files that were put in, so that no cell is said to have left them.
async fn note(session: &Session, paths: Vec<String>) -> Result<(), Error> {
    let step = "note files";
    let directory = workspace_of(session, step)?;
    let seen = Arc::clone(&session.seen);
    let noted = tokio::task::spawn_blocking(move || {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        workspace::note(&directory, &paths, &mut seen);
    });
    noted.await.map_err(|error| broken(step, error))
}

fn workspace_of(session: &Session, step: &'static str) -> Result<OwnedFd, Error> {
    let directory = session.home.workspace()?;
    directory.try_clone().map_err(broken_io(step))
}

/// Returns the files that are new or changed since the last call, as a run gives them.
pub(super) async fn changed(session: &Session, language: &str) -> Result<Collected, Error> {
    let step = "collect files";
    let directory = workspace_of(session, step)?;
    let of_language = session.terms.languages.get(language);
    let ignored = of_language.map_or_else(Vec::new, |language| language.ignored.clone());
    let bounds = session.terms.bounds;
    let seen = Arc::clone(&session.seen);
    let kept = session.home.kept();
    let cancel = CancellationToken::new();
    let _dropped = cancel.clone().drop_guard();
    tokio::task::spawn_blocking(move || {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let collected = workspace::changed(&directory, &mut seen, &ignored, &bounds, &cancel);
        drop((seen, directory, kept));
        collected
    })
    .await
    .map_err(|error| broken(step, error))
}

/// Names what is in a directory.
pub(crate) async fn list(session: &Session, path: String, deep: bool) -> Result<FileList, Error> {
    let step = "list files";
    let directory = workspace_of(session, step)?;
    let bounds = session.terms.bounds;
    let told = path.clone();
    tokio::task::spawn_blocking(move || workspace::list(&directory, &path, deep, &bounds))
        .await
        .map_err(|error| broken(step, error))?
        .map_err(|error| missing(&told, &error))
}

/// Opens a file to be read.
pub(crate) async fn open(session: &Session, path: String) -> Result<SessionFile, Error> {
    let step = "open a file";
    let directory = workspace_of(session, step)?;
    let told = path.clone();
    tokio::task::spawn_blocking(move || workspace::open_file(directory.as_fd(), &path))
        .await
        .map_err(|error| broken(step, error))?
        .map_err(|error| missing(&told, &error))
}

fn missing(path: &str, error: &io::Error) -> Error {
    Error::NoFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// Has work on files done in the box.
pub(crate) async fn work(session: &Session, path: &str, work: Work) -> Result<(), Error> {
    let ended = session.port(work, None)?;
    finished(session, path, ended).await
}

/// Puts in a file, as its content comes.
pub(crate) async fn put(session: &Session, path: String, content: Content) -> Result<(), Error> {
    let step = "put in a file";
    let (theirs, ours) = io::pipe().map_err(broken_io(step))?;
    let theirs = OwnedFd::from(theirs);
    let mut ended = session.port(Work::Put(path.clone().into_bytes()), Some(theirs.as_fd()))?;
    drop(theirs);
    let mut pipe = pipe::Sender::from_owned_fd(ours.into()).map_err(broken_io(step))?;
    let most = session.terms.bounds.session_workspace;
    let handed = tokio::select! {
        // It ends before the content does where there is no room for it.
        exit = &mut ended => return judged(session, &path, exit.ok()),
        handed = hand_over(content, &mut pipe, most) => handed,
    };
    drop(pipe);
    let done = finished(session, &path, ended).await;
    match handed {
        Ok(true) => done?,
        // What came until then is taken away again.
        Ok(false) => {
            return Err(Error::NotWritten {
                path,
                reason: format!("it has more than {most} bytes, as much as the workspace holds"),
                full: true,
            });
        }
        Err(error) => {
            return Err(Error::NotWritten {
                path,
                reason: format!("its content broke off: {error}"),
                full: false,
            });
        }
    }
    note(session, vec![path]).await
}

/// Hands a content over in pieces. Says whether it had at most `most` bytes.
async fn hand_over(mut content: Content, pipe: &mut pipe::Sender, most: u64) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    let mut total = 0;
    loop {
        let count = content.0.read(&mut piece).await?;
        total += count as u64;
        if total > most {
            return Ok(false);
        }
        let length = u32::try_from(count).unwrap_or(u32::MAX);
        // One that has ended already is asked for its reason next.
        let gone = pipe.write_all(&length.to_le_bytes()).await.is_err()
            || pipe.write_all(&piece[..count]).await.is_err();
        if gone || count == 0 {
            return Ok(true);
        }
    }
}

async fn finished(
    session: &Session,
    path: &str,
    ended: tokio::sync::oneshot::Receiver<sandbox::Exit>,
) -> Result<(), Error> {
    let exit = timeout(STEP_TIMEOUT, ended).await;
    judged(session, path, exit.map_err(|_| late("work on files"))?.ok())
}

/// Makes the answer to work on files of how it ended.
fn judged(session: &Session, path: &str, exit: Option<sandbox::Exit>) -> Result<(), Error> {
    let Some(exit) = exit else {
        return Err(session.gone(session.ended().unwrap_or(SessionEnd::Died)));
    };
    let error = match exit.how {
        How::Exited(0) => return Ok(()),
        How::Exited(errno) => io::Error::from_raw_os_error(errno),
        How::Signalled(_) => io::Error::other("it was killed, most likely for want of memory"),
    };
    match error.kind() {
        io::ErrorKind::NotFound => Err(missing(path, &error)),
        kind => Err(Error::NotWritten {
            path: path.to_owned(),
            reason: error.to_string(),
            full: matches!(
                kind,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
        }),
    }
}
