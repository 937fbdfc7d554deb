//! cgroup v1: one directory in each of the memory, pids and cpu hierarchies.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::find::Hierarchy;
use super::{CPU_PERIOD, cpu_quota, keyed, limit, number, sweep};
use crate::error::{At, Error, Step};
use crate::limits::{Limits, Usage};

/// Most memory in a box's socket buffers, in bytes.
const SOCKET_BUFFERS: u64 = 64 * 1024 * 1024;

/// Controllers in the order of [`Tree::directories`]. `cpuacct` may share
/// `cpu`'s directory; then it stands there once.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];

/// This server's directory in each hierarchy.
#[derive(Debug)]
pub(super) struct Tree {
    /// Of each of [`CONTROLLERS`].
    of: [PathBuf; 4],
    /// Without duplicates.
    distinct: Vec<PathBuf>,
}

impl Tree {
    pub(super) fn find(hierarchies: &[Hierarchy], name: &str) -> Result<Self, Error> {
        let mut of: [PathBuf; 4] = Default::default();
        let mut distinct: Vec<PathBuf> = Vec::new();
        for (place, controller) in of.iter_mut().zip(CONTROLLERS) {
            let hierarchy = hierarchies
                .iter()
                .find(|h| h.controllers.iter().any(|c| c == controller))
                .ok_or_else(|| missing(controller))?;
            *place = hierarchy.own.join(name);
            if !distinct.contains(place) {
                distinct.push(place.clone());
            }
        }
        for directory in &distinct {
            if let Some(parent) = directory.parent() {
                sweep(parent);
            }
            match fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::new(Step::CgroupRoot, error)
                        .with(format!("cannot make {}", directory.display())));
                }
                _ => {}
            }
        }
        Ok(Self { of, distinct })
    }

    pub(super) fn memory(&self) -> &Path {
        &self.of[0]
    }

    pub(super) fn directories(&self) -> &[PathBuf] {
        &self.distinct
    }

    pub(super) fn create(&self, name: &str) -> Result<Leaf, Error> {
        let leaf = Leaf {
            of: self.of.each_ref().map(|parent| parent.join(name)),
            distinct: self
                .distinct
                .iter()
                .map(|parent| parent.join(name))
                .collect(),
        };
        for (done, directory) in leaf.distinct.iter().enumerate() {
            if let Err(error) = fs::create_dir(directory) {
                for made in leaf.distinct.iter().take(done) {
                    fs::remove_dir(made).at(Step::CgroupCreate)?;
                }
                return Err(Error::new(Step::CgroupCreate, error));
            }
        }
        Ok(leaf)
    }
}

fn missing(controller: &str) -> Error {
    Error::new(Step::CgroupRoot, io::Error::from(io::ErrorKind::NotFound))
        .with(format!("the {controller} controller is not mounted"))
}

/// A box's directory in each hierarchy.
#[derive(Debug)]
pub(super) struct Leaf {
    of: [PathBuf; 4],
    distinct: Vec<PathBuf>,
}

impl Leaf {
    pub(super) fn limit(&self, limits: &Limits) -> Result<(), Error> {
        let [memory, pids, cpu, _] = &self.of;
        limit(memory, "memory.limit_in_bytes", limits.memory)?;
        // Both exist only where swap is accounted; without swap there is none to use.
        if memory.join("memory.memsw.limit_in_bytes").exists() {
            limit(memory, "memory.memsw.limit_in_bytes", limits.memory)?;
        }
        if memory.join("memory.swappiness").exists() {
            limit(memory, "memory.swappiness", 0)?;
        }
        // Socket buffers are outside memory.limit_in_bytes on v1.
        if memory.join("memory.kmem.tcp.limit_in_bytes").exists() {
            let buffers = (limits.memory / 4).min(SOCKET_BUFFERS);
            limit(memory, "memory.kmem.tcp.limit_in_bytes", buffers)?;
        }
        // One more for the box's init.
        limit(pids, "pids.max", u64::from(limits.processes) + 1)?;
        limit(cpu, "cpu.cfs_period_us", CPU_PERIOD.as_micros())?;
        limit(cpu, "cpu.cfs_quota_us", cpu_quota(limits))
    }

    /// The least share that there is, or the usual one.
    pub(super) fn idle(&self, idle: bool) -> Result<(), Error> {
        let [_, _, cpu, _] = &self.of;
        limit(cpu, "cpu.shares", if idle { 2 } else { 1024 })
    }

    /// The `tasks` file of each hierarchy, opened with the warden's rights:
    /// the kernel goes by who opened it.
    pub(super) fn tasks(&self) -> Result<Vec<OwnedFd>, Error> {
        self.distinct
            .iter()
            .map(|directory| {
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(directory.join("tasks"));
                file.map(OwnedFd::from).at(Step::CgroupAttach)
            })
            .collect()
    }

    pub(super) fn usage(&self) -> Result<Usage, Error> {
        let [memory, pids, _, cpuacct] = &self.of;
        Ok(Usage {
            cpu_time: Duration::from_nanos(
                number(&cpuacct.join("cpuacct.usage")).at(Step::CgroupRead)?,
            ),
            memory_peak: number(&memory.join("memory.max_usage_in_bytes")).at(Step::CgroupRead)?,
            oom_kills: keyed(&memory.join("memory.oom_control"), "oom_kill")
                .at(Step::CgroupRead)?,
            forks_refused: keyed(&pids.join("pids.events"), "max").at(Step::CgroupRead)?,
        })
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        for directory in &self.distinct {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
