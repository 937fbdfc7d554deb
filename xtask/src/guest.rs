//! The sandbox's own tests in a machine of their own: Debian's kernel with
//! cgroup v2, under emulation, where this machine may only have v1.
//!
//! Slow (minutes), so only in the full run. The guest has no network and sees
//! nothing of this machine but the test binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Need, Probe};
use crate::process;

const NEEDS: [Need; 3] = [
    Need {
        probe: Probe::Program(&["debootstrap"]),
        packages: &["debootstrap"],
        reason: "to make the guest's file system",
        required: true,
    },
    Need {
        probe: Probe::Program(&["qemu-system-x86_64"]),
        packages: &["qemu-system-x86"],
        reason: "to emulate the guest",
        required: true,
    },
    Need {
        probe: Probe::File("/usr/sbin/mke2fs"),
        packages: &["e2fsprogs"],
        reason: "to make the guest's disk",
        required: true,
    },
];

/// In the guest, beside what a minimal Debian has.
const PACKAGES: &str = "linux-image-cloud-amd64,initramfs-tools,python3,util-linux,kmod";
/// How much longer than on hardware the guest's tests may wait.
const SLOWNESS: u32 = 12;
/// The longest that the guest may run.
const TIMEOUT: Duration = Duration::from_secs(900);
/// What the guest prints last, before its tests' exit code.
const VERDICT: &str = "guest tests ended with";

/// The guest's first program: what a test needs mounted, the tests, the end.
fn init() -> String {
    format!(
        "#!/bin/sh\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs dev /dev 2>/dev/null\n\
         mkdir -p /dev/shm\n\
         mount -t tmpfs shm /dev/shm\n\
         mount -t tmpfs tmp /tmp\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         echo kernel $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)\n\
         SANDBOX_TEST_SLOWNESS={SLOWNESS} timeout {} /it --test-threads=1 2>&1\n\
         echo {VERDICT} $?\n\
         echo o >/proc/sysrq-trigger\n\
         sleep 60\n",
        TIMEOUT.as_secs() - 60
    )
}

/// Runs the sandbox's tests in the guest.
pub(crate) fn guest() -> Result<()> {
    ensure!(
        process::is_root(),
        "making the guest's file system takes root"
    );
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guest is an x86-64 machine, and so must the test binary be"
    );
    apt::ensure(&NEEDS)?;
    let directory = process::root().join("target/xtask/guest");
    let root = file_system(&directory)?;
    fs::copy(test_binary()?, root.join("it")).context("failed to put the tests into the guest")?;
    let first = root.join("guest-init");
    fs::write(&first, init()).context("failed to write the guest's first program")?;
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755))
        .context("failed to make the guest's first program executable")?;
    let disk = disk(&directory, &root)?;
    let console = boot(&root, &disk, "init=/guest-init", TIMEOUT)?;
    println!("{console}");
    passed(&console)
}

/// Debian's smallest, made once.
fn file_system(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    let done = directory.join("root.done");
    if !done.exists() {
        if root.exists() {
            fs::remove_dir_all(&root).context("failed to remove half a guest")?;
        }
        fs::create_dir_all(&root).context("failed to make the guest's directory")?;
        println!("making the guest's file system (two minutes, once)");
        process::run(
            "make the guest's file system",
            process::command("debootstrap")
                .args([
                    "--variant=minbase",
                    &format!("--include={PACKAGES}"),
                    "bookworm",
                ])
                .arg(&root),
        )?;
        fs::write(&done, "").context("failed to note that the guest is made")?;
    }
    Ok(root)
}

/// The sandbox's integration tests, as cargo says it built them.
fn test_binary() -> Result<PathBuf> {
    let messages = process::capture(
        "build the sandbox's tests",
        process::cargo().args([
            "test",
            "--package",
            "sandbox",
            "--test",
            "it",
            "--no-run",
            "--message-format=json",
        ]),
    )?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "it")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo names no test binary")
}

/// A disk with a root's files, in `directory`.
pub(crate) fn disk(directory: &Path, root: &Path) -> Result<PathBuf> {
    let disk = directory.join("disk.img");
    let file = fs::File::create(&disk).context("failed to make the guest's disk")?;
    file.set_len(1500 << 20)
        .context("failed to size the guest's disk")?;
    process::run(
        "fill the guest's disk",
        process::command("/usr/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-d"])
            .arg(root)
            .arg(&disk),
    )?;
    Ok(disk)
}

/// Boots the root's own kernel from a disk, to the end; gives what it printed.
pub(crate) fn boot(root: &Path, disk: &Path, init: &str, timeout: Duration) -> Result<String> {
    apt::ensure(&NEEDS)?;
    let found = |prefix: &str| -> Result<PathBuf> {
        fs::read_dir(root.join("boot"))
            .context("the guest has no /boot")?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path())
            .with_context(|| format!("the guest has no {prefix}"))
    };
    let drive = format!("file={},format=raw,if=virtio", disk.display());
    println!("booting the guest");
    process::capture(
        "run the guest",
        process::command("timeout")
            .arg(timeout.as_secs().to_string())
            .arg("qemu-system-x86_64")
            .args([
                "-machine",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
            ])
            .args([
                "-smp",
                "2",
                "-m",
                "2048",
                "-nographic",
                "-no-reboot",
                "-nic",
                "none",
            ])
            .arg("-kernel")
            .arg(found("vmlinuz-")?)
            .arg("-initrd")
            .arg(found("initrd.img-")?)
            .args(["-drive", &drive])
            .arg("-append")
            .arg(format!(
                "root=/dev/vda rw console=ttyS0 quiet panic=-1 {init}"
            )),
    )
}

/// The guest's own word, and that it tested what it is for.
fn passed(console: &str) -> Result<()> {
    let verdict = console
        .lines()
        .find_map(|line| line.trim().strip_prefix(VERDICT))
        .context("the guest did not get to its end")?;
    ensure!(verdict.trim() == "0", "the guest's tests failed");
    let controllers = console
        .lines()
        .find_map(|line| line.split_once("controllers"))
        .map_or("", |(_, names)| names);
    if !["memory", "pids", "cpu"]
        .iter()
        .all(|name| controllers.contains(name))
    {
        bail!("the guest's cgroup v2 has not all controllers: {controllers}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tested_guest_passes() {
        let check = |console: &str, passes: bool| {
            assert_eq!(passed(console).is_ok(), passes, "{console}");
        };
        let kernel = "kernel 6.1.0, controllers cpuset cpu io memory pids\n";
        check(&format!("{kernel}guest tests ended with 0\r\n"), true);
        check(&format!("{kernel}guest tests ended with 101\n"), false);
        check(kernel, false);
        check(
            "kernel 6.1.0, controllers hugetlb\nguest tests ended with 0\n",
            false,
        );
    }
}
