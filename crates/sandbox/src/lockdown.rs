//! What a process of a box gives up, as lists of steps.
//!
//! A box's init carries them out itself, for all that it forks; a program that a zygote
//! forks into the box carries out the same ones in the shared object (`sys/adopt.rs`).
//! Data only: nothing here acts, and no step is ever left out because it failed.

use crate::error::Step;
use crate::idmap::INSIDE;
use crate::limits::Limits;
use crate::omit::{Omit, omitted};
use crate::support::Isolation;
use crate::sys::Op;

/// Private address space beyond the memory limit, in bytes: Node 24 reserves
/// 512 MiB for code that it never fills.
const RESERVED: u64 = 1024 * 1024 * 1024;
/// Politeness of a box whose CPU no cgroup caps.
const NICE: i32 = 10;
/// Open files of a process where no cgroup accounts for their buffers.
const UNACCOUNTED_OPEN_FILES: u64 = 256;
/// The same where nobody can even count a box's sockets.
const UNCOUNTED_OPEN_FILES: u64 = 64;
/// Permissions that no file of a box is made with.
const UMASK: u32 = 0o022;
/// The highest number that a capability can have (`CAP_*` in 64 bits).
const LAST_CAPABILITY: u32 = 63;

/// What the lists depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// The rung that the box is made on.
    pub(crate) isolation: Isolation,
    /// What it may use.
    pub(crate) limits: &'a Limits,
    /// Whether supplementary groups can be dropped: not where only the
    /// server's own ids are mapped, because then the kernel forbids it.
    pub(crate) drop_groups: bool,
}

/// Returns the steps to the box's own user, whose host side is nobody's (or,
/// unprivileged, the server's).
pub(crate) fn identity(bounds: Bounds<'_>) -> Vec<Op> {
    if omitted(Omit::Identity) {
        return Vec::new();
    }
    let groups = bounds.drop_groups.then_some(Op::NoGroups);
    let ids = [Op::Group(INSIDE), Op::User(INSIDE), Op::Umask(UMASK)];
    groups.into_iter().chain(ids).collect()
}

/// Returns the step of a box whose CPU nothing caps: at least the server comes first.
pub(crate) fn politeness(bounds: Bounds<'_>) -> Option<Op> {
    (bounds.isolation != Isolation::Full).then_some(Op::Nice(NICE))
}

/// Returns the steps that limit what a process may take, but for open files.
pub(crate) fn limits(bounds: Bounds<'_>) -> Vec<Op> {
    let limits = bounds.limits;
    let mut steps = vec![
        // Not 0: where core_pattern is a pipe, only 1 keeps the kernel from
        // starting the helper as the host's root (core(5)).
        limit(libc::RLIMIT_CORE, 1),
        limit(libc::RLIMIT_FSIZE, limits.workspace),
        limit(libc::RLIMIT_MEMLOCK, 64 * 1024),
        limit(libc::RLIMIT_MSGQUEUE, 819_200),
        limit(libc::RLIMIT_NICE, 0),
        limit(libc::RLIMIT_RTPRIO, 0),
        limit(libc::RLIMIT_SIGPENDING, 1024),
    ];
    if bounds.isolation != Isolation::Full {
        // Stand-ins: the kernel counts processes by uid, in each user namespace
        // since 5.14, and RLIMIT_DATA bounds what one can take between two
        // looks of the memory watcher. RLIMIT_AS would kill Node, which
        // reserves far more than it uses.
        let init = u64::from(bounds.isolation == Isolation::Namespaces);
        if !omitted(Omit::Processes) {
            let most = u64::from(limits.processes) + init;
            steps.push(limit(libc::RLIMIT_NPROC, most));
        }
        steps.push(limit(libc::RLIMIT_DATA, limits.memory + RESERVED));
    }
    steps
}

/// Returns the step that limits the open files of a program.
///
/// Init itself keeps what the server has. The kernel counts descriptors that are on
/// their way by user, and refuses to send more to whoever has a limit below that: where
/// boxes share a user, a program that fills sockets with them must not keep the inits of
/// others from their work.
pub(crate) fn open_files(bounds: Bounds<'_>) -> Op {
    let wanted = bounds.limits.open_files;
    // Each socket can hold kernel memory that nothing else bounds.
    let most = match bounds.isolation {
        Isolation::Full => wanted,
        Isolation::Namespaces => wanted.min(UNACCOUNTED_OPEN_FILES),
        Isolation::Uids => wanted.min(UNCOUNTED_OPEN_FILES),
    };
    limit(libc::RLIMIT_NOFILE, most)
}

/// Returns the steps after which there is no way back to a capability, neither by uid 0
/// nor by executing a file.
pub(crate) fn unprivileged_for_good() -> Vec<Op> {
    use rustix::thread::CapabilitiesSecureBits as Bits;
    let locked = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    let bounds = (0..=LAST_CAPABILITY).map(Op::NoBound);
    [Op::SecureBits(locked.bits()), Op::NoAmbient]
        .into_iter()
        .chain(bounds)
        .collect()
}

/// Returns the last steps of a process that gets no rights any more.
pub(crate) const fn powerless() -> [Op; 2] {
    [Op::NoCapabilities, Op::NoNewPrivileges]
}

/// Returns all steps of a program that a zygote forked into a box with namespaces: what
/// init and its child do together.
pub(crate) fn of_adopted(bounds: Bounds<'_>) -> Vec<Op> {
    let mut steps = vec![Op::Session];
    steps.extend(identity(bounds));
    steps.extend(politeness(bounds));
    steps.extend(limits(bounds));
    steps.push(open_files(bounds));
    steps.push(Op::Workspace);
    steps.extend(unprivileged_for_good());
    steps.extend(powerless());
    if !omitted(Omit::Landlock) {
        steps.push(Op::Rules);
    }
    if !omitted(Omit::Seccomp) {
        steps.push(Op::Filter);
    }
    steps
}

/// Returns what is being done by a step, for errors.
pub(crate) const fn name(op: Op) -> Step {
    match op {
        Op::Session => Step::Fork,
        Op::NoGroups | Op::Group(_) | Op::User(_) | Op::Umask(_) => Step::Identity,
        Op::Nice(_) | Op::Limit(..) => Step::Rlimits,
        Op::Workspace => Step::Workspace,
        Op::SecureBits(_) | Op::NoAmbient | Op::NoBound(_) | Op::NoCapabilities => {
            Step::Capabilities
        }
        Op::NoNewPrivileges => Step::NoNewPrivs,
        Op::Rules => Step::Landlock,
        Op::Filter => Step::Seccomp,
    }
}

/// Narrows a resource's number, which C libraries give different types.
fn limit<T: TryInto<u32>>(resource: T, most: u64) -> Op {
    let Ok(resource) = resource.try_into() else {
        unreachable!("the kernel's resources are small numbers");
    };
    Op::Limit(resource, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const LIMITS: Limits = Limits {
        memory: 512 << 20,
        processes: 64,
        cpu_millis: 1000,
        workspace: 256 << 20,
        inodes: 65_536,
        shm: 64 << 20,
        open_files: 1024,
    };

    fn shown(isolation: Isolation, drop_groups: bool) -> String {
        let steps = of_adopted(Bounds {
            isolation,
            limits: &LIMITS,
            drop_groups,
        });
        let mut text = String::new();
        for step in steps {
            // One line for all of these.
            if !matches!(step, Op::NoBound(1..LAST_CAPABILITY)) {
                writeln!(text, "{step:?}").unwrap();
            }
        }
        text
    }

    /// The whole lock-down of an adopted program, in its order.
    #[test]
    fn an_adopted_program_gives_up_all_of_this() {
        let common = "Limit(4, 1)\nLimit(1, 268435456)\nLimit(8, 65536)\nLimit(12, 819200)\n\
                      Limit(13, 0)\nLimit(14, 0)\nLimit(11, 1024)\n";
        let last = "Workspace\nSecureBits(239)\nNoAmbient\nNoBound(0)\nNoBound(63)\n\
                    NoCapabilities\nNoNewPrivileges\nRules\nFilter\n";
        let ids = "Group(1000)\nUser(1000)\nUmask(18)\n";
        assert_eq!(
            shown(Isolation::Full, true),
            format!("Session\nNoGroups\n{ids}{common}Limit(7, 1024)\n{last}")
        );
        assert_eq!(
            shown(Isolation::Namespaces, false),
            format!(
                "Session\n{ids}Nice(10)\n{common}Limit(6, 65)\nLimit(2, 1610612736)\n\
                 Limit(7, 256)\n{last}"
            )
        );
    }

    #[test]
    fn steps_survive_the_wire() {
        let bounds = Bounds {
            isolation: Isolation::Namespaces,
            limits: &LIMITS,
            drop_groups: true,
        };
        for step in of_adopted(bounds) {
            assert_eq!(Op::of(step.words()), Some(step));
        }
        assert_eq!(Op::of([15, 0, 0]), None);
        assert_eq!(Op::of([2, 1 << 32, 0]), None);
        assert_eq!(Op::of(Op::Nice(-3).words()), Some(Op::Nice(-3)));
    }
}
