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
    pub(super) kind: Kind,
    /// Its place among the boxes; none of a zygote, which is no box.
    pub(super) slot: Option<u32>,
    /// When it is killed whatever the server does.
    pub(super) deadline: Option<Instant>,
    /// Whether its programs are stopped, so that nobody has to look at them.
    pub(super) asleep: bool,
    /// Whether it was told to die: once is enough.
    pub(super) killed: bool,
}

/// What holds a box together, and so what ends it.
#[derive(Debug)]
pub(super) enum Kind {
    /// Namespaces: nobody in them outlives its init. A cgroup where there are any.
    Namespaced { cgroup: Option<Cgroup> },
    /// Uids: whoever has them must be killed, and what they left deleted.
    InPlace(Lodging),
}

/// A box's place on the machine itself, where it has no namespaces.
#[derive(Debug)]
pub(super) struct Lodging {
    room: Room,
    /// What ends it. None when it died, until there is another.
    closer: Option<Closer>,
    /// How often it was replaced.
    closers: u32,
    /// The memory that its programs may have, in bytes.
    memory: u64,
    /// The most that the warden saw of it, in bytes.
    peak: u64,
    /// How often they were killed for having more.
    kills: u64,
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
        if let Kind::Namespaced {
            cgroup: Some(cgroup),
        } = &self.kind
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

    /// Lets others have the processors first, or no more. Nothing without a cgroup.
    pub(super) fn idle(&self, idle: bool) {
        if let Kind::Namespaced {
            cgroup: Some(cgroup),
        } = &self.kind
            && let Err(error) = cgroup.idle(idle)
        {
            log(&error);
        }
    }

    /// What the phase waits for.
    pub(super) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        match (self.phase, &self.kind) {
            (Phase::Alive, _) => self.init.as_ref().map(|init| init.fd.as_fd()),
            (Phase::Kept, _) | (_, Kind::Namespaced { .. }) => None,
            (Phase::Killing, Kind::InPlace(lodging)) => {
                lodging.closer.as_ref().map(|closer| closer.socket.as_fd())
            }
            (Phase::Clearing, Kind::InPlace(lodging)) => {
                let closer = lodging.closer.as_ref();
                closer.map(|closer| closer.process.fd.as_fd())
            }
        }
    }

    /// The children of the warden that belong to it.
    pub(super) fn children(&mut self) -> impl Iterator<Item = &mut Awaited> {
        let closer = match &mut self.kind {
            Kind::Namespaced { .. } => None,
            Kind::InPlace(lodging) => lodging.closer.as_mut(),
        };
        let closer = closer.map(|closer| &mut closer.process);
        self.init.as_mut().into_iter().chain(closer)
    }

    /// Begins to kill its programs for good, after the end of its init. Says
    /// whether anybody can be left.
    pub(super) fn close(&mut self) -> bool {
        let Kind::InPlace(lodging) = &mut self.kind else {
            return false;
        };
        self.phase = Phase::Killing;
        lodging.kill();
        true
    }

    /// Goes on with what a lost closer did not do.
    pub(super) fn go_on(&mut self) {
        if let Kind::InPlace(lodging) = &mut self.kind
            && lodging.closer.is_none()
        {
            match self.phase {
                Phase::Alive | Phase::Kept => {}
                Phase::Killing => lodging.kill(),
                Phase::Clearing => lodging.clear(),
            }
        }
    }

    /// Whether all of its programs are dead.
    pub(super) fn is_closed(&mut self) -> bool {
        match &mut self.kind {
            Kind::Namespaced { .. } => self.init.is_none(),
            Kind::InPlace(lodging) => lodging.is_closed(),
        }
    }

    /// Whether all that it left is gone; `Some(false)` when that cannot be had.
    pub(super) fn is_cleared(&mut self) -> Option<bool> {
        match &mut self.kind {
            Kind::Namespaced { .. } => Some(true),
            Kind::InPlace(lodging) => lodging.is_cleared(),
        }
    }

    /// The uid of its programs, where it has no namespaces.
    pub(super) fn uid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Namespaced { .. } => None,
            Kind::InPlace(lodging) => Some(lodging.room.uid),
        }
    }

    /// Begins to delete what it left.
    pub(super) fn clear(&mut self) {
        self.phase = Phase::Clearing;
        if let Kind::InPlace(lodging) = &mut self.kind {
            lodging.clear();
        }
    }

    /// Whether its programs are being killed: what they had says nothing then of
    /// those that start next.
    pub(super) fn is_being_struck(&mut self) -> bool {
        match &mut self.kind {
            Kind::InPlace(lodging) => lodging.closer.as_mut().is_some_and(Closer::is_killing),
            Kind::Namespaced { .. } => false,
        }
    }

    /// Takes note of the memory its programs have, and kills them when it is
    /// more than they may.
    pub(super) fn look(&mut self, used: u64) {
        if let Kind::InPlace(lodging) = &mut self.kind
            && !lodging.keep_below(used)
        {
            self.kill();
        }
    }

    pub(super) fn usage(&self) -> Usage {
        match &self.kind {
            Kind::InPlace(lodging) => Usage {
                memory_peak: lodging.peak,
                oom_kills: lodging.kills,
                ..Usage::default()
            },
            Kind::Namespaced { cgroup: None } => Usage::default(),
            Kind::Namespaced {
                cgroup: Some(cgroup),
            } => cgroup.usage().unwrap_or_else(|error| {
                log(&error);
                Usage::default()
            }),
        }
    }
}

impl Lodging {
    /// The place of a box whose programs may have so many bytes of memory.
    pub(super) fn new(room: Room, closer: Closer, memory: u64) -> Self {
        Self {
            room,
            closer: Some(closer),
            closers: 0,
            memory,
            peak: 0,
            kills: 0,
        }
    }

    /// Has the programs killed, if need be by another closer.
    fn kill(&mut self) {
        self.tell(Closer::kill);
    }

    /// Has what they left deleted, if need be by another closer.
    fn clear(&mut self) {
        self.tell(Closer::clear);
    }

    /// A closer that died or failed is replaced, as soon as one can be had.
    fn tell(&mut self, what: fn(&mut Closer) -> bool) {
        if self.closer.as_mut().is_some_and(what) {
            return;
        }
        // Before the other one is let go of, which it takes for the warden's end.
        let started = Closer::start(&self.room);
        self.closer = None;
        self.closers += 1;
        match started {
            // One that cannot be told is dead already, and the next turn sees that.
            Ok(mut closer) => self.closer = what(&mut closer).then_some(closer),
            // Tried again at the next turn. Said once.
            Err(error) if self.closers == 1 => log(&error),
            Err(_) => {}
        }
    }

    /// Whether all of its programs are dead.
    fn is_closed(&mut self) -> bool {
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
    fn is_cleared(&mut self) -> Option<bool> {
        let code = self.closer.take().map_or(-1, |closer| closer.process.end());
        let removed = if code == 0 {
            self.room.remove()
        } else {
            let failed = std::io::Error::other(format!("the closer ended with {code}"));
            Err(Error::new(Step::ClearAway, failed))
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

    /// Takes note of the memory in use, and has the programs killed when it is
    /// more than they may have. Says whether that could be done.
    fn keep_below(&mut self, used: u64) -> bool {
        self.peak = self.peak.max(used.min(self.memory.saturating_mul(2)));
        if used <= self.memory {
            return true;
        }
        self.kills += 1;
        // Init goes on, tells how the program ended and may start another at once,
        // which must not be hit as well.
        self.closer.as_mut().is_some_and(Closer::strike)
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
