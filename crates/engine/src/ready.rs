//! Ready boxes: made ahead, each with an interpreter that has started and waits for its
//! program, so that a run begins at once. A box serves one run and dies, as any other.
//!
//! A run gets one only if everything that its program could see is what the box was made
//! with: mounts, limits, command and environment; else it gets a box of its own. So a
//! ready box is never wrong, only sooner. Nothing of any user's is in a box that waits.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox::{Command, Event, LateInput, Spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::boxes::{Boxes, Kept, LiveBox, STEP_TIMEOUT, broken_io, late, unexpected};
use crate::error::Error;
use crate::runtime::PackageSet;

/// How long an interpreter may take to be ready.
const STARTING: Duration = Duration::from_secs(20);
/// How long a box waits before another takes its place: what the machine's memory holds
/// of it was paged out by then, and its own lifetime must not end in a run.
const AGE: Duration = Duration::from_secs(1800);
/// The lifetime that a box is made with.
const LIFETIME: Duration = Duration::from_secs(2 * 1800);
/// How long after the last run there are as many boxes as in quiet times.
const QUIET: Duration = Duration::from_secs(5);
/// How often a server that is idle looks for other packages.
const LOOK: Duration = Duration::from_secs(60);
/// From one failure to make a box to the next try, at least and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What a ready box is made for: all that a program could tell from another's.
#[derive(Debug, Clone)]
pub(crate) struct Blank {
    /// Canonical name of the language.
    pub(crate) language: String,
    pub(crate) spec: Spec,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) packages: Option<Arc<PackageSet>>,
}

impl Blank {
    /// Whether a program sees the same in boxes of both. The lifetime is no part of it:
    /// it is set when a box is handed out.
    fn suits(&self, other: &Self) -> bool {
        self.language == other.language
            && self.argv == other.argv
            && self.env == other.env
            && self.spec.mounts == other.spec.mounts
            && self.spec.limits == other.spec.limits
    }

    fn command(&self) -> Command {
        let env = self.env.iter();
        Command {
            argv: self.argv.iter().cloned().map(String::into_bytes).collect(),
            env: env
                .map(|(name, value)| format!("{name}={value}").into_bytes())
                .collect(),
            ..Command::default()
        }
    }
}

/// A box in which an interpreter waits.
#[derive(Debug)]
pub(crate) struct Ready {
    home: LiveBox,
    /// Read ends of standard output and standard error.
    outputs: [OwnedFd; 2],
    channel: UnixStream,
    stdin: LateInput,
    /// What it had used when it was ready.
    used: sandbox::Usage,
    made: Instant,
}

/// A box whose program has begun.
pub(crate) struct Begun {
    pub(crate) home: LiveBox,
    pub(crate) outputs: [OwnedFd; 2],
    /// What the box had used before.
    pub(crate) used: sandbox::Usage,
}

impl Ready {
    /// Makes a box and starts its interpreter, with what nobody else wants of the
    /// processors.
    async fn make(boxes: &Boxes, blank: &Blank) -> Result<Self, Error> {
        let kept = Kept {
            _packages: blank.packages.iter().cloned().collect(),
            ..Kept::default()
        };
        let spec = Spec {
            lifetime: Some(LIFETIME),
            ..blank.spec.clone()
        };
        let home = boxes.make(&spec, false, kept).await?;
        let step = "make a waiting program's channel";
        let (ours, theirs) = StdUnixStream::pair().map_err(broken_io(step))?;
        ours.set_nonblocking(true).map_err(broken_io(step))?;
        let mut channel = UnixStream::from_std(ours).map_err(broken_io(step))?;
        let stdin = LateInput::new()?;
        let sandbox = &home.doors.sandbox;
        sandbox.idle(true)?;
        sandbox.exec_waiting(&blank.command(), &stdin, theirs.as_fd())?;
        drop(theirs);
        let step = "start a program ahead";
        let started = timeout(STEP_TIMEOUT, home.doors.event()).await;
        let Event::Started { stdout, stderr } = started.map_err(|_| late(step))?? else {
            return Err(unexpected(step));
        };
        let said = timeout(STARTING, channel.read_u8()).await;
        said.map_err(|_| late(step))?.map_err(broken_io(step))?;
        // It only waits now, and is to begin at once.
        sandbox.idle(false)?;
        let used = home.measure().await?;
        if !home.measured {
            // Somebody would have to look at it all the time.
            sandbox.stop()?;
            let stopped = timeout(STEP_TIMEOUT, home.doors.event()).await;
            let Event::Stopped = stopped.map_err(|_| late(step))?? else {
                return Err(unexpected(step));
            };
        }
        Ok(Self {
            home,
            outputs: [stdout, stderr],
            channel,
            stdin,
            used,
            made: Instant::now(),
        })
    }

    /// Whether its interpreter still waits, and may for long enough.
    fn is_good(&self) -> bool {
        // Nothing was said since, neither of its end nor of the box's.
        self.made.elapsed() < AGE && matches!(self.home.doors.sandbox.event(), Ok(None))
    }

    /// Gives the interpreter its program, whose files are part of `command`; the box
    /// keeps `kept` from now on, and lives no longer than `lifetime`.
    ///
    /// # Errors
    /// Where it could not take it: nothing of the program's has run.
    pub(crate) async fn begin(
        mut self,
        command: &Command,
        lifetime: Option<Duration>,
        kept: Kept,
    ) -> Result<Begun, (Error, Kept)> {
        match self.hand_over(command, lifetime).await {
            Ok(()) => {
                self.home.keep(kept);
                Ok(Begun {
                    home: self.home,
                    outputs: self.outputs,
                    used: self.used,
                })
            }
            Err(error) => Err((error, kept)),
        }
    }

    async fn hand_over(
        &mut self,
        command: &Command,
        lifetime: Option<Duration>,
    ) -> Result<(), Error> {
        let step = "hand a program over";
        let sandbox = &self.home.doors.sandbox;
        sandbox.live_on(lifetime)?;
        if !self.home.measured {
            sandbox.go_on()?;
        }
        sandbox.copy_in(command)?;
        if !command.stdin.is_empty() {
            self.stdin.fill(&command.stdin)?;
        }
        let copied = timeout(STEP_TIMEOUT, self.home.doors.event()).await;
        let Event::CopiedIn = copied.map_err(|_| late(step))?? else {
            return Err(unexpected(step));
        };
        let has_input = u8::from(!command.stdin.is_empty());
        let told = timeout(STEP_TIMEOUT, self.channel.write_u8(has_input)).await;
        told.map_err(|_| late(step))?.map_err(broken_io(step))
    }
}

/// Boxes of one kind.
#[derive(Debug)]
struct Shelf {
    blank: Blank,
    boxes: VecDeque<Ready>,
    /// How many there should be.
    wanted: usize,
    /// When one was last asked for.
    asked: Option<Instant>,
    /// After failures: when to try again, and how long was waited before.
    resting: Option<(Instant, Duration)>,
}

/// The ready boxes of an engine.
#[derive(Debug)]
pub(crate) struct Pool {
    shelves: Mutex<Vec<Shelf>>,
    /// How many boxes of a kind there are in quiet times, and at most.
    sizes: (usize, usize),
    /// Something was taken, or there is time to make more.
    changed: Arc<Notify>,
}

/// What there is to do for a pool.
enum Due {
    /// Make a box of this kind.
    Make(Blank),
    /// Nothing before then.
    Wait(Option<Instant>),
}

/// When a pool wants to be filled again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// Without a pause.
    AtOnce,
    /// When something changes, or then.
    Later(Option<Instant>),
}

impl Pool {
    /// Makes a pool with `quiet` boxes of a kind; none for 0.
    pub(crate) fn new(quiet: usize) -> Self {
        Self {
            shelves: Mutex::default(),
            sizes: (quiet, 4 * quiet),
            changed: Arc::default(),
        }
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        // Whole between any two statements, whoever panicked.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a box that suits a run. Where there is none it says `None`, and more are
    /// made from now on.
    pub(crate) fn take(&self, wanted: &Blank) -> Option<Ready> {
        let mut shelves = self.shelves();
        let shelf = shelves.iter_mut().find(|shelf| shelf.blank.suits(wanted))?;
        shelf.asked = Some(Instant::now());
        let mut bad = Vec::new();
        let taken = loop {
            match shelf.boxes.pop_front() {
                Some(ready) if ready.is_good() => break Some(ready),
                Some(ready) => bad.push(ready),
                None => break None,
            }
        };
        if taken.is_none() {
            shelf.wanted = (shelf.wanted + 1).min(self.sizes.1);
        }
        drop((shelves, bad));
        self.changed.notify_one();
        taken
    }

    /// What to tell when the processors have time again.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Ends all boxes, and makes no more.
    pub(crate) fn close(&self) {
        self.shelves().clear();
        self.changed.notify_one();
    }

    /// How many boxes wait, by language.
    pub(crate) fn counts(&self) -> Vec<(String, usize)> {
        let shelves = self.shelves();
        let counts = shelves.iter();
        counts
            .map(|shelf| (shelf.blank.language.clone(), shelf.boxes.len()))
            .collect()
    }

    /// Says which kinds of boxes there should be from now on; others end.
    pub(crate) fn stock(&self, blanks: Vec<Blank>) {
        let mut shelves = self.shelves();
        let mut old = std::mem::take(&mut *shelves);
        *shelves = blanks
            .into_iter()
            .map(|blank| {
                let at = old.iter().position(|shelf| shelf.blank.suits(&blank));
                at.map_or_else(
                    || Shelf {
                        blank,
                        boxes: VecDeque::new(),
                        wanted: self.sizes.0,
                        asked: None,
                        resting: None,
                    },
                    |at| old.swap_remove(at),
                )
            })
            .collect();
        drop(shelves);
    }

    /// Makes a box, if one is lacking and `is_free`: nobody else wants the processors.
    /// Returns how it goes on.
    pub(crate) async fn fill(&self, boxes: &Boxes, is_free: impl Fn() -> bool) -> Next {
        match self.due() {
            Due::Make(blank) if is_free() => {
                let made = Ready::make(boxes, &blank).await;
                self.put(&blank, made);
                Next::AtOnce
            }
            // Woken when a run ends.
            Due::Make(_) => Next::Later(None),
            Due::Wait(until) => Next::Later(until),
        }
    }

    /// Waits until there is something to do again.
    pub(crate) async fn rest(&self, next: Next) {
        let changed = self.changed.notified();
        // Late or not, it is looked.
        match next {
            Next::AtOnce => {}
            Next::Later(Some(until)) => drop(timeout_at(until, changed).await),
            Next::Later(None) => drop(timeout(LOOK, changed).await),
        }
    }

    /// Looks what is due now.
    fn due(&self) -> Due {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut soon = |at: Instant| next = Some(next.map_or(at, |before| before.min(at)));
        let mut ended = Vec::new();
        let mut shelves = self.shelves();
        let mut lacking = None;
        for shelf in shelves.iter_mut() {
            if shelf.wanted > self.sizes.0 {
                match shelf.asked.map(|asked| asked + QUIET) {
                    Some(quiet) if quiet > now => soon(quiet),
                    _ => shelf.wanted = self.sizes.0,
                }
            }
            while shelf.boxes.front().is_some_and(|ready| !ready.is_good())
                || shelf.boxes.len() > shelf.wanted
            {
                ended.extend(shelf.boxes.pop_front());
            }
            if let Some(first) = shelf.boxes.front() {
                soon(first.made + AGE);
            }
            if shelf.boxes.len() >= shelf.wanted {
                continue;
            }
            match shelf.resting {
                Some((until, _)) if until > now => soon(until),
                // The kind that has least comes first.
                _ => {
                    let fewer = lacking
                        .as_ref()
                        .is_none_or(|(count, _)| shelf.boxes.len() < *count);
                    if fewer {
                        lacking = Some((shelf.boxes.len(), shelf.blank.clone()));
                    }
                }
            }
        }
        drop((shelves, ended));
        lacking.map_or(Due::Wait(next), |(_, blank)| Due::Make(blank))
    }

    fn put(&self, blank: &Blank, made: Result<Ready, Error>) {
        let mut shelves = self.shelves();
        let Some(shelf) = shelves.iter_mut().find(|shelf| shelf.blank.suits(blank)) else {
            // No longer wanted.
            drop(shelves);
            return;
        };
        match made {
            Ok(ready) => {
                shelf.resting = None;
                shelf.boxes.push_back(ready);
            }
            Err(error) => {
                let before = shelf.resting.map_or(Duration::ZERO, |(_, before)| before);
                let wait = (before * 2).clamp(PATIENCE.0, PATIENCE.1);
                shelf.resting = Some((Instant::now() + wait, wait));
                tracing::warn!(
                    language = blank.language,
                    error = &error as &dyn std::error::Error,
                    again_in = ?wait,
                    "failed to make a box ready; runs begin in boxes of their own"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(argv: &str) -> Blank {
        Blank {
            language: "x".to_owned(),
            spec: Spec {
                mounts: Vec::new(),
                limits: sandbox::Limits {
                    memory: 1,
                    processes: 1,
                    cpu_millis: 1,
                    workspace: 1,
                    inodes: 1,
                    shm: 1,
                    open_files: 1,
                },
                lifetime: None,
            },
            argv: vec![argv.to_owned()],
            env: vec![("A".to_owned(), "1".to_owned())],
            packages: None,
        }
    }

    #[test]
    fn only_what_looks_the_same_suits() {
        let check = |change: &dyn Fn(&mut Blank), expected: bool| {
            let mut other = blank("a");
            change(&mut other);
            assert_eq!(blank("a").suits(&other), expected, "{other:?}");
        };
        check(&|_| {}, true);
        check(&|one| one.spec.lifetime = Some(STARTING), true);
        check(&|one| one.language = "y".to_owned(), false);
        check(&|one| one.argv.push("b".to_owned()), false);
        check(&|one| one.env[0].1 = "2".to_owned(), false);
        check(&|one| one.env.clear(), false);
        check(&|one| one.spec.limits.memory = 2, false);
        check(&|one| one.spec.limits.processes = 2, false);
        check(
            &|one| one.spec.mounts.push(sandbox::Mount::same("/a")),
            false,
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_grows_with_what_is_asked_and_shrinks_again() {
        let pool = Pool::new(2);
        pool.stock(vec![blank("a"), blank("b")]);
        let wanted = || {
            let shelves = pool.shelves();
            let wanted: Vec<usize> = shelves.iter().map(|shelf| shelf.wanted).collect();
            wanted
        };
        assert!(pool.take(&blank("c")).is_none());
        assert_eq!(wanted(), [2, 2]);
        for _ in 0..20 {
            assert!(pool.take(&blank("a")).is_none());
        }
        assert_eq!(wanted(), [8, 2]);
        assert!(matches!(pool.due(), Due::Make(_)));
        tokio::time::advance(QUIET + Duration::from_secs(1)).await;
        assert!(matches!(pool.due(), Due::Make(_)));
        assert_eq!(wanted(), [2, 2]);
        // What is no longer there is forgotten, what stays keeps its size.
        pool.take(&blank("a"));
        pool.stock(vec![blank("a"), blank("d")]);
        assert_eq!(wanted(), [3, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_later_and_later() {
        let pool = Pool::new(1);
        pool.stock(vec![blank("a")]);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(matches!(pool.due(), Due::Make(_)));
            let failed = std::io::Error::from(std::io::ErrorKind::TimedOut);
            pool.put(&blank("a"), Err(broken_io("fail")(failed)));
            let wait = Duration::from_secs(seconds);
            let Due::Wait(Some(until)) = pool.due() else {
                panic!("it rests");
            };
            assert_eq!(until, Instant::now() + wait);
            tokio::time::advance(wait).await;
        }
    }
}
