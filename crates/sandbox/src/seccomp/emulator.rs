//! A classic-BPF machine with the instructions that seccomp takes, for tests.
//!
//! Written from the kernel's documentation of BPF and of seccomp(2), and knows
//! nothing of how the filter is made. It refuses what the kernel refuses.

use super::Instruction;

/// A call as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

/// What happened at one instruction: its place, and for a conditional jump
/// whether it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) at: usize,
    pub(super) taken: Option<bool>,
}

/// Bytes of `struct seccomp_data`.
const DATA: usize = 64;
/// Most instructions that the kernel takes.
const MOST: usize = 4096;
/// Words of scratch memory.
const SCRATCH: u32 = 16;

impl Call {
    /// `struct seccomp_data` on a little-endian machine. Where the call was
    /// made from is no matter of the policy's: a pattern, so that it shows.
    fn data(&self) -> [u8; DATA] {
        let mut data = [0xa5; DATA];
        data[0..4].copy_from_slice(&self.number.to_le_bytes());
        data[4..8].copy_from_slice(&self.arch.to_le_bytes());
        for (to, arg) in data[16..].chunks_exact_mut(8).zip(self.args) {
            to.copy_from_slice(&arg.to_le_bytes());
        }
        data
    }
}

/// What the kernel looks at before it installs a filter.
pub(super) fn verify(program: &[Instruction]) -> Result<(), String> {
    if program.is_empty() || program.len() > MOST {
        return Err(format!("{} instructions", program.len()));
    }
    for (at, i) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        let within = |jump: usize| {
            (jump < left)
                .then_some(())
                .ok_or(format!("{at} jumps outside"))
        };
        match i.code {
            // Loads of the call's data, by word.
            0x20 if i.k % 4 == 0 && (i.k as usize) < DATA => {}
            0x20 => return Err(format!("{at} loads from {}", i.k)),
            // The data's length; immediates; scratch memory; the accumulator moved.
            0x80 | 0x81 | 0x00 | 0x01 | 0x07 | 0x87 => {}
            0x60 | 0x61 | 0x02 | 0x03 if i.k < SCRATCH => {}
            // Arithmetic with a constant and with the index register.
            0x34 | 0x94 if i.k == 0 => return Err(format!("{at} divides by zero")),
            0x64 | 0x74 if i.k >= 32 => return Err(format!("{at} shifts too far")),
            0x04 | 0x14 | 0x24 | 0x34 | 0x44 | 0x54 | 0x64 | 0x74 | 0x84 | 0xa4 => {}
            0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0xac => {}
            0x05 => within(i.k as usize)?,
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                within(i.jt.into())?;
                within(i.jf.into())?;
            }
            0x06 | 0x16 => {}
            code => return Err(format!("{at} is unknown: {code:#x}")),
        }
    }
    match program.last().map(|last| last.code) {
        Some(0x06 | 0x16) => Ok(()),
        _ => Err("it does not end".to_owned()),
    }
}

/// Runs a verified program on a call, telling of each step. Gives its answer.
pub(super) fn run(program: &[Instruction], call: &Call, mut step: impl FnMut(Step)) -> u32 {
    let data = call.data();
    let word = |k: u32| {
        let bytes = data[k as usize..][..4].try_into().unwrap();
        u32::from_le_bytes(bytes)
    };
    let (mut a, mut x, mut scratch) = (0u32, 0u32, [0u32; SCRATCH as usize]);
    let mut at = 0;
    loop {
        let i = program[at];
        let operand = if i.code & 0x08 == 0 { i.k } else { x };
        let mut taken = None;
        let mut next = at + 1;
        match i.code {
            0x20 => a = word(i.k),
            0x80 => a = u32::try_from(DATA).unwrap(),
            0x81 => x = u32::try_from(DATA).unwrap(),
            0x00 => a = i.k,
            0x01 => x = i.k,
            0x60 => a = scratch[i.k as usize],
            0x61 => x = scratch[i.k as usize],
            0x02 => scratch[i.k as usize] = a,
            0x03 => scratch[i.k as usize] = x,
            0x07 => x = a,
            0x87 => a = x,
            0x05 => next += i.k as usize,
            code if code & 0x07 == 0x05 => {
                let jumps = match code & 0xf0 {
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    0x40 => a & operand != 0,
                    other => panic!("no such comparison: {other:#x}"),
                };
                taken = Some(jumps);
                next += usize::from(if jumps { i.jt } else { i.jf });
            }
            code if code & 0x07 == 0x04 => match arithmetic(code & 0xf0, a, operand) {
                Some(result) => a = result,
                // What the kernel does on a division by zero.
                None => return 0,
            },
            0x06 | 0x16 => {
                step(Step { at, taken });
                return if i.code == 0x06 { i.k } else { a };
            }
            code => panic!("no such instruction: {code:#x}"),
        }
        step(Step { at, taken });
        at = next;
    }
}

fn arithmetic(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a.wrapping_shl(operand),
        0x70 => a.wrapping_shr(operand),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(operand)?,
        0xa0 => a ^ operand,
        other => panic!("no such operation: {other:#x}"),
    })
}

/// The machine itself, on programs whose answers are known.
#[test]
fn the_machine_computes_as_the_kernels() {
    let i = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let args = [0x1_0000_0007, 0, 0, 0, 0, 0xdead_beef_0000_0001];
    let call = Call {
        arch: 3,
        number: 40,
        args,
    };
    let check = |program: &[Instruction], expected: u32| {
        verify(program).unwrap();
        assert_eq!(run(program, &call, |_| {}), expected, "{program:?}");
    };
    let give = i(0x16, 0, 0, 0);
    check(&[i(0x20, 0, 0, 0), give], 40);
    check(&[i(0x20, 0, 0, 4), give], 3);
    check(&[i(0x20, 0, 0, 16), give], 7);
    check(&[i(0x20, 0, 0, 20), give], 1);
    check(&[i(0x20, 0, 0, 60), give], 0xdead_beef);
    check(&[i(0x20, 0, 0, 0), i(0x54, 0, 0, 8), give], 8);
    check(
        &[i(0x20, 0, 0, 0), i(0x07, 0, 0, 0), i(0x2c, 0, 0, 0), give],
        1600,
    );
    let ends = [i(0x06, 0, 0, 1), i(0x06, 0, 0, 2)];
    for (code, k, taken) in [
        (0x15, 40, true),
        (0x15, 41, false),
        (0x25, 40, false),
        (0x35, 40, true),
        (0x35, 41, false),
        (0x45, 8, true),
        (0x45, 7, false),
    ] {
        let program = [&[i(0x20, 0, 0, 0), i(code, 1, 0, k)], ends.as_slice()].concat();
        check(&program, if taken { 2 } else { 1 });
    }
    for refused in [
        &[i(0x20, 0, 0, 64), give][..],
        &[i(0x20, 0, 0, 2), give],
        &[i(0x05, 0, 0, 1), give],
        &[i(0x15, 1, 0, 0), give],
        &[i(0x20, 0, 0, 0)],
        &[i(0x28, 0, 0, 0), give],
        &[],
    ] {
        assert!(verify(refused).is_err(), "{refused:?}");
    }
}
