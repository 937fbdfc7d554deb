//! Which cgroup hierarchies are mounted, and where this process is in each.

use std::path::{Path, PathBuf};

/// A mounted hierarchy and this process's directory in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// v1 controllers mounted here; empty for v2.
    pub(super) controllers: Vec<String>,
    /// Whether this is the v2 tree.
    pub(super) unified: bool,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// This process's directory.
    pub(super) own: PathBuf,
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn hierarchies(mountinfo: &str, cgroup: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| hierarchy(line, cgroup))
        .collect()
}

/// Whether any v1 hierarchy has the memory controller.
pub(super) fn has_v1(hierarchies: &[Hierarchy]) -> bool {
    hierarchies
        .iter()
        .any(|hierarchy| hierarchy.controllers.iter().any(|name| name == "memory"))
}

fn hierarchy(line: &str, cgroup: &str) -> Option<Hierarchy> {
    // 36 35 98:0 ROOT MOUNT options [tags…] - TYPE source super-options
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, mount) = (left.next()?, PathBuf::from(unescape(left.next()?)));
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1).unwrap_or_default();
    let unified = kind == "cgroup2";
    if !unified && kind != "cgroup" {
        return None;
    }
    // hierarchy-id:controllers:path
    let (controllers, path) = cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let here = if unified {
            names.is_empty()
        } else {
            !names.is_empty()
                && names
                    .split(',')
                    .all(|name| options.split(',').any(|o| o == name))
        };
        here.then_some((names, path))
    })?;
    let below = Path::new(path).strip_prefix(unescape(root)).ok()?;
    Some(Hierarchy {
        controllers: controllers
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        unified,
        // Joining an empty path would add a slash.
        own: mount.components().chain(below.components()).collect(),
        mount,
    })
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &str) -> String {
    let mut out = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, cgroup: &str, expected: &[(&str, &str, &str)]) {
        let found: Vec<_> = hierarchies(mountinfo, cgroup)
            .into_iter()
            .map(|h| {
                (
                    h.controllers.join(","),
                    h.mount.display().to_string(),
                    h.own.display().to_string(),
                )
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn hybrid() {
        check(
            "30 23 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
             31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             33 23 0:29 / /proc rw - proc proc rw\n",
            "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/c\n",
            &[
                (
                    "memory",
                    "/sys/fs/cgroup/memory",
                    "/sys/fs/cgroup/memory/a/b",
                ),
                (
                    "cpu,cpuacct",
                    "/sys/fs/cgroup/cpu,cpuacct",
                    "/sys/fs/cgroup/cpu,cpuacct",
                ),
                ("", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/c"),
            ],
        );
    }

    #[test]
    fn a_container_sees_its_own_part() {
        check(
            "30 23 0:26 /docker/7f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            "4:memory:/docker/7f/sub",
            &[(
                "memory",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/memory/sub",
            )],
        );
    }

    #[test]
    fn outside_the_mounted_part_there_is_nothing() {
        check(
            "30 23 0:26 /docker/7f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            "4:memory:/other",
            &[],
        );
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"\x"), r"\x");
    }
}
