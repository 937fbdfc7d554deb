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
use rustix::process::{WaitOptions, getpid, getppid, getuid};
use rustix::thread::UnshareFlags;

use crate::confine::Confinement;
use crate::error::{At, Error, Step};
use crate::idmap::INSIDE;
use crate::limits::Limits;
use crate::protocol::Frame;
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
pub(crate) fn findings(with: &Confinement<'_>) -> Result<Vec<Finding>, Error> {
    let room = with.room();
    let mut all = report(room, || match room {
        None => in_namespaces(),
        Some(room) => in_place(room),
    })?;
    all.extend(report(room, || vec![processes(with.limits)])?);
    crate::init::kill_rest();
    all.push(memory(with).at(Step::SelfTest)?);
    Ok(all)
}

/// Makes a fork of init what a program is.
fn stand_where_programs_do(room: Option<&Room>) {
    if room.is_some_and(|room| room.become_program().is_err()) {
        sys::exit_now(1);
    }
}

fn report(
    room: Option<&Room>,
    attacker: impl FnOnce() -> Vec<Finding>,
) -> Result<Vec<Finding>, Error> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::SelfTest)?;
    match sys::fork().at(Step::SelfTest)? {
        Child::Me => {
            stand_where_programs_do(room);
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
fn everywhere(uid: u32) -> Vec<Finding> {
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
        refused("host files", fs::read("/etc/shadow").map(drop)),
        refused(
            "kernel settings",
            fs::write("/proc/sys/kernel/core_pattern", "x"),
        ),
        refused("new user namespace", sys::unshare(UnshareFlags::NEWUSER)),
        refused(
            "mount",
            rustix::mount::mount_bind("/", "/tmp").map_err(io::Error::from),
        ),
        refused("seccomp", socket(38)), // AF_ALG
        refused("network", outside()),
    ]
}

fn in_namespaces() -> Vec<Finding> {
    let interfaces = interfaces();
    let mut all = everywhere(INSIDE);
    all.extend([
        found(
            "pid namespace",
            getppid().is_some_and(rustix::process::Pid::is_init)
                && getpid().as_raw_nonzero().get() < 100,
            format!("process {}", getpid().as_raw_nonzero()),
        ),
        refused("read-only root", fs::write("/attack", "")),
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
fn in_place(room: &Room) -> Vec<Finding> {
    let init = getppid();
    let above = room.seen("..");
    let mut all = everywhere(room.uid);
    all.extend([
        refused(
            "signals to init",
            init.map_or(Ok(()), |init| Ok(rustix::process::test_kill_process(init)?)),
        ),
        refused(
            "init's files",
            fs::read(format!(
                "/proc/{}/environ",
                init.map_or(1, |init| init.as_raw_nonzero().get())
            ))
            .map(drop),
        ),
        refused("other processes", fs::read_dir("/proc").map(drop)),
        refused("listing the root", fs::read_dir("/").map(drop)),
        refused("other boxes", fs::read_dir(above).map(drop)),
        refused("writing elsewhere", fs::write("/tmp/self-test", "")),
        refused(
            "becoming init",
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
fn memory(with: &Confinement<'_>) -> io::Result<Finding> {
    let limits = with.limits;
    let name = "memory limit".to_owned();
    let too_much = usize::try_from(limits.memory.saturating_mul(2)).unwrap_or(usize::MAX);
    let pid = match sys::fork()? {
        Child::Me => {
            stand_where_programs_do(with.room());
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
