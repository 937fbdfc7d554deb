//! The network of a box: a namespace of its own, empty but for loopback.
//!
//! It is born with the box and owned by the box's user namespace, so that whoever may
//! enter the one may enter the other. None is ever used twice: counters, TIME_WAIT
//! pairs, flow labels and more would tell the next tenant of the last.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{At, Error, Step};
use crate::omit::{Omit, omitted};
use crate::sys;

/// Smallest, usual and largest buffer of a TCP socket, in bytes: a box can
/// have many sockets.
const BUFFERS: [(&str, &str); 2] = [
    ("tcp_rmem", "4096 65536 262144"),
    ("tcp_wmem", "4096 65536 262144"),
];

/// The flag with which a box is cloned into a network of its own.
pub(crate) fn flag() -> u64 {
    if omitted(Omit::Network) {
        return 0;
    }
    libc::CLONE_NEWNET.unsigned_abs().into()
}

/// Brings loopback up and bounds the buffers of sockets, in a process that is in a
/// network of its own and may still manage it. Host paths are read: before the box has
/// a root of its own.
///
/// # Errors
/// [`Step::Loopback`], [`Step::NetworkNamespace`].
pub(crate) fn furnish() -> Result<(), Error> {
    if omitted(Omit::Network) {
        return Ok(());
    }
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .at(Step::Loopback)?;
    sys::loopback_up(socket.as_fd()).at(Step::Loopback)?;
    for (name, sizes) in BUFFERS {
        match fs::write(format!("/proc/sys/net/ipv4/{name}"), sizes) {
            // A container runtime's read-only /proc/sys: the host's sizes stay.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            other => other.at(Step::NetworkNamespace)?,
        }
    }
    Ok(())
}
