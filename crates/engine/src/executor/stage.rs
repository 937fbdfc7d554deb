//! One stage of a plan: a program that has its box to itself, from its command to
//! its end. Every wait is bounded.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Command, Event, Step};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::ended::{Cut, Ended, Last, since};
use crate::boxes::{LiveBox, STEP_TIMEOUT, broken, late, unexpected};
use crate::captures::Captures;
use crate::error::Error;

/// How long the pipes of dead processes are read on: they hold 64 KiB each.
const PIPE_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Commands up to this size, in bytes, are handed over at once: copying them
/// takes less than going to another thread and back.
pub(super) const QUICK_COPY: usize = 256 * 1024;

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

/// Where the stages of a plan run.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    pub(super) home: &'a LiveBox,
}

impl Stages<'_> {
    /// Runs one command to its end, to the deadline or to `kill`. Gives the
    /// command back with how it ended. One that has `begun` is only followed, by its
    /// standard output and standard error.
    pub(super) async fn run(
        &self,
        command: Command,
        begun: Option<[OwnedFd; 2]>,
        clock: &mut Clock,
        captures: Captures,
        before: sandbox::Usage,
        kill: &CancellationToken,
    ) -> Result<(Command, Ended), Error> {
        let handed_over = Instant::now();
        let ahead = begun.is_some();
        let (command, start) = match begun {
            Some([stdout, stderr]) => (command, Start::Running { stdout, stderr }),
            None => {
                let command = self.exec(command).await?;
                (command, self.start(clock, kill).await?)
            }
        };
        let ended =
            |last, account| Ended::new(captures.clone(), last, account, before, self.home.measured);
        let (stdout, stderr) = match start {
            Start::Running { stdout, stderr } => (stdout, stderr),
            Start::Cut(cut, error) => {
                let account = self.home.kill().await?;
                if let Some(error) = error
                    && !starved(&command, account, self.home.memory, self.home.measured)
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
                event = self.home.doors.event() => match event {
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
            Ok(mut exit) => {
                let wall_time = started.elapsed();
                let account = self.home.measure().await?;
                if ahead {
                    // Init counts from the interpreter's start, which was before.
                    exit.wall_time = wall_time;
                    if self.home.measured {
                        exit.cpu_time = since(account, before).cpu_time;
                    }
                }
                (Last::Exited(exit), account)
            }
            Err(cut) => {
                let account = self.home.kill().await?;
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
            self.home.doors.sandbox.exec(&command)?;
            return Ok(command);
        }
        let doors = Arc::clone(&self.home.doors);
        let kept = self.home.kept();
        let copied = tokio::task::spawn_blocking(move || {
            let done = doors.sandbox.exec(&command);
            drop(kept);
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
            event = self.home.doors.event() => match event {
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
