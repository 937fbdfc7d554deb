//! From how a process ended to a [`Status`]: pure, and from kernel facts alone.

use sandbox::How;

use crate::outcome::Status;

/// What the kernel and the engine's clock know of an ended stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// How the first process ended.
    pub(crate) how: How,
    /// The wall time ran out, and the kill was ours.
    pub(crate) timed_out: bool,
    /// The server is shutting down, and the kill was ours.
    pub(crate) cancelled: bool,
    /// A caller interrupted it.
    pub(crate) interrupted: bool,
    /// Processes of the box that were killed for want of memory.
    pub(crate) memory_kills: u64,
    /// Processes or threads that the box was refused.
    pub(crate) refused_processes: u64,
}

/// What is told of an ended stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How it ended.
    pub(crate) status: Status,
    /// Exit code in the shell's convention.
    pub(crate) exit_code: i32,
    /// The signal that ended the program, if one did.
    pub(crate) signal: Option<i32>,
    /// What the caller should know besides.
    pub(crate) warning: Option<String>,
}

/// Exit code of a run that took too long, as `timeout(1)` has it.
const TIMEOUT_CODE: i32 = 124;
/// Exit code of a run that was killed for want of memory: 128 + SIGKILL.
const MEMORY_CODE: i32 = 137;
/// Exit code of a cell that was interrupted: 128 + SIGINT.
const INTERRUPT_CODE: i32 = 130;

/// Judges how a stage ended.
///
/// Our own kill comes first, then the limits, then what the program did. A
/// limit counts only against a program that failed: one that got around it did
/// what was asked, and is told of it in a warning.
pub(crate) fn verdict(end: End) -> Verdict {
    let (code, signal) = match end.how {
        How::Exited(code) => (code, None),
        How::Signalled(signal) => (128 + signal, Some(signal)),
    };
    let success = end.how == How::Exited(0);
    let (status, exit_code) = if end.cancelled {
        (Status::Cancelled, code)
    } else if end.timed_out {
        (Status::Timeout, TIMEOUT_CODE)
    } else if end.interrupted && !success {
        (Status::Interrupted, INTERRUPT_CODE)
    } else if end.memory_kills > 0 && !success {
        (Status::MemoryLimit, MEMORY_CODE)
    } else if end.refused_processes > 0 && !success {
        (Status::ProcessLimit, code)
    } else if signal.is_some() {
        (Status::Signalled, code)
    } else if success {
        (Status::Success, 0)
    } else {
        (Status::Error, code)
    };
    Verdict {
        status,
        exit_code,
        signal,
        warning: warning(end, status),
    }
}

fn warning(end: End, status: Status) -> Option<String> {
    if end.memory_kills > 0 && status != Status::MemoryLimit {
        let count = end.memory_kills;
        return Some(format!(
            "{count} of the program's processes were killed for want of memory"
        ));
    }
    if end.refused_processes > 0 && status != Status::ProcessLimit {
        return Some(
            "the program was refused further processes or threads at its limit".to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use sandbox::How::{self, Exited as Code, Signalled as Signal};

    use super::{End, verdict};
    use crate::outcome::Status::{
        self, Cancelled, Error, Interrupted, MemoryLimit, ProcessLimit, Signalled, Success, Timeout,
    };

    /// Whether the end was our doing, and why: late, gone, interrupted.
    const NO: [bool; 3] = [false, false, false];
    const LATE: [bool; 3] = [true, false, false];
    const GONE: [bool; 3] = [false, true, false];
    const ASKED: [bool; 3] = [false, false, true];

    #[test]
    fn every_end_has_its_status() {
        // exit, why, memory kills, refused processes => status, exit code, warned
        check(Code(0), NO, 0, 0, Success, 0, false);
        check(Code(1), NO, 0, 0, Error, 1, false);
        check(Code(124), NO, 0, 0, Error, 124, false);
        check(Code(137), NO, 0, 0, Error, 137, false);
        check(Code(255), NO, 0, 0, Error, 255, false);
        check(Signal(2), NO, 0, 0, Signalled, 130, false);
        check(Signal(6), NO, 0, 0, Signalled, 134, false);
        check(Signal(9), NO, 0, 0, Signalled, 137, false);
        check(Signal(11), NO, 0, 0, Signalled, 139, false);

        check(Signal(9), LATE, 0, 0, Timeout, 124, false);
        check(Code(0), LATE, 0, 0, Timeout, 124, false);
        check(Signal(9), LATE, 1, 0, Timeout, 124, true);
        check(Signal(9), GONE, 0, 0, Cancelled, 137, false);
        check(Signal(9), [true, true, true], 0, 0, Cancelled, 137, false);

        check(Code(1), ASKED, 0, 0, Interrupted, 130, false);
        check(Signal(9), ASKED, 0, 0, Interrupted, 130, false);
        check(Code(0), ASKED, 0, 0, Success, 0, false);
        check(Code(1), [true, false, true], 0, 0, Timeout, 124, false);

        check(Signal(9), NO, 1, 0, MemoryLimit, 137, false);
        check(Code(1), NO, 1, 0, MemoryLimit, 137, false);
        check(Signal(6), NO, 1, 0, MemoryLimit, 137, false);
        check(Code(0), NO, 2, 0, Success, 0, true);
        check(Code(1), NO, 1, 1, MemoryLimit, 137, true);

        check(Code(1), NO, 0, 5, ProcessLimit, 1, false);
        check(Signal(6), NO, 0, 5, ProcessLimit, 134, false);
        check(Code(0), NO, 0, 5, Success, 0, true);
        check(Signal(9), LATE, 0, 5, Timeout, 124, true);
    }

    fn check(
        how: How,
        [timed_out, cancelled, interrupted]: [bool; 3],
        memory_kills: u64,
        refused_processes: u64,
        status: Status,
        exit_code: i32,
        warns: bool,
    ) {
        let end = End {
            how,
            timed_out,
            cancelled,
            interrupted,
            memory_kills,
            refused_processes,
        };
        let told = verdict(end);
        assert_eq!(
            (told.status, told.exit_code),
            (status, exit_code),
            "{end:?}"
        );
        assert_eq!(told.warning.is_some(), warns, "{end:?}");
        let signal = match how {
            Code(_) => None,
            Signal(signal) => Some(signal),
        };
        assert_eq!(told.signal, signal);
    }
}
