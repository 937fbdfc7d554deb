//! What the engine's door does for sessions: makes them, finds them for their owners, and
//! has cells run in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sandbox::{File, Limits, Mount, Spec, Work};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::{Inner, Reply};
use crate::accept::{self, WALL_TIME_MIN};
use crate::admission::Permit;
use crate::boxes::{Kept, broken};
use crate::config::Bounds;
use crate::error::Error;
use crate::events::Sink;
use crate::job::{Desk, Draft, Invalid, Job};
use crate::outcome::Outcome;
use crate::owner::Owner;
use crate::plan;
use crate::runtime::{PackageSet, Runtime};
use crate::session::{
    CellJob, CommandCall, CommandDraft, FileCall, Forked, InSession, InUse, Language,
    RunningCommand, Session, SessionCall, SessionDraft, SessionEnd, SessionState, Shell, Terms,
    files, fork, run, turn,
};

/// How much longer than its session a box may live before the warden ends it.
const MARGIN: Duration = Duration::from_secs(300);
/// Letters of a session's or a context's name.
const NAME: usize = 100;
/// Words that are kept with a session, and letters of each.
const METADATA: (usize, usize) = (32, 1000);

/// What a call on sessions brings.
#[derive(Debug)]
pub(super) enum Answer {
    One(SessionState),
    Many(Vec<SessionState>),
    Forked(SessionState, Forked),
    Done,
}

impl Inner {
    /// Carries out a call on sessions.
    pub(super) async fn on_sessions(
        &self,
        owner: &Owner,
        call: SessionCall,
    ) -> Result<Answer, Error> {
        let find = |id: &str| self.sessions.find(owner, id);
        match call {
            SessionCall::Create(draft) => {
                let session = self.make_session(owner, *draft).await?;
                Ok(Answer::One(session.state_now()))
            }
            SessionCall::List => {
                let own = self.sessions.of(owner);
                Ok(Answer::Many(
                    own.iter().map(|one| one.state_now()).collect(),
                ))
            }
            SessionCall::Show(id) => Ok(Answer::One(find(&id)?.state_now())),
            SessionCall::End(id) => {
                find(&id)?.end(SessionEnd::Deleted);
                Ok(Answer::Done)
            }
            SessionCall::Pause(id) => {
                let session = find(&id)?;
                if !session.pause()? {
                    let cure = "Wait for the call that is in progress, or interrupt it first.";
                    return Err(invalid("session", "is busy", cure).into());
                }
                Ok(Answer::One(session.state_now()))
            }
            SessionCall::Resume(id) => {
                let session = find(&id)?;
                drop(session.enter()?);
                Ok(Answer::One(session.state_now()))
            }
            SessionCall::Interrupt(place) => {
                let session = find(&place.session)?;
                for context in session.named(place.context.as_deref())? {
                    context.interrupt();
                }
                Ok(Answer::One(session.state_now()))
            }
            SessionCall::AddContext {
                session,
                language,
                name,
            } => {
                let session = find(&session)?;
                let language = self.language(&language)?.manifest.name.clone();
                if let Some(name) = &name {
                    check_name("name", name)?;
                }
                session.add_context(name, &language)?;
                Ok(Answer::One(session.state_now()))
            }
            SessionCall::Restart(place) => {
                let session = find(&place.session)?;
                for context in session.named(place.context.as_deref())? {
                    session.restart(&context).await?;
                }
                Ok(Answer::One(session.state_now()))
            }
            SessionCall::Fork(place, name) => self.fork(find(&place.session)?, place, name).await,
            SessionCall::EndContext(place) => {
                let session = find(&place.session)?;
                for context in session.named(place.context.as_deref())? {
                    session.remove_context(&context);
                    session.restart(&context).await?;
                }
                Ok(Answer::One(session.state_now()))
            }
        }
    }

    /// Forks a context, in a task of its own: a caller who goes away leaves nothing half
    /// done.
    async fn fork(
        &self,
        session: Arc<Session>,
        place: InSession,
        name: Option<String>,
    ) -> Result<Answer, Error> {
        if let Some(name) = &name {
            check_name("name", name)?;
        }
        let source = session.to_fork(place.context.as_deref())?;
        let in_use = session.enter()?;
        let patience = self.boxes.bounds.queue_wait;
        let (shared, call) = (Arc::clone(&session), self.calls.token());
        let task = async move {
            let forked = fork(&shared, &source, name, patience).await;
            drop((in_use, call));
            forked
        };
        let forked = tokio::spawn(task.in_current_span()).await;
        let forked = forked.map_err(|error| broken("fork an interpreter", error))??;
        Ok(Answer::Forked(session.state_now(), forked))
    }

    /// Carries out a call on the commands of a session.
    pub(super) async fn on_commands(
        &self,
        owner: &Owner,
        session: &str,
        call: CommandCall,
        sink: Option<Sink>,
    ) -> Result<Reply, Error> {
        let session = self.sessions.find(owner, session)?;
        let in_use = session.enter()?;
        let running = match call {
            CommandCall::List => return Ok(Reply::Commands(session.all_commands())),
            CommandCall::Run(draft) => {
                self.run_command(owner, &session, *draft, sink, in_use)
                    .await?
            }
            CommandCall::Show(id, patience) => {
                let running = session.command(&id)?;
                running.wait(patience).await;
                running
            }
            CommandCall::Feed(id, input, close) => {
                let running = session.command(&id)?;
                running.feed(&input, close).await?;
                running
            }
            CommandCall::Kill(id) => {
                let running = session.command(&id)?;
                session.kill(&running).await?;
                running
            }
        };
        if let Some(end) = session.ended() {
            return Err(Error::NoSession {
                id: session.id().to_owned(),
                end,
            });
        }
        Ok(Reply::Command(Box::new(running.state())))
    }

    /// Runs a command to its end, in a place of its own, or begins one that nobody
    /// waits for. It begins in a task of its own: whoever goes away meanwhile leaves
    /// none that nobody knows of.
    async fn run_command(
        &self,
        owner: &Owner,
        session: &Arc<Session>,
        draft: CommandDraft,
        sink: Option<Sink>,
        mut in_use: InUse,
    ) -> Result<Arc<RunningCommand>, Error> {
        let bounds = &self.boxes.bounds;
        accept::command(&draft, bounds)?;
        let background = draft.background;
        let permit = match background {
            true => None,
            false => {
                let permit = self.admission.enter(owner, bounds.queue_wait).await?;
                in_use.take_place()?;
                Some(permit)
            }
        };
        let (session, ttl) = (Arc::clone(session), session.ttl());
        let held = (permit, in_use, self.calls.token());
        let task = async move {
            let running = session.begin(draft, sink).await?;
            let held = Some(held);
            Ok::<_, Error>(Awaited {
                session,
                running,
                held,
            })
        };
        let begun = tokio::spawn(task.in_current_span()).await;
        let begun = begun.map_err(|error| broken("start a command", error))??;
        if !background {
            // Its own clock ends it.
            begun.running.wait(ttl).await;
        }
        Ok(begun.over())
    }

    /// Carries out a call on the files of a session.
    pub(super) async fn on_files(
        &self,
        owner: &Owner,
        session: &str,
        call: FileCall,
    ) -> Result<Reply, Error> {
        let session = self.sessions.find(owner, session)?;
        let _in_use = session.enter()?;
        let checked = |path: &str| accept::path("path", path);
        match call {
            FileCall::List { path, deep } => {
                if !path.is_empty() {
                    checked(&path)?;
                }
                return Ok(Reply::Files(files::list(&session, path, deep).await?));
            }
            FileCall::Open(path) => {
                checked(&path)?;
                return Ok(Reply::File(files::open(&session, path).await?));
            }
            FileCall::Put(path, content) => {
                checked(&path)?;
                files::put(&session, path, content).await?;
            }
            FileCall::MakeDirectory(path) => {
                checked(&path)?;
                let work = Work::MakeDirectory(path.clone().into_bytes());
                files::work(&session, &path, work).await?;
            }
            FileCall::Remove(path) => {
                checked(&path)?;
                let work = Work::Remove(path.clone().into_bytes());
                files::work(&session, &path, work).await?;
            }
            FileCall::Move { from, to } => {
                accept::path("from", &from)?;
                accept::path("to", &to)?;
                let (told, from, to) = (from.clone(), from.into_bytes(), to.into_bytes());
                files::work(&session, &told, Work::Move { from, to }).await?;
            }
        }
        Ok(Reply::Done)
    }

    fn language(&self, word: &str) -> Result<&Runtime, Error> {
        let runtime = self.registry.find(word);
        let with_kernel = |runtime: &&Runtime| runtime.manifest.kernel.is_some();
        let Some(runtime) = runtime.filter(with_kernel) else {
            let languages = self.registry.runtimes().filter(with_kernel);
            let known: Vec<&str> = languages
                .map(|runtime| runtime.manifest.name.as_str())
                .collect();
            return Err(invalid(
                "language",
                "is no language that sessions have",
                &format!("Send one of: {}.", known.join(", ")),
            )
            .into());
        };
        runtime.interpreter()?;
        Ok(runtime)
    }

    /// Makes a session with a box of its own.
    async fn make_session(
        &self,
        owner: &Owner,
        draft: SessionDraft,
    ) -> Result<Arc<Session>, Error> {
        let bounds = &self.boxes.bounds;
        let first = match &draft.language {
            Some(word) => Some(self.language(word)?.manifest.name.clone()),
            None => None,
        };
        check(&draft, bounds)?;
        let seat = self.sessions.seat(owner, bounds)?;
        let memory = accept::memory(draft.memory, bounds)?;
        let (languages, mounts, packages) = self.served(first.as_deref(), &draft.env);
        let shell = self.registry.runtimes().find_map(|runtime| {
            let interpreter = runtime.interpreter().ok()?;
            Some(Shell {
                language: runtime.manifest.name.clone(),
                version: interpreter.version.clone(),
                plan: plan::shell(runtime, interpreter, draft.env.clone())?,
            })
        });
        let ttl = draft
            .ttl
            .unwrap_or(bounds.session_ttl)
            .min(bounds.session_ttl);
        let limits = self.session_limits(memory);
        let warm = self.warm(first.as_deref(), &mounts, &draft.env);
        let spec = Spec {
            mounts,
            limits,
            lifetime: Some(ttl + MARGIN),
            adopts: warm.is_some(),
        };
        let kept = Kept {
            _permit: None,
            _call: Some(self.calls.token()),
            _seat: Some(seat),
            _packages: packages,
        };
        let ahead = self.pool.take_for_session(&spec, &kept._packages);
        // One that died meanwhile does not hear how long it may live.
        let ahead = ahead.filter(|home| home.doors.sandbox.live_on(spec.lifetime).is_ok());
        let home = match ahead {
            Some(mut home) => {
                home.keep(kept);
                home
            }
            None => self.boxes.make(&spec, false, kept).await?,
        };
        let terms = Terms {
            id: self.sessions.new_id(),
            owner: owner.clone(),
            name: draft.name,
            metadata: draft.metadata,
            limits,
            ttl,
            idle_timeout: draft.idle_timeout.unwrap_or(bounds.session_idle),
            isolation: self.boxes.isolation,
            bounds: *bounds,
            languages,
            shell,
        };
        let session = Arc::new(Session::new(terms, home, warm));
        self.sessions.put(Arc::clone(&session));
        let keeper = Arc::clone(&session).keep(Arc::clone(&self.sessions));
        tokio::spawn(keeper.in_current_span());
        if let Some(language) = first {
            session.add_context(None, &language)?;
        }
        Ok(session)
    }

    fn session_limits(&self, memory: u64) -> Limits {
        let bounds = &self.boxes.bounds;
        let needed = self
            .registry
            .runtimes()
            .filter_map(|runtime| runtime.manifest.processes);
        let processes = bounds
            .processes
            .or(needed.max())
            .unwrap_or(Bounds::PROCESSES);
        Limits {
            memory,
            processes,
            cpu_millis: bounds.cpu_millis,
            workspace: bounds.session_workspace,
            inodes: bounds.inodes,
            shm: bounds.shm,
            open_files: Bounds::OPEN_FILES,
        }
    }

    /// The languages that a session's box serves: all that are here, and the version
    /// that it begins with. With what the box has to see for that, and what it keeps.
    fn served(
        &self,
        first: Option<&str>,
        env: &[(String, String)],
    ) -> (BTreeMap<String, Language>, Vec<Mount>, Vec<Arc<PackageSet>>) {
        let (mut languages, mut seen, mut kept) = (BTreeMap::new(), Vec::new(), Vec::new());
        for runtime in self.registry.runtimes() {
            let manifest = &runtime.manifest;
            let named = first == Some(manifest.name.as_str());
            let Ok(interpreter) = runtime.interpreter() else {
                continue;
            };
            if runtime.is_another_version() && !named {
                continue;
            }
            let packages = runtime.packages();
            let set = packages.as_deref();
            seen.extend(plan::seen(runtime, interpreter, set));
            if let Some(kernel) = plan::kernel(runtime, interpreter, set, env.to_vec()) {
                let language = Language {
                    version: interpreter.version.clone(),
                    kernel,
                    ignored: manifest.ignored.clone(),
                    no_fork: manifest.no_fork.clone(),
                };
                languages.insert(manifest.name.clone(), language);
            }
            kept.extend(packages);
        }
        seen.sort();
        seen.dedup();
        let mounts = seen.into_iter();
        let mounts = mounts.map(|(source, target)| Mount { source, target });
        (languages, mounts.collect(), kept)
    }

    /// Checks a draft of a cell, and finds where it runs.
    pub(super) fn accept_cell(&self, draft: Draft, place: &InSession) -> Result<Job, Error> {
        let bounds = &self.boxes.bounds;
        accept::cell(&draft, bounds)?;
        let session = self.sessions.find(&draft.owner, &place.session)?;
        let asked = match &draft.language {
            Some(word) => Some(self.language(word)?.manifest.name.clone()),
            None => None,
        };
        let named = place.context.as_deref();
        let language = match named.and_then(|name| session.language_of(name)) {
            Some(language) => {
                if asked.as_ref().is_some_and(|asked| *asked != language) {
                    let problem = format!("is not that of the context, which is {language}");
                    let cure = "Leave it out, or name another context.";
                    return Err(invalid("language", &problem, cure).into());
                }
                language
            }
            None => asked
                .or_else(|| session.only_language())
                .unwrap_or_else(|| self.registry.default_runtime().manifest.name.clone()),
        };
        let context = session.context(named, &language)?;
        Ok(accept::cell_job(
            draft,
            language,
            bounds,
            Desk { session, context },
        )?)
    }

    /// Runs a cell in its turn, in a task of its own: a caller who goes away has it
    /// interrupted, and the session's state stays whole.
    pub(super) async fn run_cell(
        &self,
        job: Job,
        desk: Desk,
        sink: Option<Sink>,
    ) -> Result<Outcome, Error> {
        let Desk { session, context } = desk;
        let mut in_use = session.enter()?;
        let turn = turn(&session, &context, job.queue_wait).await?;
        let owner = &job.draft.owner;
        let permit = self.admission.enter(owner, job.queue_wait).await?;
        in_use.take_place()?;
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let files = job.draft.files.into_iter().map(|file| File {
            path: file.path.into_bytes(),
            content: file.content,
        });
        let cell = CellJob {
            id: job.id,
            code: job.draft.code,
            stdin: job.draft.stdin,
            env: job.draft.env,
            files: files.collect(),
            wall_time: job.wall_time,
            started: job.started,
        };
        let measured = self.metrics.begin(&job.language, self.boxes.isolation);
        let (call, kill) = (self.calls.token(), self.kill.clone());
        let task = async move {
            let stopped = kill
                .clone()
                .run_until_cancelled_owned(std::future::pending::<()>());
            let gone_or_killed = gone.clone();
            let watch = tokio::spawn(async move {
                stopped.await;
                gone_or_killed.cancel();
            });
            let ended = run(&session, &context, turn, cell, sink, &gone).await;
            watch.abort();
            measured.ended(&ended);
            drop((permit, in_use, call));
            ended
        };
        let ended = tokio::spawn(task.in_current_span()).await;
        guard.disarm();
        ended.map_err(|error| broken("run a cell", error))?
    }
}

/// What a command keeps that somebody waits for.
type Held = (Option<Permit>, InUse, TaskTrackerToken);

/// A command that somebody waits for, be it for its beginning alone: who goes away has
/// it ended.
struct Awaited {
    session: Arc<Session>,
    running: Arc<RunningCommand>,
    /// `None` when nobody waits any more.
    held: Option<Held>,
}

impl Awaited {
    /// It is over, or goes on by itself.
    fn over(mut self) -> Arc<RunningCommand> {
        self.held = None;
        Arc::clone(&self.running)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // Without a runtime the session ends, too.
        if let Some(held) = self.held.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let (session, running) = (Arc::clone(&self.session), Arc::clone(&self.running));
            runtime.spawn(async move {
                if let Err(error) = session.kill(&running).await {
                    tracing::debug!(%error, "failed to end a command");
                }
                drop(held);
            });
        }
    }
}

/// Checks what nothing else does of a session that is asked for.
fn check(draft: &SessionDraft, bounds: &Bounds) -> Result<(), Invalid> {
    if let Some(name) = &draft.name {
        check_name("name", name)?;
    }
    accept::environment(&draft.env, bounds)?;
    let (count, letters) = METADATA;
    let long = |(name, value): &(String, String)| name.len() > letters || value.len() > letters;
    if draft.metadata.len() > count || draft.metadata.iter().any(long) {
        let problem = format!("holds more than {count} words, or one of more than {letters} bytes");
        return Err(invalid("metadata", &problem, "Keep less with it."));
    }
    for (field, given) in [("ttl", draft.ttl), ("idle_timeout", draft.idle_timeout)] {
        if given.is_some_and(|given| given < WALL_TIME_MIN || given > bounds.session_ttl) {
            let most = bounds.session_ttl.as_secs();
            let problem = format!("is not between 1 and {most} seconds");
            return Err(invalid(
                field,
                &problem,
                "Send a number of seconds in that range.",
            ));
        }
    }
    Ok(())
}

fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let whole = !name.is_empty() && name.chars().count() <= NAME;
    if whole && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let problem = format!("is empty, longer than {NAME} characters, or holds control characters");
    Err(invalid(field, &problem, "Choose a plain name."))
}

fn invalid(field: &str, problem: &str, cure: &str) -> Invalid {
    Invalid {
        field: field.to_owned(),
        problem: problem.to_owned(),
        cure: cure.to_owned(),
    }
}
