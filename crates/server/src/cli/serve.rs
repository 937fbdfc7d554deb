//! `serve`: the start-up story from lock to drain. Nothing here starts a
//! thread before the engine has started its warden.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::data_dir::Hold;
use engine::{Engine, StartError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::instance::{Claim, Instance, Running, Told};
use super::up::{self, Installation};
use super::{Failure, port};
use crate::activity::Activity;
use crate::app::App;
use crate::artifact::Artifacts;
use crate::auth::{Scope, Token};
use crate::config::{Access, Settings, passed_over, value};
use crate::exit_code::Exit;
use crate::file_url::Fetcher;
use crate::rate::Rate;
use crate::store::{CreateError, Store};
use crate::tunnel::Bounds;
use crate::{http, output, public_url, telemetry};

mod greeting;
mod signals;
mod tunnel;

use greeting::{Greeting, Keys};
pub(super) use signals::Signals;
use tunnel::Opening;

/// How long a drain may take beyond the jobs' grace: killed runs have to be
/// put away and last answers written. A last resort; the server ends sooner.
const CLOSING: Duration = Duration::from_secs(10);
/// How often the server looks whether boxes can still be made.
const LOOK: Duration = Duration::from_secs(1);
/// How long before it ends for want of use the server says so.
const NOTICE: Duration = Duration::from_secs(60);
/// Threads that still hang in a system call after that are left behind.
pub(super) const THREADS: Duration = Duration::from_secs(1);

pub(super) fn serve(settings: Settings) -> Result<Exit, Failure> {
    crate::store::make_home(&settings.config.home)?;
    match Instance::claim(&settings.config.home)? {
        Claim::Ours(instance) => with_instance(settings, instance, None),
        Claim::Running(running) => {
            let home = settings.config.home.display();
            let told = Told {
                running: &running,
                settings: &settings,
            };
            let message = format!(
                "{told}\nOne server has one data directory: for a second one, name another than {home} with --home DIR"
            );
            Err(Failure::text(Exit::Running, message))
        }
    }
}

/// Serves until a signal, or until the sandbox breaks down, and installs the
/// packages beside it where there is an `installation` to start.
pub(super) fn with_instance(
    mut settings: Settings,
    instance: Instance,
    installation: Option<Installation>,
) -> Result<Exit, Failure> {
    telemetry::start(&settings).map_err(|message| Failure::text(Exit::Config, message))?;
    // Whoever named a file knows which one is read.
    if !settings.sources.contains_key("config")
        && let Some(notice) = passed_over(settings.file.as_deref())
    {
        output::note(&format!("warning: {notice}"));
    }
    let home = &settings.config.home;
    // One that others may write is refused when it is opened.
    if let Some(hold @ Hold::Owned { .. }) = home.metadata().ok().and_then(|one| Hold::of(&one)) {
        let (problem, cure) = (hold.problem(home), hold.cure(home));
        output::note(&format!(
            "warning: {problem}, who can read and change all that is kept there: {cure}"
        ));
    }
    let tunnel = settings.config.tunnel.bounds();
    let tunnel = tunnel.map_err(|message| Failure::text(Exit::Config, message))?;
    let listener = port::listen(&mut settings)?;
    let engine = start_engine(&settings)?;
    let _log = output::queue_errors(settings.config.log_queue)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(
        settings,
        tunnel,
        listener,
        engine,
        &instance,
        installation,
    ));
    runtime.shutdown_timeout(THREADS);
    result
}

/// Starts the engine; before this no thread may exist.
pub(super) fn start_engine(settings: &Settings) -> Result<Engine, Failure> {
    Engine::start(settings.config.engine()).map_err(|error| {
        let exit = exit_of(&error);
        let hint = match exit {
            Exit::Sandbox => "\nEach layer and its cure on this machine: codex-server doctor",
            _ => "",
        };
        let chain = anyhow::Error::new(error);
        Failure::text(exit, format!("{chain:#}{hint}"))
    })
}

/// The exit code of a server whose engine did not start.
pub(super) fn exit_of(error: &StartError) -> Exit {
    match error {
        StartError::Sandbox(_) => Exit::Sandbox,
        StartError::Manifest { .. } => Exit::Failed,
        StartError::Io { .. } => Exit::State,
    }
}

async fn run(
    settings: Settings,
    tunnel: Option<Bounds>,
    listener: TcpListener,
    engine: Engine,
    instance: &Instance,
    installation: Option<Installation>,
) -> Result<Exit, Failure> {
    let started = jiff::Timestamp::now();
    // From here on a signal ends the server in order, however early it comes.
    let mut signals = Signals::new()?;
    let store = Store::open(&settings.config.home).await?;
    let artifacts = open_artifacts(&settings)?;
    let keys = keys(&store, settings.config.access).await?;
    let tunnel = Opening::of(tunnel, &store).await?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let url = public_url::local(&settings.config);
    let greeting = Greeting {
        settings: &settings,
        support: engine.support(),
        languages: engine.languages(),
        keys,
        url: &url,
    };
    // First, so that whoever reads the address finds the note as well.
    let interpreters = up::preferred(&engine.languages());
    let note = Running::here(&url, &settings.config, interpreters, started);
    instance.announce(&note)?;
    output::text(&greeting.to_string())?;
    drop(greeting);
    // Ends with the server.
    let installing = installation.map(|installation| installation.start(&engine));
    let grace = settings.config.drain_grace;
    let patience = Patience {
        grace,
        last: grace + CLOSING,
    };
    let rate = Rate::new(settings.config.rate);
    let fetcher = Fetcher::new(settings.config.file_urls.clone());
    let idle_shutdown = settings.config.idle_shutdown;
    let app = Arc::new(App {
        engine: engine.clone(),
        artifacts,
        fetcher,
        config: settings.config,
        store,
        started,
        rate,
        tunnel: tunnel.as_ref().map(Opening::status),
        activity: Activity::default(),
        closing: CancellationToken::new(),
        installing: installing
            .as_ref()
            .map(|installing| installing.underway.clone())
            .unwrap_or_default(),
    });
    let store = app.store.clone();
    let activity = app.activity.clone();
    let stopping = CancellationToken::new();
    let tunnel = tunnel
        .map(|tunnel| tunnel.open(&app, stopping.clone()))
        .transpose()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = async {
        app.engine.keep_ready();
        let served = http::serve(listener, app, async {
            // A dropped sender stops the server as well.
            stopped.await.ok();
            stopping.cancel();
        });
        let served = served.await;
        if let Some(tunnel) = tunnel
            && let Err(error) = tunnel.await
        {
            tracing::error!(%error, "the tunnel ended");
        }
        served
    };
    let busy = || engine.load().running;
    let end = async {
        tokio::select! {
            () = broken(|| engine.healthy(), LOOK) => End::Broken,
            limit = idle(&activity, idle_shutdown, &engine) => End::Idle(limit),
        }
    };
    let exit = until_stopped(server, stop, &mut signals, end, patience, busy).await;
    store.close().await;
    drop(installing);
    exit
}

/// Takes over the files that are kept, and begins to look after them.
fn open_artifacts(settings: &Settings) -> Result<Artifacts, Failure> {
    let config = &settings.config;
    let artifacts = Artifacts::open(&config.home, config.artifacts)
        .map_err(|error| Failure::new(Exit::State, error))?;
    tokio::spawn(artifacts.clone().sweep_always());
    Ok(artifacts)
}

/// How long a stop may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// What running jobs are given.
    grace: Duration,
    /// What the whole drain is given.
    last: Duration,
}

/// Waits until the sandbox is no longer healthy; looks every `pause`.
async fn broken(healthy: impl Fn() -> bool, pause: Duration) {
    while healthy() {
        tokio::time::sleep(pause).await;
    }
}

/// Why a server ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sandbox broke down.
    Broken,
    /// Nobody has used it for so long.
    Idle(Duration),
}

/// Waits until the server was idle for as long as it may be, and says how long
/// that is; for ever where it may be idle for ever.
async fn idle(activity: &Activity, limit: Option<Duration>, engine: &Engine) -> Duration {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let busy = || {
        let load = engine.load();
        load.running + load.waiting > 0
    };
    activity.idle(limit, NOTICE.min(limit / 2), busy).await;
    limit
}

/// Runs `server` until a signal or until it `ends` by itself, then lets it
/// drain: it takes no new connections and gives running jobs their grace; a
/// signal during that ends it at once.
async fn until_stopped(
    server: impl Future<Output = io::Result<()>>,
    stop: oneshot::Sender<()>,
    signals: &mut Signals,
    ends: impl Future<Output = End>,
    patience: Patience,
    busy: impl Fn() -> usize,
) -> Result<Exit, Failure> {
    let mut server = pin!(server);
    let (why, exit) = tokio::select! {
        ended = &mut server => {
            let reason = ended.err().map_or_else(|| "it was not told to".to_owned(), |error| error.to_string());
            return Err(Failure::text(Exit::Failed, format!("the server stopped listening: {reason}")));
        }
        signal = signals.next() => (signal.to_owned(), Exit::Success),
        end = ends => match end {
            End::Broken => {
                tracing::error!(
                    cure = "start the server again, as a service unit or container with a restart policy does by itself; if it happens again, see whether the kernel's log (dmesg) says what killed `codex-server: warden`",
                    "the warden, which makes the sandboxes, is gone: no code can be run any more"
                );
                ("the sandbox broke down".to_owned(), Exit::Broken)
            }
            End::Idle(limit) => {
                let limit = value::show_duration(limit);
                (format!("not used for {limit} (idle_shutdown)"), Exit::Success)
            }
        }
    };
    let waiting = match busy() {
        0 => String::new(),
        runs => format!(
            ", waiting up to {} s for {runs} running (again to stop at once)",
            patience.grace.as_secs()
        ),
    };
    output::note(&format!("{why}: stopping{waiting}"));
    // The receiver lives in the server, which has not ended.
    stop.send(()).ok();
    tokio::select! {
        ended = tokio::time::timeout(patience.last, server) => {
            output::last_note(&match ended {
                Ok(Ok(())) => "stopped".to_owned(),
                Ok(Err(error)) => format!("stopped; the listener had failed: {error}"),
                Err(_) => "stopped; some clients had not finished reading".to_owned(),
            });
            Ok(exit)
        }
        signal = signals.next() => {
            output::last_note(&format!("{signal}: stopped at once"));
            Ok(Exit::Interrupted)
        }
    }
}

/// Makes the first token, if there never was one.
async fn keys(store: &Store, access: Access) -> Result<Keys, Failure> {
    if access == Access::Open {
        return Ok(Keys::Open);
    }
    let keys = store.keys().await?;
    if keys.is_empty() {
        return Ok(match store.create_key("default", &Scope::DEFAULT).await {
            Ok(token) => Keys::First(token),
            // Somebody was faster; theirs was shown to them.
            Err(CreateError::Taken(name)) => Keys::Known(vec![name]),
            Err(error) => return Err(Failure::new(Exit::State, error)),
        });
    }
    let live = keys.into_iter().filter(|key| key.revoked_at.is_none());
    Ok(Keys::Known(live.map(|key| key.name).collect()))
}

/// The curl line that shows whether everything works.
pub(super) fn curl_line(url: &str, token: Option<&Token>, placeholder: bool) -> String {
    let header = match token {
        Some(token) => format!(" -H \"Authorization: Bearer {}\"", token.reveal()),
        None if placeholder => " -H \"Authorization: Bearer $TOKEN\"".to_owned(),
        None => String::new(),
    };
    format!(
        "curl -sS -X POST {url}/execute{header} -H \"Content-Type: application/json\" -d '{{\"code\": \"print(2+2)\", \"language\": \"python\"}}'"
    )
}

#[cfg(test)]
mod tests;
