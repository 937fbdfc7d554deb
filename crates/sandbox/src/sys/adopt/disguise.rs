//! What the kernel shows of a forked program's command line and environment.
//!
//! They are the zygote's, until this has moved them to the program's own. A program that
//! keeps the zygote's is none the less sound: nothing here is needed to confine it.

use super::steps::call;

const SYS_READ: usize = 0;
const SYS_OPEN: usize = 2;
const SYS_CLOSE: usize = 3;
const SYS_BRK: usize = 12;
const SYS_PRCTL: usize = 157;
const PR_SET_MM: usize = 35;
const PR_SET_MM_MAP: usize = 14;
const O_CLOEXEC: usize = 0o2_000_000;

/// The numbers of `/proc/self/stat` that are passed on, as proc(5) counts them.
const START_CODE: usize = 26;
const END_CODE: usize = 27;
const START_STACK: usize = 28;
const START_DATA: usize = 45;
const END_DATA: usize = 46;
const START_BRK: usize = 47;

/// The kernel's `struct prctl_mm_map`.
#[repr(C)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    /// Of the auxiliary vector, which is left as it is.
    auxv: u64,
    auxv_size: u32,
    /// All ones for none.
    exe_fd: u32,
}

/// Shows the command of `message`, which must stay where it is as long as the process
/// lives: how many words it has, in decimal digits, then these, then the environment,
/// each with a zero at its end. `line` is the command line that the process was started
/// with, and its length.
pub(super) fn disguise(message: &[u8], line: (*mut u8, usize)) {
    let Some((words, env)) = halves(message) else {
        return;
    };
    if shown(words, env).is_none() && words.len() == line.1 && !line.0.is_null() {
        // The kernel shows the zygote's own bytes then. They are replaced where the new line
        // is as long, as it is for a program without arguments.
        // SAFETY: the interpreter said where its own command line is, and how long.
        unsafe { core::ptr::copy_nonoverlapping(words.as_ptr(), line.0, words.len()) };
    }
}

/// Returns the words of the command, and the environment.
fn halves(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = message.iter().position(|byte| *byte == 0)?;
    let count = number(&message[..end])?;
    let rest = &message[end + 1..];
    let mut ends = rest.iter().enumerate().filter(|(_, byte)| **byte == 0);
    let at = match count {
        0 => 0,
        _ => ends.nth(count as usize - 1)?.0 + 1,
    };
    Some(rest.split_at(at))
}

fn number(digits: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value = value.checked_mul(10)?.checked_add(digit.into())?;
    }
    Some(value)
}

/// Has the kernel show these words and this environment. `None` where that failed.
fn shown(words: &[u8], env: &[u8]) -> Option<()> {
    let mut text = [0u8; 1024];
    let length = read_stat(&mut text)?;
    // After the name, which may hold anything, in parentheses.
    let after = text[..length].iter().rposition(|byte| *byte == b')')?;
    let fields = || text[after + 1..length].split(|byte| matches!(byte, b' ' | b'\n'));
    // The text begins with a space, so the second piece is the third number of all.
    let field = |wanted: usize| fields().nth(wanted - 2).and_then(number);
    let (args, vars) = (words.as_ptr_range(), env.as_ptr_range());
    let map = Map {
        start_code: field(START_CODE)?,
        end_code: field(END_CODE)?,
        start_data: field(START_DATA)?,
        end_data: field(END_DATA)?,
        start_brk: field(START_BRK)?,
        // SAFETY: takes a number; 0 changes nothing.
        brk: unsafe { call(SYS_BRK, [0; 6]) }.ok()? as u64,
        start_stack: field(START_STACK)?,
        arg_start: args.start as u64,
        arg_end: args.end as u64,
        env_start: vars.start as u64,
        env_end: vars.end as u64,
        auxv: 0,
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    let place = &raw const map as usize;
    let args = [PR_SET_MM, PR_SET_MM_MAP, place, size_of::<Map>(), 0, 0];
    // SAFETY: the kernel reads the map.
    unsafe { call(SYS_PRCTL, args) }.ok().map(|_| ())
}

fn read_stat(into: &mut [u8]) -> Option<usize> {
    let path = c"/proc/self/stat".as_ptr() as usize;
    // SAFETY: the kernel reads the path.
    let fd = unsafe { call(SYS_OPEN, [path, O_CLOEXEC, 0, 0, 0, 0]) }.ok()?;
    let args = [fd, into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
    // SAFETY: the kernel writes as much as there is room.
    let read = unsafe { call(SYS_READ, args) };
    // SAFETY: takes a number.
    let _ = unsafe { call(SYS_CLOSE, [fd, 0, 0, 0, 0, 0]) };
    read.ok()
}
