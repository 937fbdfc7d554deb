//! Which host uid a box's user is.
//!
//! Started with the right to map ids, every live box gets a host uid of its
//! own from a range that nobody uses; otherwise the server's own uid stands
//! behind the box's user, and the user namespace alone keeps them apart.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::error::{At, Error, Step};
use crate::sys::{self, Child};

/// The box's user and group, as seen inside.
pub(crate) const INSIDE: u32 = 1000;

/// Start of a range that systemd's table of uid ranges leaves unused
/// (`UIDS-GIDS.md`: 1879048192 to 2147483647).
const RESERVED: u32 = 0x7000_0000;
/// Most boxes alive at once.
pub(crate) const SLOTS: u32 = 1024;
/// Host uids of a server: where there are no namespaces a box needs several.
pub(crate) const RANGE: u32 = 4 * SLOTS;

/// Host uids for boxes.
#[derive(Debug)]
pub(crate) enum HostIds {
    /// One for each slot, from this base.
    Range {
        /// The first slot's uid.
        base: u32,
    },
    /// Id 0 of the warden's user namespace: the server's own uid.
    Shared,
}

impl HostIds {
    /// Writes a new box's id maps. `pid` must still wait for them.
    ///
    /// # Errors
    /// [`Step::IdMap`].
    pub(crate) fn map(&self, pid: i32, slot: u32) -> Result<(), Error> {
        let outside = match self {
            Self::Range { base } => base + slot,
            Self::Shared => 0,
        };
        let line = format!("{INSIDE} {outside} 1\n");
        let at = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
        fs::write(at("uid_map"), &line).at(Step::IdMap)?;
        fs::write(at("gid_map"), &line).at(Step::IdMap)
    }

    /// The host id of zygotes: no box's, and no other process's. It owns the boxes' user
    /// namespaces, so that a zygote may enter them without a capability. `None` where
    /// that is the server's own id anyway.
    pub(crate) fn zygote(&self) -> Option<u32> {
        match self {
            Self::Range { base } => Some(base + SLOTS - 1),
            Self::Shared => None,
        }
    }
}

/// First ids of ranges of [`RANGE`] that are mapped here and that neither
/// passwd nor subuid knows, best first.
///
/// # Errors
/// [`Step::IdMap`] when the tables cannot be read.
pub(crate) fn free_bases() -> Result<Vec<u32>, Error> {
    let map = fs::read_to_string("/proc/self/uid_map").at(Step::IdMap)?;
    let users = format!("{}\n{}", table("/etc/passwd")?, table("/etc/group")?);
    let delegated = format!("{}\n{}", table("/etc/subuid")?, table("/etc/subgid")?);
    Ok(bases(&map, &users, &delegated))
}

/// A table of ids; names in it may be in any encoding. Absent is empty.
fn table(path: &str) -> Result<String, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::new(Step::IdMap, error).with(path)),
    }
}

/// Moves this process into a user namespace of its own, as 0 and with nobody
/// else in it.
///
/// # Errors
/// [`Step::UserNamespace`], [`Step::IdMap`].
pub(crate) fn enter_alone() -> Result<HostIds, Error> {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    sys::unshare(UnshareFlags::NEWUSER).at(Step::UserNamespace)?;
    fs::write("/proc/self/setgroups", "deny").at(Step::IdMap)?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1\n")).at(Step::IdMap)?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1\n")).at(Step::IdMap)?;
    Ok(HostIds::Shared)
}

/// Moves this process into a user namespace of its own, as 0 and with the
/// [`SLOTS`] ids from `base` from 1 up. Only a process that stays outside may map more than itself, so a
/// child does.
///
/// The box's user must not be the container's root: the kernel exempts root
/// from its process limit.
///
/// # Errors
/// [`Step::UserNamespace`], [`Step::IdMap`].
pub(crate) fn enter_with(base: u32) -> Result<HostIds, Error> {
    let me = std::process::id();
    let (entered, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::IdMap)?;
    let child = match sys::fork().at(Step::IdMap)? {
        Child::Me => {
            drop(tell);
            sys::exit_now(map_other(me, base, &entered))
        }
        Child::Pid(pid, _) => Pid::from_raw(pid),
    };
    let unshared = sys::unshare(UnshareFlags::NEWUSER);
    if unshared.is_ok() {
        rustix::io::write(&tell, &[1]).at(Step::IdMap)?;
    }
    drop(tell);
    let status = rustix::process::waitpid(child, WaitOptions::empty()).at(Step::IdMap)?;
    unshared.at(Step::UserNamespace)?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(HostIds::Range { base: 1 }),
        errno => Err(Error::new(
            Step::IdMap,
            io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO)),
        )),
    }
}

/// In the child: 0, or the errno that tells why not.
fn map_other(pid: u32, base: u32, entered: &OwnedFd) -> i32 {
    let mut byte = [0u8; 1];
    if !matches!(rustix::io::read(entered, &mut byte), Ok(1)) {
        return libc::EPIPE;
    }
    let text = format!("0 0 1\n1 {base} {SLOTS}\n");
    let write = |file: &str| fs::write(format!("/proc/{pid}/{file}"), &text);
    match write("uid_map").and_then(|()| write("gid_map")) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// The bases from [`RESERVED`] up, then from the top of what is mapped down,
/// whose [`RANGE`] ids are mapped and known to nobody.
fn bases(uid_map: &str, passwd: &str, subids: &str) -> Vec<u32> {
    let extents: Vec<(u32, u32)> = uid_map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse::<u32>);
            let (start, _, count) = (fields.next()?, fields.next()?, fields.next()?);
            Some((start.ok()?, count.ok()?))
        })
        .collect();
    let named = passwd
        .lines()
        .filter_map(|line| Some((line.split(':').nth(2)?.parse().ok()?, 1)));
    let delegated = subids.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let taken: Vec<(u32, u32)> = named.chain(delegated).collect();
    let mapped = |base: u32| {
        extents.iter().any(|(start, count)| {
            base >= *start
                && u64::from(base) + u64::from(RANGE) <= u64::from(*start) + u64::from(*count)
        })
    };
    let free = |base: u32| {
        taken.iter().all(|(start, count)| {
            u64::from(*start) + u64::from(*count) <= u64::from(base)
                || u64::from(*start) >= u64::from(base) + u64::from(RANGE)
        })
    };
    let up = (0..1024).map(|n| RESERVED + n * RANGE);
    let down = extents.iter().flat_map(|(start, count)| {
        let end = start.saturating_add(*count);
        (1..64).map(move |n| end.saturating_sub(n * RANGE))
    });
    // Ids below 65536 belong to the system's own users, present or to come.
    up.chain(down)
        .filter(|base| *base >= 65_536 && mapped(*base) && free(*base))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bases_are_free_and_mapped() {
        let check = |map: &str, passwd: &str, subids: &str, expected: Option<u32>| {
            assert_eq!(
                bases(map, passwd, subids).first().copied(),
                expected,
                "{map} {passwd} {subids}"
            );
        };
        let all = "0 0 4294967295";
        check(all, "root:x:0:0", "", Some(RESERVED));
        check(all, "odd:x:1879048200:1", "", Some(RESERVED + RANGE));
        check(all, "", "bob:1879040000:10000", Some(RESERVED + RANGE));
        check("0 100000 65536", "", "", None);
        check("0 100000 1000000", "", "", Some(1_000_000 - RANGE));
        check("0 1000 1", "", "", None);
        check("", "", "", None);
    }

    proptest! {
        #[test]
        fn a_range_is_mapped_and_nobodys(
            map in (0..u32::MAX, 0..u32::MAX),
            users in proptest::collection::vec(near(), 0..4),
            delegated in proptest::collection::vec((near(), 0..u32::MAX), 0..4),
        ) {
            let uid_map = format!("{} 5 {}", map.0, map.1);
            let passwd: String = users.iter().map(|uid| format!("u:x:{uid}:1::/:\n")).collect();
            let subids: String =
                delegated.iter().map(|(from, count)| format!("u:{from}:{count}\n")).collect();
            let taken = users.iter().map(|uid| (*uid, 1)).chain(delegated.iter().copied());
            let taken: Vec<(u64, u64)> =
                taken.map(|(from, count)| (from.into(), u64::from(from) + u64::from(count))).collect();
            for base in bases(&uid_map, &passwd, &subids) {
                let (from, to) = (u64::from(base), u64::from(base) + u64::from(RANGE));
                prop_assert!(from >= 65_536 && from >= u64::from(map.0));
                prop_assert!(to <= u64::from(map.0) + u64::from(map.1));
                let apart = |(start, end): &(u64, u64)| *end <= from || to <= *start;
                prop_assert!(taken.iter().all(apart), "{base} {taken:?}");
            }
        }
    }

    /// Ids where the ranges are sought, and at both ends of all ids.
    fn near() -> impl Strategy<Value = u32> {
        prop_oneof![
            RESERVED - RANGE..RESERVED + 4 * RANGE,
            0..70_000_u32,
            u32::MAX - 10..=u32::MAX,
        ]
    }
}
