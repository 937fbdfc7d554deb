//! The OCI configuration of a container as Docker makes it by default: root,
//! fourteen capabilities, masked paths, its own network with loopback only.

use std::path::PathBuf;

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

/// What is started, and in what.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Root file system, absolute or below the bundle.
    pub(crate) root: PathBuf,
    /// Whether the host's `/usr` stands in for that of an image.
    pub(crate) host_usr: bool,
    /// Path and arguments.
    pub(crate) arguments: Vec<String>,
    /// User and group; root when 0.
    pub(crate) uid: u32,
    /// Directory of the host that is seen as `/data`.
    pub(crate) data: PathBuf,
}

/// How much of Docker's own protection stands in our way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// As Docker starts containers.
    Default,
    /// The same with `--cap-drop ALL`: root in name only.
    Dropped,
    /// As `Default`, on a kernel without Landlock.
    WithoutLandlock,
    /// As `Cured`, with `--security-opt writable-cgroups=true`.
    Writable,
    /// As the server's cure says: `--security-opt seccomp=unconfined
    /// --security-opt systempaths=unconfined` (there is no AppArmor here).
    Cured,
}

/// The host's user namespace is shared, as Docker does.
const NAMESPACES: [&str; 5] = ["pid", "network", "ipc", "uts", "mount"];

/// The configuration.
pub(crate) fn config(program: &Program, security: Security) -> Value {
    let mut config = default(program, security == Security::Writable);
    match security {
        Security::Default => {}
        Security::WithoutLandlock => {
            config["linux"]["seccomp"] = seccomp::profile_without("landlock_");
        }
        Security::Dropped => config["process"]["capabilities"] = json!({}),
        Security::Cured | Security::Writable => {
            if let Some(linux) = config["linux"].as_object_mut() {
                for stands_in_the_way in ["seccomp", "maskedPaths", "readonlyPaths"] {
                    linux.remove(stands_in_the_way);
                }
            }
        }
    }
    config
}

fn default(program: &Program, writable_cgroups: bool) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "hostname": "plain",
        "root": {"path": program.root, "readonly": false},
        "process": process(program),
        "mounts": mounts(program, writable_cgroups),
        "linux": {
            "namespaces": NAMESPACES.map(|kind| json!({"type": kind})).to_vec(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp::profile(),
            "resources": {"devices": devices()},
        },
    })
}

fn process(program: &Program) -> Value {
    // Docker's default set bounds everybody; only root has it in effect.
    let held: &[&str] = if program.uid == 0 { &CAPABILITIES } else { &[] };
    json!({
        "terminal": false,
        "user": {"uid": program.uid, "gid": program.uid},
        "cwd": "/",
        "args": program.arguments,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "CODEX_HOME=/data"],
        "capabilities": {"bounding": CAPABILITIES, "effective": held, "permitted": held},
        "noNewPrivileges": false,
    })
}

fn mounts(program: &Program, writable_cgroups: bool) -> Value {
    let quiet = ["nosuid", "noexec", "nodev"];
    let cgroup = if writable_cgroups { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": quiet}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", cgroup]}),
        json!({"destination": "/data", "type": "none", "source": program.data, "options": ["rbind", "rw"]}),
    ];
    if program.host_usr {
        // A stand-in for an image: only the host's programs, and read-only.
        mounts.push(
            json!({"destination": "/usr", "type": "none", "source": "/usr", "options": ["rbind", "ro"]}),
        );
    }
    mounts.into()
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

    fn program(uid: u32) -> Program {
        Program {
            root: "rootfs".into(),
            host_usr: false,
            arguments: vec!["codex-server".into()],
            uid,
            data: "/srv/data".into(),
        }
    }

    #[test]
    fn the_container_is_as_plain_as_docker_makes_it() {
        let config = config(&program(0), Security::Default);
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
    fn an_ordinary_user_has_no_capability() {
        let config = config(&program(10_001), Security::Default);
        assert_eq!(config["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(config["process"]["user"]["gid"], 10_001);
    }

    #[test]
    fn mounts_are_as_asked_for() {
        let check = |security, host_usr, part: &str, found: bool| {
            let program = Program {
                host_usr,
                ..program(0)
            };
            let mounts = config(&program, security)["mounts"].to_string();
            assert_eq!(mounts.contains(part), found, "{part}: {mounts}");
        };
        check(Security::Cured, true, r#""source":"/srv/data""#, true);
        check(Security::Cured, true, r#""source":"/usr""#, true);
        check(Security::Cured, false, r#""source":"/usr""#, false);
        check(Security::Cured, false, r#""relatime","ro""#, true);
        check(Security::Writable, false, r#""relatime","rw""#, true);
    }
}
