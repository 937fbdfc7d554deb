//! The security story of a box, top to bottom.
//!
//! Runs in the process that becomes the box's init, after the warden has
//! cloned it into fresh user, pid, mount, ipc, uts and network namespaces and
//! into its cgroup, and before a byte of the user's is read. Where there are
//! no namespaces to be had, a uid of its own and Landlock stand in for them
//! ([`in_place`]). Every step holds or the box is given up; nothing is retried
//! and no result is dropped.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::UnshareFlags;

use crate::error::{At, Error, Step};
use crate::explain::Tally;
use crate::limits::Limits;
use crate::mount::{self, Source};
use crate::omit::{Omit, omitted};
use crate::seccomp::Filter;
use crate::spec::WORKSPACE;
use crate::support::Isolation;
use crate::sys::Op;
use crate::uids::Room;
use crate::{landlock, lockdown, network, sys};

/// What confinement needs to know.
#[derive(Debug)]
pub(crate) struct Confinement<'a> {
    /// The rung that the box is made on.
    pub(crate) isolation: Isolation,
    /// What keeps it apart from the rest of the machine.
    pub(crate) walls: Walls<'a>,
    /// What it may use.
    pub(crate) limits: &'a Limits,
    /// The system-call filter.
    pub(crate) filter: &'a Filter,
    /// Whether what it denies is to be told.
    pub(crate) explain: bool,
    /// Whether a program of a zygote may become the box's own.
    pub(crate) adopts: bool,
}

/// What keeps a box apart from the rest of the machine.
#[derive(Debug)]
pub(crate) enum Walls<'a> {
    /// Namespaces of its own, which this process is in.
    Namespaces {
        /// What the box sees of the host.
        sources: &'a [Source],
        /// Whether supplementary groups can be dropped: not where only the
        /// server's own ids are mapped, because then the kernel forbids it.
        drop_groups: bool,
    },
    /// A uid of its own.
    InPlace {
        /// What the box sees of the host.
        sources: &'a [OwnedFd],
        /// Its directories and ids.
        room: &'a Room,
    },
}

impl<'a> Confinement<'a> {
    /// Whether a cgroup enforces memory and processes.
    pub(crate) fn has_cgroup(&self) -> bool {
        self.isolation == Isolation::Full
    }

    /// What the lists of steps depend on.
    pub(crate) fn bounds(&self) -> lockdown::Bounds<'_> {
        lockdown::Bounds {
            isolation: self.isolation,
            limits: self.limits,
            drop_groups: matches!(
                self.walls,
                Walls::Namespaces {
                    drop_groups: true,
                    ..
                }
            ),
        }
    }

    /// The last step: from now on init has no more rights than the program.
    fn filter(&self, tally: Option<&Tally>) -> Result<(), Error> {
        match tally {
            None => self.filter.install(),
            Some(tally) => tally.install(self.filter, self.isolation),
        }
        .at(Step::Seccomp)
    }

    /// The box's directories, where it has no root of its own.
    pub(crate) fn room(&self) -> Option<&'a Room> {
        match self.walls {
            Walls::Namespaces { .. } => None,
            Walls::InPlace { room, .. } => Some(room),
        }
    }
}

/// What a box's init has opened before it confined itself for good.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The workspace.
    pub(crate) workspace: OwnedFd,
    /// By what a zygote's program gets in, where one may.
    pub(crate) entrance: Vec<OwnedFd>,
    /// The Landlock rules that each program puts on itself, where init has none.
    pub(crate) rules: Option<OwnedFd>,
}

/// Confines this process for good. Returns what it opened before. `tally` is
/// there if what the filter denies is to be told.
///
/// # Errors
/// The step that failed.
pub(crate) fn confine(with: &Confinement<'_>, tally: Option<&Tally>) -> Result<Opened, Error> {
    match &with.walls {
        Walls::Namespaces { sources, .. } => in_namespaces(with, sources, tally),
        Walls::InPlace { sources, room } => {
            let workspace = in_place(with, sources, room, tally)?;
            Ok(Opened {
                workspace,
                entrance: Vec::new(),
                rules: None,
            })
        }
    }
}

fn in_namespaces(
    with: &Confinement<'_>,
    sources: &[Source],
    tally: Option<&Tally>,
) -> Result<Opened, Error> {
    let bounds = with.bounds();
    give_up(lockdown::identity(bounds))?;
    network::furnish()?;
    hostname()?;
    if with.has_cgroup() {
        // Before the limit on namespaces that comes with /proc.
        sys::unshare(UnshareFlags::NEWCGROUP).at(Step::CgroupNamespace)?;
    }
    let mut entrance = if with.adopts {
        // Nobody else may open them: this process is nobody's to look into.
        namespaces(with.has_cgroup())?
    } else {
        Vec::new()
    };
    give_up(lockdown::politeness(bounds))?;
    let workspace = mount::enter(sources, with.limits, true)?;
    give_up(lockdown::limits(bounds))?;
    give_up(lockdown::unprivileged_for_good())?;
    give_up(lockdown::powerless())?;
    private()?;
    // The warden's death ends the box's pid namespace with its init.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Step::DeathSignal)?;
    let rules = landlock::of_box(with.isolation, sources)?;
    // Whoever has rules may look into nobody who has others. Without a cgroup init has to:
    // it counts the memory that a forked program shares. So the rules are its children's
    // there, each before it reads anything of the user's.
    let mut of_programs = None;
    if with.has_cgroup() {
        restrict(&rules)?;
    } else {
        of_programs = Some(rules.try_clone().at(Step::Landlock)?);
    }
    if with.adopts {
        entrance.push(rules);
    }
    with.filter(tally)?;
    Ok(Opened {
        workspace,
        entrance,
        rules: of_programs,
    })
}

/// Puts the box's Landlock rules on this process and all that it forks.
///
/// # Errors
/// [`Step::Landlock`].
pub(crate) fn restrict(rules: &OwnedFd) -> Result<(), Error> {
    if omitted(Omit::Landlock) {
        return Ok(());
    }
    sys::restrict(rules).at(Step::Landlock)
}

/// The namespaces of a box, in the order in which a stranger has to enter them: the
/// user namespace first, by which it may enter the others, and that of mounts last.
pub(crate) const NAMESPACES: [(&str, i32); 7] = [
    ("user", libc::CLONE_NEWUSER),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("mnt", libc::CLONE_NEWNS),
];

/// Opens the namespaces of this process, in their order.
fn namespaces(cgroup: bool) -> Result<Vec<OwnedFd>, Error> {
    let own = NAMESPACES
        .iter()
        .filter(|(name, _)| cgroup || *name != "cgroup");
    own.map(|(name, _)| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/self/ns/{name}"), flags, Mode::empty()).at(Step::Entrance)
    })
    .collect()
}

/// Without namespaces: what it may open is what Landlock says, whom it may
/// signal is what its uid says, and there are no sockets with addresses.
fn in_place(
    with: &Confinement<'_>,
    sources: &[OwnedFd],
    room: &Room,
    tally: Option<&Tally>,
) -> Result<OwnedFd, Error> {
    let bounds = with.bounds();
    give_up(lockdown::politeness(bounds))?;
    give_up(lockdown::limits(bounds))?;
    // Orphans come to init, which ends them with their program.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Step::Identity)?;
    give_up(lockdown::unprivileged_for_good())?;
    room.become_init().at(Step::Identity)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    give_up(lockdown::powerless())?;
    // No death signal: when the warden dies it is init that ends the programs.
    private()?;
    let workspace = workspace(room)?;
    landlock::enforce_in_place(with.isolation, sources, room.writable())?;
    with.filter(tally)?;
    Ok(workspace)
}

/// Carries out steps on this process.
///
/// # Errors
/// The step that failed.
pub(crate) fn give_up(steps: impl IntoIterator<Item = Op>) -> Result<(), Error> {
    for step in steps {
        sys::carry_out(step).at(lockdown::name(step))?;
    }
    Ok(())
}

fn workspace(room: &Room) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(room.seen(WORKSPACE), flags, Mode::empty()).at(Step::Workspace)
}

fn hostname() -> Result<(), Error> {
    rustix::system::sethostname(b"sandbox").at(Step::Hostname)
}

/// Out of reach of the program it will start. After all changes of identity:
/// each would undo it.
fn private() -> Result<(), Error> {
    rustix::thread::set_name(c"init").at(Step::Private)?;
    if omitted(Omit::Private) {
        return rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
            .at(Step::Private);
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Private)
}
