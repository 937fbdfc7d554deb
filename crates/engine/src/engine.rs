//! The engine and its one door. Knows nothing of HTTP.

mod sessions;
mod warm;

pub use warm::Warmth;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox::Support;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::accept::accept;
use crate::admission::{Admission, Load};
use crate::boxes::{Boxes, Kept};
use crate::config::{Bounds, Config};
use crate::error::{Error, StartError};
use crate::events::Sink;
use crate::executor::{self, Followers};
use crate::job::{Draft, Job};
use crate::metrics::Metrics;
use crate::outcome::{Isolation, Outcome, Status};
use crate::owner::Owner;
use crate::plan::{Plan, plan};
use crate::ready::{Pool, Stock};
use crate::runtime::kit::{PackageKit, Stage};
use crate::runtime::packages::Package;
use crate::runtime::{PackageSet, Places, Provider, Registry, Runtime};
use crate::session::{
    CommandCall, CommandState, FileCall, FileList, SessionCall, SessionFile, SessionState, Sessions,
};
use sessions::Answer;

/// How long killed runs may take to be gone when the server drains.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// What can be asked of an engine.
#[derive(Debug)]
pub enum Call {
    /// Run a job from start to end.
    Execute(Box<Job>),
    /// Do something about the sessions of an owner.
    Session(Owner, SessionCall),
    /// Do something about the commands of an owner's session, which its id names.
    Command(Owner, String, CommandCall),
    /// Do something about the files of an owner's session, which its id names.
    File(Owner, String, FileCall),
}

/// The answer to a [`Call`], variant by variant.
#[derive(Debug)]
pub enum Reply {
    /// To [`Call::Execute`].
    Outcome(Box<Outcome>),
    /// To a [`Call::Session`] on one session, which lives on.
    Session(Box<SessionState>),
    /// To [`SessionCall::Fork`]: the session, the name of the new context, and what both
    /// interpreters share, for people.
    Forked(Box<SessionState>, String, Vec<String>),
    /// To [`SessionCall::List`].
    Sessions(Vec<SessionState>),
    /// To [`SessionCall::End`].
    Ended,
    /// To [`FileCall::List`].
    Files(FileList),
    /// To [`FileCall::Open`].
    File(SessionFile),
    /// To any other [`FileCall`].
    Done,
    /// To a [`CommandCall`] on one command.
    Command(Box<CommandState>),
    /// To [`CommandCall::List`].
    Commands(Vec<CommandState>),
}

/// A language as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Language {
    /// Canonical name (`python`).
    pub name: String,
    /// Human name (`Python`).
    pub title: String,
    /// Other accepted names.
    pub aliases: Vec<String>,
    /// Endings of its files, without the dot (`py`).
    pub extensions: Vec<String>,
    /// Version found on this machine; empty when not available.
    pub version: String,
    /// Whether code in it can run now.
    pub available: bool,
    /// What to do when it is not available.
    pub cure: Option<String>,
    /// The interpreter; for the operator's eyes.
    pub interpreter: Option<PathBuf>,
    /// The interpreters that will not do, each with the reason; for the operator's eyes.
    pub passed_over: Vec<String>,
    /// For one version beside the preferred one: the canonical name of the
    /// language it is a version of. Such a language has no packages of its own.
    pub version_of: Option<String>,
}

/// The packages of a language: what programs find, and what could be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageState {
    /// Canonical name of the language.
    pub language: String,
    /// Human name of the language.
    pub title: String,
    /// Where its sets are kept.
    pub directory: PathBuf,
    /// What people expect to find, most wanted first.
    pub main: Vec<String>,
    /// What the operator added, a specifier each.
    pub added: Vec<String>,
    /// What programs find now, sorted by name; `None` when there is no set that
    /// this machine's interpreter can load.
    pub installed: Option<Vec<Package>>,
    /// Whether that set is the one that this server and the operator want.
    pub current: bool,
    /// Whether somebody installs packages of it right now.
    pub installing: bool,
    /// Why none can be installed here, with the cure.
    pub obstacle: Option<String>,
}

/// Runs jobs. Cheap to clone, shared by all front doors.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What all clones of an engine share.
#[derive(Debug)]
pub(crate) struct Inner {
    registry: Registry,
    support: Support,
    boxes: Arc<Boxes>,
    /// Boxes whose interpreters wait for their programs.
    pool: Arc<Pool>,
    /// The packages, by language, that the pool was last told of.
    stocked: Mutex<Option<Vec<Option<Arc<PackageSet>>>>>,
    admission: Admission,
    sessions: Arc<Sessions>,
    metrics: Metrics,
    /// Counts the calls in progress.
    calls: TaskTracker,
    /// Ends the calls that outlast a drain's grace.
    kill: CancellationToken,
}

impl Engine {
    /// Starts the warden, probes the sandbox and detects the runtimes.
    ///
    /// Must be called before any thread or async runtime exists: the warden
    /// is a re-execution of this binary and inherits nothing but its socket.
    ///
    /// # Errors
    /// When no sound sandbox can be set up, or a manifest is wrong.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let (launcher, support) = sandbox::launch(config.isolation)?;
        let shared = launcher.shared_directory();
        let places = Places {
            named: &config.interpreters,
            path: &config.search_path,
            home: config.switchers.as_deref(),
        };
        let registry = Registry::load(&config.data_dir, places, shared)?;
        let isolation = support
            .isolation
            .expect("a launcher is given only with the rung that held");
        let pool = Pool::new(config.bounds.ready);
        Ok(Self {
            inner: Arc::new(Inner {
                admission: Admission::new(&config.bounds, pool.changed()),
                sessions: Arc::new(Sessions::new()),
                metrics: Metrics::new(),
                pool: Arc::new(pool),
                stocked: Mutex::default(),
                boxes: Arc::new(Boxes {
                    launcher,
                    isolation,
                    bounds: config.bounds,
                }),
                registry,
                support,
                calls: TaskTracker::new(),
                kill: CancellationToken::new(),
            }),
        })
    }

    /// Checks a draft against the bounds and the known languages.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field and the cure; for a cell also
    /// [`Error::NoSession`] and [`Error::NoContext`].
    pub fn accept(&self, draft: Draft) -> Result<Job, Error> {
        match draft.session.clone() {
            Some(place) => self.inner.accept_cell(draft, &place),
            None => Ok(accept(
                draft,
                &self.inner.boxes.bounds,
                &self.inner.registry,
            )?),
        }
    }

    /// Answers a call. Dropping the future cancels the call and kills its run.
    ///
    /// # Errors
    /// Only our own failures; see [`Error`].
    pub async fn call(&self, call: Call) -> Result<Reply, Error> {
        self.answer(call, None).await
    }

    /// [`Engine::call`], telling a sink what happens until then. The sink
    /// never fails a call: one that nobody reads is left alone.
    ///
    /// # Errors
    /// As of [`Engine::call`].
    pub async fn call_streaming(&self, call: Call, sink: Sink) -> Result<Reply, Error> {
        self.answer(call, Some(sink)).await
    }

    async fn answer(&self, call: Call, sink: Option<Sink>) -> Result<Reply, Error> {
        let _call = self.inner.calls.token();
        match call {
            Call::Execute(job) => {
                // At this level it is there as long as anything is logged at all.
                let span = tracing::error_span!("run", run_id = job.id());
                let desk = job.cell.clone();
                let packages = self.inner.packages(&job);
                let runtime = self.inner.registry.find(&job.language);
                let mut outcome = match desk {
                    Some(desk) => {
                        self.inner
                            .run_cell(*job, desk, sink)
                            .instrument(span)
                            .await?
                    }
                    None => {
                        let running = self.inner.execute(*job, packages, sink);
                        running.instrument(span).await?
                    }
                };
                if outcome.status == Status::Error {
                    let stderr = &outcome.last().stderr.bytes;
                    let advice = runtime.and_then(|runtime| runtime.advice(stderr));
                    outcome.warnings.extend(advice);
                }
                let last = outcome.last();
                let printed = [&last.stderr.bytes, &last.stdout.bytes];
                let advice = printed
                    .iter()
                    .find_map(|bytes| self.inner.registry.installer_advice(bytes));
                outcome.warnings.extend(advice);
                Ok(Reply::Outcome(Box::new(outcome)))
            }
            Call::Session(owner, call) => Ok(match self.inner.on_sessions(&owner, call).await? {
                Answer::One(state) => Reply::Session(Box::new(state)),
                Answer::Forked(state, forked) => {
                    Reply::Forked(Box::new(state), forked.name, forked.warnings)
                }
                Answer::Many(states) => Reply::Sessions(states),
                Answer::Done => Reply::Ended,
            }),
            Call::Command(owner, session, call) => {
                self.inner.on_commands(&owner, &session, call, sink).await
            }
            Call::File(owner, session, call) => self.inner.on_files(&owner, &session, call).await,
        }
    }

    /// The known languages, default first.
    #[must_use]
    pub fn languages(&self) -> Vec<Language> {
        self.inner.registry.languages()
    }

    /// Whether some language has a file of its own of that name, which no input
    /// may therefore have.
    #[must_use]
    pub fn is_reserved(&self, name: &str) -> bool {
        self.inner.registry.is_reserved(name)
    }

    /// What is installed for the languages that can have packages.
    #[must_use]
    pub fn packages(&self) -> Vec<PackageState> {
        self.inner.registry.package_states()
    }

    /// The same of one language, by name or alias.
    #[must_use]
    pub fn packages_of(&self, language: &str) -> Option<PackageState> {
        self.inner.registry.find(language)?.package_state()
    }

    /// Returns what brings the module `name` to programs of a language, which is
    /// given by name or alias; `None` where that could only be a package of the
    /// same name.
    #[must_use]
    pub fn provider(&self, language: &str, name: &str) -> Option<Provider> {
        let runtime = self.inner.registry.find(language)?;
        runtime.manifest.packages.as_ref()?.provider(name)
    }

    /// What it takes to build packages for a language, by name or alias.
    ///
    /// # Errors
    /// A sentence that says why none can be built, with the cure.
    pub fn package_kit(&self, language: &str) -> Result<PackageKit, String> {
        let found = self.inner.registry.find(language);
        let kit = found.and_then(Runtime::kit);
        kit.unwrap_or_else(|| Err(format!("there are no packages for {language:?}")))
    }

    /// Runs the language's check in a box that sees a staged set: only what
    /// can be loaded there is ever given to programs.
    ///
    /// # Errors
    /// Only our own failures; what the check found is in the outcome.
    pub async fn try_packages(
        &self,
        kit: &PackageKit,
        stage: &Stage,
        names: Vec<String>,
    ) -> Result<Outcome, Error> {
        let draft = Draft {
            code: kit.check.clone(),
            language: Some(kit.language.clone()),
            args: names,
            wall_time: Some(self.inner.boxes.bounds.wall_time_max),
            memory: Some(self.inner.boxes.bounds.memory_max),
            ..Draft::default()
        };
        let job = self.accept(draft)?;
        let _call = self.inner.calls.token();
        let staged = Arc::new(PackageSet::staged(&stage.directory));
        self.inner.execute(job, Some(staged), None).await
    }

    /// What the sandbox holds here.
    #[must_use]
    pub fn support(&self) -> &Support {
        &self.inner.support
    }

    /// The isolation that every run gets.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.inner.boxes.isolation
    }

    /// The bounds in force.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.inner.boxes.bounds
    }

    /// Whether boxes can still be made. Once that is false it stays so: the
    /// warden ended, and only another start of the program makes a new one.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.inner.boxes.launcher.is_alive()
    }

    /// What it counts and measures of its runs.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Sessions that live now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.inner.sessions.count()
    }

    /// How busy the engine is now.
    #[must_use]
    pub fn load(&self) -> Load {
        self.inner.admission.load()
    }

    /// Makes boxes ahead from now on, so that runs begin at once, for as long as the
    /// engine lives. Must be called within a runtime.
    pub fn keep_ready(&self) {
        if self.inner.boxes.bounds.ready == 0 {
            return;
        }
        let (pool, inner) = (Arc::clone(&self.inner.pool), Arc::downgrade(&self.inner));
        tokio::spawn(async move {
            while let Some(inner) = inner.upgrade()
                && !inner.calls.is_closed()
            {
                let next = inner.fill_pool().await;
                drop(inner);
                pool.rest(next).await;
            }
        });
    }

    /// The boxes that wait for a program now, and what more can be forked from.
    #[must_use]
    pub fn ready(&self) -> Vec<Stock> {
        self.inner.pool.stocks()
    }

    /// Refuses new calls and waits for the running ones, at most `grace`;
    /// what still runs then is killed, and answered with what it had printed
    /// until then and [`Status::Cancelled`](crate::Status::Cancelled).
    pub async fn drain(&self, grace: Duration) {
        let inner = &self.inner;
        inner.admission.close();
        inner.sessions.close();
        inner.calls.close();
        inner.pool.close();
        if tokio::time::timeout(grace, inner.calls.wait())
            .await
            .is_ok()
        {
            return;
        }
        inner.kill.cancel();
        inner.sessions.end_all();
        if tokio::time::timeout(KILL_GRACE, inner.calls.wait())
            .await
            .is_err()
        {
            tracing::error!(calls = inner.calls.len(), "calls are left after the drain");
        }
    }
}

impl Inner {
    /// The packages that a job's program sees.
    fn packages(&self, job: &Job) -> Option<Arc<PackageSet>> {
        self.registry.find(&job.language)?.packages()
    }

    /// Plans a job, waits for a place and runs it there.
    async fn execute(
        &self,
        job: Job,
        packages: Option<Arc<PackageSet>>,
        sink: Option<Sink>,
    ) -> Result<Outcome, Error> {
        let language = job.language.clone();
        let (plan, kept) = self.admit(job, packages).await?;
        let mut measured = self.metrics.begin(&language, self.boxes.isolation);
        let followers = Followers {
            sink,
            measured: &mut measured,
        };
        let ended = executor::run(&self.boxes, &self.pool, plan, kept, &self.kill, followers).await;
        measured.ended(&ended);
        if let Ok(outcome) = &ended {
            let status = outcome.status.as_str();
            tracing::debug!(language, status, "a run has ended");
        }
        ended
    }

    /// What is to be done for a job, and what it takes to do it.
    async fn admit(
        &self,
        job: Job,
        packages: Option<Arc<PackageSet>>,
    ) -> Result<(Plan, Kept), Error> {
        let (owner, patience) = (job.draft.owner.clone(), job.queue_wait);
        let runtime = self
            .registry
            .find(&job.language)
            .expect("a job's language was found in this registry when it was accepted");
        let begun = Instant::now();
        let admitted = async {
            let interpreter = runtime.interpreter()?;
            let bounds = &self.boxes.bounds;
            let plan = plan(job, runtime, interpreter, packages.as_deref(), bounds);
            let kept = Kept {
                _permit: Some(self.admission.enter(&owner, patience).await?),
                _call: Some(self.calls.token()),
                _seat: None,
                _packages: packages.into_iter().collect(),
            };
            Ok((plan, kept))
        };
        let admitted = admitted.await;
        match &admitted {
            Ok(_) => self.metrics.queued(begun.elapsed()),
            Err(error) => self.metrics.refused(error),
        }
        admitted
    }
}
