//! Calls of a program that its init decides, where the kernel has no limit and
//! no rule of its own that fits.
//!
//! The kernel counts processes by uid, and here the uid is the server's: so each
//! fork is allowed by init, which counts its descendants. The kernel lets
//! whoever owns a file change its mode and times, and here the server owns it:
//! so init changes them for the program, below the box's own directories alone.
//! What a program points to is read once, and what is done is done to a
//! descriptor of init's; nothing that a program can change meanwhile matters.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timestamps};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::descent;
use crate::explain::{self, BATCH, Tally};
use crate::limits::Limits;
use crate::omit::{Omit, omitted};
use crate::seccomp::Refusal;
use crate::sys::{self, Call, Verdict};
use crate::uids::Room;

/// Between two counts while a program stands at its limit: who asks waits as
/// long, which also takes the speed from a fork bomb.
const PAUSE: Duration = Duration::from_millis(4);
/// Longest path that the kernel takes, in bytes, its end included.
const MAX_PATH: usize = 4096;

/// Calls that make a process or a thread.
#[cfg(target_arch = "x86_64")]
const FORKS: &[libc::c_long] = &[libc::SYS_clone, libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: &[libc::c_long] = &[libc::SYS_clone];

/// The same number everywhere, which the libc crate has not for all.
const FCHMODAT2: libc::c_long = 452;

/// Calls that change a file's mode or times.
#[cfg(target_arch = "x86_64")]
const CHANGES: &[libc::c_long] = &[
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_utimensat,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const CHANGES: &[libc::c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_utimensat,
];

/// All of them.
#[cfg(test)]
pub(crate) fn decided() -> Vec<libc::c_long> {
    [FORKS, CHANGES].concat()
}

/// What the calls of a program are answered by, from its start to its end.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    listener: BorrowedFd<'a>,
    room: &'a Room,
    /// Where denied calls are counted, if they are asked about.
    tally: Option<&'a Tally>,
    /// Most processes and threads.
    most: u32,
    /// As they were counted last.
    counted: u32,
    /// Allowed since.
    allowed: u32,
    /// Forks at the limit, to be told with the next count.
    waiting: Vec<Call>,
    looked: Option<Instant>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(
        listener: BorrowedFd<'a>,
        room: &'a Room,
        limits: &Limits,
        tally: Option<&'a Tally>,
    ) -> Self {
        Self {
            listener,
            room,
            tally,
            most: if omitted(Omit::Processes) {
                u32::MAX
            } else {
                limits.processes
            },
            counted: 1,
            allowed: 0,
            waiting: Vec::new(),
            looked: None,
        }
    }

    /// Readable when somebody asks.
    pub(crate) fn fd(&self) -> BorrowedFd<'a> {
        self.listener
    }

    /// Until something is due without being asked for.
    pub(crate) fn due(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then(|| self.until_next_count())
    }

    fn until_next_count(&self) -> Duration {
        self.looked.map_or(Duration::ZERO, |looked| {
            PAUSE.saturating_sub(looked.elapsed())
        })
    }

    /// Answers whom it can, some of them at most.
    ///
    /// # Errors
    /// When the kernel takes no answer, or does not tell how many there are:
    /// the program must then end.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            if !explain::is_readable(self.listener)? {
                break;
            }
            if let Some(call) = sys::next_call(self.listener)? {
                self.hear(call)?;
            }
        }
        if !self.waiting.is_empty() && self.until_next_count().is_zero() {
            self.count()?;
        }
        Ok(())
    }

    fn hear(&mut self, call: Call) -> io::Result<()> {
        if let Some(refusal) = Refusal::unless_allowed(call.arch, call.number, &call.args) {
            // Counted first: what goes on afterwards finds it there.
            self.tally.map_or(Ok(()), |tally| tally.count(refusal))?;
            return self.tell(&call, Verdict::Refused(refusal.errno));
        }
        let number = libc::c_long::from(call.number);
        if FORKS.contains(&number) {
            if self.counted + self.allowed < self.most {
                self.allowed += 1;
                return self.tell(&call, Verdict::GoOn);
            }
            self.waiting.push(call);
            return Ok(());
        }
        if omitted(Omit::Changes) && CHANGES.contains(&number) {
            return self.tell(&call, Verdict::GoOn);
        }
        // Whatever is neither is refused there.
        let verdict = match self.change(&call) {
            Ok(()) => Verdict::Done,
            Err(errno) => Verdict::Refused(errno.raw_os_error()),
        };
        self.tell(&call, verdict)
    }

    /// Counts again. Meanwhile nobody gets leave to fork, so only those who have
    /// it already and are not through can be missed: one for each thread, and
    /// found the next time.
    fn count(&mut self) -> io::Result<()> {
        self.counted = descent::tasks(std::process::id())?;
        self.allowed = 0;
        self.looked = Some(Instant::now());
        for call in std::mem::take(&mut self.waiting) {
            let verdict = if self.counted + self.allowed < self.most {
                self.allowed += 1;
                Verdict::GoOn
            } else {
                Verdict::Refused(libc::EAGAIN)
            };
            self.tell(&call, verdict)?;
        }
        Ok(())
    }

    fn tell(&self, call: &Call, verdict: Verdict) -> io::Result<()> {
        sys::answer(self.listener, call, verdict)
    }

    /// Changes a file for a program.
    fn change(&self, call: &Call) -> Result<(), Errno> {
        let Some(asked) = Change::of(call) else {
            return Err(Errno::PERM);
        };
        let known = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        if !known.contains(asked.flags) {
            return Err(Errno::INVAL);
        }
        let mut memory = Memory::of(call.thread)?;
        let times = memory.times(asked.times)?;
        let path = match asked.path {
            Some(at) => memory.path(at)?,
            None => Vec::new(),
        };
        let base = if path.starts_with(b"/") {
            None
        } else {
            Some(base(call.thread, asked.directory)?)
        };
        // Up to here all was opened by a number that may have been given to
        // another process meanwhile.
        if !sys::is_waiting(self.listener, call) {
            return Err(Errno::PERM);
        }
        let file = match (base, path.is_empty()) {
            (Some(base), true)
                if asked.path.is_none() || asked.flags.contains(AtFlags::EMPTY_PATH) =>
            {
                base
            }
            (_, true) => return Err(Errno::NOENT),
            (base, false) => {
                let base = base.as_ref().map_or(CWD, |base| base.as_fd());
                let mut flags = OFlags::PATH | OFlags::CLOEXEC;
                if asked.flags.contains(AtFlags::SYMLINK_NOFOLLOW) {
                    flags |= OFlags::NOFOLLOW;
                }
                let never = ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(base, path, flags, Mode::empty(), never)?
            }
        };
        self.is_own(&file)?;
        apply(&file, asked.mode, times)
    }

    /// Whether a file is the box's: nothing comes below its directories but
    /// what was made there, for Landlock lets nobody move or link it there.
    fn is_own(&self, file: &OwnedFd) -> Result<(), Errno> {
        let name = rustix::fs::readlink(own_fd(file), Vec::new())?;
        let own = self.room.writable().any(|directory| {
            let directory = directory.as_os_str().as_bytes();
            name.as_bytes()
                .strip_prefix(directory)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        });
        if own { Ok(()) } else { Err(Errno::PERM) }
    }
}

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
struct Change {
    directory: i32,
    /// Where in the program's memory the path is; none for `directory` itself.
    path: Option<u64>,
    mode: Option<u32>,
    times: Option<TimesAt>,
    flags: AtFlags,
}

/// Where in a program's memory two times are, and in what form.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "forms of calls that newer architectures lack")
)]
#[derive(Debug, Clone, Copy)]
enum TimesAt {
    Now,
    Seconds(u64),
    Micros(u64),
    Nanos(u64),
}

impl Change {
    fn of(call: &Call) -> Option<Self> {
        // Both are `int` to the kernel, which takes the low half of a register.
        let int = |value: u64| (value & 0xffff_ffff) as u32;
        let [a, b, c, d, ..] = call.args;
        let mode = |directory, path, mode, flags| Self {
            directory,
            path,
            mode: Some(int(mode) & 0o7777),
            times: None,
            flags,
        };
        let times = |directory, path, at: fn(u64) -> TimesAt, times, flags| Self {
            directory,
            path,
            mode: None,
            times: Some(if times == 0 { TimesAt::Now } else { at(times) }),
            flags,
        };
        let fd = int(a).cast_signed();
        let flags = AtFlags::from_bits_retain(int(d));
        let none = AtFlags::empty();
        Some(match libc::c_long::from(call.number) {
            libc::SYS_fchmod => mode(fd, None, b, none),
            libc::SYS_fchmodat => mode(fd, Some(b), c, none),
            FCHMODAT2 => mode(fd, Some(b), c, flags),
            libc::SYS_utimensat => times(fd, (b != 0).then_some(b), TimesAt::Nanos, c, flags),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod => mode(libc::AT_FDCWD, Some(a), b, none),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_utime => times(libc::AT_FDCWD, Some(a), TimesAt::Seconds, b, none),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_utimes => times(libc::AT_FDCWD, Some(a), TimesAt::Micros, b, none),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_futimesat => times(fd, (b != 0).then_some(b), TimesAt::Micros, c, none),
            _ => return None,
        })
    }
}

/// What a call's directory is: the working directory or a descriptor.
fn base(thread: u32, directory: i32) -> Result<OwnedFd, Errno> {
    let name = match u32::try_from(directory) {
        Ok(fd) => format!("/proc/{thread}/fd/{fd}"),
        Err(_) if directory == libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
        Err(_) => return Err(Errno::BADF),
    };
    let opened = rustix::fs::open(name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|errno| match errno {
        Errno::NOENT => Errno::BADF,
        // It made itself unreadable.
        _ => Errno::PERM,
    })
}

/// A program's memory, read as it is at that moment.
struct Memory(fs::File);

impl Memory {
    fn of(thread: u32) -> Result<Self, Errno> {
        fs::File::open(format!("/proc/{thread}/mem"))
            .map(Self)
            .map_err(|_| Errno::PERM)
    }

    fn path(&mut self, at: u64) -> Result<Vec<u8>, Errno> {
        let mut path = vec![0u8; MAX_PATH];
        let got = self.read(at, &mut path)?;
        path.truncate(got);
        match path.iter().position(|byte| *byte == 0) {
            Some(end) => path.truncate(end),
            None if got == MAX_PATH => return Err(Errno::NAMETOOLONG),
            None => return Err(Errno::FAULT),
        }
        Ok(path)
    }

    /// What there is from `at` on: a string may end just before memory does.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
        self.0
            .seek(io::SeekFrom::Start(at))
            .map_err(|_| Errno::FAULT)?;
        let mut got = 0;
        while got < into.len() {
            match self.0.read(&mut into[got..]) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(_) if got > 0 => break,
                Err(_) => return Err(Errno::FAULT),
            }
        }
        Ok(got)
    }

    fn numbers<const N: usize>(&mut self, at: u64) -> Result<[i64; N], Errno> {
        let mut bytes = vec![0u8; N * 8];
        if self.read(at, &mut bytes)? < bytes.len() {
            return Err(Errno::FAULT);
        }
        let mut numbers = [0i64; N];
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
            *number = i64::from_ne_bytes(*bytes);
        }
        Ok(numbers)
    }

    fn times(&mut self, at: Option<TimesAt>) -> Result<Option<Timestamps>, Errno> {
        let timespec = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let (access, modified) = match at {
            None => return Ok(None),
            Some(TimesAt::Now) => {
                let now = timespec(0, rustix::fs::UTIME_NOW);
                (now, now)
            }
            Some(TimesAt::Seconds(at)) => {
                let [access, modified] = self.numbers(at)?;
                (timespec(access, 0), timespec(modified, 0))
            }
            Some(TimesAt::Micros(at)) => {
                let numbers: [i64; 4] = self.numbers(at)?;
                let [a, a_micros, m, m_micros] = numbers;
                if [a_micros, m_micros]
                    .iter()
                    .any(|n| !(0..1_000_000).contains(n))
                {
                    return Err(Errno::INVAL);
                }
                (timespec(a, a_micros * 1000), timespec(m, m_micros * 1000))
            }
            Some(TimesAt::Nanos(at)) => {
                let [a, a_nanos, m, m_nanos] = self.numbers(at)?;
                (timespec(a, a_nanos), timespec(m, m_nanos))
            }
        };
        Ok(Some(Timestamps {
            last_access: access,
            last_modification: modified,
        }))
    }
}

fn own_fd(file: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn apply(file: &OwnedFd, mode: Option<u32>, times: Option<Timestamps>) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(file)?;
    let link = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink();
    let name = CString::new(own_fd(file)).map_err(|_| Errno::INVAL)?;
    let done = |result: io::Result<()>| {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        result.map_err(errno)
    };
    if let Some(mode) = mode {
        if link {
            return Err(Errno::OPNOTSUPP);
        }
        done(sys::change_mode(&name, mode))?;
    }
    let none = AtFlags::empty();
    match times {
        None => Ok(()),
        Some(times) if link => done(sys::change_times(
            file.as_fd(),
            c"",
            &times,
            AtFlags::EMPTY_PATH,
        )),
        Some(times) => done(sys::change_times(CWD, &name, &times, none)),
    }
}
