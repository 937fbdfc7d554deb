//! `session exec`: a shell command beside the interpreters of a session.

use engine::Stream;
use reqwest::Method;
use serde_json::{Value, json};

use super::ExecArgs;
use super::link::{Ask, object};
use crate::cli::Failure;
use crate::cli::run::printer::{Printer, Printing, remark};
use crate::cli::run::{exit_code, print_answer, program};
use crate::config::Env;
use crate::exit_code::Exit;
use crate::output;

pub(super) fn exec(args: &ExecArgs, env: &Env) -> Result<Exit, Failure> {
    let link = args.at.link(env)?;
    let variables = program::variables(&args.env, env)?;
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)));
    let stdin = args.stdin.as_deref().map(read).transpose()?;
    let body = object([
        ("command", Some(command_of(&args.words).into())),
        ("directory", args.directory.clone().map(Value::from)),
        ("env", (!args.env.is_empty()).then(|| variables.collect())),
        ("stdin", stdin.map(Value::from)),
        (
            "timeout",
            args.timeout.map(|time| json!(time.as_secs_f64())),
        ),
    ]);
    let ask = Ask {
        body: Some(body),
        ..Ask::default()
    };
    let path = ["sessions", args.id.as_str(), "commands"];
    let answer = link.runtime.block_on(async {
        tokio::select! {
            answer = link.ask(Method::POST, &path, ask) => answer.map(Some),
            // Dropping the call closes the connection, which ends the command.
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    })?;
    let Some(answer) = answer else {
        output::note("interrupted");
        return Ok(Exit::Interrupted);
    };
    if args.json {
        print_answer(&format!("{answer:#}"))?;
        return Ok(Exit::Success);
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut printer = Printer::new(Printing::of(args.raw));
    printer.print(Stream::Stdout, text("output").as_bytes())?;
    printer.print(Stream::Stderr, text("error").as_bytes())?;
    printer.finish()?;
    match text("status") {
        "timeout" => remark("stopped when its time was over; --timeout gives it more"),
        "memory_limit" => remark("stopped for want of memory in the session"),
        _ => {}
    }
    let code = answer.get("exit_code").and_then(Value::as_i64);
    let code = code.and_then(|code| i32::try_from(code).ok());
    let code = code.ok_or_else(|| Failure::text(Exit::Failed, "the server gave no exit code"))?;
    Ok(Exit::Program(exit_code(code)))
}

/// Text for a server, which takes nothing else as input.
pub(super) fn read(path: &std::path::Path) -> Result<String, Failure> {
    let content = program::read(path, program::FAR_LIMIT)?;
    String::from_utf8(content).map_err(|_| {
        Failure::text(
            Exit::Usage,
            format!(
                "{} is not UTF-8, and a server takes text only as input; put it into the session as a file",
                path.display()
            ),
        )
    })
}

/// One word is a command as it is; of several each stays what it is here.
fn command_of(words: &[String]) -> String {
    match words {
        [command] => command.clone(),
        words => words
            .iter()
            .map(|word| quoted(word))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// A word that a shell leaves as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_what_they_are() {
        let check = |words: &[&str], expected: &str| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(command_of(&words), expected);
        };
        check(&["ls | wc -l"], "ls | wc -l");
        check(&["wc", "-l", "a.csv"], "wc -l a.csv");
        check(
            &["A=1", "$HOME it's", "", "*"],
            r"'A=1' '$HOME it'\''s' '' '*'",
        );
    }
}
