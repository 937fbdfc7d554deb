//! Network namespaces: empty but for loopback, made ahead, never used twice.
//!
//! One costs half a millisecond to make and twenty microseconds to join, so a
//! few are made while there is nothing better to do. A used one is thrown
//! away: counters, TIME_WAIT pairs, flow labels and more would tell the next
//! tenant of the last.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{At, Error, Step};
use crate::omit::{Omit, omitted};
use crate::sys;

/// Namespaces kept ready.
const POOL: usize = 8;
/// Between two tries to make one when the kernel refuses.
const RETRY: Duration = Duration::from_secs(5);
/// Smallest, usual and largest buffer of a TCP socket, in bytes: a box can
/// have many sockets.
const BUFFERS: [(&str, &str); 2] = [
    ("tcp_rmem", "4096 65536 262144"),
    ("tcp_wmem", "4096 65536 262144"),
];

/// A network namespace with loopback up and nothing in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Makes one, and leaves this (single-threaded) process in it.
    fn create() -> Result<Self, Error> {
        if omitted(Omit::Network) {
            return Self::of_this_process();
        }
        sys::unshare(UnshareFlags::NEWNET).at(Step::NetworkNamespace)?;
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
        Self::of_this_process()
    }

    fn of_this_process() -> Result<Self, Error> {
        let fd = fs::File::open("/proc/self/ns/net").at(Step::NetworkNamespace)?;
        Ok(Self { fd: fd.into() })
    }

    /// Joins it: what this process clones next is born there.
    pub(crate) fn join(&self) -> Result<(), Error> {
        if omitted(Omit::Network) {
            return Ok(());
        }
        rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .at(Step::NetworkNamespace)
    }
}

/// Namespaces ready to join.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    ready: Vec<Namespace>,
    /// No refill before then: the last one failed.
    not_before: Option<Instant>,
}

impl Pool {
    /// A namespace that nobody was in, made now if none is ready.
    pub(crate) fn take(&mut self) -> Result<Namespace, Error> {
        match self.ready.pop() {
            Some(namespace) => Ok(namespace),
            None => Namespace::create(),
        }
    }

    /// Makes one, if one is due; to be called when there is nothing better to do.
    pub(crate) fn refill(&mut self) -> Result<(), Error> {
        if self.refill_due() == Some(Duration::ZERO) {
            self.not_before = Some(Instant::now() + RETRY);
            self.ready.push(Namespace::create()?);
            self.not_before = None;
        }
        Ok(())
    }

    /// When the next refill is due; `None` when the pool is full.
    pub(crate) fn refill_due(&self) -> Option<Duration> {
        let now = Instant::now();
        let wait = |until: Instant| until.saturating_duration_since(now);
        (self.ready.len() < POOL).then(|| self.not_before.map_or(Duration::ZERO, wait))
    }
}
