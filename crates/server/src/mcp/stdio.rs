//! The protocol on standard input and output, for a client that started this
//! process. Nothing else may be printed there.

use std::sync::Arc;

use rmcp::ServiceExt as _;
use rmcp::service::{QuitReason, ServerInitializeError};
use rmcp::transport::stdio_pipes;

use super::{Callers, Handler};
use crate::app::App;
use crate::runs::Caller;

/// Why the protocol ended before its client did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StdioError {
    /// The client began with what is no beginning.
    #[error("the client did not begin as MCP says")]
    Begin(#[source] Box<ServerInitializeError>),
    /// Our own failure.
    #[error("the protocol's task failed")]
    Task(#[source] tokio::task::JoinError),
}

/// Serves one client, who is the caller of everything, until it closes its
/// side.
///
/// # Errors
/// When the client speaks no MCP, and our own failures.
pub(crate) async fn serve(app: &Arc<App>, caller: Caller) -> Result<(), StdioError> {
    let handler = Handler {
        app: Arc::clone(app),
        callers: Callers::One(caller),
    };
    let token = app.closing.clone();
    let running = match handler.serve_with_ct(stdio_pipes(), token).await {
        Ok(running) => running,
        // It went away, or we are told to end, before anything was said.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            return Ok(());
        }
        Err(error) => return Err(StdioError::Begin(Box::new(error))),
    };
    match running.waiting().await {
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(StdioError::Task(error)),
        Ok(_) => Ok(()),
    }
}
