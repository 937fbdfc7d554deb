//! Sessions from their making to their end: lists, and one call each.

use reqwest::Method;
use serde_json::{Value, json};

use super::link::{Ask, Link, object};
use super::{ContextArgs, CreateArgs, DeleteArgs, ListArgs, OneArgs, ShowArgs, Wanted};
use crate::cli::Failure;
use crate::cli::run::printer::remark;
use crate::cli::run::{print_answer, program};
use crate::config::Env;
use crate::exit_code::Exit;
use crate::output;
use crate::output::terminal::printable;

/// A whole MiB, the unit in which servers are asked for memory.
const MIB: u64 = 1024 * 1024;

pub(super) fn list(args: &ListArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let answer = link.call(Method::GET, &["sessions"], Ask::default())?;
    if args.json {
        print_answer(&format!("{answer:#}"))?;
        return Ok(Exit::Success);
    }
    let sessions = answer.get("sessions").and_then(Value::as_array);
    let sessions = sessions.map(Vec::as_slice).unwrap_or_default();
    if sessions.is_empty() {
        output::note("no sessions; make one with: codex-server session create");
        return Ok(Exit::Success);
    }
    let mut rows =
        vec![["ID", "STATE", "LAST USED", "EXPIRES", "CONTEXTS", "NAME"].map(str::to_owned)];
    rows.extend(sessions.iter().map(|session| {
        [
            text(session, "id"),
            text(session, "state"),
            moment(session, "last_used"),
            moment(session, "expires"),
            contexts(session)
                .map(|context| text(context, "name"))
                .collect::<Vec<_>>()
                .join(","),
            text(session, "name"),
        ]
    }));
    output::text(&table(&rows))?;
    Ok(Exit::Success)
}

pub(super) fn create(args: &CreateArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let session = make(&link, &args.wanted, env)?;
    if args.json {
        print_answer(&format!("{session:#}"))?;
    } else {
        output::text(&text(&session, "id"))?;
    }
    Ok(Exit::Success)
}

/// Makes a session, and says what the server has to remark.
pub(super) fn make(link: &Link, wanted: &Wanted, env: &Env) -> Result<Value, Failure> {
    let memory = wanted.memory.map(whole_mib).transpose()?;
    let variables = program::variables(&wanted.env, env)?;
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)));
    let body = object([
        ("language", wanted.language.clone().map(Value::from)),
        ("name", wanted.name.clone().map(Value::from)),
        ("memory_mb", memory.map(Value::from)),
        ("ttl", wanted.ttl.map(|time| json!(time.as_secs_f64()))),
        (
            "idle_timeout",
            wanted.idle_timeout.map(|time| json!(time.as_secs_f64())),
        ),
        ("env", (!wanted.env.is_empty()).then(|| variables.collect())),
    ]);
    let ask = Ask {
        body: Some(body),
        ..Ask::default()
    };
    let session = link.call(Method::POST, &["sessions"], ask)?;
    if text(&session, "id").is_empty() {
        return Err(Failure::text(
            Exit::Failed,
            "the server made a session without an id",
        ));
    }
    warn(&session);
    Ok(session)
}

/// Says what the server has to remark on what it did.
pub(super) fn warn(session: &Value) {
    let warnings = session.get("warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten().filter_map(Value::as_str) {
        remark(warning);
    }
}

fn whole_mib(bytes: u64) -> Result<u64, Failure> {
    if bytes == 0 || !bytes.is_multiple_of(MIB) {
        return Err(Failure::text(
            Exit::Usage,
            "--memory: a server is asked for whole MiB, such as 512MiB",
        ));
    }
    Ok(bytes / MIB)
}

pub(super) fn show(args: &ShowArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let session = link.call(Method::GET, &["sessions", &args.id], Ask::default())?;
    if args.json {
        print_answer(&format!("{session:#}"))?;
    } else {
        output::text(&told(&session))?;
    }
    Ok(Exit::Success)
}

/// A session as a person reads it.
fn told(session: &Value) -> String {
    let number = |name: &str| {
        session
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let mut rows = vec![
        ["id".to_owned(), text(session, "id")],
        ["name".to_owned(), text(session, "name")],
        ["state".to_owned(), text(session, "state")],
        ["isolation".to_owned(), text(session, "isolation")],
        ["memory".to_owned(), format!("{} MiB", number("memory_mb"))],
        ["created".to_owned(), moment(session, "created")],
        ["last used".to_owned(), moment(session, "last_used")],
        ["expires".to_owned(), moment(session, "expires")],
        [
            "paused after".to_owned(),
            format!("{} s without a call", number("idle_timeout")),
        ],
    ];
    rows.retain(|[_, value]| !value.is_empty());
    let mut lines = table(&rows);
    let mut rows = vec![["CONTEXT", "LANGUAGE", "STATE", "CELLS"].map(str::to_owned)];
    rows.extend(contexts(session).map(|context| {
        let cells = context
            .get("cells")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        [
            text(context, "name"),
            text(context, "language"),
            text(context, "state"),
            cells.to_string(),
        ]
    }));
    if rows.len() > 1 {
        lines.push('\n');
        lines.push_str(&table(&rows));
    }
    lines
}

pub(super) fn delete(args: &DeleteArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let mut exit = Exit::Success;
    for id in &args.ids {
        // One that is gone already keeps no other from going.
        match link.call(Method::DELETE, &["sessions", id], Ask::default()) {
            Ok(_) => output::note(&format!("deleted {}", printable(id))),
            Err(failure) => {
                output::note(&format!(
                    "error: not deleted: {}: {}",
                    printable(id),
                    failure.error
                ));
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

/// Pauses or resumes.
pub(super) fn pause(args: &OneArgs, verb: &str, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let path = ["sessions", args.id.as_str(), verb];
    let session = link.call(Method::POST, &path, Ask::default())?;
    output::note(&format!(
        "{} is {}",
        text(&session, "id"),
        text(&session, "state")
    ));
    Ok(Exit::Success)
}

/// Interrupts or restarts interpreters.
pub(super) fn in_context(args: &ContextArgs, verb: &str, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let session = on_context(&link, &args.id, verb, args.context.as_deref());
    let session = link.runtime.block_on(session)?;
    for context in contexts(&session) {
        output::note(&format!(
            "{} is {}",
            text(context, "name"),
            text(context, "state")
        ));
    }
    Ok(Exit::Success)
}

/// Has something done to one context, or to all.
pub(super) async fn on_context(
    link: &Link,
    id: &str,
    verb: &str,
    context: Option<&str>,
) -> Result<Value, Failure> {
    let ask = Ask {
        body: Some(object([("context", context.map(Value::from))])),
        ..Ask::default()
    };
    link.ask(Method::POST, &["sessions", id, verb], ask).await
}

/// The contexts of a session.
pub(super) fn contexts(session: &Value) -> impl Iterator<Item = &Value> {
    let contexts = session.get("contexts").and_then(Value::as_array);
    contexts.into_iter().flatten()
}

/// A text of an answer, for a line of its own; empty where there is none.
pub(super) fn text(value: &Value, name: &str) -> String {
    printable(value.get(name).and_then(Value::as_str).unwrap_or_default())
}

/// A moment to the second, without what only programs want.
pub(super) fn moment(value: &Value, name: &str) -> String {
    let text = text(value, name);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{}Z", seconds.replace('T', " ")),
        None => text.replace('T', " "),
    }
}

/// Columns as wide as what is in them.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        lines.push_str(line.join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_told_in_lines_that_nothing_breaks() {
        let session = json!({
            "id": "ses_1", "state": "live", "name": "a\n\u{1b}[2J", "memory_mb": 512, "idle_timeout": 600,
            "created": "2026-01-02T03:04:05.678901Z",
            "contexts": [{"name": "python", "language": "python", "state": "idle", "cells": 3}],
        });
        let told = told(&session);
        for words in [
            "id            ses_1\n",
            "name          a\\n\\u{1b}[2J\n",
            "created       2026-01-02 03:04:05Z\n",
            "paused after  600 s without a call\n",
            "\nCONTEXT  LANGUAGE  STATE  CELLS\npython   python    idle   3\n",
        ] {
            assert!(told.contains(words), "lacks {words:?}: {told}");
        }
        assert!(!told.contains("isolation"), "{told}");
    }
}
