//! Zygotes: interpreters that were started once, have loaded what programs often import,
//! and are forked into boxes, so that a program there begins without a start of its own.
//!
//! A zygote gets nothing of any user's. Where there is none, or it fails, programs are
//! executed, which is never wrong, only later.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sandbox::{Arrival, Command, Entrance, Limits, Spec, Word};
use tokio::time::{Instant, timeout};

use crate::boxes::{Boxes, late, next, watch};
use crate::error::Error;

/// How long an interpreter may take to load its modules.
const LOADING: Duration = Duration::from_secs(60);
/// After so many programs another takes its place: what all of them have alike, such as
/// the seed of hashes, is to be nobody's to learn over time. Starting one costs about a
/// second of one core with all packages, so 1 ms a program.
const MOST_FORKS: u32 = 1000;
/// And after so long.
const MOST_AGE: Duration = Duration::from_secs(3600);

/// How a zygote is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZygotePlan {
    /// What it loads: a name of the language's profiles.
    pub(crate) profile: String,
    /// What it sees of the host.
    pub(crate) spec: Spec,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

impl ZygotePlan {
    fn command(&self) -> Command {
        let env = self.env.iter();
        Command {
            argv: self.argv.iter().cloned().map(String::into_bytes).collect(),
            env: env
                .map(|(name, value)| format!("{name}={value}").into_bytes())
                .collect(),
            ..Command::default()
        }
    }
}

/// Why there is no zygote.
#[derive(Debug)]
pub(crate) enum NoZygote {
    /// It said that it would be unsound: starting another would not help.
    Unfit(String),
    /// It could not be started now.
    Failed(Error),
}

impl From<Error> for NoZygote {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<sandbox::Error> for NoZygote {
    fn from(error: sandbox::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A zygote that serves.
#[derive(Debug)]
pub(crate) struct Zygote {
    inner: sandbox::Zygote,
    forks: AtomicU32,
    since: Instant,
}

impl Zygote {
    /// Starts one, and waits until it serves.
    pub(crate) async fn start(boxes: &Boxes, plan: &ZygotePlan) -> Result<Self, NoZygote> {
        let step = "start a zygote";
        let inner = boxes.launcher.zygote(&plan.spec, &plan.command())?;
        let words = inner.words().try_clone_to_owned();
        let words = watch(words)?;
        let said = timeout(LOADING, next(&words, || inner.word())).await;
        match said.map_err(|_| late(step))?? {
            Word::Serves => Ok(Self {
                inner,
                forks: AtomicU32::new(0),
                since: Instant::now(),
            }),
            Word::Refuses(why) => Err(NoZygote::Unfit(why)),
        }
    }

    /// Asks for a program in a box. `None` where it can't be asked.
    pub(crate) fn fork(&self, entrance: Entrance, limits: &Limits) -> Option<Arrival> {
        self.forks.fetch_add(1, Ordering::Relaxed);
        match self.inner.fork(entrance, limits) {
            Ok(arrival) => Some(arrival),
            Err(error) => {
                tracing::debug!(%error, "a zygote was not asked for a program");
                None
            }
        }
    }

    /// Whether its programs may share a box with programs that are executed.
    pub(crate) fn suits_sessions(&self) -> bool {
        self.inner.forks_among_others()
    }

    /// Whether it still lives.
    pub(crate) fn lives(&self) -> bool {
        // It says nothing more, so only its end is heard.
        matches!(self.inner.word(), Ok(None))
    }

    /// Whether another is to take its place.
    pub(crate) fn is_worn(&self) -> bool {
        self.forks.load(Ordering::Relaxed) >= MOST_FORKS || self.since.elapsed() >= MOST_AGE
    }
}
