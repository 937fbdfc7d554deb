//! The steps by which a process gives up its rights, and what carries them out.
//!
//! Two callers share this file: a box's init, in this crate, and the program that the
//! zygote forks into a box, in the shared object that `build.rs` makes of `adopt.rs`.
//! So it uses `core` alone: no allocator, no libc, no other file of this crate. It
//! decides nothing: `lockdown.rs` writes the list.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of the kernel's, in its registers and on the wire"
)]

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const CHDIR: usize = 80;
    pub(super) const UMASK: usize = 95;
    pub(super) const SETSID: usize = 112;
    pub(super) const SETGROUPS: usize = 116;
    pub(super) const SETRESUID: usize = 117;
    pub(super) const SETRESGID: usize = 119;
    pub(super) const CAPSET: usize = 126;
    pub(super) const SETPRIORITY: usize = 141;
    pub(super) const PRCTL: usize = 157;
    pub(super) const PRLIMIT64: usize = 302;
    pub(super) const SECCOMP: usize = 317;
    pub(super) const LANDLOCK_RESTRICT_SELF: usize = 446;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const CHDIR: usize = 49;
    pub(super) const UMASK: usize = 166;
    pub(super) const SETSID: usize = 157;
    pub(super) const SETGROUPS: usize = 159;
    pub(super) const SETRESUID: usize = 147;
    pub(super) const SETRESGID: usize = 149;
    pub(super) const CAPSET: usize = 91;
    pub(super) const SETPRIORITY: usize = 140;
    pub(super) const PRCTL: usize = 167;
    pub(super) const PRLIMIT64: usize = 261;
    pub(super) const SECCOMP: usize = 277;
    pub(super) const LANDLOCK_RESTRICT_SELF: usize = 446;
}

const PR_SET_SECUREBITS: usize = 28;
const PR_CAPBSET_DROP: usize = 24;
const PR_SET_NO_NEW_PRIVS: usize = 38;
const PR_CAP_AMBIENT: usize = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
const SECCOMP_SET_MODE_FILTER: usize = 1;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const EINVAL: i32 = 22;

/// A step. Each holds from then on for all that the process forks and executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Leads a session of its own.
    Session,
    /// Has no supplementary groups.
    NoGroups,
    /// Has this group, whichever of its three is asked for.
    Group(u32),
    /// Has this user, whichever of its three is asked for.
    User(u32),
    /// Makes files without these permissions.
    Umask(u32),
    /// Waits for others, by so much.
    Nice(i32),
    /// Has at most so much of a resource (`RLIMIT_*`), or what it was given if that
    /// is less.
    Limit(u32, u64),
    /// Is in the workspace.
    Workspace,
    /// Has these secure bits (`SECBIT_*`).
    SecureBits(u32),
    /// Has no ambient capabilities.
    NoAmbient,
    /// Never gets this capability by executing a file.
    NoBound(u32),
    /// Has no capability in any set.
    NoCapabilities,
    /// Gets no rights by executing a file.
    NoNewPrivileges,
    /// Opens no more than the rule set lets it.
    Rules,
    /// Makes no calls that the filter denies.
    Filter,
}

/// Words of a step on the wire.
pub(super) const WORDS: usize = 3;

impl Op {
    /// Returns the step as it is sent.
    #[cfg(not(adopter))]
    #[must_use]
    pub(crate) const fn words(self) -> [u64; WORDS] {
        match self {
            Self::Session => [0, 0, 0],
            Self::NoGroups => [1, 0, 0],
            Self::Group(id) => [2, id as u64, 0],
            Self::User(id) => [3, id as u64, 0],
            Self::Umask(mask) => [4, mask as u64, 0],
            Self::Nice(by) => [5, by as i64 as u64, 0],
            Self::Limit(resource, most) => [6, resource as u64, most],
            Self::Workspace => [7, 0, 0],
            Self::SecureBits(bits) => [8, bits as u64, 0],
            Self::NoAmbient => [9, 0, 0],
            Self::NoBound(capability) => [10, capability as u64, 0],
            Self::NoCapabilities => [11, 0, 0],
            Self::NoNewPrivileges => [12, 0, 0],
            Self::Rules => [13, 0, 0],
            Self::Filter => [14, 0, 0],
        }
    }

    /// Returns the step that was sent; `None` for anything else.
    #[cfg(any(test, adopter))]
    #[must_use]
    pub(crate) const fn of(words: [u64; WORDS]) -> Option<Self> {
        let [kind, a, b] = words;
        if a > u32::MAX as u64 && kind != 5 {
            return None;
        }
        Some(match kind {
            0 => Self::Session,
            1 => Self::NoGroups,
            2 => Self::Group(a as u32),
            3 => Self::User(a as u32),
            4 => Self::Umask(a as u32),
            5 => Self::Nice(a as i64 as i32),
            6 => Self::Limit(a as u32, b),
            7 => Self::Workspace,
            8 => Self::SecureBits(a as u32),
            9 => Self::NoAmbient,
            10 => Self::NoBound(a as u32),
            11 => Self::NoCapabilities,
            12 => Self::NoNewPrivileges,
            13 => Self::Rules,
            14 => Self::Filter,
            _ => return None,
        })
    }
}

/// What some steps need besides their numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lent {
    /// The Landlock rule set, by its descriptor.
    pub(super) rules: i32,
    /// The system-call filter: `sock_filter`s of the kernel.
    pub(super) filter: *const u8,
    /// How many instructions it has.
    pub(super) instructions: u16,
}

/// Carries out a step on the calling thread.
///
/// # Errors
/// The kernel's errno.
///
/// # Safety
/// `lent` must lead to so many instructions.
pub(super) unsafe fn carry_out(op: Op, lent: &Lent) -> Result<(), i32> {
    /// The kernel's `sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const u8,
    }
    let program = Program {
        len: lent.instructions,
        filter: lent.filter,
    };
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    let (number, args) = match op {
        Op::Session => (number::SETSID, [0; 6]),
        Op::NoGroups => (number::SETGROUPS, [0; 6]),
        Op::Group(id) => (number::SETRESGID, first([id as usize; 3])),
        Op::User(id) => (number::SETRESUID, first([id as usize; 3])),
        Op::Umask(mask) => (number::UMASK, first([mask as usize, 0, 0])),
        Op::Nice(by) => (number::SETPRIORITY, first([0, 0, by as usize])),
        Op::Limit(resource, most) => return limit(resource, most),
        Op::Workspace => {
            let path = c"/workspace".as_ptr() as usize;
            (number::CHDIR, first([path, 0, 0]))
        }
        Op::SecureBits(bits) => prctl(PR_SET_SECUREBITS, bits as usize),
        Op::NoAmbient => prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL),
        Op::NoBound(capability) => prctl(PR_CAPBSET_DROP, capability as usize),
        Op::NoCapabilities => {
            let place = (header.as_ptr() as usize, none.as_ptr() as usize);
            (number::CAPSET, first([place.0, place.1, 0]))
        }
        Op::NoNewPrivileges => prctl(PR_SET_NO_NEW_PRIVS, 1),
        Op::Rules => {
            let rules = lent.rules as usize;
            (number::LANDLOCK_RESTRICT_SELF, first([rules, 0, 0]))
        }
        Op::Filter => {
            let program = core::ptr::from_ref(&program) as usize;
            let args = [SECCOMP_SET_MODE_FILTER, 0, program];
            (number::SECCOMP, first(args))
        }
    };
    // SAFETY: the call takes numbers alone, or the address of memory that lives as long
    // as the call and that the kernel only reads; the filter is the caller's promise.
    match (op, unsafe { call(number, args) }) {
        // Newer than this kernel: it cannot be held either.
        (Op::NoBound(_), Err(EINVAL)) => Ok(()),
        (_, result) => result.map(|_| ()),
    }
}

const fn first(args: [usize; 3]) -> [usize; 6] {
    [args[0], args[1], args[2], 0, 0, 0]
}

const fn prctl(option: usize, value: usize) -> (usize, [usize; 6]) {
    (number::PRCTL, first([option, value, 0]))
}

fn limit(resource: u32, most: u64) -> Result<(), i32> {
    let mut had = [0u64; 2];
    let resource = resource as usize;
    let place = had.as_mut_ptr() as usize;
    // SAFETY: `had` is as large as the kernel's rlimit64.
    unsafe { call(number::PRLIMIT64, [0, resource, 0, place, 0, 0]) }?;
    // A container may have been given less, and root there may not raise it.
    let most = if had[1] < most { had[1] } else { most };
    let wanted = [most, most];
    let place = wanted.as_ptr() as usize;
    // SAFETY: as above; the kernel only reads it.
    unsafe { call(number::PRLIMIT64, [0, resource, place, 0, 0, 0]) }.map(|_| ())
}

/// Makes a system call.
///
/// # Errors
/// The kernel's errno.
///
/// # Safety
/// What the call does to memory must be the caller's to allow.
pub(super) unsafe fn call(number: usize, args: [usize; 6]) -> Result<usize, i32> {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the registers are those of the kernel's convention; the rest is the
    // caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3],
            in("x4") args[4], in("x5") args[5],
            options(nostack),
        );
    }
    // The kernel's own border between results and errors.
    if result < 0 && result > -4096 {
        return Err(-result as i32);
    }
    Ok(result as usize)
}
