//! Counts what a box could leave behind: processes, mounts, cgroups,
//! descriptors, files, shared memory; and the memory of those who run it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::Launcher;

/// How long everything may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Growth of the memory of server and warden that is no leak, in KiB.
const FLAT_KIB: u64 = 48 * 1024;

/// Where to look.
#[derive(Debug)]
pub(crate) struct Census {
    warden: u32,
    rooms: Option<PathBuf>,
    mark: String,
    before: BTreeMap<&'static str, u64>,
}

impl Census {
    /// Takes what is there now for all that may be.
    pub(crate) fn new(launcher: &Launcher, mark: &str) -> Self {
        let shared = launcher.shared_directory();
        let mut census = Self {
            warden: launcher.warden_id(),
            rooms: shared.and_then(Path::parent).map(Path::to_owned),
            mark: mark.to_owned(),
            before: BTreeMap::new(),
        };
        // Pools are filled in quiet moments; what they hold is no leak.
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(25));
            for (name, count) in census.count() {
                let most = census.before.entry(name).or_default();
                *most = count.max(*most);
            }
        }
        census
    }

    /// What is more than before, once everybody had time to go. It is told once.
    pub(crate) fn left(&mut self) -> Vec<String> {
        let until = Instant::now() + PATIENCE * crate::run::slowness();
        loop {
            let excess = self.excess();
            if excess.is_empty() {
                return excess;
            }
            if Instant::now() > until {
                for (name, count) in self.count() {
                    let most = self.before.entry(name).or_default();
                    *most = count.max(*most);
                }
                return excess;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn excess(&self) -> Vec<String> {
        let now = self.count();
        now.into_iter()
            .filter_map(|(name, count)| {
                let before = self.before.get(name).copied().unwrap_or(0);
                let slack = if name.starts_with("memory") {
                    FLAT_KIB
                } else {
                    0
                };
                (count > before + slack).then(|| format!("{name}: {before} before, {count} after"))
            })
            .collect()
    }

    fn count(&self) -> BTreeMap<&'static str, u64> {
        let own = std::process::id();
        BTreeMap::from([
            ("processes", descendants(own)),
            ("marked processes", marked(&self.mark)),
            ("mounts", mounts(own) + mounts(self.warden)),
            ("cgroups", cgroups(self.warden)),
            ("descriptors", entries(&format!("/proc/{own}/fd"))),
            (
                "descriptors of the warden",
                entries(&format!("/proc/{}/fd", self.warden)),
            ),
            ("rooms", self.rooms.as_deref().map_or(0, names)),
            ("files of boxes outside", strays()),
            ("shared memory", lines("/proc/sysvipc/shm")),
            ("semaphores", lines("/proc/sysvipc/sem")),
            ("message queues", lines("/proc/sysvipc/msg")),
            ("memory of the server", resident(own)),
            ("memory of the warden", resident(self.warden)),
        ])
    }
}

fn entries(path: &str) -> u64 {
    names(Path::new(path))
}

fn names(path: &Path) -> u64 {
    fs::read_dir(path).map_or(0, |entries| entries.count() as u64)
}

fn lines(path: &str) -> u64 {
    fs::read_to_string(path).map_or(0, |text| text.lines().count() as u64)
}

fn mounts(pid: u32) -> u64 {
    lines(&format!("/proc/{pid}/mountinfo"))
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(|entry| entry.path())
}

/// Whoever descends from a process, zombies too.
fn descendants(of: u32) -> u64 {
    let parents: Vec<(u32, u32)> = processes()
        .filter_map(|path| {
            let stat = fs::read(path.join("stat")).ok()?;
            let stat = String::from_utf8_lossy(&stat).into_owned();
            let pid = stat.split(' ').next()?.parse().ok()?;
            let parent = stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect();
    let mut known = BTreeSet::from([of]);
    loop {
        let before = known.len();
        let more = parents.iter().filter(|(_, parent)| known.contains(parent));
        known.extend(more.map(|(pid, _)| *pid).collect::<Vec<_>>());
        if known.len() == before {
            return known.len() as u64;
        }
    }
}

/// Processes of the whole machine that carry the mark of attacks.
fn marked(mark: &str) -> u64 {
    let holds = |line: &Vec<u8>| {
        line.split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes())
    };
    processes()
        .filter_map(|path| fs::read(path.join("cmdline")).ok())
        .filter(holds)
        .count() as u64
}

/// Cgroups that belong to a warden.
fn cgroups(warden: u32) -> u64 {
    let name = format!("/codex-server-{warden}-");
    let (mut found, mut left) = (0, vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                found += u64::from(path.to_string_lossy().contains(&name));
                left.push(path);
            }
        }
    }
    found
}

/// Files of a box's uids where everybody may write, outside of its rooms.
fn strays() -> u64 {
    use std::os::linux::fs::MetadataExt as _;
    [
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/run",
        "/run/lock",
        "/dev/mqueue",
    ]
    .into_iter()
    .flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten())
    .filter(|entry| {
        !entry
            .file_name()
            .to_string_lossy()
            .starts_with("codex-server-")
            && fs::symlink_metadata(entry.path())
                .is_ok_and(|found| (0x7000_0000..0x8000_0000).contains(&found.st_uid()))
    })
    .count() as u64
}
