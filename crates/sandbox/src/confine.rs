//! The security story of a box, top to bottom.
//!
//! Runs in the process that becomes the box's init, after the warden has
//! cloned it into fresh user, pid, mount, ipc, uts and network namespaces and
//! into its cgroup, and before a byte of the user's is read. Every step holds
//! or the box is given up; nothing is retried and no result is dropped.

use std::os::fd::OwnedFd;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags,
};

use crate::error::{At, Error, Step};
use crate::idmap::INSIDE;
use crate::limits::Limits;
use crate::mount::{self, Source};
use crate::seccomp::Filter;
use crate::{landlock, sys};

/// Private address space beyond the memory limit, in bytes: Node 24 reserves
/// 512 MiB for code that it never fills.
const RESERVED: u64 = 1024 * 1024 * 1024;
/// Politeness of a box whose CPU no cgroup caps.
const NICE: i32 = 10;
/// Open files of a process where no cgroup accounts for their buffers.
const UNACCOUNTED_OPEN_FILES: u64 = 256;

/// What confinement needs to know.
#[derive(Debug)]
pub(crate) struct Confinement<'a> {
    /// What the box sees of the host.
    pub(crate) sources: &'a [Source],
    /// What it may use.
    pub(crate) limits: &'a Limits,
    /// Whether a cgroup enforces memory and processes.
    pub(crate) cgroup: bool,
    /// The system-call filter.
    pub(crate) filter: &'a Filter,
    /// Whether supplementary groups can be dropped: not where only the
    /// server's own ids are mapped, because then the kernel forbids it.
    pub(crate) drop_groups: bool,
}

/// Confines this process for good. Gives the workspace directory.
///
/// # Errors
/// The step that failed.
pub(crate) fn confine(with: &Confinement<'_>) -> Result<OwnedFd, Error> {
    identity(with.drop_groups)?;
    hostname()?;
    if with.cgroup {
        // Before the limit on namespaces that comes with /proc.
        sys::unshare(UnshareFlags::NEWCGROUP).at(Step::CgroupNamespace)?;
    } else {
        // Nothing caps its CPU: at least the server comes first.
        rustix::process::setpriority_process(None, NICE).at(Step::Rlimits)?;
    }
    let workspace = mount::enter(with.sources, with.limits)?;
    rlimits(with)?;
    capabilities()?;
    rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivs)?;
    private()?;
    landlock::enforce()?;
    with.filter.install().at(Step::Seccomp)?;
    Ok(workspace)
}

/// The box's own user. Its host side is nobody's (or, unprivileged, the server's).
fn identity(drop_groups: bool) -> Result<(), Error> {
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

fn rlimits(with: &Confinement<'_>) -> Result<(), Error> {
    let limits = with.limits;
    // Each socket can hold kernel memory that nothing else bounds.
    let open_files = if with.cgroup {
        limits.open_files
    } else {
        limits.open_files.min(UNACCOUNTED_OPEN_FILES)
    };
    let mut wanted = vec![
        // Not 0: where core_pattern is a pipe, only 1 keeps the kernel from
        // starting the helper as the host's root (core(5)).
        (Resource::Core, 1),
        (Resource::Nofile, open_files),
        (Resource::Fsize, limits.workspace),
        (Resource::Memlock, 64 * 1024),
        (Resource::Msgqueue, 819_200),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
        (Resource::Sigpending, 1024),
    ];
    if !with.cgroup {
        // Stand-ins: the kernel counts processes by user namespace since 5.14,
        // and RLIMIT_DATA bounds what one can take between two looks of the
        // memory watcher. RLIMIT_AS would kill Node, which reserves far more
        // than it uses.
        wanted.push((Resource::Nproc, u64::from(limits.processes) + 1));
        wanted.push((Resource::Data, limits.memory + RESERVED));
    }
    for (resource, most) in wanted {
        let rlimit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        rustix::process::setrlimit(resource, rlimit).at(Step::Rlimits)?;
    }
    Ok(())
}

/// No capability in any set, nor a way back to one through uid 0 or exec.
fn capabilities() -> Result<(), Error> {
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
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).at(Step::Capabilities)
}

/// Out of reach of the program it will start, and dead when the warden is.
/// After all changes of identity: each would undo both.
fn private() -> Result<(), Error> {
    rustix::thread::set_name(c"init").at(Step::Private)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Private)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Step::DeathSignal)
}
