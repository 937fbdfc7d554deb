//! Starting other programs: the one place in this crate that does.
//!
//! A failure always names what was being done, the program and its exit.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};

/// Directories that hold programs for root and are often not in `PATH`.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A command that runs in the repository's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "xtask is not the server: starting programs is its work"
    )]
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Cargo, the same one that runs us.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lives in a folder of the repository")
}

/// Finds a program in `PATH` and in the system directories.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Runs a command with our own output; anything but success is an error.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("failed to {what}: could not start {}", name(command)))?;
    expect_success(what, command, status)
}

/// Runs a command and gives back what it printed to stdout; what it said on
/// stderr is shown when it fails.
pub fn capture(what: &str, command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to {what}: could not start {}", name(command)))?;
    expect_success(what, command, output.status)
        .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command runs and succeeds; its output is thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command, shows both its streams line by line, and keeps them.
pub fn tee(what: &str, command: &mut Command) -> Result<(ExitStatus, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to {what}: could not start {}", name(command)))?;
    let (sender, lines) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || forward_lines(stream, &sender));
    }
    drop(sender);
    let mut kept = String::new();
    for line in lines {
        println!("{line}");
        kept.push_str(&line);
        kept.push('\n');
    }
    std::io::stdout().flush().context("failed to print")?;
    let status = child
        .wait()
        .with_context(|| format!("failed to {what}: lost {}", name(command)))?;
    Ok((status, kept))
}

fn forward_lines(stream: impl Read, sender: &mpsc::Sender<String>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if sender.send(line).is_err() {
            return;
        }
    }
}

fn expect_success(what: &str, command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("failed to {what}: {} ended with {status}", name(command));
    }
    Ok(())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Whether we run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }

    #[test]
    fn find_knows_what_is_there_and_what_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    fn a_failure_names_step_and_program() {
        let error = run("try", &mut command("false")).expect_err("false fails");
        assert_eq!(
            error.to_string(),
            "failed to try: false ended with exit status: 1"
        );
    }

    #[test]
    fn tee_keeps_both_streams() {
        let mut shell = command("sh");
        shell.args(["-c", "echo one; echo two >&2; exit 3"]);
        let (status, text) = tee("try", &mut shell).expect("sh starts");
        assert_eq!(status.code(), Some(3));
        assert!(text.contains("one\n") && text.contains("two\n"), "{text}");
    }
}
