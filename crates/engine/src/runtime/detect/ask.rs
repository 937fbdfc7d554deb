//! Runs interpreters and reads what they say of themselves.
//!
//! The only place in the engine that starts a process, and only the operator's
//! own interpreters, before any request exists. Starts no thread: several run
//! at once, and one loop looks after them.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

use crate::runtime::manifest::Detect;

/// How long one candidate may take. A shim with a cold cache needs a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How many candidates run at once.
const AT_ONCE: usize = 8;
/// How often running candidates are looked at.
const POLL: Duration = Duration::from_millis(2);
/// The most that is read of what a candidate prints, in bytes.
const REPORT_MAX: u64 = 64 * 1024;

/// Asks each candidate about itself; the answers are in the order of the questions.
pub(super) fn ask_all(
    detect: &Detect,
    candidates: &[&Path],
    program: &str,
    path: &[PathBuf],
    patience: Duration,
) -> Vec<Result<String, String>> {
    let mut answers = vec![Err(String::new()); candidates.len()];
    let mut waiting = candidates.iter().enumerate();
    let mut running: Vec<(usize, Child, Instant)> = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((index, candidate)) = waiting.next()
        {
            match start(detect, candidate, program, path) {
                Ok(child) => running.push((index, child, Instant::now() + patience)),
                Err(why) => answers[index] = Err(why),
            }
        }
        if running.is_empty() {
            return answers;
        }
        running.retain_mut(
            |(index, child, deadline)| match poll(child, *deadline, patience) {
                Some(answer) => {
                    answers[*index] = answer;
                    false
                }
                None => true,
            },
        );
        std::thread::sleep(POLL);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "detection runs the operator's own interpreters, before any request exists"
)]
fn start(
    detect: &Detect,
    candidate: &Path,
    program: &str,
    path: &[PathBuf],
) -> Result<Child, String> {
    let candidate = candidate.to_string_lossy();
    let words: Vec<String> = detect
        .argv
        .iter()
        .map(|word| match word.as_str() {
            "{program}" => program.to_owned(),
            word => word.replace("{candidate}", &candidate),
        })
        .collect();
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env(
            "PATH",
            std::env::join_paths(path).map_err(|error| error.to_string())?,
        )
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    // Version switchers (shims) keep their settings below the home directory,
    // or where a variable of theirs says.
    if let Some(home) = std::env::home_dir() {
        command.env("HOME", home);
    }
    for name in &detect.environment {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .spawn()
        .map_err(|error| format!("does not start: {error}"))
}

/// What a child answered; `None` while it still runs. One that takes too long
/// is killed with its own children.
fn poll(
    child: &mut Child,
    deadline: Instant,
    patience: Duration,
) -> Option<Result<String, String>> {
    match child.try_wait() {
        Ok(Some(status)) => Some(answer(child, status)),
        Ok(None) if Instant::now() < deadline => None,
        Ok(None) => {
            kill_group(child);
            let why = format!("did not answer within {} s", patience.as_secs());
            Some(Err(match child.wait() {
                Ok(_) => why,
                Err(error) => format!("{why}: {error}"),
            }))
        }
        Err(error) => Some(Err(format!("cannot be waited for: {error}"))),
    }
}

fn answer(child: &mut Child, status: ExitStatus) -> Result<String, String> {
    let stdout = child.stdout.take().ok_or("has no output")?;
    if !status.success() {
        return Err(format!("failed with {status}"));
    }
    read(stdout).map_err(|error| format!("cannot be read: {error}"))
}

fn kill_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let killed =
        group.is_some_and(|group| rustix::process::kill_process_group(group, Signal::KILL).is_ok());
    if !killed && let Err(error) = child.kill() {
        tracing::warn!(%error, "a late interpreter could not be killed");
    }
}

/// What is in the pipe. Does not wait for its end: a grandchild may hold it open.
fn read(stdout: ChildStdout) -> std::io::Result<String> {
    rustix::fs::fcntl_setfl(&stdout, OFlags::NONBLOCK)?;
    let mut bytes = Vec::new();
    match stdout.take(REPORT_MAX).read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
