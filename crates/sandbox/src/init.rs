//! PID 1 of a box: confines itself, then runs programs, one that has the box to
//! itself or several side by side.
//!
//! Single-threaded. Everything it reads from its socket it reads after
//! lock-down, with no more rights than the program has. It never answers the
//! program: what it reports comes from the kernel. Where there is no pid
//! namespace it is no PID 1, but the one to whom the box's orphans come.

mod arrival;
mod spawn;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus};
use rustix::time::Timespec;

use crate::command::{Command, File};
use crate::confine::{Confinement, Opened, confine};
use crate::error::{At, Error, Step};
use crate::exit::{Exit, How};
use crate::explain::Tally;
use crate::porter::Work;
use crate::protocol::{self, Along, Frame, Received};
use crate::support::Isolation;
use crate::sys::{self, Child};
use crate::{cgroup, selftest, watch};
pub(crate) use spawn::exec_of;
use spawn::move_into;

/// How long a child may take to become its program: other programs of the box, and a
/// loaded machine, can hold it up.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A poll that does not wait.
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Files by which processes come into a box's cgroup.
#[derive(Debug)]
pub(crate) struct Files {
    /// Those that init itself goes by (v1; on v2 it is born there).
    pub(crate) tasks: Vec<OwnedFd>,
    /// Those for a program that a zygote forks into the box.
    pub(crate) entrance: Vec<OwnedFd>,
}

/// Becomes a box's init: confines this process, then serves `socket` to the end.
///
/// `files` lead into its cgroup. `go` becomes readable when the warden has
/// written the id maps, and closes when the warden dies.
pub(crate) fn run(with: &Confinement<'_>, socket: &OwnedFd, files: Files, go: OwnedFd) -> ! {
    let start = std::panic::AssertUnwindSafe(|| start(with, socket, files, go));
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
    files: Files,
    go: OwnedFd,
) -> Result<Infallible, Error> {
    for file in files.tasks {
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
    let Opened {
        workspace,
        entrance,
        rules,
    } = confine(with, tally.as_ref())?;
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
    // The last of these is the rule set; where nobody enters there is none of them.
    let namespaces = u8::try_from(entrance.len().saturating_sub(1)).unwrap_or(u8::MAX);
    let handed_out: Vec<BorrowedFd<'_>> = [&workspace, &temporary]
        .into_iter()
        .chain(&entrance)
        .chain(&files.entrance)
        .map(OwnedFd::as_fd)
        .collect();
    protocol::send(socket, &Frame::Ready { namespaces }, &handed_out).at(Step::Init)?;
    drop((temporary, entrance, files.entrance));
    Init {
        with,
        socket,
        workspace,
        rules,
        lifeline: go,
        signals,
        tally,
        programs: Vec::new(),
        watcher: None,
        stopped: false,
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

/// The number under which a program finds its channel.
pub const CHANNEL: RawFd = 62;

struct Init<'a> {
    with: &'a Confinement<'a>,
    socket: &'a OwnedFd,
    workspace: OwnedFd,
    /// The Landlock rules of programs, where init has none.
    rules: Option<OwnedFd>,
    /// Closed by the warden's death.
    lifeline: OwnedFd,
    /// Readable when a child has ended.
    signals: OwnedFd,
    /// Answers and counts denied calls, where that was asked for.
    tally: Option<Tally>,
    /// The programs that run.
    programs: Vec<Program>,
    /// Stands in for limits that the kernel does not hold, as long as there are programs.
    watcher: Option<watch::Watcher>,
    /// Whether all programs are stopped.
    stopped: bool,
}

/// A program that runs.
#[derive(Debug)]
struct Program {
    pid: Pid,
    /// Its number among those that run side by side; none for a program that has
    /// the box to itself, whose end is everybody's.
    number: Option<u32>,
    started: Instant,
    /// The time that all children had used when it started.
    cpu_before: Duration,
}

/// What a program gets besides its command.
#[derive(Debug, Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    channel: Option<OwnedFd>,
    /// Where a program that a zygote forks into the box says that it is there.
    arrival: Option<OwnedFd>,
}

impl Init<'_> {
    fn serve(&mut self) -> Result<Infallible, Error> {
        loop {
            if self.wait()? {
                self.hear()?;
            }
            while let Some((pid, status)) = reap().at(Step::Wait)? {
                self.ended(pid, status)?;
            }
            if let Some(tally) = &self.tally {
                tally.answer().at(Step::Wait)?;
            }
            if let Some(watcher) = &mut self.watcher {
                if self.stopped {
                    // The kernel may have let one go on: there are timers whose signal
                    // does that. ESRCH: there is nobody.
                    sys::send_signal_to_all(libc::SIGSTOP).ok();
                }
                watcher.look();
            }
        }
    }

    /// Waits for something to happen. Says whether the server has said something.
    fn wait(&self) -> Result<bool, Error> {
        let listener = self.tally.as_ref().and_then(Tally::listener);
        let mut fds = [
            PollFd::new(self.socket, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.lifeline, PollFlags::empty()),
            // Not looked at where nobody listens.
            PollFd::from_borrowed_fd(listener.unwrap_or(self.signals.as_fd()), PollFlags::IN),
        ];
        let fds = &mut fds[..3 + usize::from(listener.is_some())];
        let interval = if self.stopped {
            &watch::STOPPED_INTERVAL
        } else {
            &watch::INTERVAL
        };
        let timeout = self.watcher.is_some().then_some(interval);
        match rustix::event::poll(fds, timeout) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(errno) => return Err(Error::new(Step::Wait, errno)),
        }
        if !fds[2].revents().is_empty() {
            // The warden is dead, and nobody else would ever end this box.
            kill_rest();
            sys::exit_now(0);
        }
        if !fds[1].revents().is_empty() {
            sys::drain_signals(&self.signals).at(Step::Wait)?;
        }
        Ok(!fds[0].revents().is_empty())
    }

    /// Does what the server says.
    fn hear(&mut self) -> Result<(), Error> {
        let nonsense = || Error::new(Step::Frame, io::Error::from(io::ErrorKind::InvalidData));
        match protocol::receive(self.socket, false)? {
            Received::Frame(Frame::Exec(along), fds) => {
                let (command, ends) = ends(fds, along)?;
                if let Err(error) = self.launch(None, &command, ends) {
                    self.say(&Frame::from(&error))?;
                }
            }
            Received::Frame(Frame::Launch { program, along }, fds) => {
                let (command, ends) = ends(fds, along)?;
                if let Err(error) = self.launch(Some(program), &command, ends) {
                    self.not_launched(program, &error)?;
                }
            }
            Received::Frame(Frame::CopyIn, fds) => {
                let command = fds.into_iter().next().ok_or_else(nonsense)?;
                self.copy_in(&mut Command::unseal(command.as_fd())?)?;
                self.say(&Frame::CopiedIn)?;
            }
            Received::Frame(Frame::Port { program, work }, fds) => {
                if let Err(error) = self.port(program, &work, fds.into_iter().next()) {
                    let errno = error.errno();
                    self.say(&Frame::Ended(program, never_ran(errno)))?;
                }
            }
            Received::Frame(Frame::Adopt { program, pid }, _) => match self.adopt(program, pid) {
                Ok(()) => self.say(&Frame::Adopted(program))?,
                Err(error) => self.not_launched(program, &error)?,
            },
            Received::Frame(Frame::Signal { program, signal }, _) => self.signal(program, signal),
            Received::Frame(Frame::Stop, _) => {
                // ESRCH: there is nobody, and nobody will be.
                sys::send_signal_to_all(libc::SIGSTOP).ok();
                self.stopped = true;
                self.say(&Frame::Stopped)?;
            }
            Received::Frame(Frame::GoOn, _) => {
                self.stopped = false;
                // As above.
                sys::send_signal_to_all(libc::SIGCONT).ok();
            }
            // While it waits for the attackers nobody answers what they ask.
            Received::Frame(Frame::SelfTest(targets), _) if self.tally.is_none() => {
                let findings = selftest::findings(self.with, self.rules.as_ref(), &targets)?;
                kill_rest();
                self.say(&Frame::SelfTested(findings))?;
            }
            Received::Nothing => {}
            Received::Frame(..) => return Err(nonsense()),
            // The server let go of this box.
            Received::Closed => sys::exit_now(0),
        }
        Ok(())
    }

    fn not_launched(&self, program: u32, error: &Error) -> Result<(), Error> {
        self.say(&Frame::NotLaunched {
            program,
            step: error.step,
            errno: error.errno(),
            detail: error.wire_detail(),
        })
    }

    fn say(&self, frame: &Frame) -> Result<(), Error> {
        protocol::send(self.socket, frame, &[]).at(Step::Init)
    }

    /// Starts a program, and tells the server that it runs.
    fn launch(&mut self, number: Option<u32>, sealed: &OwnedFd, ends: Ends) -> Result<(), Error> {
        let mut command = Command::unseal(sealed.as_fd())?;
        self.copy_in(&mut command)?;
        let stdout = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Pipes)?;
        let stderr = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Pipes)?;
        let started = Instant::now();
        let cpu_before = sys::children_cpu_time();
        if let Some(room) = self.with.room() {
            move_into(room, &mut command.env);
        }
        let output = [&stdout.1, &stderr.1];
        let adopted = match &ends.arrival {
            Some(arrival) => match self.welcome(arrival, &command, &ends, output) {
                Ok(adopted) => adopted,
                Err(error) => {
                    // Somebody may come yet, and must meet no program: the box ends here.
                    self.say(&Frame::from(&error))?;
                    kill_rest();
                    sys::exit_now(1)
                }
            },
            None => None,
        };
        let pid = match adopted {
            Some(pid) => pid,
            None => self.spawn(&command, &ends, output, number.is_none())?,
        };
        drop((ends, stdout.1, stderr.1));
        self.watch();
        self.programs.push(Program {
            pid,
            number,
            started,
            cpu_before,
        });
        let frame = number.map_or(Frame::Started, Frame::Launched);
        let reading = [stdout.0.as_fd(), stderr.0.as_fd()];
        protocol::send(self.socket, &frame, &reading).at(Step::Init)
    }

    /// Takes a child for a program: one whose parent ended, so that it came here. Its
    /// number is a program's word, of which nothing is believed but that it is a child's.
    fn adopt(&mut self, number: u32, pid: i32) -> Result<(), Error> {
        let nobody = |errno: rustix::io::Errno| Error::new(Step::Adopt, errno);
        let pid = Some(pid)
            .filter(|pid| *pid > 0)
            .and_then(Pid::from_raw)
            .filter(|pid| self.programs.iter().all(|program| program.pid != *pid))
            .ok_or_else(|| nobody(rustix::io::Errno::INVAL))?;
        // Dead or alive: it is not reaped before the next turn, and its end is told then.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), look))
            .map_err(nobody)?;
        // Signals go to its group, which must be its own. That of a child is of this box.
        if rustix::process::getpgid(Some(pid)).map_err(nobody)? != pid {
            return Err(nobody(rustix::io::Errno::PERM));
        }
        self.watch();
        self.programs.push(Program {
            pid,
            number: Some(number),
            started: Instant::now(),
            cpu_before: sys::children_cpu_time(),
        });
        Ok(())
    }

    /// Forks a child that does work on files, with a program's rights and no more.
    fn port(&mut self, number: u32, work: &Work, content: Option<OwnedFd>) -> Result<(), Error> {
        let started = Instant::now();
        let cpu_before = sys::children_cpu_time();
        let init = rustix::process::getpid();
        let pid = match sys::fork().at(Step::Fork)? {
            Child::Me => {
                let nobody = Ends::default();
                let kept = [&self.workspace]
                    .into_iter()
                    .chain(&content)
                    .chain(&self.rules);
                let done = sys::close_all_but(kept)
                    .and_then(|()| standard_streams().map_err(io::Error::other))
                    .and_then(|()| self.become_program(init, &nobody))
                    .and_then(|()| work.carry_out(self.workspace.as_fd(), content.as_ref()));
                let code =
                    done.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
                sys::exit_now(code)
            }
            Child::Pid(pid, _) => pid,
        };
        let pid = Pid::from_raw(pid)
            .ok_or_else(|| Error::new(Step::Fork, io::Error::from(io::ErrorKind::InvalidData)))?;
        self.watch();
        self.programs.push(Program {
            pid,
            number: Some(number),
            started,
            cpu_before,
        });
        Ok(())
    }

    /// Begins to watch what the kernel does not limit here.
    fn watch(&mut self) {
        let limits = self.with.limits;
        if self.watcher.is_none() {
            self.watcher = match self.with.isolation {
                Isolation::Full => None,
                Isolation::Namespaces => Some(watch::Watcher::of_memory(limits)),
                // The warden watches the memory: it sees whose processes are whose.
                Isolation::Uids => Some(watch::Watcher::of_disk(limits, self.with.room())),
            };
        }
    }

    /// Writes a command's files. Consumes them: what init holds counts against the
    /// programs' memory.
    fn copy_in(&self, command: &mut Command) -> Result<(), Error> {
        for file in std::mem::take(&mut command.files) {
            let file = &file;
            copy_in(self.workspace.as_fd(), file)
                .at(Step::CopyIn)
                .map_err(|error| error.with(String::from_utf8_lossy(&file.path)))?;
        }
        Ok(())
    }

    /// Signals a program and those of its descendants that are still of its group.
    fn signal(&self, number: u32, signal: i32) {
        let of = |program: &&Program| program.number == Some(number);
        if let Some(program) = self.programs.iter().find(of) {
            // It was not reaped yet, so the number of its group is nobody else's.
            // ESRCH: all of them have ended, and are reaped next.
            sys::send_signal_to_group(program.pid, signal).ok();
        }
    }

    /// Tells the server of a program's end, if that was one.
    fn ended(&mut self, pid: Pid, status: WaitStatus) -> Result<(), Error> {
        let Some(at) = self.programs.iter().position(|program| program.pid == pid) else {
            // An orphan, or one of the killed.
            return Ok(());
        };
        let program = self.programs.swap_remove(at);
        let wall_time = program.started.elapsed();
        if program.number.is_none() {
            kill_rest();
            self.programs.clear();
        }
        let tripped = self.watcher.as_ref().and_then(watch::Watcher::tripped);
        let exit = Exit {
            how: how(status),
            wall_time,
            cpu_time: sys::children_cpu_time().saturating_sub(program.cpu_before),
            memory_peak: self.watcher.as_ref().map_or(0, watch::Watcher::peak),
            over_memory: tripped == Some(watch::What::Memory),
            over_disk: tripped == Some(watch::What::Disk),
        };
        if self.programs.is_empty() {
            self.watcher = None;
        }
        self.say(
            &program
                .number
                .map_or(Frame::Exited(exit), |number| Frame::Ended(number, exit)),
        )
    }
}

/// Tells apart the descriptors that came with an order to start a program.
fn ends(fds: Vec<OwnedFd>, along: Along) -> Result<(OwnedFd, Ends), Error> {
    let mut fds = fds.into_iter();
    let missing = || Error::new(Step::Frame, io::Error::from(io::ErrorKind::InvalidData));
    let mut take = || fds.next().ok_or_else(missing);
    let command = take()?;
    let stdin = along.stdin.then(&mut take).transpose()?;
    let channel = along.channel.then(&mut take).transpose()?;
    let arrival = along.arrival.then(&mut take).transpose()?;
    let ends = Ends {
        stdin,
        channel,
        arrival,
    };
    Ok((command, ends))
}

/// Reaps one ended child, if there is one.
fn reap() -> io::Result<Option<(Pid, WaitStatus)>> {
    match rustix::io::retry_on_intr(|| rustix::process::wait(WaitOptions::NOHANG)) {
        Ok(reaped) => Ok(reaped),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The end of what could not even begin.
fn never_ran(errno: i32) -> Exit {
    Exit {
        how: How::Exited(errno & 0xFF),
        wall_time: Duration::ZERO,
        cpu_time: Duration::ZERO,
        memory_peak: 0,
        over_memory: false,
        over_disk: false,
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
