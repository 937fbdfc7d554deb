//! A box as the warden knows it: what ends it, what it used, what it leaves.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::log;
use crate::cgroup::Cgroup;
use crate::error::{Error, Step};
use crate::limits::Usage;
use crate::uids::{Awaited, Room};

/// Between the first two tries to remove the cgroup of a dead box; then twice
/// as long each time.
pub(super) const REMOVAL_RETRY: Duration = Duration::from_millis(2);
/// The wait after which it is left to the next start.
const REMOVAL_GIVE_UP: Duration = Duration::from_secs(64);

/// How far a box has come. With namespaces it is gone with its init; without,
/// its programs are killed by uid then, and what they left is deleted once the
/// server has let go of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its init lives.
    Alive,
    /// Its init is dead, its programs are being killed.
    Killing,
    /// All of it is dead; the server may still read what it left.
    Kept,
    /// What it left is being deleted.
    Clearing,
}

/// A box.
#[derive(Debug)]
pub(super) struct LiveBox {
    pub(super) phase: Phase,
    /// Whose end ends the phase, if anybody's.
    pub(super) awaited: Option<Awaited>,
    /// Its other end shows init that the warden lives.
    pub(super) _lifeline: OwnedFd,
    pub(super) monitor: OwnedFd,
    pub(super) cgroup: Option<Cgroup>,
    /// Without namespaces: its directories and uids.
    pub(super) room: Option<Room>,
    pub(super) slot: u32,
    pub(super) deadline: Instant,
    /// Whether it was told to die: once is enough.
    pub(super) killed: bool,
    /// Without namespaces: what the warden saw of its memory.
    pub(super) seen: Seen,
}

/// What the warden saw of a box's memory.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The ceiling, in bytes.
    pub(super) limit: u64,
    peak: u64,
    kills: u64,
}

impl Seen {
    pub(super) fn up_to(limit: u64) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }
}

impl LiveBox {
    /// Whether the server may still say something of it.
    pub(super) fn listens(&self) -> bool {
        match self.phase {
            // A closed monitor would wake the warden again and again.
            Phase::Alive => !self.killed,
            Phase::Killing | Phase::Clearing => false,
            Phase::Kept => true,
        }
    }

    pub(super) fn kill(&mut self) {
        if self.killed || self.phase != Phase::Alive {
            return;
        }
        self.killed = true;
        // By cgroup and by pid namespace: a fork bomb outruns any list of pids.
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.kill()
        {
            log(&Error::new(Step::Kill, error));
        }
        if let Some(init) = &self.awaited
            && let Err(errno) = rustix::process::pidfd_send_signal(&init.fd, Signal::KILL)
            && errno != rustix::io::Errno::SRCH
        {
            log(&Error::new(Step::Kill, errno));
        }
    }

    /// Kills its programs, and leaves init to tell of it. Says whether that began.
    pub(super) fn kill_programs(&self) -> bool {
        match self.room.as_ref().map(Room::kill) {
            // The child is reaped with all others.
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                log(&error);
                false
            }
            None => false,
        }
    }

    /// Takes note of the memory its programs have, and kills them when it is
    /// more than they may.
    pub(super) fn look(&mut self, used: u64) {
        self.seen.peak = self
            .seen
            .peak
            .max(used.min(self.seen.limit.saturating_mul(2)));
        if used > self.seen.limit && self.kill_programs() {
            self.seen.kills += 1;
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let Some(cgroup) = &self.cgroup else {
            return Usage {
                memory_peak: self.seen.peak,
                oom_kills: self.seen.kills,
                ..Usage::default()
            };
        };
        cgroup.usage().unwrap_or_else(|error| {
            log(&error);
            Usage::default()
        })
    }
}

/// A dead box's cgroup that the kernel would not let go of yet.
#[derive(Debug)]
pub(super) struct Removal {
    cgroup: Cgroup,
    pub(super) next: Instant,
    wait: Duration,
}

impl Removal {
    pub(super) fn of(cgroup: Cgroup) -> Self {
        Self {
            cgroup,
            next: Instant::now() + REMOVAL_RETRY,
            wait: REMOVAL_RETRY,
        }
    }

    /// Tries again; says whether this is over.
    pub(super) fn again(&mut self) -> bool {
        let Err(error) = self.cgroup.remove() else {
            return true;
        };
        if self.wait >= REMOVAL_GIVE_UP {
            // The next start of a server sweeps it.
            log(&Error::new(Step::CgroupRemove, error));
            return true;
        }
        self.wait *= 2;
        self.next = Instant::now() + self.wait;
        false
    }
}
