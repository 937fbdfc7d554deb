//! Whether the proof would notice a wrong filter: each instruction changed in
//! every way that a slip could, and the calls of the proof run again.

use super::emulator::{Call, run, verify};
use super::proof::Subject;
use super::{Denial, Instruction};

/// Calls tried first on each mutant; the few that survive them meet all.
const FIRST: usize = 2000;

/// One in so many may stay alive: jumps into the midst of what is asked of another
/// call, which are wrong for one value of one argument that nothing leads to.
const MOST_ALIVE: usize = 5000;

/// Single changes of an instruction.
fn changes(i: Instruction) -> Vec<Instruction> {
    let mut all = Vec::new();
    let jumps = i.code & 0x07 == 0x05;
    let constants = (0..32)
        .map(|bit| i.k ^ (1 << bit))
        .chain([i.k.wrapping_add(1), i.k.wrapping_sub(1)]);
    all.extend(constants.map(|k| Instruction { k, ..i }));
    if jumps && i.code != 0x05 {
        let targets = |jump: u8| {
            (0..8)
                .map(move |bit| jump ^ (1 << bit))
                .chain([jump.wrapping_add(1), jump.wrapping_sub(1)])
        };
        all.extend(targets(i.jt).map(|jt| Instruction { jt, ..i }));
        all.extend(targets(i.jf).map(|jf| Instruction { jf, ..i }));
        let (jt, jf) = (i.jf, i.jt);
        all.push(Instruction { jt, jf, ..i });
        // Every other comparison with a constant.
        let codes = [0x15, 0x25, 0x35, 0x45].into_iter();
        all.extend(codes.map(|code| Instruction { code, ..i }));
    }
    all.retain(|other| *other != i);
    all.dedup();
    all
}

/// Calls by the instructions that they pass, and what becomes of them.
struct Trace {
    calls: Vec<(Call, u32)>,
    through: Vec<Vec<u32>>,
}

fn trace(subject: &Subject) -> Trace {
    let mut through = vec![Vec::new(); subject.program.len()];
    let mut calls = subject.calls();
    // Neighbours are alike: far apart, few of them tell much.
    let stride = 7919;
    let count = calls.len();
    assert_ne!(count % stride, 0, "choose another stride");
    calls = (0..count).map(|n| calls[n * stride % count]).collect();
    let calls: Vec<(Call, u32)> = calls
        .into_iter()
        .zip(0..)
        .map(|(call, index)| {
            let answer = run(&subject.program, &call, |step| through[step.at].push(index));
            assert_eq!(answer, subject.expected(&call));
            (call, answer)
        })
        .collect();
    Trace { calls, through }
}

/// What is known of a word of a call after a comparison.
#[derive(Debug, Clone, Copy)]
struct Fact {
    /// Offset in the call's data.
    word: u32,
    mask: u32,
    comparison: u16,
    k: u32,
    holds: bool,
}

impl Fact {
    fn allows(&self, value: u32) -> bool {
        let value = value & self.mask;
        let met = match self.comparison {
            0x15 => value == self.k,
            0x25 => value > self.k,
            0x35 => value >= self.k,
            0x45 => value & self.k != 0,
            other => panic!("no such comparison: {other:#x}"),
        };
        met == self.holds
    }
}

/// Whether some value of `word` fits all that is known of it. Looks at the
/// neighbourhood of each constant, as it is and with the bits that are settled
/// by equalities, which is where such values are if there are any.
fn is_possible(facts: &[Fact], word: u32) -> bool {
    let facts: Vec<&Fact> = facts.iter().filter(|fact| fact.word == word).collect();
    let equal = facts.iter().filter(|f| f.comparison == 0x15 && f.holds);
    let (settled, base) = equal.fold((0, 0), |(mask, base), f| (mask | f.mask, base | f.k));
    let constants = facts.iter().map(|fact| fact.k).chain([0, u32::MAX]);
    let bits = (0..=32).map(|bit| 1u32.checked_shl(bit).unwrap_or(0));
    constants
        .flat_map(|k| (0..=2).map(move |step| k.wrapping_add(step).wrapping_sub(1)))
        .flat_map(|near| bits.clone().map(move |bit| near ^ bit))
        .map(|value| value & !settled | base)
        .any(|value| facts.iter().all(|fact| fact.allows(value)))
}

/// Follows every way through a program that a call can take which `facts`
/// describe; tells what is known at each end, and the answer there.
fn follow(
    program: &[Instruction],
    mut at: usize,
    mut loaded: (u32, u32),
    facts: &mut Vec<Fact>,
    end: &mut dyn FnMut(&mut Vec<Fact>, u32),
) {
    loop {
        let i = program[at];
        at += 1;
        match i.code {
            0x20 => loaded = (i.k, u32::MAX),
            0x54 => loaded.1 &= i.k,
            0x05 => at += i.k as usize,
            0x06 => return end(facts, i.k),
            comparison => {
                for (holds, jump) in [(true, i.jt), (false, i.jf)] {
                    let ((word, mask), k) = (loaded, i.k);
                    facts.push(Fact {
                        word,
                        mask,
                        comparison,
                        k,
                        holds,
                    });
                    if is_possible(facts, word) {
                        follow(program, at + usize::from(jump), loaded, facts, end);
                    }
                    facts.pop();
                }
                return;
            }
        }
    }
}

/// Whether no call that meets the changed instruction gets another answer.
fn decides_alike(program: &[Instruction], mutant: &[Instruction], changed: usize) -> bool {
    let mut alike = true;
    follow(program, 0, (0, 0), &mut Vec::new(), &mut |facts, answer| {
        if alike && passes(program, facts, changed) {
            follow(mutant, 0, (0, 0), facts, &mut |_, other| {
                alike &= other == answer
            });
        }
    });
    alike
}

/// Whether the way that these facts describe, in order, leads over a place.
fn passes(program: &[Instruction], facts: &[Fact], place: usize) -> bool {
    let mut facts = facts.iter();
    let mut at = 0;
    while at != place {
        let i = program[at];
        at += match i.code {
            0x06 => return false,
            0x05 => 1 + i.k as usize,
            code if code & 0x07 == 0x05 => {
                let taken = facts.next().is_some_and(|fact| fact.holds);
                1 + usize::from(if taken { i.jt } else { i.jf })
            }
            _ => 1,
        };
    }
    true
}

/// What became of the mutants of a filter.
#[derive(Default)]
struct Toll {
    made: usize,
    /// The kernel would not take them.
    refused: usize,
    /// Shown to decide alike.
    alike: usize,
    /// No call tells them from the filter.
    left: Vec<String>,
}

fn toll(subject: &Subject) -> Toll {
    let trace = trace(subject);
    let mut toll = Toll::default();
    let mut mutant = subject.program.clone();
    for at in 0..mutant.len() {
        let original = mutant[at];
        for change in changes(original) {
            mutant[at] = change;
            toll.made += 1;
            if verify(&mutant).is_err() {
                toll.refused += 1;
                continue;
            }
            let differs = |index: &u32| {
                let (call, answer) = &trace.calls[*index as usize];
                run(&mutant, call, |_| {}) != *answer
            };
            let passing = &trace.through[at];
            let (first, rest) = passing.split_at(passing.len().min(FIRST));
            if first.iter().any(differs) {
                continue;
            }
            if decides_alike(&subject.program, &mutant, at) {
                toll.alike += 1;
            } else if !rest.iter().any(differs) {
                toll.left
                    .push(format!("{at}: {original:x?} as {change:x?}"));
            }
        }
        mutant[at] = original;
    }
    toll
}

#[test]
fn a_filter_with_one_wrong_instruction_is_noticed() {
    let (mut made, mut alive) = (0, Vec::new());
    let mut subjects = Subject::all(Denial::Errno);
    // Some rungs have the same filter.
    subjects.dedup_by(|a, b| a.program == b.program);
    for subject in subjects {
        let toll = toll(&subject);
        println!(
            "{}: {} mutants, {} refused by the kernel, {} alike, {} alive",
            subject.name(),
            toll.made,
            toll.refused,
            toll.alike,
            toll.left.len()
        );
        made += toll.made;
        alive.extend(toll.left.into_iter().map(|mutant| (subject.name(), mutant)));
    }
    println!("alive: {alive:#?}");
    assert!(
        alive.len() * MOST_ALIVE <= made,
        "{} of {made}",
        alive.len()
    );
}
