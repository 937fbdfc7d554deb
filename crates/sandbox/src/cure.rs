//! What to do about a step that fails, on this very kind of host.

use std::fs;
use std::path::Path;

use crate::error::Step;

/// What kind of host this is, as far as cures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Host {
    /// GitHub Codespaces.
    pub(crate) codespace: bool,
    /// Some container.
    pub(crate) container: bool,
    /// Ubuntu's AppArmor restriction of user namespaces.
    pub(crate) apparmor_userns: bool,
    /// Debian's switch for user namespaces is off.
    pub(crate) userns_off: bool,
}

impl Host {
    pub(crate) fn detect() -> Self {
        let is = |path: &str, value: &str| {
            fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
        };
        let none = is("/proc/sys/user/max_user_namespaces", "0");
        Self {
            codespace: Path::new("/workspaces/.codespaces").exists(),
            container: Path::new("/.dockerenv").exists()
                || Path::new("/run/.containerenv").exists()
                || masked_proc()
                || short_of_capabilities(),
            apparmor_userns: is(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1",
            ),
            userns_off: none || is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        }
    }
}

/// Container runtimes cover parts of `/proc`; nobody else does.
fn masked_proc() -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| {
        [
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/sysrq-trigger",
        ]
        .iter()
        .any(|path| mounts.contains(&format!(" {path} ")))
    })
}

/// Container runtimes take `CAP_SYS_ADMIN` out of everybody's reach for good.
fn short_of_capabilities() -> bool {
    let admin = rustix::thread::CapabilitySet::SYS_ADMIN;
    rustix::thread::capability_is_in_bounding_set(admin).is_ok_and(|has| !has)
}

const CODESPACE: &str = "add to .devcontainer/devcontainer.json: \"runArgs\": \
    [\"--security-opt=seccomp=unconfined\", \"--security-opt=apparmor=unconfined\", \
    \"--security-opt=systempaths=unconfined\"], then rebuild the container";
const CONTAINER: &str = "start the container with --security-opt seccomp=unconfined \
    --security-opt apparmor=unconfined --security-opt systempaths=unconfined";
const CGROUP: &str = "start as root, or by systemd with Delegate=yes \
    (systemd-run --user --scope -p Delegate=yes codex-server serve)";
const CONTAINER_CGROUP: &str = "give the container a writable cgroup of its own: \
    --cgroupns=private with a read-write /sys/fs/cgroup (--privileged is more than is needed)";

const ROOT: &str = "start as root, with at least the capabilities that Docker gives by default \
    (without --cap-drop and --user)";

/// The layer a step belongs to, in words.
pub(crate) fn layer(step: Step) -> &'static str {
    match step {
        Step::CgroupRoot
        | Step::CgroupCreate
        | Step::CgroupLimit
        | Step::CgroupAttach
        | Step::CgroupRead => "cgroup",
        Step::Identity | Step::Room | Step::ClearAway => "uids",
        Step::UserNamespace | Step::IdMap | Step::Clone => "user namespace",
        Step::NetworkNamespace | Step::Loopback => "network namespace",
        Step::MountNamespace
        | Step::OpenMount
        | Step::Root
        | Step::Bind
        | Step::Dev
        | Step::Proc
        | Step::Workspace
        | Step::Etc
        | Step::Pivot => "mount namespace",
        Step::Landlock => "landlock",
        Step::Seccomp => "seccomp",
        _ => "sandbox",
    }
}

/// The cure, a command or a setting; empty when none is known.
pub(crate) fn of(step: Step, errno: i32, host: &Host) -> String {
    let unconfine = if host.codespace { CODESPACE } else { CONTAINER };
    let boxed = host.codespace || host.container;
    let text = match layer(step) {
        "cgroup" if boxed => CONTAINER_CGROUP,
        "cgroup" => CGROUP,
        "landlock" => {
            "needs Linux 5.13 or newer with landlock among the modules in \
             /sys/kernel/security/lsm (kernel argument lsm=landlock,…)"
        }
        "user namespace" | "network namespace" | "mount namespace" if boxed => unconfine,
        "user namespace" | "network namespace" | "mount namespace" if host.apparmor_userns => {
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 \
             (and in /etc/sysctl.d to keep it), or start as root"
        }
        "user namespace" if host.userns_off => {
            "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000, \
             or start as root"
        }
        "user namespace" if errno == libc::ENOSPC => {
            "sudo sysctl -w user.max_user_namespaces=10000"
        }
        "mount namespace" if errno == libc::ENOSYS => "needs Linux 5.12 or newer",
        "user namespace" | "network namespace" | "mount namespace" => {
            "start as root, or allow user namespaces to this user"
        }
        "uids" if errno == libc::EPERM => ROOT,
        "uids" => "free or repair /tmp: boxes have their directories there",
        "seccomp" => "needs a kernel built with CONFIG_SECCOMP_FILTER",
        _ => "",
    };
    text.to_owned()
}

/// For a layer that is there but let an attack through.
pub(crate) fn report(name: &str) -> String {
    format!(
        "the kernel says it has this layer, but an attack on {name:?} got through: do not run untrusted code here"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cures_fit_the_host() {
        let plain = Host::default();
        let codespace = Host {
            codespace: true,
            container: true,
            ..plain
        };
        let docker = Host {
            container: true,
            ..plain
        };
        let ubuntu = Host {
            apparmor_userns: true,
            ..plain
        };
        let check = |step, errno, host: &Host, part: &str| {
            let cure = of(step, errno, host);
            assert!(cure.contains(part), "{step:?} {host:?}: {cure}");
        };
        check(
            Step::UserNamespace,
            libc::EPERM,
            &codespace,
            "devcontainer.json",
        );
        check(Step::Proc, libc::EPERM, &docker, "systempaths=unconfined");
        check(
            Step::UserNamespace,
            libc::EPERM,
            &ubuntu,
            "apparmor_restrict",
        );
        check(
            Step::UserNamespace,
            libc::ENOSPC,
            &plain,
            "max_user_namespaces",
        );
        check(Step::CgroupRoot, libc::EACCES, &plain, "Delegate=yes");
        check(Step::CgroupRoot, libc::EROFS, &docker, "cgroupns");
        check(Step::Landlock, libc::ENOSYS, &plain, "5.13");
        check(Step::OpenMount, libc::ENOSYS, &plain, "5.12");
        check(Step::Identity, libc::EPERM, &docker, "as root");
        check(Step::Room, libc::ENOSPC, &docker, "/tmp");
    }
}
