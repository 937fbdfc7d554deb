//! A file as the body of an answer: read piece by piece as it is sent, and
//! open only while a piece is read. A file that is removed meanwhile cuts the
//! answer off, and gives its room on the disk back at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::artifact::{Artifacts, Kept};

/// Bytes read from the disk at once.
const PIECE: u64 = 64 * 1024;

/// A part of a file that is being sent.
#[derive(Debug)]
pub(super) struct Reading {
    artifacts: Artifacts,
    kept: Kept,
    /// Where the next piece begins.
    at: u64,
    /// Bytes not sent yet.
    left: u64,
    piece: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// A piece that was read already.
    ready: Option<Vec<u8>>,
}

impl Reading {
    /// Reads the first piece of `length` bytes from `begin` on.
    ///
    /// # Errors
    /// When the file is gone or cannot be read.
    pub(super) async fn begin(
        artifacts: &Artifacts,
        kept: &Kept,
        begin: u64,
        length: u64,
    ) -> io::Result<Self> {
        let mut reading = Self {
            artifacts: artifacts.clone(),
            kept: kept.clone(),
            at: begin,
            left: length,
            piece: None,
            ready: None,
        };
        let first = reading.read().await.map_err(io::Error::other)??;
        reading.ready = Some(first);
        Ok(reading)
    }

    /// Starts to read the next piece.
    fn read(&self) -> JoinHandle<io::Result<Vec<u8>>> {
        let (artifacts, kept, at) = (self.artifacts.clone(), self.kept.clone(), self.at);
        let length = usize::try_from(self.left.min(PIECE)).unwrap_or(0);
        tokio::task::spawn_blocking(move || artifacts.part(&kept, at, length))
    }

    fn pass(&mut self, piece: Vec<u8>) -> Frame<Bytes> {
        let length = piece.len() as u64;
        self.at += length;
        self.left -= length;
        Frame::data(piece.into())
    }
}

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(piece) = self.ready.take() {
            return Poll::Ready(Some(Ok(self.pass(piece))));
        }
        let mut reading = match self.piece.take() {
            Some(reading) => reading,
            None => self.read(),
        };
        let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
            self.piece = Some(reading);
            return Poll::Pending;
        };
        let read = read.map_err(io::Error::other).and_then(|read| read);
        Poll::Ready(Some(read.map(|piece| self.pass(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
