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

use crate::error::{At, Error, Step};
use crate::idmap::INSIDE;
use crate::limits::Limits;
use crate::protocol::Frame;
use crate::sys::{self, Child};
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
pub(crate) fn findings(limits: &Limits, cgroup: bool) -> Result<Vec<Finding>, Error> {
    let mut all = report(attack)?;
    all.extend(report(|| vec![processes(limits)])?);
    crate::init::kill_rest();
    all.push(memory(limits, cgroup).at(Step::SelfTest)?);
    Ok(all)
}

fn report(attacker: impl FnOnce() -> Vec<Finding>) -> Result<Vec<Finding>, Error> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::SelfTest)?;
    match sys::fork().at(Step::SelfTest)? {
        Child::Me => {
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

fn attack() -> Vec<Finding> {
    let refused = |name: &str, result: Result<(), io::Error>| match result {
        Ok(()) => (name.to_owned(), false, "the attack succeeded".to_owned()),
        Err(error) => (name.to_owned(), true, error.to_string()),
    };
    let found = |name: &str, holds: bool, detail: String| (name.to_owned(), holds, detail);
    let capabilities = rustix::thread::capabilities(None)
        .map(|sets| sets.permitted.is_empty() && sets.effective.is_empty());
    let interfaces = interfaces();
    vec![
        found(
            "user",
            getuid().as_raw() == INSIDE && capabilities.unwrap_or(false),
            format!("uid {} without capabilities", getuid().as_raw()),
        ),
        found(
            "no_new_privs",
            rustix::thread::no_new_privs().unwrap_or(false),
            "set".to_owned(),
        ),
        found(
            "pid namespace",
            getppid().is_some_and(rustix::process::Pid::is_init)
                && getpid().as_raw_nonzero().get() < 100,
            format!("process {}", getpid().as_raw_nonzero()),
        ),
        refused("read-only root", fs::write("/attack", "")),
        refused("host files", fs::read("/etc/shadow").map(drop)),
        refused("init's root", fs::read_dir("/proc/1/root").map(drop)),
        refused("init's memory", fs::File::open("/proc/1/mem").map(drop)),
        refused(
            "kernel settings",
            fs::write("/proc/sys/kernel/core_pattern", "x"),
        ),
        refused("new user namespace", sys::unshare(UnshareFlags::NEWUSER)),
        refused(
            "mount",
            rustix::mount::mount_bind("/", "/tmp").map_err(io::Error::from),
        ),
        refused(
            "seccomp",
            rustix::net::socket(
                rustix::net::AddressFamily::from_raw(38), // AF_ALG
                rustix::net::SocketType::SEQPACKET,
                None,
            )
            .map(drop)
            .map_err(io::Error::from),
        ),
        found(
            "network namespace",
            interfaces == ["lo"],
            interfaces.join(", "),
        ),
        refused("network", outside()),
        found(
            "loopback",
            loopback().is_ok(),
            "a listener is reached".to_owned(),
        ),
        found(
            "workspace",
            fs::write("/workspace/self-test", "x").is_ok()
                && fs::remove_file("/workspace/self-test").is_ok(),
            "writable".to_owned(),
        ),
    ]
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
fn memory(limits: &Limits, cgroup: bool) -> io::Result<Finding> {
    let name = "memory limit".to_owned();
    let too_much = usize::try_from(limits.memory.saturating_mul(2)).unwrap_or(usize::MAX);
    let pid = match sys::fork()? {
        Child::Me if sys::touch(too_much).is_ok() => linger(),
        Child::Me => sys::exit_now(1),
        Child::Pid(pid, _) => pid,
    };
    let mut watcher = (!cgroup).then(|| Watcher::new(limits.memory));
    let until = Instant::now() + MEMORY_TIMEOUT;
    while Instant::now() < until {
        if let Some(watcher) = &mut watcher {
            watcher.look();
        }
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((who, status))) if who.as_raw_nonzero().get() == pid => {
                return Ok(match status.terminating_signal() {
                    Some(libc::SIGKILL) if cgroup => {
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
