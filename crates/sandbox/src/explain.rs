//! Which calls of a box were denied, told to whoever asked for it when the box
//! was made. Other boxes know nothing of this.
//!
//! Init holds the listener of its own filter: it is in the box's cgroup, so a
//! flood of denied calls is paid for by the box; no program can signal or read
//! it; and with it the whole box ends. Whatever is asked gets the errno that
//! the kernel would have given, and nothing is ever let through. Only the
//! call's number is looked at, never what its arguments point to.
//!
//! The counts are in a memory file of fixed size that the server reads, so they
//! survive a box that is killed. Init itself must make no call that it denies:
//! it would wait for its own answer until its box is killed.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::SealFlags;
use rustix::time::Timespec;

use crate::error::{At, Error, Step};
use crate::seccomp::{self, Filter, Refusal, SLOTS};
use crate::support::Isolation;
use crate::sys;

/// Where the count of one entry ends.
const MOST: u32 = 1_000_000;
/// Calls answered before init looks at anything else.
const BATCH: usize = 64;
/// A poll that does not wait.
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

// The memory file: words, little-endian. First whether there is a listener
// (else the errno), and whether there is a filter around ours; then count and
// errno of each entry.
const WORD: usize = size_of::<u32>();
const HEAD: usize = 2;
const LENGTH: usize = (HEAD + 2 * SLOTS) * WORD;

/// Init's half: answers and counts.
#[derive(Debug)]
pub(crate) struct Tally {
    memory: OwnedFd,
    listener: OnceCell<OwnedFd>,
    counts: RefCell<Vec<u32>>,
}

impl Tally {
    /// Makes the memory file. To be called before the filter is there.
    ///
    /// # Errors
    /// [`Step::Explain`].
    pub(crate) fn new() -> Result<Self, Error> {
        let memory = sys::fixed_memory(c"denied", LENGTH as u64).at(Step::Explain)?;
        let tally = Self {
            memory,
            listener: OnceCell::new(),
            counts: RefCell::new(vec![0; SLOTS]),
        };
        let around = u32::from(sys::is_filtered());
        tally.put(1, &[around]).at(Step::Explain)?;
        Ok(tally)
    }

    /// What the server reads.
    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Installs the rung's filter so that it asks, or the usual one where nobody
    /// can be asked, which the server is told.
    ///
    /// # Errors
    /// When no filter could be installed.
    pub(crate) fn install(&self, usual: &Filter, at: Isolation) -> io::Result<()> {
        match Filter::asking(at).listen() {
            Ok(listener) => {
                self.listener.get_or_init(|| listener);
                Ok(())
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.put(0, &[errno.unsigned_abs()])?;
                usual.install()
            }
        }
    }

    /// Readable when a call waits for its answer.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.get().map(OwnedFd::as_fd)
    }

    /// Answers calls that wait, some of them at most.
    ///
    /// # Errors
    /// Whatever the kernel says; the box must then end.
    pub(crate) fn answer(&self) -> io::Result<()> {
        let Some(listener) = self.listener() else {
            return Ok(());
        };
        for _ in 0..BATCH {
            let mut fds = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&NOW)))?;
            if !fds[0].revents().contains(PollFlags::IN) {
                return Ok(());
            }
            let Some(asked) = sys::next_call(listener)? else {
                continue;
            };
            let refusal = Refusal::of(asked.arch, asked.number);
            // Counted first: what goes on afterwards finds it there.
            self.count(refusal)?;
            sys::refuse(listener, &asked, refusal.errno)?;
        }
        Ok(())
    }

    fn count(&self, refusal: Refusal) -> io::Result<()> {
        let mut counts = self.counts.borrow_mut();
        let count = &mut counts[refusal.slot];
        if *count < MOST {
            *count += 1;
            let entry = [*count, refusal.errno.unsigned_abs()];
            self.put(HEAD + 2 * refusal.slot, &entry)?;
        }
        Ok(())
    }

    fn put(&self, word: usize, words: &[u32]) -> io::Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let written = rustix::io::pwrite(&self.memory, &bytes, (word * WORD) as u64)?;
        if written == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

/// A system call that a box was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedCall {
    /// Its name; `unknown` for numbers that the policy does not know, `foreign`
    /// for calls of another architecture.
    pub name: &'static str,
    /// How often, up to a million.
    pub count: u32,
    /// What it failed with: `EPERM` or `ENOSYS`.
    pub errno: &'static str,
    /// Why the policy denies it, or allows it for some arguments only.
    pub reason: &'static str,
}

/// What a box was denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denials {
    /// One entry a call, by number: never more than the policy has, and two.
    pub calls: Vec<DeniedCall>,
    /// What keeps the list from being complete.
    pub gap: Option<String>,
}

/// The server's half: reads what was counted, also when the box is dead.
#[derive(Debug)]
pub struct Explanation {
    memory: OwnedFd,
}

impl Explanation {
    /// From what init sent, which is looked at first: to read anything else
    /// than memory of fixed size might wait for ever.
    pub(crate) fn of(memory: OwnedFd) -> Result<Self, Error> {
        let fixed = SealFlags::SHRINK | SealFlags::GROW;
        let seals = rustix::fs::fcntl_get_seals(&memory).at(Step::Explain)?;
        let size = rustix::fs::fstat(&memory).at(Step::Explain)?.st_size;
        if !seals.contains(fixed) || usize::try_from(size) != Ok(LENGTH) {
            return Err(Error::new(Step::Explain, io::ErrorKind::InvalidData));
        }
        Ok(Self { memory })
    }

    /// What was denied up to now.
    ///
    /// # Errors
    /// [`Step::Explain`].
    pub fn denials(&self) -> Result<Denials, Error> {
        let mut bytes = vec![0; LENGTH];
        let got = rustix::io::pread(&self.memory, &mut *bytes, 0).at(Step::Explain)?;
        if got != LENGTH {
            return Err(Error::new(Step::Explain, io::ErrorKind::UnexpectedEof));
        }
        Ok(decode(&bytes))
    }
}

/// Any bytes are counts of something: there is nothing to refuse.
fn decode(bytes: &[u8]) -> Denials {
    let mut words = bytes.chunks_exact(WORD).map(|word| {
        word.iter()
            .rev()
            .fold(0u32, |all, byte| all << 8 | u32::from(*byte))
    });
    let (failed, around) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
    let mut calls = Vec::new();
    for slot in 0..SLOTS {
        let (count, errno) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        if let (1.., Some((name, reason))) = (count, seccomp::about(slot)) {
            calls.push(DeniedCall {
                name,
                count: count.min(MOST),
                errno: if errno == libc::ENOSYS.unsigned_abs() {
                    "ENOSYS"
                } else {
                    "EPERM"
                },
                reason,
            });
        }
    }
    Denials {
        calls,
        gap: gap(failed, around),
    }
}

fn gap(failed: u32, around: u32) -> Option<String> {
    if failed != 0 {
        let errno = i32::try_from(failed).unwrap_or(libc::EIO);
        let error = io::Error::from_raw_os_error(errno);
        let because = match errno {
            libc::EBUSY => {
                "the container around the server listens to its calls already, and the kernel allows one listener"
            }
            libc::EINVAL => "this needs Linux 5.0",
            _ => "the kernel refused a listener",
        };
        return Some(format!(
            "denied calls could not be listened to here: {because} ({error})"
        ));
    }
    (around != 0).then(|| {
        "a filter around the server, such as a container's, answers first: calls that it denies are not among denied_calls".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(head: [u32; 2], entries: &[(usize, [u32; 2])]) -> Vec<u8> {
        let mut words = vec![0u32; LENGTH / WORD];
        words[..2].copy_from_slice(&head);
        for (slot, entry) in entries {
            words[HEAD + 2 * slot..][..2].copy_from_slice(entry);
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn counts_are_read_as_they_were_written() {
        let tally = Tally::new().unwrap();
        let ptrace = Refusal::of(0, 0);
        assert_eq!((ptrace.slot, ptrace.errno), (SLOTS - 1, libc::ENOSYS));
        for _ in 0..3 {
            tally.count(ptrace).unwrap();
        }
        let slot = (0..SLOTS)
            .find(|slot| seccomp::about(*slot).unwrap().0 == "bpf")
            .unwrap();
        let errno = libc::EPERM;
        tally.counts.borrow_mut()[slot] = MOST - 1;
        tally.count(Refusal { slot, errno }).unwrap();
        tally.count(Refusal { slot, errno }).unwrap();
        let memory = tally.memory().try_clone_to_owned().unwrap();
        let denials = Explanation::of(memory).unwrap().denials().unwrap();
        let told: Vec<_> = denials
            .calls
            .iter()
            .map(|call| (call.name, call.count, call.errno))
            .collect();
        assert_eq!(told, [("bpf", MOST, "EPERM"), ("foreign", 3, "ENOSYS")]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let check = |head, expected: Option<&str>| {
            let gap = decode(&words(head, &[])).gap;
            assert_eq!(gap.is_some(), expected.is_some(), "{gap:?}");
            assert!(gap.unwrap_or_default().contains(expected.unwrap_or("")));
        };
        check([0, 0], None);
        check([0, 1], Some("container"));
        check([libc::EBUSY.unsigned_abs(), 1], Some("one listener"));
        check([libc::EINVAL.unsigned_abs(), 0], Some("5.0"));
        check([u32::MAX, 0], Some("refused"));
    }

    #[test]
    fn only_sealed_memory_is_read() {
        let (pipe, _write) = rustix::pipe::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(LENGTH as u64).unwrap();
        let other = sys::fixed_memory(c"other", 8).unwrap();
        for fd in [pipe, file.into(), other] {
            assert!(Explanation::of(fd).is_err());
        }
    }

    #[test]
    fn every_entry_has_a_name_and_a_reason_of_its_own() {
        for slot in 0..SLOTS {
            let (name, reason) = seccomp::about(slot).unwrap();
            assert!(!name.is_empty());
            for vague in ["as above", "the same", "as memfd"] {
                assert!(!reason.starts_with(vague), "{name}: {reason}");
            }
        }
        assert_eq!(seccomp::about(SLOTS), None);
    }

    proptest! {
        #[test]
        fn any_memory_is_a_bounded_list(bytes in prop::collection::vec(any::<u8>(), 0..LENGTH + 8)) {
            let denials = decode(&bytes);
            prop_assert!(denials.calls.len() <= SLOTS);
            prop_assert!(denials.calls.iter().all(|call| (1..=MOST).contains(&call.count)));
        }
    }
}
