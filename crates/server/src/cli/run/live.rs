//! A program's output, printed while it runs.
//!
//! On a thread of its own, since writing blocks for as long as whoever reads
//! us likes. The program waits then, as it would at a pipe; nothing is lost,
//! and nothing gathers in memory.

use std::io;
use std::time::Duration;

use engine::{Event, EventBounds, Events, Sink, Stream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::output;

/// Bytes that may wait to be printed.
const BUFFER: usize = 256 * 1024;

/// Where to send a program's output, and how its printing ended.
#[derive(Debug)]
pub(super) struct Printing {
    pub(super) sink: Sink,
    pub(super) ended: oneshot::Receiver<io::Result<()>>,
}

/// Starts to print; it ends when all holders of the sink are gone.
///
/// # Errors
/// When no thread can be started.
pub(super) fn start(runtime: Handle) -> io::Result<Printing> {
    let (sink, events) = engine::events(EventBounds {
        buffer: BUFFER,
        total: u64::MAX,
        wait: Duration::MAX,
    });
    let (sender, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("printer".to_owned())
        .spawn(move || {
            // Nobody asks after an interrupt.
            sender.send(runtime.block_on(print(events))).ok();
        })?;
    Ok(Printing { sink, ended })
}

async fn print(mut events: Events) -> io::Result<()> {
    while let Some(event) = events.next().await {
        match event {
            Event::Output { stream, bytes } => match stream {
                Stream::Stdout => output::bytes(&bytes)?,
                Stream::Stderr => output::error_bytes(&bytes)?,
            },
            Event::Dropped { stream, bytes } => output::note(&format!(
                "codex-server: {bytes} bytes of {} are missing here",
                stream.as_str()
            )),
            Event::Started(_) | Event::Truncated { .. } => {}
        }
    }
    Ok(())
}
