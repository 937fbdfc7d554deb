//! A range of host uids that is one server's alone.
//!
//! Two servers whose boxes had the same uids would meet through them: what one
//! kills by uid, what the kernel counts by uid. So a server that may choose
//! uids locks a directory which is named for their range, binds a name of the
//! network namespace (servers may have a `/tmp` each), and sees that nobody has
//! such a uid now. Whoever takes over the range of a dead server first ends what
//! that one left there.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{At, Error, Step};
use crate::{idmap, uids, watch};

/// Where the directories may be: the first that can be written to. Everybody
/// may pass through each of them.
const PLACES: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
/// Servers that may share this machine's uids.
const MAX_SERVERS: usize = 64;

/// A range of [`idmap::RANGE`] uids, and the directory that says whose it is.
#[derive(Debug)]
pub(crate) struct Claim {
    base: u32,
    directory: PathBuf,
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
        let mut refused = None;
        let mut taken = None;
        for base in idmap::free_bases()?.into_iter().take(MAX_SERVERS) {
            for place in PLACES.map(Path::new) {
                let found = Self::at(base, place, taken.is_none());
                let found = found.map_err(|error| error.with(place.display().to_string()));
                match found {
                    Ok(Some(claim)) if taken.is_none() => taken = Some(claim),
                    // A dead server's, of another range: it was cleared just now.
                    Ok(_) => {}
                    Err(error) if error.step == Step::Room => refused = Some(error),
                    Err(error) => return Err(error),
                }
                if taken.as_ref().is_some_and(|claim| claim.base == base) {
                    break;
                }
            }
        }
        let none = || {
            let none = io::Error::from(io::ErrorKind::NotFound);
            Error::new(Step::IdMap, none).with("no free range of uids")
        };
        taken.ok_or_else(|| refused.unwrap_or_else(none))
    }

    /// Takes a range with a directory in one place, which is only made if
    /// `make`; `None` when another server has it, somebody else made it, or
    /// there is none.
    fn at(base: u32, place: &Path, make: bool) -> Result<Option<Self>, Error> {
        let directory = place.join(format!("codex-server-{base:x}"));
        if !make && !directory.exists() {
            return Ok(None);
        }
        let Some(lock) = lock(&directory).at(Step::Room)? else {
            return Ok(None);
        };
        let Some(name) = bind(base).at(Step::Room)? else {
            return Ok(None);
        };
        let claim = Self {
            base,
            directory,
            _lock: lock,
            _name: name,
        };
        uids::clear_leftovers(&claim)?;
        let range = base..base.saturating_add(idmap::RANGE);
        Ok((!watch::is_anybody_of(&range)).then_some(claim))
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

/// Binds a range's name in this network namespace. `None` when it is taken.
fn bind(base: u32) -> io::Result<Option<OwnedFd>> {
    let kind = rustix::net::SocketType::STREAM;
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(rustix::net::AddressFamily::UNIX, kind, flags, None)?;
    let name = format!("codex-server-{base:x}");
    let name = rustix::net::SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    match rustix::net::bind(&socket, &name) {
        Ok(()) => Ok(Some(socket)),
        Err(rustix::io::Errno::ADDRINUSE) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens and locks a server's directory, made if need be. `None` when another
/// server has it, or somebody else made it.
fn lock(path: &Path) -> io::Result<Option<OwnedFd>> {
    match directory_of_ours(path, 0o711) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(path, flags, Mode::empty()) else {
        return Ok(None);
    };
    let stat = rustix::fs::fstat(&directory)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Ok(None);
    }
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    // Removed by its last owner before the lock was ours: another name then.
    let same = fs::symlink_metadata(path).is_ok_and(|now| now.ino() == stat.st_ino);
    Ok(same.then_some(directory))
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
            assert_eq!(lock(&path).unwrap().is_some(), taken, "{name}");
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
        assert!(held.is_some());
        assert!(lock(&path).unwrap().is_none());
        drop(held);
        assert!(lock(&path).unwrap().is_some());
    }
}
