//! Files of a session: put in, got out, listed. Contents go by in pieces. A
//! file that is got never takes the place of another unasked, nor is it there
//! by half.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use reqwest::{Method, Response};
use serde_json::Value;

use super::life::{moment, table, text};
use super::link::{Ask, Link, Source};
use super::{GetArgs, LsArgs, PutArgs};
use crate::cli::Failure;
use crate::cli::run::printer::Printing;
use crate::cli::run::{about, print_answer, program};
use crate::config::Env;
use crate::exit_code::Exit;
use crate::output;
use crate::output::terminal::{Tamer, printable};

pub(super) fn put(args: &PutArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let remote = send(&link, &args.id, &args.local, args.remote.as_deref())?;
    output::note(&format!("put {}", printable(&remote)));
    Ok(Exit::Success)
}

/// Puts a file into a session and returns its path there.
pub(super) fn send(
    link: &Link,
    id: &str,
    local: &Path,
    remote: Option<&str>,
) -> Result<String, Failure> {
    let usage = |message: String| Failure::text(Exit::Usage, message);
    let own = local.file_name().and_then(|name| name.to_str());
    let from_stdin = program::is_dash(local);
    let remote = match (remote, own) {
        // As `cp` has it, into a directory.
        (Some(remote), Some(own)) if remote.ends_with('/') && !from_stdin => {
            format!("{remote}{own}")
        }
        (Some(remote), _) => remote.to_owned(),
        (None, Some(own)) if !from_stdin => own.to_owned(),
        (None, _) => return Err(usage("say which path it gets in the session".to_owned())),
    };
    link.runtime.block_on(async {
        let source = if from_stdin {
            Source::stdin()
        } else {
            let opened = Source::file(local).await;
            opened.map_err(|error| usage(format!("failed to read {}: {error}", local.display())))?
        };
        link.put(id, &remote, source).await
    })?;
    Ok(remote)
}

pub(super) fn get(args: &GetArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    if args.local.as_deref().is_some_and(program::is_dash) {
        link.runtime.block_on(async {
            let response = link.open(&args.id, &args.remote).await?;
            let mut tamer = output::is_terminal().then(Tamer::default);
            let mut print = |bytes: &[u8]| match &mut tamer {
                Some(tamer) => output::bytes(&tamer.push(bytes)),
                None => output::bytes(bytes),
            };
            copy(&link, response, &mut print).await
        })?;
        return Ok(Exit::Success);
    }
    let local = receive(
        &link,
        &args.id,
        &args.remote,
        args.local.as_deref(),
        args.force,
    )?;
    output::note(&format!("got {}", printable(&local.display().to_string())));
    Ok(Exit::Success)
}

/// Gets a file out of a session and returns where it is.
pub(super) fn receive(
    link: &Link,
    id: &str,
    remote: &str,
    local: Option<&Path>,
    force: bool,
) -> Result<PathBuf, Failure> {
    let own = remote.rsplit('/').next().unwrap_or(remote);
    let local = match local {
        Some(directory) if directory.is_dir() => directory.join(own),
        Some(file) => file.to_owned(),
        None => own.into(),
    };
    let failed = |error: io::Error| {
        let cure = match error.kind() {
            io::ErrorKind::AlreadyExists => "; name another place, or replace it with --force",
            _ => "",
        };
        Failure::text(
            Exit::Failed,
            format!("failed to write {}: {error}{cure}", local.display()),
        )
    };
    // Refused before anything is fetched; whoever is faster than us is not replaced either.
    if !force && local.symlink_metadata().is_ok() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let name = format!(".codex-server-{}", uuid::Uuid::now_v7());
    let staging = local.with_file_name(name);
    link.runtime.block_on(async {
        let response = link.open(id, remote).await?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .open(&staging)
            .map_err(failed)?;
        let copied = copy(link, response, &mut |bytes: &[u8]| file.write_all(bytes)).await;
        let placed = copied.and_then(|()| {
            let placed = if force {
                std::fs::rename(&staging, &local)
            } else {
                std::fs::hard_link(&staging, &local)
            };
            placed.map_err(failed)
        });
        if !(force && placed.is_ok())
            && let Err(error) = std::fs::remove_file(&staging)
        {
            tracing::warn!(%error, "failed to remove a file that is not whole");
        }
        placed
    })?;
    Ok(local)
}

/// Hands on a body in pieces.
async fn copy(
    link: &Link,
    mut response: Response,
    write: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Failure> {
    let far = link.far(true, Printing::Tame);
    loop {
        let piece = far.patient(response.chunk()).await?;
        match piece.map_err(|error| link.server.failed(&error))? {
            Some(piece) => write(&piece)?,
            None => return Ok(()),
        }
    }
}

pub(super) fn list(args: &LsArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let answer = entries(&link, &args.id, args.path.as_deref(), args.deep)?;
    if args.json {
        print_answer(&format!("{answer:#}"))?;
    } else {
        output::bytes(told(&answer).as_bytes())?;
        if answer.get("truncated") == Some(&Value::Bool(true)) {
            output::note("there are more; ask for a directory");
        }
    }
    Ok(Exit::Success)
}

/// What is in a directory of a session, as the server answers.
pub(super) fn entries(
    link: &Link,
    id: &str,
    path: Option<&str>,
    deep: bool,
) -> Result<Value, Failure> {
    let query = [
        ("path", path.unwrap_or_default()),
        ("deep", if deep { "true" } else { "false" }),
    ];
    let ask = Ask {
        query: &query,
        ..Ask::default()
    };
    link.call(Method::GET, &["sessions", id, "files"], ask)
}

/// A list of files as a person reads it.
pub(super) fn told(answer: &Value) -> String {
    let files = answer.get("files").and_then(Value::as_array);
    let rows: Vec<[String; 3]> = files
        .into_iter()
        .flatten()
        .map(|file| {
            let size = file.get("size").and_then(Value::as_u64).unwrap_or_default();
            let path = text(file, "path");
            let (size, path) = match text(file, "kind").as_str() {
                "directory" => (String::new(), format!("{path}/")),
                "file" => (about(size), path),
                kind => (kind.to_owned(), path),
            };
            [size, moment(file, "modified"), path]
        })
        .collect();
    table(&rows)
}
