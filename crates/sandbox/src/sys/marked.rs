//! Calls that an init at `landlock` makes for itself: they carry the mark by
//! which its filter knows them. Everywhere else the mark means nothing, for it
//! stands where these calls have no argument.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Timestamps};

use super::process::Child;
use super::{check, process};
use crate::seccomp::MARK;

/// Forks, as [`process::fork`]. What the C library knows of its thread stays
/// that of the parent's, so the child should exec or end.
///
/// # Errors
/// `EAGAIN` at the process limit, `ENOMEM`.
pub(crate) fn fork_marked() -> io::Result<Child> {
    let flags = libc::SIGCHLD as usize;
    // SAFETY: without a stack the child continues here on a copy of this one,
    // like fork. Single-threaded, so every lock in the copied memory is free.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            0usize,
            0usize,
            0usize,
            0usize,
            MARK as usize,
        )
    })?;
    Ok(process::forked(pid))
}

/// Sends a message and descriptors, and no signal when nobody is there.
///
/// # Errors
/// Whatever `sendmsg` says.
pub(crate) fn send_message(
    to: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = rights(fds);
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len() as _;
    loop {
        // SAFETY: `message` and all that it points to outlive the call, which
        // only reads them.
        let sent = check(unsafe {
            libc::syscall(
                libc::SYS_sendmsg,
                to.as_raw_fd(),
                &raw const message,
                libc::MSG_NOSIGNAL,
                0usize,
                0usize,
                MARK as usize,
            )
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent.map(drop),
        }
    }
}

/// What the kernel reads as `struct cmsghdr` and the descriptors after it;
/// nothing for none.
fn rights(fds: &[BorrowedFd<'_>]) -> Vec<u8> {
    const HEAD: u64 = 16;
    let mut bytes = Vec::new();
    if !fds.is_empty() {
        bytes.extend((HEAD + size_of_val(fds) as u64).to_ne_bytes());
        bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
        bytes.extend(libc::SCM_RIGHTS.to_ne_bytes());
    }
    bytes.extend(fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()));
    bytes
}

/// The layout above is that of 64-bit machines.
const _: () = assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<usize>() == 8);

/// Changes the mode of what a path names, which the caller owns.
///
/// # Errors
/// Whatever `fchmodat` says.
pub(crate) fn change_mode(path: &std::ffi::CStr, mode: u32) -> io::Result<()> {
    // SAFETY: reads a string that outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_fchmodat,
            libc::AT_FDCWD,
            path.as_ptr(),
            mode,
            0usize,
            0usize,
            MARK as usize,
        )
    })
    .map(drop)
}

/// Changes the times of what a path names, from `directory` on.
///
/// # Errors
/// Whatever `utimensat` says.
pub(crate) fn change_times(
    directory: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    times: &Timestamps,
    flags: AtFlags,
) -> io::Result<()> {
    let times =
        [times.last_access, times.last_modification].map(|time| [time.tv_sec, time.tv_nsec]);
    // SAFETY: reads a string and two times, each two 64-bit numbers, that
    // outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_utimensat,
            directory.as_raw_fd(),
            path.as_ptr(),
            times.as_ptr(),
            flags.bits(),
            0usize,
            MARK as usize,
        )
    })
    .map(drop)
}
