//! Files that runs left, kept for a while and served by signed links.
//!
//! They lie in `artifacts/` of the data directory under random ids of our
//! own; a name that user code chose is never part of a path. Everything is
//! bounded: how long, how many, how much in all. At a bound the oldest goes, of
//! the key that holds most. A file that cannot be kept is not offered; that
//! never fails a run.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::data_dir;

use crate::media::tidy_name;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod link;
mod owned;
mod record;
mod shelf;

use link::SigningKey;
pub use link::{BadLink, Signature};
pub use owned::OwnedFiles;
use record::Record;
use shelf::Shelf;

/// Name of the folder in the data directory.
pub(crate) const FOLDER: &str = "artifacts";

/// What the name of a file that is being written ends with.
const UNFINISHED: &str = ".part";

/// How often what has ended is removed.
const SWEEP: Duration = Duration::from_secs(10);

/// Bytes of the disk that kept files leave free: else who fills it with files
/// could not be shut out any more, since the database needs room to revoke.
pub(crate) const RESERVE: u64 = 32 * 1024 * 1024;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long each is kept.
    pub lifetime: Duration,
    /// Bytes of all together; 0 keeps nothing.
    pub bytes: u64,
    /// How many there may be; 0 keeps nothing.
    pub count: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(3600),
            bytes: 1 << 30,
            count: 10_000,
        }
    }
}

/// An artifact's id: 128 random bits, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

impl Id {
    fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !digits {
            return Err(());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| ())?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// The folder or the key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step} {}: {source}. Make it readable and writable for this user, or name another data directory with --home DIR or CODEX_HOME", path.display())]
pub struct OpenError {
    /// What was being done.
    pub step: &'static str,
    /// To what.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// Why a file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Keeping files is switched off.
    #[error("this server keeps no files")]
    Off,
    /// It is over the bound, alone or with others of its key.
    #[error("it is more than may be kept in all")]
    TooLarge,
    /// It would drive out files of keys that hold less than its own.
    #[error("there is no room beside the files of other keys")]
    Crowded,
    /// It would take the last of the disk, which the server needs itself.
    #[error("the disk of the data directory has no room beyond the server's own reserve")]
    Full,
    /// The disk failed.
    #[error("failed to {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// A file that is being kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: Id,
    /// The name it is served under: tidied, never a path.
    pub name: String,
    /// The id of the key whose run made it.
    pub owner: String,
    /// Bytes of the content.
    pub size: u64,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Where the content begins in its file.
    head: u64,
    /// When it was kept, in microseconds since 1970.
    made: u64,
}

/// All kept files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Artifacts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    bounds: Bounds,
    key: SigningKey,
    shelf: Mutex<Shelf>,
    /// Bytes of the files that are being written; changed under the shelf's lock.
    writing: AtomicU64,
}

impl Artifacts {
    /// Opens the folder in `home`, takes over what is still good there and
    /// removes the rest.
    ///
    /// # Errors
    /// When the folder or the key cannot be made or read.
    pub fn open(home: &Path, bounds: Bounds) -> Result<Self, OpenError> {
        let folder = home.join(FOLDER);
        make_folder(&folder)?;
        let key = SigningKey::open(home)?;
        let mut shelf = Shelf::default();
        let now = now().as_secs();
        for (id, path) in files(&folder)? {
            match id.and_then(|id| whole(id, &path)) {
                Some(kept) if kept.expires > now => shelf.put(kept),
                _ => remove(&path),
            }
        }
        for id in shelf.make_room(&bounds, "", None).unwrap_or_default() {
            remove(&folder.join(id.to_string()));
        }
        Ok(Self::with(folder, bounds, key, shelf))
    }

    /// Opens the folder in `home` beside a server that may be using it: takes
    /// nothing over and removes nothing but its own. Each of both keeps to the
    /// bounds for itself.
    ///
    /// # Errors
    /// When the folder or the key cannot be made or read.
    pub fn open_beside(home: &Path, bounds: Bounds) -> Result<Self, OpenError> {
        let folder = home.join(FOLDER);
        make_folder(&folder)?;
        let key = SigningKey::open(home)?;
        Ok(Self::with(folder, bounds, key, Shelf::default()))
    }

    fn with(folder: PathBuf, bounds: Bounds, key: SigningKey, shelf: Shelf) -> Self {
        Self {
            inner: Arc::new(Inner {
                folder,
                bounds,
                key,
                shelf: Mutex::new(shelf),
                writing: AtomicU64::new(0),
            }),
        }
    }

    /// Returns what this server's own key makes of data for another purpose than
    /// links. The key is a file beside the database, and not in it.
    #[must_use]
    pub(crate) fn derive(&self, purpose: &[u8], data: &[u8]) -> [u8; 32] {
        self.inner.key.derive(purpose, data)
    }

    /// Keeps a file. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be kept; nothing is left of it then.
    pub fn keep(&self, owner: &str, name: &str, content: &[u8]) -> Result<Kept, KeepError> {
        let io = |step| move |source| KeepError::Io { step, source };
        let Bounds {
            lifetime,
            bytes,
            count,
        } = self.inner.bounds;
        let size = content.len() as u64;
        if bytes == 0 || count == 0 {
            return Err(KeepError::Off);
        }
        let id = Id::random().map_err(io("name the file"))?;
        let made = now();
        let record = Record {
            name: tidy_name(name),
            owner: owner.to_owned(),
            size,
            made: u64::try_from(made.as_micros()).unwrap_or(u64::MAX),
            expires: (made + lifetime).as_secs(),
        };
        if size > bytes {
            return Err(KeepError::TooLarge);
        }
        let mut place = Reserved::new(&self.inner, owner, size)?;
        let path = self.path(id);
        let head = write(&path, &record, content).map_err(io("write the file"))?;
        let kept = kept(id, record, head);
        place.written = Some(kept.clone());
        Ok(kept)
    }

    /// What is kept under this id and name and has not ended.
    #[must_use]
    pub fn find(&self, id: Id, name: &str) -> Option<Kept> {
        let found = self.shelf().get(id).cloned()?;
        (found.name == name && found.expires > now().as_secs()).then_some(found)
    }

    /// `length` bytes of the content from `begin` on. Blocks on the disk. The
    /// file is open no longer than that: else who reads slowly could hold room
    /// on the disk that is counted to nobody any more.
    ///
    /// # Errors
    /// When the file is gone or cannot be read.
    pub fn part(&self, kept: &Kept, begin: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = data_dir::open(&self.path(kept.id), OpenOptions::new().read(true))?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, kept.head.saturating_add(begin))?;
        Ok(bytes)
    }

    /// Removes one; says whether it was there.
    pub fn remove(&self, id: Id) -> bool {
        let taken = self.shelf().take(id).is_some();
        if taken {
            remove(&self.path(id));
        }
        taken
    }

    /// The path and query of a link to it, beginning with a slash; the link
    /// ends when the file does.
    #[must_use]
    pub fn link(&self, kept: &Kept) -> String {
        self.inner.key.link(kept.id, &kept.name, kept.expires)
    }

    /// Checks what a link says, without looking whether there is such a file.
    ///
    /// # Errors
    /// When this server did not sign it, or it has ended.
    pub fn check(&self, id: Id, name: &str, signature: &Signature) -> Result<(), BadLink> {
        self.inner.key.check(id, name, signature, now().as_secs())
    }

    /// How long each file is kept.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.inner.bounds.lifetime
    }

    /// Removes all that this process knows of.
    pub fn clear(&self) {
        let gone = self.shelf().ended(u64::MAX);
        for id in gone {
            self.remove(id);
        }
    }

    /// Removes what has ended.
    pub fn sweep(&self) {
        let gone = self.shelf().ended(now().as_secs());
        for id in gone {
            self.remove(id);
        }
    }

    /// Sweeps for ever.
    pub async fn sweep_always(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let artifacts = self.clone();
            // A panic in there is logged by the runtime and costs one sweep.
            drop(tokio::task::spawn_blocking(move || artifacts.sweep()).await);
        }
    }

    fn path(&self, id: Id) -> PathBuf {
        self.inner.folder.join(id.to_string())
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.inner.shelf()
    }
}

impl Inner {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that is set aside while a file is written. When dropped, the written
/// file takes it over, or nobody.
struct Reserved<'a> {
    inner: &'a Inner,
    owner: &'a str,
    size: u64,
    written: Option<Kept>,
}

impl<'a> Reserved<'a> {
    fn new(inner: &'a Inner, owner: &'a str, size: u64) -> Result<Self, KeepError> {
        // Under the lock, so that no two files count the same room.
        let mut shelf = inner.shelf();
        let disk = rustix::fs::statvfs(&inner.folder).map_err(|error| KeepError::Io {
            step: "look at the disk",
            source: error.into(),
        })?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let taken = inner.writing.load(Ordering::Relaxed).saturating_add(size);
        if free < RESERVE.saturating_add(taken) {
            return Err(KeepError::Full);
        }
        let gone = shelf.make_room(&inner.bounds, owner, Some(size));
        let gone = gone.ok_or(KeepError::Crowded)?;
        shelf.reserve(owner, size);
        inner.writing.fetch_add(size, Ordering::Relaxed);
        drop(shelf);
        for id in gone {
            remove(&inner.folder.join(id.to_string()));
        }
        Ok(Self {
            inner,
            owner,
            size,
            written: None,
        })
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut shelf = self.inner.shelf();
        self.inner.writing.fetch_sub(self.size, Ordering::Relaxed);
        match self.written.take() {
            Some(kept) => shelf.place(kept),
            None => shelf.unreserve(self.owner, self.size),
        }
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn kept(id: Id, record: Record, head: u64) -> Kept {
    Kept {
        id,
        name: record.name,
        owner: record.owner,
        size: record.size,
        expires: record.expires,
        head,
        made: record.made,
    }
}

/// How many files lie in the folder of `home`, and their bytes, for whoever
/// has no shelf of their own; none when there is no folder yet.
///
/// # Errors
/// When the folder cannot be read.
pub fn on_disk(home: &Path) -> Result<(usize, u64), OpenError> {
    let folder = home.join(FOLDER);
    if !folder.exists() {
        return Ok((0, 0));
    }
    let files = files(&folder)?;
    let sizes = files.iter().filter_map(|(_, path)| path.metadata().ok());
    Ok((files.len(), sizes.map(|found| found.len()).sum()))
}

fn make_folder(folder: &Path) -> Result<(), OpenError> {
    let made = data_dir::make_folder(folder, 0o700);
    made.map(drop).map_err(|source| OpenError {
        step: "make the folder",
        path: folder.to_owned(),
        source,
    })
}

/// Every file of the folder, with its id where the name is one.
fn files(folder: &Path) -> Result<Vec<(Option<Id>, PathBuf)>, OpenError> {
    let failed = |source| OpenError {
        step: "read the folder",
        path: folder.to_owned(),
        source,
    };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let ours = entries.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let bare = name.strip_suffix(UNFINISHED).unwrap_or(&name);
        // Anything else somebody put there by hand: it is not ours to remove.
        let id = bare.parse().ok()?;
        Some(((bare == name).then_some(id), entry.path()))
    });
    Ok(ours.collect())
}

/// What a file of the folder holds, if it is whole.
fn whole(id: Id, path: &Path) -> Option<Kept> {
    let mut file = data_dir::open(path, OpenOptions::new().read(true)).ok()?;
    let found = file.metadata().ok()?;
    let (record, head) = Record::read(&mut file)?;
    let tidy = record.name == tidy_name(&record.name);
    (tidy && found.len() == head.checked_add(record.size)?).then(|| kept(id, record, head))
}

/// Writes a file under another name first, so that it is whole or absent.
fn write(path: &Path, record: &Record, content: &[u8]) -> io::Result<u64> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            let head = record.write(&mut file)?;
            file.write_all(content)?;
            fs::rename(&unfinished, path)?;
            Ok(head)
        });
    if written.is_err() {
        remove(&unfinished);
    }
    written
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "failed to remove an artifact");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
