//! Commands of a session: shell commands beside its interpreters, waited for or left to
//! run.
//!
//! What a command prints is kept within bounds while it runs, so that it can be looked at.
//! One that is left to run holds no place to run in, ends with its session, and is
//! remembered for a while.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sandbox::{Exit, How};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::live::{Launched, Session};
use crate::boxes::{broken_io, unexpected};
use crate::captures::Captures;
use crate::config::Bounds;
use crate::error::Error;
use crate::events::{Sink, Started};
use crate::outcome::{Output, Status};
use crate::pace::Pace;
use crate::verdict::{End, verdict};

/// Ended commands that a session remembers.
const REMEMBERED: usize = 32;
/// How long what an ended command left in its pipes is read.
const DRAIN: Duration = Duration::from_secs(2);
/// From the signal that asks a command to end to the one that ends it.
const GRACE: Duration = Duration::from_secs(1);
/// SIGTERM and SIGKILL.
const TERM: i32 = 15;
const KILL: i32 = 9;

/// A command that is asked for.
#[derive(Debug, Clone, Default)]
pub struct CommandDraft {
    /// The text, as a shell takes it.
    pub command: String,
    /// Directory below the working directory in which it runs.
    pub directory: Option<String>,
    /// Variables to add.
    pub env: Vec<(String, String)>,
    /// What it reads from standard input; `None` leaves that open for a command that is
    /// left to run, and gives nothing to any other.
    pub stdin: Option<Vec<u8>>,
    /// When it is ended; `None` for the time of a run, and for a command that is left to
    /// run for the session's.
    pub wall_time: Option<Duration>,
    /// Whether nobody waits for it.
    pub background: bool,
}

/// What a command does, or has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandState {
    /// Its id, within its session.
    pub id: String,
    /// Its text.
    pub command: String,
    /// When it began.
    pub started: SystemTime,
    /// What it printed so far, as far as that is kept: standard output and error.
    pub output: [Output; 2],
    /// How it ended; `None` while it runs.
    pub ended: Option<CommandEnd>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandEnd {
    /// In a word.
    pub status: Status,
    /// Exit code in the shell's convention.
    pub exit_code: i32,
    /// From its start to its end.
    pub wall_time: Duration,
}

/// The commands of a session.
#[derive(Debug, Default)]
pub(super) struct Commands {
    known: Mutex<Known>,
    numbers: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    all: BTreeMap<u64, Arc<Running>>,
    /// Places of those that begin in the background and are not among them yet.
    beginning: usize,
}

/// The place of a command that begins in the background, given back on drop.
#[derive(Debug)]
struct Place<'a>(&'a Session);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.commands().beginning -= 1;
    }
}

/// A command that was begun.
#[derive(Debug)]
pub(crate) struct Running {
    number: u64,
    command: String,
    started: SystemTime,
    captures: Captures,
    program: u32,
    /// Where its standard input is open.
    stdin: tokio::sync::Mutex<Option<pipe::Sender>>,
    ended: watch::Receiver<Option<CommandEnd>>,
    background: bool,
}

impl Running {
    pub(crate) fn state(&self) -> CommandState {
        CommandState {
            id: self.number.to_string(),
            command: self.command.clone(),
            started: self.started,
            output: self.captures.so_far(),
            ended: *self.ended.borrow(),
        }
    }

    /// Waits for its end, at most so long.
    pub(crate) async fn wait(&self, patience: Duration) {
        let mut ended = self.ended.clone();
        // Late or not, its state says how it is.
        timeout(patience, ended.wait_for(Option::is_some))
            .await
            .ok();
    }

    /// Gives it input, and closes that if this was all.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it takes none.
    pub(crate) async fn feed(&self, input: &[u8], close: bool) -> Result<(), Error> {
        let mut stdin = self.stdin.lock().await;
        let closed =
            || super::contexts::invalid("stdin", "is closed", "The command takes no more input.");
        let Some(pipe) = stdin.as_mut() else {
            return Err(closed().into());
        };
        let fed = timeout(super::cell::HAND_OVER, pipe.write_all(input)).await;
        if close || !matches!(fed, Ok(Ok(()))) {
            *stdin = None;
        }
        match fed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(closed().into()),
            Err(_late) => {
                let problem = "is not read by the command";
                Err(super::contexts::invalid("stdin", problem, "Send less at once.").into())
            }
        }
    }
}

impl Session {
    fn commands(&self) -> MutexGuard<'_, Known> {
        self.commands
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a command, and tells a sink what it prints.
    ///
    /// # Errors
    /// [`Error::Invalid`] where as many as may run in the background already.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        draft: CommandDraft,
        sink: Option<Sink>,
    ) -> Result<Arc<Running>, Error> {
        let place = match draft.background {
            true => Some(self.place()?),
            false => None,
        };
        let step = "start a command";
        let shell = self.terms.shell.as_ref().ok_or_else(|| unexpected(step))?;
        let plan = &shell.plan;
        let mut env: BTreeMap<String, String> = plan.env.iter().cloned().collect();
        env.extend(draft.env);
        let mut argv = plan.argv.clone();
        // The directory is a word of its own, so that nothing in it is the shell's to read.
        let text = match &draft.directory {
            Some(_) => format!("cd -- \"$0\" || exit; {}", draft.command),
            None => draft.command.clone(),
        };
        argv.push(text);
        argv.extend(draft.directory);
        let (input, theirs) = match (&draft.stdin, draft.background) {
            (None, true) => {
                let (theirs, ours) = std::io::pipe().map_err(broken_io(step))?;
                let ours = pipe::Sender::from_owned_fd(ours.into()).map_err(broken_io(step))?;
                (Some(ours), Some(OwnedFd::from(theirs)))
            }
            _ => (None, None),
        };
        let command = sandbox::Command {
            argv: argv.into_iter().map(String::into_bytes).collect(),
            env: env
                .into_iter()
                .map(|(name, value)| format!("{name}={value}").into_bytes())
                .collect(),
            stdin: draft.stdin.unwrap_or_default(),
            files: Vec::new(),
        };
        let launched = self
            .launch(&command, theirs.as_ref().map(|fd| fd.as_fd()))
            .await?;
        drop(theirs);
        let bounds = &self.terms.bounds;
        let number = self.commands.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(sink) = &sink {
            sink.started(Started {
                id: number.to_string(),
                language: shell.language.clone(),
                version: shell.version.clone(),
                isolation: self.terms.isolation,
            });
        }
        let captures = Captures::new(bounds.output, sink, Pace::new(bounds.output_rate));
        let (end, ended) = watch::channel(None);
        let running = Arc::new(Running {
            number,
            command: draft.command,
            started: SystemTime::now(),
            captures: captures.without_sink(),
            program: launched.number,
            stdin: tokio::sync::Mutex::new(input),
            ended,
            background: draft.background,
        });
        let wall_time = match (draft.wall_time, draft.background) {
            (Some(wall_time), _) => wall_time,
            (None, true) => self.terms.ttl,
            (None, false) => bounds.wall_time,
        };
        self.remember(Arc::clone(&running), place);
        let session = Arc::clone(self);
        tokio::spawn(async move { session.follow(launched, captures, wall_time, end).await });
        Ok(running)
    }

    /// Takes a place for a command that begins in the background.
    fn place(&self) -> Result<Place<'_>, Error> {
        let mut known = self.commands();
        let running = known.all.values().filter(|one| one.is_running()).count();
        if running + known.beginning >= Bounds::COMMANDS {
            let problem = format!("there are {} commands running already", Bounds::COMMANDS);
            return Err(super::contexts::invalid("background", &problem, "End one first.").into());
        }
        known.beginning += 1;
        Ok(Place(self))
    }

    /// Keeps a command where it is found, in its place, and forgets the oldest that have
    /// ended.
    fn remember(&self, running: Arc<Running>, place: Option<Place<'_>>) {
        let mut known = self.commands();
        if let Some(place) = place {
            // Counted as running from here on.
            known.beginning -= 1;
            std::mem::forget(place);
        }
        let all = &mut known.all;
        let ended: Vec<u64> = all
            .values()
            .filter(|one| !one.is_running())
            .map(|one| one.number)
            .collect();
        for number in ended
            .iter()
            .take((ended.len() + 1).saturating_sub(REMEMBERED))
        {
            all.remove(number);
        }
        all.insert(running.number, running);
    }

    /// Reads what a command prints and waits for its end.
    async fn follow(
        &self,
        launched: Launched,
        captures: Captures,
        wall_time: Duration,
        end: watch::Sender<Option<CommandEnd>>,
    ) {
        let Launched {
            number,
            stdout,
            stderr,
            ended,
        } = launched;
        let begun = Instant::now();
        let mut reading = Box::pin(captures.read(stdout, stderr));
        let mut read = false;
        let mut late = false;
        let mut next = begun + wall_time;
        let mut ended = ended;
        let exit = loop {
            tokio::select! {
                biased;
                exit = &mut ended => break exit.ok(),
                () = &mut reading, if !read => read = true,
                () = sleep_until(next) => {
                    let signal = if late { KILL } else { TERM };
                    // Refused only when the box is gone already.
                    self.home.doors.sandbox.signal(number, signal).ok();
                    late = true;
                    next = Instant::now() + GRACE;
                }
            }
        };
        captures.drain();
        if !read {
            // What it started may hold its pipes for as long as it likes.
            timeout(DRAIN, reading).await.ok();
        }
        end.send_replace(Some(judged(exit, late, begun.elapsed())));
        self.wake();
    }

    /// Finds a command.
    ///
    /// # Errors
    /// [`Error::NoCommand`].
    pub(crate) fn command(&self, id: &str) -> Result<Arc<Running>, Error> {
        let found = id
            .parse()
            .ok()
            .and_then(|number: u64| self.commands().all.get(&number).cloned());
        found.ok_or_else(|| Error::NoCommand { id: id.to_owned() })
    }

    /// The commands there are, the oldest first.
    pub(crate) fn all_commands(&self) -> Vec<CommandState> {
        self.commands()
            .all
            .values()
            .map(|one| one.state())
            .collect()
    }

    /// Whether a command runs that nobody waits for.
    pub(super) fn has_background(&self) -> bool {
        self.commands()
            .all
            .values()
            .any(|one| one.background && one.is_running())
    }

    /// Ends a command, with what is still of its process group.
    ///
    /// # Errors
    /// [`Error::Sandbox`].
    pub(crate) async fn kill(&self, running: &Running) -> Result<(), Error> {
        for signal in [TERM, KILL] {
            if running.is_running() {
                self.home.doors.sandbox.signal(running.program, signal)?;
                running.wait(GRACE).await;
            }
        }
        Ok(())
    }
}

impl Running {
    fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }
}

fn judged(exit: Option<Exit>, late: bool, wall_time: Duration) -> CommandEnd {
    let verdict = verdict(End {
        how: exit.map_or(How::Signalled(KILL), |exit| exit.how),
        timed_out: late,
        // Its session ended.
        cancelled: exit.is_none(),
        interrupted: false,
        memory_kills: u64::from(exit.is_some_and(|exit| exit.over_memory)),
        refused_processes: 0,
    });
    CommandEnd {
        status: verdict.status,
        exit_code: verdict.exit_code,
        wall_time,
    }
}
