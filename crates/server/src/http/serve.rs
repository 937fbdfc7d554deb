//! Accepts connections and serves them until told to stop, then drains.
//!
//! Every client is bounded: so many connections, so long for the headers, so
//! long for an answer to be read. A client that goes away drops the future of
//! its request, and with it the run.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::connection::{ClientGone, Connection};
use super::connections::{Busy, Connections, Seat};
use super::stream::{Socket, Stream};
use crate::app::App;

/// Bytes that hyper buffers of one connection; also the limit of all headers together.
const BUFFER: usize = 64 * 1024;

/// Time for the first header of a connection: whoever opens one has something to ask.
pub(crate) const FIRST_HEADER: Duration = Duration::from_secs(5);

/// Time that connections get to write their last answers, after the engine has drained.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Shortest and longest pause after `accept` failed for want of descriptors or memory.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Serves `router` on `listener` until `shutdown` resolves, then drains.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    app: Arc<App>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let graceful = GracefulShutdown::new();
    let connections = Connections::new(app.config.connections);
    let mut shutdown = std::pin::pin!(shutdown);
    let mut pause = BACKOFF.0;
    let end = loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break Ok(()),
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok((tcp, connection)) => {
                pause = BACKOFF.0;
                let task = Client {
                    socket: Arc::new(Socket::new(tcp)),
                    connection,
                    limit: app.config.client_timeout,
                    seat: connections.enter(),
                };
                task.spawn(router.clone(), &graceful);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if is_final(&error) => break Err(error),
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection; trying again");
                tokio::select! {
                    () = &mut shutdown => break Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    };
    drop(listener);
    drain(&app, graceful).await;
    end
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, Connection)> {
    let (tcp, peer) = listener.accept().await?;
    // Fails only for a client that has hung up already.
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
    tcp.set_nodelay(true).map_err(gone)?;
    let local = tcp.local_addr().map_err(gone)?;
    Ok((tcp, Connection { peer, local }))
}

/// Whether only the connection that was about to be accepted is lost.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

/// Whether no later `accept` can work: the descriptor is closed (EBADF) or
/// does not listen (EINVAL).
fn is_final(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(9 | 22))
}

async fn drain(app: &App, graceful: GracefulShutdown) {
    let grace = app.config.drain_grace;
    let finish = async {
        // Together: an idle connection closes at once, a busy one after its answer.
        let runs = async {
            app.engine.drain(grace).await;
            app.closing.cancel();
        };
        tokio::join!(runs, graceful.shutdown());
    };
    if tokio::time::timeout(grace + LAST_WORDS, finish)
        .await
        .is_err()
    {
        tracing::warn!("some connections were still open when the drain ended");
    }
}

/// An accepted client and the place it holds.
struct Client {
    socket: Arc<Socket>,
    connection: Connection,
    limit: Duration,
    seat: Arc<Seat>,
}

impl Client {
    fn spawn(self, router: Router, graceful: &GracefulShutdown) {
        let Self {
            socket,
            connection,
            limit,
            seat,
        } = self;
        let stream = Stream::new(Arc::clone(&socket), limit);
        let of_requests = Arc::clone(&seat);
        let service = service_fn(move |request: Request<Incoming>| {
            let (socket, seat) = (Arc::clone(&socket), Arc::clone(&of_requests));
            answer(router.clone(), request, connection, socket, seat)
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limit)
            // A client may close its side once it has asked (RFC 9112, 9.6).
            .half_close(true)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        let serving = graceful.watch(serving);
        tokio::spawn(async move {
            let peer = connection.peer;
            tokio::select! {
                served = serving => if let Err(error) = served {
                    tracing::debug!(%error, %peer, "connection ended early");
                },
                () = seat.cut() => {
                    tracing::debug!(%peer, "connection closed: it made way for a new one");
                }
                () = silent(&seat, limit.min(FIRST_HEADER)) => {
                    tracing::debug!(%peer, "connection closed: no request came on it");
                }
            }
        });
    }
}

/// Waits until a new connection has been silent for too long.
async fn silent(seat: &Seat, limit: Duration) {
    tokio::time::sleep(limit).await;
    if seat.has_called() {
        std::future::pending().await
    }
}

/// Answers one request. What may take long, a request that is not safe, ends
/// when the client closes its side of the connection: whether it still reads
/// cannot be seen, and a run is not to go on for nobody.
async fn answer(
    router: Router,
    request: Request<Incoming>,
    connection: Connection,
    socket: Arc<Socket>,
    seat: Arc<Seat>,
) -> Result<axum::response::Response, ClientGone> {
    let busy = Arc::new(seat.begin());
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(connection));
    // For the gate, which learns whose connection it is, and for an answer
    // that goes on.
    request.extensions_mut().insert(Arc::clone(&busy));
    // For an answer that goes on after this function has given it.
    request.extensions_mut().insert(Arc::clone(&socket));
    let is_safe = request.method().is_safe();
    tokio::select! {
        answered = router.oneshot(request) => {
            let answered: Result<_, Infallible> = answered;
            let response = answered.unwrap_or_else(|never| match never {});
            Ok(response.map(|body| Body::new(Sending { body, _busy: busy })))
        }
        () = socket.closed(), if !is_safe => Err(ClientGone),
    }
}

/// The body of an answer. Its request lasts until it has been sent.
struct Sending {
    body: Body,
    _busy: Arc<Busy>,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
