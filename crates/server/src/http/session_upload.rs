//! Files of a session that come as a form, as browsers and `curl -F` send them.
//!
//! Each part goes by in pieces and is never whole in memory. A part that fails ends the
//! upload; those before it are there. What comes beside the files' contents is kept
//! until it is whole, so it is bounded.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::Json;
use axum::body::{BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use engine::{Call, Content, FileCall, Owner, Reply};
use futures_util::{Stream, TryStreamExt as _};
use multer::{Field, Multipart};
use tokio::time::timeout;
use tokio_util::io::StreamReader;

use super::session_files::Patient;
use super::state::Shared;
use crate::api::{Code, FileEntryOut, FileListOut, Problem};
use crate::runs;

/// Files in one form.
const FILES: usize = 1000;
/// Bytes of the name of a directory.
const DIRECTORY: usize = 4096;
/// Bytes that may come before the content of a file, after that of the one before:
/// boundaries, headers and fields.
const BESIDE: usize = 16 * 1024;
/// Bytes that are read at once: of a file's content, and beside that.
const PIECES: (usize, usize) = (64 * 1024, 4 * 1024);

/// Returns what stands between the parts of a form; `None` for a body that is no form.
pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    multer::parse_boundary(kind).ok()
}

/// Puts the files of a form into a session, each under its file name and below the
/// directory that a field `directory` before it names.
///
/// # Errors
/// What is wrong with a part, or with its place.
pub(super) async fn upload(
    shared: &Arc<Shared>,
    owner: &Owner,
    session: &str,
    request: Request,
    boundary: String,
) -> Result<Response, Problem> {
    let patience = shared.app.config.client_timeout;
    let late = || Problem::new(Code::RequestTimeout, "The form did not go on.");
    let feed = Feed::new(request.into_body().into_data_stream());
    let place = feed.place.clone();
    let mut form = Multipart::new(feed, boundary);
    let (mut files, mut directory) = (Vec::new(), String::new());
    loop {
        place.beside();
        let next = timeout(patience, form.next_field());
        let Some(field) = next
            .await
            .map_err(|_| late())?
            .map_err(|error| malformed(&error))?
        else {
            break;
        };
        let Some(name) = field.file_name().map(str::to_owned) else {
            if field.name() == Some("directory") {
                place.beside();
                directory = timeout(patience, text(field)).await.map_err(|_| late())??;
            }
            continue;
        };
        if files.len() == FILES {
            let cure = "Send the rest in a second form.";
            let problem = format!("is more than {FILES} files");
            return Err(Problem::field("file", &problem, cure));
        }
        let path = match directory.trim_matches('/') {
            "" => name,
            directory => format!("{directory}/{name}"),
        };
        place.in_file();
        let content = StreamReader::new(field.map_err(std::io::Error::other));
        let content = Content(Box::pin(Patient::new(content, patience)));
        ask(shared, owner, session, FileCall::Put(path.clone(), content)).await?;
        match ask(shared, owner, session, FileCall::Open(path.clone())).await? {
            Reply::File(file) => files.push(FileEntryOut::of(path, &file)),
            _ => return Err(Problem::internal()),
        }
    }
    if files.is_empty() {
        let cure = "Send parts with a file name, as curl -F file=@data.csv does.";
        return Err(Problem::field("file", "is missing in the form", cure));
    }
    let list = FileListOut {
        files,
        truncated: false,
    };
    Ok((StatusCode::CREATED, Json(list)).into_response())
}

async fn text(mut field: Field<'static>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|error| malformed(&error))? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > DIRECTORY {
            return Err(Problem::field(
                "directory",
                "is too long",
                "Use a shorter path.",
            ));
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| Problem::field("directory", "is no text", "Send it as UTF-8."))
}

fn malformed(error: &multer::Error) -> Problem {
    tracing::debug!(%error, "a form can't be read");
    if matches!(error, multer::Error::StreamReadFailed(cause) if cause.is::<TooMuch>()) {
        let problem = format!("comes with more than {} KiB beside it", BESIDE >> 10);
        let cure = "Send files alone, with shorter names and no other fields.";
        return Problem::field("file", &problem, cure);
    }
    Problem::field(
        "file",
        "can't be read: the form is cut or malformed",
        "Send multipart/form-data, as curl -F does.",
    )
}

/// The form goes on and on, and no file comes.
#[derive(Debug, thiserror::Error)]
#[error("more than {BESIDE} bytes came before the content of a file")]
struct TooMuch;

/// A form on its way to who reads it, which takes all that it can get and searches it
/// anew for each piece: so it gets little at once, and none before it has looked
/// through what it has.
struct Feed {
    body: BodyDataStream,
    /// What came and was not read yet.
    left: Bytes,
    place: Place,
}

/// Where in a form its reader is.
#[derive(Clone)]
struct Place(Arc<Mutex<At>>);

struct At {
    in_file: bool,
    /// Bytes that were read since the content of the last file.
    beside: usize,
    /// Whether the reader has to look first through what it has.
    fed: bool,
}

impl Place {
    /// What comes next is looked for after what was.
    fn beside(&self) {
        let mut at = self.lock();
        (at.in_file, at.fed) = (false, true);
    }

    /// The content of a file is read.
    fn in_file(&self) {
        *self.lock() = At {
            in_file: true,
            beside: 0,
            fed: true,
        };
    }

    fn lock(&self) -> MutexGuard<'_, At> {
        // Whole between any two statements, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    fn new(body: BodyDataStream) -> Self {
        let at = At {
            in_file: false,
            beside: 0,
            fed: false,
        };
        Self {
            body,
            left: Bytes::new(),
            place: Place(Arc::new(Mutex::new(at))),
        }
    }
}

impl Stream for Feed {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let place = self.place.clone();
        let mut at = place.lock();
        if std::mem::take(&mut at.fed) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(piece)) => self.left = piece,
            }
        }
        if !at.in_file && at.beside >= BESIDE {
            return Poll::Ready(Some(Err(TooMuch.into())));
        }
        let most = if at.in_file { PIECES.0 } else { PIECES.1 };
        let length = self.left.len().min(most);
        at.fed = true;
        if !at.in_file {
            at.beside += length;
        }
        Poll::Ready(Some(Ok(self.left.split_to(length))))
    }
}

async fn ask(
    shared: &Shared,
    owner: &Owner,
    session: &str,
    call: FileCall,
) -> Result<Reply, Problem> {
    let call = Call::File(owner.clone(), session.to_owned(), call);
    let answered = shared.app.engine.call(call).await;
    answered.map_err(|error| runs::failed(&error))
}
