//! Signal dispositions, and signalling everybody in a box.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::process::Pid;

use super::check;

/// Ignores `signals` in this process and what it forks.
pub(crate) fn ignore_signals(signals: &[i32]) {
    for signal in signals {
        // SAFETY: SIG_IGN is a valid disposition and runs no code of ours.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Gives every signal its default disposition and unblocks all, as a program
/// expects to find them: what is ignored or blocked survives `execve`.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition; for SIGKILL and SIGSTOP the
        // call fails and changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `none` is writable and of the right type.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` was initialised by sigemptyset; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}

/// A descriptor that is readable when a child has ended. Blocks the signal
/// itself; [`default_signals`] unblocks it for programs.
///
/// # Errors
/// `EMFILE`, `ENOMEM`.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is writable and of the right type.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset initialised it, and SIGCHLD is a signal.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: `set` is initialised; the old mask is not asked for.
    let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
    check(libc::c_long::from(blocked))?;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: -1 asks for a new descriptor, and `set` is initialised.
    let fd = check(libc::c_long::from(unsafe {
        libc::signalfd(-1, set.as_ptr(), flags)
    }))?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes all that is there, so that the next wait waits.
///
/// # Errors
/// Whatever reading says.
pub(crate) fn drain_signals(signals: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0u8; 8 * size_of::<libc::signalfd_siginfo>()];
    loop {
        match rustix::io::read(signals, &mut buffer) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends `signal` to every process this one may signal, itself and PID 1 left out.
///
/// Only ever called by a box's init, whose pid namespace (or uid) bounds who
/// that is.
///
/// # Errors
/// `ESRCH` when there is nobody.
pub(crate) fn send_signal_to_all(signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory.
    check(libc::c_long::from(unsafe { libc::kill(-1, signal) })).map(drop)
}

/// Sends `signal` to every process of a group. Its leader must not be reaped yet:
/// then nobody else's group can have the number.
///
/// # Errors
/// `ESRCH` when all of them have ended.
pub(crate) fn send_signal_to_group(leader: Pid, signal: i32) -> io::Result<()> {
    let group = leader.as_raw_nonzero().get();
    // SAFETY: kill touches no memory.
    check(libc::c_long::from(unsafe { libc::kill(-group, signal) })).map(drop)
}
