//! Running programs in real boxes, and reading what is left of them.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use sandbox::{Command, Event, Exit, File, Launcher, Limits, Mount, Report, Sandbox, Spec, Usage};

pub(crate) const MIB: u64 = 1024 * 1024;

/// How many times slower than hardware this machine is: 1, or more where a
/// test bed emulates one. It stretches what tests wait for, and nothing else.
const SLOWNESS: &str = "SANDBOX_TEST_SLOWNESS";

pub(crate) fn secs(count: u64) -> Duration {
    millis(count * 1000)
}

pub(crate) fn millis(count: u64) -> Duration {
    let slowness = std::env::var(SLOWNESS).map_or(1, |times| times.parse().unwrap());
    Duration::from_millis(count * slowness)
}

/// Bounds that no ordinary test meets.
pub(crate) fn limits() -> Limits {
    Limits {
        memory: 256 * MIB,
        processes: 64,
        cpu_millis: 1000,
        workspace: 32 * MIB,
        inodes: 2000,
        shm: 16 * MIB,
        open_files: 1024,
    }
}

/// What programs of the system need.
pub(crate) fn mounts() -> Vec<Mount> {
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

/// How a box ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) exit: Option<Exit>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) usage: Usage,
    pub(crate) took: Duration,
}

/// A box in the middle of its life.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) sandbox: Sandbox,
    pub(crate) workspace: OwnedFd,
}

pub(crate) fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![
            b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec(),
            b"LANG=C.UTF-8".to_vec(),
        ],
        ..Command::default()
    }
}

pub(crate) fn python(code: &str) -> Command {
    let mut command = command(&["/usr/bin/python3", "-u", "main.py"]);
    command.files.push(File {
        path: b"main.py".to_vec(),
        content: code.as_bytes().to_vec(),
    });
    command
}

/// Makes a box and waits until it takes a command.
pub(crate) fn ready(launcher: &Launcher, limits: Limits) -> Running {
    ready_as(launcher, &spec(limits))
}

/// A box that sees the system's programs.
pub(crate) fn spec(limits: Limits) -> Spec {
    Spec {
        mounts: mounts(),
        limits,
        lifetime: Some(Duration::from_secs(60)),
        adopts: false,
    }
}

/// The same, of any kind.
pub(crate) fn ready_as(launcher: &Launcher, spec: &Spec) -> Running {
    let sandbox = launcher.create(spec).unwrap();
    match event(&sandbox) {
        Ok(Event::Ready { workspace, .. }) => Running { sandbox, workspace },
        other => panic!("no box: {other:?} {:?}", sandbox.report()),
    }
}

/// The next event, waiting for it.
pub(crate) fn event(sandbox: &Sandbox) -> Result<Event, sandbox::Error> {
    loop {
        if let Some(event) = sandbox.event()? {
            return Ok(event);
        }
        wait(sandbox.events(), Duration::from_secs(60));
    }
}

/// The next report, waiting for it.
pub(crate) fn report(sandbox: &Sandbox) -> Report {
    loop {
        if let Some(report) = sandbox.report().unwrap() {
            return report;
        }
        wait(sandbox.reports(), Duration::from_secs(60));
    }
}

pub(crate) fn wait(fd: impl AsFd, at_most: Duration) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = at_most.try_into().unwrap();
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
}

/// Runs a command in a fresh box, killing it after `wall`.
pub(crate) fn run(
    launcher: &Launcher,
    limits: Limits,
    command: &Command,
    wall: Duration,
) -> Finished {
    run_in(&ready(launcher, limits), command, wall)
}

/// Runs a command in a box that is there already.
pub(crate) fn run_in(running: &Running, command: &Command, wall: Duration) -> Finished {
    let sandbox = &running.sandbox;
    let started = Instant::now();
    sandbox.exec(command).unwrap();
    let (stdout, stderr) = match event(sandbox) {
        Ok(Event::Started { stdout, stderr }) => (reader(stdout), reader(stderr)),
        other => panic!("not started: {other:?}"),
    };
    let (exit, usage) = if wait(sandbox.events(), wall) {
        let exit = match event(sandbox) {
            Ok(Event::Exited(exit)) => Some(exit),
            _ => None,
        };
        sandbox.measure().ok();
        (exit, report(sandbox))
    } else {
        sandbox.kill().unwrap();
        (None, report(sandbox))
    };
    let (Report::Usage(usage) | Report::Gone(usage)) = usage;
    Finished {
        exit,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        usage,
        took: started.elapsed(),
    }
}

/// Reads to the end, keeping the first mebibyte.
fn reader(from: OwnedFd) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut from = std::fs::File::from(from);
        let mut buffer = [0u8; 65536];
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            if kept.len() < 1024 * 1024 {
                kept.extend_from_slice(&buffer[..got]);
            }
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// This binary again, to be killed.
#[expect(clippy::disallowed_methods, reason = "tests start processes")]
pub(crate) fn victim(variable: &str, value: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .env(variable, value)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

/// One test at a time where the machine is slow: what is to happen within a time
/// shares it with nothing else.
fn threads() -> Option<&'static str> {
    std::env::var_os(SLOWNESS).map(|_| "--test-threads=1")
}

/// Runs this binary again on another rung than the strongest.
#[expect(clippy::disallowed_methods, reason = "tests start processes")]
pub(crate) fn again_at(rung: sandbox::Isolation) {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .env(crate::RUNG, rung.as_str())
        .args(threads())
        .status()
        .unwrap();
    assert!(status.success(), "at {rung}: {status}");
}

/// Runs all tests of this binary again as a user with no rights and no cgroup.
#[expect(clippy::disallowed_methods, reason = "tests start processes")]
pub(crate) fn again_as_an_ordinary_user() {
    // The build directory may be out of that user's reach.
    let directory = tempfile::tempdir().unwrap();
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let binary = directory.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let status = std::process::Command::new("setpriv")
        .args(["--reuid=48484", "--regid=48484", "--clear-groups", "--"])
        .arg(&binary)
        .args(threads())
        .current_dir("/")
        .status()
        .expect("setpriv is part of every Debian");
    assert!(status.success(), "as an ordinary user: {status}");
}
