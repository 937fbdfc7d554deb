//! System calls that a filter hands to another process to answer.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use super::check;
use crate::seccomp::Instruction;

/// A call that waits for its answer. Its arguments are left out: most are
/// pointers into the memory of whoever makes it, which may hold something else
/// by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Names it to the kernel.
    id: u64,
    /// Its architecture, as the kernel tells it to filters.
    pub(crate) arch: u32,
    /// Its number; of the x32 interface with its bit.
    pub(crate) number: u32,
}

/// Installs a filter for this thread and all that it forks, and returns the
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

/// Returns the next call that waits; `None` when its thread died meanwhile.
/// Blocks if there is none: [`poll`](rustix::event::poll) tells.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn next_call(listener: BorrowedFd<'_>) -> io::Result<Option<Call>> {
    // SAFETY: all-zero bytes are a valid seccomp_notif, and the kernel wants them so.
    let mut found: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes a seccomp_notif, and `found` is one.
    let got = check(libc::c_long::from(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut found,
        )
    }));
    match got {
        Ok(_) => Ok(Some(Call {
            id: found.id,
            arch: found.data.arch,
            number: found.data.nr.cast_unsigned(),
        })),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets a waiting call fail with `errno`, unless its thread died meanwhile. No
/// call is ever let through.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn refuse(listener: BorrowedFd<'_>, call: &Call, errno: i32) -> io::Result<()> {
    let response = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: -errno,
        flags: 0,
    };
    // SAFETY: the request reads a seccomp_notif_resp, and `response` is one.
    let sent = check(libc::c_long::from(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        )
    }));
    match sent {
        Err(error) if is_gone(&error) => Ok(()),
        sent => sent.map(drop),
    }
}

/// Whether the caller died, or waiting was interrupted: neither is a failure.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR))
}
