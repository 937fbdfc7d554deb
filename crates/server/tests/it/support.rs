//! A real server for each test that needs one, and a client that sends
//! exactly the bytes it is given.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::processes;
use crate::server::{PATIENCE, Process, wait_for, wait_until};

/// The code-free environment of every server under test.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A server on a port of its own, killed when dropped.
pub(crate) struct TestServer {
    process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    home: tempfile::TempDir,
}

/// The binary in a data directory, with these settings and no others.
#[expect(
    clippy::disallowed_methods,
    reason = "the server under test is a process of its own"
)]
fn binary(home: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codex-server"));
    surround(&mut command, home, settings);
    command
}

/// [`binary`] with a tmpfs over its data directory, in a mount namespace that
/// ends with it; whoever is not root needs a user namespace for that.
#[expect(
    clippy::disallowed_methods,
    reason = "the server under test is a process of its own"
)]
fn on_small_disk(home: &Path, size: &str, settings: &[(&str, &str)]) -> Command {
    const SCRIPT: &str =
        "mount -t tmpfs -o mode=700,size=$1 small \"$CODEX_HOME\" && shift && exec \"$@\"";
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut command = Command::new("unshare");
    command
        .arg(if root { "-m" } else { "-rm" })
        .args(["sh", "-c", SCRIPT, "sh", size])
        .arg(env!("CARGO_BIN_EXE_codex-server"));
    surround(&mut command, home, settings);
    command
}

fn surround(command: &mut Command, home: &Path, settings: &[(&str, &str)]) {
    command
        .env_clear()
        .env("PATH", PATH)
        .env("CODEX_HOME", home)
        .envs(settings.iter().copied());
}

impl TestServer {
    /// A server with tokens, and one token made for the test.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server that lets everybody in.
    pub(crate) fn open(settings: &[(&str, &str)]) -> Self {
        let mut all = vec![("CODEX_OPEN", "true"), ("CODEX_RATE_LIMIT", "6000/minute")];
        all.extend(settings);
        Self::with(&all)
    }

    /// A server with settings from its environment.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a scratch directory");
        let command = binary(home.path(), settings);
        Self::launch(command, home, settings, None)
    }

    /// A server whose data directory is a file system of its own, of `size`,
    /// in a mount namespace of its own. Its token is of no use.
    pub(crate) fn on_small_disk(size: &str, settings: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a scratch directory");
        let command = on_small_disk(home.path(), size, settings);
        Self::launch(command, home, settings, None)
    }

    /// Kills the server without warning and starts another in its data directory.
    pub(crate) fn crash_and_restart(mut self, settings: &[(&str, &str)]) -> Self {
        self.process.signal("KILL");
        self.process.ended();
        let nothing = tempfile::tempdir().expect("a scratch directory");
        let home = std::mem::replace(&mut self.home, nothing);
        let command = binary(home.path(), settings);
        Self::launch(command, home, settings, Some(self.token.clone()))
    }

    /// A token of another name.
    pub(crate) fn another_token(&self, name: &str) -> String {
        new_token(self.home(), &[], name)
    }

    /// Runs the binary where the server's own mounts are seen: exit code and
    /// all that it said.
    pub(crate) fn beside(&self, args: &[&str]) -> (Option<i32>, String) {
        self.within(env!("CARGO_BIN_EXE_codex-server"), args)
    }

    /// Runs lines of a shell there, in the data directory.
    pub(crate) fn inside(&self, script: &str) -> (Option<i32>, String) {
        let script = format!("cd \"$CODEX_HOME\" && {script}");
        self.within("/bin/sh", &["-c", &script])
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the process that looks in is one of its own"
    )]
    fn within(&self, program: &str, args: &[&str]) -> (Option<i32>, String) {
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.process.id().to_string(), "-m"]);
        if !root {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.arg(program).args(args);
        surround(&mut command, self.home(), &[]);
        let done = command.output().expect("nsenter runs");
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// The binary as another process on the same data directory.
    pub(crate) fn command(&self) -> Command {
        binary(self.home(), &[])
    }

    /// The data directory.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    fn launch(
        mut command: Command,
        home: tempfile::TempDir,
        settings: &[(&str, &str)],
        token: Option<String>,
    ) -> Self {
        command.args(["serve", "--host", "127.0.0.1", "--port", "0"]);
        let mut process = Process::start(&mut command);
        let url = process.url();
        let address = url.strip_prefix("http://").expect("plain HTTP");
        Self {
            address: address.parse().expect("an address and a port"),
            token: token.unwrap_or_else(|| new_token(home.path(), settings, "test")),
            process,
            home,
        }
    }

    /// Everything the server has printed so far.
    pub(crate) fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Waits until a line of the log holds all of `words`.
    pub(crate) fn log_line(&self, words: &[&str]) -> String {
        wait_for(format_args!("a log line with {words:?}"), || {
            let log = self.log();
            let mut lines = log.lines();
            let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
            line.map(str::to_owned)
        })
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends raw bytes on a new connection and reads one answer.
    pub(crate) fn raw(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect();
        // A server may answer and close before it has read everything.
        stream.write_all(request).ok();
        Reply::read(&mut stream, request.starts_with(b"HEAD"))
    }

    /// Sends a request with these header lines and the right `Host`.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
        self.raw(&self.bytes(method, path, headers, body))
    }

    /// The bytes that [`Self::request`] sends.
    pub(crate) fn bytes(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|line| line.starts_with("Host:")) {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        for line in headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), body].concat()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    /// `POST /execute` with the token and a JSON body.
    pub(crate) fn execute(&self, body: &str) -> Reply {
        self.execute_with(&[], body.as_bytes())
    }

    /// [`Self::execute`] with more header lines.
    pub(crate) fn execute_with(&self, headers: &[&str], body: &[u8]) -> Reply {
        let bearer = self.bearer();
        let mut all = vec![bearer.as_str(), "Content-Type: application/json"];
        all.extend(headers);
        self.request("POST", "/execute", &all, body)
    }

    /// The header line that lets one in.
    pub(crate) fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// Fails unless the server still runs code.
    #[track_caller]
    pub(crate) fn still_runs(&self) {
        let reply = self.execute(r#"{"code": "print(2+2)"}"#);
        assert_eq!(reply.json()["output"], "4\n");
    }

    /// Fails unless the server still answers.
    pub(crate) fn still_answers(&self) {
        assert_eq!(self.get("/health").status, 200);
    }

    /// Asks the server to stop.
    pub(crate) fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Kills the process that makes the server's boxes.
    pub(crate) fn kill_warden(&self) {
        self.process.kill_warden();
    }

    /// Waits for the server to end, and says whether it ended well.
    pub(crate) fn ended_well(self) -> bool {
        self.process.wait().0 == Some(0)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Fails unless the run of those processes, whose request had the id
    /// `gone`, ends within so long and is logged as cancelled.
    #[track_caller]
    pub(crate) fn cancels(&self, marker: &str, within: Duration) {
        let begun = Instant::now();
        wait_until("the processes to end", || processes::with(&[marker]) == 0);
        let took = begun.elapsed();
        assert!(took < within, "{took:?}");
        wait_until("its place to be free", || self.running() == 0);
        let line = self.log_line(&["gone", "access"]);
        assert!(line.contains("499") && line.contains("cancelled"), "{line}");
    }

    /// Runs that are in progress now.
    pub(crate) fn running(&self) -> u64 {
        let health = self.get("/health").json();
        health["load"]["running"].as_u64().expect("a number")
    }
}

fn new_token(home: &Path, settings: &[(&str, &str)], name: &str) -> String {
    let made = binary(home, settings)
        .args(["token", "create", name])
        .output()
        .expect("run token create");
    let made = String::from_utf8_lossy(&made.stdout).into_owned();
    let mut words = made.split_whitespace();
    words
        .find(|word| word.starts_with("codex_"))
        .unwrap_or_else(|| panic!("no token in {made:?}"))
        .to_owned()
}

/// Reads the body of an answer that comes in chunks.
pub(crate) fn chunks(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let length = String::from_utf8(line).expect("a length");
        let length = usize::from_str_radix(length.trim(), 16).expect("a number");
        // With the line end behind it.
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk)?;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads one answer; `bodiless` for the answer to HEAD.
    pub(crate) fn read(stream: &mut impl Read, bodiless: bool) -> Self {
        Self::try_read(stream, bodiless).expect("an answer")
    }

    /// Reads one answer, or says why there is none.
    pub(crate) fn try_read(stream: &mut impl Read, bodiless: bool) -> std::io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("headers are text");
        let mut lines = head.lines();
        let status = lines.next().expect("a status line");
        let status = status.split(' ').nth(1).expect("a status");
        let status = status.parse().expect("a number");
        if status == 100 {
            return Self::try_read(stream, bodiless);
        }
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Self {
            status,
            headers,
            body: Vec::new(),
        };
        if !bodiless && let Some(length) = reply.header("content-length") {
            let mut body = vec![0; length.parse().expect("a length")];
            stream.read_exact(&mut body)?;
            reply.body = body;
        }
        Ok(reply)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        let found = all.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&self.body));
        })
    }

    /// Checks that this is a whole problem document with this status, and
    /// gives its detail back.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let json = self.json();
        assert_eq!(json["status"], status);
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id"));
        for member in ["type", "title", "detail"] {
            assert!(
                json[member].as_str().is_some_and(|text| !text.is_empty()),
                "{json}"
            );
        }
        json["detail"].as_str().expect("checked").to_owned()
    }
}
