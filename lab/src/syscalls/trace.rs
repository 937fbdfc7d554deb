//! Reads what strace wrote: which system calls the programs of boxes made.
//!
//! A box's init is who installs a filter; its children become programs with
//! their first `execve`. All else, the server's and the test's own calls among
//! it, is left out.

use std::collections::{BTreeMap, BTreeSet};

/// What programs did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Boxes that were made.
    pub(super) boxes: usize,
    /// Programs that were started in them.
    pub(super) programs: usize,
    /// Calls by name: how often, and how often they failed with EPERM or ENOSYS.
    pub(super) calls: BTreeMap<String, (u64, u64)>,
}

/// What is known of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Init,
    /// Made by init, and not yet what it will be.
    Preparing,
    Program,
}

/// One line: whose, the call, and what it gave when it is there.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    thread: u32,
    call: &'a str,
    /// Whether the call begins here.
    begins: bool,
    result: Option<&'a str>,
}

/// Reads a whole trace.
pub(super) fn read(trace: &str) -> Used {
    let lines: Vec<Line<'_>> = trace.lines().filter_map(line).collect();
    let parents = parents(&lines);
    let inits: BTreeSet<u32> = lines
        .iter()
        .filter(|line| line.call == "seccomp" && line.result.is_some_and(|r| r.starts_with('0')))
        .map(|line| line.thread)
        .collect();
    let mut used = Used {
        boxes: inits.len(),
        ..Used::default()
    };
    let mut started = BTreeSet::new();
    for line in &lines {
        let Some(role) = role(line.thread, &parents, &inits, &started) else {
            continue;
        };
        if role == Role::Preparing && line.call == "execve" && line.result == Some("0") {
            started.insert(line.thread);
            used.programs += 1;
            used.calls.entry("execve".to_owned()).or_default().0 += 1;
        }
        if role != Role::Program {
            continue;
        }
        let (count, denied) = used.calls.entry(line.call.to_owned()).or_default();
        *count += u64::from(line.begins);
        let refused = |result: &str| result.contains(" EPERM ") || result.contains(" ENOSYS ");
        *denied += u64::from(line.result.is_some_and(refused));
    }
    used
}

/// Who made each thread. strace may tell of a child's first calls before it
/// tells that it was made, so this is found out first.
fn parents(lines: &[Line<'_>]) -> BTreeMap<u32, u32> {
    lines
        .iter()
        .filter(|line| matches!(line.call, "clone" | "clone3" | "fork" | "vfork"))
        .filter_map(|line| Some((outside(line.result?)?, line.thread)))
        .collect()
}

/// The number outside of the box: `2 /* 27370 in strace's PID NS */`, or just that.
fn outside(result: &str) -> Option<u32> {
    let number = match result.split_once("/* ") {
        Some((_, outside)) => outside.split(' ').next()?,
        None => result.split(' ').next()?,
    };
    number.parse().ok()
}

fn role(
    thread: u32,
    parents: &BTreeMap<u32, u32>,
    inits: &BTreeSet<u32>,
    started: &BTreeSet<u32>,
) -> Option<Role> {
    if inits.contains(&thread) {
        return Some(Role::Init);
    }
    // A number that was used again might make a circle.
    let mut at = thread;
    for _ in 0..64 {
        if started.contains(&at) {
            return Some(Role::Program);
        }
        at = *parents.get(&at)?;
        if inits.contains(&at) {
            return Some(Role::Preparing);
        }
    }
    None
}

fn line(text: &str) -> Option<Line<'_>> {
    let (thread, rest) = text.split_once(' ')?;
    let thread = thread.parse().ok()?;
    let rest = rest.trim_start();
    let result = rest.rsplit_once(" = ").map(|(_, result)| result.trim());
    if let Some(resumed) = rest.strip_prefix("<... ") {
        let call = resumed.split(' ').next()?;
        let begins = false;
        return Some(Line {
            thread,
            call,
            begins,
            result,
        });
    }
    let (call, _) = rest.split_once('(')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!call.is_empty() && call.chars().all(is_name)).then_some(Line {
        thread,
        call,
        begins: true,
        result: result.filter(|_| !rest.ends_with("<unfinished ...>")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_boxes_count() {
        let trace = "\
10 openat(AT_FDCWD, \"\"..., O_RDONLY) = 3
20 seccomp(SECCOMP_SET_MODE_FILTER, 0, {len=412, filter=0x5} <unfinished ...>
10 ptrace(PTRACE_TRACEME) = -1 EPERM (Operation not permitted)
20 <... seccomp resumed>) = 0
30 setsid() = 2 /* 30 in strace's PID NS */
20 <... clone resumed>, child_tidptr=0x7) = 2 /* 30 in strace's PID NS */
30 execve(\"\"..., [\"\"...], 0x7 /* 5 vars */) = 0
30 brk(NULL) = 0x5
30 clone3({flags=CLONE_VM}, 88) = -1 ENOSYS (Function not implemented)
30 clone(child_stack=0x7, flags=CLONE_VM|CLONE_THREAD <unfinished ...>
40 futex(0x7, FUTEX_WAIT, 1, NULL <unfinished ...>
30 <... clone resumed>, parent_tid=[3]) = 3 /* 40 in strace's PID NS */
40 <... futex resumed>) = 0
30 bpf(0, NULL, 0) = -1 EPERM (Operation not permitted)
20 wait4(-1, NULL, WNOHANG, NULL) = 0
30 +++ exited with 0 +++
";
        let used = read(trace);
        assert_eq!((used.boxes, used.programs), (1, 1));
        let expected = [
            ("bpf", (1, 1)),
            ("brk", (1, 0)),
            ("clone", (1, 0)),
            ("clone3", (1, 1)),
            ("execve", (1, 0)),
            ("futex", (1, 0)),
        ];
        let expected = expected.map(|(name, counts)| (name.to_owned(), counts));
        assert_eq!(used.calls, BTreeMap::from(expected));
    }

    #[test]
    fn odd_lines_are_no_calls() {
        for odd in [
            "",
            "x",
            "10",
            "10 --- SIGCHLD ---",
            "10 ????(",
            "strace: gone",
        ] {
            assert_eq!(line(odd), None, "{odd}");
        }
        assert_eq!(read(""), Used::default());
    }
}
