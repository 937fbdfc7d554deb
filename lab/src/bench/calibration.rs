//! How often a program has to go through its loop to take a certain time on this
//! machine. Never looks at what the loop does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::contenders::PYTHON;
use super::rows::LOOPS;
use xtask::process;

/// What the loop is to take in an interpreter that nothing is around.
const WANTED: Duration = Duration::from_millis(200);

/// Times a program with two million loops, and prints the best of five in nanoseconds:
/// others can make it slower only.
const PROGRAM: &str = "\
import sys, time
code = compile(sys.argv[1], 'main.py', 'exec')
times = []
for _ in range(5):
    started = time.perf_counter_ns()
    exec(code, {'print': lambda *_: None})
    times.append(time.perf_counter_ns() - started)
print(min(times))
";
const TRIED: u64 = 2_000_000;

/// Returns how often this program of Python has to go through its loop.
///
/// # Errors
/// When it fails, or takes no time.
pub(super) fn loops(code: &str) -> Result<u64> {
    let code = code.replace(LOOPS, &TRIED.to_string());
    let mut command = process::command(PYTHON);
    command.args(["-c", PROGRAM, &code]);
    let printed = process::capture("time a loop", &mut command)?;
    let nanos: u64 = printed
        .trim()
        .parse()
        .context("a loop's time is no number")?;
    ensure!(nanos > 0, "a loop took no time");
    Ok(for_time(Duration::from_nanos(nanos)))
}

/// Returns how many loops take the time wanted, when those tried took so long; in
/// thousands, and one thousand at least.
fn for_time(took: Duration) -> u64 {
    let loops = u128::from(TRIED) * WANTED.as_nanos() / took.as_nanos().max(1);
    u64::try_from(loops / 1000)
        .unwrap_or(u64::MAX / 1000)
        .max(1)
        * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_as_many_as_fit() {
        let check = |millis, expected| {
            assert_eq!(for_time(Duration::from_millis(millis)), expected);
        };
        check(200, 2_000_000);
        check(100, 4_000_000);
        check(130, 3_076_000);
        check(10_000_000, 1000);
    }

    #[test]
    fn a_loop_is_timed() {
        let loops = loops("for n in range(LOOPS): pass").expect("it runs");
        assert!((100_000..1_000_000_000).contains(&loops), "{loops}");
    }
}
