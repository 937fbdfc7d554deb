//! A box's file system: what the host lends it, and the root it is built into.
//!
//! The warden opens host paths as detached mounts while it may still pass
//! every directory on the way ([`open`]); the box attaches them by descriptor
//! ([`enter`]). So an interpreter under somebody's 0700 home can be lent
//! to a uid that could never walk there, and nothing else of that home is.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::error::{At, Error, Step};
use crate::limits::Limits;
use crate::spec::{Mount, WORKSPACE, WORKSPACE_ALIAS};
use crate::sys::{self, Attributes};

/// Device nodes a box sees.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Hidden in `/proc`: what OCI runtimes hide, and what tells of the host;
/// those that exist.
const MASKED: [&str; 16] = [
    "acpi",
    "asound",
    "cmdline",
    "diskstats",
    "interrupts",
    "kcore",
    "key-users",
    "keys",
    "latency_stats",
    "locks",
    "partitions",
    "pressure",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// What the box's user namespace may have of what the whole machine shares:
/// no further namespaces, and no watches, even if the filter were wrong.
const USER_LIMITS: [(&str, &str); 9] = [
    ("max_cgroup_namespaces", "0"),
    ("max_inotify_instances", "0"),
    ("max_inotify_watches", "0"),
    ("max_ipc_namespaces", "0"),
    ("max_mnt_namespaces", "0"),
    ("max_net_namespaces", "0"),
    ("max_pid_namespaces", "0"),
    ("max_user_namespaces", "0"),
    ("max_uts_namespaces", "0"),
];

/// Read-only in `/proc`, as OCI runtimes do; those that exist.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Something of the host's, ready to be attached.
#[derive(Debug)]
pub(crate) enum Source {
    /// A detached mount of a directory.
    Directory(PathBuf, OwnedFd),
    /// A detached mount of a file.
    File(PathBuf, OwnedFd),
    /// A symbolic link to make again.
    Link(PathBuf, PathBuf),
}

impl Source {
    /// The descriptor that must survive into the box.
    pub(crate) fn fd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Directory(_, fd) | Self::File(_, fd) => Some(fd),
            Self::Link(..) => None,
        }
    }
}

/// Opens what `mounts` name, and the devices, as detached read-only mounts.
///
/// # Errors
/// [`Step::OpenMount`] with the path.
pub(crate) fn open(mounts: &[Mount]) -> Result<Vec<Source>, Error> {
    let mut sorted: Vec<&Mount> = mounts.iter().collect();
    sorted.sort();
    let mut kept: Vec<&Mount> = Vec::new();
    for mount in sorted {
        let seen = |outer: &&Mount| {
            mount.source.strip_prefix(&outer.source).ok()
                == mount.target.strip_prefix(&outer.target).ok()
                && mount.source.starts_with(&outer.source)
        };
        if !kept.iter().any(seen) {
            kept.push(mount);
        }
    }
    let read_only = Attributes::READ_ONLY
        .and(Attributes::NO_SUID)
        .and(Attributes::NO_DEV);
    let mut sources = Vec::new();
    for mount in kept {
        sources.push(open_one(mount, read_only)?);
    }
    let device = Attributes::NO_SUID.and(Attributes::NO_EXEC);
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        sources.push(open_one(&Mount::same(path), device)?);
    }
    Ok(sources)
}

fn open_one(mount: &Mount, attributes: Attributes) -> Result<Source, Error> {
    let name = |error: Error| error.with(mount.source.display().to_string());
    let kind = fs::symlink_metadata(&mount.source)
        .at(Step::OpenMount)
        .map_err(name)?
        .file_type();
    if kind.is_symlink() {
        let to = fs::read_link(&mount.source)
            .at(Step::OpenMount)
            .map_err(name)?;
        return Ok(Source::Link(mount.target.clone(), to));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, &mount.source, flags)
        .at(Step::OpenMount)
        .map_err(name)?;
    sys::set_mount_attributes(tree.as_fd(), attributes)
        .at(Step::OpenMount)
        .map_err(name)?;
    Ok(if kind.is_dir() {
        Source::Directory(mount.target.clone(), tree)
    } else {
        Source::File(mount.target.clone(), tree)
    })
}

/// Builds the root, moves into it and makes it read-only. Gives the workspace
/// directory, opened before anything of the user's exists. A zygote's root, which is in
/// the host's pid namespace, is made without `/proc`.
///
/// # Errors
/// The step that failed; the box must then be given up.
pub(crate) fn enter(
    sources: &[Source],
    limits: &Limits,
    with_proc: bool,
) -> Result<OwnedFd, Error> {
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .at(Step::Root)?;
    base()?;
    // Before the lent paths, some of which may lie below /tmp.
    workspace(limits)?;
    for source in sources {
        attach(source)?;
    }
    devices(limits)?;
    if with_proc {
        proc()?;
    }
    etc()?;
    pivot()?;
    rustix::fs::open(
        WORKSPACE,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Step::Workspace)
}

fn tmpfs(target: &str, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    rustix::mount::mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_c_str(),
    )?;
    Ok(())
}

/// An empty file system to build in, and into it.
fn base() -> Result<(), Error> {
    // Whatever it covers is reached by descriptors only, so any directory does.
    let place = ["/tmp", "/usr", "/dev"]
        .into_iter()
        .find(|place| Path::new(place).is_dir())
        .ok_or_else(|| Error::new(Step::Root, io::Error::from(io::ErrorKind::NotFound)))?;
    tmpfs(place, "mode=0755,size=1m,nr_inodes=1024").at(Step::Root)?;
    std::env::set_current_dir(place).at(Step::Root)
}

fn relative(target: &Path) -> &Path {
    target.strip_prefix("/").unwrap_or(target)
}

fn attach(source: &Source) -> Result<(), Error> {
    let (target, tree) = match source {
        Source::Link(link, to) => {
            let link = relative(link);
            parents(link).at(Step::Bind)?;
            return std::os::unix::fs::symlink(to, link).at(Step::Bind);
        }
        Source::Directory(target, tree) => {
            let target = relative(target);
            fs::create_dir_all(target).at(Step::Bind)?;
            (target, tree)
        }
        Source::File(target, tree) => {
            let target = relative(target);
            parents(target).at(Step::Bind)?;
            fs::write(target, "").at(Step::Bind)?;
            (target, tree)
        }
    };
    place(tree, target).at(Step::Bind)
}

fn parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn place(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    rustix::mount::move_mount(
        tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

fn devices(limits: &Limits) -> Result<(), Error> {
    fs::create_dir("dev/shm").at(Step::Dev)?;
    tmpfs(
        "dev/shm",
        &format!("mode=1777,size={},nr_inodes={}", limits.shm, limits.inodes),
    )
    .at(Step::Dev)?;
    for (link, to) in [
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(to, link).at(Step::Dev)?;
    }
    Ok(())
}

fn proc() -> Result<(), Error> {
    fs::create_dir("proc").at(Step::Proc)?;
    rustix::mount::mount(
        "proc",
        "proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        c"",
    )
    .at(Step::Proc)?;
    for (name, most) in USER_LIMITS {
        let path = Path::new("proc/sys/user").join(name);
        // Absent where the kernel was built without the thing itself.
        if path.exists() {
            fs::write(path, most).at(Step::Proc)?;
        }
    }
    for name in MASKED {
        let path = Path::new("proc").join(name);
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if found.is_dir() {
            let options = c"mode=0555,size=4k,nr_inodes=2,ro";
            rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::RDONLY, options)
                .at(Step::Proc)?;
        } else {
            rustix::mount::mount_bind("dev/null", &path).at(Step::Proc)?;
        }
    }
    for name in READ_ONLY {
        let path = Path::new("proc").join(name);
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        // Not by open_tree: that would need a mount namespace, and the limits
        // above leave none.
        rustix::mount::mount_bind(&path, &path).at(Step::Proc)?;
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        rustix::mount::mount_remount(&path, flags, c"").at(Step::Proc)?;
    }
    Ok(())
}

/// `/workspace` and `/tmp`: two directories of one file system, so that its
/// size and inodes bound both together.
fn workspace(limits: &Limits) -> Result<(), Error> {
    fs::create_dir("scratch").at(Step::Workspace)?;
    let options = format!(
        "mode=0755,size={},nr_inodes={}",
        limits.workspace, limits.inodes
    );
    tmpfs("scratch", &options).at(Step::Workspace)?;
    for (directory, target, mode) in [
        ("scratch/workspace", WORKSPACE, 0o755),
        ("scratch/tmp", "/tmp", 0o1777),
    ] {
        let target = relative(Path::new(target));
        fs::create_dir(directory).at(Step::Workspace)?;
        rustix::fs::chmod(directory, Mode::from_raw_mode(mode)).at(Step::Workspace)?;
        fs::create_dir(target).at(Step::Workspace)?;
        rustix::mount::mount_bind(directory, target).at(Step::Workspace)?;
    }
    rustix::mount::unmount("scratch", UnmountFlags::DETACH).at(Step::Workspace)?;
    fs::remove_dir("scratch").at(Step::Workspace)?;
    alias()
}

/// Leads the place where models have been taught to look for files to the
/// workspace, unless somebody lends a directory there.
fn alias() -> Result<(), Error> {
    let alias = relative(Path::new(WORKSPACE_ALIAS));
    parents(alias).at(Step::Workspace)?;
    match std::os::unix::fs::symlink(WORKSPACE, alias) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at(Step::Workspace),
    }
}

/// A minimal `/etc` beside what the spec lends of the host's.
fn etc() -> Result<(), Error> {
    fs::create_dir_all("etc").at(Step::Etc)?;
    for (name, text) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/usr/sbin/nologin\n\
             sandbox:x:1000:1000:sandbox:/tmp:/bin/sh\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n"),
        ("hostname", "sandbox\n"),
        ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
        // Nobody answers on loopback, so a lookup fails at once.
        (
            "resolv.conf",
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        ),
    ] {
        fs::write(Path::new("etc").join(name), text).at(Step::Etc)?;
    }
    Ok(())
}

fn pivot() -> Result<(), Error> {
    rustix::process::pivot_root(".", ".").at(Step::Pivot)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at(Step::Pivot)?;
    std::env::set_current_dir("/").at(Step::Pivot)?;
    rustix::mount::mount_remount(
        "/",
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
        c"",
    )
    .at(Step::Pivot)
}
