//! The tunnel of a server that starts: who calls by it, and its opening. What
//! goes through it is [`tunnel`](crate::tunnel)'s.

use std::sync::Arc;

use engine::Owner;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::{Principal, Scope};
use crate::cli::Failure;
use crate::exit_code::Exit;
use crate::store::{CreateError, Store};
use crate::tunnel::{Bounds, Status, TOKEN, Tunnel};

/// What the tunnel's caller may do.
const SCOPES: [Scope; 4] = [Scope::Execute, Scope::Sessions, Scope::Files, Scope::Jobs];

/// A tunnel that is about to be opened.
pub(super) struct Opening {
    bounds: Bounds,
    principal: Principal,
    status: Status,
}

impl Opening {
    /// Returns what it takes to open a tunnel, if one is wanted.
    pub(super) async fn of(bounds: Option<Bounds>, store: &Store) -> Result<Option<Self>, Failure> {
        let Some(bounds) = bounds else {
            return Ok(None);
        };
        let principal = principal(store).await?;
        let status = Status::new(&bounds.id);
        Ok(Some(Self {
            bounds,
            principal,
            status,
        }))
    }

    /// Returns the state of the tunnel, for all who tell of it.
    pub(super) fn status(&self) -> Status {
        self.status.clone()
    }

    /// Opens the tunnel; the task ends some time after `stopping`.
    pub(super) fn open(
        self,
        app: &Arc<App>,
        stopping: CancellationToken,
    ) -> Result<JoinHandle<()>, Failure> {
        let tunnel = Tunnel::new(app, &self.bounds, self.principal, self.status);
        let tunnel = tunnel.map_err(|message| Failure::text(Exit::Failed, message))?;
        Ok(tokio::spawn(tunnel.serve(stopping)))
    }
}

/// Returns the tunnel's caller, who has a token of that name that nobody
/// knows: revoking it closes the tunnel.
async fn principal(store: &Store) -> Result<Principal, Failure> {
    loop {
        let keys = store.keys().await?;
        let mut live = keys.into_iter().filter(|key| key.revoked_at.is_none());
        if let Some(key) = live.find(|key| key.name == TOKEN) {
            let may = |scope: &Scope| key.scopes.contains(scope);
            return Ok(Principal {
                id: Owner::new(&key.id),
                name: key.name,
                scopes: SCOPES.into_iter().filter(may).collect(),
            });
        }
        match store.create_key(TOKEN, &SCOPES).await {
            // Who was faster made it; it is found now.
            Ok(_) | Err(CreateError::Taken(_)) => {}
            Err(error) => return Err(Failure::new(Exit::State, error)),
        }
    }
}
