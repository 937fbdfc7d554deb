//! The warden: one single-threaded process, started before the server has
//! threads, that makes and ends every box.
//!
//! It is this binary again, with an empty environment and one socket. It
//! holds the rights that boxes are made with and sees no user's data: specs
//! and limits only. It must never read a file that a box can write, and never
//! wait for a box.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Signal, WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, UnshareFlags};
use rustix::time::Timespec;

use crate::cgroup::{Cgroup, Cgroups};
use crate::confine::Confinement;
use crate::error::{At, Error, Step};
use crate::idmap::{self, HostIds, SLOTS};
use crate::limits::Usage;
use crate::network;
use crate::protocol::{self, Frame, Received};
use crate::seccomp::Filter;
use crate::spec::Spec;
use crate::sys::{self, Child, CloneFlags};
use crate::{init, mount};

/// Between the first two tries to remove the cgroup of a dead box; then twice
/// as long each time.
const REMOVAL_RETRY: Duration = Duration::from_millis(2);
/// The wait after which it is left to the next start.
const REMOVAL_GIVE_UP: Duration = Duration::from_secs(64);
/// Added to a box's badness: the kernel should take it before the server.
const OOM_SCORE: &str = "500";

/// Namespaces that a box is born into; its network namespace is joined before.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS) as u64;

/// Runs the warden on its socket until the server is gone.
pub(crate) fn run(socket: OwnedFd, with_cgroup: bool) -> i32 {
    sys::ignore_signals(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE]);
    // Out of the terminal's foreground group: Ctrl-C is for the server to handle.
    // Fails only for a group leader, which a fresh child is not.
    rustix::process::setsid().ok();
    let mut warden = match Warden::prepare(socket, with_cgroup) {
        Ok(warden) => warden,
        Err((socket, error)) => {
            drop(protocol::send(&socket, &Frame::from(&error), &[]));
            return 1;
        }
    };
    let result = warden.serve();
    warden.reap_all();
    i32::from(result.is_err())
}

/// A live box.
#[derive(Debug)]
struct LiveBox {
    init: OwnedFd,
    /// Its other end shows init that the warden lives.
    _lifeline: OwnedFd,
    monitor: OwnedFd,
    cgroup: Option<Cgroup>,
    slot: u32,
    deadline: Instant,
    /// Whether it was told to die: once is enough.
    killed: bool,
}

struct Warden {
    socket: OwnedFd,
    host_ids: HostIds,
    cgroups: Option<Cgroups>,
    filter: Filter,
    networks: network::Pool,
    boxes: Vec<LiveBox>,
    /// Cgroups of dead boxes that the kernel would not let go of yet.
    unremoved: Vec<Removal>,
    free: Vec<u32>,
    made: u64,
}

impl Warden {
    fn prepare(socket: OwnedFd, with_cgroup: bool) -> Result<Self, (OwnedFd, Error)> {
        match Self::rights(with_cgroup) {
            Ok((host_ids, cgroups)) => {
                let hello = Frame::Hello {
                    cgroup: cgroups.as_ref().map(Cgroups::describe).unwrap_or_default(),
                    own_uids: matches!(host_ids, HostIds::Range { .. }),
                };
                if let Err(error) = protocol::send(&socket, &hello, &[]) {
                    return Err((socket, Error::new(Step::Warden, error)));
                }
                Ok(Self {
                    socket,
                    host_ids,
                    filter: Filter::new(cgroups.is_some()),
                    cgroups,
                    networks: network::Pool::default(),
                    boxes: Vec::new(),
                    unremoved: Vec::new(),
                    free: (0..SLOTS).rev().collect(),
                    made: 0,
                })
            }
            Err(error) => Err((socket, error)),
        }
    }

    /// What boxes will be made with.
    fn rights(with_cgroup: bool) -> Result<(HostIds, Option<Cgroups>), Error> {
        // Before any change of namespace: cgroup paths are read as they are here.
        let cgroups = with_cgroup.then(Cgroups::find).transpose()?;
        let host_ids = match HostIds::range() {
            Ok(range) if holds(PRIVILEGED) => range,
            // Root in a container: its own user namespace, but ids of our choice.
            Ok(range) if holds(IDS) => idmap::enter_with(&range)?,
            _ => idmap::enter_alone()?,
        };
        sys::unshare(UnshareFlags::NEWNS).at(Step::MountNamespace)?;
        rustix::mount::mount_change(
            "/",
            rustix::mount::MountPropagationFlags::PRIVATE
                | rustix::mount::MountPropagationFlags::REC,
        )
        .at(Step::MountNamespace)?;
        if matches!(host_ids, HostIds::Range { .. }) {
            // Unprivileged, this would close a new box's uid_map to the warden
            // itself. Boxes cannot see the warden in either case, and it holds
            // nothing that others of its uid do not have.
            let quiet = DumpableBehavior::NotDumpable;
            rustix::process::set_dumpable_behavior(quiet).at(Step::Warden)?;
        }
        Ok((host_ids, cgroups))
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let ready = self.wait()?;
            for (index, events) in ready.boxes.into_iter().enumerate().rev() {
                if events.monitor && !self.boxes[index].killed {
                    self.hear(index);
                }
                if events.dead {
                    self.reap(index);
                }
            }
            self.kill_overdue();
            self.retry_removals();
            if ready.server && !self.hear_server()? {
                return Ok(());
            }
            if ready.idle
                && let Err(error) = self.networks.refill()
            {
                // The next box makes its own and reports what fails then.
                log(&error);
            }
        }
    }

    fn wait(&self) -> Result<Ready, Error> {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        for each in &self.boxes {
            fds.push(PollFd::new(&each.init, PollFlags::IN));
            // A closed monitor would wake this loop again and again.
            let other = if each.killed {
                &each.init
            } else {
                &each.monitor
            };
            fds.push(PollFd::new(other, PollFlags::IN));
        }
        let timeout = self.timeout();
        let ready = match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => 0,
            Err(errno) => return Err(Error::new(Step::Warden, errno)),
        };
        let is = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        let (first, rest) = fds.split_at(1);
        Ok(Ready {
            server: is(first.first()),
            boxes: rest
                .chunks(2)
                .map(|pair| Events {
                    dead: is(pair.first()),
                    monitor: is(pair.last()),
                })
                .collect(),
            idle: ready == 0,
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
            .filter(|each| !each.killed)
            .map(|each| each.deadline.saturating_duration_since(now))
            .min();
        let refill = self.networks.refill_due();
        let wait = [removal, overdue, refill].into_iter().flatten().min()?;
        Timespec::try_from(wait).ok()
    }

    /// Answers the server; says whether it is still there.
    fn hear_server(&mut self) -> Result<bool, Error> {
        match protocol::receive(&self.socket, false)? {
            Received::Frame(Frame::Create(spec), fds) => {
                let Ok([socket, monitor]) = <[OwnedFd; 2]>::try_from(fds) else {
                    return Err(Error::new(
                        Step::Frame,
                        io::Error::from(io::ErrorKind::InvalidData),
                    ));
                };
                // Init's socket stays open until the reason for a failure is sent:
                // the server must not hear of the end first.
                match self.create(&spec, &socket) {
                    Ok(partial) => self.boxes.push(partial.with(monitor)),
                    // Without a listener the server has given the box up already.
                    Err(error) => drop(protocol::send(&monitor, &Frame::from(&error), &[])),
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

    fn create(&mut self, spec: &Spec, socket: &OwnedFd) -> Result<Partial, Error> {
        let slot = self.free.pop().ok_or_else(|| {
            Error::new(Step::Clone, io::Error::from_raw_os_error(libc::EAGAIN)).with("no free slot")
        })?;
        let made = self.create_in(slot, spec, socket);
        if made.is_err() {
            self.free.push(slot);
        }
        made
    }

    fn create_in(&mut self, slot: u32, spec: &Spec, socket: &OwnedFd) -> Result<Partial, Error> {
        self.made += 1;
        let sources = mount::open(&spec.mounts)?;
        // The box keeps it alive; nobody else will ever be in it.
        let network = self.networks.take()?;
        let cgroup = self
            .cgroups
            .as_ref()
            .map(|cgroups| cgroups.create(self.made, &spec.limits))
            .transpose()?;
        match self.start(slot, spec, socket, &sources, &network, cgroup.as_ref()) {
            Ok((init, lifeline)) => Ok(Partial {
                init,
                lifeline,
                cgroup,
                slot,
                deadline: Instant::now() + spec.limits.lifetime,
            }),
            Err(error) => {
                self.release(cgroup);
                Err(error)
            }
        }
    }

    /// Clones the box and gives it its ids. Gives its init and its lifeline.
    /// Leaves no process when it fails.
    fn start(
        &self,
        slot: u32,
        spec: &Spec,
        socket: &OwnedFd,
        sources: &[mount::Source],
        network: &network::Namespace,
        cgroup: Option<&Cgroup>,
    ) -> Result<(OwnedFd, OwnedFd), Error> {
        network.join()?;
        let tasks = cgroup.map(Cgroup::tasks).transpose()?.unwrap_or_default();
        let (go, ready) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::Clone)?;
        let flags = CloneFlags {
            namespaces: NAMESPACES,
        };
        let into = cgroup.and_then(Cgroup::clone_into);
        let (pid, init) = match sys::clone_box(flags, into).at(Step::Clone)? {
            Child::Me => {
                let with = Confinement {
                    sources,
                    limits: &spec.limits,
                    cgroup: cgroup.is_some(),
                    filter: &self.filter,
                    drop_groups: matches!(self.host_ids, HostIds::Range { .. }),
                };
                become_init(&with, socket, tasks, go)
            }
            Child::Pid(pid, Some(pidfd)) => (pid, pidfd),
            Child::Pid(_, None) => unreachable!("clone_box always asks for a pidfd"),
        };
        drop(go);
        let released = offer_to_oom_killer(pid)
            .and_then(|()| self.host_ids.map(pid, slot))
            .and_then(|()| rustix::io::write(&ready, &[1]).at(Step::Clone));
        if released.is_err() {
            // It waits for a byte that never comes.
            let killed = rustix::process::pidfd_send_signal(&init, Signal::KILL);
            let reaped = killed.and_then(|()| {
                rustix::process::waitid(WaitId::PidFd(init.as_fd()), WaitIdOptions::EXITED)
            });
            if let Err(errno) = reaped {
                log(&Error::new(Step::Kill, errno));
            }
        }
        released.map(|_| (init, ready))
    }

    /// What the server says on a box's monitor socket.
    fn hear(&mut self, index: usize) {
        let each = &mut self.boxes[index];
        match protocol::receive(&each.monitor, false) {
            Ok(Received::Frame(Frame::Measure, _)) => {
                let usage = usage(each);
                // A closed monitor is heard at the next turn.
                drop(protocol::send(&each.monitor, &Frame::Usage(usage), &[]));
            }
            Ok(Received::Nothing) => {}
            // Asked to, or let go of, or nonsense: it dies.
            _ => kill(each),
        }
    }

    fn kill_overdue(&mut self) {
        let now = Instant::now();
        for each in &mut self.boxes {
            if each.deadline <= now {
                kill(each);
            }
        }
    }

    /// After a box's init has died, and with it everybody in its pid namespace.
    fn reap(&mut self, index: usize) {
        let each = self.boxes.swap_remove(index);
        let status = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Err(errno) = rustix::process::waitid(WaitId::PidFd(each.init.as_fd()), status) {
            log(&Error::new(Step::Wait, errno));
        }
        // The server may have let go already.
        drop(protocol::send(
            &each.monitor,
            &Frame::Gone(usage(&each)),
            &[],
        ));
        self.free.push(each.slot);
        self.release(each.cgroup);
    }

    fn release(&mut self, cgroup: Option<Cgroup>) {
        if let Some(cgroup) = cgroup
            && cgroup.remove().is_err()
        {
            self.unremoved.push(Removal {
                cgroup,
                next: Instant::now() + REMOVAL_RETRY,
                wait: REMOVAL_RETRY,
            });
        }
    }

    fn retry_removals(&mut self) {
        let now = Instant::now();
        self.unremoved
            .retain_mut(|removal| removal.next > now || !removal.again());
    }

    /// The server is gone: nothing outlives it.
    fn reap_all(&mut self) {
        for each in &mut self.boxes {
            kill(each);
        }
        while !self.boxes.is_empty() {
            let last = self.boxes.len() - 1;
            let init = self.boxes[last].init.as_fd();
            let mut fds = [PollFd::new(&init, PollFlags::IN)];
            // Killed, so it ends; an interrupted wait is made good by reap's own.
            rustix::event::poll(&mut fds, None).ok();
            self.reap(last);
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

/// A dead box's cgroup that the kernel would not let go of yet.
#[derive(Debug)]
struct Removal {
    cgroup: Cgroup,
    next: Instant,
    wait: Duration,
}

impl Removal {
    /// Tries again; says whether this is over.
    fn again(&mut self) -> bool {
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

/// A box before its monitor is known.
struct Partial {
    init: OwnedFd,
    lifeline: OwnedFd,
    cgroup: Option<Cgroup>,
    slot: u32,
    deadline: Instant,
}

impl Partial {
    fn with(self, monitor: OwnedFd) -> LiveBox {
        LiveBox {
            init: self.init,
            _lifeline: self.lifeline,
            monitor,
            cgroup: self.cgroup,
            slot: self.slot,
            deadline: self.deadline,
            killed: false,
        }
    }
}

/// What a turn of the loop found.
struct Ready {
    server: bool,
    boxes: Vec<Events>,
    idle: bool,
}

struct Events {
    dead: bool,
    monitor: bool,
}

/// When the whole machine runs out of memory, a box is to die before the server.
fn offer_to_oom_killer(pid: i32) -> Result<(), Error> {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE).at(Step::OomScore)
}

fn kill(each: &mut LiveBox) {
    if each.killed {
        return;
    }
    each.killed = true;
    // By cgroup and by pid namespace: a fork bomb outruns any list of pids.
    if let Some(cgroup) = &each.cgroup
        && let Err(error) = cgroup.kill()
    {
        log(&Error::new(Step::Kill, error));
    }
    if let Err(errno) = rustix::process::pidfd_send_signal(&each.init, Signal::KILL)
        && errno != rustix::io::Errno::SRCH
    {
        log(&Error::new(Step::Kill, errno));
    }
}

fn usage(each: &LiveBox) -> Usage {
    let Some(cgroup) = &each.cgroup else {
        return Usage::default();
    };
    cgroup.usage().unwrap_or_else(|error| {
        log(&error);
        Usage::default()
    })
}

/// What it takes to map ids of one's choice.
const IDS: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);
/// What it takes to do without a user namespace of one's own: ids, mounts, networks.
const PRIVILEGED: CapabilitySet = IDS
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_ADMIN);

fn holds(needed: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// In the clone: forgets all of the warden that the box does not need.
fn become_init(with: &Confinement<'_>, socket: &OwnedFd, tasks: Vec<OwnedFd>, go: OwnedFd) -> ! {
    let mut needed: Vec<u32> = with
        .sources
        .iter()
        .filter_map(mount::Source::fd)
        .chain(&tasks)
        .chain([socket, &go])
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    needed.sort_unstable();
    let mut from = 3;
    for fd in needed.into_iter().chain([u32::MAX]) {
        // 0, 1 and 2 are replaced once the box has a /dev/null of its own.
        if sys::close_range(from.min(fd), fd.saturating_sub(1)).is_err() && from < fd {
            sys::exit_now(3);
        }
        from = fd.saturating_add(1);
    }
    init::run(with, socket, tasks, go)
}

/// The warden's stderr is the server's log.
fn log(error: &Error) {
    use std::io::Write as _;
    let line = format!("warden: {error}: {}\n", error.source);
    // There is nowhere else to say that the log is gone.
    drop(io::stderr().write_all(line.as_bytes()));
}
