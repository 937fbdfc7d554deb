//! A run as server-sent events: its output while it is printed.
//!
//! The run is driven by a task of its own, so that a slow reader holds it up
//! no longer than the engine's sink allows. A reader that is gone, or stalls
//! for too long, ends that task, and with it the run.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use engine::{Call, Engine, Error, Event, Events, Job, Reply, Stream};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::access_log::{LogAtEnd, Note};
use super::frame::RequestId;
use super::serve::ClientGone;
use super::stream::Socket;
use super::{Shared, artifact};
use crate::api::event::{
    DroppedOut, Piece, QueuedOut, StartOut, TextDecoder, TextOut, TruncatedOut,
};
use crate::api::{ExecuteResponse, Problem};
use crate::file_url::Fetched;

/// How long output gathers, unless there is much of it: a program that prints
/// byte by byte must not cost an event for each.
const PAUSE: Duration = Duration::from_millis(10);

/// A comment, which readers ignore and proxies take for a sign of life.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// A call to the engine in progress.
type Running = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// What a stream needs to know of its request.
#[derive(Debug)]
pub(super) struct Streamed {
    pub(super) shared: Arc<Shared>,
    pub(super) parts: Parts,
    /// The right to hold what was fetched for the run.
    pub(super) fetched: Option<Fetched>,
    /// Told before the run's own warnings.
    pub(super) warnings: Vec<String>,
}

impl Streamed {
    fn engine(&self) -> &Engine {
        &self.shared.app.engine
    }

    /// The longest silence.
    fn keep_alive(&self) -> Duration {
        self.shared.app.config.stream_keep_alive
    }

    fn of_request<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.parts.extensions.get::<T>().cloned()
    }

    fn note(&self, status: &str) {
        if let Some(note) = self.of_request::<Note>() {
            note.run(status);
        }
    }

    /// Starts a run, and answers as soon as it goes on, or has waited for a
    /// place so long that a proxy may lose patience.
    ///
    /// # Errors
    /// What refuses or fails the run until then; after that, failures are told
    /// in the stream.
    pub(super) async fn answer(self, job: Job) -> Result<Response, Problem> {
        let (sink, mut events) = engine::events(self.engine().bounds().events());
        let engine = self.engine().clone();
        let call = Call::Execute(Box::new(job));
        let mut running: Running = Box::pin(async move { engine.call_streaming(call, sink).await });
        let mut replied = None;
        let first = tokio::select! {
            biased;
            event = events.next() => event,
            reply = &mut running => {
                replied = Some(reply);
                events.next().await
            }
            () = sleep(self.keep_alive()) => None,
        };
        if let Some(Err(error)) = &replied
            && first.is_none()
        {
            return Err(super::execute::failed(error));
        }
        let (sender, receiver) = mpsc::channel(1);
        let writer = Writer {
            sender,
            streamed: self,
            sent: 0,
            stdout: TextDecoder::default(),
            stderr: TextDecoder::default(),
        };
        let task = writer.write(first, events, running, replied);
        tokio::spawn(task.in_current_span());
        Ok(response(receiver))
    }
}

fn response(receiver: mpsc::Receiver<Message>) -> Response {
    let mut response = Response::new(Body::new(Reader {
        receiver,
        whole: false,
    }));
    response.extensions_mut().insert(LogAtEnd);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // What makes nginx and its kin pass each event on at once.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A part of the body.
#[derive(Debug)]
enum Message {
    Part(Bytes),
    Last(Bytes),
}

/// The body, as hyper reads it. Dropped, it ends the task that fills it.
#[derive(Debug)]
struct Reader {
    receiver: mpsc::Receiver<Message>,
    /// The last part was read.
    whole: bool,
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = ClientGone;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientGone>>> {
        if self.whole {
            return Poll::Ready(None);
        }
        let part = match ready!(self.receiver.poll_recv(cx)) {
            Some(Message::Part(part)) => part,
            Some(Message::Last(part)) => {
                self.whole = true;
                part
            }
            // Never a clean end without the last event.
            None => return Poll::Ready(Some(Err(ClientGone))),
        };
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.whole
    }
}

/// Writes the events of one run.
#[derive(Debug)]
struct Writer {
    sender: mpsc::Sender<Message>,
    streamed: Streamed,
    /// Events so far.
    sent: u64,
    stdout: TextDecoder,
    stderr: TextDecoder,
}

impl Writer {
    /// Writes until the run has ended, or its reader is gone.
    async fn write(
        mut self,
        first: Option<Event>,
        events: Events,
        running: Running,
        replied: Option<Result<Reply, Error>>,
    ) {
        let metrics = self.streamed.shared.metrics.clone();
        let _open = metrics.stream();
        let gone = {
            let sender = self.sender.clone();
            let socket = self.streamed.of_request::<Arc<Socket>>();
            async move {
                tokio::select! {
                    () = sender.closed() => {}
                    () = async {
                        match socket {
                            Some(socket) => socket.closed().await,
                            None => std::future::pending().await,
                        }
                    } => {}
                }
            }
        };
        let reply = async {
            match replied {
                Some(reply) => reply,
                None => running.await,
            }
        };
        let told = async {
            // Side by side: the run goes on while the reader takes its time.
            let (reply, ()) = tokio::join!(reply, self.tell(first, events));
            self.end(reply).await;
        };
        // The one that is not first is dropped: with `told` the run.
        tokio::select! {
            () = told => {}
            () = gone => tracing::debug!("the reader of a stream is gone"),
        }
    }

    /// Tells all events until the run has no more.
    async fn tell(&mut self, first: Option<Event>, mut events: Events) {
        if let Some(event) = first {
            self.event(event).await;
        } else {
            let load = self.streamed.engine().load();
            let queued = QueuedOut {
                running: load.running,
                waiting: load.waiting,
            };
            self.send("queued", &queued).await;
        }
        loop {
            match timeout(self.streamed.keep_alive(), events.next_gathered(PAUSE)).await {
                Ok(Some(event)) => self.event(event).await,
                Ok(None) => return,
                Err(_silent) => self.put(Message::Part(KEEP_ALIVE)).await,
            }
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Started(started) => self.send("start", &StartOut::from(started)).await,
            Event::Output { stream, bytes } => {
                let piece = self.decoder(stream).push(&bytes);
                self.piece(stream, piece).await;
            }
            Event::Dropped { stream, bytes } => self.decoder(stream).gap(bytes),
            Event::Truncated { limit } => {
                for stream in Stream::ALL {
                    // A character that the cut went through is not told.
                    self.decoder(stream).cut();
                }
                self.send("truncated", &TruncatedOut { limit }).await;
            }
        }
    }

    fn decoder(&mut self, stream: Stream) -> &mut TextDecoder {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    async fn piece(&mut self, stream: Stream, piece: Piece) {
        if piece.missing > 0 {
            self.streamed.shared.metrics.dropped(stream, piece.missing);
            let dropped = DroppedOut {
                stream: stream.as_str(),
                bytes: piece.missing,
            };
            self.send("dropped", &dropped).await;
        }
        if !piece.text.is_empty() {
            let text = TextOut { text: piece.text };
            self.send(stream.as_str(), &text).await;
        }
    }

    /// The last event: the whole answer, or why there is none.
    async fn end(&mut self, reply: Result<Reply, Error>) {
        for stream in Stream::ALL {
            let piece = self.decoder(stream).finish();
            self.piece(stream, piece).await;
        }
        drop(self.streamed.fetched.take());
        let last = match reply {
            Ok(Reply::Outcome(mut outcome)) => {
                self.streamed.note(outcome.status.as_str());
                let Streamed { shared, parts, .. } = &self.streamed;
                let links = artifact::offer(shared, parts, &mut outcome).await;
                let mut response = ExecuteResponse::from(*outcome);
                response.link(links);
                response.warn_first(std::mem::take(&mut self.streamed.warnings));
                self.frame("end", &response)
            }
            Err(error) => {
                let problem = super::execute::failed(&error);
                self.streamed.note("failed");
                let id = self.streamed.of_request::<RequestId>();
                let id = id.map_or_else(String::new, |id| id.0);
                self.frame("error", &problem.document(&id))
            }
        };
        self.put(Message::Last(last)).await;
    }

    async fn send(&mut self, name: &str, data: &impl Serialize) {
        let frame = self.frame(name, data);
        self.put(Message::Part(frame)).await;
    }

    fn frame(&mut self, name: &str, data: &impl Serialize) -> Bytes {
        self.sent += 1;
        frame(self.sent, name, data)
    }

    async fn put(&self, message: Message) {
        // A reader that is gone is seen by those who wait for that.
        self.sender.send(message).await.ok();
    }
}

/// An event as it is written. JSON has no line ends of its own, so the data is
/// one line whatever it says.
fn frame(id: u64, name: &str, data: &impl Serialize) -> Bytes {
    let mut bytes = format!("id: {id}\nevent: {name}\ndata: ").into_bytes();
    serde_json::to_writer(&mut bytes, data).expect("strings and numbers always serialise");
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}

#[cfg(test)]
#[path = "events/tests.rs"]
mod tests;
