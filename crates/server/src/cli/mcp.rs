//! `mcp`: the Model Context Protocol on standard input and output, with an
//! engine of this process. It may run beside a server on the same data
//! directory, and listens on no port. With `--url` a server elsewhere answers,
//! and nothing is run here.

use std::sync::Arc;

use clap::{Args, ValueHint};
use engine::Engine;
use tokio_util::sync::CancellationToken;

use super::serve::{Signals, THREADS, start_engine};
use super::{EngineFlags, Failure, settings};
use crate::activity::Activity;
use crate::app::App;
use crate::artifact::Artifacts;
use crate::auth::Principal;
use crate::config::{Access, Env, RateLimit, Settings};
use crate::exit_code::Exit;
use crate::file_url::Fetcher;
use crate::provision::Underway;
use crate::rate::Rate;
use crate::runs::{Caller, ClientLimits};
use crate::store::Store;
use crate::{mcp as protocol, output, telemetry};

mod forward;

#[cfg(any(test, fuzzing))]
pub(crate) use forward::headers_of;

const AFTER_HELP: &str = "\
A client starts it, as in: claude mcp add codex -- codex-server mcp
It needs no token and no server, and ends when its client does.
Packages are those of the data directory: codex-server up installs them.

With --url it runs nothing here, and hands every message to a server over HTTP,
for clients that speak only standard input and output. The token comes from the
variable CODEX_TOKEN, as in:
  claude mcp add codex --env CODEX_TOKEN=… -- codex-server mcp --url https://host";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct McpArgs {
    /// Let the server at this address answer: https, or http on this machine; empty is as if left out
    #[arg(long, value_name = "URL", help_heading = "Server", value_hint = ValueHint::Url)]
    url: Option<String>,
    #[command(flatten)]
    flags: EngineFlags,
}

pub(super) fn mcp(args: &McpArgs, env: &Env) -> Result<Exit, Failure> {
    // Bundles pass on a field that people may leave empty.
    if let Some(url) = args.url.as_ref().filter(|url| !url.is_empty()) {
        return forward::forward(forward::named(url, &args.flags.0, env)?);
    }
    let mut settings = settings(&args.flags, env)?;
    if !settings.sources.contains_key("log_level") {
        "warn".clone_into(&mut settings.log_level);
    }
    telemetry::start(&settings).map_err(|message| Failure::text(Exit::Config, message))?;
    crate::store::make_home(&settings.config.home)?;
    let engine = start_engine(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(settings, &engine));
    // A terminal's line may never come; nobody waits for it.
    runtime.shutdown_timeout(THREADS);
    result
}

async fn serve(settings: Settings, engine: &Engine) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let store = Store::open(&settings.config.home).await?;
    let app = Arc::new(app(settings, engine, Access::Open, store)?);
    tokio::spawn(app.artifacts.clone().sweep_always());
    if output::is_terminal() {
        output::note(
            "codex-server mcp speaks JSON-RPC on standard input and output: let an MCP client start it, or end it with Ctrl-D",
        );
    }
    let caller = Caller {
        principal: Principal::local(),
        // No address leads here, so links are given to nobody.
        base_url: String::new(),
        client: ClientLimits::default(),
    };
    let ended = tokio::select! {
        ended = protocol::serve(&app, caller) => ended.map(|()| Exit::Success),
        _ = signals.next() => Ok(Exit::Interrupted),
    };
    app.closing.cancel();
    engine.drain(std::time::Duration::ZERO).await;
    app.store.close().await;
    let artifacts = app.artifacts.clone();
    // Nobody can read them any more.
    let cleared = tokio::task::spawn_blocking(move || artifacts.clear()).await;
    cleared.map_err(|error| Failure::new(Exit::Failed, error))?;
    ended.map_err(|error| Failure::new(Exit::Failed, error))
}

/// Makes what front doors share, for a door of this process alone: whoever
/// started it is let in as often as they like.
pub(in crate::cli) fn app(
    settings: Settings,
    engine: &Engine,
    access: Access,
    store: Store,
) -> Result<App, Failure> {
    let mut config = settings.config;
    config.access = access;
    config.public_url = None;
    config.rate = RateLimit::OFF;
    let artifacts = Artifacts::open_beside(&config.home, config.artifacts)
        .map_err(|error| Failure::new(Exit::State, error))?;
    Ok(App {
        engine: engine.clone(),
        artifacts,
        fetcher: Fetcher::new(config.file_urls.clone()),
        rate: Rate::new(config.rate),
        config,
        store,
        started: jiff::Timestamp::now(),
        tunnel: None,
        activity: Activity::default(),
        closing: CancellationToken::new(),
        installing: Underway::default(),
    })
}
