//! The only place that prints. Standard output carries what was asked for,
//! standard error what is said about it. A reader that went away (`| head`)
//! is no failure; one of a server's standard error may stop reading at all.

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::{PoisonError, RwLock};

use queue::Queue;

mod queue;
pub mod terminal;

/// Where a server has one: the queue before standard error.
static QUEUE: RwLock<Option<Queue>> = RwLock::new(None);

/// Writes bytes to standard output as they are.
///
/// # Errors
/// When standard output fails, other than by a reader that went away.
pub fn bytes(content: &[u8]) -> io::Result<()> {
    write_to(io::stdout().lock(), content)
}

/// Writes a line to standard output, for a reader that must not miss it.
///
/// # Errors
/// When standard output fails, also by a reader that went away.
pub fn line(text: &str) -> io::Result<()> {
    let mut stream = io::stdout().lock();
    stream.write_all(with_newline(text).as_bytes())?;
    stream.flush()
}

/// Writes bytes to standard error as they are, by way of the queue where there is one.
///
/// # Errors
/// When standard error fails, other than by a reader that went away.
pub fn error_bytes(content: &[u8]) -> io::Result<()> {
    let queue = QUEUE.read().unwrap_or_else(PoisonError::into_inner);
    match &*queue {
        Some(queue) => {
            queue.push(content);
            Ok(())
        }
        None => write_to(io::stderr().lock(), content),
    }
}

/// From now on nothing waits for who reads standard error, until the guard is
/// dropped: so many lines are queued, and those beyond are left out. Starts a
/// thread.
///
/// # Errors
/// When no thread can be started.
pub fn queue_errors(capacity: usize) -> io::Result<QueuedErrors> {
    let queue = Queue::start(io::stderr(), capacity)?;
    *QUEUE.write().unwrap_or_else(PoisonError::into_inner) = Some(queue);
    Ok(QueuedErrors(()))
}

/// While it lives, standard error is queued. Dropped, it waits a second at
/// most for the last lines.
#[derive(Debug)]
#[must_use]
pub struct QueuedErrors(());

impl Drop for QueuedErrors {
    fn drop(&mut self) {
        let mut queue = QUEUE.write().unwrap_or_else(PoisonError::into_inner);
        // Where nobody reads, whatever else is said must not wait either.
        if queue.as_ref().is_some_and(Queue::flush) {
            *queue = None;
        }
    }
}

/// Standard error for those who write whole lines to a stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorLines;

impl Write for ErrorLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        error_bytes(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines of text to standard output.
///
/// # Errors
/// When standard output fails, other than by a reader that went away.
pub fn text(text: &str) -> io::Result<()> {
    bytes(with_newline(text).as_bytes())
}

/// Writes lines of text to standard error. Where even that fails there is
/// nobody left to tell.
pub fn note(text: &str) {
    drop(error_bytes(with_newline(text).as_bytes()));
}

/// Writes the last lines that a server says to standard error: where there is a
/// queue they wait for their place in it, a second at most.
pub fn last_note(text: &str) {
    let line = with_newline(text);
    let queue = QUEUE.read().unwrap_or_else(PoisonError::into_inner);
    match &*queue {
        Some(queue) => queue.push_last(line.as_bytes()),
        // As above.
        None => drop(write_to(io::stderr().lock(), line.as_bytes())),
    }
}

/// Whether a person reads standard output.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person reads standard error.
#[must_use]
pub fn errors_are_terminal() -> bool {
    io::stderr().is_terminal()
}

fn with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}

fn write_to(mut stream: impl Write, content: &[u8]) -> io::Result<()> {
    match stream.write_all(content).and_then(|()| stream.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
