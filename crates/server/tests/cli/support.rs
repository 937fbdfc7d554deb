//! A data directory of its own for each test, and the binary in it.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A data directory.
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Checks code and that the words are said on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(words), "lacks {words:?}: {self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
    }

    /// Checks that it succeeded, and gives standard output.
    #[track_caller]
    pub(crate) fn out(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// The data directory, which is not there at first.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Writes `codex.toml` into the data directory.
    pub(crate) fn configure(&self, text: &str) {
        fs::create_dir_all(self.path()).unwrap();
        fs::write(self.path().join("codex.toml"), text).unwrap();
    }

    /// The binary with a clean environment.
    #[expect(clippy::disallowed_methods, reason = "the binary is what is tested")]
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codex-server"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("CODEX_HOME", self.path())
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    /// Starts a server on a free port.
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        Self::listen(self.command(args))
    }

    /// Starts a server on a free port with a command of one's own.
    pub(crate) fn listen(mut command: Command) -> Server {
        let mut child = command
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                let mut error = String::new();
                child
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut error)
                    .unwrap();
                panic!("the server ended before it listened: {said}{error}");
            }
            if let Some(url) = line.trim_end().strip_prefix("listening on ") {
                break url.to_owned();
            }
            said.push_str(&line);
        };
        Server { child, url, said }
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    Done {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    /// What it said before it listened.
    pub(crate) said: String,
}

/// Looks again and again until it is so, and fails when time is out.
pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Server {
    /// Any other child of the binary, killed when dropped as well.
    pub(crate) fn of(child: Child) -> Self {
        Self {
            child,
            url: String::new(),
            said: String::new(),
        }
    }

    /// The token that it showed.
    pub(crate) fn token(&self) -> String {
        let lines = self.said.lines().map(str::trim);
        lines
            .filter(|line| line.starts_with("codex_"))
            .map(str::to_owned)
            .next()
            .unwrap()
    }

    /// Kills the process that makes its boxes, and waits until it is dead.
    #[expect(clippy::disallowed_methods, reason = "std cannot send signals")]
    pub(crate) fn kill_warden(&self) {
        let server = self.child.id();
        let tasks = format!("/proc/{server}/task/{server}/children");
        let children = fs::read_to_string(tasks).unwrap();
        let is_warden = |pid: &&str| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with("codex-server: warden"))
        };
        let warden = children.split_whitespace().find(is_warden).unwrap();
        let killed = Command::new("kill").args(["-KILL", warden]).status();
        assert!(killed.unwrap().success());
        wait_for("the warden's end", || {
            let stat = fs::read_to_string(format!("/proc/{warden}/stat"));
            // A zombie, or reaped already.
            stat.map_or(true, |stat| stat.contains(") Z "))
        });
    }

    /// Sends it a signal.
    #[expect(clippy::disallowed_methods, reason = "std cannot send signals")]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for its end; gives the code and standard error.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let mut error = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut error)
            .unwrap();
        (self.child.wait().unwrap().code(), error)
    }

    /// Status and body of one request.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, String) {
        self.try_call(method, path, token, body).unwrap()
    }

    /// The same of a server that may have ended.
    pub(crate) fn try_call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let token = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(cut)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, body.to_owned()))
    }

    /// The status of a small run.
    pub(crate) fn execute(&self, token: Option<&str>) -> u16 {
        self.call(
            "POST",
            "/execute",
            token,
            r#"{"code": "print(2+2)", "language": "python"}"#,
        )
        .0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already in most tests.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
