//! A program's output, printed while it runs.
//!
//! On a thread of its own, since writing blocks for as long as whoever reads
//! us likes. A program on this machine waits then, as it would at a pipe; a
//! server's output gathers here, up to a bound, so that the server does not
//! take us for gone. Nothing is lost either way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::{Event, EventBounds, Events, Sink, Stream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::output::terminal::Tamer;
use crate::output::{self, terminal};

/// Bytes of a program on this machine that may wait to be printed.
const BUFFER: usize = 256 * 1024;
/// Bytes of a server that may: more than a server streams by default.
const FAR_BUFFER: usize = 64 * 1024 * 1024;

/// What a terminal is told before and after red text.
const RED: &[u8] = b"\x1b[31m";
const PLAIN: &[u8] = b"\x1b[0m";

/// Writes to both streams: as the bytes are, but tamed where a terminal reads.
#[derive(Debug)]
pub(in crate::cli) struct Printer {
    stdout: Option<Tamer>,
    stderr: Option<Tamer>,
    /// Whether what goes to standard error is red there.
    red: bool,
}

/// How a program's output is printed where a terminal reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Printing {
    /// All that comes, as it is.
    Raw,
    /// Tamed.
    Tame,
    /// Tamed, and standard error in red.
    RedErrors,
}

impl Printing {
    pub(in crate::cli) fn of(raw: bool) -> Self {
        if raw { Self::Raw } else { Self::Tame }
    }
}

impl Printer {
    pub(in crate::cli) fn new(printing: Printing) -> Self {
        let tame = printing != Printing::Raw;
        let tamer = |read_by_person: bool| (read_by_person && tame).then(Tamer::default);
        Self {
            stdout: tamer(output::is_terminal()),
            stderr: tamer(output::errors_are_terminal()),
            red: printing == Printing::RedErrors && output::errors_are_terminal(),
        }
    }

    pub(in crate::cli) fn print(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let red = self.red && stream == Stream::Stderr;
        match self.tamer(stream) {
            Some(tamer) if red => {
                let tame = tamer.push(bytes);
                if tame.is_empty() {
                    return Ok(());
                }
                write(stream, &[RED, tame.as_slice(), PLAIN].concat())
            }
            Some(tamer) => {
                let tame = tamer.push(bytes);
                write(stream, &tame)
            }
            None => write(stream, bytes),
        }
    }

    /// Nothing follows.
    pub(in crate::cli) fn finish(mut self) -> io::Result<()> {
        for stream in Stream::ALL {
            if let Some(tamer) = self.tamer(stream) {
                let rest = tamer.finish();
                write(stream, &rest)?;
            }
        }
        Ok(())
    }

    fn tamer(&mut self, stream: Stream) -> Option<&mut Tamer> {
        match stream {
            Stream::Stdout => self.stdout.as_mut(),
            Stream::Stderr => self.stderr.as_mut(),
        }
    }
}

fn write(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Stdout => output::bytes(bytes),
        Stream::Stderr => output::error_bytes(bytes),
    }
}

/// Says something of our own, which may quote others.
pub(in crate::cli) fn remark(text: &str) {
    output::note(&format!("codex-server: {}", terminal::printable(text)));
}

/// How printing ended; nothing comes when the thread panicked, which says so itself.
pub(super) type Printed = oneshot::Receiver<io::Result<()>>;

/// Prints what a program on this machine writes; it ends when all holders of
/// the sink are gone.
///
/// # Errors
/// When no thread can be started.
pub(super) fn near(runtime: Handle, printer: Printer) -> io::Result<(Sink, Printed)> {
    let (sink, events) = engine::events(EventBounds {
        buffer: BUFFER,
        total: u64::MAX,
        wait: Duration::MAX,
    });
    let printed = spawn(move || runtime.block_on(follow(events, printer)))?;
    Ok((sink, printed))
}

async fn follow(mut events: Events, mut printer: Printer) -> io::Result<()> {
    while let Some(event) = events.next().await {
        match event {
            Event::Output { stream, bytes } => printer.print(stream, &bytes)?,
            Event::Dropped { stream, bytes } => remark(&missing(stream.as_str(), bytes)),
            Event::Started(_) | Event::Result(_) | Event::Truncated { .. } => {}
        }
    }
    printer.finish()
}

/// What is said where output is missing.
pub(super) fn missing(stream: &str, bytes: u64) -> String {
    format!("{bytes} bytes of {stream} are missing here")
}

/// Something to print that a server sent.
#[derive(Debug)]
enum Piece {
    Output(Stream, String),
    Remark(String),
}

impl Piece {
    /// How much room it takes: even an empty one takes some.
    fn room(&self) -> usize {
        let (Self::Output(_, text) | Self::Remark(text)) = self;
        (text.len() + size_of::<Self>()).min(FAR_BUFFER)
    }
}

/// Where to put what a server sends.
#[derive(Debug)]
pub(super) struct Feed {
    pieces: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
}

impl Feed {
    /// Prints text; waits while too much is waiting already.
    pub(super) async fn output(&self, stream: Stream, text: String) {
        self.send(Piece::Output(stream, text)).await;
    }

    /// Says something in its place between the output.
    pub(super) async fn remark(&self, text: String) {
        self.send(Piece::Remark(text)).await;
    }

    async fn send(&self, piece: Piece) {
        let room = u32::try_from(piece.room()).unwrap_or(u32::MAX);
        // Given back once the piece is printed; closed when nothing will be.
        if let Ok(room) = self.room.acquire_many(room).await {
            room.forget();
        }
        // A printer that failed has said why to who waits for it.
        self.pieces.send(piece).ok();
    }
}

/// Prints what is put into the feed, until that is dropped.
///
/// # Errors
/// When no thread can be started.
pub(super) fn far(printer: Printer) -> io::Result<(Feed, Printed)> {
    let (pieces, mut waiting) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(FAR_BUFFER));
    let feed = Feed {
        pieces,
        room: Arc::clone(&room),
    };
    let printed = spawn(move || {
        let printed = drain(&mut waiting, &room, printer);
        // Nobody waits for room that a printer which failed will not give back.
        room.close();
        printed
    })?;
    Ok((feed, printed))
}

fn drain(
    waiting: &mut mpsc::UnboundedReceiver<Piece>,
    room: &Semaphore,
    mut printer: Printer,
) -> io::Result<()> {
    while let Some(piece) = waiting.blocking_recv() {
        match &piece {
            Piece::Output(stream, text) => printer.print(*stream, text.as_bytes())?,
            Piece::Remark(text) => remark(text),
        }
        room.add_permits(piece.room());
    }
    printer.finish()
}

fn spawn(print: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Printed> {
    let (sender, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("printer".to_owned())
        .spawn(move || {
            // Nobody asks after an interrupt.
            sender.send(print()).ok();
        })?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_takes_room_and_none_more_than_there_is() {
        let check = |length: usize, expected: usize| {
            let text = "x".repeat(length);
            assert_eq!(Piece::Remark(text.clone()).room(), expected);
            assert_eq!(Piece::Output(Stream::Stdout, text).room(), expected);
        };
        check(0, size_of::<Piece>());
        check(100, 100 + size_of::<Piece>());
        check(FAR_BUFFER + 1, FAR_BUFFER);
    }

    #[tokio::test]
    async fn a_printer_that_failed_holds_nobody_up() {
        let (pieces, waiting) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(0));
        let feed = Feed {
            pieces,
            room: Arc::clone(&room),
        };
        drop(waiting);
        room.close();
        feed.output(Stream::Stdout, "lost".to_owned()).await;
    }
}
