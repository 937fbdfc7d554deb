//! A process under test: what it prints is always read, so that it never waits
//! for us; it is sent signals, and killed when dropped. Ends nothing else but
//! its warden.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for anything in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked, at first; then less and less, up to a tenth of what was waited.
const POLL: Duration = Duration::from_millis(20);
/// What a server prints before its address.
const LISTENING: &str = "listening on ";

/// Looks again and again until there is something, and fails when time is out.
#[track_caller]
pub(crate) fn wait_for<T>(what: impl Display, look: impl FnMut() -> Option<T>) -> T {
    poll(PATIENCE, look).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Looks again and again until it is so, and fails when time is out.
#[track_caller]
pub(crate) fn wait_until(what: impl Display, is_so: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, is_so);
}

/// [`wait_until`] with a patience of its own.
#[track_caller]
pub(crate) fn wait_within(time: Duration, what: impl Display, mut is_so: impl FnMut() -> bool) {
    let so = poll(time, || is_so().then_some(()));
    assert!(so.is_some(), "waited in vain for {what}");
}

fn poll<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let found = look();
        let waited = begun.elapsed();
        if found.is_some() || waited > time {
            return found;
        }
        std::thread::sleep(POLL.max(waited / 10));
    }
}

/// A child of the test.
pub(crate) struct Process {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

/// One of its streams, read on a thread.
struct Stream {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let whole = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let line = std::mem::take(&mut line);
                let mut whole = whole.lock().expect("not poisoned");
                whole.push_str(&String::from_utf8_lossy(&line));
            }
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text.lock().expect("not poisoned").clone()
    }
}

impl Process {
    /// Starts it and begins to read what it prints.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = Self::start_unread(command);
        process.read_errors();
        process
    }

    /// Starts it and leaves its standard error unread.
    pub(crate) fn start_unread(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the process");
        Self {
            stdout: Stream::read(child.stdout.take().expect("piped")),
            stderr: Stream::read(std::io::empty()),
            child,
        }
    }

    /// Begins to read the standard error of one that was started unread.
    pub(crate) fn read_errors(&mut self) {
        let stderr = self.child.stderr.take().expect("not read yet");
        self.stderr = Stream::read(stderr);
    }

    /// The whole lines that it has printed so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The whole lines that it has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The address of a server, waiting for it. Fails with all that it said
    /// where it ends before it listens.
    #[track_caller]
    pub(crate) fn url(&mut self) -> String {
        let url = poll(PATIENCE, || {
            let ended = self
                .child
                .try_wait()
                .expect("a child can be asked")
                .is_some();
            let said = self.stdout();
            let url = said.lines().find_map(|line| line.strip_prefix(LISTENING));
            match url {
                None if ended => Some(Err(())),
                url => url.map(|url| Ok(url.to_owned())),
            }
        });
        let why = match url {
            Some(Ok(url)) => return url,
            Some(Err(())) => "it ended before it listened",
            None => "it does not listen",
        };
        panic!("{why}: {}{}", self.stdout(), self.stderr());
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Kills the process that makes a server's boxes, and waits until it is dead.
    pub(crate) fn kill_warden(&self) {
        let server = self.id();
        let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let children = children.expect("read /proc");
        let mut children = children
            .split_whitespace()
            .map(|id| id.parse().expect("an id"));
        let is_warden = |id: &u32| {
            std::fs::read_to_string(format!("/proc/{id}/cmdline"))
                .is_ok_and(|line| line.starts_with("codex-server: warden"))
        };
        let warden = children.find(is_warden).expect("a warden");
        signal(warden, "KILL");
        wait_until("the warden's end", || {
            let stat = std::fs::read_to_string(format!("/proc/{warden}/stat"));
            // A zombie, or reaped already.
            stat.map_or(true, |stat| stat.contains(") Z "))
        });
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("the process's end", || self.child.try_wait().ok()?)
    }

    /// Waits for its end; gives the code, and all that it said on standard error.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let code = self.ended().code();
        wait_until("the end of its output", || self.stderr.reader.is_finished());
        (code, self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already in many tests.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a signal needs the kill command: tests have no system calls"
)]
pub(crate) fn signal(id: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status();
    assert!(sent.expect("run kill").success());
}
