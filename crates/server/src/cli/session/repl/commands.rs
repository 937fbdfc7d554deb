//! What begins with a dot: commands to the REPL itself. A failing one is told and
//! ends nothing.

use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use super::Repl;
use crate::cli::Failure;
use crate::cli::session::files;
use crate::cli::session::life::{contexts, on_context, text, warn};
use crate::cli::session::link::{Ask, object};
use crate::exit_code::Exit;
use crate::output;
use crate::output::terminal::printable;

const HELP: &str = "\
.help                    this
.files [PATH]            list files of the session
.put PATH [NAME]         put a file into the session
.get NAME [PATH]         get a file out of it
.stdin TEXT              what input() reads in the next cell; \\n begins a new line
.context [NAME [LANG]]   list the interpreters, change to one, or make one
.fork [NAME]             go on in a copy of this interpreter
.restart                 begin afresh in this interpreter; files stay
.pause                   stop all programs until the next cell
.quit                    leave, as Ctrl-D does

A line that is not whole goes on: in Python after a colon until an empty line, and in
both languages until brackets and long strings are closed. Two empty lines send it in
any case. Ctrl-C stops the cell that runs and keeps the state, or drops the line.
input() gets what .stdin set, and nothing else.";

/// What comes after a command.
pub(super) enum Then {
    GoOn,
    Leave,
}

/// Whether a line is meant for the REPL: `.5` and `...` are code.
pub(super) fn is_command(line: &str) -> bool {
    let mut signs = line.trim_start().chars();
    signs.next() == Some('.')
        && signs.next().is_some_and(|c| c.is_ascii_lowercase())
        && !line.trim_end().contains('\n')
}

/// Carries a command out.
pub(super) fn carry_out(repl: &mut Repl, line: &str) -> Result<Then, Failure> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let (first, second) = match rest.split_once(char::is_whitespace) {
        Some((first, second)) => (Some(first), Some(second.trim())),
        None => ((!rest.is_empty()).then_some(rest), None),
    };
    let usage = |how: &str| Failure::text(Exit::Usage, format!("it is used so: {how}"));
    match word {
        ".help" => output::text(HELP)?,
        ".quit" | ".exit" => return Ok(Then::Leave),
        ".files" => {
            let entries = files::entries(&repl.link, &repl.id, first, false)?;
            let told = files::told(&entries);
            if told.is_empty() {
                output::note("no files");
            } else {
                output::text(&told)?;
            }
        }
        ".put" => {
            let path = first.ok_or_else(|| usage(".put PATH [NAME]"))?;
            let name = files::send(&repl.link, &repl.id, Path::new(path), second)?;
            output::note(&format!("put {}", printable(&name)));
        }
        ".get" => {
            let name = first.ok_or_else(|| usage(".get NAME [PATH]"))?;
            let local = second.map(Path::new);
            let local = files::receive(&repl.link, &repl.id, name, local, false)?;
            output::note(&format!("got {}", printable(&local.display().to_string())));
        }
        ".stdin" => {
            let text = rest.replace("\\n", "\n");
            repl.stdin = (!text.is_empty()).then(|| format!("{text}\n"));
        }
        ".context" => context(repl, first, second)?,
        ".fork" => fork(repl, first)?,
        ".restart" => {
            let context = repl.context.as_deref();
            let restarted = on_context(&repl.link, &repl.id, "restart", context);
            repl.link.runtime.block_on(restarted)?;
            output::note("restarted: variables are gone, files are there");
        }
        ".pause" => {
            let path = ["sessions", repl.id.as_str(), "pause"];
            repl.link.call(Method::POST, &path, Ask::default())?;
            output::note("paused until the next cell");
        }
        _ => {
            return Err(Failure::text(
                Exit::Usage,
                format!("{} is no command; .help lists them", printable(word)),
            ));
        }
    }
    Ok(Then::GoOn)
}

fn context(repl: &mut Repl, name: Option<&str>, language: Option<&str>) -> Result<(), Failure> {
    let path = ["sessions", repl.id.as_str()];
    let mut session = repl.link.call(Method::GET, &path, Ask::default())?;
    let Some(name) = name else {
        for context in contexts(&session) {
            let own = text(context, "name");
            let here = if repl.context.as_ref() == Some(&own) {
                ", this one"
            } else {
                ""
            };
            output::text(&format!("{own} ({}{here})", text(context, "language")))?;
        }
        return Ok(());
    };
    let known = |session: &Value| contexts(session).any(|context| text(context, "name") == name);
    if !known(&session) {
        let language = language.ok_or_else(|| {
            let names: Vec<String> = contexts(&session).map(|one| text(one, "name")).collect();
            Failure::text(
                Exit::Failed,
                format!(
                    "there is no context {}; there is: {}. Make one with .context NAME LANGUAGE",
                    printable(name),
                    names.join(", ")
                ),
            )
        })?;
        let ask = Ask {
            body: Some(object([
                ("name", Some(name.into())),
                ("language", Some(language.into())),
            ])),
            ..Ask::default()
        };
        let path = ["sessions", repl.id.as_str(), "contexts"];
        session = repl.link.call(Method::POST, &path, ask)?;
    }
    repl.enter(&session, name);
    Ok(())
}

fn fork(repl: &mut Repl, name: Option<&str>) -> Result<(), Failure> {
    let ask = Ask {
        body: Some(object([
            ("context", repl.context.clone().map(Value::from)),
            ("name", name.map(Value::from)),
        ])),
        ..Ask::default()
    };
    let path = ["sessions", repl.id.as_str(), "fork"];
    let session = repl.link.call(Method::POST, &path, ask)?;
    let forked = text(&session, "forked");
    if forked.is_empty() {
        return Err(Failure::text(
            Exit::Failed,
            "the server does not say what it made; .context lists the interpreters",
        ));
    }
    warn(&session);
    let back = repl
        .context
        .as_ref()
        .map_or_else(String::new, |from| format!("; .context {from} goes back"));
    output::note(&format!("in {forked} now{back}"));
    repl.enter(&session, &forked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_code() {
        for (line, expected) in [
            (".help", true),
            ("  .put a b ", true),
            (".quit\n", true),
            (".5 + 1", false),
            ("...", false),
            ("", false),
            (".", false),
            ("x.y", false),
            (".then(1)\n.then(2)", false),
        ] {
            assert_eq!(is_command(line), expected, "{line:?}");
        }
    }
}
