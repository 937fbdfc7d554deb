//! What is measured beside servers: an interpreter that a program starts by itself,
//! bare or inside bubblewrap. Never listens anywhere, and ends when dropped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::contenders::PYTHON;
use super::rows::{Check, ROWS};
use crate::live::{self, CLEAN_PATH, Home};
use xtask::process;

/// A program that runs `subprocess.run` for each line that it reads.
#[derive(Debug)]
pub(super) struct Bare {
    /// Its name in the table.
    pub(super) name: &'static str,
    child: Child,
    /// Taken when dropped: it ends by itself when nothing more can come.
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Kept until it has ended.
    _home: Home,
}

impl Bare {
    /// Starts those that this machine has, whose programs see these packages. Says of
    /// each other one why it is left out.
    ///
    /// # Errors
    /// When the one that takes nothing but an interpreter does not work.
    pub(super) fn all(packages: Option<&Path>) -> Result<Vec<Self>> {
        let mut all = vec![Self::start("subprocess", &[], packages)?];
        if process::find("bwrap").is_none() {
            println!("bubblewrap is left out: it is not installed (Debian: bubblewrap)");
            return Ok(all);
        }
        match Self::start("bubblewrap", &["--bubblewrap"], packages) {
            Ok(bubblewrap) => all.push(bubblewrap),
            Err(error) => println!("bubblewrap is left out: it does not work here: {error:#}"),
        }
        Ok(all)
    }

    /// Starts one, and runs a program to see that it works.
    fn start(name: &'static str, words: &[&str], packages: Option<&Path>) -> Result<Self> {
        let home = Home::new()?;
        let mut command = process::command(PYTHON);
        command
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .env("HOME", home.path())
            .env("TMPDIR", home.tmp())
            .arg("bench/bare.py")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(packages) = packages {
            command.env("BENCH_PACKAGES", packages);
        }
        let mut child = command.spawn().context("failed to start bench/bare.py")?;
        let questions = child.stdin.take();
        let answers = child.stdout.take().context("stdout is not a pipe")?;
        let mut bare = Self {
            name,
            child,
            questions,
            answers: BufReader::new(answers),
            _home: home,
        };
        let check = Check::new(&ROWS[0]);
        let answer = bare.ask(&check.next_request())?;
        let answer: Value = serde_json::from_str(&answer).context("an answer is no JSON")?;
        check
            .pass_answer(&answer)
            .with_context(|| format!("{name} answered {answer}"))?;
        Ok(bare)
    }

    /// Sends a request, and returns the line that answers it.
    pub(super) fn ask(&mut self, request: &Value) -> Result<String> {
        let questions = self.questions.as_mut().context("nobody reads any more")?;
        let failed = || format!("failed to ask {}", self.name);
        questions
            .write_all(format!("{request}\n").as_bytes())
            .with_context(failed)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).with_context(failed)?;
        ensure!(!answer.is_empty(), "{} has ended", self.name);
        Ok(answer)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.questions.take());
        live::end(&mut self.child);
    }
}

/// Returns the version of bubblewrap, where it is installed.
pub(super) fn bubblewrap_version() -> String {
    let version = process::capture(
        "ask bubblewrap for its version",
        process::command("bwrap").arg("--version"),
    );
    version.map_or_else(
        |_| "not installed".to_owned(),
        |text| text.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_run_without_a_server() {
        let mut all = Bare::all(None).expect("an interpreter is there");
        for bare in &mut all {
            for row in ROWS.iter().filter(|row| row.is_hello) {
                let check = Check::new(row);
                let answer = bare.ask(&check.next_request()).expect("it answers");
                let answer: Value = serde_json::from_str(&answer).expect("it is JSON");
                check.pass_answer(&answer).expect("it is right");
            }
        }
    }

    #[test]
    fn one_that_does_not_work_is_an_error() {
        let request = serde_json::json!({"language": "cobol", "code": ""});
        let mut bare = Bare::start("subprocess", &[], None).expect("it starts");
        assert!(bare.ask(&request).is_err());
    }
}
