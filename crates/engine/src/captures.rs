//! Both output streams of a program, read into bounded captures.
//!
//! Reading is a future that may be dropped at any time: what was kept until then stays.

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe;
use tokio::time::sleep;

use crate::capture::{Capture, Tap};
use crate::events::{Sink, Stream};
use crate::outcome::Output;
use crate::pace::Pace;

/// Returns how many bytes wait in a pipe now; none where that can't be told.
pub(crate) fn waiting_in(pipe: &OwnedFd) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap_or_default()
}

/// Both streams of a program, as far as they are kept.
#[derive(Debug, Clone)]
pub(crate) struct Captures {
    stdout: Capture,
    stderr: Capture,
    sink: Option<Sink>,
    pace: Pace,
}

impl Captures {
    /// Keeps so many bytes of each stream, and tells them to the sink.
    pub(crate) fn new(limit: usize, sink: Option<Sink>, pace: Pace) -> Self {
        if let Some(sink) = &sink {
            sink.draining(false);
        }
        Self {
            stdout: Capture::new(limit),
            stderr: Capture::new(limit),
            sink,
            pace,
        }
    }

    /// The program is dead: what its pipes still hold waits for no reader.
    pub(crate) fn drain(&self) {
        if let Some(sink) = &self.sink {
            sink.draining(true);
        }
    }

    /// Returns what was kept of standard output and standard error.
    pub(crate) fn finish(&self) -> [Output; 2] {
        [self.stdout.finish(), self.stderr.finish()]
    }

    /// Returns the same captures, but for who follows them: its stream ends with those
    /// that read.
    pub(crate) fn without_sink(&self) -> Self {
        Self {
            sink: None,
            ..self.clone()
        }
    }

    /// Returns what was kept until now, and keeps it.
    pub(crate) fn so_far(&self) -> [Output; 2] {
        [self.stdout.so_far(), self.stderr.so_far()]
    }

    /// Returns how many bytes of each stream were read.
    pub(crate) fn read_so_far(&self) -> [u64; 2] {
        [self.stdout.total(), self.stderr.total()]
    }

    /// Keeps what the pipes hold now, without waiting.
    pub(crate) fn take_now(&self, pipes: [&OwnedFd; 2]) {
        for (capture, pipe) in [&self.stdout, &self.stderr].into_iter().zip(pipes) {
            let mut left = waiting_in(pipe);
            let mut chunk = [0; 16 * 1024];
            while left > 0 {
                let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                match rustix::io::read(pipe, &mut chunk[..most]) {
                    Ok(count @ 1..) => {
                        capture.keep(&chunk[..count]);
                        left = left.saturating_sub(count as u64);
                    }
                    // At its end, or somebody was faster: there is no more.
                    _ => break,
                }
            }
        }
    }

    /// Reads both to their ends. A stream that fails keeps what it had.
    pub(crate) fn read(
        &self,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> impl Future<Output = ()> + use<> {
        let captures = self.clone();
        async move {
            let read = async |stream, capture: &Capture, fd| -> io::Result<()> {
                let tap = Tap {
                    stream,
                    sink: captures.sink.clone(),
                    pace: captures.pace.clone(),
                };
                let mut fd: OwnedFd = fd;
                loop {
                    let mut pipe = pipe::Receiver::from_owned_fd(fd)?;
                    let Some(pause) = capture.read_from(&mut pipe, &tap).await? else {
                        return Ok(());
                    };
                    // Not watched meanwhile: the kernel would wake us at each
                    // single write, and with small ones that is all we did.
                    fd = pipe.into_nonblocking_fd()?;
                    sleep(pause).await;
                }
            };
            let both = tokio::join!(
                read(Stream::Stdout, &captures.stdout, stdout),
                read(Stream::Stderr, &captures.stderr, stderr)
            );
            for error in [both.0, both.1].into_iter().filter_map(Result::err) {
                tracing::warn!(%error, "failed to read a program's output");
            }
        }
    }
}
