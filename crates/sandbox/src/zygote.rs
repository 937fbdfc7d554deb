//! A zygote as the server sees it: an interpreter that was started once and is forked
//! into boxes, so that a program there begins without a start of its own.
//!
//! What goes to it is descriptors of a box and numbers, never anything of a user's. It
//! is a boundary of trust: code that runs in it could enter every box.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::IoSlice;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::confine::NAMESPACES;
use crate::error::{At, Error, Step};
use crate::limits::Limits;
use crate::lockdown::{self, Bounds};
use crate::protocol;
use crate::seccomp::Filter;
use crate::support::Isolation;
use crate::sys::Op;

/// The shared object that a zygote's interpreter loads and serves its channel with;
/// `None` on processors that it was not written for.
#[cfg(target_arch = "x86_64")]
pub const ADOPTER: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/adopt.so")));
/// The shared object that a zygote's interpreter loads and serves its channel with;
/// `None` on processors that it was not written for.
#[cfg(not(target_arch = "x86_64"))]
pub const ADOPTER: Option<&[u8]> = None;

/// Longest word of a zygote, in bytes.
const LONGEST_WORD: usize = 4096;
/// Most descriptors of an order.
const MOST_FDS: usize = 24;

/// A zygote. Dropping it ends it; programs that were forked from it go on.
#[derive(Debug)]
pub struct Zygote {
    socket: OwnedFd,
    _monitor: OwnedFd,
    isolation: Isolation,
    own_uids: bool,
}

/// What a zygote's interpreter says before it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It is ready to be forked.
    Serves,
    /// It is not fit for that, and ends: why.
    Refuses(String),
}

/// The way into a box for one program: the box's namespaces, the rules that the program
/// puts on itself, and the files of its cgroup.
///
/// There is one of a box, and it is used up: nobody enters a box in which a program has
/// run.
#[derive(Debug)]
pub struct Entrance {
    namespaces: usize,
    fds: Vec<OwnedFd>,
}

impl Entrance {
    /// Takes apart what a box's init sent: so many namespaces, a rule set, cgroup files.
    pub(crate) fn of(namespaces: usize, fds: Vec<OwnedFd>) -> Result<Self, Error> {
        let kinds = NAMESPACES.len();
        let known = (kinds - 1..=kinds).contains(&namespaces);
        if !known || fds.len() <= namespaces || fds.len() + 1 > MOST_FDS {
            return Err(protocol::malformed());
        }
        Ok(Self { namespaces, fds })
    }

    /// The kinds of its namespaces. One that has none of cgroups shares the host's.
    fn kinds(&self) -> impl Iterator<Item = i32> {
        let all = self.namespaces == NAMESPACES.len();
        NAMESPACES
            .iter()
            .filter(move |(name, _)| all || *name != "cgroup")
            .map(|(_, kind)| *kind)
    }
}

/// Where a program that a zygote was asked for says that it is there; for
/// [`Sandbox::exec_waiting`](crate::Sandbox::exec_waiting) of the same box.
#[derive(Debug)]
pub struct Arrival(OwnedFd);

impl Arrival {
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Zygote {
    pub(crate) fn new(
        socket: OwnedFd,
        monitor: OwnedFd,
        isolation: Isolation,
        own_uids: bool,
    ) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true).at(Step::Zygote)?;
        let zygote = Self {
            socket,
            _monitor: monitor,
            isolation,
            own_uids,
        };
        // Read when it serves.
        let filter = Filter::new(isolation);
        zygote.send(&filter.bytes(), &[])?;
        Ok(zygote)
    }

    /// Whether its copies are like programs that are executed also beside such: else they
    /// cannot signal those.
    #[must_use]
    pub fn forks_among_others(&self) -> bool {
        self.own_uids
    }

    /// Readable when [`Zygote::word`] has something to give.
    #[must_use]
    pub fn words(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The zygote's word, if it has said one; it is gone once this fails.
    ///
    /// # Errors
    /// [`Step::Zygote`] when it has ended.
    pub fn word(&self) -> Result<Option<Word>, Error> {
        let mut bytes = [0u8; LONGEST_WORD];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, bytes.as_mut_slice(), RecvFlags::DONTWAIT)
        });
        let length = match received {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(Error::new(Step::Zygote, errno)),
        };
        match bytes.get(..length) {
            Some([b'u']) => Ok(Some(Word::Serves)),
            Some([b'e', why @ ..]) => Ok(Some(Word::Refuses(
                String::from_utf8_lossy(why).into_owned(),
            ))),
            Some([]) | None => {
                let gone = io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(Error::new(Step::Zygote, gone))
            }
            Some(_) => Err(protocol::malformed()),
        }
    }

    /// Asks for a program in the box that `entrance` leads to, which has these `limits`.
    ///
    /// # Errors
    /// [`Step::Zygote`] when it is gone, or has too much to do.
    pub fn fork(&self, entrance: Entrance, limits: &Limits) -> Result<Arrival, Error> {
        let (ours, theirs) = protocol::pair().at(Step::Zygote)?;
        // The kernel notes with a message whose it is, if that is asked for before.
        rustix::net::sockopt::set_socket_passcred(&ours, true).at(Step::Zygote)?;
        let steps = lockdown::of_adopted(Bounds {
            isolation: self.isolation,
            limits,
            drop_groups: self.own_uids,
        });
        let rules_at = entrance.namespaces;
        let tasks = entrance.fds.len() - rules_at - 1;
        let sizes = [entrance.namespaces, tasks, steps.len()];
        let mut order = Vec::new();
        let mut put = |word: u64| order.extend_from_slice(&word.to_le_bytes());
        for size in sizes {
            put(size as u64);
        }
        for kind in entrance.kinds() {
            put(kind.unsigned_abs().into());
        }
        for word in steps.into_iter().flat_map(Op::words) {
            put(word);
        }
        let mut fds: Vec<BorrowedFd<'_>> = entrance.fds.iter().map(OwnedFd::as_fd).collect();
        fds.insert(rules_at + 1, theirs.as_fd());
        self.send(&order, &fds)?;
        Ok(Arrival(ours))
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::new(Step::Zygote, io::ErrorKind::InvalidInput));
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
        })
        .at(Step::Zygote)
        .map(drop)
    }
}
