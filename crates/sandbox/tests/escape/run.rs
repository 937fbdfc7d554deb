//! One program in one box: how it ended, what it printed, what it left.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use sandbox::{Command, Event, Exit, File, How, Launcher, Limits, Mount, Report, Sandbox, Spec};

use crate::attack::Bounds;

const MIB: u64 = 1024 * 1024;
/// What is kept of a stream.
const KEPT: usize = 1024 * 1024;
/// Entries of a workspace that are searched, and bytes of each file.
const SEARCHED: usize = 2000;
const SEARCHED_BYTES: u64 = MIB;
/// How long a box may take for anything that is not its program's.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many times slower than hardware this machine is: more than 1 where a
/// test bed emulates one.
pub(crate) fn slowness() -> u32 {
    std::env::var("SANDBOX_TEST_SLOWNESS").map_or(1, |times| times.parse().unwrap())
}

/// The limits that attacks meet.
pub(crate) fn limits(bounds: &Bounds) -> Limits {
    Limits {
        memory: bounds.memory_mb.unwrap_or(256) * MIB,
        processes: 64,
        cpu_millis: 1000,
        workspace: 32 * MIB,
        inodes: bounds.inodes.unwrap_or(2000),
        shm: 16 * MIB,
        open_files: 1024,
    }
}

/// What programs of the system need.
fn mounts() -> Vec<Mount> {
    [
        "/usr",
        "/bin",
        "/lib",
        "/lib64",
        "/sbin",
        "/etc/alternatives",
        "/etc/ld.so.cache",
    ]
    .into_iter()
    .filter(|path| Path::new(path).symlink_metadata().is_ok())
    .map(Mount::same)
    .collect()
}

/// A program in Python, with further files and a mark in its command line.
pub(crate) fn python(text: &str, mark: &str, files: Vec<File>) -> Command {
    let words = ["/usr/bin/python3", "-u", "main.py", mark];
    let mut command = Command {
        argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: ["PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/tmp"]
            .iter()
            .map(|entry| entry.as_bytes().to_vec())
            .collect(),
        files,
        ..Command::default()
    };
    command.files.push(File {
        path: b"main.py".to_vec(),
        content: text.as_bytes().to_vec(),
    });
    command
}

/// A box that takes commands.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) sandbox: Sandbox,
    pub(crate) workspace: OwnedFd,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// In the words of the API.
    pub(crate) status: &'static str,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Running {
    /// Makes a box and waits until it is ready.
    pub(crate) fn new(launcher: &Launcher, limits: Limits) -> Result<Self, String> {
        let spec = Spec {
            mounts: mounts(),
            limits,
            lifetime: Some(Duration::from_secs(3600)),
            adopts: false,
        };
        let sandbox = launcher.create(&spec).map_err(|error| error.to_string())?;
        match event(&sandbox) {
            Ok(Event::Ready { workspace, .. }) => Ok(Self { sandbox, workspace }),
            other => Err(format!("no box: {other:?} {:?}", sandbox.report())),
        }
    }

    /// Starts a program. Gives its streams.
    pub(crate) fn start(&self, command: &Command) -> Result<[OwnedFd; 2], String> {
        self.sandbox
            .exec(command)
            .map_err(|error| error.to_string())?;
        match event(&self.sandbox) {
            Ok(Event::Started { stdout, stderr }) => Ok([stdout, stderr]),
            other => Err(format!("not started: {other:?}")),
        }
    }

    /// Runs a program to its end, or until `wall` is over.
    pub(crate) fn run(&self, command: &Command, wall: Duration) -> Result<Finished, String> {
        let started = Instant::now();
        let [stdout, stderr] = self.start(command)?.map(reader);
        let in_time = wait(self.sandbox.events(), wall);
        let exit = match in_time.then(|| event(&self.sandbox)) {
            Some(Ok(Event::Exited(exit))) => Some(exit),
            _ => None,
        };
        if exit.is_some() {
            self.sandbox.measure().ok();
        } else {
            // Fails where the box is dead already; its end is reported then.
            self.sandbox.kill().ok();
        }
        let (Report::Usage(usage) | Report::Gone(usage)) = self.report()?;
        let took = started.elapsed();
        let read = |stream: Receiver<String>| {
            let text = stream.recv_timeout(PATIENCE);
            text.map_err(|_| "somebody holds its output open".to_owned())
        };
        Ok(Finished {
            status: status(in_time, exit, usage),
            stdout: read(stdout)?,
            stderr: read(stderr)?,
            took,
        })
    }

    fn report(&self) -> Result<Report, String> {
        loop {
            match self.sandbox.report() {
                Ok(Some(report)) => return Ok(report),
                Ok(None) if wait(self.sandbox.reports(), PATIENCE) => {}
                Ok(None) => return Err("the warden says nothing of the box".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Whether any file of the workspace holds `needle`, and where.
    pub(crate) fn holds(&self, needle: &[u8]) -> Option<String> {
        let mut left = SEARCHED;
        search(&self.workspace, ".", needle, &mut left)
    }
}

fn search(root: impl AsFd, name: &str, needle: &[u8], left: &mut usize) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(root.as_fd(), name, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let mut text = Vec::new();
            let file = fs::File::from(fd);
            file.take(SEARCHED_BYTES).read_to_end(&mut text).ok()?;
            let holds = text.windows(needle.len()).any(|part| part == needle);
            holds.then(|| name.to_owned())
        }
        FileType::Directory => {
            for entry in Dir::read_from(&fd).ok()?.flatten() {
                let Ok(name) = entry.file_name().to_str() else {
                    continue;
                };
                if name == "." || name == ".." || *left == 0 {
                    continue;
                }
                *left -= 1;
                if let Some(found) = search(&fd, name, needle, left) {
                    return Some(found);
                }
            }
            None
        }
        _ => None,
    }
}

/// The word of the API for an end, from the same facts and in the same order
/// as the engine's.
fn status(in_time: bool, exit: Option<Exit>, usage: sandbox::Usage) -> &'static str {
    let failed = exit.is_none_or(|exit| exit.how != How::Exited(0));
    let over_memory = usage.oom_kills > 0 || exit.is_some_and(|exit| exit.over_memory);
    match exit.map(|exit| exit.how) {
        _ if !in_time => "timeout",
        _ if over_memory && failed => "memory_limit",
        _ if usage.forks_refused > 0 && failed => "process_limit",
        Some(How::Exited(0)) => "success",
        Some(How::Exited(_)) => "error",
        Some(How::Signalled(_)) | None => "signalled",
    }
}

/// The next event, waiting for it.
pub(crate) fn event(sandbox: &Sandbox) -> Result<Event, sandbox::Error> {
    loop {
        if let Some(event) = sandbox.event()? {
            return Ok(event);
        }
        assert!(wait(sandbox.events(), PATIENCE), "init says nothing");
    }
}

/// Waits until a descriptor is readable.
pub(crate) fn wait(fd: impl AsFd, at_most: Duration) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = at_most.try_into().unwrap();
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
}

/// Reads to the end, keeping head and tail.
fn reader(from: OwnedFd) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let mut from = fs::File::from(from);
        let mut buffer = [0u8; 65536];
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            let kept = if head.len() < KEPT {
                &mut head
            } else {
                &mut tail
            };
            kept.extend_from_slice(&buffer[..got]);
            if tail.len() > 2 * KEPT {
                tail.drain(..KEPT);
            }
        }
        head.append(&mut tail);
        // Nobody waits for it any more.
        sender
            .send(String::from_utf8_lossy(&head).into_owned())
            .ok();
    });
    receiver
}
