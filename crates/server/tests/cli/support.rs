//! A data directory of its own for each test, and the binary in it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::server::{PATIENCE, Process};

/// What `run` is told, and how it ends here as on a server: code, standard
/// output, and words on standard error. `top.mjs` and `numbers` are files.
pub(crate) const RUNS: &[(&[&str], i32, &str, &str)] = &[
    (&["-c", "print(2+2)"], 0, "4\n", ""),
    (
        &["-c", "console.log(2+2)", "--language", "javascript"],
        0,
        "4\n",
        "",
    ),
    (&["-c", "echo $((2+2))", "--language", "sh"], 0, "4\n", ""),
    (
        &["-c", "import sys; print('e', file=sys.stderr); sys.exit(3)"],
        3,
        "",
        "e\n",
    ),
    (
        &[
            "-c",
            "print(1, flush=True); import time; time.sleep(9)",
            "--timeout",
            "1",
        ],
        124,
        "1\n",
        "--timeout gives it more",
    ),
    (
        &["-c", "import os; os.kill(os.getpid(), 15)"],
        143,
        "",
        "ended by signal 15",
    ),
    (
        &["-c", "import sys; print(sys.argv[1:])", "--", "-a", "b"],
        0,
        "['-a', 'b']\n",
        "",
    ),
    (
        &["-c", "import os; print(os.environ['A'])", "--env", "A=b"],
        0,
        "b\n",
        "",
    ),
    (&["-c", ""], 125, "", "is empty"),
    (&["top.mjs"], 0, "6\n", ""),
    (
        &[
            "-c",
            "import sys; print(sum(map(int, sys.stdin)))",
            "--stdin",
            "numbers",
        ],
        0,
        "3\n",
        "",
    ),
];

/// A program that adds up the lines that it gets.
pub(crate) const SUM: &str = "import sys; print(sum(map(int, sys.stdin)))";

/// Arguments, what is piped, code, standard output, and words on standard error.
pub(crate) type PipedRun = (
    &'static [&'static str],
    &'static [u8],
    i32,
    &'static str,
    &'static str,
);

/// What `run` does with what is piped to it, here as on a server. `sum.py`
/// is [`SUM`], `numbers` a file.
pub(crate) const PIPED: &[PipedRun] = &[
    (&["sum.py"], b"1\n2\n", 0, "3\n", ""),
    (&["-c", "print(input())"], b"a\n", 0, "a\n", ""),
    (&["sum.py"], b"", 0, "0\n", ""),
    (&["sum.py", "--stdin", "numbers"], b"9\n", 0, "3\n", ""),
    (&["sum.py", "--stdin", "-"], b"9\n", 0, "9\n", ""),
    // The program takes the input, and gets none.
    (
        &["-"],
        b"import sys; print(repr(sys.stdin.read()))",
        0,
        "''\n",
        "",
    ),
    (
        &[
            "-c",
            "import sys; print(open('a').read() + repr(sys.stdin.read()))",
            "--file",
            "a=-",
        ],
        b"x",
        0,
        "x''\n",
        "",
    ),
    (&["sum.py"], &TOO_MUCH, 125, "", "stdin"),
];

/// More than the default limit of standard input.
static TOO_MUCH: [u8; 8 * 1024 * 1024 + 1] = [b'1'; 8 * 1024 * 1024 + 1];

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

    /// Checks code and standard output, and that the words are said on standard error.
    #[track_caller]
    pub(crate) fn ended(&self, code: i32, stdout: &str, words: &str) {
        let found = (self.code, self.stdout.as_str());
        assert_eq!(found, (Some(code), stdout), "{self:?}");
        assert!(self.stderr.contains(words), "lacks {words:?}: {self:?}");
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

    /// The directory in which the binary is started.
    pub(crate) fn working_directory(&self) -> &Path {
        self.directory.path()
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
        Server::listen(self.command(args).args(["--port", "0"]))
    }
}

/// Runs a command to its end, with `input` piped to it.
pub(crate) fn feed(command: &mut Command, input: &'static [u8]) -> Done {
    let (read, mut write) = io::pipe().unwrap();
    command.stdin(read);
    let feeding = std::thread::spawn(move || write.write_all(input));
    let done = finish(command);
    // The command holds the other end; with it goes a writer that waits.
    command.stdin(Stdio::null());
    // A command that is given too much goes away before it has read all.
    drop(feeding.join().unwrap());
    done
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
    pub(crate) process: Process,
    pub(crate) url: String,
    /// What it said until it listened.
    pub(crate) said: String,
}

impl Server {
    /// Starts a server with a command of one's own.
    pub(crate) fn listen(command: &mut Command) -> Self {
        Self::of(Process::start(command))
    }

    /// A server that was started, as soon as it listens.
    pub(crate) fn of(mut process: Process) -> Self {
        let url = process.url();
        let said = process.stdout();
        Self { process, url, said }
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

/// A server, and a client of its sessions that has the token.
pub(crate) struct Desk {
    pub(crate) home: Home,
    pub(crate) server: Server,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        // Tests call faster than people do.
        let server = home.serve(&["serve", "--rate-limit", "6000/minute"]);
        Self { home, server }
    }

    /// `session` with arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&[&["session"], args].concat());
        command.env("CODEX_TOKEN", self.server.token());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    /// The id of a new session.
    pub(crate) fn create(&self, args: &[&str]) -> String {
        let done = self.run(&[&["create"], args].concat());
        done.out().trim_end().to_owned()
    }
}
