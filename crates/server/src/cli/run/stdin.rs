//! Our own standard input, which a program gets as it would from `python FILE`.
//! It is read to its end before the program starts, and never from a terminal.

use std::io::{self, IsTerminal as _, Read as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::printer::remark;

/// How long an input may stay open before we say what is being waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Returns what is piped to us, at most `limit` bytes; nothing for a terminal.
pub(super) fn piped(limit: u64) -> io::Result<Vec<u8>> {
    if io::stdin().is_terminal() {
        return Ok(Vec::new());
    }
    let read = move || {
        let mut content = Vec::new();
        let read = io::stdin().lock().take(limit).read_to_end(&mut content);
        read.map(|_| content)
    };
    patiently(PATIENCE, read, || {
        remark(
            "the program starts when standard input ends, which is still open; `< /dev/null` gives it none",
        );
    })?
}

/// Returns what `work` returns, and calls `remind` when that takes longer
/// than `patience`. Its thread has ended then: sandboxes are set up without
/// any. Fails when it cannot be started.
fn patiently<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    remind: impl FnOnce(),
) -> io::Result<T> {
    let (working, ended) = mpsc::channel::<()>();
    let thread = thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let _until_the_end = working;
            work()
        })?;
    if ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
        remind();
    }
    let panicked = |_| io::Error::other("its thread panicked");
    thread.join().map_err(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_waits_are_told() {
        let (told, heard) = mpsc::channel();
        let waited = patiently(
            Duration::ZERO,
            move || heard.recv().unwrap(),
            || told.send("told").unwrap(),
        );
        assert_eq!(waited.unwrap(), "told");
        let at_once = patiently(Duration::MAX, || 1, || panic!("nothing to wait for"));
        assert_eq!(at_once.unwrap(), 1);
    }
}
