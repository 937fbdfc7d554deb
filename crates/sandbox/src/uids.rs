//! The rung without namespaces: boxes that are apart by uid, for root in a
//! plain container.
//!
//! A box has uids of its own. Its programs have the first; its init and its
//! closer each have another as real and saved uid and the programs' as
//! effective one, so that they can signal the programs and write their files,
//! and the programs can do neither to them (kill(2) compares a sender with the
//! real and saved uid of its target). What programs may open is Landlock's to
//! say, so the two directories of a box are the only ones that they write to.
//!
//! The closer is forked with the box and waits: to kill whoever has the
//! programs' uid, and to delete what they left. So neither needs a process
//! that might not be had when it is wanted, nothing privileged ever walks a tree
//! that a box has made, and a box ends even when its init and warden were killed.

mod standby;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use crate::claim::{Claim, directory_of_ours};
use crate::error::{At, Error, Step};
use crate::omit::{Omit, omitted};
use crate::spec::Mount;
use crate::sys::{self, Child};
use crate::{idmap, watch};
pub(crate) use standby::{Answer, Closer, Marker};

/// Uids of a box: its programs', its init's, its closer's, and one to spare.
const UIDS_A_BOX: u32 = 4;
/// Most boxes alive at once.
pub(crate) const SLOTS: u32 = idmap::RANGE / UIDS_A_BOX;
/// Uids below belong to the system's own users: nobody ever becomes one of them here.
const LOWEST: u32 = 65_536;
/// Between two tries to kill everybody.
const RETRY: Duration = Duration::from_millis(1);
/// Tries to kill everybody of a uid, a millisecond apart: the kernel needs one,
/// and a machine that swaps needs time.
const KILL_TRIES: u32 = 5_000;
/// Directories of a box that its programs may write to.
const WRITABLE: [&str; 2] = ["workspace", "tmp"];
/// Directory for what all boxes see, below the server's own.
const SHARED: &str = "shared";

/// Host files that a box may read although no runtime lends them: what tells
/// of the machine's shape and nothing of its other processes. Those that exist.
const READABLE: [&str; 7] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
];

/// What it takes to give boxes uids of their own.
const NEEDED: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Uids for boxes, and a directory in which each has its own.
#[derive(Debug)]
pub(crate) struct Uids {
    claim: Claim,
}

impl Uids {
    /// Claims uids.
    ///
    /// # Errors
    /// [`Step::Identity`] without the capabilities; [`Step::Room`] when no
    /// directory can be made; [`Step::IdMap`] when no range is free.
    pub(crate) fn claim() -> Result<Self, Error> {
        let held = rustix::thread::capabilities(None).at(Step::Identity)?;
        if !held.effective.contains(NEEDED) {
            return Err(Error::new(Step::Identity, rustix::io::Errno::PERM)
                .with("needs root with SETUID, SETGID, SETPCAP, CHOWN and DAC_OVERRIDE"));
        }
        let uids = Self {
            claim: Claim::take()?,
        };
        directory_of_ours(&uids.shared(), 0o755).at(Step::Room)?;
        Ok(uids)
    }

    /// What every box can see, at its own path, of what is put there. Only the
    /// server and the warden write to it.
    pub(crate) fn shared(&self) -> PathBuf {
        self.claim.directory().join(SHARED)
    }

    /// Whether boxes have nearly filled the disk: the rest is for the machine.
    pub(crate) fn disk_is_nearly_full(&self) -> bool {
        is_nearly_full(self.claim.directory())
    }

    /// Makes the directories of a box, and links for what would be mounted
    /// elsewhere in its root, had it one: programs that look around their
    /// working directory find it.
    ///
    /// # Errors
    /// [`Step::Room`]; `ENOSPC` when the disk is nearly full.
    pub(crate) fn room(&self, slot: u32, mounts: &[Mount]) -> Result<Room, Error> {
        let directory = self.claim.directory();
        if self.disk_is_nearly_full() {
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            let detail = format!("{} is nearly full: free some space", directory.display());
            return Err(Error::new(Step::Room, full).with(detail));
        }
        let room = Room::of(&self.claim, slot);
        match room.furnish(mounts) {
            Ok(()) => Ok(room),
            Err(error) => {
                // Nobody was ever in it.
                room.remove()?;
                Err(error)
            }
        }
    }
}

impl Room {
    fn furnish(&self, mounts: &[Mount]) -> Result<(), Error> {
        directory_of_ours(&self.path, 0o711).at(Step::Room)?;
        for path in self.writable() {
            directory_of_ours(&path, 0o700)
                .and_then(|()| std::os::unix::fs::lchown(&path, Some(self.uid), Some(self.uid)))
                .at(Step::Room)?;
        }
        for mount in mounts.iter().filter(|mount| mount.source != mount.target) {
            let link = self.seen(&mount.target.to_string_lossy());
            link.parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| std::os::unix::fs::symlink(&mount.source, &link))
                .at(Step::Room)
                .map_err(|error| error.with(mount.target.display().to_string()))?;
        }
        Ok(())
    }
}

impl Drop for Uids {
    fn drop(&mut self) {
        // Nothing of a box's was ever in there. What stays, the next start finds.
        fs::remove_dir_all(self.shared()).ok();
    }
}

/// Ends and removes the boxes of a server that could not do it itself.
///
/// # Errors
/// [`Step::ClearAway`], [`Step::Kill`].
pub(crate) fn clear_leftovers(claim: &Claim) -> Result<(), Error> {
    for entry in fs::read_dir(claim.directory()).at(Step::Room)? {
        let name = entry.at(Step::Room)?.file_name();
        let slot = name.to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(slot) = slot.filter(|slot| *slot < SLOTS) else {
            continue;
        };
        let room = Room::of(claim, slot);
        // One after the other: its init makes no more programs then.
        let ended = room.kill_init()?.end() == 0 && Closer::start(&room)?.finish() == 0;
        if !ended {
            let left = io::Error::other("something of a dead server's box is left");
            return Err(left).at(Step::ClearAway);
        }
        room.remove()?;
    }
    match fs::remove_dir_all(claim.directory().join(SHARED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(Step::ClearAway),
        _ => Ok(()),
    }
}

/// A box's own directory and uids.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    path: PathBuf,
    /// Of its programs, and of all that they make.
    pub(crate) uid: u32,
    init_uid: u32,
    closer_uid: u32,
}

impl Room {
    fn of(claim: &Claim, slot: u32) -> Self {
        let uid = claim.base() + slot * UIDS_A_BOX;
        Self {
            path: claim.directory().join(slot.to_string()),
            uid,
            init_uid: uid + 1,
            closer_uid: uid + 2,
        }
    }

    /// What the box has for `/workspace` or `/tmp`.
    pub(crate) fn seen(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// The directories that its programs may write to.
    pub(crate) fn writable(&self) -> impl Iterator<Item = PathBuf> {
        WRITABLE.into_iter().map(|name| self.path.join(name))
    }

    /// Makes this process the box's init, with capabilities still to be dropped.
    ///
    /// # Errors
    /// Whatever the kernel says; the process must then end.
    pub(crate) fn become_init(&self) -> io::Result<()> {
        become_over(self.uid, self.init_uid)
    }

    /// Makes a child of the box's init one of its programs, for good.
    ///
    /// # Errors
    /// Whatever the kernel says; the process must then end.
    pub(crate) fn become_program(&self) -> io::Result<()> {
        if omitted(Omit::Uid) {
            return Ok(());
        }
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }

    /// Starts to kill a box's init whose warden is gone. Programs cannot signal
    /// the killer.
    fn kill_init(&self) -> Result<Awaited, Error> {
        let uid = self.init_uid;
        match sys::fork().at(Step::Kill)? {
            Child::Pid(pid, _) => Awaited::of(pid),
            Child::Me => {
                let became = sys::close_range(3, u32::MAX)
                    .and_then(|()| become_over(uid, uid))
                    .and_then(|()| give_up_capabilities(uid, uid));
                sys::exit_now(became.map_or(2, |()| kill_everybody(uid)))
            }
        }
    }

    /// Removes the emptied directories, and what the warden put beside them.
    ///
    /// # Errors
    /// [`Step::ClearAway`] when something is left in them.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let gone = |removed: io::Result<()>| match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        for path in self.writable() {
            gone(fs::remove_dir(path)).at(Step::ClearAway)?;
        }
        // What is left is ours alone: links, and directories for them.
        gone(fs::remove_dir_all(&self.path)).at(Step::ClearAway)
    }
}

/// A child of the warden that will end.
#[derive(Debug)]
pub(crate) struct Awaited {
    pub(crate) pid: i32,
    /// Readable when it has ended.
    pub(crate) fd: OwnedFd,
    /// What it ended with, once it was reaped: -1 for a signal.
    pub(crate) code: Option<i32>,
}

impl Awaited {
    /// A child, and the descriptor that came with it.
    pub(crate) fn with(pid: i32, fd: OwnedFd) -> Self {
        Self {
            pid,
            fd,
            code: None,
        }
    }

    /// A child just forked.
    ///
    /// # Errors
    /// [`Step::Clone`].
    pub(crate) fn of(pid: i32) -> Result<Self, Error> {
        let found = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH);
        let fd = found
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .at(Step::Clone)?;
        Ok(Self::with(pid, fd))
    }

    /// Waits for it and says what it ended with.
    pub(crate) fn end(self) -> i32 {
        self.code.unwrap_or_else(|| {
            let waited = rustix::io::retry_on_intr(|| {
                rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED)
            });
            // Somebody else has reaped it, who would have told here: not done.
            let status = waited.ok().flatten();
            status.and_then(|status| status.exit_status()).unwrap_or(-1)
        })
    }
}

/// Becomes `own`, with the rights of `uid` over processes and files.
fn become_over(uid: u32, own: u32) -> io::Result<()> {
    if uid < LOWEST || own < LOWEST {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let group = Gid::from_raw(uid);
    let (uid, own) = (Uid::from_raw(uid), Uid::from_raw(own));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(own, uid, own)?;
    Ok(())
}

/// Drops every capability, and sees that it is `own` with the rights of `uid`:
/// what follows signals everybody it may.
fn give_up_capabilities(uid: u32, own: u32) -> io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    let held = rustix::thread::capabilities(None)?;
    let became = rustix::process::getuid().as_raw() == own
        && rustix::process::geteuid().as_raw() == uid
        && held.effective.is_empty()
        && held.permitted.is_empty();
    if became {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Kills until nobody of `uid`, over whom this process has rights, is left.
fn kill_everybody(uid: u32) -> i32 {
    for _ in 0..KILL_TRIES {
        // Succeeds whenever there are other processes at all, so that says nothing.
        sys::send_signal_to_all(libc::SIGKILL).ok();
        match watch::is_anybody(uid) {
            Ok(false) => return 0,
            Ok(true) => {}
            Err(_) => return 1,
        }
        std::thread::sleep(RETRY);
    }
    1
}

/// Deletes all that is below `path`, which nobody changes any more, however
/// deep it is and whatever its modes: directories are moved up to `path` and
/// emptied there.
fn clear(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::chmod(path, Mode::RWXU)?;
    empty(&rustix::fs::open(path, flags, Mode::empty())?)
}

/// Deletes all that is in a directory, however deep it is and whatever its modes.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn empty(top: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut moved = 0_u64;
    loop {
        let entries = entries(top)?;
        if entries.is_empty() {
            return Ok(());
        }
        for (name, kind) in entries {
            if kind != FileType::Directory {
                rustix::fs::unlinkat(top, &name, AtFlags::empty())?;
                continue;
            }
            rustix::fs::chmodat(top, &name, Mode::RWXU, AtFlags::empty())?;
            let below = rustix::fs::openat(top, &name, flags, Mode::empty())?;
            for (inner, kind) in self::entries(&below)? {
                if kind != FileType::Directory {
                    rustix::fs::unlinkat(&below, &inner, AtFlags::empty())?;
                    continue;
                }
                // To move a directory is to write its `..`.
                rustix::fs::chmodat(&below, &inner, Mode::RWXU, AtFlags::empty())?;
                loop {
                    moved += 1;
                    let free = format!("moved-{moved}");
                    let flags = rustix::fs::RenameFlags::NOREPLACE;
                    match rustix::fs::renameat_with(&below, &inner, top, free, flags) {
                        Ok(()) => break,
                        Err(rustix::io::Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
            }
            rustix::fs::unlinkat(top, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

fn entries(directory: &OwnedFd) -> io::Result<Vec<(std::ffi::CString, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_owned();
        if name.as_c_str() == c"." || name.as_c_str() == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        found.push((name, kind));
    }
    Ok(found)
}

/// Opens what a box may read: what `mounts` lend, which it sees where the host
/// has it, and what tells of the machine.
///
/// # Errors
/// [`Step::OpenMount`] with the path.
pub(crate) fn open(mounts: &[Mount]) -> Result<Vec<OwnedFd>, Error> {
    let mut opened = Vec::new();
    for mount in mounts {
        let name = |error: Error| error.with(mount.source.display().to_string());
        let found = fs::symlink_metadata(&mount.source)
            .at(Step::OpenMount)
            .map_err(name)?;
        // Where a link leads is lent, or not, by its own name.
        if !found.is_symlink() {
            opened.push(open_path(&mount.source).at(Step::OpenMount).map_err(name)?);
        }
    }
    let readable = READABLE.into_iter().map(Path::new);
    for path in readable.filter(|path| path.exists()) {
        opened.push(open_path(path).at(Step::OpenMount)?);
    }
    Ok(opened)
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whether a file system has less than a twentieth free, or 512 MiB of a large
/// one, or less than a twentieth of its inodes.
fn is_nearly_full(directory: &Path) -> bool {
    const MOST: u64 = 512 << 20;
    rustix::fs::statvfs(directory).is_ok_and(|stat| {
        let floor = (stat.f_blocks / 20).saturating_mul(stat.f_frsize);
        // Some file systems have no number of inodes, and say 0.
        stat.f_bavail.saturating_mul(stat.f_frsize) < floor.min(MOST)
            || stat.f_favail < stat.f_files / 20
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn anything_a_program_can_leave_is_deleted() {
        let top = tempfile::tempdir().unwrap();
        let place = |path: &str| top.path().join(path);
        fs::create_dir_all(place("a/b/c")).unwrap();
        fs::create_dir_all(place("moved-1/moved-2")).unwrap();
        fs::write(place("a/b/c/file"), "x").unwrap();
        fs::write(place("a/moved-3"), "x").unwrap();
        std::os::unix::fs::symlink("/", place("a/root")).unwrap();
        std::os::unix::fs::symlink("missing", place("dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            place("a/fifo"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        for path in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(place(path), fs::Permissions::from_mode(0o0)).unwrap();
        }
        clear(top.path()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    /// Deeper than any path that a system call takes.
    #[test]
    fn depth_is_no_refuge() {
        let top = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::open(top.path(), flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deeper", flags, Mode::empty()).unwrap();
        }
        clear(top.path()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn nobody_becomes_a_user_of_the_system() {
        for uid in [0, 1, 1000, 65_534, 65_535] {
            assert!(become_over(uid, 100_000).is_err(), "{uid}");
            assert!(become_over(100_000, uid).is_err(), "{uid}");
        }
    }
}
