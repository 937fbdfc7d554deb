//! `cargo xtask unit`: the systemd unit where it belongs, in a machine that
//! systemd has started: an ordinary user with a delegated cgroup v2 has to get
//! `full`, with all the hardening that the unit brings.
//!
//! Slow (minutes), so only in the full run. The guest has no network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::debian;
use crate::guest;
use xtask::build;
use xtask::dist;
use xtask::process;

/// Beside what a minimal Debian has.
const PACKAGES: [&str; 6] = [
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd-sysv",
    "kmod",
    "python3",
    "nodejs",
];

/// The longest that the guest may run: it is emulated, many times slower.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What the check in the guest prints last when all is well.
const VERDICT: &str = "unit check: all is well";

/// The check, run by the guest's systemd once the server's unit is started.
const CHECK_UNIT: &str = "\
[Unit]
After=codex-server.service
[Service]
Type=oneshot
StandardOutput=file:/dev/console
StandardError=file:/dev/console
ExecStart=/usr/bin/python3 /check.py
ExecStopPost=/usr/bin/systemctl poweroff --force --force
TimeoutStartSec=500
[Install]
WantedBy=multi-user.target
";

/// Asks the server as a client would, runs both languages, and stops it.
const CHECK: &str = r#"
import json, subprocess, time, urllib.error, urllib.request

def shell(*words):
    return subprocess.run(words, capture_output=True, text=True)

# Emulated, Node takes long to start from a cold disk; the server would not wait.
began = time.monotonic()
shell("node", "-e", "0")
print("node starts in", round(time.monotonic() - began, 1), "s", flush=True)
shell("systemctl", "restart", "codex-server")

codex = ["runuser", "-u", "codex", "--", "codex-server"]
home = ["--home", "/var/lib/codex-server"]
for _ in range(200):
    health = shell(*codex, "health", *home)
    if health.returncode == 0:
        break
    time.sleep(1)
print(health.stdout, health.stderr, flush=True)
if health.returncode != 0:
    print(shell("journalctl", "--no-pager", "-u", "codex-server").stdout, flush=True)
assert "healthy: full" in health.stdout, "the unit does not give `full`"
token = shell(*codex, "token", "create", "check", *home).stdout.strip()

def execute(language, code, **more):
    body = json.dumps({"language": language, "code": code, "timeout": 30, **more}).encode()
    head = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    call = urllib.request.Request("http://127.0.0.1:8000/execute", body, head)
    try:
        found = json.load(urllib.request.urlopen(call, timeout=120))
    except urllib.error.HTTPError as error:
        print(language, error.code, error.read().decode(), flush=True)
        print(shell("journalctl", "--no-pager", "-u", "codex-server").stdout, flush=True)
        raise
    print(language, found["status"], found["isolation"], found["usage"], flush=True)
    return found

assert execute("python", "print(2+2)")["output"] == "4\n"
assert execute("javascript", "console.log(2+2)")["output"] == "4\n"
assert execute("bash", "echo $((2+2))")["output"] == "4\n"
# Files come back: no hardening stands in the way of collecting them.
left = execute("python", "open('left.txt', 'w').write('x')")
assert [file["name"] for file in left["files"]] == ["left.txt"], left
# The cgroup's limit holds, as told by the kernel.
big = execute("python", "x = b'x' * (400 << 20)", memory_mb=64)
assert big["status"] == "memory_limit", big
# What the unit hides from the server is hidden.
main = shell("systemctl", "show", "-p", "MainPID", "--value", "codex-server").stdout.strip()
assert shell("nsenter", "-t", main, "-m", "ls", "-A", "/root").stdout == "", "homes are seen"
assert shell("nsenter", "-t", main, "-m", "touch", "/usr/x").returncode != 0, "/usr is writable"
shell("systemctl", "stop", "codex-server")
result = shell("systemctl", "show", "-p", "Result", "-p", "ExecMainStatus", "codex-server").stdout
print(result, flush=True)
assert "Result=success" in result and "ExecMainStatus=0" in result, result
print("unit check: all is well", flush=True)
"#;

/// Boots a machine with the unit and asks how it went.
pub(crate) fn unit(binary: Option<PathBuf>) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guest is an x86-64 machine, and so must the binary be"
    );
    let root = debian::root("unit", "bookworm", &PACKAGES)?;
    let binary = match binary {
        Some(binary) => binary,
        None => dist::static_dev_binary()?,
    };
    install(&root, &binary)?;
    let disk = guest::disk(&build::target_directory().join("xtask"), &root)?;
    let console = guest::boot(&root, &disk, "systemd.show_status=0", TIMEOUT)?;
    println!("{}", console.trim());
    ensure!(
        console.contains(VERDICT),
        "the unit did not pass its check in the guest; see above"
    );
    Ok(())
}

/// As docs/deploy.md says, and the check beside it.
fn install(root: &Path, binary: &Path) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("failed to read {}", binary.display()))?;
    debian::install(root, "usr/local/bin/codex-server", &bytes, 0o755)?;
    let unit = process::root().join("packaging/codex-server.service");
    let unit = fs::read(&unit).with_context(|| format!("failed to read {}", unit.display()))?;
    debian::install(
        root,
        "etc/systemd/system/codex-server.service",
        &unit,
        0o644,
    )?;
    let check = CHECK_UNIT.as_bytes();
    debian::install(root, "etc/systemd/system/unit-check.service", check, 0o644)?;
    debian::install(root, "check.py", CHECK.as_bytes(), 0o644)?;
    debian::install(root, "root/secret", b"x", 0o600)?;
    for name in ["codex-server.service", "unit-check.service"] {
        let wants = root.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).context("failed to enable a unit")?;
        // It leads nowhere but within the guest.
        let link = wants.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(format!("/etc/systemd/system/{name}"), link)
                .context("failed to enable a unit")?;
        }
    }
    // A login on the console would take it from the check.
    let login = root.join("etc/systemd/system/serial-getty@ttyS0.service");
    if fs::symlink_metadata(&login).is_err() {
        symlink("/dev/null", login).context("failed to leave out the login")?;
    }
    let passwd = fs::read_to_string(root.join("etc/passwd")).context("failed to read passwd")?;
    if !passwd.contains("\ncodex:") {
        let mut useradd = process::command("chroot");
        useradd
            .arg(root)
            .args(["useradd", "--system", "--user-group"]);
        useradd.args(["--home-dir", "/var/lib/codex-server"]);
        useradd.args(["--shell", "/usr/sbin/nologin", "codex"]);
        process::run("make the server's user", &mut useradd)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_ends_with_the_verdict() {
        assert!(CHECK.contains(VERDICT));
    }

    /// What breaks boxes is named in the unit, and not set there.
    #[test]
    fn the_unit_takes_nothing_away_that_boxes_need() {
        let unit = fs::read_to_string(process::root().join("packaging/codex-server.service"));
        let unit = unit.expect("the unit is there");
        let set = |name: &str| {
            unit.lines()
                .any(|line| line.starts_with(&format!("{name}=")))
        };
        for name in [
            "DynamicUser",
            "MemoryDenyWriteExecute",
            "PrivateDevices",
            "PrivateUsers",
            "ProcSubset",
            "ProtectControlGroups",
            "ProtectHostname",
            "ProtectKernelLogs",
            "ProtectKernelTunables",
            "ProtectProc",
            "RestrictNamespaces",
            "RestrictSUIDSGID",
            "SystemCallFilter",
        ] {
            assert!(!set(name) && unit.contains(name), "{name}");
        }
        for name in ["Delegate", "NoNewPrivileges", "ProtectSystem", "KillMode"] {
            assert!(set(name), "{name}");
        }
    }
}
