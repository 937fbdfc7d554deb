//! Proof that the filters of `landlock` hold together: what a program meets there
//! is the policy, though init's filter holds for it as well and lets init do
//! more.

use super::emulator::{Call, run};
use super::oracle::{self, Answer, Machine, Mark};
use super::proof::{Random, Subject, under};
use super::{ARM, Architecture, Denial, Filter, INTEL, MARK, NATIVE, Refusal, Role};
use super::{RET_ALLOW, RET_ERRNO, RET_USER_NOTIF};

/// Calls that the kernel shows to no filter: it made them for its own probes, on
/// x86-64 only, and whoever makes them from elsewhere gets `SIGILL` or `ENXIO`.
pub(super) const PAST_FILTERS: &[&str] = &["uretprobe", "uprobe"];

impl Subject {
    /// Calls with init's mark, and with what is nearly it.
    pub(super) fn marked(&self, ways: &[(u32, [u64; 6])], random: &mut Random) -> Vec<Call> {
        let mut all = Vec::new();
        if matches!(self.role, Some(Role::Whole(_))) {
            return all;
        }
        let own = self.on.audit;
        let mut add = |arch, number, args| all.push(Call { arch, number, args });
        let mark = u64::from(MARK);
        let near = (0..32).map(|bit| mark ^ 1 << bit);
        let near: Vec<u64> = near.chain([mark - 1, mark + 1, mark << 32]).collect();
        for number in self.numbers() {
            for high in [0, random.next() << 32] {
                let mut args = random.args();
                args[5] = mark | high;
                add(own, number, args);
                // Where another argument has it, it is none.
                args.swap(5, (random.next() % 5) as usize);
                add(own, number, args);
            }
        }
        for number in self.on.marked.iter().map(|(number, _)| *number) {
            let mut args = random.args();
            for sixth in &near {
                args[5] = *sixth;
                add(own, number, args);
            }
            for (_, way) in ways {
                args = *way;
                args[5] = mark;
                add(own, number, args);
            }
            // Numbers of another architecture are other calls.
            for arch in (0..32)
                .map(|bit| own ^ (1 << bit))
                .chain([own - 1, own + 1])
            {
                add(arch, number, args);
            }
        }
        all
    }
}

/// Init's filter and that of its programs, together, as the kernel takes them: the
/// stricter answer counts, and its number is the lower one.
fn chain(on: Architecture, machine: Machine, denial: Denial) -> [Subject; 2] {
    [Some(Role::Init), None].map(|role| Subject::new(on, machine, role, denial))
}

fn decision(of: &[Subject; 2], call: &Call) -> u32 {
    let [init, programs] = of;
    let answer = |subject: &Subject| run(&subject.program, call, |_| {});
    answer(init).min(answer(programs))
}

/// What a program meets at `landlock` is the policy, but that init decides some
/// of the calls that it allows, and that none may look like init's.
#[test]
fn filters_of_the_landlock_rung_hold_together() {
    for (on, machine) in [(INTEL, oracle::INTEL), (ARM, oracle::ARM)] {
        for denial in [Denial::Errno, Denial::Asked] {
            let both = chain(on, machine, denial);
            let policy = &both[0].oracle;
            let (mut asked, mut as_inits) = (0, 0);
            let calls = both[0].calls();
            for call in &calls {
                let got = decision(&both, call);
                let mark = policy.mark(call);
                let is_marked = call.args[5] % (1 << 32) == u64::from(MARK);
                let answer = policy.answer(both[0].rung, call);
                // What init says of whatever it is asked about.
                let refusal = Refusal::unless_allowed_on(on, call.arch, call.number, &call.args);
                let refused = refusal.map(|refusal| refusal.errno);
                let expected = match (mark, answer) {
                    (Some(_), _) if is_marked => {
                        as_inits += 1;
                        RET_ERRNO | libc::EPERM.unsigned_abs()
                    }
                    (Some(Mark::Asked), Answer::Allow) => {
                        asked += 1;
                        RET_USER_NOTIF
                    }
                    (_, Answer::Allow) => RET_ALLOW,
                    (_, Answer::Errno(errno)) if denial == Denial::Errno => {
                        RET_ERRNO | errno.unsigned_abs()
                    }
                    (_, Answer::Errno(_)) => RET_USER_NOTIF,
                };
                assert_eq!(got, expected, "{:#x} {denial:?} {call:x?}", on.audit);
                let right = match answer {
                    Answer::Allow => None,
                    Answer::Errno(errno) => Some(errno),
                };
                assert_eq!(refused, right, "{:#x} {call:x?}", on.audit);
            }
            assert!(asked > 100 && as_inits > 100, "{asked} {as_inits}");
            println!(
                "{:#x} {denial:?}: {} calls, {asked} asked, {as_inits} as init's refused",
                on.audit,
                calls.len()
            );
        }
    }
}

/// The same by the kernel. Nobody listens, so that what is asked fails.
#[test]
fn the_kernel_agrees_about_filters_that_hold_together() {
    let machine = if NATIVE.audit == INTEL.audit {
        oracle::INTEL
    } else {
        oracle::ARM
    };
    let both = chain(NATIVE, machine, Denial::Errno);
    let filters: Vec<Filter> = both
        .iter()
        .map(|subject| Filter {
            instructions: subject.program.clone(),
        })
        .collect();
    let names = both[0].oracle.names();
    let past = |call: &Call| {
        let name = names.get(&call.number).map_or("", String::as_str);
        PAST_FILTERS.contains(&name)
    };
    let calls: Vec<(Call, u32)> = both[0]
        .calls()
        .into_iter()
        .filter(|call| call.arch == NATIVE.audit && !past(call))
        .map(|call| (call, decision(&both, &call)))
        .filter(|(_, answer)| *answer != RET_ALLOW)
        .collect();
    let asked = calls.iter().filter(|call| call.1 == RET_USER_NOTIF).count();
    assert!(asked > 100, "{asked}");
    let (errnos, status) = under(&filters, &calls);
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
    assert_eq!(errnos.len(), calls.len());
    for ((call, answer), errno) in calls.iter().zip(errnos) {
        let told = if *answer == RET_USER_NOTIF {
            RET_ERRNO | libc::ENOSYS.unsigned_abs()
        } else {
            *answer
        };
        assert_eq!(RET_ERRNO | errno.unsigned_abs(), told, "{call:x?}");
    }
    println!("{} real calls, {asked} asked", calls.len());
}
