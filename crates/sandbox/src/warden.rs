//! The warden: one single-threaded process, started before the server has
//! threads, that makes and ends every box.
//!
//! It is this binary again, with an empty environment and one socket. It
//! holds the rights that boxes are made with and sees no user's data: specs
//! and limits only. It must never read a file that a box can write, and never
//! wait for a box.

mod create;
mod ground;
mod live;
mod zygote;

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::Shutdown;
use rustix::process::WaitOptions;
use rustix::time::Timespec;

use crate::cgroup::{Cgroup, Cgroups};
use crate::error::{Error, Step};
use crate::omit::{Omit, omitted};
use crate::protocol::{self, Frame, Received};
use crate::seccomp::Filter;
use crate::support::Isolation;
use crate::sys;
use crate::watch;
use ground::Ground;
use live::{Kind, LiveBox, Phase, REMOVAL_RETRY, Removal};

/// How long the end of all boxes may take when the server is gone.
const END_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two looks at the memory of boxes by uid.
const LOOK: Duration = Duration::from_millis(20);
/// The same of boxes whose programs are stopped, by signals that a program may have
/// the kernel take back.
const LOOK_ASLEEP: Duration = Duration::from_secs(3);
/// Between two tries to reap while boxes are killed by uid.
const REAP: Duration = Duration::from_millis(2);

/// Runs the warden on its socket until the server is gone.
pub(crate) fn run(socket: OwnedFd, rung: Isolation) -> i32 {
    sys::ignore_signals(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE]);
    // Out of the terminal's foreground group: Ctrl-C is for the server to handle.
    // Fails only for a group leader, which a fresh child is not.
    rustix::process::setsid().ok();
    let mut warden = match Warden::prepare(socket, rung) {
        Ok(warden) => warden,
        Err((socket, error)) => {
            drop(protocol::send(&socket, &Frame::from(&error), &[]));
            return 1;
        }
    };
    let result = warden.serve();
    warden.end_all();
    i32::from(result.is_err())
}

struct Warden {
    socket: OwnedFd,
    isolation: Isolation,
    ground: Ground,
    cgroups: Option<Cgroups>,
    filter: Filter,
    boxes: Vec<LiveBox>,
    /// Cgroups of dead boxes that the kernel would not let go of yet.
    unremoved: Vec<Removal>,
    free: Vec<u32>,
    made: u64,
    /// When the memory of boxes was last looked at.
    looked: Instant,
    /// When that of boxes that are asleep was.
    looked_at_sleepers: Instant,
    /// The server is gone, and nobody will read what boxes left.
    ending: bool,
}

impl Warden {
    fn prepare(socket: OwnedFd, rung: Isolation) -> Result<Self, (OwnedFd, Error)> {
        match Ground::prepare(rung) {
            Ok((ground, cgroups)) => {
                let hello = Frame::Hello {
                    cgroup: cgroups.as_ref().map(Cgroups::describe).unwrap_or_default(),
                    own_uids: ground.own_uids(),
                    shared: match &ground {
                        Ground::Namespaces { .. } => std::path::PathBuf::new(),
                        Ground::Uids(uids) => uids.shared(),
                    },
                };
                if let Err(error) = protocol::send(&socket, &hello, &[]) {
                    return Err((socket, Error::new(Step::Warden, error)));
                }
                Ok(Self {
                    socket,
                    isolation: rung,
                    free: (0..ground.slots()).rev().collect(),
                    ground,
                    filter: Filter::new(rung),
                    cgroups,
                    boxes: Vec::new(),
                    unremoved: Vec::new(),
                    made: 0,
                    looked: Instant::now(),
                    looked_at_sleepers: Instant::now(),
                    ending: false,
                })
            }
            Err(error) => Err((socket, error)),
        }
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let ready = self.wait()?;
            self.turn(ready.boxes);
            if ready.server && !self.hear_server()? {
                return Ok(());
            }
        }
    }

    /// Does what is due for boxes.
    fn turn(&mut self, boxes: Vec<Events>) {
        self.reap_orphans();
        for (index, events) in boxes.into_iter().enumerate().rev() {
            if events.monitor {
                self.hear(index);
            }
            if events.ended {
                self.advance(index);
            }
        }
        for each in &mut self.boxes {
            each.go_on();
        }
        self.kill_overdue();
        self.look();
        self.retry_removals();
    }

    fn wait(&self) -> Result<Ready, Error> {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        for each in &self.boxes {
            if each.listens() {
                fds.push(PollFd::new(&each.monitor, PollFlags::IN));
            }
            if let Some(awaited) = each.awaited() {
                fds.push(PollFd::from_borrowed_fd(awaited, PollFlags::IN));
            }
        }
        if self.ending {
            fds.remove(0);
        }
        let timeout = self.timeout();
        let ready = match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => 0,
            Err(errno) => return Err(Error::new(Step::Warden, errno)),
        };
        let mut found = fds.iter().map(|fd| ready > 0 && !fd.revents().is_empty());
        let mut next = |asked: bool| asked && found.next().unwrap_or(false);
        Ok(Ready {
            server: next(!self.ending),
            boxes: self
                .boxes
                .iter()
                .map(|each| Events {
                    monitor: next(each.listens()),
                    ended: next(each.awaited().is_some()),
                })
                .collect(),
        })
    }

    /// Until something is due without being asked for; `None` for never.
    fn timeout(&self) -> Option<Timespec> {
        let now = Instant::now();
        let removal = self
            .unremoved
            .iter()
            .map(|removal| removal.next.saturating_duration_since(now))
            .min();
        let overdue = self
            .boxes
            .iter()
            .filter(|each| each.phase == Phase::Alive && !each.killed)
            .filter_map(|each| Some(each.deadline?.saturating_duration_since(now)))
            .min();
        let due = match &self.ground {
            Ground::Namespaces { .. } => None,
            Ground::Uids(_) => self.boxes.iter().filter_map(|each| self.due(each)).min(),
        };
        let wait = [removal, overdue, due].into_iter().flatten().min()?;
        Timespec::try_from(wait).ok()
    }

    /// When a box without namespaces wants to be looked after.
    fn due(&self, each: &LiveBox) -> Option<Duration> {
        match each.phase {
            Phase::Alive if each.asleep => {
                Some(LOOK_ASLEEP.saturating_sub(self.looked_at_sleepers.elapsed()))
            }
            Phase::Alive => Some(LOOK.saturating_sub(self.looked.elapsed())),
            Phase::Killing | Phase::Clearing => Some(REAP),
            Phase::Kept => None,
        }
    }

    /// Answers the server; says whether it is still there.
    fn hear_server(&mut self) -> Result<bool, Error> {
        match protocol::receive(&self.socket, false)? {
            Received::Frame(Frame::Create(spec, explain), fds) => {
                let Ok([socket, monitor]) = <[OwnedFd; 2]>::try_from(fds) else {
                    return Err(Error::new(
                        Step::Frame,
                        io::Error::from(io::ErrorKind::InvalidData),
                    ));
                };
                // Init's socket stays open until the reason for a failure is sent:
                // the server must not hear of the end first.
                if let Err((error, monitor)) = self.create(&spec, explain, &socket, monitor) {
                    // Without a listener the server has given the box up already.
                    drop(protocol::send(&monitor, &Frame::from(&error), &[]));
                }
                Ok(true)
            }
            Received::Frame(Frame::CreateZygote(spec), fds) => {
                let Ok([socket, monitor, command]) = <[OwnedFd; 3]>::try_from(fds) else {
                    return Err(Error::new(
                        Step::Frame,
                        io::Error::from(io::ErrorKind::InvalidData),
                    ));
                };
                if let Err((error, monitor)) = self.create_zygote(&spec, &socket, monitor, &command)
                {
                    // As above.
                    drop(protocol::send(&monitor, &Frame::from(&error), &[]));
                }
                Ok(true)
            }
            Received::Nothing => Ok(true),
            Received::Closed => Ok(false),
            Received::Frame(..) => {
                log(&Error::new(Step::Frame, io::ErrorKind::InvalidData));
                Ok(true)
            }
        }
    }

    /// What the server says on a box's monitor socket.
    fn hear(&mut self, index: usize) {
        let each = &mut self.boxes[index];
        match protocol::receive(&each.monitor, false) {
            Ok(Received::Frame(Frame::Measure, _)) => {
                let usage = each.usage();
                // A closed monitor is heard at the next turn.
                drop(protocol::send(&each.monitor, &Frame::Usage(usage), &[]));
            }
            Ok(Received::Nothing) => {}
            Ok(Received::Frame(..)) if each.phase == Phase::Kept => {}
            Ok(Received::Frame(Frame::LiveOn(lifetime), _)) => {
                each.deadline = lifetime.map(|lifetime| Instant::now() + lifetime);
            }
            Ok(Received::Frame(Frame::Asleep(asleep), _)) => each.asleep = asleep,
            Ok(Received::Frame(Frame::Idle(idle), _)) => each.idle(idle),
            // Let go of: nobody reads what it left.
            _ if each.phase == Phase::Kept => each.clear(),
            // Asked to, or let go of, or nonsense: it dies.
            _ => each.kill(),
        }
    }

    fn kill_overdue(&mut self) {
        let now = Instant::now();
        for each in &mut self.boxes {
            if each.deadline.is_some_and(|deadline| deadline <= now) {
                each.kill();
            }
        }
    }

    /// Looks at what boxes without namespaces use, if it is time.
    fn look(&mut self) {
        let Ground::Uids(ids) = &self.ground else {
            return;
        };
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let sleepers = self.looked_at_sleepers.elapsed() >= LOOK_ASLEEP;
        if sleepers {
            self.looked_at_sleepers = Instant::now();
        }
        let full = ids.disk_is_nearly_full();
        let mut alive: Vec<&mut LiveBox> = self
            .boxes
            .iter_mut()
            .filter(|each| each.phase == Phase::Alive && (full || sleepers || !each.asleep))
            .collect();
        if alive.is_empty() {
            return;
        }
        if full {
            let error = io::Error::from_raw_os_error(libc::ENOSPC);
            log(&Error::new(Step::Room, error).with("the disk is nearly full: boxes are killed"));
            for each in alive {
                each.kill();
            }
            return;
        }
        if omitted(Omit::Memory) {
            return;
        }
        alive.retain_mut(|each| !each.is_being_struck());
        let uids: Vec<u32> = alive.iter().filter_map(|each| each.uid()).collect();
        match watch::resident_by_uid(&uids) {
            Ok(used) => {
                for (each, used) in alive.iter_mut().zip(used) {
                    each.look(used);
                }
            }
            // Nobody watches their memory: they end.
            Err(error) => {
                log(&Error::new(Step::Warden, error).with("/proc cannot be read"));
                for each in alive {
                    each.kill();
                }
            }
        }
    }

    /// Without a pid namespace the orphans of a dead box come here, and are
    /// reaped among all other children.
    fn reap_orphans(&mut self) {
        if !matches!(self.ground, Ground::Uids(_)) {
            return;
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let children = self.boxes.iter_mut().flat_map(LiveBox::children);
            for child in children.filter(|child| child.pid == pid.as_raw_nonzero().get()) {
                child.code = Some(status.exit_status().unwrap_or(-1));
            }
        }
    }

    /// After that happened for which a box's phase waits.
    fn advance(&mut self, index: usize) {
        let each = &mut self.boxes[index];
        match each.phase {
            Phase::Alive => {
                if let Some(init) = each.init.take() {
                    // How it ended is nobody's to know: what matters is that it did.
                    init.end();
                }
                if each.close() {
                    return;
                }
                // With it died everybody in its pid namespace.
                let each = self.boxes.swap_remove(index);
                tell_end(&each);
                self.free.extend(each.slot);
                if let Kind::Namespaced { cgroup } = each.kind {
                    self.release(cgroup);
                }
            }
            Phase::Killing => {
                if !each.is_closed() {
                    return;
                }
                tell_end(each);
                each.phase = Phase::Kept;
                // The server hears that nothing more comes, and lets go.
                rustix::net::shutdown(&each.monitor, Shutdown::Write).ok();
                if self.ending {
                    each.clear();
                }
            }
            Phase::Kept => {}
            Phase::Clearing => match each.is_cleared() {
                Some(true) => self.free.extend(self.boxes.swap_remove(index).slot),
                // Its slot is never used again; the next start tries once more.
                Some(false) => drop(self.boxes.swap_remove(index)),
                None => {}
            },
        }
    }

    fn release(&mut self, cgroup: Option<Cgroup>) {
        if let Some(cgroup) = cgroup
            && cgroup.remove().is_err()
        {
            self.unremoved.push(Removal::of(cgroup));
        }
    }

    fn retry_removals(&mut self) {
        let now = Instant::now();
        self.unremoved
            .retain_mut(|removal| removal.next > now || !removal.again());
    }

    /// The server is gone: nothing outlives it.
    fn end_all(&mut self) {
        self.ending = true;
        for each in &mut self.boxes {
            each.kill();
            if each.phase == Phase::Kept {
                each.clear();
            }
        }
        let give_up = Instant::now() + END_TIMEOUT;
        while !self.boxes.is_empty() && Instant::now() < give_up {
            match self.wait() {
                Ok(ready) => self.turn(ready.boxes),
                Err(error) => {
                    log(&error);
                    std::thread::sleep(REAP);
                }
            }
        }
        let give_up = Instant::now() + Duration::from_secs(2);
        while !self.unremoved.is_empty() && Instant::now() < give_up {
            std::thread::sleep(REMOVAL_RETRY);
            self.retry_removals();
        }
        // Dropping the cgroups' own directory removes it.
        self.cgroups = None;
    }
}

/// What a turn of the loop found.
struct Ready {
    server: bool,
    boxes: Vec<Events>,
}

struct Events {
    ended: bool,
    monitor: bool,
}

/// Tells the server that all of a box is dead. It may have let go already.
fn tell_end(each: &LiveBox) {
    drop(protocol::send(
        &each.monitor,
        &Frame::Gone(each.usage()),
        &[],
    ));
}

/// The warden's stderr is the server's log.
pub(crate) fn log(error: &Error) {
    use std::io::Write as _;
    let line = format!("warden: {error}: {}\n", error.source);
    // There is nowhere else to say that the log is gone.
    drop(io::stderr().write_all(line.as_bytes()));
}
