//! What the caller hears of a box: from its init, and from the warden.
//!
//! Only the words; [`Sandbox`](crate::Sandbox) reads them off the wire.

use std::os::fd::OwnedFd;

use crate::error::Error;
use crate::exit::Exit;
use crate::explain::Explanation;
use crate::limits::Usage;
use crate::zygote::Entrance;

/// What a box's init says.
#[derive(Debug)]
pub enum Event {
    /// Denied calls will be counted; only where that was asked for.
    Explained(Explanation),
    /// It is locked down and takes a command.
    Ready {
        /// The workspace, opened before anything of the user's was there.
        workspace: OwnedFd,
        /// The directory of temporary files, opened as early.
        temporary: OwnedFd,
        /// The way in for a zygote's program, where the spec asked for that.
        entrance: Option<Entrance>,
    },
    /// The program runs.
    Started {
        /// Read end of its standard output.
        stdout: OwnedFd,
        /// Read end of its standard error.
        stderr: OwnedFd,
    },
    /// The program ended, and every other process of the box is dead.
    Exited(Exit),
    /// The files of [`Sandbox::copy_in`](crate::Sandbox::copy_in) are there.
    CopiedIn,
    /// One of several programs runs.
    Launched {
        /// Its number.
        program: u32,
        /// Read end of its standard output.
        stdout: OwnedFd,
        /// Read end of its standard error.
        stderr: OwnedFd,
    },
    /// One of several programs could not be started.
    NotLaunched {
        /// Its number.
        program: u32,
        /// The step at which that failed.
        error: Error,
    },
    /// One of several programs ended. What it left behind may go on.
    Ended {
        /// Its number.
        program: u32,
        /// How it ended.
        exit: Exit,
    },
    /// A process of [`Sandbox::adopt`](crate::Sandbox::adopt) is one of the programs now.
    Adopted {
        /// Its number.
        program: u32,
    },
    /// All programs are stopped.
    Stopped,
    /// What the attacks of the probe met: name, held, detail.
    SelfTested(Vec<(String, bool, String)>),
}

/// What the warden says of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The answer to [`Sandbox::measure`](crate::Sandbox::measure).
    Usage(Usage),
    /// The box is dead, all of it; what it had used.
    Gone(Usage),
}
