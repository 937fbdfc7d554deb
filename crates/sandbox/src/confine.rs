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
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags,
};

use crate::error::{At, Error, Step};
use crate::explain::Tally;
use crate::idmap::INSIDE;
use crate::limits::Limits;
use crate::mount::{self, Source};
use crate::omit::{Omit, omitted};
use crate::seccomp::Filter;
use crate::spec::WORKSPACE;
use crate::support::Isolation;
use crate::uids::Room;
use crate::{landlock, sys};

/// Private address space beyond the memory limit, in bytes: Node 24 reserves
/// 512 MiB for code that it never fills.
const RESERVED: u64 = 1024 * 1024 * 1024;
/// Politeness of a box whose CPU no cgroup caps.
const NICE: i32 = 10;
/// Open files of a process where no cgroup accounts for their buffers.
const UNACCOUNTED_OPEN_FILES: u64 = 256;
/// The same where nobody can even count a box's sockets.
const UNCOUNTED_OPEN_FILES: u64 = 64;

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

/// Confines this process for good. Returns its workspace directory. `tally` is
/// there if what the filter denies is to be told.
///
/// # Errors
/// The step that failed.
pub(crate) fn confine(with: &Confinement<'_>, tally: Option<&Tally>) -> Result<OwnedFd, Error> {
    match &with.walls {
        Walls::Namespaces {
            sources,
            drop_groups,
        } => in_namespaces(with, sources, *drop_groups, tally),
        Walls::InPlace { sources, room } => in_place(with, sources, room, tally),
    }
}

fn in_namespaces(
    with: &Confinement<'_>,
    sources: &[Source],
    drop_groups: bool,
    tally: Option<&Tally>,
) -> Result<OwnedFd, Error> {
    identity(drop_groups)?;
    hostname()?;
    if with.has_cgroup() {
        // Before the limit on namespaces that comes with /proc.
        sys::unshare(UnshareFlags::NEWCGROUP).at(Step::CgroupNamespace)?;
    } else {
        nice()?;
    }
    let workspace = mount::enter(sources, with.limits)?;
    rlimits(with)?;
    unprivileged_for_good()?;
    no_capabilities()?;
    rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivs)?;
    private()?;
    // The warden's death ends the box's pid namespace with its init.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Step::DeathSignal)?;
    landlock::enforce(with.isolation)?;
    with.filter(tally)?;
    Ok(workspace)
}

/// Without namespaces: what it may open is what Landlock says, whom it may
/// signal is what its uid says, and there are no sockets with addresses.
fn in_place(
    with: &Confinement<'_>,
    sources: &[OwnedFd],
    room: &Room,
    tally: Option<&Tally>,
) -> Result<OwnedFd, Error> {
    nice()?;
    rlimits(with)?;
    // Orphans come to init, which ends them with their program.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Step::Identity)?;
    unprivileged_for_good()?;
    room.become_init().at(Step::Identity)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    no_capabilities()?;
    rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivs)?;
    // No death signal: when the warden dies it is init that ends the programs.
    private()?;
    let workspace = workspace(room)?;
    landlock::enforce_in_place(with.isolation, sources, room.writable())?;
    with.filter(tally)?;
    Ok(workspace)
}

fn workspace(room: &Room) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(room.seen(WORKSPACE), flags, Mode::empty()).at(Step::Workspace)
}

/// Nothing caps its CPU: at least the server comes first.
fn nice() -> Result<(), Error> {
    rustix::process::setpriority_process(None, NICE).at(Step::Rlimits)
}

/// The box's own user. Its host side is nobody's (or, unprivileged, the server's).
fn identity(drop_groups: bool) -> Result<(), Error> {
    if omitted(Omit::Identity) {
        return Ok(());
    }
    if drop_groups {
        rustix::thread::set_thread_groups(&[]).at(Step::Identity)?;
    }
    let (uid, gid) = (Uid::from_raw(INSIDE), Gid::from_raw(INSIDE));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::Identity)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::Identity)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

fn hostname() -> Result<(), Error> {
    rustix::system::sethostname(b"sandbox").at(Step::Hostname)
}

/// Limits the open files of a program, in a child of init that becomes one.
///
/// Init itself keeps what the server has. The kernel counts descriptors that are on
/// their way by user, and refuses to send more to whoever has a limit below that: where
/// boxes share a user, a program that fills sockets with them must not keep the inits of
/// others from their work.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn limit_open_files(with: &Confinement<'_>) -> std::io::Result<()> {
    // Each socket can hold kernel memory that nothing else bounds.
    let open_files = match with.isolation {
        Isolation::Full => with.limits.open_files,
        Isolation::Namespaces => with.limits.open_files.min(UNACCOUNTED_OPEN_FILES),
        Isolation::Uids => with.limits.open_files.min(UNCOUNTED_OPEN_FILES),
    };
    limit(Resource::Nofile, open_files)
}

fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    // A container may have been given less, and root there may not raise it.
    let ceiling = rustix::process::getrlimit(resource).maximum;
    let most = Some(ceiling.map_or(most, |ceiling| ceiling.min(most)));
    let rlimit = Rlimit {
        current: most,
        maximum: most,
    };
    Ok(rustix::process::setrlimit(resource, rlimit)?)
}

fn rlimits(with: &Confinement<'_>) -> Result<(), Error> {
    let limits = with.limits;
    let mut wanted = vec![
        // Not 0: where core_pattern is a pipe, only 1 keeps the kernel from
        // starting the helper as the host's root (core(5)).
        (Resource::Core, 1),
        (Resource::Fsize, limits.workspace),
        (Resource::Memlock, 64 * 1024),
        (Resource::Msgqueue, 819_200),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
        (Resource::Sigpending, 1024),
    ];
    if !with.has_cgroup() {
        // Stand-ins: the kernel counts processes by uid, in each user namespace
        // since 5.14, and RLIMIT_DATA bounds what one can take between two
        // looks of the memory watcher. RLIMIT_AS would kill Node, which
        // reserves far more than it uses.
        let init = u64::from(with.room().is_none());
        if !omitted(Omit::Processes) {
            wanted.push((Resource::Nproc, u64::from(limits.processes) + init));
        }
        wanted.push((Resource::Data, limits.memory + RESERVED));
    }
    for (resource, most) in wanted {
        limit(resource, most).at(Step::Rlimits)?;
    }
    Ok(())
}

/// No way back to a capability through uid 0 or exec.
fn unprivileged_for_good() -> Result<(), Error> {
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(locked).at(Step::Capabilities)?;
    rustix::thread::clear_ambient_capability_set().at(Step::Capabilities)?;
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Newer than this kernel: it cannot be held either.
            Err(rustix::io::Errno::INVAL) => {}
            other => other.at(Step::Capabilities)?,
        }
    }
    Ok(())
}

/// No capability in any set.
fn no_capabilities() -> Result<(), Error> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).at(Step::Capabilities)
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
