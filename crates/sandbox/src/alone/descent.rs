//! Who descends from a process: how a box is counted that has neither a cgroup,
//! nor a pid namespace, nor a uid of its own.
//!
//! Whoever is asked about is the one to whom orphans come, so nobody leaves. It
//! must never be taken for a list to kill by: it is old when it is there.

use std::fs;
use std::io;

/// Walks that may find the tree changed before the last one is believed.
const WALKS: u32 = 4;

/// All living and dead processes below `ancestor`, itself left out.
///
/// # Errors
/// When `/proc` cannot tell: then nobody knows.
pub(crate) fn of(ancestor: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for _ in 0..WALKS {
        found.clear();
        let mut changed = false;
        let mut left = children(ancestor)?;
        while let Some(pid) = left.pop() {
            found.push(pid);
            match children(pid) {
                Ok(below) => left.extend(below),
                // It died on the way, and its children are somebody else's now.
                Err(_) => changed = true,
            }
        }
        if !changed {
            break;
        }
    }
    Ok(found)
}

/// Processes and threads below `ancestor`.
///
/// # Errors
/// As [`of`].
pub(crate) fn tasks(ancestor: u32) -> io::Result<u32> {
    let count = |pid: &u32| threads(*pid).map_or(0, |threads| threads.len());
    let all = of(ancestor)?.iter().map(count).sum::<usize>();
    Ok(u32::try_from(all).unwrap_or(u32::MAX))
}

/// The children of all threads of a process.
///
/// # Errors
/// When it is gone, or the kernel does not tell (`CONFIG_PROC_CHILDREN`).
pub(crate) fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in threads(pid)? {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children"))?;
        found.extend(
            list.split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    Ok(found)
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a child to be found")]
    fn children_and_their_children_are_found() {
        let me = std::process::id();
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It has forked when it has said something.
        let mut said = [0u8; 1];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        let below = of(child.id()).unwrap();
        let all = of(me).unwrap();
        child.kill().unwrap();
        for pid in &below {
            let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap());
            rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        assert_eq!(below.len(), 1, "{below:?}");
        assert!(
            all.contains(&child.id()) && all.contains(&below[0]),
            "{all:?}"
        );
    }

    #[test]
    fn a_process_that_is_not_there_has_no_answer() {
        assert!(of(u32::MAX).is_err());
    }
}
