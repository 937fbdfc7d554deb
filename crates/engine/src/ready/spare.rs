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

/// How long after the last session there is none any more.
const UNASKED: Duration = Duration::from_secs(600);

/// How long after a session was made no other box is: its first program starts then, and
/// is not to wait for the processors.
const SETTLING: Duration = Duration::from_millis(100);

/// What a box for a session is made of.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    spec: Spec,
    packages: Vec<Arc<PackageSet>>,
}

impl Plan {
    /// Whether a session cannot tell boxes of both. The lifetime is no part of it: it is
    /// set when a box is handed out.
    fn suits(&self, other: &Spec) -> bool {
        self.spec.mounts == other.mounts
            && self.spec.limits == other.limits
            && self.spec.adopts == other.adopts
    }

    /// Makes such a box.
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

#[derive(Debug, Default)]
struct State {
    /// What was asked for last, and when.
    asked: Option<(Plan, Instant)>,
    made: Option<(LiveBox, Plan, Instant)>,
}

impl State {
    /// Whether there is a box like the one that was asked for last, which lives and will
    /// for long enough.
    fn is_good(&self) -> bool {
        let (Some((home, plan, made)), Some((asked, _))) = (&self.made, &self.asked) else {
            return false;
        };
        plan.suits(&asked.spec)
            && made.elapsed() < AGE
            && matches!(home.doors.sandbox.event(), Ok(None))
    }
}

/// The box that the next session gets.
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
        let plan = Plan {
            spec: spec.clone(),
            packages: packages.to_vec(),
        };
        state.asked = Some((plan, Instant::now()));
        let good = state.is_good();
        let made = state.made.take();
        drop(state);
        made.filter(|_| good).map(|(home, ..)| home)
    }

    /// Returns what to make; where there is no need, when to ask again at the latest.
    pub(super) fn lacking(&self) -> Result<Plan, Option<Instant>> {
        let mut state = self.state();
        let wanted = state
            .asked
            .as_ref()
            .filter(|(_, asked)| asked.elapsed() < UNASKED);
        let wanted = wanted.map(|(plan, asked)| (plan.clone(), *asked));
        let ended = match wanted {
            Some((_, asked)) if state.is_good() => return Err(Some(asked + UNASKED)),
            Some((_, asked)) if asked.elapsed() < SETTLING => return Err(Some(asked + SETTLING)),
            _ => state.made.take(),
        };
        drop((state, ended));
        wanted.map(|(plan, _)| plan).ok_or(None)
    }

    /// Keeps a box that was made. After a failure none is made until the next session.
    pub(super) fn put(&self, plan: Plan, made: Result<LiveBox, Error>) {
        let mut state = self.state();
        let before = match made {
            Ok(home) => state.made.replace((home, plan, Instant::now())),
            Err(error) => {
                tracing::debug!(%error, "no box was made ahead for a session");
                state.asked = None;
                state.made.take()
            }
        };
        drop((state, before));
    }

    /// Ends the box, and has none made.
    pub(super) fn close(&self) {
        let state = std::mem::take(&mut *self.state());
        drop(state);
    }
}
