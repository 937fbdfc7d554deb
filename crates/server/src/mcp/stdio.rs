//! The protocol on standard input and output, for a client that started this
//! process. Nothing else may be printed there.
//!
//! rmcp reads and writes one end of a pipe; between it and the client every line
//! is looked at, since it says nothing at all to a line that is no message, and
//! mixes up two requests with one id.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::ServiceExt as _;
use rmcp::service::{QuitReason, ServerInitializeError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc::{Receiver, Sender};

use super::message::{self, NoMessage};
use super::pipes::{self, Input};
use super::{Callers, Handler};
use crate::app::App;
use crate::config::BODY_LIMIT;
use crate::runs::Caller;

/// Bytes that wait in the pipe to rmcp, and in that from it.
const PIPE_BYTES: usize = 64 * 1024;

/// How long the last lines may take to be printed.
const PRINTED: Duration = Duration::from_secs(5);

/// Why the protocol ended before its client did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StdioError {
    /// The client began with what is no beginning.
    #[error("the client did not begin as MCP says")]
    Begin(#[source] Box<ServerInitializeError>),
    /// Our own failure.
    #[error("the protocol's task failed")]
    Task(#[source] tokio::task::JoinError),
    /// No thread could be started.
    #[error("failed to start a thread for standard input or output")]
    Thread(#[source] std::io::Error),
}

/// The requests that await their answers, by the JSON of their ids. One that is
/// cancelled stays: its program may still be ending, and the protocol lets no id
/// come twice.
type Awaited = Arc<Mutex<HashSet<String>>>;

/// Serves one client, who is the caller of everything, until it closes its
/// side.
///
/// # Errors
/// When the client speaks no MCP, and our own failures.
pub(crate) async fn serve(app: &Arc<App>, caller: Caller) -> Result<(), StdioError> {
    let lines = pipes::lines().map_err(StdioError::Thread)?;
    let (out, printed) = pipes::printer().map_err(StdioError::Thread)?;
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (from_rmcp, to_rmcp) = tokio::io::split(ours);
    let awaited = Awaited::default();
    let feeding = feed(lines, to_rmcp, out.clone(), Arc::clone(&awaited));
    let feeding = tokio::spawn(feeding);
    let printing = tokio::spawn(print(from_rmcp, out, awaited));
    let ended = tokio::select! {
        ended = answer(app, caller, theirs) => ended,
        // Nobody reads what is answered.
        () = printed.cancelled() => Ok(()),
    };
    // rmcp's end is gone: what it wrote before is printed.
    feeding.abort();
    let last = async {
        let stopped = printing.await;
        printed.cancelled().await;
        stopped
    };
    match tokio::time::timeout(PRINTED, last).await {
        Err(_) => tracing::warn!("nobody reads standard output; the last answers are lost"),
        Ok(stopped) => stopped.map_err(StdioError::Task)?,
    }
    ended
}

/// Lets rmcp answer what comes through a pipe, until it is closed.
async fn answer(app: &Arc<App>, caller: Caller, pipe: DuplexStream) -> Result<(), StdioError> {
    let handler = Handler::new(app, Callers::One(caller));
    let token = app.closing.clone();
    let running = match handler.serve_with_ct(tokio::io::split(pipe), token).await {
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

/// Hands the client's messages on, and answers what is none.
async fn feed(
    mut lines: Receiver<Input>,
    mut to_rmcp: WriteHalf<DuplexStream>,
    out: Sender<String>,
    awaited: Awaited,
) {
    while let Some(input) = lines.recv().await {
        let refused = match take(input, &awaited) {
            Ok(mut line) => {
                line.push(b'\n');
                // Whoever closed the pipe ends everything.
                if to_rmcp.write_all(&line).await.is_err() {
                    return;
                }
                continue;
            }
            Err(refused) => refused,
        };
        if out.send(refused.answer().to_string()).await.is_err() {
            return;
        }
    }
    // The client's end is rmcp's end, too.
    if let Err(error) = to_rmcp.shutdown().await {
        tracing::debug!(%error, "the protocol had ended already");
    }
}

/// Returns a line that is a message, and notes the answer that it awaits.
fn take(input: Input, awaited: &Awaited) -> Result<Vec<u8>, NoMessage> {
    let Input::Line(line) = input else {
        return Err(NoMessage::invalid(&format!(
            "a line is longer than {BODY_LIMIT} bytes; send less at once"
        )));
    };
    let head = message::head(&line)?;
    if let (Some(id), true) = (&head.id, head.method.is_some()) {
        let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
        if !awaited.insert(id.to_string()) {
            return Err(NoMessage::in_flight(id));
        }
    }
    Ok(line)
}

/// The part of a message that says which request it answers.
#[derive(Deserialize)]
struct Answered {
    id: Option<Value>,
    method: Option<IgnoredAny>,
}

/// Prints what rmcp says, line by line, to its end.
async fn print(from_rmcp: ReadHalf<DuplexStream>, out: Sender<String>, awaited: Awaited) {
    let mut lines = BufReader::new(from_rmcp).lines();
    loop {
        let line = match lines.next_line().await {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "failed to read what the protocol says");
                return;
            }
        };
        if let Ok(Answered {
            id: Some(id),
            method: None,
        }) = serde_json::from_str(&line)
        {
            let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
            awaited.remove(&id.to_string());
        }
        if out.send(line).await.is_err() {
            return;
        }
    }
}
