//! A session that lives: its box, its programs, and when it pauses and ends.
//!
//! One task of its own, the keeper, hears what the box says and waits for the next
//! thing that is due; it wakes for nothing else. Programs and callers share the rest.

mod programs;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use sandbox::{Entrance, Event, Exit, Limits};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::command::Commands;
use super::context::Context;
use super::store::Sessions;
use super::{SessionEnd, SessionState};
use crate::boxes::LiveBox;
use crate::config::Bounds;
use crate::error::Error;
use crate::outcome::Isolation;
use crate::owner::Owner;
use crate::plan::KernelPlan;
use crate::workspace::Seen;
use crate::zygote::Zygote;

/// How long programs go on without a cell where no cgroup counts their memory: long
/// enough that calls which follow one another stop nothing between them.
const UNWATCHED: Duration = Duration::from_secs(1);

/// What a session was made with.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) id: String,
    pub(crate) owner: Owner,
    pub(crate) name: Option<String>,
    pub(crate) metadata: Vec<(String, String)>,
    /// What its box may use.
    pub(crate) limits: Limits,
    pub(crate) ttl: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) isolation: Isolation,
    pub(crate) bounds: Bounds,
    /// The languages that its box serves, by canonical name.
    pub(crate) languages: BTreeMap<String, Language>,
    /// What runs its commands, where there is a shell here.
    pub(crate) shell: Option<Shell>,
}

/// What runs the commands of a session.
#[derive(Debug)]
pub(crate) struct Shell {
    /// Canonical name of its language.
    pub(crate) language: String,
    pub(crate) version: String,
    pub(crate) plan: KernelPlan,
}

/// A language that a session's box serves.
#[derive(Debug)]
pub(crate) struct Language {
    pub(crate) version: String,
    pub(crate) kernel: KernelPlan,
    /// Names of files that are not told of.
    pub(crate) ignored: Vec<String>,
    /// Why its interpreter can't be forked, where it can't.
    pub(crate) no_fork: Option<String>,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) terms: Terms,
    pub(super) home: LiveBox,
    created: (Instant, SystemTime),
    state: Mutex<State>,
    programs: Mutex<Programs>,
    numbers: AtomicU32,
    /// Something was done that changes what is due.
    changed: Notify,
    /// Cancelled when it ends.
    pub(super) over: CancellationToken,
    end: OnceLock<SessionEnd>,
    measuring: tokio::sync::Mutex<()>,
    pub(super) commands: Commands,
    /// The files that callers were told of.
    pub(super) seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) contexts: BTreeMap<String, Arc<Context>>,
    /// Cells and other calls in progress.
    busy: usize,
    used: Instant,
    /// Those of them that hold a place to run in.
    placed: usize,
    /// When the last of those was over.
    ran: Instant,
    /// Whether its programs were told to stop.
    stopped: bool,
    /// Whether others have the processors first.
    yields: bool,
    /// Whether it counts as paused, and not only as stopped for a moment.
    paused: bool,
    /// Whether it ends as soon as nothing is in progress.
    ending: bool,
}

/// Who waits for what the box will say.
#[derive(Debug, Default)]
struct Programs {
    launching: HashMap<u32, oneshot::Sender<Result<[OwnedFd; 2], sandbox::Error>>>,
    adopting: HashMap<u32, oneshot::Sender<Result<(), sandbox::Error>>>,
    running: HashMap<u32, oneshot::Sender<Exit>>,
    /// The way in for the first program, if that is forked; gone with whatever is first.
    door: Option<WayIn>,
}

/// How the first program of a session's box is forked.
#[derive(Debug)]
struct WayIn {
    entrance: Entrance,
    warm: Warm,
}

/// What the first interpreter of a session may be forked from.
#[derive(Debug)]
pub(crate) struct Warm {
    /// Canonical name of its language.
    pub(crate) language: String,
    pub(crate) zygote: Arc<Zygote>,
}

/// A program of a session, just launched.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) number: u32,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Told when it has ended; dropped when the session has.
    pub(super) ended: oneshot::Receiver<Exit>,
}

/// A call in progress. Dropping it begins the time in which the session is idle.
#[derive(Debug)]
pub(crate) struct InUse {
    session: Arc<Session>,
    /// Whether it holds a place to run in.
    placed: bool,
}

impl InUse {
    /// Tells that it holds a place to run in from now on: what runs in the session has
    /// the processors as any run has. What only asks for something leaves that as it
    /// is, else whoever asked all the time would have them without a place.
    ///
    /// # Errors
    /// [`Error::Sandbox`].
    pub(crate) fn take_place(&mut self) -> Result<(), Error> {
        let mut state = self.session.state();
        if state.yields {
            self.session.home.doors.sandbox.idle(false)?;
            state.yields = false;
        }
        if !self.placed {
            state.placed += 1;
            self.placed = true;
        }
        Ok(())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.session.state();
        state.busy -= 1;
        state.used = Instant::now();
        if self.placed {
            state.placed -= 1;
            state.ran = state.used;
        }
        drop(state);
        self.session.changed.notify_one();
    }
}

impl Session {
    /// Makes a session in a new box, whose first interpreter may be forked.
    pub(crate) fn new(terms: Terms, mut home: LiveBox, warm: Option<Warm>) -> Self {
        let entrance = home.entrance.take();
        let door = entrance
            .zip(warm)
            .map(|(entrance, warm)| WayIn { entrance, warm });
        Self {
            terms,
            home,
            created: (Instant::now(), SystemTime::now()),
            state: Mutex::new(State {
                contexts: BTreeMap::new(),
                busy: 0,
                used: Instant::now(),
                placed: 0,
                ran: Instant::now(),
                stopped: false,
                yields: false,
                paused: false,
                ending: false,
            }),
            programs: Mutex::new(Programs {
                door,
                ..Programs::default()
            }),
            numbers: AtomicU32::new(1),
            changed: Notify::new(),
            over: CancellationToken::new(),
            end: OnceLock::new(),
            measuring: tokio::sync::Mutex::default(),
            commands: Commands::default(),
            seen: Arc::default(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.terms.id
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.terms.owner
    }

    /// How long it may live.
    pub(crate) fn ttl(&self) -> Duration {
        self.terms.ttl
    }

    /// Why it ended; `None` while it lives.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        self.end.get().copied()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.state().paused
    }

    pub(crate) fn last_used(&self) -> Instant {
        self.state().used
    }

    /// Ends it, with all that runs in it. The first reason stays.
    pub(crate) fn end(&self, why: SessionEnd) {
        if self.end.set(why).is_ok() {
            tracing::debug!(session = self.id(), reason = why.reason(), "a session ends");
        }
        self.over.cancel();
    }

    /// Ends it as soon as no call is in progress.
    pub(crate) fn end_when_idle(&self) {
        self.state().ending = true;
        self.changed.notify_one();
    }

    /// Tells that a call is in progress, and lets stopped programs go on.
    ///
    /// # Errors
    /// [`Error::NoSession`] when it has ended, [`Error::Sandbox`].
    pub(crate) fn enter(self: &Arc<Self>) -> Result<InUse, Error> {
        if let Some(end) = self.ended() {
            return Err(self.gone(end));
        }
        let mut state = self.state();
        if state.stopped {
            self.home.doors.sandbox.go_on()?;
            state.stopped = false;
        }
        state.paused = false;
        state.busy += 1;
        drop(state);
        Ok(InUse {
            session: Arc::clone(self),
            placed: false,
        })
    }

    /// Stops its programs until the next call. Says whether that was done: not while
    /// a call is in progress.
    ///
    /// # Errors
    /// [`Error::NoSession`] when it has ended, [`Error::Sandbox`].
    pub(crate) fn pause(&self) -> Result<bool, Error> {
        if let Some(end) = self.ended() {
            return Err(self.gone(end));
        }
        let mut state = self.state();
        if state.busy > 0 {
            return Ok(false);
        }
        self.stop(&mut state)?;
        state.paused = true;
        Ok(true)
    }

    fn stop(&self, state: &mut State) -> Result<(), Error> {
        if !state.stopped {
            self.home.doors.sandbox.stop()?;
            state.stopped = true;
        }
        Ok(())
    }

    /// Has its keeper look what is due now.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) fn gone(&self, end: SessionEnd) -> Error {
        Error::NoSession {
            id: self.terms.id.clone(),
            end,
        }
    }

    pub(crate) fn state_now(&self) -> SessionState {
        let state = self.state();
        let (now, wall) = (Instant::now(), SystemTime::now());
        SessionState {
            id: self.terms.id.clone(),
            name: self.terms.name.clone(),
            metadata: self.terms.metadata.clone(),
            paused: state.paused,
            isolation: self.terms.isolation,
            memory: self.terms.limits.memory,
            created: self.created.1,
            last_used: wall - now.saturating_duration_since(state.used),
            expires: self.created.1 + self.terms.ttl,
            idle_timeout: self.terms.idle_timeout,
            contexts: state.contexts.values().map(|one| one.state()).collect(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The keeper.

    /// Keeps the session until it ends, then takes it from where it is found.
    pub(crate) async fn keep(self: Arc<Self>, sessions: Arc<Sessions>) {
        loop {
            let due = self.due();
            tokio::select! {
                // Whoever ended it said so before its box died of it.
                biased;
                () = self.over.cancelled() => break,
                event = self.home.doors.event() => if let Err(cause) = self.hear(event) {
                    tracing::warn!(session = self.id(), %cause, "a session's box died");
                    self.end(SessionEnd::Died);
                },
                () = sleep_until(due) => self.look(),
                () = self.changed.notified() => self.look(),
            }
        }
        // Refused only when the box is gone already.
        self.home.doors.sandbox.kill().ok();
        let end = self.ended().unwrap_or(SessionEnd::Died);
        *self.programs() = Programs::default();
        sessions.remove(&self, end);
    }

    /// Hands on what the box says.
    fn hear(&self, event: Result<Event, sandbox::Error>) -> Result<(), String> {
        match event {
            Ok(Event::Launched {
                program,
                stdout,
                stderr,
            }) => {
                if let Some(waits) = self.programs().launching.remove(&program) {
                    // One who has given up is told of the program's end no more.
                    drop(waits.send(Ok([stdout, stderr])));
                }
            }
            Ok(Event::NotLaunched { program, error }) => {
                let mut programs = self.programs();
                programs.running.remove(&program);
                if let Some(waits) = programs.launching.remove(&program) {
                    drop(waits.send(Err(error)));
                } else if let Some(waits) = programs.adopting.remove(&program) {
                    drop(waits.send(Err(error)));
                }
            }
            Ok(Event::Adopted { program }) => {
                if let Some(waits) = self.programs().adopting.remove(&program) {
                    waits.send(Ok(())).ok();
                }
            }
            Ok(Event::Ended { program, exit }) => {
                if let Some(waits) = self.programs().running.remove(&program) {
                    // Nobody waits for an end any more that nobody needs.
                    waits.send(exit).ok();
                }
            }
            Ok(Event::Stopped) => {}
            Ok(other) => return Err(format!("init said what it was not asked: {other:?}")),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// When something is due that nobody asks for.
    fn due(&self) -> Instant {
        let state = self.state();
        let mut expires = self.created.0 + self.terms.ttl;
        if self.home.measured && state.placed == 0 && !state.yields {
            expires = expires.min(state.ran + UNWATCHED);
        }
        if state.busy > 0 {
            return expires;
        }
        let working = self.has_background();
        let idle = [
            (!state.stopped && !self.home.measured && !working).then_some(state.used + UNWATCHED),
            (!state.paused).then_some(state.used + self.terms.idle_timeout),
            Some(state.used + self.idle_end()),
        ];
        let idle = idle.into_iter().flatten().min();
        idle.map_or(expires, |idle| idle.min(expires))
    }

    /// How long it may be idle before it ends.
    fn idle_end(&self) -> Duration {
        Bounds::SESSION_IDLE_END.max(self.terms.idle_timeout * 2)
    }

    /// Does what is due.
    fn look(&self) {
        let now = Instant::now();
        if now >= self.created.0 + self.terms.ttl {
            return self.end(SessionEnd::Expired);
        }
        let mut state = self.state();
        let unplaced = now.saturating_duration_since(state.ran);
        if self.home.measured && state.placed == 0 && !state.yields && unplaced >= UNWATCHED {
            // What goes on in it holds no place to run in.
            state.yields = self.home.doors.sandbox.idle(true).is_ok();
        }
        if state.busy > 0 {
            return;
        }
        let idle = now.saturating_duration_since(state.used);
        if state.ending {
            drop(state);
            return self.end(SessionEnd::Stopped);
        }
        if idle >= self.idle_end() {
            drop(state);
            return self.end(SessionEnd::Idle);
        }
        let paused = idle >= self.terms.idle_timeout;
        let unwatched = idle >= UNWATCHED && !self.home.measured && !self.has_background();
        if paused || unwatched {
            // A box that can't be told is dead, which the keeper hears next.
            if let Err(error) = self.stop(&mut state) {
                tracing::debug!(session = self.id(), %error, "failed to stop a session's programs");
            }
            state.paused |= paused;
        }
    }
}
