//! Watchers that stand in for limits which the kernel does not hold here: of
//! memory where there is no cgroup, of disk where there is no tmpfs.
//!
//! They run in a box's init, and the memory watcher adds up what `/proc` says
//! of the box's own processes and file systems; without a pid namespace the
//! warden does that, by uid. All are coarser than the kernel (a burst between
//! two looks goes unseen up to the rlimits of each process), and say no more
//! than they saw.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::time::Timespec;

use crate::limits::Limits;
use crate::omit::{Omit, omitted};
use crate::sys;
use crate::uids::Room;

/// Between two looks: 20 ms.
pub(crate) const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Between two looks at programs that are stopped: 3 s.
pub(crate) const STOPPED_INTERVAL: Timespec = Timespec {
    tv_sec: 3,
    tv_nsec: 0,
};

/// Least time between two looks of one watcher.
const PAUSE: Duration = Duration::from_millis(10);

/// Most time between two looks at the disk.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Sockets that are not counted: most programs have fewer.
const FREE_SOCKETS: usize = 64;
/// What a further one is counted for, in bytes: the kernel's usual
/// `net.core.wmem_default`.
const SOCKET_BUFFER: u64 = 212_992;

/// What a watcher looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Memory,
    Disk,
}

/// Watches one program.
#[derive(Debug)]
pub(crate) struct Watcher {
    what: What,
    limits: Limits,
    /// What may be written to, where that is watched.
    directories: Vec<PathBuf>,
    peak: u64,
    tripped: bool,
    last: Option<Instant>,
    /// From the end of a look to the next.
    pause: Duration,
}

impl Watcher {
    fn new(what: What, limits: &Limits, directories: Vec<PathBuf>) -> Self {
        Self {
            what,
            limits: *limits,
            directories,
            peak: 0,
            tripped: false,
            last: None,
            pause: PAUSE,
        }
    }

    /// Watches the memory of all processes of this pid namespace but init.
    pub(crate) fn of_memory(limits: &Limits) -> Self {
        Self::new(What::Memory, limits, Vec::new())
    }

    /// Watches what is written to a box's directories.
    pub(crate) fn of_disk(limits: &Limits, room: Option<&Room>) -> Self {
        let directories = room.into_iter().flat_map(Room::writable).collect();
        Self::new(What::Disk, limits, directories)
    }

    /// The most memory it saw, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// What the program was killed for, if it was.
    pub(crate) fn tripped(&self) -> Option<What> {
        self.tripped.then_some(self.what)
    }

    /// Looks, if it is time, and kills everybody when the limit is passed.
    pub(crate) fn look(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() < self.pause) {
            return;
        }
        let over = match self.what {
            What::Memory => self.memory() && !omitted(Omit::Memory),
            What::Disk => self.disk(),
        };
        self.last = Some(Instant::now());
        if over {
            self.tripped = true;
            // ESRCH: it ended by itself meanwhile.
            drop(sys::send_signal_to_all(libc::SIGKILL));
        }
    }

    fn memory(&mut self) -> bool {
        let limit = self.limits.memory;
        let mut used = processes(resident_of) + file_systems() + socket_buffers();
        if used > limit {
            // Pages that forked processes share were counted once for each.
            // The exact account walks every page, so it is taken only now.
            used = processes(proportional_of) + file_systems() + socket_buffers();
        }
        self.peak = self.peak.max(used.min(limit.saturating_mul(2)));
        used > limit
    }

    fn disk(&mut self) -> bool {
        let began = Instant::now();
        // An eighth over: one large file meets the kernel's limit first, which
        // is an error that a program can handle.
        let most = self.limits.workspace + self.limits.workspace / 8;
        let (mut bytes, mut entries) = (0, 0);
        let mut left = self.directories.clone();
        while let Some(directory) = left.pop() {
            let listed = match fs::read_dir(directory) {
                Ok(listed) => listed,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Closed to its own owner, or too deep to be named: whatever
                // is in it cannot be counted.
                Err(_) => return true,
            };
            for entry in listed.flatten() {
                let Ok(found) = entry.metadata() else {
                    continue;
                };
                bytes += found.blocks().saturating_mul(512);
                entries += 1;
                if found.is_dir() {
                    left.push(entry.path());
                }
                if bytes > most || entries > self.limits.inodes {
                    return true;
                }
            }
        }
        // However many files there are, looking takes little of the time.
        self.pause = (began.elapsed() * 10).clamp(PAUSE, LONGEST_PAUSE);
        false
    }
}

/// The sum over every process but init.
fn processes(of: fn(u32) -> u64) -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid > 1)
        .map(of)
        .sum()
}

/// Memory of all processes whose real uid is one of `uids`, for each, in bytes.
/// Pages that forked processes share are counted for each of them: only a
/// process of the same uid could tell.
///
/// # Errors
/// As [`is_anybody`].
pub(crate) fn resident_by_uid(uids: &[u32]) -> io::Result<Vec<u64>> {
    let mut used = vec![0; uids.len()];
    each_process(|pid, uid, _| {
        if let Some(at) = uids.iter().position(|known| Some(*known) == uid) {
            used[at] += resident_of(pid);
        }
    })?;
    Ok(used)
}

/// Whether a process, other than this one, has this real uid and lives.
///
/// # Errors
/// When `/proc` cannot be read: then nobody knows.
pub(crate) fn is_anybody(uid: u32) -> io::Result<bool> {
    let (mut found, me) = (false, std::process::id());
    each_process(|pid, owner, dead| {
        found |= owner.is_none_or(|owner| owner == uid) && pid != me && !dead;
    })?;
    Ok(found)
}

/// How many processes, also those that only wait to be reaped, have a real uid
/// of this range.
///
/// # Errors
/// As [`is_anybody`].
pub(crate) fn how_many_of(uids: &Range<u32>) -> io::Result<usize> {
    let mut found = 0;
    each_process(|_, owner, _| {
        found += usize::from(owner.is_none_or(|owner| uids.contains(&owner)));
    })?;
    Ok(found)
}

/// Tells each process's id, its real uid where that can be told, and whether it
/// only waits to be reaped.
fn each_process(mut tell: impl FnMut(u32, Option<u32>, bool)) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Not by who owns the directory: root owns those of processes that made
        // themselves unreadable.
        let status = match read(&format!("/proc/{pid}/status")) {
            Ok(status) => status,
            // Gone, or hidden because it is somebody else's (`hidepid`).
            Err(error)
                if error.raw_os_error() == Some(libc::ESRCH)
                    || matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                    ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let uid = field("Uid:").and_then(|ids| ids.split_whitespace().next()?.parse().ok());
        let state = field("State:").map_or("", str::trim_start);
        // A first thread that ended leaves a zombie with living threads behind it.
        let dead = state.starts_with(['Z', 'X']) && threads(pid) <= 1;
        tell(pid, uid, dead);
    }
    Ok(())
}

/// A file of `/proc`. A process may have called itself anything, so not
/// everything in it is text.
fn read(path: &str) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.flatten().count())
}

/// Private and shared-memory pages of a process.
fn resident_of(pid: u32) -> u64 {
    living_task(pid, "status", "RssAnon:").map_or(0, |status| {
        kib(&status, &["RssAnon", "RssShmem", "VmPTE", "VmSwap"])
    })
}

/// The same, a page that n processes share counted as an n-th for each.
fn proportional_of(pid: u32) -> u64 {
    living_task(pid, "smaps_rollup", "Pss_Anon:").map_or_else(
        // A program that made itself unreadable is taken at its worst.
        || resident_of(pid),
        |rollup| kib(&rollup, &["Pss_Anon", "Pss_Shmem"]),
    )
}

/// A file of a process, or of the first of its threads that still has memory:
/// the first thread may have ended while others go on with all of it.
fn living_task(pid: u32, file: &str, has: &str) -> Option<String> {
    let read = |path: String| {
        let text = read(&path).ok()?;
        text.contains(has).then_some(text)
    };
    read(format!("/proc/{pid}/{file}")).or_else(|| {
        fs::read_dir(format!("/proc/{pid}/task"))
            .ok()?
            .flatten()
            .find_map(|task| read(format!("{}/{file}", task.path().display())))
    })
}

/// Adds up lines of `name: N kB`, in bytes.
fn kib(text: &str, names: &[&str]) -> u64 {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            if !names.contains(&name) {
                return None;
            }
            value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .map(|kib| kib * 1024)
        .sum()
}

/// What the box's sockets can hold, since nothing tells what they do hold.
fn socket_buffers() -> u64 {
    let open: usize = ["unix", "tcp", "tcp6", "udp", "udp6"]
        .into_iter()
        // Names of unix sockets are the program's to choose.
        .filter_map(|table| read(&format!("/proc/self/net/{table}")).ok())
        .map(|table| sockets(&table))
        .sum();
    open.saturating_sub(FREE_SOCKETS) as u64 * SOCKET_BUFFER
}

/// Sockets of a table below its heading; those in TIME_WAIT (06) hold nothing.
fn sockets(table: &str) -> usize {
    table
        .lines()
        .skip(1)
        .filter(|line| line.split_whitespace().nth(3) != Some("06"))
        .count()
}

fn file_systems() -> u64 {
    ["/workspace", "/dev/shm"]
        .into_iter()
        .filter_map(|path| rustix::fs::statvfs(path).ok())
        .map(|stat| (stat.f_blocks - stat.f_bfree) * stat.f_frsize)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_is_private() {
        let names = ["RssAnon", "RssShmem", "VmPTE"];
        let check = |status: &str, expected| assert_eq!(kib(status, &names), expected);
        check(
            "Name:\tx\nVmPTE:\t      4 kB\nRssAnon:\t     100 kB\nRssFile:\t 50 kB\nRssShmem:\t       2 kB\n",
            106 * 1024,
        );
        check("", 0);
        check("RssAnon:\tlots\n", 0);
    }

    #[test]
    fn sockets_in_time_wait_hold_nothing() {
        let tcp = "  sl  local_address rem_address   st\n\
                   0: 0100007F:9C40 00000000:0000 0A 0\n\
                   1: 0100007F:9C40 0100007F:9C42 06 0\n\
                   2: 0100007F:9C40 0100007F:9C44 01 0\n";
        assert_eq!(sockets(tcp), 2);
        assert_eq!(sockets("Num RefCount Protocol Flags\n0: 2 0 0 1 1 5\n"), 1);
        assert_eq!(sockets(""), 0);
    }

    #[test]
    fn this_process_is_seen() {
        let (resident, proportional) = (
            resident_of(std::process::id()),
            proportional_of(std::process::id()),
        );
        assert!(
            resident > 0 && proportional > 0,
            "{resident} {proportional}"
        );
    }
}
