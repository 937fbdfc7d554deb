//! The arrival of a program that a zygote forked into the box, seen from init.
//!
//! The program speaks first, and only when it has given up all rights and is init's
//! child. Init gets its number from the kernel, not from its word. Until then nothing of
//! the user's is handed out; after it init waits for the program as for any other.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::{Ends, Init, START_TIMEOUT, kill_rest};
use crate::command::Command;
use crate::error::{At, Error, Step};
use crate::{sys, watch};

/// Longest command text that is handed to such a program, in bytes: what the shared
/// object has room for. Any longer command is executed.
const LONGEST: usize = 60 * 1024;

/// What came over the arrival's socket.
enum Word {
    /// The program is there, under this number.
    Here(Pid),
    /// It could not give up its rights, and ends.
    Failed,
    /// Nobody has the other end any more: neither the zygote nor a copy.
    Closed,
}

impl Init<'_> {
    /// Waits for a program that a zygote was asked for, and hands it the command. `None`
    /// where none will come: then the box is as before.
    ///
    /// # Errors
    /// When none came in time, or one that is no child of init's. One may still come, so
    /// nothing else may run here: the caller ends the box.
    pub(super) fn welcome(
        &mut self,
        arrival: &OwnedFd,
        command: &Command,
        ends: &Ends,
        output: [&OwnedFd; 2],
    ) -> Result<Option<Pid>, Error> {
        let pid = loop {
            self.await_arrival(arrival)?;
            match hear(arrival)? {
                Word::Here(pid) => break pid,
                // Its end comes with that of those that made it, who are gone then.
                Word::Failed => {}
                Word::Closed => return Ok(None),
            }
        };
        // Not reaped by anybody else, whatever its number is: a child of init's.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), look))
            .at(Step::Zygote)?;
        let text = text(command);
        if text.len() > LONGEST || hand_over(arrival, &text, ends, output).is_err() {
            // It has read nothing of the user's, so it may go.
            rustix::process::kill_process(pid, Signal::KILL).at(Step::Zygote)?;
            let ended = WaitIdOptions::EXITED;
            rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), ended))
                .at(Step::Zygote)?;
            return Ok(None);
        }
        Ok(Some(pid))
    }

    /// Waits until something can be heard.
    fn await_arrival(&self, arrival: &OwnedFd) -> Result<(), Error> {
        let until = Instant::now() + START_TIMEOUT;
        while Instant::now() < until {
            let mut fds = [
                PollFd::new(arrival, PollFlags::IN),
                PollFd::new(&self.lifeline, PollFlags::empty()),
            ];
            match rustix::event::poll(&mut fds, Some(&watch::INTERVAL)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::new(Step::Zygote, errno)),
            }
            if !fds[1].revents().is_empty() {
                kill_rest();
                sys::exit_now(0);
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
        }
        let late = io::Error::from(io::ErrorKind::TimedOut);
        Err(Error::new(Step::Zygote, late))
    }
}

/// Reads the program's first word, and from the kernel whose it is.
fn hear(arrival: &OwnedFd) -> Result<Word, Error> {
    let mut bytes = [0u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            arrival,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let length = match received {
        Ok(message) => message.bytes,
        // Whoever had the other end let go of it.
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(errno) => return Err(Error::new(Step::Zygote, errno)),
    };
    if length == 0 {
        return Ok(Word::Closed);
    }
    if length != bytes.len() || i32::from_le_bytes(bytes) != 0 {
        return Ok(Word::Failed);
    }
    let pid = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
        _ => None,
    });
    pid.map(Word::Here).ok_or_else(|| {
        let nobody = io::Error::from(io::ErrorKind::InvalidData);
        Error::new(Step::Zygote, nobody)
    })
}

/// Returns how many arguments there are, the arguments and the environment, each ended
/// by a zero byte.
fn text(command: &Command) -> Vec<u8> {
    let mut text = command.argv.len().to_string().into_bytes();
    text.push(0);
    for entry in command.argv.iter().chain(&command.env) {
        text.extend_from_slice(entry);
        text.push(0);
    }
    text
}

fn hand_over(
    arrival: &OwnedFd,
    text: &[u8],
    ends: &Ends,
    output: [&OwnedFd; 2],
) -> Result<(), Error> {
    let nothing = match &ends.stdin {
        Some(_) => None,
        None => {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            Some(rustix::fs::open("/dev/null", flags, Mode::empty()).at(Step::StandardStreams)?)
        }
    };
    let streams = ends.stdin.as_ref().or(nothing.as_ref()).into_iter();
    let fds: Vec<BorrowedFd<'_>> = streams
        .chain(output)
        .chain(&ends.channel)
        .map(OwnedFd::as_fd)
        .collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::new(Step::Zygote, io::ErrorKind::InvalidInput));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            arrival,
            &[IoSlice::new(text)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })
    .at(Step::Zygote)
    .map(drop)
}
