//! `mcp --url`: hands the messages of a client that speaks only standard input
//! and output to a server over HTTP, and prints what comes back. Starts no
//! engine and uses no data directory. The token goes to the named server only,
//! and nowhere into what is printed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Failure;
use crate::cli::peer::{self, Server};
use crate::cli::serve::{Signals, THREADS};
use crate::config::{Env, Flags};
use crate::exit_code::Exit;
use crate::mcp::pipes::{self, Input, remark};

mod exchange;
mod message;
mod relay;
mod session;

use relay::Relay;

/// How long calls may go on after the client closed its side: longer than a
/// server lets a call take, unless set otherwise there.
const FINISH: Duration = Duration::from_secs(60);
/// How long the last lines may take to be printed.
const PRINTED: Duration = Duration::from_secs(5);

/// Returns the server at the address that `--url` gives, which may end in `/mcp`.
///
/// # Errors
/// When the address is none, when somebody on the way could read what is sent,
/// when settings of this machine stand beside it, or when the token is for
/// another server.
pub(super) fn named(url: &str, flags: &Flags, env: &Env) -> Result<Server, Failure> {
    let usage = |message: String| Failure::text(Exit::Usage, message);
    let url = peer::address("--url", url)?;
    let url = url
        .strip_suffix("/mcp")
        // A host may be called mcp.
        .filter(|base| base.matches('/').count() >= 2)
        .map_or_else(|| url.clone(), str::to_owned);
    peer::refuse_settings(flags, &url)?;
    let token = env.get("CODEX_TOKEN");
    if token.is_some() && !peer::owns_token(&url, env) {
        return Err(usage(format!(
            "CODEX_TOKEN is that of CODEX_URL and is not sent to {url}; unset CODEX_URL, or set it to the same address"
        )));
    }
    let server = Server::new(url, token, "codex-server-mcp")?;
    if server.is_unprotected() {
        return Err(usage(format!(
            "--url: {} is plain http: anybody on the way could read token, programs and results. Give https://, or lead a port of this machine there, as in: ssh -L 8000:127.0.0.1:8000 HOST, and --url http://127.0.0.1:8000",
            server.url
        )));
    }
    Ok(server)
}

/// Relays until the client closes its input or its output, or a signal comes.
pub(super) fn forward(server: Server) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(server));
    runtime.shutdown_timeout(THREADS);
    result
}

async fn serve(server: Server) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let client = server.client()?;
    let lines = pipes::lines()?;
    let (out, printed) = pipes::printer()?;
    let relay = Arc::new(Relay::new(server, client, out));
    let mut calls = JoinSet::new();
    let exit = tokio::select! {
        () = take_all(&relay, lines, &mut calls) => Exit::Success,
        // Nobody reads the answers.
        () = printed.cancelled() => Exit::Success,
        _ = signals.next() => Exit::Interrupted,
    };
    calls.shutdown().await;
    relay.end_session().await;
    // With it the printer's last sender goes.
    drop(relay);
    if timeout(PRINTED, printed.cancelled()).await.is_err() {
        remark("nobody reads standard output; the last answers are lost");
    }
    Ok(exit)
}

/// Takes every line, then waits for the calls in flight, but not for ever.
async fn take_all(relay: &Arc<Relay>, mut lines: Receiver<Input>, calls: &mut JoinSet<()>) {
    while let Some(line) = lines.recv().await {
        relay.take(line, calls).await;
        while calls.try_join_next().is_some() {}
    }
    let all = async { while calls.join_next().await.is_some() {} };
    if timeout(FINISH, all).await.is_err() {
        calls.shutdown().await;
        let words = format!(
            "it did not end within {} s after standard input was closed; keep that open for as long as answers are wanted",
            FINISH.as_secs()
        );
        relay.give_up(&words).await;
    }
}

/// Makes the headers of any message, for a fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn headers_of(line: &[u8]) {
    let message = message::Message::read(line.to_vec()).expect("its head was read");
    drop(message.headers());
}

#[cfg(test)]
mod tests;
