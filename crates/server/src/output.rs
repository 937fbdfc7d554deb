//! The only place that prints. Standard output carries what was asked for,
//! standard error what is said about it. A reader that went away (`| head`)
//! is no failure.

use std::io::{self, ErrorKind, IsTerminal as _, Write};

pub mod terminal;

/// Writes bytes to standard output as they are.
///
/// # Errors
/// When standard output fails, other than by a reader that went away.
pub fn bytes(content: &[u8]) -> io::Result<()> {
    write_to(io::stdout().lock(), content)
}

/// Writes bytes to standard error as they are.
///
/// # Errors
/// When standard error fails, other than by a reader that went away.
pub fn error_bytes(content: &[u8]) -> io::Result<()> {
    write_to(io::stderr().lock(), content)
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
