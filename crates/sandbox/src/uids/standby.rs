//! The processes that stand by for a box and for a range of uids: the closer,
//! which ends a box, and the marker, which shows that a range is taken.
//!
//! Both are forks of the warden that keep none of its descriptors and none of
//! its rights. They must never read anything of a program's.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::process::DumpableBehavior;

use super::{Awaited, Room, UIDS_A_BOX, become_over, clear, give_up_capabilities, kill_everybody};
use crate::error::{At, Error, Step};
use crate::sys::{self, Child};

/// A process that has a range's last uid and sleeps, so that other servers see
/// whose the range is. It ends when `Marker` is dropped, or its owner dies.
#[derive(Debug)]
pub(crate) struct Marker {
    process: Option<Awaited>,
    open: Option<OwnedFd>,
}

impl Marker {
    /// The uid that shows that a range is taken: a spare one of the first box.
    pub(crate) fn uid(base: u32) -> u32 {
        base + UIDS_A_BOX - 1
    }

    /// Starts one.
    ///
    /// # Errors
    /// [`Step::IdMap`].
    pub(crate) fn start(base: u32) -> Result<Self, Error> {
        let uid = Self::uid(base);
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::IdMap);
        let (wait, open) = pipe()?;
        let (ready, tell) = pipe()?;
        match sys::fork().at(Step::IdMap)? {
            Child::Me => {
                drop((open, ready));
                let code = be_a_marker(uid, &wait, &tell);
                sys::exit_now(i32::from(code.is_err()))
            }
            Child::Pid(pid, _) => {
                drop((wait, tell));
                let marker = Self {
                    process: Some(Awaited::of(pid)?),
                    open: Some(open),
                };
                let mut byte = [0u8; 1];
                match rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut byte)) {
                    Ok(1) => Ok(marker),
                    Ok(_) => Err(Error::new(Step::IdMap, io::ErrorKind::PermissionDenied)),
                    Err(errno) => Err(Error::new(Step::IdMap, errno)),
                }
            }
        }
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        drop(self.open.take());
        if let Some(process) = self.process.take() {
            process.end();
        }
    }
}

fn be_a_marker(uid: u32, wait: &OwnedFd, tell: &OwnedFd) -> io::Result<()> {
    become_over(uid, uid)?;
    give_up_capabilities(uid, uid)?;
    rustix::thread::set_name(c"marker")?;
    crate::init::standard_streams().map_err(|error| error.source)?;
    let kept = [wait, tell].map(|fd| fd.as_raw_fd().unsigned_abs());
    let (low, high) = (kept[0].min(kept[1]), kept[0].max(kept[1]));
    sys::close_range(3, low.saturating_sub(1))?;
    sys::close_range(low + 1, high.saturating_sub(1))?;
    sys::close_range(high + 1, u32::MAX)?;
    rustix::io::write(tell, &[1])?;
    // Nothing is ever written there: it ends with its owner.
    rustix::io::retry_on_intr(|| rustix::io::read(wait, &mut [0u8; 1]))?;
    Ok(())
}

/// What a closer is told: one byte each.
const KILL: u8 = b'k';
const STRIKE: u8 = b's';
const CLEAR: u8 = b'c';
/// What it answers to [`KILL`] and [`STRIKE`].
const DONE: u8 = b'0';
const FAILED: u8 = b'1';

/// The process that ends a box.
#[derive(Debug)]
pub(crate) struct Closer {
    pub(crate) process: Awaited,
    /// Readable when it has an answer, or is gone.
    pub(crate) socket: OwnedFd,
    /// Orders that it has not answered.
    open: u32,
}

/// What came of asking a closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nobody of the programs' uid is left.
    Done,
    /// Not yet.
    Waiting,
    /// It could not, or it is gone.
    Failed,
}

impl Closer {
    /// Forks a box's closer, which keeps none of the warden's descriptors.
    ///
    /// # Errors
    /// [`Step::Clone`].
    pub(crate) fn start(room: &Room) -> Result<Self, Error> {
        let (ours, theirs) = crate::protocol::pair().at(Step::Clone)?;
        match sys::fork().at(Step::Clone)? {
            Child::Me => {
                drop(ours);
                sys::exit_now(be_a_closer(room, &theirs))
            }
            Child::Pid(pid, _) => {
                rustix::io::ioctl_fionbio(&ours, true).at(Step::Clone)?;
                Ok(Self {
                    process: Awaited::of(pid)?,
                    socket: ours,
                    open: 0,
                })
            }
        }
    }

    /// Has every program of the box killed; [`Closer::answer`] tells of it.
    /// Says whether the closer is there.
    pub(crate) fn kill(&mut self) -> bool {
        self.open += 1;
        rustix::io::write(&self.socket, &[KILL]).is_ok()
    }

    /// Has the programs killed that there are now. The kernel misses none for that
    /// it forks meanwhile; what starts afterwards lives on. Says whether the closer is
    /// there.
    pub(crate) fn strike(&mut self) -> bool {
        self.open += 1;
        rustix::io::write(&self.socket, &[STRIKE]).is_ok()
    }

    /// Whether an order to kill is not answered yet.
    pub(crate) fn is_killing(&mut self) -> bool {
        self.open > 0 && self.answer() == Answer::Waiting
    }

    /// What became of all orders to kill.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut last = Answer::Done;
        while self.open > 0 {
            let mut byte = [0u8; 1];
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut byte)) {
                Ok(1) => {
                    self.open -= 1;
                    last = if byte == [DONE] {
                        Answer::Done
                    } else {
                        Answer::Failed
                    };
                }
                Err(rustix::io::Errno::AGAIN) => return Answer::Waiting,
                _ => return Answer::Failed,
            }
        }
        last
    }

    /// Has all deleted that the programs left, who must be dead. It ends then,
    /// with 0 if nothing is left. Says whether the closer is there.
    pub(crate) fn clear(&mut self) -> bool {
        rustix::io::write(&self.socket, &[CLEAR]).is_ok()
    }

    /// Lets it do what it does when the warden is gone, and waits for that.
    pub(super) fn finish(self) -> i32 {
        drop(self.socket);
        self.process.end()
    }
}

/// The closer's whole life. It is out of the programs' reach, and has no
/// rights but theirs.
fn be_a_closer(room: &Room, socket: &OwnedFd) -> i32 {
    let confined = (|| -> io::Result<()> {
        sys::close_all_but([socket].into_iter())?;
        become_over(room.uid, room.closer_uid)?;
        give_up_capabilities(room.uid, room.closer_uid)?;
        rustix::thread::set_no_new_privs(true)?;
        rustix::thread::set_name(c"closer")?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        // The first one is the warden's own door to the server.
        crate::init::standard_streams().map_err(|error| error.source)
    })();
    if confined.is_err() {
        return 2;
    }
    let cleared = || room.writable().try_for_each(|path| clear(&path));
    loop {
        let mut byte = [0u8; 1];
        let heard = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut byte));
        match (heard, byte[0]) {
            (Ok(1), KILL) => {
                let answer = if kill_everybody(room.uid) == 0 {
                    DONE
                } else {
                    FAILED
                };
                // The next read tells whether the warden is gone.
                rustix::io::write(socket, &[answer]).ok();
            }
            (Ok(1), STRIKE) => {
                // Who is missed is seen at the next look, which strikes again.
                sys::send_signal_to_all(libc::SIGKILL).ok();
                rustix::io::write(socket, &[DONE]).ok();
            }
            (Ok(1), _) => return i32::from(cleared().is_err()),
            // The warden is gone.
            _ => {
                let killed = kill_everybody(room.uid);
                return i32::from(killed != 0 || cleared().is_err());
            }
        }
    }
}
