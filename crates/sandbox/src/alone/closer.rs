//! The closer of a box that has the server's own uid: it is the box's first
//! process, and all others descend from it.
//!
//! Its Landlock domain is around init's, and init's around each program's. A
//! signal reaches one's own domain and those within: so `kill(-1)` of the
//! closer reaches the whole box and nobody else, that of init the programs, and
//! programs reach neither. Orphans come to it, so the box is dead when it has no
//! child left.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{DumpableBehavior, WaitOptions};

use super::TAG;
use crate::confine::Confinement;
use crate::error::{At, Error, Step};
use crate::protocol::{self, Frame, Received};
use crate::seccomp::Filter;
use crate::support::Isolation;
use crate::sys::{self, Child};
use crate::uids::{Awaited, Closer, Room, serve_as_closer};
use crate::{confine, init, landlock};

/// Tries to see the end of everybody, a millisecond apart.
const END_TRIES: u32 = 5_000;

/// Forks a box's closer, and by it the box's init. Gives init, its lifeline and
/// the closer. Leaves no process when it fails.
///
/// # Errors
/// What the closer could not do, by step.
pub(crate) fn start(
    with: &Confinement<'_>,
    room: &Room,
    sources: &[OwnedFd],
    socket: &OwnedFd,
) -> Result<(Awaited, OwnedFd, Closer), Error> {
    let (go, ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::Clone)?;
    let (ours, theirs) = protocol::pair().at(Step::Clone)?;
    let pid = match sys::fork().at(Step::Clone)? {
        Child::Me => {
            drop((ours, ready));
            let needed = sources.iter().chain([socket, &go, &theirs]);
            let code = match sys::close_all_but(needed) {
                Ok(()) => be_the_first(with, room, sources, socket, go, &theirs),
                Err(_) => 3,
            };
            sys::exit_now(code)
        }
        Child::Pid(pid, _) => pid,
    };
    drop((theirs, go));
    let process = Awaited::of(pid)?;
    let init = match protocol::receive(&ours, true)? {
        Received::Frame(Frame::Born(pid), _) => Awaited::of(pid)?,
        Received::Frame(
            Frame::Failed {
                step,
                errno,
                detail,
            },
            _,
        ) => {
            process.end();
            return Err(crate::launcher::failed(step, errno, detail));
        }
        _ => {
            let code = process.end();
            let gone = io::Error::other(format!("the closer ended with {code}"));
            return Err(Error::new(Step::Clone, gone));
        }
    };
    rustix::io::ioctl_fionbio(&ours, true).at(Step::Clone)?;
    let closer = Closer::with(process, ours);
    // Should this fail, both end with the closer's socket.
    rustix::io::write(&ready, &[1]).at(Step::Clone)?;
    Ok((init, ready, closer))
}

fn be_the_first(
    with: &Confinement<'_>,
    room: &Room,
    sources: &[OwnedFd],
    socket: &OwnedFd,
    go: OwnedFd,
    warden: &OwnedFd,
) -> i32 {
    let born = || -> Result<i32, Error> {
        let mut score = Score::raised()?;
        enclose(room, sources)?;
        let pid = match sys::fork().at(Step::Clone)? {
            // It closes what is the closer's with the copies it was given.
            Child::Me => match sys::close_all_but(sources.iter().chain([socket, &go])) {
                Ok(()) => init::run(with, socket, Vec::new(), go),
                Err(_) => sys::exit_now(3),
            },
            Child::Pid(pid, _) => pid,
        };
        score.put_back()?;
        only_close().at(Step::Seccomp)?;
        Ok(pid)
    };
    let told = match born() {
        Ok(pid) => protocol::send(warden, &Frame::Born(pid), &[]),
        Err(error) => {
            // Nobody may be left to tell; the warden sees the exit in any case.
            drop(protocol::send(warden, &Frame::from(&error), &[]));
            return 1;
        }
    };
    // What is init's must be closed when init is gone.
    if told.is_err() || sys::close_all_but([warden].into_iter()).is_err() {
        return end_everybody();
    }
    serve_as_closer(room, warden)
}

/// Puts this process, a fork of the warden, into a domain around a box's. From
/// here on it may signal everybody it can.
///
/// # Errors
/// The step that failed; the process must then end.
pub(crate) fn enclose(room: &Room, sources: &[OwnedFd]) -> Result<(), Error> {
    rustix::thread::set_name(c"closer").at(Step::Private)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Private)?;
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me)).at(Step::Clone)?;
    confine::no_capabilities()?;
    rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivs)?;
    // The first one is the warden's own door to the server.
    init::standard_streams()?;
    // Init looks at its programs in /proc, and they may not.
    let writable = room.writable();
    landlock::enforce_in_place(Isolation::Landlock, sources, writable, Some("/proc"))?;
    is_enclosed()?;
    super::descent::children(std::process::id())
        .at(Step::SelfTest)
        .map(drop)
        .map_err(|error| error.with(super::CHILDLESS))
}

/// Sees that signals to the parent are refused, before anybody is signalled.
///
/// # Errors
/// [`Step::Landlock`] when one would arrive.
pub(crate) fn is_enclosed() -> Result<(), Error> {
    let parent = rustix::process::getppid();
    match parent.map(rustix::process::test_kill_process) {
        Some(Err(rustix::io::Errno::PERM)) => Ok(()),
        _ => {
            let open = io::Error::from_raw_os_error(libc::EPERM);
            Err(Error::new(Step::Landlock, open).with(landlock::UNSCOPED))
        }
    }
}

/// Lets this process make no calls but a closer's.
///
/// # Errors
/// As [`Filter::install`].
pub(crate) fn only_close() -> io::Result<()> {
    Filter::of_closers().install()
}

/// Kills all that descend from this process, which must be enclosed, and waits
/// for their end. Gives an exit code.
pub(crate) fn end_everybody() -> i32 {
    for _ in 0..END_TRIES {
        // ESRCH: there is nobody.
        sys::send_signal_to_all(libc::SIGKILL).ok();
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(rustix::io::Errno::CHILD) => return 0,
                Err(_) => return 1,
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    1
}

/// A raised out-of-memory score: init and its programs inherit it, and show by
/// it what they are to whoever sweeps up after a dead server.
struct Score {
    file: fs::File,
    before: i32,
}

impl Score {
    fn raised() -> Result<Self, Error> {
        // Only what is dumpable may open its own.
        let dumpable = rustix::process::set_dumpable_behavior;
        dumpable(DumpableBehavior::Dumpable).at(Step::OomScore)?;
        let file = fs::File::options()
            .write(true)
            .open("/proc/self/oom_score_adj");
        dumpable(DumpableBehavior::NotDumpable).at(Step::OomScore)?;
        let before = super::score_of("self").at(Step::OomScore)?;
        let mut score = Self {
            file: file.at(Step::OomScore)?,
            before,
        };
        score.set(before.max(TAG))?;
        Ok(score)
    }

    fn put_back(&mut self) -> Result<(), Error> {
        self.set(self.before)
    }

    fn set(&mut self, to: i32) -> Result<(), Error> {
        self.file
            .write_all(to.to_string().as_bytes())
            .at(Step::OomScore)
    }
}
