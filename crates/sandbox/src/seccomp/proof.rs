//! Proof that the compiled filters decide what the policy says: every filter
//! there is, run by the emulator over every number that could matter, against
//! the oracle; every instruction and both ways of every jump; and the kernel of
//! this machine on the same calls.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use super::emulator::{Call, run, verify};
use super::oracle::{self, Answer, Machine, Oracle, RUNGS};
use super::{ARM, Architecture, Denial, Filter, INTEL, Instruction, NATIVE, Refusal};
use super::{RET_ALLOW, RET_ERRNO, RET_USER_NOTIF};
use crate::explain::{Explanation, Tally};
use crate::support::Isolation;
use crate::sys::raw::{self, Argument};
use crate::sys::{self, Child};

/// Random numbers for each filter, besides those that are there for a reason.
const RANDOM: usize = 20_000;

/// One compiled filter and what it was compiled from.
pub(super) struct Subject {
    pub(super) on: Architecture,
    at: Isolation,
    rung: usize,
    denial: Denial,
    oracle: Oracle,
    pub(super) program: Vec<Instruction>,
}

impl Subject {
    /// Every filter that the sandbox can make, for every architecture.
    pub(super) fn all(denial: Denial) -> Vec<Self> {
        let machines = [(INTEL, oracle::INTEL), (ARM, oracle::ARM)];
        machines
            .into_iter()
            .flat_map(|(on, machine)| {
                Isolation::LADDER.map(|at| Self::new(on, machine, at, denial))
            })
            .collect()
    }

    fn new(on: Architecture, machine: Machine, at: Isolation, denial: Denial) -> Self {
        let word = at.as_str();
        Self {
            on,
            at,
            rung: RUNGS.iter().position(|rung| *rung == word).unwrap(),
            denial,
            oracle: Oracle::of(machine),
            program: Filter::for_architecture(on, at, denial).instructions,
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{:#x} at {} ({:?})", self.on.audit, self.at, self.denial)
    }

    /// What the filter is to return.
    pub(super) fn expected(&self, call: &Call) -> u32 {
        match (self.oracle.answer(self.rung, call), self.denial) {
            (Answer::Allow, _) => RET_ALLOW,
            (Answer::Errno(errno), Denial::Errno) => RET_ERRNO | errno.unsigned_abs(),
            (Answer::Errno(errno), Denial::Asked) => {
                // Whoever is asked has to say the same.
                let refusal = Refusal::on(self.on, call.arch, call.number);
                assert_eq!(refusal.errno, errno, "{} {call:x?}", self.name());
                RET_USER_NOTIF
            }
        }
    }

    /// Every call that could tell a right filter from a wrong one.
    pub(super) fn calls(&self) -> Vec<Call> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut calls = Vec::new();
        let own = self.on.audit;
        let other = if own == INTEL.audit { ARM } else { INTEL }.audit;
        // i386 and arm, the other of ours, none, and each bit of the right one.
        let arches = [0x4000_0003, 0x4000_0028, other, 0, u32::MAX];
        for arch in arches {
            for number in (0..=1023).chain([0x4000_0000, u32::MAX]) {
                let args = [random.next(); 6];
                calls.push(Call { arch, number, args });
            }
        }
        for arch in (0..32).map(|bit| own ^ (1 << bit)) {
            let args = [0; 6];
            calls.extend((0..=63).map(|number| Call { arch, number, args }));
        }
        // Were one taken for a number, it would be one that means something.
        for arch in 0..=1023 {
            let (number, args) = (random.low(), random.args());
            calls.push(Call { arch, number, args });
        }
        let mut add = |number, args| {
            let arch = own;
            calls.push(Call { arch, number, args });
        };
        for number in self.numbers() {
            for args in [[0; 6], [1; 6], [u64::MAX; 6], random.args()] {
                add(number, args);
            }
        }
        for _ in 0..RANDOM {
            let number = random.low();
            add(number, random.args());
        }
        // Arguments for each way through the comparisons of each call.
        let mut ways = Vec::new();
        for (number, _, any) in self.oracle.checked() {
            let mut seen = BTreeSet::new();
            for args in boundaries(any, &mut random) {
                add(number, args);
                let (call, mut way) = (
                    Call {
                        arch: own,
                        number,
                        args,
                    },
                    Vec::new(),
                );
                run(&self.program, &call, |step| way.push(step.at));
                if seen.insert(way) {
                    ways.push((number, args));
                }
            }
        }
        // Whether a number gets its own arguments looked at, and no other's.
        for number in self.oracle.names().keys() {
            for (_, args) in &ways {
                add(*number, *args);
            }
        }
        for (number, _, any) in self.oracle.checked() {
            let is_own: [bool; 6] =
                std::array::from_fn(|arg| any.iter().flatten().any(|check| check.arg == arg));
            for (_, own) in ways.iter().filter(|way| way.0 == number) {
                // An argument that is taken for a number.
                for i in self.program.iter().filter(|i| i.code == 0x35) {
                    for arg in (0..6).filter(|arg| is_own[*arg]) {
                        for value in [i.k, i.k - 1] {
                            let mut args = *own;
                            args[arg] = u64::from(value);
                            add(number, args);
                        }
                    }
                }
                for (_, other) in &ways {
                    let pick = |arg: usize| if is_own[arg] { own[arg] } else { other[arg] };
                    add(number, std::array::from_fn(pick));
                }
            }
        }
        calls
    }

    /// Every number that Linux could have and its x32 double, the edges of
    /// powers of two, and both sides of whatever the filter compares with: a
    /// filter that only compares numbers decides alike between those.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let known = (0..=1023).flat_map(|number| [number, 0x4000_0000 | number]);
        let powers = (0..32).map(|bit| 1 << bit);
        let compared = self.program.iter().map(|i| i.k);
        let around = powers
            .chain(compared)
            .flat_map(|k: u32| [k.wrapping_sub(1), k, k.wrapping_add(1)]);
        known.chain(around).collect()
    }
}

/// Arguments around every condition of a call: its value, the neighbours,
/// every single bit changed, for all pairs of arguments that are looked at;
/// each once plain and once with rubbish in the high half and elsewhere.
fn boundaries(any: &[Vec<oracle::Check>], random: &mut Random) -> Vec<[u64; 6]> {
    let mut values: Vec<Vec<u32>> = vec![vec![0]; 6];
    for check in any.iter().flatten() {
        let value = check.value;
        let of = &mut values[check.arg];
        of.extend([1, u32::MAX, check.mask, !check.mask, value | !check.mask]);
        of.extend([value, value.wrapping_sub(1), value.wrapping_add(1)]);
        of.extend((0..32).map(|bit| value ^ (1 << bit)));
    }
    for of in &mut values {
        of.sort_unstable();
        of.dedup();
    }
    let mut all = vec![[0u64; 6]];
    for (arg, of) in values.iter().enumerate() {
        all = all
            .iter()
            .flat_map(|args| {
                of.iter().map(move |value| {
                    let mut args = *args;
                    args[arg] = u64::from(*value);
                    args
                })
            })
            .collect();
    }
    let dirty: Vec<[u64; 6]> = all
        .iter()
        .map(|args| args.map(|arg| arg | random.next() << 32))
        .collect();
    all.extend(dirty);
    all
}

/// Numbers that are the same in each run (xorshift).
pub(super) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn low(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }

    fn args(&mut self) -> [u64; 6] {
        std::array::from_fn(|_| self.next())
    }
}

/// Compares a filter with the oracle on all calls, and gives what it missed.
fn prove(subject: &Subject) -> Vec<String> {
    let program = &subject.program;
    verify(program).unwrap();
    let mut entered = vec![[false; 2]; program.len()];
    let calls = subject.calls();
    for call in &calls {
        let got = run(program, call, |step| {
            entered[step.at][usize::from(step.taken.unwrap_or(false))] = true;
        });
        let name = subject.name();
        assert_eq!(got, subject.expected(call), "{name}: {call:x?}");
    }
    let ways = |i: &Instruction| 1 + usize::from(i.code & 0x07 == 0x05 && i.code != 0x05);
    let missed = entered.iter().zip(program).enumerate();
    let missed: Vec<String> = missed
        .flat_map(|(at, (entered, i))| {
            (0..ways(i)).filter_map(move |way| {
                let place = format!("{at} of {}, way {way}: {i:x?}", subject.name());
                (!entered[way]).then_some(place)
            })
        })
        .collect();
    println!(
        "{}: {} calls, {} instructions, {} ways, {} missed",
        subject.name(),
        calls.len(),
        program.len(),
        program.iter().map(ways).sum::<usize>(),
        missed.len(),
    );
    missed
}

fn prove_all(denial: Denial) {
    let missed: Vec<String> = Subject::all(denial).iter().flat_map(prove).collect();
    assert!(missed.is_empty(), "never reached: {missed:#?}");
}

#[test]
fn every_filter_decides_as_the_policy_says() {
    prove_all(Denial::Errno);
}

#[test]
fn every_filter_that_asks_asks_exactly_what_is_denied() {
    prove_all(Denial::Asked);
}

/// Beyond every constant of a filter its decision cannot change, because it
/// does nothing with a number but compare it.
#[test]
fn numbers_are_only_compared() {
    for subject in Subject::all(Denial::Errno) {
        let first_argument = subject.program.iter().position(|i| i.code == 0x54);
        assert!(first_argument.is_some(), "{}", subject.name());
        for call in subject.calls().iter().step_by(97) {
            let mut loaded = None;
            run(&subject.program, call, |step| {
                let i = subject.program[step.at];
                match i.code {
                    0x20 => loaded = Some(i.k),
                    0x54 => assert!(loaded.unwrap() >= 16, "{i:?}"),
                    0x15 | 0x35 | 0x05 | 0x06 => {}
                    other => panic!("{other:#x} at {}", step.at),
                }
            });
        }
    }
}

#[test]
fn both_sources_of_numbers_agree() {
    let machines = [
        (oracle::INTEL, super::X86_64_NAMES),
        (oracle::ARM, super::AARCH64_NAMES),
    ];
    for (machine, generated) in machines {
        let oracle = Oracle::of(machine);
        let headers = oracle.names();
        for (name, number) in generated {
            // Those of 32-bit kernels, which the policy calls just that.
            if machine == oracle::ARM && (403..=423).contains(number) {
                assert!(
                    !headers.contains_key(number) && name.contains("64"),
                    "{name}"
                );
            } else {
                assert_eq!(headers.get(number).map(String::as_str), Some(*name));
            }
        }
        for (number, name) in headers {
            assert!(generated.contains(&(name, *number)), "{name} {number}");
        }
    }
}

/// What the kernel makes of arguments that the policy looks at: call, argument,
/// arguments with which the call succeeds and changes nothing that lasts.
#[rustfmt::skip]
const CUT: &[(&str, usize, [Argument; 6])] = {
    use Argument::{Buffer as B, Page as P, Value as V};
    const O: Argument = V(0);
    &[
        ("socket", 0, [V(1), V(1), O, O, O, O]),
        ("socket", 2, [V(1), V(1), O, O, O, O]),
        ("socketpair", 0, [V(1), V(1), O, B, O, O]),
        ("socketpair", 1, [V(1), V(1), O, B, O, O]),
        ("ioctl", 1, [V(FD), V(0x5452), B, O, O, O]), // FIOASYNC, off.
        ("personality", 0, [V(0xffff_ffff), O, O, O, O, O]),
        ("prlimit64", 0, [O, V(7), O, B, O, O]),
        ("prlimit64", 1, [O, V(7), O, B, O, O]),
        ("mmap", 3, [O, V(4096), O, V(0x22), V(u64::MAX), O]),
        ("memfd_create", 1, [B, O, O, O, O, O]),
        ("shmget", 2, [O, V(4096), V(0o600), O, O, O]),
        ("madvise", 2, [P, V(4096), O, O, O, O]),
        ("fcntl", 1, [V(FD), V(1), O, O, O, O]), // F_GETFD
        ("prctl", 0, [V(3), O, O, O, O, O]), // PR_GET_DUMPABLE
        ("setsockopt", 1, [V(FD), V(1), V(2), B, V(4), O]),
        ("setsockopt", 2, [V(FD), V(1), V(2), B, V(4), O]),
        ("sched_setparam", 0, [O, B, O, O, O, O]),
        ("sched_setscheduler", 0, [O, O, B, O, O, O]),
        ("sched_setattr", 0, [O, B, O, O, O, O]),
        ("setpriority", 0, [O, O, O, O, O, O]),
        ("setpriority", 1, [O, O, O, O, O, O]),
        ("ioprio_set", 0, [V(1), O, O, O, O, O]),
        ("ioprio_set", 1, [V(1), O, O, O, O, O]),
    ]
};
/// Stands for a socket's descriptor.
const FD: u64 = 0xfd;

/// Looked at by the policy, and not in the table above.
const CUT_BY_OTHER_MEANS: &[(&str, usize, &str)] = &[
    ("clone", 0, "shown below"),
    (
        "setrlimit",
        0,
        "unsigned int, as that of prlimit64, which does its work; a try would change the limit",
    ),
    (
        "sched_setaffinity",
        0,
        "pid_t, as in sched_setparam; a try would change the affinity",
    ),
];

/// The filter looks at the low half of an argument. So must the kernel, or a
/// flag could hide in the high one.
#[test]
fn high_halves_are_not_looked_at_by_the_kernel() {
    let socket = std::os::unix::net::UnixStream::pair().unwrap();
    let socket = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&socket.0)).unwrap();
    let native = if NATIVE.audit == INTEL.audit {
        oracle::INTEL
    } else {
        oracle::ARM
    };
    let oracle = Oracle::of(native);
    for (number, name, any) in oracle.checked() {
        for arg in any.iter().flatten().map(|check| check.arg) {
            if let Some((.., args)) = CUT.iter().find(|row| row.0 == name && row.1 == arg) {
                for high in [1, 0x4_0000, 0x8000_0000, u64::from(u32::MAX)] {
                    let mut args = *args;
                    for word in &mut args {
                        if matches!(word, Argument::Value(FD)) {
                            *word = Argument::Value(socket);
                        }
                    }
                    let plain = raw::call(number, args);
                    assert!(plain.is_ok(), "{name}: {plain:?}");
                    let Argument::Value(low) = args[arg] else {
                        panic!("{name}: argument {arg} is a pointer");
                    };
                    args[arg] = Argument::Value(low | high << 32);
                    let dirty = raw::call(number, args);
                    assert!(dirty.is_ok(), "{name} {arg} {high:#x}: {dirty:?}");
                }
            } else {
                let known = |row: &&(&str, usize, &str)| row.0 == name && row.1 == arg;
                assert!(
                    CUT_BY_OTHER_MEANS.iter().any(|row| known(&row)),
                    "{name} {arg}"
                );
            }
        }
    }
    // CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP and beyond: the second would fail
    // with EBADF, if it were heard, for descriptor 0 is no cgroup.
    for high in [1, 2, 4, u64::from(u32::MAX)] {
        let flags = high << 32 | u64::from(libc::SIGCHLD.unsigned_abs());
        assert_eq!(raw::clone_with(flags), 0, "{high:#x}");
    }
}

/// Allowed everywhere, and without effect when all arguments are zero, or those given.
const HARMLESS: &[&str] = &[
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "sched_yield",
    "getpgid",
    "getsid",
    "umask",
    "getpriority",
    "sched_getscheduler",
    "sched_get_priority_max",
    "getcpu",
    "membarrier",
    "munmap",
    "madvise",
    "mmap",
    "prctl",
    "personality",
];

/// Calls that the kernel shows to no filter: it made them for its own probes, on
/// x86-64 only, and whoever makes them from elsewhere gets `SIGILL` or `ENXIO`.
const PAST_FILTERS: &[&str] = &["uretprobe", "uprobe"];

/// A process under each real filter, on every number that it denies, and some
/// that it allows.
#[test]
fn the_kernel_agrees_with_the_emulator() {
    let native = NATIVE.audit;
    for subject in Subject::all(Denial::Errno) {
        if subject.on.audit != native {
            continue;
        }
        let names = subject.oracle.names();
        let name = |call: &Call| names.get(&call.number).map_or("", String::as_str);
        let harmless = |call: &Call| HARMLESS.contains(&name(call)) && call.args == [0; 6];
        // Only what both deny: the filter answers before the kernel looks at it.
        let calls: Vec<(Call, u32)> = subject
            .calls()
            .into_iter()
            .filter(|call| call.arch == native && !PAST_FILTERS.contains(&name(call)))
            .map(|call| (call, run(&subject.program, &call, |_| {})))
            .filter(|(call, answer)| *answer != RET_ALLOW || harmless(call))
            .collect();
        let allowed = calls.iter().filter(|call| call.1 == RET_ALLOW).count();
        assert!(allowed >= HARMLESS.len(), "{allowed}");
        let (errnos, status) = under(subject.at, &calls);
        assert_eq!(status.exit_status(), Some(0), "{status:?}");
        assert_eq!(errnos.len(), calls.len());
        for ((call, answer), errno) in calls.iter().zip(errnos) {
            let refused = RET_ERRNO | errno.unsigned_abs();
            if *answer == RET_ALLOW {
                let free = errno != libc::EPERM && errno != libc::ENOSYS;
                assert!(free, "{} {call:x?}: errno {errno}", subject.name());
            } else {
                assert_eq!(refused, *answer, "{} {call:x?}", subject.name());
            }
        }
        println!(
            "{}: {} real calls, {allowed} allowed",
            subject.name(),
            calls.len()
        );
        for number in names
            .iter()
            .filter(|(_, name)| PAST_FILTERS.contains(&name.as_str()))
        {
            let (arch, number, args) = (native, *number.0, [0; 6]);
            let (errnos, status) = under(subject.at, &[(Call { arch, number, args }, 0)]);
            let refused = [[libc::EPERM], [libc::ENXIO]]
                .iter()
                .any(|errno| errnos == errno);
            let killed = status.terminating_signal() == Some(libc::SIGILL);
            assert!(refused || killed, "{number}: {errnos:?} {status:?}");
        }
    }
}

/// Under a filter that has a listener the kernel allows no second one: the usual
/// filter holds, and the reason is told.
#[test]
fn where_nobody_can_be_asked_the_usual_filter_holds() {
    let tally = Tally::new().unwrap();
    let around = [super::ret(RET_ALLOW)];
    let bpf = u32::try_from(libc::SYS_bpf).unwrap();
    let ended = match sys::fork().unwrap() {
        Child::Me => {
            let listener = rustix::thread::set_no_new_privs(true)
                .map_err(Into::into)
                .and_then(|()| sys::seccomp_listen(&around));
            let usual = Filter::new(Isolation::Full);
            let held = listener.is_ok() && tally.install(&usual, Isolation::Full).is_ok();
            let refused = held && raw::errno_of(bpf, [0; 6]) == libc::EPERM;
            sys::exit_now(i32::from(!refused))
        }
        Child::Pid(pid, _) => waitpid(Pid::from_raw(pid), WaitOptions::empty()),
    };
    assert_eq!(ended.unwrap().unwrap().1.exit_status(), Some(0));
    let memory = tally.memory().try_clone_to_owned().unwrap();
    let denials = Explanation::of(memory).unwrap().denials().unwrap();
    assert!(denials.calls.is_empty());
    assert!(denials.gap.unwrap().contains("one listener"));
}

/// Errnos of calls made by a process under the rung's filter, and its end.
fn under(at: Isolation, calls: &[(Call, u32)]) -> (Vec<i32>, WaitStatus) {
    let filter = Filter::new(at);
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    // Made before the fork: the child may not allocate.
    let mut errnos = vec![0u8; calls.len() * 4];
    let pid = match sys::fork().unwrap() {
        Child::Me => {
            // A session of its own: `vhangup` would otherwise be about ours.
            let held = rustix::process::setsid().is_ok()
                && rustix::thread::set_no_new_privs(true).is_ok()
                && filter.install().is_ok();
            if !held {
                sys::exit_now(1);
            }
            for ((call, _), to) in calls.iter().zip(errnos.chunks_exact_mut(4)) {
                to.copy_from_slice(&raw::errno_of(call.number, call.args).to_le_bytes());
            }
            let written = std::fs::File::from(write).write_all(&errnos);
            sys::exit_now(i32::from(written.is_err()))
        }
        Child::Pid(pid, _) => pid,
    };
    drop(write);
    let mut told = Vec::new();
    std::fs::File::from(read).read_to_end(&mut told).unwrap();
    let ended = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap();
    let errnos = told
        .chunks_exact(4)
        .map(|errno| i32::from_le_bytes(errno.try_into().unwrap()));
    (errnos.collect(), ended.unwrap().1)
}
