//! How a stage ended, put together from what init, the warden and the clock
//! say. Pure but for the captures: never waits.

use std::time::Duration;

use sandbox::How;

use crate::captures::Captures;
use crate::outcome::{StageOutcome, Usage};
use crate::verdict::{End, verdict};

/// Why a program did not get to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its wall time was up.
    Late,
    /// The server is shutting down.
    Cancelled,
    /// The kernel killed init with it, for want of memory, or it found a way to.
    Died,
}

/// The last that was seen of a program.
#[derive(Debug, Clone, Copy)]
pub(super) enum Last {
    /// It ended; what init saw of it.
    Exited(sandbox::Exit),
    /// Its box is dead.
    Killed {
        cut: Cut,
        /// From its start to its end.
        wall_time: Duration,
    },
}

/// How a stage ended.
#[derive(Debug)]
pub(super) struct Ended {
    captures: Captures,
    last: Last,
    /// What this stage used of it, as far as a cgroup counted.
    own: sandbox::Usage,
    /// Whether there is a cgroup that counts.
    measured: bool,
    /// The box's account up to here, for the next stage to subtract.
    pub(super) account: sandbox::Usage,
}

impl Ended {
    pub(super) fn new(
        captures: Captures,
        last: Last,
        account: sandbox::Usage,
        before: sandbox::Usage,
        measured: bool,
    ) -> Self {
        Self {
            captures,
            last,
            own: since(account, before),
            measured,
            account,
        }
    }

    /// What is told of the stage, and what the caller should know besides.
    pub(super) fn outcome(&self, name: String) -> (StageOutcome, Option<String>) {
        let (how, cut, over_memory) = match self.last {
            Last::Exited(exit) => (exit.how, None, exit.over_memory),
            Last::Killed { cut, .. } => (How::Signalled(9), Some(cut), false),
        };
        let memory_kills = self.own.oom_kills + u64::from(over_memory);
        let verdict = verdict(End {
            how,
            timed_out: cut == Some(Cut::Late),
            cancelled: cut == Some(Cut::Cancelled),
            interrupted: false,
            memory_kills,
            refused_processes: self.own.forks_refused,
        });
        let died = cut == Some(Cut::Died) && memory_kills == 0;
        let over_disk = matches!(self.last, Last::Exited(exit) if exit.over_disk);
        let said = match (died, over_disk) {
            (true, _) => Some("the box's init was killed with the program"),
            (_, true) => Some(
                "the program was killed: it wrote more than its workspace holds, or closed a directory so that nobody can count what is in it",
            ),
            _ => None,
        };
        let warning = verdict.warning.or_else(|| said.map(str::to_owned));
        let [stdout, stderr] = self.captures.finish();
        let outcome = StageOutcome {
            name,
            status: verdict.status,
            exit_code: verdict.exit_code,
            signal: verdict.signal,
            stdout,
            stderr,
            usage: self.usage(),
        };
        (outcome, warning)
    }

    fn usage(&self) -> Usage {
        let (wall_time, cpu_time, seen) = match self.last {
            Last::Exited(exit) => (exit.wall_time, Some(exit.cpu_time), exit.memory_peak),
            // Init, which would have counted without a cgroup, died too.
            Last::Killed { wall_time, .. } => {
                (wall_time, self.measured.then_some(self.own.cpu_time), 0)
            }
        };
        let peak = self.own.memory_peak.max(seen);
        Usage {
            wall_time,
            cpu_time,
            memory_peak: (peak > 0).then_some(peak),
        }
    }
}

/// What was used between two accounts of one box. The peak is the box's.
pub(crate) fn since(now: sandbox::Usage, before: sandbox::Usage) -> sandbox::Usage {
    sandbox::Usage {
        cpu_time: now.cpu_time.saturating_sub(before.cpu_time),
        memory_peak: now.memory_peak,
        oom_kills: now.oom_kills.saturating_sub(before.oom_kills),
        forks_refused: now.forks_refused.saturating_sub(before.forks_refused),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sandbox::{Exit, How};

    use super::{Cut, Ended, Last, since};
    use crate::captures::Captures;
    use crate::outcome::Status;
    use crate::pace::Pace;

    fn account(cpu_millis: u64, oom_kills: u64) -> sandbox::Usage {
        sandbox::Usage {
            cpu_time: Duration::from_millis(cpu_millis),
            memory_peak: 7,
            oom_kills,
            forks_refused: 0,
        }
    }

    fn ended(last: Last, oom_kills: u64, measured: bool) -> Ended {
        let (now, before) = (account(30, 1 + oom_kills), account(10, 1));
        let captures = Captures::new(10, None, Pace::new(1));
        Ended::new(captures, last, now, before, measured)
    }

    #[test]
    fn a_stage_is_told_what_it_used_itself() {
        assert_eq!(since(account(30, 3), account(10, 1)), account(20, 2));
        // A box that died leaves no account.
        let nothing = sandbox::Usage::default();
        assert_eq!(since(nothing, account(10, 1)), nothing);
    }

    #[test]
    fn what_nothing_measured_is_not_told() {
        let killed = Last::Killed {
            cut: Cut::Late,
            wall_time: Duration::from_secs(1),
        };
        let exited = Last::Exited(Exit {
            how: How::Exited(0),
            wall_time: Duration::from_secs(1),
            cpu_time: Duration::from_millis(5),
            memory_peak: 0,
            over_memory: false,
            over_disk: false,
        });
        let check = |last, measured, expected: Option<u64>| {
            let (outcome, _) = ended(last, 0, measured).outcome("run".to_owned());
            let expected = expected.map(Duration::from_millis);
            assert_eq!(outcome.usage.cpu_time, expected, "{last:?}");
        };
        check(killed, true, Some(20));
        check(killed, false, None);
        check(exited, true, Some(5));
        check(exited, false, Some(5));
    }

    #[test]
    fn a_program_that_wrote_too_much_is_told_so() {
        let exit = |over_disk| Exit {
            how: How::Signalled(9),
            wall_time: Duration::ZERO,
            cpu_time: Duration::ZERO,
            memory_peak: 0,
            over_memory: false,
            over_disk,
        };
        let check = |over_disk, warns: bool| {
            let ended = ended(Last::Exited(exit(over_disk)), 0, false);
            let (outcome, warning) = ended.outcome("run".to_owned());
            assert_eq!(outcome.status, Status::Signalled);
            assert_eq!(
                warning.is_some_and(|text| text.contains("workspace")),
                warns
            );
        };
        check(true, true);
        check(false, false);
    }

    #[test]
    fn every_cut_has_its_status_and_warning() {
        let check = |cut, oom_kills, status, code, warns: bool| {
            let wall_time = Duration::ZERO;
            let ended = ended(Last::Killed { cut, wall_time }, oom_kills, true);
            let (outcome, warning) = ended.outcome("run".to_owned());
            assert_eq!((outcome.status, outcome.exit_code), (status, code));
            assert_eq!(warning.is_some(), warns, "{cut:?} {warning:?}");
        };
        check(Cut::Late, 0, Status::Timeout, 124, false);
        check(Cut::Late, 1, Status::Timeout, 124, true);
        check(Cut::Cancelled, 0, Status::Cancelled, 137, false);
        check(Cut::Died, 1, Status::MemoryLimit, 137, false);
        check(Cut::Died, 0, Status::Signalled, 137, true);
    }
}
