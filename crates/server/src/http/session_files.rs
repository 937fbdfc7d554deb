//! The files of a session: `/sessions/{id}/files` and what is below it.
//!
//! Contents go by in pieces, in and out, and are never whole in memory. What a session
//! holds is hostile: it is sent as a download, of a type that is never guessed from its
//! content. Only translates; paths are checked by the engine.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use engine::{Call, Content, FileCall, FileList, Owner, Reply, SessionFile};
use serde::Deserialize;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::ReaderStream;

use super::artifact::{POLICY, Range, range};
use super::context::Context;
use super::session_upload;
use super::sessions::{owner, read};
use super::state::Shared;
use crate::api::{Code, FileEntryOut, FileForm, FileListOut, FileWork, Problem};
use crate::media::{Media, disposition};
use crate::runs;

/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;

/// Bytes of files in one archive, before they are packed.
const ARCHIVE_BYTES: u64 = 1024 * 1024 * 1024;

/// What a list of files is asked with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ListQuery {
    /// The directory.
    #[serde(default)]
    path: String,
    /// Whether to go into those below it.
    #[serde(default)]
    deep: bool,
}

/// List files of a session
///
/// Names what is in the working directory, or in a directory below it; the whole tree with `deep=true`. At most 10 000 entries.
#[utoipa::path(
    get,
    path = "/sessions/{id}/files",
    operation_id = "listFiles",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("path" = Option<String>, Query, description = "A directory below the working directory"),
        ("deep" = Option<bool>, Query, description = "Whether to go into the directories there"),
    ),
    responses((status = 200, description = "The files", body = FileListOut)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<FileListOut>, Problem> {
    let path = query.path.trim_matches('/').to_owned();
    let call = FileCall::List {
        path,
        deep: query.deep,
    };
    match ask(&shared, owner(&context), id, call).await? {
        Reply::Files(list) => Ok(Json(list.into())),
        _ => Err(Problem::internal()),
    }
}

/// Change files of a session
///
/// Makes a directory (`mkdir`), or gives a file or directory another place (`move`); or takes the files of a form (`multipart/form-data`), each under its file name, below the `directory` that a field before them names.
#[utoipa::path(
    post,
    path = "/sessions/{id}/files",
    operation_id = "changeFiles",
    params(("id" = String, Path, description = "The session's id")),
    request_body(content((FileWork = "application/json"), (FileForm = "multipart/form-data"))),
    responses(
        (status = 201, description = "The files of the form are there", body = FileListOut),
        (status = 204, description = "It is done"),
    ),
)]
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if let Some(boundary) = session_upload::boundary(request.headers()) {
        return session_upload::upload(&shared, &owner(&context), &id, request, boundary).await;
    }
    let (owner, object) = read(&shared, &context, request).await?;
    let call = match FileWork::try_from(object)? {
        FileWork {
            mkdir: Some(path), ..
        } => FileCall::MakeDirectory(path),
        FileWork {
            r#move: Some(places),
            ..
        } => FileCall::Move {
            from: places.from,
            to: places.to,
        },
        FileWork { .. } => return Err(FileWork::missing()),
    };
    ask(&shared, owner, id, call).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Read a file of a session
///
/// Gives a file as it is now, whole or the part that a Range header asks for.
#[utoipa::path(
    get,
    path = "/sessions/{id}/files/{path}",
    operation_id = "readFile",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("path" = String, Path, description = "The file's path below the working directory"),
    ),
    responses(
        (status = 200, description = "The file, of the type that its name says", body = Vec<u8>, content_type = "*/*"),
        (status = 206, description = "The part that the Range header asked for", body = Vec<u8>, content_type = "*/*"),
    ),
)]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let call = FileCall::Open(path.clone());
    match ask(&shared, owner(&context), id, call).await? {
        Reply::File(file) => send(file, &path, &headers).map_err(|error| {
            tracing::error!(%error, "failed to read a file of a session");
            Problem::internal()
        }),
        _ => Err(Problem::internal()),
    }
}

/// Write a file of a session
///
/// Puts the body in as a file, in place of what is there: all of it, or nothing changes. Directories on the way are made.
#[utoipa::path(
    put,
    path = "/sessions/{id}/files/{path}",
    operation_id = "writeFile",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("path" = String, Path, description = "The file's path below the working directory"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "The file is there", body = FileEntryOut)),
)]
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path((id, path)): Path<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<FileEntryOut>), Problem> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "A file is taken as it is sent. Send it without Content-Encoding.",
        ));
    }
    let owner = owner(&context);
    let body = BodyReader {
        body: request.into_body(),
        left: Bytes::new(),
    };
    let content = Patient::new(body, shared.app.config.client_timeout);
    let put = FileCall::Put(path.clone(), Content(Box::pin(content)));
    ask(&shared, owner.clone(), id.clone(), put).await?;
    match ask(&shared, owner, id, FileCall::Open(path.clone())).await? {
        Reply::File(file) => Ok((StatusCode::CREATED, Json(FileEntryOut::of(path, &file)))),
        _ => Err(Problem::internal()),
    }
}

/// Delete a file of a session
///
/// Takes away a file, or a directory with all that is in it.
#[utoipa::path(
    delete,
    path = "/sessions/{id}/files/{path}",
    operation_id = "removeFile",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("path" = String, Path, description = "The path below the working directory"),
    ),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path((id, path)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    ask(&shared, owner(&context), id, FileCall::Remove(path)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Download all files of a session
///
/// Gives the working directory as a zip, at most 10 000 entries and 1 GiB before packing. Links and what is no regular file are left out.
#[utoipa::path(
    get,
    path = "/sessions/{id}/archive",
    operation_id = "downloadAll",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The archive", body = Vec<u8>, content_type = "application/zip")),
)]
pub(super) async fn archive(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let owner = owner(&context);
    let call = FileCall::List {
        path: String::new(),
        deep: true,
    };
    let Reply::Files(list) = ask(&shared, owner.clone(), id.clone(), call).await? else {
        return Err(Problem::internal());
    };
    let broken = |error: io::Error| {
        tracing::error!(%error, "failed to begin an archive");
        Problem::internal()
    };
    let (out, sink) = io::pipe().map_err(broken)?;
    let out = pipe::Receiver::from_owned_fd(out.into()).map_err(broken)?;
    let runtime = tokio::runtime::Handle::current();
    let packing = move || pack(&shared, &runtime, &owner, &id, list, sink);
    tokio::task::spawn_blocking(move || {
        // A reader that went away is no failure of ours.
        if let Err(error) = packing() {
            tracing::debug!(%error, "an archive was not finished");
        }
    });
    let mut response = Body::from_stream(ReaderStream::with_capacity(out, PIECE)).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/zip");
    headers.insert(header::CONTENT_TYPE, kind);
    if let Ok(value) = HeaderValue::from_str(&disposition(Media::of("session.zip"), "session.zip"))
    {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Writes an archive of the files of a list, each as it is when its turn comes.
fn pack(
    shared: &Shared,
    runtime: &tokio::runtime::Handle,
    owner: &Owner,
    id: &str,
    list: FileList,
    sink: io::PipeWriter,
) -> io::Result<()> {
    let mut archive = zip::ZipWriter::new_stream(sink);
    let mut left = ARCHIVE_BYTES;
    for entry in list.entries {
        let options =
            zip::write::SimpleFileOptions::default().large_file(entry.size > u64::from(u32::MAX));
        match entry.kind {
            engine::FileKind::Directory => archive.add_directory(entry.path, options)?,
            engine::FileKind::File => {
                let open = ask(
                    shared,
                    owner.clone(),
                    id.to_owned(),
                    FileCall::Open(entry.path.clone()),
                );
                // Gone since, or closed.
                let Ok(Reply::File(file)) = runtime.block_on(open) else {
                    continue;
                };
                archive.start_file(entry.path, options)?;
                left -= io::copy(&mut file.file.take(left.min(file.size)), &mut archive)?;
            }
            engine::FileKind::Link | engine::FileKind::Other => {}
        }
    }
    archive.finish()?;
    Ok(())
}

async fn ask(shared: &Shared, owner: Owner, id: String, call: FileCall) -> Result<Reply, Problem> {
    let answered = shared.app.engine.call(Call::File(owner, id, call)).await;
    answered.map_err(|error| runs::failed(&error))
}

/// Sends a file, or the part of it that is asked for.
fn send(opened: SessionFile, path: &str, asked: &HeaderMap) -> io::Result<Response> {
    let SessionFile { mut file, size, .. } = opened;
    let wanted = asked.get(header::RANGE);
    let wanted = wanted.map_or(Range::Whole, |value| range(value, size));
    let (status, begin, length) = match wanted {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part { begin, length } => (StatusCode::PARTIAL_CONTENT, begin, length),
        Range::Beyond => {
            let mut response = Problem::new(
                Code::RangeNotSatisfiable,
                format!("The file has {size} bytes. Ask for a part of those."),
            )
            .into_response();
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return Ok(response);
        }
    };
    file.seek(SeekFrom::Start(begin))?;
    let part = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), length);
    let body = Body::from_stream(ReaderStream::with_capacity(part, PIECE));
    let mut response = (status, body).into_response();
    let name = path.rsplit('/').next().unwrap_or(path);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = HeaderValue::from_static(POLICY);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let media = Media::of(name);
    let texts = [
        (header::CONTENT_TYPE, media.essence().to_owned()),
        (header::CONTENT_DISPOSITION, disposition(media, name)),
    ];
    for (header, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header, value);
        }
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {begin}-{}/{size}", begin + length - 1);
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header::CONTENT_RANGE, value);
        }
    }
    Ok(response)
}

/// A body, read as bytes.
struct BodyReader {
    body: Body,
    /// What came and was not read yet.
    left: Bytes,
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                // Trailers are of no use here.
                Some(Ok(frame)) => self.left = frame.into_data().unwrap_or_default(),
            }
        }
        let count = self.left.len().min(buf.remaining());
        buf.put_slice(&self.left.split_to(count));
        Poll::Ready(Ok(()))
    }
}

/// A reader that gives up when nothing comes for a while.
pub(super) struct Patient<R> {
    inner: R,
    patience: Duration,
    until: Pin<Box<Sleep>>,
}

impl<R> Patient<R> {
    /// Wraps a reader; each piece may take `patience`.
    pub(super) fn new(inner: R, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            until: Box::pin(sleep(patience)),
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Patient<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf) {
            let until = Instant::now() + self.patience;
            self.until.as_mut().reset(until);
            return Poll::Ready(read);
        }
        ready!(self.until.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}
