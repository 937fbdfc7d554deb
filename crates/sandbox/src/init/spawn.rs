//! From a command to a program: the fork, what the child makes of itself, and the exec.
//!
//! A child has a program's rights before it reads anything of the user's. Other programs
//! of the box may do to it what they like: init never waits for it without an end.

use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use super::{CHANNEL, Ends, Init, START_TIMEOUT, kill_rest};
use crate::command::Command;
use crate::confine::restrict;
use crate::error::{At, Error, Step};
use crate::spec::WORKSPACE;
use crate::sys::{self, Child};
use crate::uids::Room;
use crate::{lockdown, watch};

impl Init<'_> {
    /// Forks and execs a program; fails if it could not be started. One that is
    /// alone leaves nobody behind then.
    pub(super) fn spawn(
        &mut self,
        command: &Command,
        ends: &Ends,
        output: [&OwnedFd; 2],
        alone: bool,
    ) -> Result<Pid, Error> {
        let (argv, env) = (strings(&command.argv)?, strings(&command.env)?);
        let (report, mut failed) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Pipes)?;
        if failed.as_raw_fd() == CHANNEL {
            // Out of the way of the channel; its number stays taken until then. No
            // number is asked for: some boxes have hardly any beyond the channel's.
            failed = rustix::io::fcntl_dupfd_cloexec(&failed, 0).at(Step::Pipes)?;
        }
        let init = rustix::process::getpid();
        let pid = match sys::fork().at(Step::Fork)? {
            Child::Me => {
                let error = match self.prepare(init, ends, output) {
                    Ok(()) => sys::exec(&argv, &env),
                    Err(error) => error,
                };
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                // If the pipe is gone so is init, and this process with it.
                rustix::io::write(&failed, &errno.to_le_bytes()).ok();
                sys::exit_now(127)
            }
            Child::Pid(pid, _) => pid,
        };
        drop(failed);
        self.await_report(&report, pid)?;
        let mut errno = [0u8; 4];
        let mut report = std::fs::File::from(report);
        match report.read_exact(&mut errno) {
            // Closed by exec: the program runs.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(Error::new(Step::Exec, error)),
            Ok(()) => {
                if alone {
                    kill_rest();
                }
                let error = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
                let name = String::from_utf8_lossy(command.argv.first().map_or(&[], Vec::as_slice));
                return Err(Error::new(Step::Exec, error).with(name));
            }
        }
        Pid::from_raw(pid)
            .ok_or_else(|| Error::new(Step::Fork, io::Error::from(io::ErrorKind::InvalidData)))
    }

    /// Waits for a child to report or to become its program. Others of the box may stop
    /// it on its way: it is let go on, for a while, and the watch goes on as well.
    fn await_report(&mut self, report: &OwnedFd, child: i32) -> Result<(), Error> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let mut fds = [
                PollFd::new(report, PollFlags::IN),
                PollFd::new(&self.lifeline, PollFlags::empty()),
            ];
            match rustix::event::poll(&mut fds, Some(&watch::INTERVAL)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::new(Step::Exec, errno)),
            }
            if !fds[1].revents().is_empty() {
                kill_rest();
                sys::exit_now(0);
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            if let Some(watcher) = &mut self.watcher {
                watcher.look();
            }
            let child = Pid::from_raw(child).ok_or_else(|| {
                Error::new(Step::Fork, io::Error::from(io::ErrorKind::InvalidData))
            })?;
            // ESRCH, here and below: it has ended, and is reaped later.
            if Instant::now() > until {
                rustix::process::kill_process(child, rustix::process::Signal::KILL).ok();
                return Err(Error::new(
                    Step::Exec,
                    io::Error::from(io::ErrorKind::TimedOut),
                ));
            }
            rustix::process::kill_process(child, rustix::process::Signal::CONT).ok();
        }
    }

    /// Makes a child what its program will be.
    fn prepare(&self, init: Pid, ends: &Ends, output: [&OwnedFd; 2]) -> io::Result<()> {
        self.become_program(init, ends)?;
        rustix::stdio::dup2_stdout(output[0])?;
        rustix::stdio::dup2_stderr(output[1])?;
        rustix::process::fchdir(&self.workspace)?;
        if let Some(channel) = &ends.channel {
            // After all else that has a number which this may take away.
            sys::give(channel, CHANNEL)?;
        }
        sys::default_signals();
        Ok(())
    }

    /// Gives a child a program's rights, a session of its own and its standard input.
    pub(super) fn become_program(&self, init: Pid, ends: &Ends) -> io::Result<()> {
        if let Some(room) = self.with.room() {
            room.become_program()?;
            // Until now nobody could kill it by uid. Whoever kills by uid has
            // seen the end of init first.
            if rustix::process::getppid() != Some(init) {
                sys::exit_now(1);
            }
        }
        if let Some(rules) = &self.rules {
            restrict(rules).map_err(io::Error::other)?;
        }
        sys::carry_out(lockdown::open_files(self.with.bounds()))?;
        rustix::process::setsid()?;
        if let Some(stdin) = &ends.stdin {
            rustix::stdio::dup2_stdin(stdin)?;
        }
        Ok(())
    }
}

fn strings(list: &[Vec<u8>]) -> Result<Vec<CString>, Error> {
    list.iter()
        .map(|entry| CString::new(entry.as_slice()).at(Step::Command))
        .collect()
}

/// Replaces this process by a command's program. Returns only when that fails: why.
///
/// # Errors
/// [`Step::Command`] for a command that is none.
pub(crate) fn exec_of(command: &Command) -> Result<Error, Error> {
    let (argv, env) = (strings(&command.argv)?, strings(&command.env)?);
    Ok(Error::new(Step::Exec, sys::exec(&argv, &env)))
}

/// Where a box has no root of its own its directories have longer names: for
/// a variable that names one of them, and for programs that make temporary files.
pub(super) fn move_into(room: &Room, env: &mut Vec<Vec<u8>>) {
    let seen = |path: &str| room.seen(path).into_os_string().into_vec();
    for entry in env.iter_mut() {
        let Some(equals) = entry.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        for path in [WORKSPACE, "/tmp"] {
            if entry.get(equals + 1..) == Some(path.as_bytes()) {
                entry.truncate(equals + 1);
                entry.extend(seen(path));
                break;
            }
        }
    }
    if !env.iter().any(|entry| entry.starts_with(b"TMPDIR=")) {
        env.push([b"TMPDIR=".to_vec(), seen("/tmp")].concat());
    }
}
