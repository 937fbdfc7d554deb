//! Docker's default seccomp rules, for a container with Docker's default
//! capabilities, in the form that an OCI runtime reads.
//!
//! A stand-in for the real thing in tests: it protects nothing of ours.

use serde_json::{Value, json};

/// The unconditional part.
const ALLOWED: &str = include_str!("allowed.txt");

/// `clone` may not ask for any of the seven namespaces.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;

/// The execution domains that `personality` may choose or ask for.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// Address family of virtual machine sockets, which are refused.
const AF_VSOCK: u64 = 40;

/// Operation not permitted; function not implemented.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The names in `allowed.txt`.
pub(crate) fn allowed() -> Vec<&'static str> {
    ALLOWED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .collect()
}

/// The `linux.seccomp` object of an OCI configuration.
pub(crate) fn profile() -> Value {
    let mut rules = vec![json!({"names": allowed(), "action": "SCMP_ACT_ALLOW"})];
    rules.extend(PERSONALITIES.map(|domain| when("personality", "SCMP_CMP_EQ", domain, 0)));
    rules.push(when("socket", "SCMP_CMP_NE", AF_VSOCK, 0));
    rules.push(when("clone", "SCMP_CMP_MASKED_EQ", NAMESPACE_FLAGS, 0));
    // "Not implemented" makes the C library fall back to clone.
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// The same without the calls whose names begin so: they fail as on a kernel
/// that has never heard of them.
pub(crate) fn profile_without(prefix: &str) -> Value {
    let mut profile = profile();
    let kept = allowed()
        .into_iter()
        .filter(|name| !name.starts_with(prefix));
    profile["syscalls"][0]["names"] = kept.collect();
    if let Some(rules) = profile["syscalls"].as_array_mut() {
        let missing: Vec<&str> = allowed()
            .into_iter()
            .filter(|name| name.starts_with(prefix))
            .collect();
        rules.push(json!({"names": missing, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    profile
}

/// Allows a call when its first argument compares so; for a masked compare
/// `value` is the mask and `masked` what must remain.
fn when(name: &str, compare: &str, value: u64, masked: u64) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": value, "valueTwo": masked, "op": compare}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_escapes_need_is_not_allowed() {
        let allowed = allowed();
        for name in [
            "mount",
            "umount2",
            "unshare",
            "setns",
            "pivot_root",
            "bpf",
            "clone",
            "clone3",
            "keyctl",
            "add_key",
            "io_uring_setup",
            "open_tree",
            "move_mount",
            "fsopen",
            "perf_event_open",
            "userfaultfd",
            "init_module",
            "kexec_load",
            "reboot",
            "swapon",
            "settimeofday",
        ] {
            assert!(!allowed.contains(&name), "{name} is allowed");
        }
    }

    #[test]
    fn what_the_uids_rung_needs_is_allowed() {
        let allowed = allowed();
        for name in [
            "chroot",
            "setresuid",
            "setgroups",
            "prctl",
            "seccomp",
            "landlock_restrict_self",
            "mknod",
            "wait4",
        ] {
            assert!(allowed.contains(&name), "{name} is not allowed");
        }
    }

    #[test]
    fn what_is_left_out_is_not_implemented() {
        let profile = profile_without("landlock_");
        let rules = profile["syscalls"].as_array().expect("rules");
        assert!(!rules[0].to_string().contains("landlock_"));
        let last = rules.last().expect("rules");
        assert!(last.to_string().contains("landlock_create_ruleset"));
        assert_eq!(last["errnoRet"], ENOSYS);
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names = allowed();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count > 280, "only {count} names");
    }
}
