//! A server of this process alone, for a REPL where no other is at hand: the same
//! API on a port of the loopback that the system chooses, and a key for it that
//! lives in memory and that nobody else learns. It ends with the process, and its
//! session with it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::link::Link;
use crate::app::App;
use crate::auth::Scope;
use crate::cli::peer::Server;
use crate::cli::serve::{THREADS, start_engine};
use crate::cli::{Failure, mcp};
use crate::config::{Access, Settings};
use crate::exit_code::Exit;
use crate::store::Store;
use crate::{http, telemetry};

/// What the key is called in the log.
const KEY: &str = "repl";

/// A server in this process.
pub(super) struct Own {
    app: Arc<App>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Own {
    /// Starts one, with a link to it. Before this no thread may exist.
    ///
    /// # Errors
    /// When no sandbox can be set up, or the data directory cannot be used.
    pub(super) fn start(mut settings: Settings) -> Result<(Self, Link), Failure> {
        if !settings.sources.contains_key("log_level") {
            "warn".clone_into(&mut settings.log_level);
        }
        telemetry::start(&settings).map_err(|message| Failure::text(Exit::Config, message))?;
        crate::store::make_home(&settings.config.home)?;
        // Whoever leaves waits for nothing.
        settings.config.drain_grace = Duration::ZERO;
        let engine = start_engine(&settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let (own, server) = runtime.block_on(Self::serve(settings, &engine))?;
        Ok((own, Link::new(server, runtime)?))
    }

    async fn serve(settings: Settings, engine: &Engine) -> Result<(Self, Server), Failure> {
        let store = Store::in_memory().await?;
        let key = store.create_key(KEY, &Scope::DEFAULT).await;
        let key = key.map_err(|error| Failure::new(Exit::Failed, error))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Arc::new(mcp::app(settings, engine, Access::Token, store)?);
        tokio::spawn(app.artifacts.clone().sweep_always());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = http::serve(listener, Arc::clone(&app), async {
            // A dropped sender stops the server as well.
            stopped.await.ok();
        });
        let own = Self {
            app: Arc::clone(&app),
            stop,
            served: tokio::spawn(serving),
        };
        let server = Server::new(url, Some(key.reveal()), "codex-server-repl")?;
        Ok((own, server))
    }

    /// Ends it, and all that runs in it.
    pub(super) fn end(self, link: Link) {
        // It may have ended already.
        self.stop.send(()).ok();
        link.runtime.block_on(async {
            match self.served.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the server of the REPL ended"),
                Err(error) => tracing::warn!(%error, "the server of the REPL broke down"),
            }
            self.app.store.close().await;
            let artifacts = self.app.artifacts.clone();
            // Nobody can read them any more.
            if let Err(error) = tokio::task::spawn_blocking(move || artifacts.clear()).await {
                tracing::warn!(%error, "failed to remove the files of the REPL");
            }
        });
        link.runtime.shutdown_timeout(THREADS);
    }
}
