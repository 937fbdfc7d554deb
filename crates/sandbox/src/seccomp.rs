//! The system-call filter: the policy's table compiled to a search tree.
//!
//! A linear list of comparisons installs four times slower than a tree (the
//! kernel walks the filter for every number when it is installed), so the
//! table is cut into ranges with the same rule and searched by bisection.
//! The filter never kills: user code gets an errno and can fall back.
//!
//! In a box whose denied calls are to be told (see [`crate::explain`]) the same
//! tree asks init instead of answering with an errno; it allows not one call more.

#[cfg(test)]
mod emulator;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod proof;

use std::io;
use std::os::fd::OwnedFd;

use crate::omit::{Omit, omitted};
use crate::support::Isolation;
use crate::sys;

include!(concat!(env!("OUT_DIR"), "/policy.rs"));

/// What happens to one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Allowed from this rung on, else EPERM.
    Allow(Isolation),
    /// Allowed from this rung on if every condition of one alternative holds,
    /// else EPERM.
    AllowIf(Isolation, &'static [&'static [Condition]]),
    Deny(i32),
}

/// `(arg & mask) == value`, or `!=`, on the low 32 bits: all arguments in the
/// policy are `int` or `unsigned int` to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    arg: u8,
    mask: u32,
    value: u32,
    equal: bool,
    /// Asked for only below this rung; `None`: always.
    below: Option<Isolation>,
}

impl Condition {
    fn is_asked(&self, at: Isolation) -> bool {
        self.below.is_none_or(|below| at < below)
    }

    /// Whether it holds whenever `other` does.
    fn follows_from(&self, other: &Self) -> bool {
        let is_one_value = other.equal && other.mask == u32::MAX;
        let holds_for_it = ((other.value & self.mask) == self.value) == self.equal;
        self != other && self.arg == other.arg && is_one_value && holds_for_it
    }
}

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;

/// What the filter has to know of a kind of processor.
#[derive(Debug, Clone, Copy)]
struct Architecture {
    /// As the kernel tells it to filters.
    audit: u32,
    /// The policy in this architecture's numbers, in ascending order.
    table: &'static [(u32, Rule)],
    /// Name and reason of each of its entries.
    about: &'static [(&'static str, &'static str)],
}

/// What this is compiled for. An architecture without a line here does not
/// compile.
#[cfg(target_arch = "x86_64")]
const NATIVE: Architecture = INTEL;
#[cfg(target_arch = "x86_64")]
use X86_64_ABOUT as NATIVE_ABOUT;
#[cfg(target_arch = "aarch64")]
const NATIVE: Architecture = ARM;
#[cfg(target_arch = "aarch64")]
use AARCH64_ABOUT as NATIVE_ABOUT;

#[cfg(any(test, target_arch = "x86_64"))]
const INTEL: Architecture = Architecture {
    audit: 0xc000_003e, // AUDIT_ARCH_X86_64
    table: X86_64,
    about: &X86_64_ABOUT,
};

#[cfg(any(test, target_arch = "aarch64"))]
const ARM: Architecture = Architecture {
    audit: 0xc000_00b7, // AUDIT_ARCH_AARCH64
    table: AARCH64,
    about: &AARCH64_ABOUT,
};

/// How a denied call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denial {
    /// By the kernel, with the policy's errno.
    Errno,
    /// By whoever holds the filter's listener, who is to give the same errno.
    Asked,
}

impl Denial {
    fn with(self, errno: i32) -> Instruction {
        match self {
            Self::Errno => ret(RET_ERRNO | errno.unsigned_abs()),
            Self::Asked => ret(RET_USER_NOTIF),
        }
    }
}

/// A compiled filter, ready to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    instructions: Vec<Instruction>,
}

impl Filter {
    /// Compiles the policy for boxes of a rung: what no cgroup accounts for, or
    /// no namespace holds, the filter must refuse.
    pub(crate) fn new(at: Isolation) -> Self {
        Self::for_architecture(NATIVE, at, Denial::Errno)
    }

    /// The same, but each denied call waits for the answer of [`Filter::listen`]'s
    /// descriptor, which is to be [`Refusal::of`] the call.
    pub(crate) fn asking(at: Isolation) -> Self {
        Self::for_architecture(NATIVE, at, Denial::Asked)
    }

    fn for_architecture(architecture: Architecture, at: Isolation, denial: Denial) -> Self {
        let mut out = vec![
            load(ARCH),
            branch(JUMP_IF_EQUAL, architecture.audit, 1, 0),
            denial.with(libc::ENOSYS),
            load(NUMBER),
        ];
        let ranges = ranges(architecture.table, at, denial);
        tree(&ranges, at, denial, &mut out);
        Self { instructions: out }
    }

    /// The filter as the kernel reads it: `sock_filter`s, one after the other.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let instructions = self.instructions.iter();
        instructions
            .flat_map(|each| {
                let [a, b] = each.code.to_ne_bytes();
                let [c, d, e, f] = each.k.to_ne_bytes();
                [a, b, each.jt, each.jf, c, d, e, f]
            })
            .collect()
    }

    /// Installs the filter for this thread and all that it forks.
    ///
    /// # Errors
    /// `EACCES` without `no_new_privs`, `EINVAL` for a malformed filter.
    pub(crate) fn install(&self) -> io::Result<()> {
        if omitted(Omit::Seccomp) {
            return Ok(());
        }
        sys::seccomp_install(&self.instructions)
    }

    /// Installs a filter that asks. Gives the descriptor by which it does:
    /// when its last copy is closed, denied calls fail with `ENOSYS`.
    ///
    /// # Errors
    /// `EBUSY` where a filter around this process has a listener already;
    /// `EINVAL` before Linux 5.0; what [`Filter::install`] says.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        sys::seccomp_listen(&self.instructions)
    }
}

/// Entries of the policy here, and two more: unknown numbers, and calls of
/// another architecture.
pub(crate) const SLOTS: usize = NATIVE_ABOUT.len() + 2;
const UNKNOWN: usize = SLOTS - 2;
const FOREIGN: usize = SLOTS - 1;

/// The refusal of a call that the filter denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Which entry of the policy it is, below [`SLOTS`].
    pub(crate) slot: usize,
    /// What the call fails with: `EPERM` or `ENOSYS`.
    pub(crate) errno: i32,
}

impl Refusal {
    /// Of a call that the filter of any rung denied: nothing else is ever asked for.
    pub(crate) fn of(arch: u32, number: u32) -> Self {
        Self::on(NATIVE, arch, number)
    }

    fn on(architecture: Architecture, arch: u32, number: u32) -> Self {
        let errno = libc::ENOSYS;
        if arch != architecture.audit {
            return Self {
                slot: architecture.table.len() + 1,
                errno,
            };
        }
        let table = architecture.table;
        match table.binary_search_by_key(&number, |(number, _)| *number) {
            Err(_) => Self {
                slot: table.len(),
                errno,
            },
            Ok(slot) => Self {
                slot,
                errno: match table[slot].1 {
                    Rule::Deny(errno) => errno,
                    Rule::Allow(_) | Rule::AllowIf(..) => libc::EPERM,
                },
            },
        }
    }
}

/// Name and reason of an entry; `None` beyond [`SLOTS`].
pub(crate) fn about(slot: usize) -> Option<(&'static str, &'static str)> {
    match slot {
        UNKNOWN => Some((
            "unknown",
            "numbers that the policy does not know, those of the x32 interface among them; libraries fall back",
        )),
        FOREIGN => Some((
            "foreign",
            "calls of another architecture, such as 32-bit ones, whose numbers mean something else",
        )),
        slot => NATIVE.about.get(slot).copied(),
    }
}

/// Numbers from `start` to the next range's start share a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    rule: Rule,
}

/// The whole number space cut into ranges; gaps get ENOSYS.
fn ranges(table: &[(u32, Rule)], at: Isolation, denial: Denial) -> Vec<Range> {
    let unknown = Rule::Deny(libc::ENOSYS);
    let mut out: Vec<Range> = Vec::new();
    let mut push = |start: u32, rule: Rule| {
        let rule = match (rule, denial) {
            // One range with its neighbours, whatever the errno will be.
            (Rule::Deny(_), Denial::Asked) => unknown,
            _ => rule,
        };
        if out.last().is_none_or(|last| last.rule != rule) {
            out.push(Range { start, rule });
        }
    };
    let mut next = 0;
    for (number, rule) in table {
        if *number > next {
            push(next, unknown);
        }
        let rule = match *rule {
            Rule::Allow(from) | Rule::AllowIf(from, _) if at < from => Rule::Deny(libc::EPERM),
            // One range with its neighbours, whatever they were allowed from.
            Rule::Allow(_) => Rule::Allow(at),
            rule => rule,
        };
        push(*number, rule);
        next = number + 1;
    }
    // x32 calls have bit 30 set and fall into this last gap as well.
    push(next, unknown);
    out
}

fn tree(ranges: &[Range], at: Isolation, denial: Denial, out: &mut Vec<Instruction>) {
    let [only] = ranges else {
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let here = out.len();
        out.push(branch(JUMP_IF_AT_LEAST, right[0].start, 0, 0));
        tree(left, at, denial, out);
        let skip = out.len() - here - 1;
        if let Ok(short) = u8::try_from(skip) {
            out[here].jt = short;
        } else {
            // Conditional jumps reach 255 instructions; a plain one reaches further.
            out[here] = branch(JUMP_IF_AT_LEAST, right[0].start, 0, 1);
            let far = u32::try_from(skip).expect("a filter has at most 4096 instructions");
            out.insert(here + 1, jump(far));
        }
        tree(right, at, denial, out);
        return;
    };
    match only.rule {
        Rule::Allow(_) => out.push(ret(RET_ALLOW)),
        Rule::Deny(errno) => out.push(denial.with(errno)),
        Rule::AllowIf(_, any) => alternatives(any, at, denial, out),
    }
}

fn alternatives(any: &[&[Condition]], at: Isolation, denial: Denial, out: &mut Vec<Instruction>) {
    for all in any {
        let asked = |condition: &&Condition| condition.is_asked(at);
        let needed = |condition: &&Condition| {
            let mut others = all.iter().filter(asked);
            !others.any(|other| condition.follows_from(other))
        };
        let all: Vec<&Condition> = all.iter().filter(asked).filter(needed).collect();
        // Each condition is LOAD, AND, JUMP; then RETURN ALLOW.
        let length = all.len() * 3 + 1;
        for (index, condition) in all.iter().enumerate() {
            out.push(load(ARGS + 8 * u32::from(condition.arg)));
            out.push(Instruction {
                code: AND,
                jt: 0,
                jf: 0,
                k: condition.mask,
            });
            let miss = u8::try_from(length - index * 3 - 3).expect("a rule has few conditions");
            let (jt, jf) = if condition.equal {
                (0, miss)
            } else {
                (miss, 0)
            };
            out.push(branch(JUMP_IF_EQUAL, condition.value, jt, jf));
        }
        out.push(ret(RET_ALLOW));
    }
    out.push(denial.with(libc::EPERM));
}

fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

fn jump(by: u32) -> Instruction {
    Instruction {
        code: JUMP,
        jt: 0,
        jf: 0,
        k: by,
    }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn ret(value: u32) -> Instruction {
    Instruction {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: value,
    }
}

#[cfg(test)]
mod tests {
    use super::emulator::{Call, run};
    use super::*;
    use proptest::prelude::*;

    /// Every architecture with its names: this machine can only run one, and
    /// compiles the policy for all.
    const ALL: [Named; 2] = [(INTEL, X86_64_NAMES), (ARM, AARCH64_NAMES)];

    /// An architecture and the numbers of its calls by name.
    type Named = (Architecture, &'static [(&'static str, u32)]);

    /// Runs a filter as the kernel does.
    fn simulate(filter: &Filter, arch: u32, number: u32, args: [u64; 6]) -> u32 {
        run(&filter.instructions, &Call { arch, number, args }, |_| {})
    }

    fn steps(filter: &Filter, arch: u32, number: u32) -> usize {
        let (mut count, args) = (0, [7; 6]);
        let call = Call { arch, number, args };
        run(&filter.instructions, &call, |_| count += 1);
        count
    }

    fn compiled(on: Architecture, at: Isolation) -> Filter {
        Filter::for_architecture(on, at, Denial::Errno)
    }

    /// What the table says, without any tree.
    fn expected(on: Architecture, at: Isolation, number: u32, args: [u64; 6]) -> u32 {
        let eperm = RET_ERRNO | libc::EPERM.unsigned_abs();
        match on
            .table
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, rule)| *rule)
        {
            None => RET_ERRNO | libc::ENOSYS.unsigned_abs(),
            Some(Rule::Allow(from) | Rule::AllowIf(from, _)) if at < from => eperm,
            Some(Rule::Allow(_)) => RET_ALLOW,
            Some(Rule::Deny(errno)) => RET_ERRNO | errno.unsigned_abs(),
            Some(Rule::AllowIf(_, any)) => {
                let holds = |c: &Condition| {
                    let low = (args[usize::from(c.arg)] & 0xffff_ffff) as u32;
                    ((low & c.mask) == c.value) == c.equal
                };
                let holds = |c: &Condition| !c.is_asked(at) || holds(c);
                if any.iter().any(|all| all.iter().all(holds)) {
                    RET_ALLOW
                } else {
                    eperm
                }
            }
        }
    }

    #[test]
    fn every_number_gets_its_rule() {
        for ((on, _), at) in pairs() {
            let filter = compiled(on, at);
            for number in (0..2048).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                for args in [[0; 6], [1; 6], [2; 6], [u64::MAX; 6]] {
                    assert_eq!(
                        simulate(&filter, on.audit, number, args),
                        expected(on, at, number, args),
                        "number {number} args {args:?} on {:#x}",
                        on.audit
                    );
                }
            }
        }
    }

    fn pairs() -> impl Iterator<Item = (Named, Isolation)> {
        ALL.into_iter()
            .flat_map(|on| Isolation::LADDER.map(|at| (on, at)))
    }

    /// The build fails on a name without a rule; this is about the numbers.
    #[test]
    fn every_call_of_every_architecture_has_a_rule() {
        for (on, names) in ALL {
            assert!(names.len() > 300, "only {} calls", names.len());
            for (name, number) in names {
                let found = on.table.binary_search_by_key(number, |(number, _)| *number);
                assert!(found.is_ok(), "{name} ({number}) on {:#x}", on.audit);
            }
            assert_eq!(on.table.len(), names.len());
        }
    }

    /// Against what the kernels' headers say.
    #[test]
    fn numbers_are_those_of_the_kernel() {
        let check = |name: &str, intel: Option<u32>, arm: Option<u32>| {
            for ((_, names), expected) in ALL.into_iter().zip([intel, arm]) {
                let found = names.iter().find(|(known, _)| *known == name);
                assert_eq!(found.map(|(_, number)| *number), expected, "{name}");
            }
        };
        check("read", Some(0), Some(63));
        check("execve", Some(59), Some(221));
        check("clone", Some(56), Some(220));
        check("mount", Some(165), Some(40));
        check("ptrace", Some(101), Some(117));
        check("seccomp", Some(317), Some(277));
        check("bpf", Some(321), Some(280));
        check("newfstatat", Some(262), None);
        check("fstatat", None, Some(79));
        check("open", Some(2), None);
        check("io_uring_setup", Some(425), Some(425));
        check("clone3", Some(435), Some(435));
        check("landlock_restrict_self", Some(446), Some(446));
    }

    #[test]
    fn other_architectures_are_refused() {
        for (on, _) in ALL {
            let filter = compiled(on, Isolation::Full);
            let other = ALL.map(|(other, _)| other.audit);
            let other = other.into_iter().filter(|audit| *audit != on.audit);
            for arch in [0x4000_0003, 0x4000_0028, 0].into_iter().chain(other) {
                let got = simulate(&filter, arch, 0, [0; 6]);
                assert_eq!(got, RET_ERRNO | libc::ENOSYS.unsigned_abs());
            }
        }
    }

    /// What it is about, the call, its arguments, whether it is allowed.
    type Case = (&'static str, &'static str, [u64; 6], bool);

    fn check(at: Isolation, cases: &[Case]) {
        for ((on, names), (about, call, args, allowed)) in ALL
            .into_iter()
            .flat_map(|on| cases.iter().map(move |case| (on, case)))
        {
            let (_, number) = names.iter().find(|(name, _)| name == call).unwrap();
            let got = simulate(&compiled(on, at), on.audit, *number, *args);
            assert_eq!(got == RET_ALLOW, *allowed, "{about} at {at}: {got:#x}");
        }
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
            ("read", "read", [0; 6], true),
            ("unix socket", "socket", [1, 1, 0, 0, 0, 0], true),
            ("AF_ALG", "socket", [38, 5, 0, 0, 0, 0], false),
            ("AF_VSOCK", "socket", [40, 1, 0, 0, 0, 0], false),
            ("AF_PACKET", "socket", [17, 3, 0, 0, 0, 0], false),
            ("netlink route", "socket", [16, 3, 0, 0, 0, 0], true),
            ("netlink audit", "socket", [16, 3, 9, 0, 0, 0], false),
            ("clone thread", "clone", [0x3d_0f00, 0, 0, 0, 0, 0], true),
            ("clone newuser", "clone", [0x1000_0011, 0, 0, 0, 0, 0], false),
            ("TIOCSTI", "ioctl", [0, 0x5412, 0, 0, 0, 0], false),
            ("TIOCSTI high bits", "ioctl", [0, 0xdead_0000_5412, 0, 0, 0, 0], false),
            ("FIONREAD", "ioctl", [0, 0x541b, 0, 0, 0, 0], true),
            ("prlimit init", "prlimit64", [1, 7, 0, 0, 0, 0], false),
            ("prlimit self", "prlimit64", [0, 7, 0, 0, 0, 0], true),
            ("bpf", "bpf", [0; 6], false),
            ("F_NOTIFY", "fcntl", [0, 1026, 0, 0, 0, 0], false),
            ("F_SETFL", "fcntl", [0, 4, 0, 0, 0, 0], true),
            ("mptcp", "socket", [2, 1, 262, 0, 0, 0], false),
            ("udp", "socket", [10, 2, 17, 0, 0, 0], true),
            ("SO_ATTACH_FILTER", "setsockopt", [0, 1, 26, 0, 0, 0], false),
            ("SO_REUSEADDR", "setsockopt", [0, 1, 2, 0, 0, 0], true),
            ("TCP_NODELAY", "setsockopt", [0, 6, 1, 0, 0, 0], true),
            ("flow label", "setsockopt", [0, 41, 32, 0, 0, 0], false),
            ("RLIMIT_CORE", "prlimit64", [0, 4, 0, 0, 0, 0], false),
            ("huge pages", "mmap", [0, 0, 3, 0x40022, 0, 0], false),
            ("shared memory", "mmap", [0, 0, 3, 0x21, 0, 0], true),
            ("memfd", "memfd_create", [0, 1, 0, 0, 0, 0], true),
            ("inotify", "inotify_init1", [0; 6], false),
    ];

    #[rustfmt::skip]
    const WITHOUT_CGROUP: &[Case] = &[
            ("shared memory", "mmap", [0, 0, 3, 0x21, 0, 0], false),
            ("private memory", "mmap", [0, 0, 3, 0x22, 0, 0], true),
            ("shared file", "mmap", [0, 0, 3, 0x01, 3, 0], true),
            ("memfd", "memfd_create", [0, 1, 0, 0, 0, 0], false),
            ("shmget", "shmget", [0, 1, 0o1600, 0, 0, 0], false),
            ("vmsplice", "vmsplice", [0; 6], false),
            ("affinity of a thread", "sched_setaffinity", [77, 8, 0, 0, 0, 0], true),
            ("nice of init", "setpriority", [0, 1, 19, 0, 0, 0], false),
    ];

    #[rustfmt::skip]
    const WITHOUT_NAMESPACES: &[Case] = &[
            ("unix socket", "socket", [1, 1, 0, 0, 0, 0], false),
            ("tcp", "socket", [2, 1, 0, 0, 0, 0], false),
            ("netlink route", "socket", [16, 3, 0, 0, 0, 0], false),
            ("stream pair", "socketpair", [1, 0x80801, 0, 0, 0, 0], true),
            ("packet pair", "socketpair", [1, 5, 0, 0, 0, 0], true),
            ("datagram pair", "socketpair", [1, 0x80802, 0, 0, 0, 0], false),
            ("raw pair", "socketpair", [1, 3, 0, 0, 0, 0], false),
            ("connect", "connect", [0; 6], false),
            ("bind", "bind", [0; 6], false),
            ("truncate", "truncate", [0; 6], false),
            ("ftruncate", "ftruncate", [0; 6], true),
            ("memfd", "memfd_create", [0, 1, 0, 0, 0, 0], false),
            ("pipe", "pipe2", [0; 6], true),
            ("vmsplice", "vmsplice", [0; 6], false),
            ("setxattr", "setxattr", [0; 6], false),
            ("getxattr", "getxattr", [0; 6], true),
            ("SO_SNDBUF", "setsockopt", [0, 1, 7, 0, 0, 0], false),
            ("own affinity", "sched_setaffinity", [0, 8, 0, 0, 0, 0], true),
            ("affinity of another", "sched_setaffinity", [77, 8, 0, 0, 0, 0], false),
            ("scheduler of another", "sched_setscheduler", [77, 5, 0, 0, 0, 0], false),
            ("own nice", "setpriority", [0, 0, 19, 0, 0, 0], true),
            ("nice of another", "setpriority", [0, 77, 19, 0, 0, 0], false),
            ("own io class", "ioprio_set", [1, 0, 0, 0, 0, 0], true),
            ("io class of another", "ioprio_set", [1, 77, 0, 0, 0, 0], false),
    ];

    #[test]
    fn named_cases() {
        check(Isolation::Full, CASES);
        check(Isolation::Namespaces, WITHOUT_CGROUP);
        check(Isolation::Uids, WITHOUT_NAMESPACES);
    }

    /// Depth, not length, is what a call pays.
    #[test]
    fn no_call_runs_more_than_a_few_instructions() {
        for (on, _) in ALL {
            let filter = compiled(on, Isolation::Full);
            let depth = |number| steps(&filter, on.audit, number);
            let deepest = (0..600).map(depth).max().unwrap();
            assert!(deepest <= 40, "{deepest} steps");
            assert!(
                filter.instructions.len() > 4 * deepest,
                "a list, not a tree"
            );
        }
    }

    proptest! {
        #[test]
        fn random_calls_agree_with_the_table(
            number in 0u32..600, args in prop::array::uniform6(any::<u64>()),
            at in prop::sample::select(Isolation::LADDER.to_vec()),
            on in prop::sample::select(ALL.map(|(on, _)| on).to_vec())
        ) {
            let filter = compiled(on, at);
            prop_assert_eq!(
                simulate(&filter, on.audit, number, args), expected(on, at, number, args)
            );
        }
    }
}
