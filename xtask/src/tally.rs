//! Counts what passed and failed, whatever ran it, for one closing line.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The steps of a run and what they counted.
#[derive(Debug)]
pub struct Tally {
    passed: u32,
    failed: u32,
    failures: Vec<String>,
    left_out: Vec<String>,
    times: Vec<(String, Duration)>,
    started: Instant,
}

/// Numbers of checks: what a test runner said of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Checks that held.
    pub passed: u32,
    /// Checks that did not.
    pub failed: u32,
    /// Checks that were not made.
    pub skipped: u32,
}

impl Counts {
    /// Returns the line that ends a run: `3 passed, 0 failed`.
    pub fn closing_line(self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }

    /// Reads such a line; nothing else is one.
    pub fn of_closing_line(line: &str) -> Option<Self> {
        let (passed, failed) = line.split_once(" passed, ")?;
        Some(Self {
            passed: passed.parse().ok()?,
            failed: failed.strip_suffix(" failed")?.parse().ok()?,
            skipped: 0,
        })
    }
}

impl Tally {
    /// Begins a run: its time counts from here.
    #[expect(clippy::new_without_default, reason = "the time of its making counts")]
    pub fn new() -> Self {
        Self {
            passed: 0,
            failed: 0,
            failures: Vec::new(),
            left_out: Vec::new(),
            times: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Says of a check that it is not made here, and why; told again at the
    /// end, where nobody overlooks it.
    pub fn leave_out(&mut self, name: &str, reason: &str) {
        self.left_out.push(format!("{name}: {reason}"));
    }

    /// Runs one step that counts as one check; a failure is kept, not fatal.
    pub fn step(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        self.counted(name, || {
            check()?;
            Ok(Counts {
                passed: 1,
                ..Counts::default()
            })
        });
    }

    /// Runs one step that counts its own checks; a failure is kept, not fatal.
    pub fn counted(&mut self, name: &str, check: impl FnOnce() -> Result<Counts>) {
        println!("\n== {}. {name}", self.times.len() + 1);
        let (started, failures) = (Instant::now(), self.failures.len());
        match check() {
            Ok(counts) => self.add(name, counts),
            Err(error) => {
                self.failed += 1;
                self.failures.push(format!("{name}: {error:#}"));
            }
        }
        let time = started.elapsed();
        match self.failures.get(failures) {
            Some(failure) => println!("-- FAILED after {:.1} s: {failure}", time.as_secs_f64()),
            None => println!("-- good after {:.1} s", time.as_secs_f64()),
        }
        self.times.push((name.to_owned(), time));
    }

    fn add(&mut self, name: &str, counts: Counts) {
        self.passed += counts.passed;
        // A skipped test proves nothing, so it counts against the run.
        let failed = counts.failed + counts.skipped;
        self.failed += failed;
        if failed > 0 {
            self.failures.push(format!(
                "{name}: {} failed, {} skipped",
                counts.failed, counts.skipped
            ));
        } else if counts.passed == 0 {
            self.failed += 1;
            self.failures.push(format!("{name}: ran no test"));
        }
    }

    /// Prints times, failures and, alone on the last line, the sums. Whether
    /// all went well.
    pub fn finish(self) -> bool {
        println!("\n== times");
        for (name, time) in &self.times {
            println!("{:>7.1} s  {name}", time.as_secs_f64());
        }
        println!("{:>7.1} s  in all", self.started.elapsed().as_secs_f64());
        for left_out in &self.left_out {
            println!("NOT RUN {left_out}");
        }
        for failure in &self.failures {
            println!("FAILED  {failure}");
        }
        println!("\n{}", self.closing_line());
        self.failed == 0
    }

    fn closing_line(&self) -> String {
        let (passed, failed) = (self.passed, self.failed);
        let counts = Counts {
            passed,
            failed,
            skipped: 0,
        };
        counts.closing_line()
    }
}

/// Reads the closing line of nextest, or adds up those of cargo's own runner.
pub fn runner_counts(output: &str) -> Counts {
    let summary = output
        .lines()
        .rfind(|line| line.trim_start().starts_with("Summary [") && line.contains(" run:"));
    if let Some(line) = summary {
        // What failing tests printed holds lines of the other kind.
        return line_counts(line);
    }
    output
        .lines()
        .filter(|line| line.trim_start().starts_with("test result:"))
        .map(line_counts)
        .fold(Counts::default(), |sum, one| Counts {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
            skipped: sum.skipped + one.skipped,
        })
}

/// Reads the last line of cargo's own kind: a binary that runs itself again shows
/// the lines of those runs, too.
pub fn last_counts(output: &str) -> Counts {
    let mut lines = output.lines();
    let last = lines.rfind(|line| line.trim_start().starts_with("test result:"));
    last.map(line_counts).unwrap_or_default()
}

fn line_counts(line: &str) -> Counts {
    Counts {
        passed: number_before(line, "passed"),
        failed: number_before(line, "failed") + number_before(line, "timed out"),
        skipped: number_before(line, "skipped") + number_before(line, "ignored"),
    }
}

/// The number right before `word`; 0 when there is none.
fn number_before(line: &str, word: &str) -> u32 {
    line.match_indices(word)
        .find_map(|(at, _)| {
            line[..at]
                .trim_end()
                .rsplit([' ', '('])
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u32, failed: u32, skipped: u32) -> Counts {
        Counts {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn closing_lines_of_both_runners_are_read() {
        let check = |output: &str, expected: Counts| assert_eq!(runner_counts(output), expected);
        check(
            "     Summary [   1.234s] 12 tests run: 12 passed, 0 skipped",
            counts(12, 0, 0),
        );
        check(
            "     Summary [  61.0s] 12/14 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 3 skipped",
            counts(9, 3, 3),
        );
        check(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            counts(4, 2, 1),
        );
        check(
            "test result: FAILED. 0 passed; 1 failed; 0 ignored\n Summary [ 1s] 2 tests run: 1 passed, 1 failed, 0 skipped",
            counts(1, 1, 0),
        );
        check("12 passed in a program's own output", counts(0, 0, 0));
    }

    #[test]
    fn closing_lines_are_read_back() {
        let check = |line: &str, expected| assert_eq!(Counts::of_closing_line(line), expected);
        check(&counts(12, 3, 0).closing_line(), Some(counts(12, 3, 0)));
        check("12 passed", None);
        check("12 passed, 3 failed, 1 skipped", None);
        check("all passed, 3 failed", None);
        check("", None);
    }

    #[test]
    fn the_last_line_counts_for_a_binary_that_runs_itself() {
        let output = "test result: ok. 9 passed; 0 failed; 0 ignored\ntest a ... ok\n\
            test result: FAILED. 3 passed; 1 failed; 0 ignored\n";
        assert_eq!(last_counts(output), counts(3, 1, 0));
        assert_eq!(last_counts("no result"), Counts::default());
    }

    #[test]
    fn a_failing_step_fails_the_run() {
        let mut tally = Tally::new();
        tally.step("good", || Ok(()));
        tally.step("bad", || anyhow::bail!("no"));
        assert_eq!(tally.closing_line(), "1 passed, 1 failed");
        assert!(!tally.finish());
    }

    #[test]
    fn a_good_run_is_good_with_something_left_out() {
        let mut tally = Tally::new();
        tally.step("good", || Ok(()));
        tally.leave_out("another", "its tool is not here");
        assert!(tally.finish());
    }

    #[test]
    fn skipped_tests_and_empty_runs_fail_the_run() {
        let check = |given: Counts, expected: &str| {
            let mut tally = Tally::new();
            tally.counted("tests", || Ok(given));
            assert_eq!(tally.closing_line(), expected);
        };
        check(counts(5, 0, 0), "5 passed, 0 failed");
        check(counts(5, 0, 2), "5 passed, 2 failed");
        check(counts(0, 0, 0), "0 passed, 1 failed");
    }
}
