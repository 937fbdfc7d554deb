//! What can be seen from here of the server and its tunnel, and what is wrong.
//! Asks the server, its store and the control plane; changes nothing, and takes
//! no command out of the tunnel.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::runtime::Runtime;

use super::doctor::our_version;
use super::{Failure, health, instance, port};
use crate::config::{Settings, value};
use crate::store::Store;
use crate::tunnel::{self, Trouble};

/// The words for a tunnel in `/health`.
const STATES: [&str; 5] = ["connecting", "ready", "unreachable", "refused", "revoked"];

/// Returns the id of a running server's tunnel, if its note has a good one.
fn noted(running: &instance::Running) -> Option<String> {
    let id = running.tunnel.clone();
    id.filter(|id| tunnel::id(id).is_ok())
}

/// The server of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// None runs.
    Gone,
    /// One is starting, or does not answer yet.
    Starting,
    /// One runs without a tunnel.
    Tunnelless { pid: u32, url: String },
    /// One runs with a tunnel in this state.
    Tunnel {
        /// Its id, where the server's note has a good one.
        id: Option<String>,
        /// A word of `/health`.
        state: &'static str,
    },
}

impl Sight {
    /// Looks for the server of a data directory.
    pub(super) fn of(home: &Path) -> Self {
        let Some(running) = instance::running(home) else {
            return Self::Gone;
        };
        let answer = health::address(&running.url).and_then(port::health);
        let Some(answer) = answer.filter(|answer| our_version(answer).is_some()) else {
            return Self::Starting;
        };
        match answer.pointer("/tunnel/state").and_then(Value::as_str) {
            // Only our own words are shown: what answers there may be anybody.
            Some(state) => Self::Tunnel {
                id: noted(&running),
                state: STATES
                    .into_iter()
                    .find(|known| *known == state)
                    .unwrap_or("in an unknown state"),
            },
            None => Self::Tunnelless {
                pid: running.pid,
                url: running.url,
            },
        }
    }
}

/// Something that keeps ChatGPT away, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) what: String,
    pub(super) cure: String,
}

/// The tunnel as the settings, the running server and the control plane know it.
#[derive(Debug)]
pub(super) struct TunnelPlan {
    settings: Settings,
    /// Its id, where somebody named it.
    pub(super) id: Option<String>,
}

impl TunnelPlan {
    /// Returns the tunnel of these settings, or of the server that runs.
    pub(super) fn of(settings: &Settings) -> Self {
        let mut settings = settings.clone();
        let tunnel = &mut settings.config.tunnel;
        if tunnel.id.is_none() {
            let running = instance::running(&settings.config.home);
            tunnel.id = running.as_ref().and_then(noted);
        }
        let id = tunnel.id.clone();
        Self { settings, id }
    }

    /// Returns the data directory.
    pub(super) fn home(&self) -> &Path {
        &self.settings.config.home
    }

    /// Returns the file in which its key is looked for.
    pub(super) fn key_file(&self) -> PathBuf {
        let tunnel = &self.settings.config.tunnel;
        tunnel
            .key_file
            .clone()
            .unwrap_or_else(|| tunnel.usual_key_file.clone())
    }

    /// Returns a command line of ours about the same data directory.
    pub(super) fn command(&self, words: &str) -> String {
        self.settings.command(words)
    }

    /// Takes note of its id.
    pub(super) fn call(&mut self, id: String) {
        self.settings.config.tunnel.id = Some(id.clone());
        self.id = Some(id);
    }

    /// Returns the command that starts a server with it.
    pub(super) fn start(&self) -> String {
        let id = self.id.as_deref().unwrap_or("tunnel_…");
        let mut words = format!("up --tunnel {id}");
        if let Some(url) = &self.settings.config.tunnel.url {
            words += &format!(" --tunnel-url {}", value::quoted(url.as_str()));
        }
        self.settings.command(&words)
    }

    /// Says whether no key is given at all, as opposed to a bad one.
    pub(super) fn lacks_key(&self) -> bool {
        self.settings.config.tunnel.key.is_none() && self.key_file().symlink_metadata().is_err()
    }

    /// Returns what it takes to open it; `None` without an id.
    ///
    /// # Errors
    /// In words, when the key is missing or cannot be read.
    pub(super) fn bounds(&self) -> Result<Option<tunnel::Bounds>, String> {
        self.settings.config.tunnel.bounds()
    }

    /// Asks the control plane for it, and returns its name.
    ///
    /// # Errors
    /// In words, with what to do.
    pub(super) fn ask(&self) -> Result<String, Trouble> {
        let bounds = self.bounds().map_err(Trouble::Other)?;
        let bounds = bounds.ok_or_else(|| Trouble::Other("no tunnel is named yet".to_owned()))?;
        let runtime = runtime().map_err(|failure| Trouble::Other(failure.error.to_string()))?;
        runtime.block_on(tunnel::ask(&bounds))
    }

    /// Says whether ChatGPT gets through by this very tunnel.
    pub(super) fn is_open(&self, sight: &Sight) -> bool {
        match sight {
            Sight::Tunnel { id, state: "ready" } => {
                id.is_none() || self.id.is_none() || *id == self.id
            }
            _ => false,
        }
    }

    /// Asks as [`TunnelPlan::ask`] does, with a key that is kept nowhere yet.
    ///
    /// # Errors
    /// In words, with what to do.
    pub(super) fn ask_with(&self, key: &tunnel::Key) -> Result<String, Trouble> {
        let mut plan = Self {
            settings: self.settings.clone(),
            id: self.id.clone(),
        };
        plan.settings.config.tunnel.key = Some(Ok(key.clone()));
        plan.ask()
    }

    /// Returns what keeps ChatGPT away, given what was seen of the server.
    pub(super) fn obstacle(&self, sight: &Sight) -> Option<Obstacle> {
        let (what, cure) = match sight {
            Sight::Tunnel { id: Some(runs), .. }
                if self.id.as_ref().is_some_and(|id| id != runs) =>
            {
                (
                    format!("the server runs with another tunnel, {runs}"),
                    format!("stop it, and start it again: {}", self.start()),
                )
            }
            Sight::Tunnel { state, .. } => match *state {
                "ready" => return None,
                "connecting" => (
                    "the server has not heard from the control plane yet".to_owned(),
                    "wait half a minute; if nothing changes, see the server's log".to_owned(),
                ),
                "revoked" => (
                    "the tunnel's token was revoked, so the tunnel is closed".to_owned(),
                    "start the server again to open it anew".to_owned(),
                ),
                state => match self.bounds().map(|_| self.ask()) {
                    Ok(Err(why @ Trouble::Key(_))) => (
                        why.to_string(),
                        format!(
                            "put a new key into {}, and start the server again",
                            self.key_file().display()
                        ),
                    ),
                    Ok(Err(why)) => (why.to_string(), "the server asks again by itself".to_owned()),
                    // The server's key may be in its environment alone.
                    Err(_) => (
                        format!("the server's tunnel is {state}"),
                        "see the server's log for the reason, or GET /health with a token that has the scope admin".to_owned(),
                    ),
                    Ok(Ok(_)) => (
                        format!("the server's tunnel is {state}"),
                        "see the server's log for the reason: the key that is found here opens it"
                            .to_owned(),
                    ),
                },
            },
            Sight::Starting => (
                "the server is starting, or does not answer".to_owned(),
                "wait a moment; then see its log".to_owned(),
            ),
            Sight::Tunnelless { pid, url } => (
                format!("the server at {url} runs without a tunnel"),
                format!(
                    "stop it with `kill {pid}`, and start it again: {}",
                    self.start()
                ),
            ),
            // A server would not start with such a key.
            Sight::Gone if self.id.is_some() && self.bounds().is_err() => (
                self.bounds().err().unwrap_or_default(),
                format!("on a terminal this asks for it: {}", self.command("connect chatgpt")),
            ),
            Sight::Gone => (
                format!(
                    "no server runs with the data directory {}",
                    self.home().display()
                ),
                self.start(),
            ),
        };
        Some(Obstacle { what, cure })
    }
}

/// When the tunnel was used, as the store says.
pub(super) struct Uses {
    runtime: Runtime,
    store: Store,
}

impl Uses {
    /// Opens the store of a data directory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn of(home: &Path) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let store = runtime.block_on(Store::open(home))?;
        Ok(Self { runtime, store })
    }

    /// Returns when the tunnel was last used, in seconds since 1970.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) fn last(&self) -> Result<Option<i64>, Failure> {
        let keys = self.runtime.block_on(self.store.keys())?;
        let mut live = keys
            .into_iter()
            .filter(|key| key.revoked_at.is_none() && key.name == tunnel::TOKEN);
        Ok(live.next().and_then(|key| key.last_used_at))
    }
}

impl Drop for Uses {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
