//! PID 1 of a box: confines itself, then runs programs one after the other.
//!
//! Single-threaded. Everything it reads from its socket it reads after
//! lock-down, with no more rights than the program has. It never answers the
//! program: what it reports comes from the kernel. Where there is no pid
//! namespace it is no PID 1, but the one to whom the box's orphans come.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use rustix::time::Timespec;

use crate::command::{Command, File};
use crate::confine::{Confinement, confine};
use crate::error::{At, Error, Step};
use crate::exit::{Exit, How};
use crate::explain::Tally;
use crate::protocol::{self, Frame, Received};
use crate::spec::WORKSPACE;
use crate::support::Isolation;
use crate::sys::{self, Child};
use crate::uids::Room;
use crate::{cgroup, selftest, watch};

/// A poll that does not wait.
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Becomes a box's init: confines this process, then serves `socket` to the end.
///
/// `tasks` lead into its cgroup. `go` becomes readable when the warden has
/// written the id maps, and closes when the warden dies.
pub(crate) fn run(with: &Confinement<'_>, socket: &OwnedFd, tasks: Vec<OwnedFd>, go: OwnedFd) -> ! {
    let start = std::panic::AssertUnwindSafe(|| start(with, socket, tasks, go));
    let end = std::panic::catch_unwind(start);
    match end {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => {
            // Nobody may be left to tell; the warden sees the exit in any case.
            drop(protocol::send(socket, &Frame::from(&error), &[]));
            sys::exit_now(1)
        }
        Err(_) => sys::exit_now(2),
    }
}

fn start(
    with: &Confinement<'_>,
    socket: &OwnedFd,
    tasks: Vec<OwnedFd>,
    go: OwnedFd,
) -> Result<Infallible, Error> {
    for file in tasks {
        cgroup::enter(&file)?;
    }
    let mut byte = [0u8; 1];
    let got = rustix::io::retry_on_intr(|| rustix::io::read(&go, &mut byte)).at(Step::Init)?;
    if got == 0 {
        return Err(Error::new(
            Step::Init,
            io::Error::from(io::ErrorKind::UnexpectedEof),
        ));
    }
    let tally = with.explain.then(Tally::new).transpose()?;
    let workspace = confine(with, tally.as_ref())?;
    standard_streams()?;
    // Had the warden died before the death signal was set, nobody would tell.
    if hung_up(&go).at(Step::DeathSignal)? {
        sys::exit_now(0);
    }
    let signals = sys::child_signals().at(Step::Wait)?;
    if let Some(tally) = &tally {
        protocol::send(socket, &Frame::Explained, &[tally.memory()]).at(Step::Init)?;
    }
    let temporary = temporary(with)?;
    let directories = [workspace.as_fd(), temporary.as_fd()];
    protocol::send(socket, &Frame::Ready, &directories).at(Step::Init)?;
    drop(temporary);
    Init {
        with,
        socket,
        workspace,
        lifeline: go,
        signals,
        tally,
    }
    .serve()
}

/// Opens the directory of temporary files.
fn temporary(with: &Confinement<'_>) -> Result<OwnedFd, Error> {
    let path = Path::new("/tmp");
    let path = with
        .room()
        .map_or(path.to_owned(), |room| room.seen("/tmp"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at(Step::Workspace)
}

/// Takes the places of the warden's own 0, 1 and 2.
pub(crate) fn standard_streams() -> Result<(), Error> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .at(Step::StandardStreams)?;
    rustix::stdio::dup2_stdin(&null).at(Step::StandardStreams)?;
    rustix::stdio::dup2_stdout(&null).at(Step::StandardStreams)?;
    rustix::stdio::dup2_stderr(&null).at(Step::StandardStreams)
}

struct Init<'a> {
    with: &'a Confinement<'a>,
    socket: &'a OwnedFd,
    workspace: OwnedFd,
    /// Closed by the warden's death.
    lifeline: OwnedFd,
    /// Readable when a child has ended.
    signals: OwnedFd,
    /// Answers and counts denied calls, where that was asked for.
    tally: Option<Tally>,
}

impl Init<'_> {
    fn serve(&self) -> Result<Infallible, Error> {
        loop {
            match protocol::receive(self.socket, true)? {
                Received::Frame(Frame::Exec, fds) => {
                    let reply = match self.execute(fds) {
                        Ok(exit) => Frame::Exited(exit),
                        Err(error) => Frame::from(&error),
                    };
                    protocol::send(self.socket, &reply, &[]).at(Step::Init)?;
                }
                // While it waits for the attackers nobody answers what they ask.
                Received::Frame(Frame::SelfTest(targets), _) if self.tally.is_none() => {
                    let findings = selftest::findings(self.with, &targets)?;
                    kill_rest();
                    protocol::send(self.socket, &Frame::SelfTested(findings), &[])
                        .at(Step::Init)?;
                }
                Received::Frame(..) | Received::Nothing => {
                    return Err(Error::new(
                        Step::Frame,
                        io::Error::from(io::ErrorKind::InvalidData),
                    ));
                }
                // The server let go of this box.
                Received::Closed => sys::exit_now(0),
            }
        }
    }

    fn execute(&self, fds: Vec<OwnedFd>) -> Result<Exit, Error> {
        let mut fds = fds.into_iter();
        let sealed = fds.next().ok_or_else(|| {
            Error::new(Step::Command, io::Error::from(io::ErrorKind::InvalidData))
        })?;
        let stdin = fds.next();
        let mut command = Command::unseal(sealed.as_fd())?;
        drop(sealed);
        // Consumed: what init holds counts against the program's memory.
        for file in std::mem::take(&mut command.files) {
            let file = &file;
            copy_in(self.workspace.as_fd(), file)
                .at(Step::CopyIn)
                .map_err(|error| error.with(String::from_utf8_lossy(&file.path)))?;
        }
        let stdout = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Pipes)?;
        let stderr = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Pipes)?;
        let started = Instant::now();
        let cpu_before = sys::children_cpu_time();
        if let Some(room) = self.with.room() {
            move_into(room, &mut command.env);
        }
        let pid = self.spawn(&command, stdin.as_ref(), [&stdout.1, &stderr.1])?;
        drop((stdin, stdout.1, stderr.1));
        let ends = [stdout.0.as_fd(), stderr.0.as_fd()];
        protocol::send(self.socket, &Frame::Started, &ends).at(Step::Init)?;
        drop((stdout.0, stderr.0));
        let limits = self.with.limits;
        let mut watcher = match self.with.isolation {
            Isolation::Full => None,
            Isolation::Namespaces => Some(watch::Watcher::of_memory(limits)),
            // The warden watches the memory: it sees whose processes are whose.
            Isolation::Uids => Some(watch::Watcher::of_disk(limits, self.with.room())),
        };
        let status = self.wait_for(pid, watcher.as_mut()).at(Step::Wait)?;
        let wall_time = started.elapsed();
        kill_rest();
        let tripped = watcher.as_ref().and_then(watch::Watcher::tripped);
        Ok(Exit {
            how: how(status),
            wall_time,
            cpu_time: sys::children_cpu_time().saturating_sub(cpu_before),
            memory_peak: watcher.as_ref().map_or(0, watch::Watcher::peak),
            over_memory: tripped == Some(watch::What::Memory),
            over_disk: tripped == Some(watch::What::Disk),
        })
    }

    /// Reaps everybody until `pid` ends.
    fn wait_for(
        &self,
        pid: Pid,
        mut watcher: Option<&mut watch::Watcher>,
    ) -> io::Result<WaitStatus> {
        loop {
            while let Some((who, status)) = reap()? {
                if who == pid {
                    return Ok(status);
                }
            }
            let listener = self.tally.as_ref().and_then(Tally::listener);
            let mut fds = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&self.lifeline, PollFlags::empty()),
                // Not looked at where nobody listens.
                PollFd::from_borrowed_fd(listener.unwrap_or(self.signals.as_fd()), PollFlags::IN),
            ];
            let fds = &mut fds[..2 + usize::from(listener.is_some())];
            let timeout = watcher.as_ref().map(|_| &watch::INTERVAL);
            match rustix::event::poll(fds, timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if !fds[1].revents().is_empty() {
                // The warden is dead, and nobody else would ever end this box.
                kill_rest();
                sys::exit_now(0);
            }
            if !fds[0].revents().is_empty() {
                sys::drain_signals(&self.signals)?;
            }
            if let Some(tally) = &self.tally {
                tally.answer()?;
            }
            if let Some(watcher) = watcher.as_deref_mut() {
                watcher.look();
            }
        }
    }

    /// Forks and execs the program; fails if it could not be started.
    fn spawn(
        &self,
        command: &Command,
        stdin: Option<&OwnedFd>,
        output: [&OwnedFd; 2],
    ) -> Result<Pid, Error> {
        let strings = |list: &[Vec<u8>]| -> Result<Vec<CString>, Error> {
            list.iter()
                .map(|entry| CString::new(entry.as_slice()).at(Step::Command))
                .collect()
        };
        let (argv, env) = (strings(&command.argv)?, strings(&command.env)?);
        let (report, failed) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Pipes)?;
        let init = rustix::process::getpid();
        let pid = match sys::fork().at(Step::Fork)? {
            Child::Me => {
                let error = match self.prepare(init, stdin, output) {
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
        let mut errno = [0u8; 4];
        let mut report = std::fs::File::from(report);
        match report.read_exact(&mut errno) {
            // Closed by exec: the program runs.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(Error::new(Step::Exec, error)),
            Ok(()) => {
                kill_rest();
                let error = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
                let name = String::from_utf8_lossy(command.argv.first().map_or(&[], Vec::as_slice));
                return Err(Error::new(Step::Exec, error).with(name));
            }
        }
        Pid::from_raw(pid)
            .ok_or_else(|| Error::new(Step::Fork, io::Error::from(io::ErrorKind::InvalidData)))
    }

    /// Makes a child what its program will be.
    fn prepare(&self, init: Pid, stdin: Option<&OwnedFd>, output: [&OwnedFd; 2]) -> io::Result<()> {
        if let Some(room) = self.with.room() {
            room.become_program()?;
            // Until now nobody could kill it by uid. Whoever kills by uid has
            // seen the end of init first.
            if rustix::process::getppid() != Some(init) {
                sys::exit_now(1);
            }
        }
        rustix::process::setsid()?;
        if let Some(stdin) = stdin {
            rustix::stdio::dup2_stdin(stdin)?;
        }
        rustix::stdio::dup2_stdout(output[0])?;
        rustix::stdio::dup2_stderr(output[1])?;
        rustix::process::fchdir(&self.workspace)?;
        sys::default_signals();
        Ok(())
    }
}

/// Where a box has no root of its own its directories have longer names: for
/// a variable that names one of them, and for programs that make temporary files.
fn move_into(room: &Room, env: &mut Vec<Vec<u8>>) {
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

/// Reaps one ended child, if there is one.
fn reap() -> io::Result<Option<(Pid, WaitStatus)>> {
    match rustix::io::retry_on_intr(|| rustix::process::wait(WaitOptions::NOHANG)) {
        Ok(reaped) => Ok(reaped),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn how(status: WaitStatus) -> How {
    status.terminating_signal().map_or_else(
        || How::Exited(status.exit_status().unwrap_or(-1)),
        How::Signalled,
    )
}

/// Writes an input file below the workspace, and the directories on its way.
fn copy_in(workspace: BorrowedFd<'_>, file: &File) -> io::Result<()> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut below = Vec::new();
    let mut parts = file.path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend_from_slice(part);
        if parts.peek().is_some() {
            match rustix::fs::mkdirat(workspace, below.as_slice(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    let fd = rustix::fs::openat2(
        workspace,
        file.path.as_slice(),
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::from_raw_mode(0o644),
        inside,
    )?;
    std::fs::File::from(fd).write_all(&file.content)
}

/// Whether the other end of a pipe is closed.
fn hung_up(pipe: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&NOW)))?;
    Ok(ready > 0)
}

/// Kills and reaps everybody but this process: all of them are its children,
/// or become that when their parents die. A fork in progress fails on the
/// pending signal, so nobody slips through.
pub(crate) fn kill_rest() {
    // ESRCH: there was nobody. Beyond a pid namespace there always is somebody,
    // whom it may not signal.
    sys::send_signal_to_all(libc::SIGKILL).ok();
    // ECHILD ends it: all are reaped.
    while let Ok(_) | Err(rustix::io::Errno::INTR) = rustix::process::wait(WaitOptions::empty()) {}
}
