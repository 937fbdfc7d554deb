//! What a handler knows of its request besides the body: who sent it, at
//! which address, and where to note what became of it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use super::access_log::Note;
use super::connection::Connection;
use super::frame::{Arrived, RequestId};
use super::state::Shared;
use super::stream::Socket;
use crate::api::Problem;
use crate::auth::Principal;
use crate::public_url::of_request;
use crate::runs::{Caller, ClientLimits};

/// The context of a request that the gate let in.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// When its headers had arrived.
    pub(super) arrived: Instant,
    /// Finds it in the log.
    pub(super) request_id: String,
    /// Its connection, to see when the client goes away.
    pub(super) socket: Arc<Socket>,
    principal: Principal,
    base_url: String,
    note: Note,
}

impl Context {
    /// Returns the caller, with the limits of its client.
    pub(super) fn caller(&self, client: ClientLimits) -> Caller {
        Caller {
            principal: self.principal.clone(),
            base_url: self.base_url.clone(),
            client,
        }
    }

    /// Notes in the access log how the run ended.
    pub(super) fn note_run(&self, status: &str) {
        self.note.run(status);
    }
}

impl FromRequestParts<Arc<Shared>> for Context {
    type Rejection = Problem;

    /// Fails only where a route stands outside the layers that every route has.
    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let context = of_parts(parts, shared);
        context.ok_or_else(|| {
            tracing::error!("a request reached its handler around the gate");
            Problem::internal()
        })
    }
}

fn of_parts(parts: &Parts, shared: &Shared) -> Option<Context> {
    let known = &parts.extensions;
    let ConnectInfo(connection) = known.get::<ConnectInfo<Connection>>()?;
    Some(Context {
        arrived: known.get::<Arrived>()?.0,
        request_id: known.get::<RequestId>()?.0.clone(),
        socket: Arc::clone(known.get()?),
        principal: known.get::<Principal>()?.clone(),
        base_url: of_request(&shared.app.config, connection.peer.ip(), &parts.headers),
        note: known.get::<Note>()?.clone(),
    })
}
