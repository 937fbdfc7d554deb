//! A box as the warden knows it: what ends it, what it used, what it leaves.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::log;
use crate::cgroup::Cgroup;
use crate::error::{Error, Step};
use crate::limits::Usage;
use crate::uids::{Answer, Awaited, Closer, Room};

/// Between the first two tries to remove the cgroup of a dead box; then twice
/// as long each time.
pub(super) const REMOVAL_RETRY: Duration = Duration::from_millis(2);
/// The wait after which it is left to the next start.
const REMOVAL_GIVE_UP: Duration = Duration::from_secs(64);

/// Closers that may fail to delete what a box left.
const CLEAR_TRIES: u32 = 8;

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
    /// Until it is reaped.
    pub(super) init: Option<Awaited>,
    /// Its other end shows init that the warden lives.
    pub(super) _lifeline: OwnedFd,
    pub(super) monitor: OwnedFd,
    pub(super) cgroup: Option<Cgroup>,
    /// Without namespaces: its directories and uids.
    pub(super) room: Option<Room>,
    /// Without namespaces: what ends it. None when it died, until there is another.
    pub(super) closer: Option<Closer>,
    /// How often it was replaced.
    pub(super) closers: u32,
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
        if let Some(init) = &self.init
            && let Err(errno) = rustix::process::pidfd_send_signal(&init.fd, Signal::KILL)
            && errno != rustix::io::Errno::SRCH
        {
            log(&Error::new(Step::Kill, errno));
        }
    }

    /// What the phase waits for.
    pub(super) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        let closer = self.closer.as_ref();
        match self.phase {
            Phase::Alive => self.init.as_ref().map(|init| init.fd.as_fd()),
            Phase::Killing => closer.map(|closer| closer.socket.as_fd()),
            Phase::Kept => None,
            Phase::Clearing => closer.map(|closer| closer.process.fd.as_fd()),
        }
    }

    /// The children of the warden that belong to it.
    pub(super) fn children(&mut self) -> impl Iterator<Item = &mut Awaited> {
        let closer = self.closer.as_mut().map(|closer| &mut closer.process);
        self.init.as_mut().into_iter().chain(closer)
    }

    /// Begins to kill its programs for good, or goes on after a failure.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Killing;
        if self.closer.as_mut().is_none_or(|closer| !closer.kill()) {
            self.replace_closer();
        }
    }

    /// A closer that died or failed is replaced, as soon as one can be had.
    fn replace_closer(&mut self) {
        let started = self.room.as_ref().map(Closer::start);
        self.closer = None;
        self.closers += 1;
        match started {
            Some(Ok(mut closer)) => {
                let told = match self.phase {
                    Phase::Clearing => closer.clear(),
                    _ => closer.kill(),
                };
                // Else it is dead already, and the next turn sees that.
                self.closer = told.then_some(closer);
            }
            // Tried again at the next turn. Said once.
            Some(Err(error)) if self.closers == 1 => log(&error),
            Some(Err(_)) | None => {}
        }
    }

    /// Goes on with what a lost closer did not do.
    pub(super) fn go_on(&mut self) {
        let ends = matches!(self.phase, Phase::Killing | Phase::Clearing);
        if ends && self.closer.is_none() {
            self.replace_closer();
        }
    }

    /// Whether all of its programs are dead.
    pub(super) fn is_closed(&mut self) -> bool {
        match self.closer.as_mut().map(Closer::answer) {
            Some(Answer::Done) => true,
            Some(Answer::Waiting) => false,
            Some(Answer::Failed) | None => {
                // Asked again rather than let go of: alone it would delete what
                // the server has not read yet.
                if self.closer.as_mut().is_none_or(|closer| !closer.kill()) {
                    self.closer = None;
                }
                false
            }
        }
    }

    /// Whether all that it left is gone; `Some(false)` when that cannot be had.
    pub(super) fn is_cleared(&mut self) -> Option<bool> {
        let code = self.closer.take().map_or(-1, |closer| closer.process.end());
        let removed = match &self.room {
            Some(room) if code == 0 => room.remove(),
            _ => {
                let failed = std::io::Error::other(format!("the closer ended with {code}"));
                Err(Error::new(Step::ClearAway, failed))
            }
        };
        match removed {
            Ok(()) => Some(true),
            Err(error) if self.closers > CLEAR_TRIES => {
                log(&error);
                Some(false)
            }
            // The next turn tries again.
            Err(_) => None,
        }
    }

    /// Begins to delete what it left.
    pub(super) fn clear(&mut self) {
        self.phase = Phase::Clearing;
        if self.closer.as_mut().is_none_or(|closer| !closer.clear()) {
            self.replace_closer();
        }
    }

    /// Takes note of the memory its programs have, and kills them when it is
    /// more than they may.
    pub(super) fn look(&mut self, used: u64) {
        self.seen.peak = self
            .seen
            .peak
            .max(used.min(self.seen.limit.saturating_mul(2)));
        if used <= self.seen.limit {
            return;
        }
        let Some(closer) = &mut self.closer else {
            self.seen.kills += 1;
            return self.kill();
        };
        if closer.is_killing() {
            return;
        }
        self.seen.kills += 1;
        // Init goes on, and tells how the program ended.
        if !closer.kill() {
            self.kill();
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
