//! A box that lives, and all that is awaited of it.
//!
//! However a run ends, its box is killed, and its place is given back only
//! when the box is dead: a task of its own sees to that. Every wait is bounded.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Command, Denials, Event, Explanation, File, Launcher, Report, Sandbox, Spec, Step};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Place;
use super::ended::{Captures, Cut, Ended, Last};
use crate::config::Bounds;
use crate::error::Error;
use crate::workspace::{self, Collected};

/// How long the sandbox may take over any one step of its own. Long, because a
/// machine that was given more runs than it has cores for is slow, not broken.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the pipes of dead processes are read on: they hold 64 KiB each.
const PIPE_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Commands up to this size, in bytes, are handed over at once: copying them
/// takes less than going to another thread and back.
const QUICK_COPY: usize = 256 * 1024;

/// The wall time of a run, which begins when its first program does.
#[derive(Debug)]
pub(super) struct Clock {
    wall_time: Duration,
    deadline: Option<Instant>,
}

impl Clock {
    pub(super) fn new(wall_time: Duration) -> Self {
        Self {
            wall_time,
            deadline: None,
        }
    }

    /// A program runs: the deadline from now on.
    fn begin(&mut self) -> Instant {
        *self
            .deadline
            .get_or_insert_with(|| Instant::now() + self.wall_time)
    }
}

/// A box and the run's place. Dropping it kills the box.
#[derive(Debug)]
pub(super) struct Live {
    doors: Arc<Doors>,
    place: Arc<Place>,
    /// Set as soon as the box is ready.
    /// The workspace and the directory of temporary files.
    directories: Option<(OwnedFd, OwnedFd)>,
    /// Set where denied calls are to be told.
    explanation: Option<Explanation>,
    /// What the box may use, in bytes.
    memory: u64,
    /// Whether it has a cgroup that counts.
    measured: bool,
}

impl Drop for Live {
    fn drop(&mut self) {
        let doors = Arc::clone(&self.doors);
        let place = Arc::clone(&self.place);
        // Refused only when the box is gone already.
        doors.sandbox.kill().ok();
        // Without a runtime nobody is left who could want the place.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let gone = async move {
                // An error is the box's end too: it, or the warden, is gone.
                if timeout(STEP_TIMEOUT, doors.gone()).await.is_err() {
                    tracing::error!("a killed box was not dead in time");
                }
                drop(place);
            };
            // So that the log says whose box it was.
            runtime.spawn(gone.in_current_span());
        }
    }
}

impl Live {
    /// Makes a box, ready for its first command.
    pub(super) async fn create(
        launcher: &Launcher,
        spec: &Spec,
        explain: bool,
        measured: bool,
        place: Arc<Place>,
    ) -> Result<Self, Error> {
        let sandbox = if explain {
            launcher.create_explained(spec)?
        } else {
            launcher.create(spec)?
        };
        let mut live = Self {
            doors: Arc::new(Doors::open(sandbox)?),
            place,
            directories: None,
            explanation: None,
            memory: spec.limits.memory,
            measured,
        };
        let mut made = timeout(STEP_TIMEOUT, live.doors.event()).await;
        if let Ok(Ok(Event::Explained(explanation))) = made {
            live.explanation = Some(explanation);
            made = timeout(STEP_TIMEOUT, live.doors.event()).await;
        }
        match made.map_err(|_| late("make a box"))? {
            Ok(Event::Ready {
                workspace,
                temporary,
            }) => {
                live.directories = Some((workspace, temporary));
                Ok(live)
            }
            Ok(_) => Err(unexpected("make a box")),
            // The warden knows why init could not even speak.
            Err(error) if error.step == Step::Init => {
                let said = timeout(STEP_TIMEOUT, live.doors.report()).await;
                Err(said.ok().and_then(Result::err).unwrap_or(error).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs one command to its end, to the deadline or to `kill`. Gives the
    /// command back with how it ended.
    pub(super) async fn stage(
        &self,
        command: Command,
        clock: &mut Clock,
        captures: Captures,
        before: sandbox::Usage,
        kill: &CancellationToken,
    ) -> Result<(Command, Ended), Error> {
        let handed_over = Instant::now();
        let command = self.exec(command).await?;
        let ended =
            |last, account| Ended::new(captures.clone(), last, account, before, self.measured);
        let (stdout, stderr) = match self.start(clock, kill).await? {
            Start::Running { stdout, stderr } => (stdout, stderr),
            Start::Cut(cut, error) => {
                let account = self.kill().await?;
                if let Some(error) = error
                    && !starved(&command, account, self.memory, self.measured)
                {
                    return Err(error.into());
                }
                let wall_time = handed_over.elapsed();
                return Ok((command, ended(Last::Killed { cut, wall_time }, account)));
            }
        };
        let started = Instant::now();
        let deadline = clock.begin();
        let reading = captures.read(stdout, stderr);
        tokio::pin!(reading);
        let mut read = false;
        let cut = loop {
            tokio::select! {
                // A program that ended did so before anything else.
                biased;
                event = self.doors.event() => match event {
                    Ok(Event::Exited(exit)) => break Ok(exit),
                    Ok(_) => return Err(unexpected("wait for the program")),
                    // The box is dead, and the warden says what it used.
                    Err(error) if error.step == Step::Init => break Err(Cut::Died),
                    Err(error) => return Err(error.into()),
                },
                () = &mut reading, if !read => read = true,
                () = sleep_until(deadline) => break Err(Cut::Late),
                () = kill.cancelled() => break Err(Cut::Cancelled),
            }
        };
        let (last, account) = match cut {
            Ok(exit) => (Last::Exited(exit), self.measure().await?),
            Err(cut) => {
                let account = self.kill().await?;
                let wall_time = started.elapsed();
                (Last::Killed { cut, wall_time }, account)
            }
        };
        captures.drain();
        if !read && timeout(PIPE_DRAIN_TIMEOUT, reading).await.is_err() {
            tracing::warn!("a dead program's output did not end");
        }
        Ok((command, ended(last, account)))
    }

    /// Hands a command over. A large one is copied on a thread that may block.
    async fn exec(&self, command: Command) -> Result<Command, Error> {
        if size(&command) <= QUICK_COPY {
            self.doors.sandbox.exec(&command)?;
            return Ok(command);
        }
        let doors = Arc::clone(&self.doors);
        let place = Arc::clone(&self.place);
        let copied = tokio::task::spawn_blocking(move || {
            let done = doors.sandbox.exec(&command);
            drop(place);
            done.map(|()| command)
        });
        Ok(copied
            .await
            .map_err(|error| broken("hand over a command", error))??)
    }

    /// Waits for the program to start. Until the first one does, no time is
    /// charged to it: making the box and its files is our work.
    async fn start(&self, clock: &Clock, kill: &CancellationToken) -> Result<Start, Error> {
        let patience = Instant::now() + STEP_TIMEOUT;
        tokio::select! {
            event = self.doors.event() => match event {
                Ok(Event::Started { stdout, stderr }) => Ok(Start::Running { stdout, stderr }),
                Ok(_) => Err(unexpected("start the program")),
                Err(error) if error.step == Step::Init => Ok(Start::Cut(Cut::Died, Some(error))),
                Err(error) => Err(error.into()),
            },
            () = sleep_until(clock.deadline.unwrap_or(patience)) => {
                if clock.deadline.is_none() {
                    return Err(late("start the program"));
                }
                Ok(Start::Cut(Cut::Late, None))
            }
            () = kill.cancelled() => Ok(Start::Cut(Cut::Cancelled, None)),
        }
    }

    /// Kills the box, waits until it is dead, and says what it had used.
    async fn kill(&self) -> Result<sandbox::Usage, Error> {
        // Refused only when the box is gone already, which the report tells.
        self.doors.sandbox.kill().ok();
        let gone = timeout(STEP_TIMEOUT, self.doors.gone()).await;
        Ok(gone.map_err(|_| late("kill the box"))??)
    }

    /// What the box has used up to now.
    async fn measure(&self) -> Result<sandbox::Usage, Error> {
        self.doors.sandbox.measure()?;
        let report = timeout(STEP_TIMEOUT, self.doors.report()).await;
        let (Report::Usage(usage) | Report::Gone(usage)) =
            report.map_err(|_| late("measure the box"))??;
        Ok(usage)
    }

    /// What the box was denied, if that was to be told.
    pub(super) fn denials(&self) -> Result<Option<Denials>, Error> {
        let denials = self.explanation.as_ref().map(Explanation::denials);
        Ok(denials.transpose()?)
    }

    /// Collects what the program left. Every other process of the box is dead.
    /// When this future is dropped the thread that reads ends soon, and holds
    /// the run's place until then.
    pub(super) async fn collect(
        &self,
        inputs: Vec<File>,
        ignored: Vec<String>,
        bounds: Bounds,
    ) -> Result<Collected, Error> {
        let step = "collect files";
        let missing = || Err(io::ErrorKind::NotFound.into());
        let directories = self.directories.as_ref();
        let (workspace, temporary) = directories
            .map_or_else(missing, |(one, other)| {
                Ok((one.try_clone()?, other.try_clone()?))
            })
            .map_err(|source| Error::Io { step, source })?;
        let place = Arc::clone(&self.place);
        let cancel = CancellationToken::new();
        let _dropped = cancel.clone().drop_guard();
        tokio::task::spawn_blocking(move || {
            let mut collected =
                workspace::collect(workspace.as_fd(), &inputs, &ignored, &bounds, &cancel);
            let left = workspace::left(temporary.as_fd(), &ignored);
            collected.warnings.extend(left);
            drop((workspace, temporary, place));
            collected
        })
        .await
        .map_err(|error| broken(step, error))
    }
}

/// What came of starting a program.
enum Start {
    Running {
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// It never ran; the error, where that may be our fault.
    Cut(Cut, Option<sandbox::Error>),
}

/// Bytes that a command copies.
fn size(command: &Command) -> usize {
    let lists = command.argv.iter().chain(&command.env).map(Vec::len);
    let files = command.files.iter().map(|file| file.content.len());
    lists.chain(files).sum::<usize>() + command.stdin.len()
}

/// Whether a box that died before its program ran did so for want of memory,
/// which is the caller's to mend. Where no cgroup tells, by what init needs:
/// it holds a command twice, and once more in the workspace.
fn starved(command: &Command, used: sandbox::Usage, memory: u64, measured: bool) -> bool {
    let needed = 3 * (size(command) - command.stdin.len()) as u64;
    used.oom_kills > 0 || (!measured && needed > memory)
}

/// A box, and the sockets by which the runtime watches it.
#[derive(Debug)]
struct Doors {
    sandbox: Sandbox,
    events: UnixDatagram,
    reports: UnixDatagram,
}

impl Doors {
    fn open(sandbox: Sandbox) -> Result<Self, Error> {
        Ok(Self {
            events: watch(sandbox.events().try_clone_to_owned())?,
            reports: watch(sandbox.reports().try_clone_to_owned())?,
            sandbox,
        })
    }

    async fn event(&self) -> Result<Event, sandbox::Error> {
        next(&self.events, || self.sandbox.event()).await
    }

    async fn report(&self) -> Result<Report, sandbox::Error> {
        next(&self.reports, || self.sandbox.report()).await
    }

    /// Waits until the box is dead; what it had used.
    async fn gone(&self) -> Result<sandbox::Usage, sandbox::Error> {
        loop {
            if let Report::Gone(usage) = self.report().await? {
                return Ok(usage);
            }
        }
    }
}

/// Lets the runtime watch one of the box's sockets. tokio has no type of its
/// own for them, but it only has to tell when one is readable.
fn watch(fd: io::Result<OwnedFd>) -> Result<UnixDatagram, Error> {
    fd.and_then(|fd| UnixDatagram::from_std(fd.into()))
        .map_err(|source| Error::Io {
            step: "wait for a box",
            source,
        })
}

/// Takes the next thing there is, waiting for it.
async fn next<T>(
    socket: &UnixDatagram,
    take: impl Fn() -> Result<Option<T>, sandbox::Error>,
) -> Result<T, sandbox::Error> {
    loop {
        let taken = socket.try_io(Interest::READABLE, || match take() {
            // What clears the readiness, so that the wait below waits.
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other),
        });
        if let Ok(taken) = taken
            && let Some(taken) = taken?
        {
            return Ok(taken);
        }
        if let Err(error) = socket.readable().await {
            // Only while the runtime shuts down; the box is dropped with it.
            tracing::debug!(%error, "no longer waiting for a box");
            std::future::pending::<()>().await;
        }
    }
}

fn late(step: &'static str) -> Error {
    Error::Io {
        step,
        source: io::ErrorKind::TimedOut.into(),
    }
}

fn unexpected(step: &'static str) -> Error {
    Error::Io {
        step,
        source: io::ErrorKind::InvalidData.into(),
    }
}

fn broken(step: &'static str, error: tokio::task::JoinError) -> Error {
    Error::Io {
        step,
        source: io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sandbox::{Command, File, Usage};
    use tokio::time::{Instant, advance};

    use super::{Clock, starved};

    #[tokio::test(start_paused = true)]
    async fn the_clock_starts_with_the_first_program() {
        let mut clock = Clock::new(Duration::from_secs(10));
        // The box is made, the inputs are copied.
        advance(Duration::from_secs(7)).await;
        assert_eq!(clock.deadline, None);
        let deadline = clock.begin();
        assert_eq!(deadline, Instant::now() + Duration::from_secs(10));
        // The next stage has what is left.
        advance(Duration::from_secs(4)).await;
        assert_eq!(clock.begin(), deadline);
    }

    #[test]
    fn a_box_that_could_not_hold_its_inputs_is_told_from_one_that_failed() {
        let command = Command {
            files: vec![File {
                path: b"a".to_vec(),
                content: vec![0; 1000],
            }],
            stdin: vec![0; 5000],
            ..Command::default()
        };
        let check = |oom_kills, memory, measured, expected| {
            let used = Usage {
                oom_kills,
                ..Usage::default()
            };
            assert_eq!(starved(&command, used, memory, measured), expected);
        };
        check(1, 10_000, true, true);
        check(0, 10_000, true, false);
        check(0, 2999, true, false);
        check(1, 10_000, false, true);
        check(0, 2999, false, true);
        check(0, 3000, false, false);
    }
}
