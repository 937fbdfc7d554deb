//! System calls that a filter hands to another process to decide.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use super::check;
use crate::seccomp::{Instruction, MARK};

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Names it to the kernel.
    pub(crate) id: u64,
    /// The thread that makes it, as this process sees it.
    pub(crate) thread: u32,
    /// Its architecture, as the kernel tells it to filters.
    pub(crate) arch: u32,
    /// Its number; of the x32 interface with its bit.
    pub(crate) number: u32,
    /// Its arguments; what they point to is the thread's, and may change.
    pub(crate) args: [u64; 6],
}

/// What a waiting call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The kernel carries it out.
    GoOn,
    /// It has been carried out for it.
    Done,
    /// It fails with this error number.
    Refused(i32),
}

/// Installs a filter for this thread and all that it forks, and gives the
/// descriptor at which its [`Call`]s are answered. Since Linux 5.19 a waiting
/// thread can be killed and not be interrupted, and so never sees a call fail
/// with `EINTR` that fails at once elsewhere.
///
/// # Errors
/// `EACCES` without `no_new_privs`; `EBUSY` where there is a listener already;
/// `EINVAL` for a malformed filter, and before Linux 5.0.
pub(crate) fn seccomp_listen(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let installed = match super::process::seccomp(instructions, flags | killable) {
        // A kernel that does not know the second flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            super::process::seccomp(instructions, flags)
        }
        installed => installed,
    };
    let fd = RawFd::try_from(installed?).map_err(io::Error::other)?;
    // SAFETY: with NEW_LISTENER the kernel gives a new descriptor, closed on
    // exec, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a filter holds for this process already.
pub(crate) fn is_filtered() -> bool {
    // SAFETY: PR_GET_SECCOMP touches no memory.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) > 0 }
}

/// The next call that waits; `None` when its thread died meanwhile. Blocks if
/// there is none: [`poll`](rustix::event::poll) tells.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn next_call(listener: BorrowedFd<'_>) -> io::Result<Option<Call>> {
    // SAFETY: all-zero bytes are a valid seccomp_notif, and the kernel wants them so.
    let mut found: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes a seccomp_notif, and `found` is one.
    let got = unsafe {
        let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
        marked_ioctl(listener, request, (&raw mut found).cast())
    };
    match got {
        Ok(()) => Ok(Some(Call {
            id: found.id,
            thread: found.pid,
            arch: found.data.arch,
            number: found.data.nr.cast_unsigned(),
            args: found.data.args,
        })),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a call still waits: if so its thread's number is still its own, and
/// what was opened by that number was the thread's.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, call: &Call) -> bool {
    // SAFETY: the request reads a u64.
    let got = unsafe {
        let request = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
        marked_ioctl(listener, request, (&raw const call.id).cast_mut().cast())
    };
    got.is_ok()
}

/// Lets a call go on its way, unless whoever made it died meanwhile.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn answer(listener: BorrowedFd<'_>, call: &Call, verdict: Verdict) -> io::Result<()> {
    let (error, flags) = match verdict {
        Verdict::GoOn => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        Verdict::Done => (0, 0),
        Verdict::Refused(errno) => (-errno, 0),
    };
    let response = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error,
        flags: u32::try_from(flags).map_err(io::Error::other)?,
    };
    // SAFETY: the request reads a seccomp_notif_resp, and `response` is one.
    let sent = unsafe {
        let request = libc::SECCOMP_IOCTL_NOTIF_SEND;
        marked_ioctl(listener, request, (&raw const response).cast_mut().cast())
    };
    match sent {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(()),
        sent => sent,
    }
}

/// Makes an `ioctl` that init's own filter knows as init's.
///
/// # Safety
/// `at` must be what `request` reads and writes.
unsafe fn marked_ioctl(
    of: BorrowedFd<'_>,
    request: libc::Ioctl,
    at: *mut libc::c_void,
) -> io::Result<()> {
    // SAFETY: the caller's promise; the kernel looks at no argument but these three.
    check(unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            of.as_raw_fd(),
            request,
            at,
            0usize,
            0usize,
            MARK as usize,
        )
    })
    .map(drop)
}
