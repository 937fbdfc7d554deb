//! Files as resources: those that runs left, `codex://files/{id}/{name}`, and those of
//! sessions as they are now, `codex://sessions/{id}/{path}`. Given to their owner alone;
//! to others they are not there.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::{Call, FileCall, Reply};
use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};

use crate::app::App;
use crate::artifact::{Artifacts, Kept};
use crate::media::{Media, percent};
use crate::runs::{self, Caller};

/// What every address of a file that a run left begins with.
const SCHEME: &str = "codex://files/";
/// What every address of a session's file begins with.
const SESSIONS: &str = "codex://sessions/";

/// Bytes of the largest file that is read by this protocol, which carries it
/// in one message.
const LARGEST: u64 = 5 * 1024 * 1024;

/// Returns the address of a file.
pub(super) fn uri(id: &str, name: &str) -> String {
    format!("{SCHEME}{id}/{}", percent(name))
}

/// Returns the link to a file for a tool's result.
pub(super) fn link(id: &str, name: &str, size: u64) -> Resource {
    Resource::new(uri(id, name), name)
        .with_mime_type(Media::of(name).essence())
        .with_size(size)
}

/// Returns the link to a file of a session for a tool's result.
pub(super) fn link_in_session(session: &str, path: &str, size: u64) -> Resource {
    let name = path.rsplit('/').next().unwrap_or(path);
    let parts: Vec<String> = path.split('/').map(percent).collect();
    Resource::new(format!("{SESSIONS}{session}/{}", parts.join("/")), name)
        .with_mime_type(Media::of(name).essence())
        .with_size(size)
}

/// Returns the templates of all addresses.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let of_runs = ResourceTemplate::new(format!("{SCHEME}{{id}}/{{name}}"), "file")
        .with_title("A file that a run left")
        .with_description(
            "Results of run_code name the files of a run; they are kept for a while.",
        );
    let of_sessions = ResourceTemplate::new(
        format!("{SESSIONS}{{session_id}}/{{+path}}"),
        "session-file",
    )
    .with_title("A file of a session")
    .with_description(
        "A file of a session of create_session, as it is now; list_files names them.",
    );
    vec![of_runs, of_sessions]
}

/// Reads a file of the caller's.
///
/// # Errors
/// "Resource not found" for what is not there or another's; the reason for
/// what is too large to be sent.
pub(super) async fn read(
    app: &App,
    caller: &Caller,
    uri: &str,
) -> Result<ReadResourceResult, ErrorData> {
    match uri.strip_prefix(SESSIONS) {
        Some(rest) => read_in_session(app, caller, uri, rest).await,
        None => read_left(&app.artifacts, caller, uri).await,
    }
}

/// Reads a file of a session of the caller's; `rest` is what follows in its address.
async fn read_in_session(
    app: &App,
    caller: &Caller,
    uri: &str,
    rest: &str,
) -> Result<ReadResourceResult, ErrorData> {
    let not_found = |told: String| ErrorData::resource_not_found(told, None);
    let (session, path) = rest
        .split_once('/')
        .and_then(|(session, path)| Some((session, decode(path)?)))
        .ok_or_else(|| not_found("this is no address of a file".to_owned()))?;
    let owner = caller.principal.id.clone();
    let call = Call::File(owner, session.to_owned(), FileCall::Open(path.clone()));
    let file = match app.engine.call(call).await {
        Ok(Reply::File(file)) => file,
        Ok(_) => return Err(super::internal()),
        Err(error) => return Err(not_found(runs::failed(&error).detail)),
    };
    if file.size > LARGEST {
        return Err(too_large(file.size, "run_command can make it smaller"));
    }
    let reading = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        let read = file.file.take(LARGEST).read_to_end(&mut content);
        read.map(|_| content)
    });
    let content = match reading.await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) => {
            tracing::error!(%error, "failed to read a session's file for an MCP client");
            return Err(super::internal());
        }
        Err(error) => {
            tracing::error!(%error, "reading a session's file for an MCP client panicked");
            return Err(super::internal());
        }
    };
    Ok(contents(content, uri, &path))
}

fn too_large(size: u64, cure: &str) -> ErrorData {
    let told = format!(
        "the file has {size} bytes, more than the {LARGEST} that are read by this protocol; {cure}"
    );
    ErrorData::invalid_params(told, None)
}

fn contents(content: Vec<u8>, uri: &str, name: &str) -> ReadResourceResult {
    let contents = match String::from_utf8(content) {
        Ok(text) => ResourceContents::text(text, uri),
        Err(bytes) => ResourceContents::blob(BASE64.encode(bytes.as_bytes()), uri),
    };
    let kind = Media::of(name).essence();
    ReadResourceResult::new(vec![contents.with_mime_type(kind)])
}

async fn read_left(
    artifacts: &Artifacts,
    caller: &Caller,
    uri: &str,
) -> Result<ReadResourceResult, ErrorData> {
    let kept = find(artifacts, caller, uri).ok_or_else(|| {
        let told = "there is no such file of yours: files are kept for a while after their run, then run the program again";
        ErrorData::resource_not_found(told, None)
    })?;
    if kept.size > LARGEST {
        let cure = "its url gives it, or let a program make it smaller";
        return Err(too_large(kept.size, cure));
    }
    let (artifacts, file) = (artifacts.clone(), kept.clone());
    let length = usize::try_from(kept.size).unwrap_or(usize::MAX);
    let reading = tokio::task::spawn_blocking(move || artifacts.part(&file, 0, length));
    let content = match reading.await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) => {
            tracing::error!(%error, "failed to read a kept file for an MCP client");
            return Err(super::internal());
        }
        Err(error) => {
            tracing::error!(%error, "reading a kept file for an MCP client panicked");
            return Err(super::internal());
        }
    };
    Ok(contents(content, uri, &kept.name))
}

/// Finds the file that an address names, when it is the caller's.
fn find(artifacts: &Artifacts, caller: &Caller, uri: &str) -> Option<Kept> {
    let (id, name) = named(uri)?;
    let kept = artifacts.find(id.parse().ok()?, &name)?;
    (kept.owner == caller.principal.id.as_str()).then_some(kept)
}

/// Reads the id and the name in an address.
pub(super) fn named(uri: &str) -> Option<(&str, String)> {
    let (id, name) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    Some((id, decode(name)?))
}

/// Undoes percent-encoding; `None` for what is none, or no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (rest.next()?, rest.next()?);
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(high)? * 16 + digit(low)?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_back() {
        for (text, expected) in [
            ("a.png", Some("a.png")),
            ("a%20b%C3%A9", Some("a bé")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%ff", None),
            ("%+1", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_survives(name in "\\PC{0,40}") {
            prop_assert_eq!(decode(&percent(&name)), Some(name));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            drop(decode(&text));
        }
    }
}
