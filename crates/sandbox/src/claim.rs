//! A range of host uids that is one server's alone.
//!
//! Two servers whose boxes had the same uids would meet through them: what one
//! kills by uid, what the kernel counts by uid. So a server that may choose
//! uids locks a directory which is named for their range, binds a name of the
//! network namespace (servers may have a `/tmp` each), keeps a process of such a
//! uid (they may have a network each), and sees that nobody else has one. Whoever
//! takes over the range of a dead server first ends what that one left there.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{At, Error, Step};
use crate::uids::Marker;
use crate::{idmap, uids, warden, watch};

/// Where the directories may be: the first that can be written to. Everybody
/// may pass through each of them.
const PLACES: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
/// Servers that may share this machine's uids.
const MAX_SERVERS: usize = 64;
/// Directories and names begin with it; the range's first uid follows, in hex.
const PREFIX: &str = "codex-server-";
/// How often, and how long between, is looked whether killed processes are gone.
const DESERTION_TRIES: u32 = 200;
const DESERTION_PAUSE: Duration = Duration::from_millis(5);

/// A range of [`idmap::RANGE`] uids, and the directory that says whose it is.
#[derive(Debug)]
pub(crate) struct Claim {
    base: u32,
    directory: PathBuf,
    /// Shows other servers that the range is taken.
    _marker: Marker,
    /// Locked: as long as it is open, the range is taken.
    _lock: OwnedFd,
    /// Bound to the range's name.
    _name: OwnedFd,
}

impl Claim {
    /// Takes the first range that no other server has, and ends what dead
    /// servers left behind.
    ///
    /// # Errors
    /// [`Step::Room`] when no directory can be made; [`Step::IdMap`] when no
    /// range is free.
    pub(crate) fn take() -> Result<Self, Error> {
        let mut bases = idmap::free_bases()?;
        sweep(&bases);
        // Containers of one machine do not see each other, and the machine sees
        // them all: each begins elsewhere.
        let start = usize::try_from(pid_namespace()).unwrap_or_default() % bases.len().max(1);
        bases.rotate_left(start);
        let mut refused = None;
        for base in bases.into_iter().take(MAX_SERVERS) {
            for place in PLACES.map(Path::new) {
                match Self::at(base, place, true) {
                    Ok(Found::Free(claim)) => return Ok(claim),
                    Ok(Found::Foreign) => {}
                    // Whatever the place, the range is not to be had.
                    Ok(Found::InUse) => break,
                    Err(error) => {
                        refused.get_or_insert(error.with(place.display().to_string()));
                    }
                }
            }
        }
        let none = || {
            let none = io::Error::from(io::ErrorKind::NotFound);
            Error::new(Step::IdMap, none).with("no free range of uids")
        };
        Err(refused.unwrap_or_else(none))
    }

    /// Takes a range with a directory in one place, made if need be or only
    /// taken over. Leaves no directory of its own making when that fails.
    fn at(base: u32, place: &Path, make: bool) -> Result<Found, Error> {
        let directory = place.join(format!("{PREFIX}{base:x}"));
        if !make && !directory.exists() {
            return Ok(Found::Foreign);
        }
        let lock = match lock(&directory).at(Step::Room)? {
            Lock::Held(lock) => lock,
            Lock::InUse => return Ok(Found::InUse),
            Lock::Foreign => return Ok(Found::Foreign),
        };
        let (name, marker) = match mark(base) {
            Ok(Some(both)) => both,
            other => {
                // Still locked, so nobody else's; and stays if anything is in it.
                fs::remove_dir(&directory).ok();
                return other.map(|_| Found::InUse);
            }
        };
        let claim = Self {
            base,
            directory,
            _marker: marker,
            _lock: lock,
            _name: name,
        };
        uids::clear_leftovers(&claim)?;
        Ok(if claim.is_deserted()? {
            Found::Free(claim)
        } else {
            Found::InUse
        })
    }

    /// Whether nobody but the marker has a uid of the range. Those who were
    /// killed just now count against the kernel's limits until they are reaped.
    fn is_deserted(&self) -> Result<bool, Error> {
        let range = self.base..self.base.saturating_add(idmap::RANGE);
        for _ in 0..DESERTION_TRIES {
            if watch::how_many_of(&range).at(Step::IdMap)? == 1 {
                return Ok(true);
            }
            std::thread::sleep(DESERTION_PAUSE);
        }
        Ok(false)
    }

    /// The first uid.
    pub(crate) fn base(&self) -> u32 {
        self.base
    }

    /// The server's own directory. Everybody may enter it and nobody list it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// What came of asking for a range.
#[derive(Debug)]
enum Found {
    Free(Claim),
    /// Another server has it, or somebody else has its uids.
    InUse,
    /// The directory of its name is not this server's to take.
    Foreign,
}

/// Binds a range's name and starts its marker; `None` when another server has
/// the range. Before anybody is killed: a server with another `/tmp` and another
/// network may be among the processes that are seen here.
fn mark(base: u32) -> Result<Option<(OwnedFd, Marker)>, Error> {
    let Some(name) = bind(base).at(Step::Room)? else {
        return Ok(None);
    };
    let uid = Marker::uid(base);
    let marked = || watch::how_many_of(&(uid..uid + 1)).at(Step::IdMap);
    if marked()? > 0 {
        return Ok(None);
    }
    let marker = Marker::start(base)?;
    // Two that look at once both see two, and both go on.
    Ok((marked()? == 1).then_some((name, marker)))
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Not empty when a box could not be cleared away: the next start tries again.
        fs::remove_dir(&self.directory).ok();
    }
}

/// A new directory of exactly this mode.
pub(crate) fn directory_of_ours(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Ends what dead servers left behind, whichever range they had. What cannot be
/// ended stays for the next start, and its range is not taken.
fn sweep(bases: &[u32]) {
    for place in PLACES.map(Path::new) {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let base = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let base = base.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let Some(base) = base.filter(|base| bases.contains(base)) else {
                continue;
            };
            // A claim is dropped at once, and its directory, empty now, with it.
            if let Err(error) = Claim::at(base, place, false) {
                warden::log(&error);
            }
        }
    }
}

/// What tells this pid namespace from others, and stays while it lives.
fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

/// Binds a range's name in this network namespace. `None` when it is taken.
fn bind(base: u32) -> io::Result<Option<OwnedFd>> {
    let kind = rustix::net::SocketType::STREAM;
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(rustix::net::AddressFamily::UNIX, kind, flags, None)?;
    let name = format!("{PREFIX}{base:x}");
    let name = rustix::net::SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    match rustix::net::bind(&socket, &name) {
        Ok(()) => Ok(Some(socket)),
        Err(rustix::io::Errno::ADDRINUSE) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A server's directory, as it was found.
#[derive(Debug)]
enum Lock {
    Held(OwnedFd),
    /// Another server has it.
    InUse,
    /// Somebody else made it.
    Foreign,
}

/// Opens and locks a server's directory, made if need be.
fn lock(path: &Path) -> io::Result<Lock> {
    match directory_of_ours(path, 0o711) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(path, flags, Mode::empty()) else {
        return Ok(Lock::Foreign);
    };
    let stat = rustix::fs::fstat(&directory)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Ok(Lock::Foreign);
    }
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Lock::InUse),
        Err(errno) => return Err(errno.into()),
    }
    // Removed by its last owner before the lock was ours: another name then.
    let same = fs::symlink_metadata(path).is_ok_and(|now| now.ino() == stat.st_ino);
    Ok(if same {
        Lock::Held(directory)
    } else {
        Lock::InUse
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_somebody_elses_is_not_taken() {
        let place = tempfile::tempdir().unwrap();
        let check = |name: &str, make: &dyn Fn(&Path), taken: bool| {
            let path = place.path().join(name);
            make(&path);
            let found = lock(&path).unwrap();
            assert_eq!(matches!(found, Lock::Held(_)), taken, "{name}");
            assert_eq!(matches!(found, Lock::Foreign), !taken, "{name}");
        };
        let ours = |mode| move |path: &Path| directory_of_ours(path, mode).unwrap();
        check("new", &|_| {}, true);
        check("ours", &ours(0o711), true);
        check("open", &ours(0o777), false);
        check("file", &|path| fs::write(path, "").unwrap(), false);
        let link = |path: &Path| std::os::unix::fs::symlink("/tmp", path).unwrap();
        check("link", &link, false);
        let path = place.path().join("locked");
        let held = lock(&path).unwrap();
        assert!(matches!(held, Lock::Held(_)));
        assert!(matches!(lock(&path).unwrap(), Lock::InUse));
        drop(held);
        assert!(matches!(lock(&path).unwrap(), Lock::Held(_)));
    }
}
