//! Standard input as lines, and lines to standard output: each on a thread of
//! its own, for a read that never comes back must keep nobody from ending.

use std::io::{self, BufRead, ErrorKind, Read as _};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use crate::config::BODY_LIMIT;
use crate::output;
use crate::output::terminal::printable;

/// Lines that wait on either side.
const WAITING: usize = 1;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line without its end, not blank.
    Line(Vec<u8>),
    /// A line of more than [`BODY_LIMIT`] bytes, left out.
    TooLong,
}

/// Reads standard input to its end.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn lines() -> io::Result<Receiver<Input>> {
    let (sender, lines) = mpsc::channel(WAITING);
    spawn("stdin", move || {
        let mut input = io::stdin().lock();
        loop {
            let line = match next(&mut input, BODY_LIMIT) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    remark(&format!("reading standard input failed: {error}"));
                    break;
                }
            };
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    })?;
    Ok(lines)
}

/// Prints lines; the token is cancelled when the last one is printed and all
/// senders are gone, or when nobody reads them.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn printer() -> io::Result<(Sender<String>, CancellationToken)> {
    let (sender, mut lines) = mpsc::channel::<String>(WAITING);
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    spawn("stdout", move || {
        let _guard = guard;
        while let Some(line) = lines.blocking_recv() {
            if let Err(error) = output::line(&line) {
                if error.kind() != ErrorKind::BrokenPipe {
                    remark(&format!("writing to standard output failed: {error}"));
                }
                break;
            }
        }
    })?;
    Ok((sender, ended))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    // Nobody joins it: it may hang for as long as the client lives.
    thread.spawn(work).map(drop)
}

/// Reads the next line that is not blank; `None` at the end.
fn next(input: &mut impl BufRead, limit: usize) -> io::Result<Option<Input>> {
    loop {
        let mut line = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let read = input.by_ref().take(most).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        let whole = line.pop_if(|byte| *byte == b'\n').is_some();
        if !whole && line.len() > limit {
            skip_line(input)?;
            return Ok(Some(Input::TooLong));
        }
        line.pop_if(|byte| *byte == b'\r');
        if !line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(Input::Line(line)));
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                input.consume(end + 1);
                return Ok(());
            }
            None => {
                let all = bytes.len();
                input.consume(all);
            }
        }
    }
}

/// Says something on standard error that may quote others.
pub(crate) fn remark(text: &str) {
    output::note(&format!("codex-server: {}", printable(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_blank_ones_left_out() {
        let check = |text: &str, expected: &[&str]| {
            // A small buffer, so that lines span it.
            let mut input = io::BufReader::with_capacity(3, text.as_bytes());
            let mut found = Vec::new();
            while let Some(line) = next(&mut input, 6).unwrap() {
                found.push(match line {
                    Input::Line(line) => String::from_utf8(line).unwrap(),
                    Input::TooLong => "…".to_owned(),
                });
            }
            assert_eq!(found, expected, "{text:?}");
        };
        check("", &[]);
        check("a\nb\r\n", &["a", "b"]);
        check("a", &["a"]);
        check("\n \r\n\n", &[]);
        check("123456\n1", &["123456", "1"]);
        check("1234567\nb\n", &["…", "b"]);
        check("12345678901234567890\nb", &["…", "b"]);
        check("1234567", &["…"]);
    }
}
