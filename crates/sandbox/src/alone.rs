//! The rung `landlock`: boxes that have nothing of their own but a Landlock
//! domain. They run as the server's own uid, which must not be root.
//!
//! What a uid of its own holds elsewhere is held here so: signals by Landlock's
//! scoping, `/proc` and other processes' memory by its rule that only what is
//! within one's own domain can be looked into, files by its rules, files' modes
//! and the number of processes by asking the box's init ([`ask`]), the end of a
//! box by descent ([`closer`]). Where the kernel does not hold one of them the
//! rung is refused.
//!
//! It must never signal or count by uid: that is the server's, and its owner's.

mod ask;
mod closer;
mod descent;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::claim::{self, Lock, PLACES};
use crate::error::{At, Error, Step};
use crate::landlock;
use crate::omit::{Omit, omitted};
use crate::seccomp::Filter;
use crate::spec::Mount;
use crate::support::Isolation;
use crate::uids::{self, Closer, Room};
pub(crate) use ask::Asked;
#[cfg(test)]
pub(crate) use ask::decided;
pub(crate) use closer::{enclose, end_everybody, is_enclosed, only_close, start};
pub(crate) use descent::of as descendants_of;

/// Said to root.
pub(crate) const FOR_OTHERS: &str =
    "root owns the machine's own files: this rung is for an ordinary user";
/// Said where processes cannot be counted by descent.
pub(crate) const CHILDLESS: &str = "/proc does not list the children of a process";
/// Said where somebody else answers the system calls of programs.
pub(crate) const HEARD: &str = "another program answers system calls here";
/// Most boxes alive at once.
pub(crate) const SLOTS: u32 = 1024;
/// Servers of one user that may share this machine.
const MAX_SERVERS: u32 = 64;
/// The out-of-memory score of everything in a box but its closer.
const TAG: i32 = 587;
/// Tries to end what is left of a dead server's boxes, a few milliseconds apart.
const SWEEP_TRIES: u32 = 200;
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

/// A directory in which each box has its own.
#[derive(Debug)]
pub(crate) struct Alone {
    directory: PathBuf,
    /// Locked: as long as it is open, the directory is taken.
    _lock: OwnedFd,
}

impl Alone {
    /// Takes the first directory that no other server has, and ends what a dead
    /// one left in it.
    ///
    /// # Errors
    /// [`Step::Identity`] for root; [`Step::Room`] when no directory can be had.
    pub(crate) fn take() -> Result<Self, Error> {
        let uid = rustix::process::geteuid();
        if uid.is_root() || rustix::process::getuid() != uid {
            let root = Error::new(Step::Identity, rustix::io::Errno::PERM);
            return Err(root.with(FOR_OTHERS));
        }
        let mut refused = None;
        for number in 0..MAX_SERVERS {
            for place in PLACES.map(Path::new) {
                match Self::at(place, uid.as_raw(), number) {
                    Ok(Lock::Held(taken)) => return Ok(taken),
                    Ok(Lock::Foreign) => {}
                    Ok(Lock::InUse) => break,
                    Err(error) => {
                        refused.get_or_insert(error.with(place.display().to_string()));
                    }
                }
            }
        }
        let none = || Error::new(Step::Room, io::ErrorKind::AddrInUse).with("too many servers");
        Err(refused.unwrap_or_else(none))
    }

    fn at(place: &Path, uid: u32, number: u32) -> Result<Lock<Self>, Error> {
        // Programs are told, and the kernel tells, names without links in them.
        let place = fs::canonicalize(place).at(Step::Room)?;
        let directory = place.join(format!("codex-server-u{uid}-{number}"));
        // Closed to others: a program can make set-id files of the server's uid.
        let lock = match claim::lock(&directory, 0o700).at(Step::Room)? {
            Lock::Held(lock) => lock,
            Lock::InUse => return Ok(Lock::InUse),
            Lock::Foreign => return Ok(Lock::Foreign),
        };
        let taken = Self {
            directory,
            _lock: lock,
        };
        taken.clear_leftovers()?;
        claim::directory_of_ours(&taken.shared(), 0o755).at(Step::Room)?;
        Ok(Lock::Held(taken))
    }

    /// What every box can see, at its own path, of what is put there.
    pub(crate) fn shared(&self) -> PathBuf {
        self.directory.join(uids::SHARED)
    }

    /// Whether boxes have nearly filled the disk: the rest is for the machine.
    pub(crate) fn disk_is_nearly_full(&self) -> bool {
        uids::is_nearly_full(&self.directory)
    }

    /// Makes the directories of a box.
    ///
    /// # Errors
    /// As [`Room::made`].
    pub(crate) fn room(&self, slot: u32, mounts: &[Mount]) -> Result<Room, Error> {
        Room::of_the_servers(&self.directory, slot).made(mounts)
    }

    fn clear_leftovers(&self) -> Result<(), Error> {
        let mut swept = false;
        for entry in fs::read_dir(&self.directory).at(Step::Room)? {
            let name = entry.at(Step::Room)?.file_name();
            let slot = name.to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(slot) = slot.filter(|slot| *slot < SLOTS) else {
                continue;
            };
            if !std::mem::replace(&mut swept, true) {
                sweep()?;
            }
            let room = Room::of_the_servers(&self.directory, slot);
            if Closer::start(&room)?.finish() != 0 {
                let left = io::Error::other("something of a dead server's box is left");
                return Err(left).at(Step::ClearAway);
            }
            room.remove()?;
        }
        match fs::remove_dir_all(self.shared()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(Step::ClearAway),
            _ => Ok(()),
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Nothing of a box's was ever in the first. What stays, the next start finds.
        fs::remove_dir_all(self.shared()).ok();
        fs::remove_dir(&self.directory).ok();
    }
}

/// Makes a fork of init one of its programs, for good: in a domain of its own,
/// and with no call that is init's.
///
/// # Errors
/// The step that failed; the process must then end.
pub(crate) fn become_program(room: &Room, sources: &[OwnedFd]) -> Result<(), Error> {
    if !omitted(Omit::Domain) {
        landlock::enforce_in_place(Isolation::Landlock, sources, room.writable(), None)?;
        is_enclosed()?;
    }
    Filter::of_programs().install().at(Step::Seccomp)
}

/// Kills the children of this process that `is_known` does not know: orphans of
/// boxes whose closer and init are both dead, who cannot fork, since nobody is
/// left to allow it. Says whether there were any.
///
/// # Errors
/// When `/proc` cannot tell.
pub(crate) fn kill_strays(is_known: impl Fn(i32) -> bool) -> io::Result<bool> {
    let mut any = false;
    for pid in descent::children(std::process::id())? {
        let Ok(pid) = i32::try_from(pid) else {
            continue;
        };
        if !is_known(pid) {
            any = true;
            kill(pid);
        }
    }
    Ok(any)
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // ESRCH: it ended by itself meanwhile.
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }
}

/// Ends programs of a server whose closers and inits were all killed with it:
/// known by what they inherited and cannot change, and by having no closer.
fn sweep() -> Result<(), Error> {
    if score_of("self").at(Step::Kill)? >= TAG {
        // Here everybody is so marked; the container ends with its first process.
        return Ok(());
    }
    for _ in 0..SWEEP_TRIES {
        let left = orphans().at(Step::Kill)?;
        if left.is_empty() {
            return Ok(());
        }
        left.into_iter().for_each(kill);
        std::thread::sleep(SWEEP_PAUSE);
    }
    let left = io::Error::other("programs of a dead server do not end");
    Err(left).at(Step::ClearAway)
}

fn orphans() -> io::Result<Vec<i32>> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok())
            && let Some(process) = Process::of(pid, &uid)
        {
            processes.push(process);
        }
    }
    let find = |pid: i32| processes.iter().find(|each| each.pid == pid);
    let has_closer = |process: &Process| {
        let mut at = find(process.parent);
        // As many steps as there are processes: no more can be above.
        for _ in 0..processes.len() {
            match at {
                Some(above) if above.closer => return true,
                Some(above) => at = find(above.parent),
                None => return false,
            }
        }
        false
    };
    Ok(processes
        .iter()
        .filter(|each| each.tagged && !has_closer(each))
        .map(|each| each.pid)
        .collect())
}

/// A process of this user.
struct Process {
    pid: i32,
    parent: i32,
    closer: bool,
    tagged: bool,
}

impl Process {
    fn of(pid: i32, uid: &str) -> Option<Self> {
        let status = fs::read(format!("/proc/{pid}/status")).ok()?;
        let status = String::from_utf8_lossy(&status);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()
        };
        let dead = field("State:").is_none_or(|state| matches!(state, "Z" | "X"));
        if field("Uid:") != Some(uid) || dead {
            return None;
        }
        let confined = field("NoNewPrivs:") == Some("1") && field("Seccomp:") == Some("2");
        Some(Self {
            pid,
            parent: field("PPid:")?.parse().ok()?,
            closer: field("Name:") == Some("closer"),
            tagged: confined && score_of(&pid.to_string()).is_ok_and(|score| score == TAG),
        })
    }
}

fn score_of(process: &str) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/{process}/oom_score_adj"))?;
    text.trim().parse().map_err(io::Error::other)
}
