//! A run as server-sent events: its output while it is printed.
//!
//! The run is driven by a task of its own, so that a slow reader holds it up
//! no longer than the engine's sink allows. A reader that is gone, or stalls
//! for too long, ends that task, and with it the run. A run that has ended
//! leaves nothing but its answer behind, which waits for its reader among all
//! that are [unread](super::unread).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use engine::{Event, Events, Owner, Stream};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::access_log::LogAtEnd;
use super::byte_shares::ByteShare;
use super::connection::ClientGone;
use super::context::Context;
use super::state::Shared;
use super::unread::{Held, PIECE, Slot};
use crate::api::event::{
    DroppedOut, Piece, QueuedOut, StartOut, TextDecoder, TextOut, TruncatedOut,
};
use crate::api::{Order, Problem, ResultRef};
use crate::runs::{self, Caller};

/// How long output gathers, unless there is much of it: a program that prints
/// byte by byte must not cost an event for each.
const PAUSE: Duration = Duration::from_millis(10);

/// A comment, which readers ignore and proxies take for a sign of life.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// What the last event says of something that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// How it ended, for the log.
    pub(super) status: String,
    /// The whole answer, as without streaming.
    pub(super) json: Vec<u8>,
}

/// Something in progress, such as a run.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<Ended, Problem>> + Send>>;

/// Starts a run and [follows](follow) it.
///
/// # Errors
/// As of [`follow`].
pub(super) async fn answer(
    shared: Arc<Shared>,
    context: Context,
    caller: Caller,
    order: Order,
    room: ByteShare,
) -> Result<Response, Problem> {
    let prepared = runs::prepare(&shared.app, &caller, order).await?;
    let app = Arc::clone(&shared.app);
    let (sink, events) = engine::events(app.engine.bounds().events());
    let owner = caller.principal.id.clone();
    let running: Running = Box::pin(async move {
        let _room = room;
        let answer = runs::execute(&app, &caller, prepared, Some(sink)).await?;
        Ok(Ended {
            json: answer.to_json(),
            status: answer.status,
        })
    });
    follow(shared, context, owner, events, running).await
}

/// Answers as soon as something goes on, or has waited so long that a proxy may lose
/// patience. Dropping the answer ends what is in progress.
///
/// # Errors
/// What refuses or fails it until then; after that, failures are told in the stream.
pub(super) async fn follow(
    shared: Arc<Shared>,
    context: Context,
    owner: Owner,
    mut events: Events,
    mut running: Running,
) -> Result<Response, Problem> {
    let keep_alive = shared.app.config.stream_keep_alive;
    let mut ended = None;
    let first = tokio::select! {
        biased;
        event = events.next() => event,
        answer = &mut running => {
            ended = Some(answer);
            events.next().await
        }
        () = sleep(keep_alive) => None,
    };
    let ended = match (ended, &first) {
        (Some(Err(problem)), None) => return Err(problem),
        (ended, _) => ended,
    };
    let (sender, receiver) = mpsc::channel(1);
    let writer = Writer {
        sender,
        shared,
        context,
        owner,
        sent: 0,
        stdout: TextDecoder::default(),
        stderr: TextDecoder::default(),
    };
    let answer = async {
        match ended {
            Some(answer) => answer,
            None => running.await,
        }
    };
    tokio::spawn(writer.write(first, events, answer).in_current_span());
    Ok(response(receiver))
}

/// The last event, without its id.
#[derive(Debug)]
struct Last {
    name: &'static str,
    held: Held,
}

/// Returns what the last event says: the whole answer, or why there is none. `beside`
/// is what else of the stream waits to be read.
fn last(
    shared: &Shared,
    context: &Context,
    owner: &Owner,
    answer: Result<Ended, Problem>,
    slot: Slot,
    beside: u64,
) -> Last {
    let (name, mut content) = match answer {
        Ok(answer) => {
            context.note_run(&answer.status);
            ("end", one_line(answer.json))
        }
        Err(problem) => {
            context.note_run("failed");
            let document = serde_json::to_vec(&problem.document(&context.request_id));
            let document = document.expect("strings and numbers always serialise");
            ("error", one_line(document))
        }
    };
    content.extend_from_slice(b"\n\n");
    let held = shared.unread.hold(owner.as_str(), slot, content, beside);
    Last { name, held }
}

fn response(receiver: mpsc::Receiver<Message>) -> Response {
    let mut response = Response::new(Body::new(Reader {
        receiver,
        last: None,
    }));
    response.extensions_mut().insert(LogAtEnd);
    for (name, value) in [
        // Without the charset HTTP clients take text for Latin-1.
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
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
        cx: &mut Poller<'_>,
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
    context: Context,
    /// Owner that the unread last event is counted to.
    owner: Owner,
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
        answer: impl Future<Output = Result<Ended, Problem>>,
    ) {
        let _open = self.shared.metrics.stream();
        let (sender, socket) = (self.sender.clone(), Arc::clone(&self.context.socket));
        let gone = async {
            tokio::select! {
                () = sender.closed() => {}
                () = socket.closed() => {}
            }
        };
        let (shared, context) = (Arc::clone(&self.shared), self.context.clone());
        let (owner, slot) = (self.owner.clone(), Slot::default());
        let untold = events.untold();
        let last = async {
            let answer = answer.await;
            let buffer = shared.app.engine.bounds().events().buffer as u64;
            let beside = buffer + untold.results();
            last(&shared, &context, &owner, answer, slot.clone(), beside)
        };
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
            Event::Result(result) => {
                let frame = {
                    self.sent += 1;
                    frame(self.sent, "result", &ResultRef::from(&*result))
                };
                drop(result);
                self.put_all(&frame).await;
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

    /// Puts what may be large, as copies of pieces: all that still waits of it can be
    /// let go with this task.
    async fn put_all(&self, frame: &Bytes) {
        for piece in frame.chunks(PIECE) {
            let piece = Bytes::copy_from_slice(piece);
            self.put(Message::Part(piece)).await;
        }
    }

    async fn put(&self, message: Message) {
        // A reader that is gone is seen by those who wait for that.
        self.sender.send(message).await.ok();
    }
}

/// An event as it is written.
fn frame(id: u64, name: &str, data: &impl Serialize) -> Bytes {
    let mut bytes = head(id, name).into_bytes();
    serde_json::to_writer(&mut bytes, data).expect("strings and numbers always serialise");
    let mut bytes = one_line(bytes);
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}

/// Returns the same JSON on one line, whatever it says, for whoever counts as line
/// ends what Unicode does: the three of them that JSON lets stand are escaped.
/// Else a program could print what such a client takes for an event.
fn one_line(json: Vec<u8>) -> Vec<u8> {
    const ENDS: [(&[u8], &[u8]); 3] = [
        ("\u{85}".as_bytes(), b"\\u0085"),
        ("\u{2028}".as_bytes(), b"\\u2028"),
        ("\u{2029}".as_bytes(), b"\\u2029"),
    ];
    let end_at = |at: usize| ENDS.iter().find(|(end, _)| json[at..].starts_with(end));
    let suspect = |byte: &u8| matches!(byte, 0xc2 | 0xe2);
    let Some(first) = (0..json.len()).find(|at| suspect(&json[*at]) && end_at(*at).is_some())
    else {
        return json;
    };
    let mut line = json[..first].to_vec();
    let mut at = first;
    while let Some(byte) = json.get(at) {
        match end_at(at).filter(|_| suspect(byte)) {
            Some((end, escaped)) => {
                line.extend_from_slice(escaped);
                at += end.len();
            }
            None => {
                line.push(*byte);
                at += 1;
            }
        }
    }
    line
}

/// What stands before an event's data.
fn head(id: u64, name: &str) -> String {
    format!("id: {id}\nevent: {name}\ndata: ")
}

#[cfg(test)]
#[path = "events/tests.rs"]
mod tests;
