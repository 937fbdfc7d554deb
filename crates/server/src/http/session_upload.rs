//! Files of a session that come as a form, as browsers and `curl -F` send them.
//!
//! Each part goes by in pieces and is never whole in memory. A part that fails ends the
//! upload; those before it are there.

use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use engine::{Call, Content, FileCall, Owner, Reply};
use futures_util::TryStreamExt as _;
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
    let mut form = Multipart::new(request.into_body().into_data_stream(), boundary);
    let (mut files, mut directory) = (Vec::new(), String::new());
    loop {
        let next = timeout(patience, form.next_field());
        let late = || Problem::new(Code::RequestTimeout, "The form did not go on.");
        let Some(field) = next
            .await
            .map_err(|_| late())?
            .map_err(|error| malformed(&error))?
        else {
            break;
        };
        let Some(name) = field.file_name().map(str::to_owned) else {
            if field.name() == Some("directory") {
                directory = text(field).await?;
            }
            continue;
        };
        if files.len() == FILES {
            let cure = "Send the rest in a second form.";
            return Err(Problem::field("file", "is more than 1000 files", cure));
        }
        let path = match directory.trim_matches('/') {
            "" => name,
            directory => format!("{directory}/{name}"),
        };
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
    Problem::field(
        "file",
        "can't be read: the form is cut or malformed",
        "Send multipart/form-data, as curl -F does.",
    )
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
