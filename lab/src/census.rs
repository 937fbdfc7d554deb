//! Counts what a server could leave behind: processes, mounts, cgroups, file
//! descriptors, files, memory. Reads `/proc` and `/sys` only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A process, told apart from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

/// What there is at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) processes: usize,
    pub(crate) mounts: usize,
    pub(crate) cgroups: usize,
    pub(crate) fds: usize,
    pub(crate) files: usize,
    /// Resident memory of the server, in KiB.
    pub(crate) memory_kib: u64,
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "processes {}, mounts {}, cgroups {}, fds {}, files {}, memory {} KiB",
            self.processes, self.mounts, self.cgroups, self.fds, self.files, self.memory_kib
        )
    }
}

impl Census {
    /// Counts now, around the server `pid` and the files below `home`.
    pub(crate) fn take(pid: u32, home: &Path) -> Result<Self> {
        let processes = family(pid)?;
        Ok(Self {
            processes: processes.len(),
            mounts: mounts(&processes)?,
            cgroups: cgroups(&processes),
            fds: fds(&processes),
            files: entries(home),
            memory_kib: memory_kib(pid)?,
        })
    }

    /// What is more than in `before`, memory left aside.
    pub(crate) fn excess(&self, before: &Self) -> Vec<String> {
        [
            ("processes", self.processes, before.processes),
            ("mounts", self.mounts, before.mounts),
            ("cgroups", self.cgroups, before.cgroups),
            ("fds", self.fds, before.fds),
            ("files", self.files, before.files),
        ]
        .into_iter()
        .filter(|(_, now, then)| now > then)
        .map(|(name, now, then)| format!("{name}: {then} before, {now} after"))
        .collect()
    }
}

/// The server, everything that descends from it, and what escaped its parents:
/// every later process in a namespace other than ours that has been passed on to
/// an ancestor of the server. Whoever else starts boxes on this machine keeps its
/// own.
pub(crate) fn family(server: u32) -> Result<BTreeSet<Process>> {
    let all = snapshot()?;
    let own = namespaces("self");
    let born = all.keys().find(|process| process.pid == server);
    let born = born.map_or(0, |process| process.started);
    let later = all.keys().filter(|process| process.started >= born);
    let strange: BTreeSet<u32> = later
        .filter(|process| {
            let theirs = namespaces(&process.pid.to_string());
            theirs.iter().zip(&own).any(|(a, b)| a.is_some() && a != b)
        })
        .map(|process| process.pid)
        .collect();
    let parents = all.iter().map(|(process, parent)| (process.pid, *parent));
    let passed_on = passed_on(server, &parents.collect(), &strange);
    let mut found: BTreeSet<Process> = descendants(server, &all);
    found.extend(all.into_keys().filter(|one| passed_on.contains(&one.pid)));
    Ok(found)
}

/// Those of `strange` above whom the first that is not strange is an ancestor of
/// `server`: there the kernel takes orphans.
fn passed_on(server: u32, parents: &BTreeMap<u32, u32>, strange: &BTreeSet<u32>) -> BTreeSet<u32> {
    let above = |pid: u32| std::iter::successors(parents.get(&pid), |pid| parents.get(pid));
    let ancestors: BTreeSet<u32> = above(server).copied().collect();
    let adopter = |pid: u32| above(pid).find(|pid| !strange.contains(pid));
    let is_passed_on = |pid: &&u32| adopter(**pid).is_some_and(|pid| ancestors.contains(pid));
    strange.iter().filter(is_passed_on).copied().collect()
}

/// The family, a line for each: number, parent and command line.
pub(crate) fn listing(server: u32) -> Result<String> {
    let all = snapshot()?;
    let lines = family(server)?.into_iter().map(|process| {
        let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let parent = all.get(&process).copied().unwrap_or_default();
        format!("  {} (parent {parent}): {}", process.pid, command.trim())
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The server and everything that descends from it.
pub(crate) fn lineage(server: u32) -> Result<BTreeSet<Process>> {
    Ok(descendants(server, &snapshot()?))
}

/// Those of `processes` that still exist and are not zombies.
pub(crate) fn alive(processes: &BTreeSet<Process>) -> Result<Vec<Process>> {
    let now = snapshot()?;
    Ok(processes
        .iter()
        .filter(|process| now.contains_key(process))
        .copied()
        .collect())
}

/// All processes but zombies, with their parents.
fn snapshot() -> Result<BTreeMap<Process, u32>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")
        .context("failed to list /proc")?
        .flatten()
    {
        // A process may end between being listed and being read.
        if let Ok(stat) = fs::read_to_string(entry.path().join("stat"))
            && let Some((process, parent)) = parse_stat(&stat)
        {
            all.insert(process, parent);
        }
    }
    Ok(all)
}

/// Process and parent of a line of `/proc/PID/stat`; `None` for a zombie.
fn parse_stat(stat: &str) -> Option<(Process, u32)> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    // The name may hold spaces and parentheses; the last one ends it.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // State is field 3 of the line and the start time field 22.
    let started = fields.nth(17)?.parse().ok()?;
    let gone = matches!(state, "Z" | "X");
    (!gone).then_some((Process { pid, started }, parent))
}

fn descendants(server: u32, all: &BTreeMap<Process, u32>) -> BTreeSet<Process> {
    let mut pids = BTreeSet::from([server]);
    loop {
        let before = pids.len();
        let children = all.iter().filter(|(_, parent)| pids.contains(parent));
        let children: Vec<u32> = children.map(|(process, _)| process.pid).collect();
        pids.extend(children);
        if pids.len() == before {
            break;
        }
    }
    all.keys()
        .filter(|process| pids.contains(&process.pid))
        .copied()
        .collect()
}

/// User, pid and network namespace of a process, where readable.
fn namespaces(pid: &str) -> [Option<String>; 3] {
    ["user", "pid", "net"].map(|kind| {
        fs::read_link(format!("/proc/{pid}/ns/{kind}"))
            .ok()
            .map(|link| link.to_string_lossy().into_owned())
    })
}

/// Mounts in our namespace and in each other one that the processes are in.
fn mounts(processes: &BTreeSet<Process>) -> Result<usize> {
    let mut seen = BTreeSet::new();
    let mut count = 0;
    let pids = processes.iter().map(|process| process.pid.to_string());
    for pid in std::iter::once("self".to_owned()).chain(pids) {
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else {
            continue;
        };
        if seen.insert(namespace) {
            let table = fs::read_to_string(format!("/proc/{pid}/mounts"));
            count += table.map_or(0, |table| table.lines().count());
        }
    }
    anyhow::ensure!(count > 0, "failed to read any mount table");
    Ok(count)
}

fn fds(processes: &BTreeSet<Process>) -> usize {
    processes
        .iter()
        .map(|process| entries(Path::new(&format!("/proc/{}/fd", process.pid))))
        .sum()
}

/// Cgroups of the wardens among `processes`, and of wardens that are dead: those
/// of other servers come and go as they like.
fn cgroups(processes: &BTreeSet<Process>) -> usize {
    let is_theirs = |path: &Path| {
        warden_in(&path.to_string_lossy()).is_some_and(|warden| {
            processes.iter().any(|process| process.pid == warden)
                || !Path::new("/proc").join(warden.to_string()).exists()
        })
    };
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut count = 0;
    while let Some(directory) = left.pop() {
        for (path, is_directory) in children(&directory) {
            if is_directory {
                count += usize::from(is_theirs(&path));
                left.push(path);
            }
        }
    }
    count
}

/// The process in the name of a warden's cgroup, or of one below it:
/// `…/codex-server-PID-…`.
fn warden_in(path: &str) -> Option<u32> {
    let (_, name) = path.split_once("/codex-server-")?;
    name.split('-').next()?.parse().ok()
}

/// Everything below `root`, not crossing symbolic links.
fn entries(root: &Path) -> usize {
    children(root)
        .into_iter()
        .map(|(path, is_directory)| 1 + if is_directory { entries(&path) } else { 0 })
        .sum()
}

fn children(root: &Path) -> Vec<(PathBuf, bool)> {
    fs::read_dir(root).map_or_else(
        |_| Vec::new(),
        |list| {
            list.flatten()
                .map(|entry| {
                    let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                    (entry.path(), is_directory)
                })
                .collect()
        },
    )
}

fn memory_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("failed to read the status of process {pid}"))?;
    parse_memory(&status).with_context(|| format!("process {pid} shows no VmRSS"))
}

fn parse_memory(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtask::process;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        let rest = "0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0";
        let check = |line: String, expected: Option<(u32, u64, u32)>| {
            let found =
                parse_stat(&line).map(|(process, parent)| (process.pid, process.started, parent));
            assert_eq!(found, expected, "{line}");
        };
        check(format!("7 (sh) S 3 {rest}"), Some((7, 4242, 3)));
        check(format!("7 (a) R 1 (b) S 3 {rest}"), Some((7, 4242, 3)));
        check(format!("7 (gone) Z 3 {rest}"), None);
        check("7 (short) S".to_owned(), None);
    }

    #[test]
    fn memory_is_read_in_kib() {
        assert_eq!(parse_memory("Name:\tx\nVmRSS:\t  1234 kB\n"), Some(1234));
        assert_eq!(parse_memory("Name:\tx\n"), None);
    }

    #[test]
    fn a_child_is_seen_while_it_lives() {
        let mut child = process::command("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let mine = lineage(std::process::id()).expect("/proc is there");
        let child_only: BTreeSet<Process> = mine
            .into_iter()
            .filter(|process| process.pid == child.id())
            .collect();
        assert_eq!(alive(&child_only).expect("/proc is there").len(), 1);
        child.kill().expect("it is ours");
        child.wait().expect("it ended");
        assert!(alive(&child_only).expect("/proc is there").is_empty());
    }

    /// 1 started the shell 10, that this check 20, that the server 30, whose
    /// warden is 31; 40 is somebody else's server.
    #[test]
    fn orphans_are_ours_and_boxes_of_others_are_not() {
        let usual = [(1, 0), (10, 1), (20, 10), (30, 20), (40, 10)];
        let check = |strange: &[(u32, u32)], expected: &[u32]| {
            let parents = usual.iter().chain(strange).copied().collect();
            let strange = strange.iter().map(|(pid, _)| *pid).collect();
            let found = passed_on(30, &parents, &strange);
            assert_eq!(found, expected.iter().copied().collect(), "{strange:?}");
        };
        check(&[(31, 30), (32, 31)], &[]);
        check(&[(32, 1), (33, 32)], &[32, 33]);
        check(&[(32, 10)], &[32]);
        check(&[(41, 40), (42, 41), (43, 42)], &[]);
        check(&[(41, 99)], &[]);
    }

    #[test]
    fn cgroups_name_their_warden() {
        let check = |path, expected| assert_eq!(warden_in(path), expected, "{path}");
        check("/sys/fs/cgroup/memory/a/codex-server-12-7f/box-3", Some(12));
        check("/sys/fs/cgroup/codex-server-12-7f", Some(12));
        check("/sys/fs/cgroup/codex-server.service", None);
        check("/sys/fs/cgroup/codex-server-x", None);
        check("/sys/fs/cgroup", None);
    }

    #[test]
    fn files_are_counted_at_every_depth() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("a/b")).expect("made");
        fs::write(root.path().join("a/b/c"), "x").expect("written");
        assert_eq!(entries(root.path()), 3);
    }

    #[test]
    fn only_more_is_an_excess() {
        let before = Census {
            processes: 3,
            fds: 9,
            ..Census::default()
        };
        let after = Census {
            processes: 4,
            fds: 8,
            memory_kib: 1,
            ..before
        };
        assert_eq!(after.excess(&before), ["processes: 3 before, 4 after"]);
        assert!(before.excess(&before).is_empty());
    }

    #[test]
    fn a_census_of_ourselves_counts_something() {
        let home = tempfile::tempdir().expect("a directory");
        let census = Census::take(std::process::id(), home.path()).expect("/proc is there");
        assert!(census.processes >= 1 && census.mounts >= 1 && census.fds >= 3);
        assert!(census.memory_kib > 0);
    }
}
