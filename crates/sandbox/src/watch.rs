//! The memory watcher: stands in for the memory cgroup where there is none.
//!
//! It runs in a box's init and adds up what `/proc` says of the box's own
//! processes and file systems. It is coarser than a cgroup (a burst between
//! two looks goes unseen up to `RLIMIT_DATA` a process), and says no more
//! than it saw.

use std::fs;
use std::time::Instant;

use rustix::time::Timespec;

use crate::sys;

/// Between two looks: 20 ms.
pub(crate) const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Sockets that are not counted: most programs have fewer.
const FREE_SOCKETS: usize = 64;
/// What a further one is counted for, in bytes: the kernel's usual
/// `net.core.wmem_default`.
const SOCKET_BUFFER: u64 = 212_992;

/// Watches one program.
#[derive(Debug)]
pub(crate) struct Watcher {
    limit: u64,
    peak: u64,
    tripped: bool,
    last: Option<Instant>,
}

impl Watcher {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            peak: 0,
            tripped: false,
            last: None,
        }
    }

    /// The most it saw, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Whether it killed the program.
    pub(crate) fn tripped(&self) -> bool {
        self.tripped
    }

    /// Looks, if it is time, and kills everybody when the limit is passed.
    pub(crate) fn look(&mut self) {
        if self
            .last
            .is_some_and(|last| last.elapsed().as_millis() < 10)
        {
            return;
        }
        self.last = Some(Instant::now());
        let mut used = processes(resident_of) + file_systems() + socket_buffers();
        if used > self.limit {
            // Pages that forked processes share were counted once for each.
            // The exact account walks every page, so it is taken only now.
            used = processes(proportional_of) + file_systems() + socket_buffers();
        }
        self.peak = self.peak.max(used.min(self.limit.saturating_mul(2)));
        if used > self.limit {
            self.tripped = true;
            // ESRCH: it ended by itself meanwhile.
            drop(sys::send_signal_to_all(libc::SIGKILL));
        }
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

/// Private and shared-memory pages of a process.
fn resident_of(pid: u32) -> u64 {
    living_task(pid, "status", "RssAnon:")
        .map_or(0, |status| kib(&status, &["RssAnon", "RssShmem", "VmPTE"]))
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
        let text = fs::read_to_string(path).ok()?;
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
        .filter_map(|table| fs::read_to_string(format!("/proc/self/net/{table}")).ok())
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
