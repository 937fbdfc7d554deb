//! One TCP connection as hyper reads and writes it, with two additions.
//!
//! A client that went away is noticed even when it pipelined more requests
//! than one: hyper looks for the end of the stream only while its read buffer
//! is empty, so a hostile client could leave runs going behind it. And a
//! client that stops reading its answer is given up after a while.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How often a connection with a request in progress is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes that may lie unread behind a request in progress. A client that
/// sends more and then goes away is never seen to go: its end of stream waits
/// behind bytes that nobody reads.
const UNREAD: usize = 64 * 1024;

/// How many looks in a row may find that much unread and nothing read.
const LOOKS: u32 = 8;

/// A socket, shared between hyper and those who watch for its end.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    /// Bytes read so far.
    read: AtomicU64,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            read: AtomicU64::new(0),
        }
    }

    /// Waits until the client has closed its side of the connection, or has
    /// piled up more requests behind the one in progress than is sane.
    pub(super) async fn closed(&self) {
        let mut piled = (0, 0);
        loop {
            tokio::time::sleep(LOOK).await;
            // Writability is there nearly always, so this returns at once with
            // whatever is known by then; readiness to read would say nothing
            // while bytes of a further request lie unread.
            let ready = self.tcp.ready(Interest::READABLE | Interest::WRITABLE);
            let unread = match ready.await {
                Ok(ready) if ready.is_read_closed() => return,
                Ok(ready) if ready.is_readable() => self.unread().await,
                Ok(_) => 0,
                Err(_) => return,
            };
            let read = self.read.load(Ordering::Relaxed);
            piled = match piled {
                (count, before) if unread == UNREAD && read == before => (count + 1, read),
                _ => (0, read),
            };
            if piled.0 >= LOOKS {
                return;
            }
        }
    }

    /// Bytes that lie unread, at most [`UNREAD`].
    async fn unread(&self) -> usize {
        let mut bytes = vec![0; UNREAD];
        // Readiness may be stale; then there is nothing, and peeking waits.
        let peeked = tokio::time::timeout(LOOK, self.tcp.peek(&mut bytes)).await;
        peeked.map_or(0, |count| count.unwrap_or(0))
    }
}

/// A connection as hyper sees it.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Arc<Socket>,
    stall_limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Wraps a connection; writing may stall for at most `stall_limit`.
    pub(super) fn new(socket: Arc<Socket>, stall_limit: Duration) -> Self {
        Self {
            socket,
            stall_limit,
            stalled: None,
        }
    }

    /// Tries to write until it works, fails, or has stalled for too long.
    fn write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        while self.socket.tcp.poll_write_ready(cx)?.is_ready() {
            match write(&self.socket.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.stalled = None;
                    return Poll::Ready(result);
                }
            }
        }
        let limit = self.stall_limit;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client stopped reading its answer",
        )))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.tcp.poll_read_ready(cx))?;
            match self.socket.tcp.try_read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    self.socket.read.fetch_add(count as u64, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |tcp| tcp.try_write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |tcp| tcp.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP has no buffer of ours to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Shutting down for writing needs the raw socket; the last owner's
        // drop closes it, which the client sees as the same end of stream.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Arc<Socket>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let client = TcpStream::connect(address).await.expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        (client, Arc::new(Socket::new(server)))
    }

    #[tokio::test]
    async fn the_end_is_seen_behind_unread_bytes() {
        let (mut client, server) = pair().await;
        client.write_all(b"unread").await.expect("write");
        let early = tokio::time::timeout(LOOK * 3, server.closed()).await;
        assert!(early.is_err(), "the client is still there");
        drop(client);
        let seen = tokio::time::timeout(LOOK * 8, server.closed()).await;
        assert!(seen.is_ok(), "the client went away");
    }

    #[tokio::test]
    async fn a_pile_of_unread_bytes_ends_it_too() {
        let (mut client, server) = pair().await;
        let pile = vec![b'x'; 2 * UNREAD];
        client.write_all(&pile).await.expect("write");
        let seen = tokio::time::timeout(LOOK * (LOOKS + 8), server.closed()).await;
        assert!(seen.is_ok(), "nobody reads the pile");
    }

    #[tokio::test]
    async fn a_pile_that_is_being_read_does_not() {
        let (mut client, server) = pair().await;
        let mut stream = Stream::new(Arc::clone(&server), Duration::from_secs(5));
        let writer = tokio::spawn(async move {
            // More than any buffer holds, so that much lies unread throughout.
            client.write_all(&vec![b'x'; 64 << 20]).await.ok();
        });
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                stream.read_exact(&mut buffer).await.expect("read");
                tokio::time::sleep(LOOK / 4).await;
            }
        });
        let seen = tokio::time::timeout(LOOK * (LOOKS + 4), server.closed()).await;
        assert!(seen.is_err(), "the client is busy, not gone");
        writer.abort();
        reader.abort();
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up() {
        let (client, server) = pair().await;
        let mut stream = Stream::new(server, Duration::from_millis(200));
        let flood = vec![0_u8; 64 * 1024 * 1024];
        let error = stream.write_all(&flood).await.expect_err("stalls");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn bytes_pass_both_ways() {
        let (mut client, server) = pair().await;
        let mut stream = Stream::new(server, Duration::from_secs(5));
        client.write_all(b"ping").await.expect("write");
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.expect("read");
        assert_eq!(&got, b"ping");
        stream.write_all(b"pong").await.expect("write");
        client.read_exact(&mut got).await.expect("read");
        assert_eq!(&got, b"pong");
    }
}
