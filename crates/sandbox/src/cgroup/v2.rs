//! cgroup v2: one directory a box, in a part of the tree that is ours to divide.
//!
//! A cgroup that hands controllers to children may hold no process itself, so
//! where this server's own cgroup was delegated to it (systemd `Delegate=yes`,
//! a writable cgroup namespace) its processes first move into a leaf of it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::find::Hierarchy;
use super::{CPU_PERIOD, cpu_quota, keyed, limit, number, sweep, write};
use crate::error::{At, Error, Step};
use crate::limits::{Limits, Usage};

const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
const ENABLE: &str = "+memory +pids +cpu";
/// Where the server and its warden live in a delegated cgroup.
const SERVER_LEAF: &str = "codex-server.leaf";

/// This server's directory.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
}

impl Tree {
    pub(super) fn find(hierarchies: &[Hierarchy], name: &str) -> Result<Self, Error> {
        let hierarchy = hierarchies
            .iter()
            .find(|hierarchy| hierarchy.unified)
            .ok_or_else(|| refused("cgroup v2 is not mounted"))?;
        let us = [std::process::id(), parent_id()];
        let parent = parent(&hierarchy.mount, &hierarchy.own, &us)?;
        sweep(&parent);
        let path = parent.join(name);
        fs::create_dir(&path)
            .or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })
            .at(Step::CgroupRoot)?;
        write(&path.join("cgroup.subtree_control"), ENABLE)
            .at(Step::CgroupRoot)
            .map_err(|error| error.with("cannot hand controllers to boxes"))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn create(&self, name: &str) -> Result<Leaf, Error> {
        let path = self.path.join(name);
        fs::create_dir(&path).at(Step::CgroupCreate)?;
        match fs::File::open(&path) {
            Ok(directory) => Ok(Leaf {
                path,
                directory: directory.into(),
            }),
            Err(error) => {
                // Empty, so it can be removed; else the next start sweeps it.
                drop(fs::remove_dir(&path));
                Err(Error::new(Step::CgroupCreate, error))
            }
        }
    }
}

/// A cgroup in which children may be made that get all three controllers.
fn parent(mount: &Path, own: &Path, us: &[u32]) -> Result<PathBuf, Error> {
    let delegated = controllers(own, "cgroup.controllers");
    if delegated.is_ok_and(|found| has_all(&found)) && only_ours(own, us) {
        move_to_leaf(own, us).at(Step::CgroupRoot)?;
        enable(own).at(Step::CgroupRoot)?;
        return Ok(own.to_owned());
    }
    // Started by a server that moved, or beside one: what is divided lies above.
    if own.ends_with(SERVER_LEAF)
        && let Some(above) = own.parent()
        && controllers(above, "cgroup.subtree_control").is_ok_and(|found| has_all(&found))
        && writable(above)
    {
        return Ok(above.to_owned());
    }
    // Started by hand as root: a directory beside systemd's slices.
    let top = controllers(mount, "cgroup.controllers").at(Step::CgroupRoot)?;
    if !has_all(&top) {
        return Err(refused(
            "the v2 tree has no memory, pids and cpu controllers",
        ));
    }
    if enable(mount).is_ok() && writable(mount) {
        return Ok(mount.to_owned());
    }
    Err(refused(
        "this process's cgroup is not delegated to it; start it with \
         `systemd-run --user --scope -p Delegate=yes codex-server …` or `Delegate=yes` in its unit",
    ))
}

fn refused(why: &str) -> Error {
    Error::new(
        Step::CgroupRoot,
        io::Error::from(io::ErrorKind::PermissionDenied),
    )
    .with(why)
}

fn parent_id() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

fn controllers(directory: &Path, file: &str) -> io::Result<Vec<String>> {
    Ok(fs::read_to_string(directory.join(file))?
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

fn has_all(found: &[String]) -> bool {
    CONTROLLERS
        .iter()
        .all(|name| found.iter().any(|f| f == name))
}

/// Whether nobody but this server lives in `directory`.
fn only_ours(directory: &Path, us: &[u32]) -> bool {
    fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|procs| {
        procs
            .lines()
            .all(|line| line.parse().is_ok_and(|pid: u32| us.contains(&pid)))
    })
}

fn move_to_leaf(own: &Path, us: &[u32]) -> io::Result<()> {
    let leaf = own.join(SERVER_LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in us {
        write(&leaf.join("cgroup.procs"), &pid.to_string())?;
    }
    Ok(())
}

fn enable(directory: &Path) -> io::Result<()> {
    if has_all(&controllers(directory, "cgroup.subtree_control")?) {
        return Ok(());
    }
    write(&directory.join("cgroup.subtree_control"), ENABLE)
}

fn writable(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

/// A box's directory.
#[derive(Debug)]
pub(super) struct Leaf {
    path: PathBuf,
    directory: OwnedFd,
}

impl Leaf {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The file by which a process moves itself in, opened with the warden's rights: the
    /// kernel goes by who opened it.
    pub(super) fn processes(&self) -> Result<OwnedFd, Error> {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"));
        file.map(OwnedFd::from).at(Step::CgroupAttach)
    }

    pub(super) fn limit(&self, limits: &Limits) -> Result<(), Error> {
        let path = &self.path;
        limit(path, "memory.max", limits.memory)?;
        // Absent where the kernel has no swap accounting, and then no swap.
        if path.join("memory.swap.max").exists() {
            limit(path, "memory.swap.max", 0)?;
        }
        // One more for the box's init.
        limit(path, "pids.max", u64::from(limits.processes) + 1)?;
        limit(
            path,
            "cpu.max",
            format!("{} {}", cpu_quota(limits), CPU_PERIOD.as_micros()),
        )
    }

    /// The least weight that there is, or the usual one.
    pub(super) fn idle(&self, idle: bool) -> Result<(), Error> {
        limit(&self.path, "cpu.weight", if idle { 1 } else { 100 })
    }

    pub(super) fn usage(&self) -> Result<Usage, Error> {
        let at = |file: &str| self.path.join(file);
        Ok(Usage {
            cpu_time: Duration::from_micros(
                keyed(&at("cpu.stat"), "usage_usec").at(Step::CgroupRead)?,
            ),
            // memory.peak came with Linux 5.19; before it the current use is all there is.
            memory_peak: number(&at("memory.peak"))
                .or_else(|_| number(&at("memory.current")))
                .at(Step::CgroupRead)?,
            oom_kills: keyed(&at("memory.events"), "oom_kill").at(Step::CgroupRead)?,
            forks_refused: keyed(&at("pids.events"), "max").at(Step::CgroupRead)?,
        })
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        let file = self.path.join("cgroup.kill");
        // cgroup.kill came with Linux 5.14; the pid namespace kills as well.
        if file.exists() {
            write(&file, "1")
        } else {
            Ok(())
        }
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A tree of plain files: `path → contents`.
    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn snapshot(directory: &Path) -> BTreeMap<String, String> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    const ALL: &str = "cpuset cpu io memory pids\n";

    #[test]
    fn a_second_server_divides_what_the_first_one_did() {
        let above = tempfile::tempdir().unwrap();
        let leaf = above.path().join(SERVER_LEAF);
        fs::create_dir(&leaf).unwrap();
        // The first server lives here too, so it is not for the second to move.
        fs::write(leaf.join("cgroup.procs"), "1\n").unwrap();
        fs::write(leaf.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let nowhere = above.path().join("nowhere");
        let divided = above.path().join("cgroup.subtree_control");
        for (enabled, expected) in [("cpu memory pids\n", true), ("cpu\n", false)] {
            fs::write(&divided, enabled).unwrap();
            let found = parent(&nowhere, &leaf, &[2]).ok();
            assert_eq!(
                found.as_deref() == Some(above.path()),
                expected,
                "{enabled}"
            );
        }
    }

    #[test]
    fn a_delegated_cgroup_is_divided() {
        let root = fake(&[
            ("svc/cgroup.controllers", ALL),
            ("svc/cgroup.procs", "10\n11\n"),
            ("svc/cgroup.subtree_control", ""),
            ("cgroup.controllers", ALL),
        ]);
        let own = root.path().join("svc");
        assert_eq!(parent(root.path(), &own, &[10, 11]).unwrap(), own);
        assert!(own.join(SERVER_LEAF).join("cgroup.procs").exists());
        assert_eq!(snapshot(&own)["cgroup.subtree_control"], ENABLE);
    }

    #[test]
    fn a_cgroup_with_strangers_is_left_alone() {
        let root = fake(&[
            ("session/cgroup.controllers", ALL),
            ("session/cgroup.procs", "10\n11\n99\n"),
            ("cgroup.controllers", ALL),
            ("cgroup.subtree_control", "memory pids cpu\n"),
        ]);
        let own = root.path().join("session");
        assert_eq!(parent(root.path(), &own, &[10, 11]).unwrap(), root.path());
        assert!(!own.join(SERVER_LEAF).exists());
    }

    #[test]
    fn no_controllers_no_tree() {
        let root = fake(&[("cgroup.controllers", "hugetlb\n"), ("cgroup.procs", "")]);
        let error = parent(root.path(), root.path(), &[]).unwrap_err();
        assert_eq!(error.step, Step::CgroupRoot);
        assert!(error.detail.contains("no memory, pids and cpu"), "{error}");
    }

    #[test]
    fn limits_and_usage() {
        let root = fake(&[("memory.swap.max", "max\n")]);
        let leaf = Leaf {
            path: root.path().to_owned(),
            directory: fs::File::open(root.path()).unwrap().into(),
        };
        leaf.limit(&Limits {
            memory: 1 << 29,
            processes: 64,
            cpu_millis: 1500,
            workspace: 0,
            inodes: 0,
            shm: 0,
            open_files: 0,
        })
        .unwrap();
        let expected = [
            ("cpu.max", "150000 100000"),
            ("memory.max", "536870912"),
            ("memory.swap.max", "0ax\n"), // A plain file keeps what a control file would not.
            ("pids.max", "65"),
        ];
        for (file, value) in expected {
            assert_eq!(snapshot(root.path())[file], value, "{file}");
        }
        for (file, text) in [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.peak", "4096\n"),
            ("memory.events", "low 0\noom 1\noom_kill 2\n"),
            ("pids.events", "max 3\n"),
        ] {
            fs::write(root.path().join(file), text).unwrap();
        }
        assert_eq!(
            leaf.usage().unwrap(),
            Usage {
                cpu_time: Duration::from_micros(1500),
                memory_peak: 4096,
                oom_kills: 2,
                forks_refused: 3,
            }
        );
    }
}
