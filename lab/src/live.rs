//! A server started for a check, on a free port, with a home of its own; gone
//! when dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::http::Client;
use xtask::process;

/// How long a server may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long a server may take to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// What servers under test find programs in: the system's own, no shims.
pub(crate) const CLEAN_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A server's data directory and temporary directory; may outlive a server.
#[derive(Debug)]
pub(crate) struct Home {
    place: Place,
    /// Whose it is, where that is another user.
    user: Option<u32>,
}

/// Where a home is, and what becomes of it.
#[derive(Debug)]
enum Place {
    /// Removed when dropped.
    Temporary(TempDir),
    /// Stays for later servers.
    Kept(PathBuf),
}

impl Home {
    /// Makes an empty one.
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("codex-check-")
            .tempdir()
            .context("failed to make a directory for the server")?;
        Self::furnished(Place::Temporary(directory))
    }

    /// Makes one at `path` that stays there. Of what an earlier server left in its
    /// data directory only the entries named in `kept` are still there.
    pub(crate) fn kept(path: &Path, kept: &[&str]) -> Result<Self> {
        let home = Self::furnished(Place::Kept(path.to_owned()))?;
        clear(&home.data(), kept)?;
        clear(&home.tmp(), &[])?;
        Ok(home)
    }

    fn furnished(place: Place) -> Result<Self> {
        let home = Self { place, user: None };
        for part in [home.data(), home.tmp()] {
            fs::create_dir_all(&part)
                .with_context(|| format!("failed to make {}", part.display()))?;
        }
        Ok(home)
    }

    /// Gives it to another user, who then runs its commands. Gives a copy of the
    /// binary in it: the build directory may be closed to others.
    pub(crate) fn hand_over(&mut self, user: u32, binary: &Path) -> Result<PathBuf> {
        let copy = self.path().join("codex-server");
        fs::copy(binary, &copy).context("failed to copy the binary")?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
            .context("failed to open the binary to all")?;
        for path in [self.path().to_owned(), self.data(), self.tmp()] {
            chown(&path, Some(user), Some(user))
                .with_context(|| format!("failed to give {} away", path.display()))?;
        }
        self.user = Some(user);
        Ok(copy)
    }

    /// All of it.
    pub(crate) fn path(&self) -> &Path {
        match &self.place {
            Place::Temporary(directory) => directory.path(),
            Place::Kept(path) => path,
        }
    }

    /// The data directory (`CODEX_HOME`).
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The temporary directory (`TMPDIR`).
    pub(crate) fn tmp(&self) -> PathBuf {
        self.path().join("tmp")
    }

    /// A command of the server's binary in a clean environment.
    pub(crate) fn command(&self, binary: &Path) -> Command {
        let mut command = process::command(binary);
        command
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .env("HOME", self.path())
            .env("CODEX_HOME", self.data())
            .env("TMPDIR", self.tmp());
        if let Some(user) = self.user {
            command.uid(user).gid(user).current_dir(self.path());
        }
        command
    }

    /// Makes a token, under a new name each time.
    pub(crate) fn token(&self, binary: &Path) -> Result<String> {
        static TOKENS: AtomicU32 = AtomicU32::new(1);
        let name = format!("check-{}", TOKENS.fetch_add(1, Ordering::Relaxed));
        let mut command = self.command(binary);
        command.args(["token", "create", &name]);
        token_of(&process::capture("create a token", &mut command)?)
    }
}

/// Removes the entries of a directory but those of these names.
fn clear(directory: &Path, kept: &[&str]) -> Result<()> {
    let failed = || format!("failed to clear {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if kept.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type().with_context(failed)?.is_dir() {
            fs::remove_dir_all(entry.path()).with_context(failed)?;
        } else {
            fs::remove_file(entry.path()).with_context(failed)?;
        }
    }
    Ok(())
}

/// The token alone on stdout.
pub(crate) fn token_of(printed: &str) -> Result<String> {
    let token = printed.trim();
    if token.split_whitespace().count() != 1 || !token.starts_with("codex_") {
        bail!("`token create` should print the token alone, and printed {printed:?}");
    }
    Ok(token.to_owned())
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    token: Option<String>,
    started: Instant,
}

impl Server {
    /// Starts `serve` on a free port with a rate limit out of the way.
    pub(crate) fn start(binary: &Path, home: &Home, bounds: &[(&str, &str)]) -> Result<Self> {
        let token = home.token(binary)?;
        let mut command = home.command(binary);
        command.args(["serve", "--host", "127.0.0.1", "--port", "0"]);
        command.args(["--rate-limit", "1000000/minute"]);
        command.envs(bounds.iter().copied());
        Self::spawn(&mut command, Some(token))
    }

    /// Starts any server that prints its address as ours does.
    pub(crate) fn spawn(command: &mut Command, token: Option<String>) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "failed to start {}",
                    command.get_program().to_string_lossy()
                )
            })?;
        match listening(&mut child) {
            Ok(address) => Ok(Self {
                child,
                address,
                token,
                started,
            }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// How long ago its process was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its token, when it has one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A client with its token.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, self.token.as_deref())
    }

    /// Kills it so that nothing of it can clean up.
    pub(crate) fn crash(mut self) -> Result<()> {
        self.child.kill().context("failed to kill the server")?;
        self.child.wait().context("failed to reap the server")?;
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        send(&self.child, Signal::TERM)?;
        wait(&mut self.child, STOP_PATIENCE)?.context("the server still runs long after SIGTERM")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Waits until the child prints where it listens.
fn listening(child: &mut Child) -> Result<SocketAddr> {
    let stdout = child.stdout.take().context("stdout is not a pipe")?;
    let stderr = child.stderr.take().context("stderr is not a pipe")?;
    let (sender, receiver) = mpsc::channel();
    for stream in [Stream::Out(stdout), Stream::Error(stderr)] {
        let sender = sender.clone();
        thread::spawn(move || stream.forward(&sender));
    }
    drop(sender);
    let deadline = Instant::now() + START_PATIENCE;
    let mut said = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left) {
            Ok(line) => {
                if let Some(address) = address_in(&line) {
                    return Ok(address);
                }
                said.push_str(&line);
                said.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the server did not listen within {START_PATIENCE:?}; it said:\n{said}")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = child.wait().context("failed to reap the server")?;
                bail!("the server ended with {status} before it listened; it said:\n{said}")
            }
        }
    }
}

#[derive(Debug)]
enum Stream {
    Out(ChildStdout),
    Error(std::process::ChildStderr),
}

impl Stream {
    /// Sends lines as long as somebody listens, and reads on after that, so
    /// that the server never blocks on a full pipe.
    fn forward(self, sender: &mpsc::Sender<String>) {
        let reader: Box<dyn BufRead> = match self {
            Self::Out(stream) => Box::new(BufReader::new(stream)),
            Self::Error(stream) => Box::new(BufReader::new(stream)),
        };
        let mut listener = Some(sender);
        for line in reader.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if listener.is_some_and(|sender| sender.send(line).is_err()) {
                listener = None;
            }
        }
    }
}

/// The address in a line such as `listening on http://127.0.0.1:8000`.
pub(crate) fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, url) = line.split_once("listening on http://")?;
    let end = url
        .find(|character: char| !(character.is_ascii_alphanumeric() || ".:[]".contains(character)))
        .unwrap_or(url.len());
    let mut address: SocketAddr = url[..end].trim_end_matches('.').parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Some(address)
}

/// Sends a signal to a child.
pub(crate) fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("the child has no process id")?, signal)
        .context("failed to signal the server")
}

/// Waits for a child; `None` when it outlasts `patience`.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().context("failed to reap the server")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Ends a child politely, then for certain. For clean-up paths only.
pub(crate) fn end(child: &mut Child) {
    let asked = child.try_wait().is_ok_and(|status| status.is_none())
        && send(child, Signal::TERM).is_ok()
        && wait(child, Duration::from_secs(10)).is_ok_and(|status| status.is_some());
    if !asked && child.kill().is_ok() && child.wait().is_err() {
        eprintln!("warning: process {} could not be reaped", child.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_line() {
        let check = |line: &str, expected: Option<&str>| {
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(address_in(line), expected, "{line:?}");
        };
        check("listening on http://127.0.0.1:8000", Some("127.0.0.1:8000"));
        check(
            "INFO listening on http://127.0.0.1:8000/ (full)",
            Some("127.0.0.1:8000"),
        );
        check("listening on http://0.0.0.0:9.", Some("127.0.0.1:9"));
        check("listening on http://[::1]:80 as root", Some("[::1]:80"));
        check(
            "{\"message\":\"listening on http://127.0.0.1:1\"}",
            Some("127.0.0.1:1"),
        );
        check(
            "\u{1b}[1mlistening on http://127.0.0.1:2\u{1b}[0m",
            Some("127.0.0.1:2"),
        );
        check("listening on http://localhost:1", None);
        check("connecting to http://127.0.0.1:8000", None);
    }

    #[test]
    fn only_a_token_alone_is_a_token() {
        assert_eq!(token_of("codex_abc\n").expect("a token"), "codex_abc");
        assert!(token_of("your token: codex_abc").is_err());
        assert!(token_of("").is_err());
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_words() {
        let mut shell = process::command("sh");
        shell.args(["-c", "echo no sandbox here >&2; exit 7"]);
        let error = Server::spawn(&mut shell, None).expect_err("it never listens");
        let text = error.to_string();
        assert!(
            text.contains("no sandbox here") && text.contains("exit status: 7"),
            "{text}"
        );
    }

    #[test]
    fn a_kept_home_keeps_what_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("home");
        let home = Home::kept(&path, &["packages"]).expect("it is made");
        for part in ["packages/python", "runtimes/x"] {
            fs::create_dir_all(home.data().join(part)).expect("a folder");
        }
        fs::write(home.data().join("state.db"), "").expect("a file");
        drop(home);
        let home = Home::kept(&path, &["packages"]).expect("it is made again");
        let left: Vec<_> = fs::read_dir(home.data())
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["packages"]);
        assert!(home.data().join("packages/python").is_dir());
    }

    #[test]
    fn a_server_is_stopped_by_sigterm() {
        let mut shell = process::command("sh");
        shell.args(["-c", "trap 'exit 0' TERM; echo listening on http://127.0.0.1:9; while :; do sleep 0.05; done"]);
        let server = Server::spawn(&mut shell, None).expect("it says so");
        assert_eq!(server.address.port(), 9);
        assert!(server.stop().expect("it ends").success());
    }
}
