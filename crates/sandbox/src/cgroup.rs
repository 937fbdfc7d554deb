//! Control groups: memory, processes and CPU of a box, on v1 and v2.
//!
//! Only the warden uses this. Paths come from the kernel's own tables, never
//! from a request. Every parser takes text, so that v2 logic is tested with a
//! tree of plain files on machines that only have v1.

mod find;
mod v1;
mod v2;

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{At, Error, Step};
use crate::limits::{Limits, Usage};

/// How long a start waits for the cgroups of dead servers to become empty.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(2);
const SWEEP_PAUSE: Duration = Duration::from_millis(2);

/// Directories of this server's runs start with this.
const PREFIX: &str = "codex-server-";

/// The directory (one a hierarchy on v1) in which boxes get theirs.
#[derive(Debug)]
pub(crate) struct Cgroups {
    tree: Tree,
}

#[derive(Debug)]
enum Tree {
    V1(v1::Tree),
    V2(v2::Tree),
}

impl Cgroups {
    /// Finds where this process may make cgroups with memory, pids and cpu,
    /// makes a directory for this server there, and removes those that
    /// earlier servers left.
    ///
    /// # Errors
    /// [`Step::CgroupRoot`] with what is missing.
    pub(crate) fn find() -> Result<Self, Error> {
        let own = fs::read_to_string("/proc/self/cgroup").at(Step::CgroupRoot)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").at(Step::CgroupRoot)?;
        let hierarchies = find::hierarchies(&mounts, &own);
        let me = std::process::id();
        let name = format!("{PREFIX}{me}-{}-{}", start_time("self")?, pid_namespace()?);
        // A machine has the controllers on one of the two.
        let tree = if find::has_v1(&hierarchies) {
            Tree::V1(v1::Tree::find(&hierarchies, &name)?)
        } else {
            Tree::V2(v2::Tree::find(&hierarchies, &name)?)
        };
        Ok(Self { tree })
    }

    /// What was found, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.tree {
            Tree::V1(tree) => format!("cgroup v1 at {}", tree.memory().display()),
            Tree::V2(tree) => format!("cgroup v2 at {}", tree.path().display()),
        }
    }

    /// Makes a box's cgroup with its limits set.
    ///
    /// # Errors
    /// [`Step::CgroupCreate`] or [`Step::CgroupLimit`]; nothing is left behind.
    pub(crate) fn create(&self, number: u64, limits: &Limits) -> Result<Cgroup, Error> {
        let name = format!("box-{number}");
        let leaf = match &self.tree {
            Tree::V1(tree) => Leaf::V1(tree.create(&name)?),
            Tree::V2(tree) => Leaf::V2(tree.create(&name)?),
        };
        let cgroup = Cgroup { leaf };
        let set = match &cgroup.leaf {
            Leaf::V1(leaf) => leaf.limit(limits),
            Leaf::V2(leaf) => leaf.limit(limits),
        };
        if let Err(error) = set {
            // Empty, so it can be removed; else the next start sweeps it.
            drop(cgroup.remove());
            return Err(error);
        }
        Ok(cgroup)
    }

    fn directories(&self) -> Vec<PathBuf> {
        match &self.tree {
            Tree::V1(tree) => tree.directories().to_vec(),
            Tree::V2(tree) => vec![tree.path().to_owned()],
        }
    }
}

/// Removes this server's directory, once all boxes are gone.
impl Drop for Cgroups {
    fn drop(&mut self) {
        for directory in self.directories() {
            // What can't be removed now is found by the next start.
            drop(fs::remove_dir(directory));
        }
    }
}

/// A box's cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    leaf: Leaf,
}

#[derive(Debug)]
enum Leaf {
    V1(v1::Leaf),
    V2(v2::Leaf),
}

impl Cgroup {
    /// The directory to clone straight into (v2 only).
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        match &self.leaf {
            Leaf::V1(_) => None,
            Leaf::V2(leaf) => Some(leaf.fd()),
        }
    }

    /// Its `tasks` files, for a process that moves itself in (v1; on v2 it is born there).
    pub(crate) fn tasks(&self) -> Result<Vec<OwnedFd>, Error> {
        match &self.leaf {
            Leaf::V1(leaf) => leaf.tasks(),
            Leaf::V2(_) => Ok(Vec::new()),
        }
    }

    /// The files by which a process of another cgroup moves itself in.
    pub(crate) fn entrance(&self) -> Result<Vec<OwnedFd>, Error> {
        match &self.leaf {
            Leaf::V1(leaf) => leaf.tasks(),
            Leaf::V2(leaf) => Ok(vec![leaf.processes()?]),
        }
    }

    /// What the box has used so far.
    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        match &self.leaf {
            Leaf::V1(leaf) => leaf.usage(),
            Leaf::V2(leaf) => leaf.usage(),
        }
    }

    /// Lets all other boxes have the processors first, or no more.
    pub(crate) fn idle(&self, idle: bool) -> Result<(), Error> {
        match &self.leaf {
            Leaf::V1(leaf) => leaf.idle(idle),
            Leaf::V2(leaf) => leaf.idle(idle),
        }
    }

    /// Kills everything in it (v2; on v1 the pid namespace does).
    pub(crate) fn kill(&self) -> io::Result<()> {
        match &self.leaf {
            Leaf::V1(_) => Ok(()),
            Leaf::V2(leaf) => leaf.kill(),
        }
    }

    /// Removes it. `EBUSY` while the kernel still buries processes: try again.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match &self.leaf {
            Leaf::V1(leaf) => leaf.remove(),
            Leaf::V2(leaf) => leaf.remove(),
        }
    }
}

/// Moves this process, which must be single-threaded, into the cgroup of an
/// open `tasks` file.
///
/// A thread that moves itself needs no lock; moving another process waits for
/// an RCU grace period, measured at 5 to 15 ms on an idle machine.
pub(crate) fn enter(tasks: &OwnedFd) -> Result<(), Error> {
    rustix::io::write(tasks, b"0")
        .at(Step::CgroupAttach)
        .map(drop)
}

/// Writes one value to a control file.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(cfg!(test))
        .truncate(false)
        .open(path)?;
    file.write_all(value.as_bytes())
}

/// Writes a limit, naming the file on failure.
fn limit(directory: &Path, file: &str, value: impl ToString) -> Result<(), Error> {
    let value = value.to_string();
    write(&directory.join(file), &value)
        .at(Step::CgroupLimit)
        .map_err(|error| error.with(format!("{file} = {value}")))
}

/// One number from a file that holds just it; `max` reads as `u64::MAX`.
fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let text = text.trim();
    if text == "max" {
        return Ok(u64::MAX);
    }
    text.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The value behind `key` in a file of `key value` lines; 0 when it is not there.
fn keyed(path: &Path, key: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0))
}

/// CPU quota in microseconds for each period.
const CPU_PERIOD: Duration = Duration::from_millis(100);

fn cpu_quota(limits: &Limits) -> u64 {
    u64::from(limits.cpu_millis.max(10)) * u64::try_from(CPU_PERIOD.as_micros()).unwrap_or(0) / 1000
}

/// Start time of a process in clock ticks since boot: pid and start time
/// together name a process for good.
fn start_time(pid: &str) -> Result<u64, Error> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).at(Step::CgroupRoot)?;
    // The command's name stands in parentheses and may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest);
    if fields.is_some_and(|fields| fields.trim_start().starts_with(['Z', 'X'])) {
        return Err(Error::new(
            Step::CgroupRoot,
            io::Error::from_raw_os_error(libc::ESRCH),
        ));
    }
    fields
        .and_then(|fields| fields.split_whitespace().nth(19))
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| {
            Error::new(
                Step::CgroupRoot,
                io::Error::from(io::ErrorKind::InvalidData),
            )
        })
}

/// Removes what servers that are no more left in `parent`.
///
/// They died without a chance to clean up (both server and warden killed at
/// once); their boxes died with them, so the directories are empty or hold
/// processes that must die now.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    let until = Instant::now() + SWEEP_TIMEOUT;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if !alive(owner) {
            sweep_one(&entry.path(), until);
        }
    }
}

/// Whether the server `PID-STARTTIME-NAMESPACE` still runs, as far as can be
/// seen from here: another pid namespace's servers always do.
fn alive(owner: &str) -> bool {
    let mut parts = owner.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started)), Some(Ok(namespace))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return true; // Not a name of ours.
    };
    if pid_namespace().ok() != Some(namespace) {
        return true;
    }
    match start_time(&pid.to_string()) {
        Ok(ticks) => ticks == started,
        // Reading it may fail for other reasons than its death.
        Err(error) => !matches!(error.errno(), libc::ENOENT | libc::ESRCH),
    }
}

/// The inode that names this process's pid namespace.
fn pid_namespace() -> Result<u64, Error> {
    let stat = rustix::fs::stat("/proc/self/ns/pid").at(Step::CgroupRoot)?;
    Ok(stat.st_ino)
}

fn sweep_one(directory: &Path, until: Instant) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep_one(&entry.path(), until);
        }
    }
    let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|line| line.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // Already gone is as good.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
    // Who was killed just now takes a moment to be gone. What can't be removed
    // even then is found by the next start.
    while let Err(error) = fs::remove_dir(directory) {
        if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() >= until {
            return;
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> String {
        let (pid, started) = (std::process::id(), start_time("self").unwrap());
        format!("{pid}-{started}-{}", pid_namespace().unwrap())
    }

    #[test]
    fn this_process_is_alive_and_others_are_not() {
        let (pid, here) = (std::process::id(), pid_namespace().unwrap());
        assert!(alive(&me()));
        assert!(!alive(&format!("{pid}-1-{here}")));
        assert!(!alive(&format!("4194999-5-{here}")));
        assert!(alive("4194999-5-1"), "another pid namespace's");
        assert!(alive("not-ours"));
    }

    #[test]
    fn sweep_leaves_the_living_and_strangers() {
        let parent = tempfile::tempdir().unwrap();
        let alive = format!("{PREFIX}{}", me());
        let dead = format!("{PREFIX}4194999-5-{}", pid_namespace().unwrap());
        for name in [&alive, &dead, "user.slice"] {
            fs::create_dir_all(parent.path().join(name).join("box-1")).unwrap();
        }
        sweep(parent.path());
        let mut left: Vec<_> = fs::read_dir(parent.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [alive.as_str(), "user.slice"]);
    }

    proptest::proptest! {
        #[test]
        fn a_quota_is_never_nothing(cpu_millis: u32) {
            let quota = cpu_quota(&Limits {
                memory: 0,
                processes: 0,
                cpu_millis,
                workspace: 0,
                inodes: 0,
                shm: 0,
                open_files: 0,
            });
            // The kernel takes no less than a millisecond.
            proptest::prop_assert!(quota >= 1000);
            proptest::prop_assert_eq!(quota / 100, u64::from(cpu_millis.max(10)));
        }
    }

    #[test]
    fn quota() {
        let check = |millis, expected| {
            let limits = Limits {
                memory: 0,
                processes: 0,
                cpu_millis: millis,
                workspace: 0,
                inodes: 0,
                shm: 0,
                open_files: 0,
            };
            assert_eq!(cpu_quota(&limits), expected);
        };
        check(1000, 100_000);
        check(2500, 250_000);
        check(0, 1000);
    }
}
