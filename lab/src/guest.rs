//! The sandbox's own tests in a machine of their own: Debian's kernel with
//! cgroup v2, under emulation, where this machine may only have v1.
//!
//! Slow (minutes), so only in the full run. The guest has no network and sees
//! nothing of this machine but the test binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use xtask::apt::{self, Need, Probe};
use xtask::process;

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
const TIMEOUT: Duration = Duration::from_secs(1800);
/// What the guest prints before its tests' exit code.
const VERDICT: &str = "tests ended with";
/// What it calls its two runs.
const ROOT: &str = "guest as root";
const DELEGATED: &str = "guest by delegation";
/// To whom a cgroup is delegated.
const USER: u32 = 48_484;
/// What has to hold in both: memory with the kernel's word on who was killed for
/// it, processes, processor time, and that nothing is left.
const LIMITS: [&str; 5] = [
    "a_memory_bomb_is_told_apart",
    "two_processes_share_one_memory_limit",
    "a_fork_bomb_meets_its_limit_and_dies_whole",
    "cpu_time_is_capped_and_counted",
    "an_ended_launcher_leaves_no_cgroup",
];

/// The guest's first program: what a test needs mounted, the tests as root, then
/// as a user to whom a cgroup was delegated the way that systemd does it, the end.
fn init() -> String {
    let time = TIMEOUT.as_secs() / 2 - 60;
    format!(
        "#!/bin/sh\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs dev /dev 2>/dev/null\n\
         mkdir -p /dev/shm\n\
         mount -t tmpfs shm /dev/shm\n\
         mount -t tmpfs tmp /tmp\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         export SANDBOX_TEST_SLOWNESS={SLOWNESS}\n\
         own=/sys/fs/cgroup/delegated\n\
         echo '+memory +pids +cpu' >/sys/fs/cgroup/cgroup.subtree_control\n\
         mkdir $own\n\
         chown {USER} $own $own/cgroup.procs $own/cgroup.subtree_control $own/cgroup.threads\n\
         echo {DELEGATED}: kernel $(uname -r), user {USER}, controllers $(cat $own/cgroup.controllers)\n\
         SANDBOX_TEST_RUNG=full timeout {time} sh -c \"echo \\$\\$ >$own/cgroup.procs; \
           exec setpriv --reuid={USER} --regid={USER} --clear-groups -- \
           /it --test-threads=1 --color=never\" 2>&1\n\
         echo {DELEGATED}: {VERDICT} $?\n\
         echo {ROOT}: kernel $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)\n\
         timeout {time} /it --test-threads=1 --color=never 2>&1\n\
         echo {ROOT}: {VERDICT} $?\n\
         echo o >/proc/sysrq-trigger\n\
         sleep 60\n"
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
    let log = directory.join("console.log");
    fs::write(&log, &console).context("failed to keep the guest's log")?;
    println!("{console}");
    println!("the guest's log is {}", log.display());
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

/// The guest's own word on both runs, and that they tested what they are for.
fn passed(console: &str) -> Result<()> {
    let from = |run: &str| console.find(&format!("{run}: kernel"));
    let (delegated, root) = from(DELEGATED)
        .zip(from(ROOT))
        .context("the guest did not begin its tests")?;
    ensure!(delegated < root, "the guest's runs are in the wrong order");
    for (run, said) in [
        (DELEGATED, &console[delegated..root]),
        (ROOT, &console[root..]),
    ] {
        let verdict = format!("{run}: {VERDICT} ");
        let verdict = said
            .lines()
            .find_map(|line| line.trim().strip_prefix(&verdict))
            .with_context(|| format!("{run}: it did not get to its end"))?;
        ensure!(verdict.trim() == "0", "{run}: tests failed");
        let controllers = said.lines().next().unwrap_or_default();
        for name in ["memory", "pids", "cpu"] {
            let (_, names) = controllers.split_once("controllers ").unwrap_or_default();
            let there = names.split_whitespace().any(|found| found == name);
            ensure!(there, "{run}: cgroup v2 has no controller {name} there");
        }
        for test in LIMITS {
            let held = said.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("test") && words.next() == Some(test)
            });
            ensure!(held, "{run}: {test} did not run");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, controllers: &str, tests: &[&str], code: u32) -> String {
        let tests: String = tests
            .iter()
            .map(|test| format!("test {test}   ... ok\r\n"))
            .collect();
        format!(
            "{name}: kernel 6.1.0, controllers {controllers}\r\n{tests}{name}: {VERDICT} {code}\r\n"
        )
    }

    #[test]
    fn only_a_tested_guest_passes() {
        let check = |console: &str, passes: bool| {
            assert_eq!(passed(console).is_ok(), passes, "{console}");
        };
        let all = "cpuset cpu io memory pids";
        let (user, root) = (run(DELEGATED, all, &LIMITS, 0), run(ROOT, all, &LIMITS, 0));
        check(&format!("booted\n{user}{root}"), true);
        check(&user, false);
        check(&format!("{root}{user}"), false);
        check(&format!("{user}{}", run(ROOT, all, &LIMITS, 101)), false);
        check(&format!("{}{root}", run(DELEGATED, all, &LIMITS, 1)), false);
        check(
            &format!("{}{root}", run(DELEGATED, all, &LIMITS[1..], 0)),
            false,
        );
        check(
            &format!("{}{root}", run(DELEGATED, "cpuset io pids", &LIMITS, 0)),
            false,
        );
    }
}
