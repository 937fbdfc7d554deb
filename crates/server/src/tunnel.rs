//! OpenAI's Secure MCP Tunnel: commands that this server asks for itself, so
//! that ChatGPT reaches it without a public port. Hands them to
//! [`mcp`](crate::mcp) as a caller of its own; believes nothing that a command
//! says about who calls.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use engine::FairPlaces;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::Principal;
use crate::mcp::Endpoint;
use crate::store::StoreError;
use crate::telemetry::chain;

mod command;
mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod key;
mod patience;
mod plane;
mod status;
mod work;

pub use config::{Bounds, DEFAULT_URL, Wanted, control_plane, id};
pub use key::Key;
pub use status::{Condition, Status};

use self::plane::{Failed, Plane};
use patience::Backoff;
use status::{CommandEnd, Outcome};
use work::Worker;

/// The name of the token that stands for all who come by the tunnel.
pub const TOKEN: &str = "tunnel";

/// Where its key is in the data directory, unless a setting names another place.
pub const KEY_FILE: &str = "tunnel.key";

/// Commands that are done at once (OpenAI's own client: the same), shared by the
/// members of a workspace; and commands that are held before no more is asked for.
pub(crate) const AT_ONCE: usize = 10;
pub(crate) const HELD: usize = 100;

/// How long a poll is held open when there are no commands (OpenAI's own
/// client: the same), and one that is to show whether the tunnel works.
const POLL: Duration = Duration::from_secs(30);
const TRIAL: Duration = Duration::from_secs(1);

/// The pause after a refusal, which only the operator can mend.
const REFUSED: Duration = Duration::from_secs(30);

/// A tunnel that is open.
#[derive(Debug)]
pub(crate) struct Tunnel {
    worker: Arc<Worker>,
    /// Ends what the endpoint still does. Not the server's own, which comes with
    /// the end of the last run, when its answer is not posted yet.
    closing: CancellationToken,
}

/// What is remembered from one question for commands to the next.
#[derive(Debug, Default)]
struct Asking {
    backoff: Backoff,
    /// Whether the control plane has told the tunnel's name.
    greeted: bool,
}

/// What came of a question for commands.
enum Asked {
    /// Commands, and the moment from which their time counts.
    Commands(Vec<serde_json::Value>, Instant),
    /// No answer.
    Nothing,
    /// The tunnel's token was revoked: nothing is to be asked any more.
    Revoked,
}

impl Tunnel {
    /// Makes the tunnel of a server; nothing is sent yet.
    ///
    /// # Errors
    /// When TLS cannot be prepared.
    pub(crate) fn new(
        app: &Arc<App>,
        bounds: &Bounds,
        principal: Principal,
        status: Status,
    ) -> Result<Self, String> {
        let organization = bounds.organization.as_deref();
        let plane = Plane::new(&bounds.url, &bounds.id, organization, &bounds.key)?;
        let closing = CancellationToken::new();
        Ok(Self {
            worker: Arc::new(Worker {
                app: Arc::clone(app),
                endpoint: Endpoint::new(app, closing.clone()),
                plane,
                principal,
                status,
            }),
            closing,
        })
    }

    /// Asks for commands and does them until `stopping`; then finishes what it
    /// has, since no command is handed out twice.
    pub(crate) async fn serve(self, stopping: CancellationToken) {
        let mut tasks = JoinSet::new();
        let places = FairPlaces::new(AT_ONCE, usize::MAX);
        let mut asking = Asking::default();
        loop {
            let asked = tokio::select! {
                asked = self.ask(&mut asking, &mut tasks) => asked,
                () = stopping.cancelled() => break,
            };
            // Outside of `select!`: what has come is begun, however soon the stop is.
            match asked {
                Asked::Commands(commands, received) => {
                    for value in commands {
                        // A poll may bring more than was asked for.
                        while tasks.len() >= HELD {
                            tasks.join_next().await;
                        }
                        self.begin(value, received, &mut tasks, &places).await;
                    }
                }
                Asked::Nothing => {}
                Asked::Revoked => break,
            }
        }
        while tasks.join_next().await.is_some() {}
        self.closing.cancel();
    }

    /// Asks once for commands, when there is room for them; after a failure it
    /// waits before it returns.
    async fn ask(&self, asking: &mut Asking, tasks: &mut JoinSet<()>) -> Asked {
        while tasks.try_join_next().is_some() {}
        while tasks.len() >= HELD {
            tasks.join_next().await;
        }
        let Worker { plane, status, .. } = &*self.worker;
        match self.is_live().await {
            Ok(true) => {}
            Ok(false) => {
                status.set(Condition::Revoked);
                tracing::warn!(
                    "closed the tunnel: its token was revoked; start the server again to open it anew"
                );
                return Asked::Revoked;
            }
            // Whoever cannot be checked is not served.
            Err(error) => {
                let words = format!("the tunnel's token cannot be looked up: {}", chain(&error));
                status.set(Condition::Unreachable(words));
                tokio::time::sleep(asking.backoff.next(None)).await;
                return Asked::Nothing;
            }
        }
        if !asking.greeted {
            match plane.record().await {
                Ok(name) => {
                    tracing::info!(name, "the control plane knows this tunnel");
                    asking.greeted = true;
                }
                Err(failed) => {
                    tokio::time::sleep(self.pause(&mut asking.backoff, failed)).await;
                    return Asked::Nothing;
                }
            }
        }
        // Whoever connects waits to see that it is open.
        let is_open = status.get() == Condition::Ready;
        let held = if is_open { POLL } else { TRIAL };
        match plane.poll(HELD - tasks.len(), held).await {
            Ok((commands, received)) => {
                status.polled(Outcome::Good);
                asking.backoff.reset();
                if status.set(Condition::Ready) {
                    tracing::info!("the tunnel is open: ChatGPT reaches this server");
                }
                Asked::Commands(commands, received)
            }
            Err(failed) => {
                status.polled(failed.outcome());
                tokio::time::sleep(self.pause(&mut asking.backoff, failed)).await;
                Asked::Nothing
            }
        }
    }

    /// Begins one command of a poll.
    async fn begin(
        &self,
        value: serde_json::Value,
        received: Instant,
        tasks: &mut JoinSet<()>,
        places: &FairPlaces,
    ) {
        let command = match command::read(value) {
            Ok(command) => command,
            Err(why) => {
                tracing::warn!(why, "dropped a tunnel's command");
                self.worker.status.ended(CommandEnd::Unreadable);
                return;
            }
        };
        let deadline = received + command.timeout.unwrap_or(work::LONGEST).min(work::LONGEST);
        if deadline <= Instant::now() {
            self.worker.expired("its time was over before it began");
            return;
        }
        if !self.is_live().await.unwrap_or(false) {
            tracing::warn!(
                "dropped a tunnel's command: its token was revoked, or cannot be looked up"
            );
            self.worker.status.ended(CommandEnd::Undelivered);
            return;
        }
        self.note_use().await;
        let (worker, places) = (Arc::clone(&self.worker), places.clone());
        tasks.spawn(async move {
            let owner = worker.caller(&command).principal.id;
            let patience = deadline.saturating_duration_since(Instant::now());
            let Ok(_place) = places.enter(&owner, patience).await else {
                worker.expired("its time was over before it began");
                return;
            };
            worker.status.waited(received.elapsed());
            worker.work(command, deadline).await;
        });
    }

    /// Notes that the tunnel is used, as for every token.
    async fn note_use(&self) {
        let principal = &self.worker.principal;
        if let Err(error) = self.worker.app.store.note_use(principal.key()).await {
            // A full disk must not lock everybody out.
            tracing::warn!(error = %chain(&error), "failed to note the use of the tunnel");
        }
    }

    /// Says whether the tunnel's token is good.
    async fn is_live(&self) -> Result<bool, StoreError> {
        let principal = &self.worker.principal;
        let live = self.worker.app.store.is_live(principal.key()).await;
        live.inspect_err(|error| {
            tracing::error!(error = %chain(error), "failed to look whether the tunnel's token was revoked");
        })
    }

    /// Notes a failure, and returns how long to wait.
    fn pause(&self, backoff: &mut Backoff, failed: Failed) -> Duration {
        match failed {
            Failed::Later { after, why } => {
                let words = format!(
                    "the tunnel's control plane cannot be used now, and is asked again: {why}"
                );
                if self.worker.status.set(Condition::Unreachable(words)) {
                    tracing::warn!(
                        why,
                        "the tunnel's control plane cannot be used now; it is asked again"
                    );
                }
                backoff.next(after)
            }
            Failed::Refused { status, code } => {
                let words = sentence(status, &code);
                if self.worker.status.set(Condition::Refused(words.clone())) {
                    tracing::error!(status = status.as_u16(), code, "{words}");
                }
                REFUSED
            }
        }
    }
}

/// Codes of the control plane about the owner of a good key.
const OF_OWNERS: [&str; 3] = [
    "tunnel_active_organization_required",
    "tunnel_use_forbidden",
    "tunnel_missing_principals",
];

/// Asks the control plane for a tunnel, as the server does when it opens it, and
/// returns the tunnel's name. Takes no command.
///
/// # Errors
/// See [`Trouble`].
pub async fn ask(bounds: &Bounds) -> Result<String, Trouble> {
    let organization = bounds.organization.as_deref();
    let plane = Plane::new(&bounds.url, &bounds.id, organization, &bounds.key);
    let plane = plane.map_err(Trouble::Other)?;
    plane.record().await.map_err(|failed| match failed {
        Failed::Refused { status, code } => trouble(status, &code),
        Failed::Later { why, .. } => Trouble::Other(format!(
            "the tunnel's control plane {} cannot be used now: {why}",
            bounds.url
        )),
    })
}

/// Returns what a refusal is about.
fn trouble(status: StatusCode, code: &str) -> Trouble {
    let words = sentence(status, code);
    match status {
        // The key is good there, and its owner may not.
        _ if OF_OWNERS.contains(&code) => Trouble::Other(words),
        StatusCode::UNAUTHORIZED => Trouble::Key(words),
        StatusCode::NOT_FOUND => Trouble::Id(words),
        _ => Trouble::Other(words),
    }
}

/// What keeps a tunnel from being opened, in words and with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The control plane does not know the key.
    #[error("{0}")]
    Key(String),
    /// The control plane does not know the tunnel.
    #[error("{0}")]
    Id(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Returns what the operator should do about a refusal.
fn sentence(status: StatusCode, code: &str) -> String {
    match (status, code) {
        (_, "tunnel_active_organization_required") => {
            "the tunnel is refused: name the organization that it belongs to in tunnel_organization (org-…)".to_owned()
        }
        (_, "tunnel_use_forbidden" | "tunnel_missing_principals") => {
            "the tunnel is refused: the key's owner needs the roles Tunnels Read and Use, in the organization and workspace that the tunnel is attached to; a change of roles takes up to 30 minutes".to_owned()
        }
        (StatusCode::UNAUTHORIZED, _) => {
            "the tunnel is refused: its key is wrong or has been revoked; give a restricted key with Tunnels Read and Use in CODEX_TUNNEL_KEY or tunnel_key_file".to_owned()
        }
        (StatusCode::FORBIDDEN, _) => {
            "the tunnel is refused: the key may not use it; its owner needs the roles Tunnels Read and Use, and a change of roles takes up to 30 minutes".to_owned()
        }
        (StatusCode::NOT_FOUND, _) => {
            "the tunnel is not known to the control plane: compare its id with the console's".to_owned()
        }
        (status, code) => format!(
            "the control plane answered {} {code}; see whether tunnel and tunnel_url are right",
            status.as_u16()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_their_cure() {
        for (status, code, words) in [
            (
                401,
                "tunnel_active_organization_required",
                "tunnel_organization",
            ),
            (403, "tunnel_use_forbidden", "up to 30 minutes"),
            (401, "tunnel_missing_principals", "Tunnels Read and Use"),
            (401, "", "CODEX_TUNNEL_KEY"),
            (403, "other", "up to 30 minutes"),
            (404, "", "compare its id"),
            (302, "", "302"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let told = sentence(status, code);
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_wrong_key_is_told_from_its_owner_s_lack() {
        type Kind = fn(String) -> Trouble;
        for (status, code, kind) in [
            (401, "", Trouble::Key as Kind),
            (401, "invalid_api_key", Trouble::Key),
            (401, "tunnel_missing_principals", Trouble::Other),
            (403, "tunnel_use_forbidden", Trouble::Other),
            (404, "", Trouble::Id),
            (302, "", Trouble::Other),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let found = trouble(status, code);
            assert_eq!(found, kind(found.to_string()), "{status} {code}");
        }
    }
}
