//! Attacks on the sandbox from where a program stands, to see that it holds.
//!
//! The probe runs these in a real box before the server claims anything. A
//! finding is what an attack met, not what a kernel version promises.

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, getpid, getppid, getuid};
use rustix::thread::UnshareFlags;
use rustix::time::Timespec;

use crate::confine::{Confinement, restrict};
use crate::error::{At, Error, Step};
use crate::idmap::INSIDE;
use crate::limits::Limits;
use crate::protocol::{Frame, Targets};
use crate::support::Isolation;
use crate::sys::{self, Child};
use crate::uids::Room;
use crate::watch::Watcher;

/// Name, whether it held, and what was met.
type Finding = (String, bool, String);

/// How long too much memory may be held before it counts as not limited.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(3);
/// Most bytes that the attacker's report may have.
const MAX_REPORT: u64 = 16 * 1024;

/// Forks an attacker, and gives what it found.
///
/// # Errors
/// [`Step::SelfTest`] when it could not be run.
pub(crate) fn findings(
    with: &Confinement<'_>,
    rules: Option<&OwnedFd>,
    targets: &Targets,
) -> Result<Vec<Finding>, Error> {
    let mut all = report(with, rules, || match with.room() {
        None => in_namespaces(targets),
        Some(room) => in_place(room, targets),
    })?;
    all.extend(report(with, rules, || vec![processes(with.limits)])?);
    crate::init::kill_rest();
    all.push(memory(with, rules).at(Step::SelfTest)?);
    Ok(all)
}

/// Makes a fork of init what a program is.
fn stand_where_programs_do(room: Option<&Room>, rules: Option<&OwnedFd>) {
    let restricted = rules.map_or(Ok(()), restrict);
    let taken = room.map_or(Ok(()), Room::become_program);
    // As exec would leave it: a program's own files in /proc are its own.
    let dumpable = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    if restricted.is_err() || taken.is_err() || dumpable.is_err() {
        sys::exit_now(1);
    }
}

fn report(
    with: &Confinement<'_>,
    rules: Option<&OwnedFd>,
    attacker: impl FnOnce() -> Vec<Finding>,
) -> Result<Vec<Finding>, Error> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::SelfTest)?;
    match sys::fork().at(Step::SelfTest)? {
        Child::Me => {
            stand_where_programs_do(with.room(), rules);
            let frame = Frame::SelfTested(attacker()).encode();
            // A short or missing report fails to decode on the other side.
            rustix::io::write(&write, &frame).ok();
            sys::exit_now(0)
        }
        Child::Pid(..) => drop(write),
    }
    match Frame::decode(&read_all(read).at(Step::SelfTest)?)? {
        Frame::SelfTested(findings) => Ok(findings),
        _ => Err(Error::new(
            Step::SelfTest,
            io::Error::from(io::ErrorKind::InvalidData),
        )),
    }
}

fn read_all(from: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::from(from)
        .take(MAX_REPORT)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn refused(name: &str, result: Result<(), io::Error>) -> Finding {
    match result {
        Ok(()) => (name.to_owned(), false, "the attack succeeded".to_owned()),
        Err(error) => (name.to_owned(), true, error.to_string()),
    }
}

fn found(name: &str, holds: bool, detail: String) -> Finding {
    (name.to_owned(), holds, detail)
}

/// What must hold on every rung.
fn everywhere(uid: u32, targets: &Targets) -> Vec<Finding> {
    let capabilities = rustix::thread::capabilities(None)
        .map(|sets| sets.permitted.is_empty() && sets.effective.is_empty());
    vec![
        found(
            "user",
            getuid().as_raw() == uid && capabilities.unwrap_or(false),
            format!("uid {} without capabilities", getuid().as_raw()),
        ),
        found(
            "no_new_privs",
            rustix::thread::no_new_privs().unwrap_or(false),
            "set".to_owned(),
        ),
        refused(
            "host files",
            fs::read(&targets.canary)
                .or_else(|_| fs::read("/etc/shadow"))
                .map(drop),
        ),
        refused(
            "kernel settings",
            fs::write("/proc/sys/kernel/core_pattern", "x"),
        ),
        refused("new user namespace", sys::unshare(UnshareFlags::NEWUSER)),
        refused(
            "mount",
            rustix::mount::mount_bind("/", "/tmp").map_err(io::Error::from),
        ),
        seccomp(),
        refused(
            "network",
            reach(targets)
                .or_else(|_| reach_by_name(targets))
                .or_else(|_| outside()),
        ),
    ]
}

/// Calls that a kernel without a filter grants to everybody, or refuses in
/// other words.
fn seccomp() -> Finding {
    let tried = [
        ("inotify", inotify(), libc::EPERM),
        ("AF_ALG", socket(38), libc::EPERM),
        ("unshare", sys::unshare(UnshareFlags::FS), libc::EPERM),
    ];
    let wrong = tried.iter().find(|(_, met, wanted)| {
        met.as_ref().err().and_then(io::Error::raw_os_error) != Some(*wanted)
    });
    match wrong {
        None => found("seccomp", true, "dangerous calls are refused".to_owned()),
        Some((call, met, _)) => found("seccomp", false, format!("{call}: {met:?}")),
    }
}

fn inotify() -> io::Result<()> {
    rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?;
    Ok(())
}

fn in_namespaces(targets: &Targets) -> Vec<Finding> {
    let interfaces = interfaces();
    let mut all = everywhere(INSIDE, targets);
    all.extend([
        found(
            "pid namespace",
            getppid().is_some_and(rustix::process::Pid::is_init)
                && getpid().as_raw_nonzero().get() < 100,
            format!("process {}", getpid().as_raw_nonzero()),
        ),
        refused("read-only root", fs::write("/attack", "")),
        // The mounts would allow it, and so would the kernel: more is everybody's.
        refused("landlock", fs::write("/proc/self/oom_score_adj", "1000")),
        refused("init's root", fs::read_dir("/proc/1/root").map(drop)),
        refused("init's memory", fs::File::open("/proc/1/mem").map(drop)),
        found(
            "network namespace",
            interfaces == ["lo"],
            interfaces.join(", "),
        ),
        found(
            "loopback",
            loopback().is_ok(),
            "a listener is reached".to_owned(),
        ),
        writable("/workspace/self-test".into()),
    ]);
    all
}

/// Without namespaces the attacker sees the names of much, and must get
/// nowhere with them.
fn in_place(room: &Room, targets: &Targets) -> Vec<Finding> {
    let init = getppid().map_or(1, |init| init.as_raw_nonzero().get().unsigned_abs());
    let above = room.seen("..");
    let mut all = everywhere(room.uid, targets);
    for (whose, pid) in [
        ("init", init),
        ("the server", targets.server),
        ("the warden", targets.warden),
    ] {
        all.extend([
            refused(&format!("signals to {whose}"), signal(pid)),
            refused(&format!("memory of {whose}"), look_into(pid)),
        ]);
    }
    let times = rustix::fs::Timestamps {
        last_access: Timespec::default(),
        last_modification: Timespec::default(),
    };
    all.extend([
        refused(
            "modes of host files",
            rustix::fs::chmod(&targets.canary, rustix::fs::Mode::RWXU).map_err(io::Error::from),
        ),
        refused(
            "times of host files",
            rustix::fs::utimensat(
                rustix::fs::CWD,
                &targets.canary,
                &times,
                rustix::fs::AtFlags::empty(),
            )
            .map_err(io::Error::from),
        ),
        refused(
            "the server's limits",
            Pid::from_raw(targets.server.cast_signed()).map_or(Ok(()), unlimit),
        ),
        refused("other processes", fs::read_dir("/proc").map(drop)),
        refused("listing the root", fs::read_dir("/").map(drop)),
        refused("other boxes", fs::read_dir(above).map(drop)),
        refused("writing elsewhere", fs::write("/tmp/self-test", "")),
        refused(
            "another uid",
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(room.uid + 1))
                .map_err(io::Error::from),
        ),
        refused("internet sockets", socket(2)),
        refused("unix sockets", socket(1)),
        refused(
            "datagrams",
            rustix::net::socketpair(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::DGRAM,
                rustix::net::SocketFlags::empty(),
                None,
            )
            .map(drop)
            .map_err(io::Error::from),
        ),
        writable(room.seen("/workspace/self-test")),
    ]);
    all
}

fn signal(pid: u32) -> io::Result<()> {
    match Pid::from_raw(pid.cast_signed()) {
        Some(pid) => Ok(rustix::process::test_kill_process(pid)?),
        None => Ok(()),
    }
}

/// By any of the ways into another process.
fn look_into(pid: u32) -> io::Result<()> {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).map(drop);
    sys::seize(pid)
        .or_else(|_| read("environ"))
        .or_else(|_| read("maps"))
        .or_else(|_| fs::File::open(format!("/proc/{pid}/mem")).map(drop))
        .or_else(|_| fs::read_link(format!("/proc/{pid}/exe")).map(drop))
        .or_else(|_| fs::read_dir(format!("/proc/{pid}/root")).map(drop))
}

fn unlimit(pid: Pid) -> io::Result<()> {
    let none = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Core, none)?;
    Ok(())
}

/// The server's own listeners, which nobody in a box may reach.
fn reach(targets: &Targets) -> io::Result<()> {
    let port = u16::try_from(targets.port).map_err(io::Error::other)?;
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&server, Duration::from_millis(200)).map(drop)
}

fn reach_by_name(targets: &Targets) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(&targets.name)?;
    std::os::unix::net::UnixStream::connect_addr(&name).map(drop)
}

fn writable(path: std::path::PathBuf) -> Finding {
    let holds = fs::write(&path, "x").is_ok() && fs::remove_file(path).is_ok();
    found("workspace", holds, "writable".to_owned())
}

fn socket(family: u16) -> io::Result<()> {
    let kind = if family == 38 {
        rustix::net::SocketType::SEQPACKET
    } else {
        rustix::net::SocketType::STREAM
    };
    rustix::net::socket(rustix::net::AddressFamily::from_raw(family), kind, None)?;
    Ok(())
}

fn interfaces() -> Vec<String> {
    fs::read_to_string("/proc/self/net/dev")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

/// 192.0.2.1 is reserved for documentation (RFC 5737): nobody is there even
/// if the attack succeeds, and then it would hang, not fail at once.
fn outside() -> io::Result<()> {
    let nobody = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    match TcpStream::connect_timeout(&nobody, Duration::from_millis(200)) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        other => other.map(drop),
    }
}

fn loopback() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect(listener.local_addr()?).map(drop)
}

/// Forks past the limit.
fn processes(limits: &Limits) -> Finding {
    let name = "process limit".to_owned();
    for made in 0..limits.processes.saturating_add(2) {
        match sys::fork() {
            Ok(Child::Me) => linger(),
            Ok(Child::Pid(..)) => {}
            Err(error) => return (name, made > 0, format!("{error} after {made} forks")),
        }
    }
    (
        name,
        false,
        format!("more than {} processes", limits.processes),
    )
}

/// Takes a place until it is killed; lets go of the report's pipe.
fn linger() -> ! {
    if sys::close_range(3, u32::MAX).is_err() {
        sys::exit_now(1);
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Uses twice the memory the box may, and holds on to it.
fn memory(with: &Confinement<'_>, rules: Option<&OwnedFd>) -> io::Result<Finding> {
    let limits = with.limits;
    let name = "memory limit".to_owned();
    let too_much = usize::try_from(limits.memory.saturating_mul(2)).unwrap_or(usize::MAX);
    let pid = match sys::fork()? {
        Child::Me => {
            stand_where_programs_do(with.room(), rules);
            if sys::touch(too_much).is_ok() {
                linger()
            }
            sys::exit_now(1)
        }
        Child::Pid(pid, _) => pid,
    };
    let here = with.isolation == Isolation::Namespaces;
    let mut watcher = here.then(|| Watcher::of_memory(limits));
    let until = Instant::now() + MEMORY_TIMEOUT;
    while Instant::now() < until {
        if let Some(watcher) = &mut watcher {
            watcher.look();
        }
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((who, status))) if who.as_raw_nonzero().get() == pid => {
                return Ok(match status.terminating_signal() {
                    Some(libc::SIGKILL) if with.has_cgroup() => {
                        (name, true, "killed by the kernel".to_owned())
                    }
                    Some(libc::SIGKILL) => (name, true, "killed by the watcher".to_owned()),
                    _ => (name, false, format!("ended with {status:?}")),
                });
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    crate::init::kill_rest();
    let held = limits.memory.saturating_mul(2) >> 20;
    Ok((
        name,
        false,
        format!("{held} MiB were held for {MEMORY_TIMEOUT:?}"),
    ))
}
