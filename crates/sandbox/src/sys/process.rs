//! Making, replacing and measuring processes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use super::check;
use super::steps::{self, Lent, Op};
use crate::seccomp::Instruction;

/// Namespaces a box gets at birth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloneFlags {
    /// `CLONE_NEW*` bits.
    pub(crate) namespaces: u64,
}

/// Who is running after a fork.
#[derive(Debug)]
pub(crate) enum Child {
    /// The new process.
    Me,
    /// The old one.
    Pid(i32, Option<OwnedFd>),
}

/// The kernel's `struct clone_args`, version 2 (`CLONE_ARGS_SIZE_VER2`).
#[derive(Default)]
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clones this process into new namespaces, straight into `cgroup` (v2) if given.
///
/// Must be called while single-threaded: the child goes on with a copy of
/// this process's memory, and a lock held by another thread would stay held.
///
/// # Errors
/// Whatever `clone3` says; `EPERM` where user namespaces are forbidden.
pub(crate) fn clone_box(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags.namespaces | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a live clone_args of the given size with no stack, so
    // the child continues here on a copy of this stack, like fork; `pidfd`
    // outlives the call. The caller is single-threaded.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Child::Me);
    }
    // SAFETY: the kernel stored a new descriptor there, and nothing else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child::Pid(narrow(pid), Some(pidfd)))
}

/// Forks. Must be called while single-threaded, for the reason above.
///
/// # Errors
/// `EAGAIN` at the process limit, `ENOMEM`.
pub(crate) fn fork() -> io::Result<Child> {
    // SAFETY: single-threaded, so every lock in the copied memory is free.
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))?;
    Ok(if pid == 0 {
        Child::Me
    } else {
        Child::Pid(narrow(pid), None)
    })
}

fn narrow(pid: libc::c_long) -> i32 {
    i32::try_from(pid).expect("a pid is an int to the kernel")
}

/// Replaces this process; returns only on failure.
pub(crate) fn exec(argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|entry| entry.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, vars) = (pointers(argv), pointers(env));
    let Some(path) = argv.first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    // SAFETY: `path` and every pointer in both null-ended arrays point into
    // C strings that live until this call returns, which it does only on failure.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), vars.as_ptr()) };
    io::Error::last_os_error()
}

/// Carries out one step of a lock-down that needs nothing but its numbers.
///
/// # Errors
/// The kernel's.
pub(crate) fn carry_out(step: Op) -> io::Result<()> {
    let nothing = Lent {
        rules: -1,
        filter: std::ptr::null(),
        instructions: 0,
    };
    // SAFETY: a filter of no instructions is read from nowhere, and refused.
    unsafe { steps::carry_out(step, &nothing) }.map_err(io::Error::from_raw_os_error)
}

/// Opens no more from now on than a Landlock rule set lets it.
///
/// # Errors
/// The kernel's.
pub(crate) fn restrict(rules: &OwnedFd) -> io::Result<()> {
    let lent = Lent {
        rules: rules.as_raw_fd(),
        filter: std::ptr::null(),
        instructions: 0,
    };
    // SAFETY: this step reads no filter.
    unsafe { steps::carry_out(Op::Rules, &lent) }.map_err(io::Error::from_raw_os_error)
}

/// Ends this process at once, without running anything at exit.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes all descriptors from `first` to `last`, both included.
///
/// The caller must not own any of them: it is for a process that was just
/// forked and will never drop what it copied.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: no memory is touched; that no owner of these descriptors will
    // close them again is the caller's promise above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Gives a descriptor the number `number` as well, under which it outlives `execve`.
/// What had that number is closed: under the promise of [`close_range`].
///
/// # Errors
/// `EBADF` beyond the limit of open files.
pub(crate) fn give(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        return rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(io::Error::from);
    }
    // SAFETY: no memory is touched; that no owner of `number` will close it again is
    // the caller's promise.
    check(libc::c_long::from(unsafe {
        libc::dup2(fd.as_raw_fd(), number)
    }))
    .map(drop)
}

/// Closes all descriptors from 3 on but `kept`, under the same promise.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub(crate) fn close_all_but<'a>(kept: impl Iterator<Item = &'a OwnedFd>) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept {
        close_range(from, fd.saturating_sub(1))?;
        from = from.max(fd.saturating_add(1));
    }
    close_range(from, u32::MAX)
}

/// Installs a classic-BPF system-call filter on this thread.
///
/// # Errors
/// `EACCES` without `no_new_privs`; `EINVAL` for a malformed filter.
pub(crate) fn seccomp_install(instructions: &[Instruction]) -> io::Result<()> {
    seccomp(instructions, 0).map(drop)
}

/// `seccomp(2)` with a filter; what it gives depends on the flags.
pub(super) fn seccomp(
    instructions: &[Instruction],
    flags: libc::c_ulong,
) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: instructions.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `Instruction` is laid out as `sock_filter`, `program` names
    // exactly those instructions, and the kernel only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
}

/// Tries to become a process's tracer, and lets go of it again: for a self-test.
///
/// # Errors
/// `EPERM` or `ESRCH`, if all is well.
pub(crate) fn seize(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_SEIZE takes no address, and stops nobody.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) })?;
    // SAFETY: as above; what was not seized is not let go of.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, none, none) }).map(drop)
}

/// User and system time of all children that were waited for.
pub(crate) fn children_cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is writable and of the right size; RUSAGE_CHILDREN is valid,
    // so the call cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid rusage, and the kernel filled it.
    let usage = unsafe { usage.assume_init() };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs())
            + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Leaves namespaces shared with other processes for new ones.
///
/// # Errors
/// `EPERM` without the right, or where the host forbids user namespaces.
pub(crate) fn unshare(namespaces: rustix::thread::UnshareFlags) -> io::Result<()> {
    assert!(
        !namespaces.contains(rustix::thread::UnshareFlags::FILES),
        "descriptor tables are never split"
    );
    // SAFETY: the danger rustix names is a descriptor table split between
    // threads, which the assertion above rules out.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }?;
    Ok(())
}
