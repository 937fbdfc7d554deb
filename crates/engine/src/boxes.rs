//! Boxes that live: made, watched, measured, and ended.
//!
//! A box outlives what runs in it; runs and sessions borrow it. However it ends, it
//! is killed, and what was kept for it is given back only when it is dead: a task of
//! its own sees to that. Every wait is bounded. Knows nothing of programs.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Denials, Entrance, Event, Explanation, File, Launcher, Report, Sandbox, Spec, Step};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use crate::admission::Permit;
use crate::config::Bounds;
use crate::error::Error;
use crate::outcome::Isolation;
use crate::runtime::PackageSet;
use crate::session::Seat;
use crate::workspace::{self, Collected};

/// How long the sandbox may take over any one step of its own. Long, because a
/// machine that was given more runs than it has cores for is slow, not broken.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// What makes boxes.
#[derive(Debug)]
pub(crate) struct Boxes {
    pub(crate) launcher: Launcher,
    /// The rung that every box is made on.
    pub(crate) isolation: Isolation,
    pub(crate) bounds: Bounds,
}

impl Boxes {
    /// Makes a box, ready for its first program, which keeps `kept` until it is dead.
    pub(crate) async fn make(
        &self,
        spec: &Spec,
        explain: bool,
        kept: Kept,
    ) -> Result<LiveBox, Error> {
        let measured = self.isolation == Isolation::Full;
        LiveBox::create(&self.launcher, spec, explain, measured, Arc::new(kept)).await
    }
}

/// What a box keeps until it is dead.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The place of the run that it was made for.
    pub(crate) _permit: Option<Permit>,
    /// Its part in the count that a drain waits for.
    pub(crate) _call: Option<TaskTrackerToken>,
    /// The seat of the session that it was made for.
    pub(crate) _seat: Option<Seat>,
    /// The package sets that it sees.
    pub(crate) _packages: Vec<Arc<PackageSet>>,
}

/// A box. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct LiveBox {
    pub(crate) doors: Arc<Doors>,
    kept: Arc<Kept>,
    /// The workspace and the directory of temporary files, as soon as it is ready.
    directories: Option<(OwnedFd, OwnedFd)>,
    /// The way in for a zygote's program, until it is used.
    pub(crate) entrance: Option<Entrance>,
    /// Set where denied calls are to be told.
    explanation: Option<Explanation>,
    /// What the box may use, in bytes.
    pub(crate) memory: u64,
    /// Whether it has a cgroup that counts.
    pub(crate) measured: bool,
}

impl Drop for LiveBox {
    fn drop(&mut self) {
        let doors = Arc::clone(&self.doors);
        let kept = Arc::clone(&self.kept);
        // Refused only when the box is gone already.
        doors.sandbox.kill().ok();
        // Without a runtime nobody is left who could want what it kept.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let gone = async move {
                // An error is the box's end too: it, or the warden, is gone.
                if timeout(STEP_TIMEOUT, doors.gone()).await.is_err() {
                    tracing::error!("a killed box was not dead in time");
                }
                drop(kept);
            };
            // So that the log says whose box it was.
            runtime.spawn(gone.in_current_span());
        }
    }
}

impl LiveBox {
    async fn create(
        launcher: &Launcher,
        spec: &Spec,
        explain: bool,
        measured: bool,
        kept: Arc<Kept>,
    ) -> Result<Self, Error> {
        let sandbox = if explain {
            launcher.create_explained(spec)?
        } else {
            launcher.create(spec)?
        };
        let mut live = Self {
            doors: Arc::new(Doors::open(sandbox)?),
            kept,
            directories: None,
            entrance: None,
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
                entrance,
            }) => {
                live.entrance = entrance;
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

    /// The workspace, opened before anything ran.
    pub(crate) fn workspace(&self) -> Result<&OwnedFd, Error> {
        let directories = self.directories.as_ref();
        directories
            .map(|(workspace, _)| workspace)
            .ok_or_else(|| unexpected("open the workspace"))
    }

    /// What the box keeps, for who goes on with it in another thread.
    pub(crate) fn kept(&self) -> Arc<Kept> {
        Arc::clone(&self.kept)
    }

    /// Has the box keep something else until it is dead.
    pub(crate) fn keep(&mut self, kept: Kept) {
        self.kept = Arc::new(kept);
    }

    /// Kills the box, waits until it is dead, and says what it had used.
    pub(crate) async fn kill(&self) -> Result<sandbox::Usage, Error> {
        // Refused only when the box is gone already, which the report tells.
        self.doors.sandbox.kill().ok();
        let gone = timeout(STEP_TIMEOUT, self.doors.gone()).await;
        Ok(gone.map_err(|_| late("kill the box"))??)
    }

    /// What the box has used up to now.
    pub(crate) async fn measure(&self) -> Result<sandbox::Usage, Error> {
        self.doors.sandbox.measure()?;
        let report = timeout(STEP_TIMEOUT, self.doors.report()).await;
        let (Report::Usage(usage) | Report::Gone(usage)) =
            report.map_err(|_| late("measure the box"))??;
        Ok(usage)
    }

    /// What the box was denied, if that was to be told.
    pub(crate) fn denials(&self) -> Result<Option<Denials>, Error> {
        let denials = self.explanation.as_ref().map(Explanation::denials);
        Ok(denials.transpose()?)
    }

    /// Collects what the program left. Every other process of the box is dead.
    /// When this future is dropped the thread that reads ends soon, and holds
    /// what the box keeps until then.
    pub(crate) async fn collect(
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
        let kept = Arc::clone(&self.kept);
        let cancel = CancellationToken::new();
        let _dropped = cancel.clone().drop_guard();
        tokio::task::spawn_blocking(move || {
            let mut collected =
                workspace::collect(workspace.as_fd(), &inputs, &ignored, &bounds, &cancel);
            collected.results = workspace::results(temporary.as_fd());
            let left = workspace::left(temporary.as_fd(), &ignored);
            collected.warnings.extend(left);
            drop((workspace, temporary, kept));
            collected
        })
        .await
        .map_err(|error| broken(step, error))
    }
}

/// A box, and the sockets by which the runtime watches it.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) sandbox: Sandbox,
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

    pub(crate) async fn event(&self) -> Result<Event, sandbox::Error> {
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
pub(crate) fn watch(fd: io::Result<OwnedFd>) -> Result<UnixDatagram, Error> {
    fd.and_then(|fd| UnixDatagram::from_std(fd.into()))
        .map_err(|source| Error::Io {
            step: "wait for a box",
            source,
        })
}

/// Takes the next thing there is, waiting for it.
pub(crate) async fn next<T>(
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

pub(crate) fn late(step: &'static str) -> Error {
    Error::Io {
        step,
        source: io::ErrorKind::TimedOut.into(),
    }
}

pub(crate) fn unexpected(step: &'static str) -> Error {
    Error::Io {
        step,
        source: io::ErrorKind::InvalidData.into(),
    }
}

pub(crate) fn broken(step: &'static str, error: tokio::task::JoinError) -> Error {
    Error::Io {
        step,
        source: io::Error::other(error),
    }
}

/// Makes an error of our own out of the system's, which failed at `step`.
pub(crate) fn broken_io(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { step, source }
}
