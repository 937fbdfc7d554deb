//! The time in which a caller must be answered, and how queue, files and
//! program share it. Pure arithmetic; waits for nothing itself.

use std::time::Duration;

use engine::{Bounds, Draft};
use tokio::time::Instant;

/// Time kept for making a box, collecting files and writing the answer.
const RESERVE: Duration = Duration::from_secs(2);

/// The shortest wall time that a program gets, however late its request came.
const LEAST: Duration = Duration::from_secs(1);

/// Time kept for the program, however slow the hosts of its files are: this,
/// or half of all where that is less.
const AFTER_FETCH: Duration = Duration::from_secs(12);

/// When an answer is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The moment.
    pub(crate) at: Instant,
    /// The time that there was in all.
    pub(crate) limit: Duration,
    /// Whose limit it is, in a sentence, such as `a ChatGPT Action`.
    pub(crate) whose: &'static str,
}

impl Deadline {
    /// Returns the moment by which all files must have been fetched.
    pub(super) fn last_fetch(&self) -> Instant {
        let after = AFTER_FETCH.min(self.limit / 2);
        self.at.checked_sub(after).unwrap_or(self.at)
    }

    /// Fits a draft into the time that is `left`: its program gets no more,
    /// and it waits for a place no longer than the rest. A draft that asks for
    /// more than the server allows is left to be refused. Returns a warning
    /// when the program gets less than was asked for.
    pub(super) fn fit(&self, draft: &mut Draft, bounds: &Bounds, left: Duration) -> Option<String> {
        let asked = draft.wall_time.unwrap_or(bounds.wall_time);
        if asked > bounds.wall_time_max {
            return None;
        }
        let left = left.saturating_sub(RESERVE);
        let given = asked.min(left.max(LEAST));
        draft.wall_time = Some(given);
        draft.queue_wait = Some(left.saturating_sub(given));
        (given < asked).then(|| {
            format!(
                "`timeout` was lowered from {:.1} s to {:.1} s, since {} must be answered within {} s",
                asked.as_secs_f64(),
                given.as_secs_f64(),
                self.whose,
                self.limit.as_secs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(limit: u64) -> Deadline {
        let limit = Duration::from_secs(limit);
        Deadline {
            at: Instant::now() + limit,
            limit,
            whose: "a ChatGPT Action",
        }
    }

    #[test]
    fn the_time_is_shared_between_queue_and_program() {
        let bounds = Bounds {
            wall_time: Duration::from_secs(10),
            wall_time_max: Duration::from_secs(60),
            ..Bounds::default()
        };
        let check = |asked: Option<u64>, left: u64, given: Option<u64>, wait: Option<u64>| {
            let mut draft = Draft {
                wall_time: asked.map(Duration::from_secs),
                ..Draft::default()
            };
            let warning = deadline(40).fit(&mut draft, &bounds, Duration::from_secs(left));
            assert_eq!(draft.wall_time, given.map(Duration::from_secs), "{asked:?}");
            assert_eq!(draft.queue_wait, wait.map(Duration::from_secs), "{asked:?}");
            let lowered = given < asked.or(Some(10));
            assert_eq!(warning.is_some(), lowered, "{warning:?}");
        };
        check(None, 40, Some(10), Some(28));
        check(Some(30), 40, Some(30), Some(8));
        check(Some(38), 40, Some(38), Some(0));
        check(Some(60), 40, Some(38), Some(0));
        check(Some(10), 1, Some(1), Some(0));
        // The engine says what is wrong with it.
        check(Some(61), 40, Some(61), None);
    }

    #[test]
    fn a_slow_host_of_files_leaves_time_for_the_program() {
        for (limit, left) in [(40, 28), (24, 12), (4, 2)] {
            let deadline = deadline(limit);
            let begun = deadline.at - deadline.limit;
            let fetching = deadline.last_fetch() - begun;
            assert_eq!(fetching, Duration::from_secs(left), "{limit}");
        }
    }
}
