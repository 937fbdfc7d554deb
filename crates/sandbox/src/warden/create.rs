//! Making a box: what it takes from the host, its processes, its ids.
//!
//! What fails on the way leaves no process, no directory and no cgroup.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::process::Signal;
use rustix::thread::Uid;

use super::ground::Ground;
use super::live::{Kind, LiveBox, Lodging, Phase};
use super::{Warden, log};
use crate::cgroup::Cgroup;
use crate::confine::{Confinement, Walls};
use crate::error::{At, Error, Step};
use crate::idmap::HostIds;
use crate::init::{self, Files};
use crate::limits::Limits;
use crate::omit::{Omit, omitted};
use crate::spec::Spec;
use crate::sys::{self, Child, CloneFlags};
use crate::uids::{self, Awaited, Closer};
use crate::{mount, network};

/// Added to a box's badness: the kernel should take it before the server.
const OOM_SCORE: &str = "500";

/// Namespaces that a box is born into, besides that of its network.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS) as u64;

impl Warden {
    /// Makes a box. Gives its monitor back when that fails.
    pub(super) fn create(
        &mut self,
        spec: &Spec,
        explain: bool,
        socket: &OwnedFd,
        monitor: OwnedFd,
    ) -> Result<(), (Error, OwnedFd)> {
        let Some(slot) = self.free.pop() else {
            let none = io::Error::from_raw_os_error(libc::EAGAIN);
            return Err((Error::new(Step::Clone, none).with("no free slot"), monitor));
        };
        self.made += 1;
        let made = match &self.ground {
            Ground::Namespaces { .. } => self.create_in_namespaces(slot, spec, explain, socket),
            Ground::Uids(_) => self.create_in_place(slot, spec, explain, socket),
        };
        match made {
            Ok(made) => {
                self.boxes.push(LiveBox {
                    phase: Phase::Alive,
                    init: Some(made.init),
                    _lifeline: made.lifeline,
                    monitor,
                    kind: made.kind,
                    slot: Some(slot),
                    deadline: spec.lifetime.map(|lifetime| Instant::now() + lifetime),
                    asleep: false,
                    killed: false,
                });
                Ok(())
            }
            Err(error) => {
                // The last to be taken again: what failed may be of this slot.
                self.free.insert(0, slot);
                Err((error, monitor))
            }
        }
    }

    fn create_in_namespaces(
        &mut self,
        slot: u32,
        spec: &Spec,
        explain: bool,
        socket: &OwnedFd,
    ) -> Result<Made, Error> {
        let sources = mount::open(&spec.mounts)?;
        let Ground::Namespaces { host_ids, .. } = &self.ground else {
            unreachable!("create() looked");
        };
        let cgroup = self
            .cgroups
            .as_ref()
            .map(|cgroups| cgroups.create(self.made, &counted(&spec.limits)))
            .transpose()?;
        let with = Confinement {
            isolation: self.isolation,
            walls: Walls::Namespaces {
                sources: &sources,
                drop_groups: matches!(host_ids, HostIds::Range { .. }),
            },
            limits: &spec.limits,
            filter: &self.filter,
            explain,
            adopts: spec.adopts && !explain,
        };
        let needed = sources.iter().filter_map(mount::Source::fd).collect();
        let map = |pid| host_ids.map(pid, slot);
        let owner = host_ids.zygote();
        match start(&with, needed, socket, cgroup.as_ref(), owner, map) {
            Ok((init, lifeline)) => Ok(Made {
                init,
                lifeline,
                kind: Kind::Namespaced { cgroup },
            }),
            Err(error) => {
                self.release(cgroup);
                Err(error)
            }
        }
    }

    fn create_in_place(
        &self,
        slot: u32,
        spec: &Spec,
        explain: bool,
        socket: &OwnedFd,
    ) -> Result<Made, Error> {
        let Ground::Uids(ids) = &self.ground else {
            unreachable!("create() looked");
        };
        let sources = uids::open(&spec.mounts)?;
        let room = ids.room(slot, &spec.mounts)?;
        let with = Confinement {
            isolation: self.isolation,
            walls: Walls::InPlace {
                sources: &sources,
                room: &room,
            },
            limits: &spec.limits,
            filter: &self.filter,
            explain,
            adopts: false,
        };
        // First, so that there is one whatever the programs take.
        let started = Closer::start(&room).and_then(|closer| {
            let needed = sources.iter().collect();
            let (init, lifeline) = start(&with, needed, socket, None, None, |_| Ok(()))?;
            Ok((init, lifeline, closer))
        });
        match started {
            Ok((init, lifeline, closer)) => Ok(Made {
                init,
                lifeline,
                kind: Kind::InPlace(Lodging::new(room, closer, spec.limits.memory)),
            }),
            Err(error) => {
                // Nobody was ever in it.
                if let Err(error) = room.remove() {
                    log(&error);
                }
                Err(error)
            }
        }
    }
}

/// What a box's cgroup is to hold.
fn counted(limits: &Limits) -> Limits {
    let mut counted = *limits;
    if omitted(Omit::Memory) {
        counted.memory = 1 << 40;
    }
    if omitted(Omit::Processes) {
        counted.processes = 10_000;
    }
    counted
}

/// A box before its monitor is known.
struct Made {
    init: Awaited,
    lifeline: OwnedFd,
    kind: Kind,
}

/// Clones the box, whose user namespace is `owner`'s, and lets it go on once its ids
/// are there. Gives its init and its lifeline. Leaves no process when it fails.
fn start(
    with: &Confinement<'_>,
    needed: Vec<&OwnedFd>,
    socket: &OwnedFd,
    cgroup: Option<&Cgroup>,
    owner: Option<u32>,
    map_ids: impl FnOnce(i32) -> Result<(), Error>,
) -> Result<(Awaited, OwnedFd), Error> {
    let mut files = Files {
        tasks: cgroup.map(Cgroup::tasks).transpose()?.unwrap_or_default(),
        entrance: Vec::new(),
    };
    if with.adopts {
        files.entrance = cgroup
            .map(Cgroup::entrance)
            .transpose()?
            .unwrap_or_default();
    }
    let (go, ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::Clone)?;
    let child = match with.walls {
        Walls::Namespaces { .. } => {
            let flags = CloneFlags {
                namespaces: NAMESPACES | network::flag(),
            };
            owned_by(owner, || {
                sys::clone_box(flags, cgroup.and_then(Cgroup::clone_into))
            })?
        }
        // clone3 is refused in plain containers.
        Walls::InPlace { .. } => sys::fork(),
    };
    let init = match child.at(Step::Clone)? {
        Child::Me => become_init(with, needed, socket, files, go),
        Child::Pid(pid, Some(fd)) => Awaited::with(pid, fd),
        Child::Pid(pid, None) => Awaited::of(pid)?,
    };
    drop(go);
    let released = offer_to_oom_killer(init.pid)
        .and_then(|()| map_ids(init.pid))
        .and_then(|()| rustix::io::write(&ready, &[1]).at(Step::Clone));
    match released {
        Ok(_) => Ok((init, ready)),
        Err(error) => {
            // It waits for a byte that never comes.
            match rustix::process::pidfd_send_signal(&init.fd, Signal::KILL) {
                Ok(()) => drop(init.end()),
                Err(errno) => log(&Error::new(Step::Kill, errno)),
            }
            Err(error)
        }
    }
}

/// Runs `clone` as the user that a new user namespace is to belong to.
fn owned_by(
    owner: Option<u32>,
    clone: impl FnOnce() -> io::Result<Child>,
) -> Result<io::Result<Child>, Error> {
    let Some(owner) = owner else {
        return Ok(clone());
    };
    let become_user = |effective| {
        let real = rustix::process::getuid();
        rustix::thread::set_thread_res_uid(real, effective, Uid::ROOT).at(Step::Identity)
    };
    let own = rustix::process::geteuid();
    become_user(Uid::from_raw(owner))?;
    let cloned = clone();
    // The clone itself takes the box's ids soon.
    if !matches!(cloned, Ok(Child::Me)) {
        become_user(own)?;
    }
    Ok(cloned)
}

/// When the whole machine runs out of memory, a box is to die before the server.
pub(super) fn offer_to_oom_killer(pid: i32) -> Result<(), Error> {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE).at(Step::OomScore)
}

/// In the clone: forgets all of the warden that the box does not need.
fn become_init(
    with: &Confinement<'_>,
    needed: Vec<&OwnedFd>,
    socket: &OwnedFd,
    files: Files,
    go: OwnedFd,
) -> ! {
    // 0, 1 and 2 are replaced once the box is confined.
    let kept = needed
        .into_iter()
        .chain(&files.tasks)
        .chain(&files.entrance)
        .chain([socket, &go]);
    if sys::close_all_but(kept).is_err() {
        sys::exit_now(3);
    }
    init::run(with, socket, files, go)
}
