//! Calls that a filter asks about: its listener, what is asked, the answer.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;
use crate::seccomp::Instruction;

/// A call that waits for an answer. Its arguments are left out: most are
/// pointers into the asker's memory, which may hold something else by now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Names it in the answer.
    id: u64,
    /// Of the call, as the kernel tells it to filters.
    pub(crate) arch: u32,
    pub(crate) number: u32,
}

/// The kernel's `struct seccomp_notif`.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: u32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// The kernel's `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

// `_IOWR('!', 0, struct seccomp_notif)` and `_IOWR('!', 1, struct seccomp_notif_resp)`:
// a kernel whose structures had other sizes would not know these numbers.
const RECEIVE: libc::Ioctl = 0xc050_2100u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101u32 as libc::Ioctl;
const _: () = assert!(size_of::<Notification>() == 0x50 && size_of::<Response>() == 0x18);

/// Once its call was received, an asker waits for the answer whatever signals
/// come, and so never sees a call fail with `EINTR` that fails at once elsewhere.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5; // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19

/// Installs a filter on this thread. Gives the listener of what it asks.
///
/// # Errors
/// `EACCES` without `no_new_privs`; `EBUSY` where there is a listener already;
/// `EINVAL` for a malformed filter, and before Linux 5.0.
pub(crate) fn seccomp_listen(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let installed = match super::process::seccomp(instructions, flags | WAIT_KILLABLE) {
        // A kernel that does not know the second flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            super::process::seccomp(instructions, flags)
        }
        installed => installed,
    };
    let fd = i32::try_from(installed?).map_err(io::Error::other)?;
    // SAFETY: the kernel just made it, closed on exec, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a filter holds for this process already.
pub(crate) fn is_filtered() -> bool {
    // SAFETY: PR_GET_SECCOMP touches no memory.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) > 0 }
}

/// Takes the next call that waits. Call it when the listener is readable: then
/// it does not block.
///
/// # Errors
/// `ENOENT` when whoever asked died meanwhile; `EINTR`.
pub(crate) fn receive_asked(listener: BorrowedFd<'_>) -> io::Result<Asked> {
    // All zero, as the kernel demands.
    let mut notification = Notification::default();
    // SAFETY: RECEIVE writes a seccomp_notif, and `notification` is laid out as one.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notification)
    }))?;
    Ok(Asked {
        id: notification.id,
        arch: notification.arch,
        number: notification.number,
    })
}

/// Lets a call that was asked about fail with `errno`. It is never let through.
///
/// # Errors
/// `ENOENT` when whoever asked died meanwhile; `EINTR`.
pub(crate) fn refuse(listener: BorrowedFd<'_>, asked: &Asked, errno: i32) -> io::Result<()> {
    let response = Response {
        id: asked.id,
        value: 0,
        error: -errno,
        flags: 0,
    };
    // SAFETY: SEND reads a seccomp_notif_resp, and `response` is laid out as one.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), SEND, &raw const response)
    }))
    .map(drop)
}
