//! A run as server-sent events: its output while it is printed.
//!
//! The run is driven by a task of its own, so that a slow reader holds it up
//! no longer than the engine's sink allows. A reader that is gone, or stalls
//! for too long, ends that task, and with it the run. A run that has ended
//! leaves nothing but its answer behind, which waits for its reader among all
//! that are [unread](super::unread).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use engine::{Call, Error, Event, Events, Job, Reply, Stream};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::access_log::{LogAtEnd, Note};
use super::frame::RequestId;
use super::serve::ClientGone;
use super::stream::Socket;
use super::unread::{Held, Slot};
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
        let engine = self.shared.app.engine.clone();
        let keep_alive = self.shared.app.config.stream_keep_alive;
        let (sink, mut events) = engine::events(engine.bounds().events());
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
            () = sleep(keep_alive) => None,
        };
        if let Some(Err(error)) = &replied
            && first.is_none()
        {
            return Err(super::execute::failed(error));
        }
        let (sender, receiver) = mpsc::channel(1);
        let writer = Writer {
            sender,
            shared: Arc::clone(&self.shared),
            sent: 0,
            stdout: TextDecoder::default(),
            stderr: TextDecoder::default(),
        };
        let reply = async {
            match replied {
                Some(reply) => reply,
                None => running.await,
            }
        };
        let task = writer.write(self, first, events, reply);
        tokio::spawn(task.in_current_span());
        Ok(response(receiver))
    }

    /// What the last event says: the whole answer, or why there is none. All
    /// else that the run took is let go, whether its reader has come that far
    /// or not.
    async fn last(mut self, reply: Result<Reply, Error>, slot: Slot) -> Last {
        drop(self.fetched.take());
        let (name, mut content) = match reply {
            Ok(Reply::Outcome(mut outcome)) => {
                self.note(outcome.status.as_str());
                let links = artifact::offer(&self.shared, &self.parts, &mut outcome).await;
                let mut response = ExecuteResponse::from(*outcome);
                response.link(links);
                response.warn_first(std::mem::take(&mut self.warnings));
                ("end", super::execute::json(&response))
            }
            Err(error) => {
                let problem = super::execute::failed(&error);
                self.note("failed");
                let id = self.of_request::<RequestId>();
                let id = id.map_or_else(String::new, |id| id.0);
                let document = serde_json::to_vec(&problem.document(&id));
                let document = document.expect("strings and numbers always serialise");
                ("error", document)
            }
        };
        content.extend_from_slice(b"\n\n");
        let key = super::execute::key(&self.parts);
        let buffer = self.shared.app.engine.bounds().events().buffer;
        let held = self.shared.unread.hold(key, slot, content, buffer as u64);
        Last { name, held }
    }
}

/// The last event, without its id.
#[derive(Debug)]
struct Last {
    name: &'static str,
    held: Held,
}

fn response(receiver: mpsc::Receiver<Message>) -> Response {
    let mut response = Response::new(Body::new(Reader {
        receiver,
        last: None,
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
    /// How the last event begins, and the rest of it.
    Last(Bytes, Held),
}

/// The body, as hyper reads it. Dropped, it ends the task that fills it.
#[derive(Debug)]
struct Reader {
    receiver: mpsc::Receiver<Message>,
    last: Option<Held>,
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = ClientGone;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientGone>>> {
        if let Some(last) = &mut self.last {
            let next = last.next();
            return Poll::Ready(next.map(|piece| piece.map(Frame::data).map_err(|_| ClientGone)));
        }
        let part = match ready!(self.receiver.poll_recv(cx)) {
            Some(Message::Part(part)) => part,
            Some(Message::Last(head, rest)) => {
                self.last = Some(rest);
                head
            }
            // Never a clean end without the last event.
            None => return Poll::Ready(Some(Err(ClientGone))),
        };
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.last.as_ref().is_some_and(Held::is_read)
    }
}

/// Writes the events of one run.
#[derive(Debug)]
struct Writer {
    sender: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    /// Events so far.
    sent: u64,
    stdout: TextDecoder,
    stderr: TextDecoder,
}

impl Writer {
    /// Writes until the run has ended, or its reader is gone.
    async fn write(
        mut self,
        streamed: Streamed,
        first: Option<Event>,
        events: Events,
        reply: impl Future<Output = Result<Reply, Error>>,
    ) {
        let _open = self.shared.metrics.stream();
        let gone = {
            let sender = self.sender.clone();
            let socket = streamed.of_request::<Arc<Socket>>();
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
        let slot = Slot::default();
        let last = async { streamed.last(reply.await, slot.clone()).await };
        let told = async {
            // Side by side: the run goes on while the reader takes its time.
            let (last, ()) = tokio::join!(last, self.tell(first, events));
            self.end(last).await;
        };
        // The one that is not first is dropped: with `told` the run.
        tokio::select! {
            () = told => {}
            () = gone => tracing::debug!("the reader of a stream is gone"),
            () = slot.cut() => tracing::debug!("the reader of a stream is too slow"),
        }
    }

    /// Tells all events until the run has no more.
    async fn tell(&mut self, first: Option<Event>, mut events: Events) {
        if let Some(event) = first {
            self.event(event).await;
        } else {
            let load = self.shared.app.engine.load();
            let queued = QueuedOut {
                running: load.running,
                waiting: load.waiting,
            };
            self.send("queued", &queued).await;
        }
        let keep_alive = self.shared.app.config.stream_keep_alive;
        loop {
            match timeout(keep_alive, events.next_gathered(PAUSE)).await {
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
            self.shared.metrics.dropped(stream, piece.missing);
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

    /// What is left of the output, and the last event.
    async fn end(&mut self, last: Last) {
        for stream in Stream::ALL {
            let piece = self.decoder(stream).finish();
            self.piece(stream, piece).await;
        }
        self.sent += 1;
        let head = head(self.sent, last.name);
        self.put(Message::Last(head.into(), last.held)).await;
    }

    async fn send(&mut self, name: &str, data: &impl Serialize) {
        self.sent += 1;
        let frame = frame(self.sent, name, data);
        self.put(Message::Part(frame)).await;
    }

    async fn put(&self, message: Message) {
        // A reader that is gone is seen by those who wait for that.
        self.sender.send(message).await.ok();
    }
}

/// An event as it is written. JSON has no line ends of its own, so the data is
/// one line whatever it says.
fn frame(id: u64, name: &str, data: &impl Serialize) -> Bytes {
    let mut bytes = head(id, name).into_bytes();
    serde_json::to_writer(&mut bytes, data).expect("strings and numbers always serialise");
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}

/// What stands before an event's data.
fn head(id: u64, name: &str) -> String {
    format!("id: {id}\nevent: {name}\ndata: ")
}

#[cfg(test)]
#[path = "events/tests.rs"]
mod tests;
