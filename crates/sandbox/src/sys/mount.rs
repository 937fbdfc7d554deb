//! Mount attributes, and the loopback device.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::check;

/// Attributes to add to a mount (`MOUNT_ATTR_*`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes(u64);

impl Attributes {
    pub(crate) const READ_ONLY: Self = Self(0x1);
    pub(crate) const NO_SUID: Self = Self(0x2);
    pub(crate) const NO_DEV: Self = Self(0x4);
    pub(crate) const NO_EXEC: Self = Self(0x8);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds attributes to the mount behind `tree` and all below it.
///
/// # Errors
/// `EPERM` without the right over the mount namespace; `ENOSYS` before Linux 5.12.
pub(crate) fn set_mount_attributes(tree: BorrowedFd<'_>, add: Attributes) -> io::Result<()> {
    let attr = MountAttr {
        set: add.0,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is an empty C string, and `attr` is a live mount_attr
    // of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// "Set interface flags" in the type that this C library's `ioctl` takes: the
/// constant of the libc crate fits glibc's alone. The same on every
/// architecture that we know.
const SIOCSIFFLAGS: libc::Ioctl = 0x8914;

/// Brings up `lo` in the current network namespace.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over it.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        // Signed on some architectures, unsigned on others.
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("flag bits fit");
    // SAFETY: SIOCSIFFLAGS reads an ifreq, and `request` is one.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &raw const request)
    }))
    .map(drop)
}
