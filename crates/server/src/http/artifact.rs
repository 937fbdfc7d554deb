//! `/artifacts/{id}/{name}`: files that runs left, for whoever has a signed
//! link or the token whose run made them.
//!
//! The files are hostile. They are sent with a policy that keeps a browser
//! from running anything in them, and with a type that is never guessed from
//! their content. Without a good signature or token nobody learns whether a
//! file exists.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::Owner;

use super::connections::Busy;
use super::state::Shared;
use crate::api::{Code, Problem};
use crate::artifact::{BadLink, Id, Kept, Signature};
use crate::auth::Principal;
use crate::media::{Media, disposition};

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod range;
mod reading;

pub(super) use range::{Range, range};
use reading::Reading;

/// A browser runs nothing, loads nothing and asks for nothing: the file is as
/// if on an origin of its own. Pictures, sound and film that are looked at by
/// themselves are drawn by a page of the browser's own, which needs the rest.
pub(super) const POLICY: &str = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a request comes with a signed link, good or bad: then the
/// signature alone decides, and no token is asked for.
pub(super) fn is_signed(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, _)| matches!(&*name, "signature" | "amp;signature"))
}

/// Download a file
///
/// Gives a file that a run left, whole or in part. The `url` of a file in an answer leads here and needs no token until it expires; without its signature the token of the run does.
#[utoipa::path(
    get,
    path = "/artifacts/{id}/{name}",
    operation_id = "downloadFile",
    params(
        ("id" = String, Path, description = "The file's `id`", example = "4f9f1a52f0c94a64a6b1c6fd1c3c8a17"),
        ("name" = String, Path, description = "The file's name, as in its `url`", example = "plot.png"),
        ("expires" = Option<u64>, Query, description = "When the link ends, in seconds since 1970; goes with `signature`"),
        ("signature" = Option<String>, Query, description = "Proves that this server made the link"),
    ),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "*/*"),
        (status = 206, description = "The part that the Range header asked for", body = Vec<u8>, content_type = "*/*"),
        (status = 304, description = "Not changed since it was last sent"),
    ),
)]
pub(super) async fn download(
    State(shared): State<Arc<Shared>>,
    Path((id, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let kept = if is_signed(&request) {
        let kept = by_link(&shared, &id, &name, &query)?;
        // As good as a token: its connection is counted to the file's owner.
        if let Some(busy) = request.extensions().get::<Arc<Busy>>() {
            busy.belongs_to(&Owner::new(&kept.owner));
        }
        kept
    } else {
        by_token(&shared, &id, &name, request.extensions().get())?
    };
    send(&shared, &kept, request.headers()).await
}

/// Delete a file
///
/// Removes a file that a run of the same token left, before its time is over.
#[utoipa::path(
    delete,
    path = "/artifacts/{id}/{name}",
    operation_id = "deleteFile",
    params(
        ("id" = String, Path, description = "The file's `id`", example = "4f9f1a52f0c94a64a6b1c6fd1c3c8a17"),
        ("name" = String, Path, description = "The file's name, as in its `url`", example = "plot.png"),
    ),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path((id, name)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let kept = by_token(&shared, &id, &name, request.extensions().get())?;
    shared.app.artifacts.remove(kept.id);
    Ok(StatusCode::NO_CONTENT)
}

/// The file that a link opens. The signature is checked before anybody looks
/// for the file, so a bad link tells nothing of it.
fn by_link(shared: &Shared, id: &str, name: &str, query: &str) -> Result<Kept, Problem> {
    let artifacts = &shared.app.artifacts;
    let forged = || {
        Problem::new(
            Code::Forbidden,
            "The link is not one that this server signed for this file. Use the `url` of the file exactly as it was given, with `expires` and `signature`.",
        )
    };
    let id: Id = id.parse().map_err(|()| forged())?;
    let signature = Signature::parse(query).ok_or_else(forged)?;
    artifacts
        .check(id, name, &signature)
        .map_err(|bad| match bad {
            BadLink::Forged => forged(),
            BadLink::Expired => Problem::new(
                Code::Forbidden,
                "The link has expired. Run the program again to get the file under a new one.",
            ),
        })?;
    artifacts.find(id, name).ok_or_else(gone)
}

fn gone() -> Problem {
    Problem::new(
        Code::Gone,
        "The file is gone before its time: it was deleted, or newer files took its room. Run the program again to get it.",
    )
}

/// The file of a caller's own run.
fn by_token(
    shared: &Shared,
    id: &str,
    name: &str,
    principal: Option<&Principal>,
) -> Result<Kept, Problem> {
    let found = id
        .parse()
        .ok()
        .and_then(|id| shared.app.artifacts.find(id, name));
    let mine = |kept: &Kept| principal.is_some_and(|one| one.id.as_str() == kept.owner);
    found.filter(mine).ok_or_else(|| {
        Problem::new(
            Code::NotFound,
            format!(
                "There is no such file of this token. Files are kept for {} s after their run; run the program again to get it.",
                shared.app.artifacts.lifetime().as_secs()
            ),
        )
    })
}

async fn send(shared: &Shared, kept: &Kept, asked: &HeaderMap) -> Result<Response, Problem> {
    let tag = format!("\"{}\"", kept.id);
    let matches = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    };
    if asked.get_all(header::IF_NONE_MATCH).iter().any(matches) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(response.headers_mut(), kept, &tag);
        return Ok(response);
    }
    // A changed file would need the whole; ours never change under one tag.
    let same = asked
        .get(header::IF_RANGE)
        .is_none_or(|value| *value == tag);
    let wanted = asked.get(header::RANGE).filter(|_| same);
    let wanted = wanted.map_or(Range::Whole, |value| range(value, kept.size));
    let (status, begin, length) = match wanted {
        Range::Whole => (StatusCode::OK, 0, kept.size),
        Range::Part { begin, length } => (StatusCode::PARTIAL_CONTENT, begin, length),
        Range::Beyond => return Ok(beyond(kept.size)),
    };
    let body = match Reading::begin(&shared.app.artifacts, kept, begin, length).await {
        Ok(reading) => Body::new(reading),
        // Removed since it was found.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(gone()),
        Err(error) => {
            tracing::error!(%error, "failed to read an artifact");
            return Err(Problem::internal());
        }
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    describe(headers, kept, &tag);
    headers.insert(header::CONTENT_LENGTH, length.into());
    if status == StatusCode::PARTIAL_CONTENT {
        let end = begin + length - 1;
        let text = format!("bytes {begin}-{end}/{}", kept.size);
        set(headers, header::CONTENT_RANGE, &text);
    }
    Ok(response)
}

fn beyond(size: u64) -> Response {
    let problem = Problem::new(
        Code::RangeNotSatisfiable,
        format!(
            "The Range header begins behind the end of the file, which has {size} bytes. Ask for less, or leave it out."
        ),
    );
    let mut response = problem.into_response();
    set(
        response.headers_mut(),
        header::CONTENT_RANGE,
        &format!("bytes */{size}"),
    );
    response
}

/// What every answer says about the file, and to browsers about themselves.
fn describe(headers: &mut HeaderMap, kept: &Kept, tag: &str) {
    let media = Media::of(&kept.name);
    let now = jiff::Timestamp::now().as_second();
    let left = kept.expires.saturating_sub(u64::try_from(now).unwrap_or(0));
    for (name, value) in [
        (header::CONTENT_TYPE, media.content_type),
        (
            header::CONTENT_DISPOSITION,
            disposition(media, &kept.name).as_str(),
        ),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::ETAG, tag),
        (
            header::CACHE_CONTROL,
            format!("private, max-age={left}, immutable").as_str(),
        ),
        (header::ACCEPT_RANGES, "bytes"),
        // Whoever finds a link in a chat need not find it in a search.
        (header::HeaderName::from_static("x-robots-tag"), "noindex"),
        // A chat shows pictures of ours in a page of its own.
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ] {
        set(headers, name, value);
    }
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
