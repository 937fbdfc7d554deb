//! The OCI configuration of a container as Docker makes it by default: root,
//! fourteen capabilities, masked paths, its own network with loopback only.

use std::path::Path;

use serde_json::{Value, json};

use super::seccomp;

/// Docker's default capabilities.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// How much of Docker's own protection stands in our way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// As Docker starts containers.
    Default,
    /// The same with `--cap-drop ALL`: root in name only.
    Dropped,
    /// As the server's cure says: `--security-opt seccomp=unconfined
    /// --security-opt systempaths=unconfined` (there is no AppArmor here).
    Cured,
}

/// The host's user namespace is shared, as Docker does.
const NAMESPACES: [&str; 5] = ["pid", "network", "ipc", "uts", "mount"];

/// The configuration, with `data` of the host at `/data`.
pub(crate) fn config(data: &Path, security: Security) -> Value {
    let mut config = default(data);
    match security {
        Security::Default => {}
        Security::Dropped => config["process"]["capabilities"] = json!({}),
        Security::Cured => {
            if let Some(linux) = config["linux"].as_object_mut() {
                for stands_in_the_way in ["seccomp", "maskedPaths", "readonlyPaths"] {
                    linux.remove(stands_in_the_way);
                }
            }
        }
    }
    config
}

fn default(data: &Path) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "hostname": "plain",
        "root": {"path": "rootfs", "readonly": false},
        "process": process(),
        "mounts": mounts(data),
        "linux": {
            "namespaces": NAMESPACES.map(|kind| json!({"type": kind})).to_vec(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp::profile(),
            "resources": {"devices": devices()},
        },
    })
}

fn process() -> Value {
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "cwd": "/",
        "args": ["/codex/codex-server", "serve", "--host", "127.0.0.1", "--port", "0"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "CODEX_HOME=/data"],
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        "noNewPrivileges": false,
    })
}

fn mounts(data: &Path) -> Value {
    let quiet = ["nosuid", "noexec", "nodev"];
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        // A stand-in for an image: only the host's programs, and read-only.
        {"destination": "/usr", "type": "none", "source": "/usr", "options": ["rbind", "ro"]},
        {"destination": "/data", "type": "none", "source": data, "options": ["rbind", "rw"]},
    ])
}

/// All refused but the harmless ones and new nodes of any kind.
fn devices() -> Value {
    let one = |minor: u32| json!({"allow": true, "type": "c", "major": 1, "minor": minor, "access": "rwm"});
    json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "access": "m"},
        one(3), one(5), one(7), one(8), one(9),
        {"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
        {"allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
        {"allow": true, "type": "c", "major": 136, "access": "rwm"},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_as_plain_as_docker_makes_it() {
        let config = config(Path::new("/srv/data"), Security::Default);
        let effective = config["process"]["capabilities"]["effective"].to_string();
        assert!(!effective.contains("SYS_ADMIN") && !effective.contains("NET_ADMIN"));
        assert!(effective.contains("SYS_CHROOT") && effective.contains("SETUID"));
        let namespaces = config["linux"]["namespaces"].to_string();
        assert!(
            !namespaces.contains("user"),
            "Docker shares the host's user namespace"
        );
        assert_eq!(
            config["linux"]["seccomp"]["defaultAction"],
            "SCMP_ACT_ERRNO"
        );
    }

    #[test]
    fn the_data_directory_is_the_hosts() {
        let mounts = config(Path::new("/srv/data"), Security::Cured)["mounts"].to_string();
        assert!(mounts.contains(r#""source":"/srv/data""#), "{mounts}");
    }
}
