//! The box that the next session gets: made ahead, like the one that was asked for last.
//!
//! Nothing runs in it but its init. There is one at most, and none on a server that
//! nobody asks for sessions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox::Spec;
use tokio::time::Instant;

use super::{AGE, LIFETIME};
use crate::boxes::{Boxes, Kept, LiveBox};
use crate::error::Error;
use crate::runtime::PackageSet;

/// How long after the last session a box is kept for the next.
const UNASKED: Duration = Duration::from_secs(600);

/// How long the pool waits after a session was made: its first program starts then, and
/// needs the processors.
const SETTLING: Duration = Duration::from_millis(100);

/// What a box for a session is to be made of.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    spec: Spec,
    packages: Vec<Arc<PackageSet>>,
}

impl Wanted {
    /// Whether a session cannot tell boxes of both. The lifetime is no part of it: it is
    /// set when a box is handed out.
    fn suits(&self, other: &Spec) -> bool {
        self.spec.mounts == other.mounts
            && self.spec.limits == other.limits
            && self.spec.adopts == other.adopts
    }

    /// Makes a box of it. Fails as [`Boxes::make`] does.
    pub(super) async fn make(&self, boxes: &Boxes) -> Result<LiveBox, Error> {
        let kept = Kept {
            _packages: self.packages.clone(),
            ..Kept::default()
        };
        let spec = Spec {
            lifetime: Some(LIFETIME),
            ..self.spec.clone()
        };
        boxes.make(&spec, false, kept).await
    }
}

/// What is known of sessions, and the box that there is, if there is one.
#[derive(Debug, Default)]
struct State {
    /// What was asked for last, and when; none where no box is to be made.
    asked: Option<(Wanted, Instant)>,
    made: Option<(LiveBox, Wanted, Instant)>,
    /// No more boxes are made.
    closed: bool,
}

impl State {
    /// Whether there is a box like the one that was asked for last, which lives and will
    /// for long enough.
    fn is_good(&self) -> bool {
        let (Some((home, wanted, made)), Some((asked, _))) = (&self.made, &self.asked) else {
            return false;
        };
        wanted.suits(&asked.spec)
            && made.elapsed() < AGE
            && matches!(home.doors.sandbox.event(), Ok(None))
    }
}

/// The box that the next session gets: one at most.
#[derive(Debug, Default)]
pub(super) struct Spare {
    state: Mutex<State>,
}

impl Spare {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the box for a session, if it suits. From now on there should be one like it.
    pub(super) fn take(&self, spec: &Spec, packages: &[Arc<PackageSet>]) -> Option<LiveBox> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        let wanted = Wanted {
            spec: spec.clone(),
            packages: packages.to_vec(),
        };
        state.asked = Some((wanted, Instant::now()));
        let good = state.is_good();
        let made = state.made.take();
        drop(state);
        made.filter(|_| good).map(|(home, ..)| home)
    }

    /// Returns what to make; where there is no need, when to ask again at the latest.
    pub(super) fn lacking(&self) -> Result<Wanted, Option<Instant>> {
        let mut state = self.state();
        let good = state.is_good();
        match &state.asked {
            Some((wanted, asked)) if asked.elapsed() < UNASKED => {
                if good {
                    return Err(Some(*asked + UNASKED));
                }
                if asked.elapsed() < SETTLING {
                    return Err(Some(*asked + SETTLING));
                }
                let wanted = wanted.clone();
                let ended = state.made.take();
                drop((state, ended));
                Ok(wanted)
            }
            _ => {
                // What is remembered keeps package sets from their end, too.
                let ended = (state.asked.take(), state.made.take());
                drop((state, ended));
                Err(None)
            }
        }
    }

    /// Keeps a box that was made, if it is still wanted. After a failure none is made until
    /// the next session.
    pub(super) fn put(&self, wanted: Wanted, made: Result<LiveBox, Error>) {
        let mut state = self.state();
        let before = state.made.take();
        let mut unwanted = None;
        match made {
            Ok(home) if state.asked.is_some() => {
                state.made = Some((home, wanted, Instant::now()));
            }
            Ok(home) => unwanted = Some(home),
            Err(error) => {
                tracing::debug!(%error, "no box was made ahead for a session");
                state.asked = None;
            }
        }
        drop((state, before, unwanted));
    }

    /// Ends the box. None is made until the next session.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        let ended = (state.asked.take(), state.made.take());
        drop((state, ended));
    }

    /// Ends the box. No other is made.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.forget();
    }
}
