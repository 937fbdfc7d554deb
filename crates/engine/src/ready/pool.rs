//! The pool of ready boxes: how many there are of each kind, who gets one, and when
//! another is made. Makes none while somebody else wants the processors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox::{Mount, Spec};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::spare::Spare;
use super::{AGE, Blank, Ready};
use crate::boxes::{Boxes, LiveBox};
use crate::error::Error;
use crate::runtime::PackageSet;
use crate::zygote::{NoZygote, Zygote};

/// How long after the last run there are as many boxes as in quiet times.
const QUIET: Duration = Duration::from_secs(5);
/// How long after a box was taken no other is made while its program runs: most programs
/// are over by then, and making one takes as much as such a program.
const SETTLING: Duration = Duration::from_millis(10);
/// How often a server that is idle looks for other packages.
const LOOK: Duration = Duration::from_secs(60);
/// From one failure to make a box to the next try, at least and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The same for a zygote that said it would be unsound.
const UNFIT: Duration = Duration::from_secs(3600);

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
    /// What its programs are forked from, while it serves.
    zygote: Option<Arc<Zygote>>,
    /// The same of a zygote: when to try again.
    zygote_resting: Option<(Instant, Duration)>,
}

impl Shelf {
    fn new(blank: Blank, wanted: usize) -> Self {
        Self {
            blank,
            boxes: VecDeque::new(),
            wanted,
            asked: None,
            resting: None,
            zygote: None,
            zygote_resting: None,
        }
    }

    /// Whether a zygote should be started now, or when.
    fn lacks_zygote(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if self.blank.zygote.is_none() {
            return Err(None);
        }
        if self.zygote.as_ref().is_some_and(|zygote| !zygote.lives()) {
            tracing::warn!(
                language = self.blank.language,
                profile = self.blank.profile,
                "a zygote has died; another is started"
            );
            self.zygote = None;
        }
        match (&self.zygote, self.zygote_resting) {
            (_, Some((until, _))) if until > now => Err(Some(until)),
            (Some(zygote), _) if !zygote.is_worn() => Err(None),
            _ => Ok(()),
        }
    }
}

/// What there is of one kind of ready box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// Canonical name of the language.
    pub language: String,
    /// What programs have loaded there: the name of a profile; empty where they are not
    /// forked.
    pub profile: String,
    /// How many boxes wait.
    pub boxes: usize,
    /// Whether an interpreter serves that programs are forked from.
    pub warm: bool,
}

/// The ready boxes of an engine.
#[derive(Debug)]
pub(crate) struct Pool {
    shelves: Mutex<Vec<Shelf>>,
    /// For the next session.
    spare: Spare,
    /// How many boxes of a kind there are in quiet times, and at most.
    sizes: (usize, usize),
    /// Something was taken, or there is time to make more.
    changed: Arc<Notify>,
}

/// What there is to do for a pool.
enum Due {
    /// Start a zygote for boxes of this kind.
    Warm(Blank),
    /// Make a box of this kind, whose program is forked from what there is.
    Make(Blank, Option<Arc<Zygote>>),
    /// Nothing before then.
    Wait(Option<Instant>),
}

/// Whether the processors have time for boxes that nobody has asked for yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Nothing runs.
    Wholly,
    /// Fewer runs go on than there are processors.
    Partly,
    /// There is other work.
    No,
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
            spare: Spare::default(),
            sizes: (quiet, 4 * quiet),
            changed: Arc::default(),
        }
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        // Whole between any two statements, whoever panicked.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a box that suits a run, or makes one into which its program is forked. Says
    /// which, as a label of a metric; `None` where there is neither.
    pub(crate) async fn begin(
        &self,
        boxes: &Boxes,
        wanted: &Blank,
    ) -> Option<(Ready, &'static str)> {
        if let Some(ready) = self.take(wanted, Blank::is_of_profile) {
            return Some((ready, "ready"));
        }
        if let Some(ready) = self.fork(boxes, wanted, Blank::is_of_profile).await {
            return Some((ready, "forked"));
        }
        // It has to load by itself what it imports.
        if let Some(ready) = self.take(wanted, |_, _| true) {
            return Some((ready, "ready"));
        }
        let ready = self.fork(boxes, wanted, |_, _| true).await?;
        Some((ready, "forked"))
    }

    /// Makes a box for a run and forks its program into it, from a zygote that `fits`.
    async fn fork(
        &self,
        boxes: &Boxes,
        wanted: &Blank,
        fits: fn(&Blank, &Blank) -> bool,
    ) -> Option<Ready> {
        let zygote = self.zygote(wanted, fits)?;
        let made = Ready::make(boxes, wanted, Some(&zygote), true).await;
        made.inspect_err(|error| tracing::debug!(%error, "a program was not forked"))
            .ok()
    }

    /// The zygote that a run's program may be forked from.
    fn zygote(&self, wanted: &Blank, fits: fn(&Blank, &Blank) -> bool) -> Option<Arc<Zygote>> {
        let shelves = self.shelves();
        let mut suits = shelves
            .iter()
            .filter(|shelf| shelf.blank.forks_for(wanted) && fits(&shelf.blank, wanted));
        suits.find_map(|shelf| shelf.zygote.clone())
    }

    /// The zygote of a language and profile that knows these packages, for a box that sees
    /// all that it sees.
    pub(crate) fn zygote_of(
        &self,
        language: &str,
        profile: &str,
        packages: Option<&Arc<PackageSet>>,
        mounts: &[Mount],
    ) -> Option<Arc<Zygote>> {
        let shelves = self.shelves();
        let suits = |shelf: &&Shelf| {
            let blank = &shelf.blank;
            blank.language == language
                && blank.profile.as_deref() == Some(profile)
                && blank.packages.as_ref().map(Arc::as_ptr) == packages.map(Arc::as_ptr)
                && blank.spec.mounts.iter().all(|one| mounts.contains(one))
        };
        shelves.iter().find(suits)?.zygote.clone()
    }

    /// Takes a box that suits a run. Where there is none it says `None`, and more are
    /// made from now on.
    fn take(&self, wanted: &Blank, fits: fn(&Blank, &Blank) -> bool) -> Option<Ready> {
        let mut shelves = self.shelves();
        let suits = |shelf: &&mut Shelf| shelf.blank.suits(wanted) && fits(&shelf.blank, wanted);
        let shelf = shelves.iter_mut().find(suits)?;
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

    /// Takes the box that was made ahead for a session, if it is as this one asks, and
    /// has another made.
    pub(crate) fn take_for_session(
        &self,
        spec: &Spec,
        packages: &[Arc<PackageSet>],
    ) -> Option<LiveBox> {
        if self.sizes.0 == 0 {
            // Nobody fills this pool.
            return None;
        }
        let taken = self.spare.take(spec, packages);
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
        self.spare.close();
        self.changed.notify_one();
    }

    /// What there is of each kind of box.
    pub(crate) fn stocks(&self) -> Vec<Stock> {
        let shelves = self.shelves();
        let stocks = shelves.iter().map(|shelf| Stock {
            language: shelf.blank.language.clone(),
            profile: shelf.blank.profile.clone().unwrap_or_default(),
            boxes: shelf.boxes.len(),
            warm: shelf.zygote.is_some(),
        });
        stocks.collect()
    }

    /// Says which kinds of boxes there should be from now on; others end.
    pub(crate) fn stock(&self, blanks: Vec<Blank>) {
        // It may have other packages.
        self.spare.forget();
        let mut shelves = self.shelves();
        let mut old = std::mem::take(&mut *shelves);
        *shelves = blanks
            .into_iter()
            .map(|blank| {
                let is_it = |shelf: &Shelf| shelf.blank.is_same(&blank);
                match old.iter().position(is_it) {
                    Some(at) => old.swap_remove(at),
                    None => Shelf::new(blank, self.sizes.0),
                }
            })
            .collect();
        drop(shelves);
    }

    /// Makes a box, if one is lacking and `idle` says that nobody else wants the
    /// processors. Returns how it goes on.
    pub(crate) async fn fill(&self, boxes: &Boxes, idle: impl Fn() -> Idle) -> Next {
        let is_free = || idle() != Idle::No;
        if idle() == Idle::Partly
            && let Some(until) = self.settling()
        {
            // A run has just begun, and may be over before a box is made.
            return Next::Later(Some(until));
        }
        match self.due() {
            Due::Warm(blank) if is_free() => {
                if let Some(plan) = &blank.zygote {
                    self.put_zygote(&blank, Zygote::start(boxes, plan).await);
                }
                Next::AtOnce
            }
            Due::Make(blank, zygote) if is_free() => {
                let made = Ready::make(boxes, &blank, zygote.as_deref(), false).await;
                self.put(&blank, made);
                Next::AtOnce
            }
            // Woken when a run ends.
            Due::Warm(_) | Due::Make(..) => Next::Later(None),
            Due::Wait(until) if is_free() => match self.spare.lacking() {
                Ok(wanted) => {
                    let made = wanted.make(boxes).await;
                    self.spare.put(wanted, made);
                    Next::AtOnce
                }
                Err(other) => Next::Later(until.into_iter().chain(other).min()),
            },
            Due::Wait(until) => Next::Later(until),
        }
    }

    /// Until when no box is made, because one was just taken and others are there.
    fn settling(&self) -> Option<Instant> {
        let shelves = self.shelves();
        let taken = shelves.iter().filter(|shelf| !shelf.boxes.is_empty());
        let last = taken.filter_map(|shelf| shelf.asked).max()?;
        let until = last + SETTLING;
        (until > Instant::now() && shelves.iter().all(|shelf| !shelf.boxes.is_empty()))
            .then_some(until)
    }

    /// Waits until there is something to do again.
    pub(crate) async fn rest(&self, next: Next) {
        let changed = self.changed.notified();
        // Late or not, it is looked.
        match next {
            Next::AtOnce => {}
            Next::Later(Some(until)) => {
                let until = until.min(Instant::now() + LOOK);
                drop(timeout_at(until, changed).await);
            }
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
        let mut lacking: Option<(usize, Blank, Option<Arc<Zygote>>)> = None;
        let mut warm = None;
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
            match shelf.lacks_zygote(now) {
                // Before boxes, which are made sooner with it.
                Ok(()) if warm.is_none() => warm = Some(shelf.blank.clone()),
                Ok(()) | Err(None) => {}
                Err(Some(until)) => soon(until),
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
                        .is_none_or(|(count, ..)| shelf.boxes.len() < *count);
                    if fewer {
                        let zygote = shelf.zygote.clone();
                        lacking = Some((shelf.boxes.len(), shelf.blank.clone(), zygote));
                    }
                }
            }
        }
        drop((shelves, ended));
        match (warm, lacking) {
            (Some(blank), _) => Due::Warm(blank),
            (None, Some((_, blank, zygote))) => Due::Make(blank, zygote),
            (None, None) => Due::Wait(next),
        }
    }

    fn put_zygote(&self, blank: &Blank, started: Result<Zygote, NoZygote>) {
        let mut shelves = self.shelves();
        let mut same = shelves.iter_mut();
        let Some(shelf) = same.find(|shelf| shelf.blank.is_same(blank)) else {
            // No longer wanted.
            return;
        };
        let why = match started {
            Ok(zygote) => {
                tracing::info!(
                    language = blank.language,
                    profile = blank.profile,
                    "a zygote serves"
                );
                shelf.zygote_resting = None;
                shelf.zygote = Some(Arc::new(zygote));
                return;
            }
            Err(NoZygote::Unfit(why)) => {
                shelf.zygote_resting = Some((Instant::now() + UNFIT, UNFIT));
                why
            }
            Err(NoZygote::Failed(error)) => {
                let before = shelf
                    .zygote_resting
                    .map_or(Duration::ZERO, |(_, before)| before);
                let wait = (before * 2).clamp(PATIENCE.0, PATIENCE.1);
                shelf.zygote_resting = Some((Instant::now() + wait, wait));
                error.with_causes()
            }
        };
        tracing::warn!(
            language = blank.language,
            profile = blank.profile,
            why,
            "failed to start a zygote; interpreters start by themselves"
        );
    }

    fn put(&self, blank: &Blank, made: Result<Ready, Error>) {
        let mut shelves = self.shelves();
        let Some(shelf) = shelves.iter_mut().find(|shelf| shelf.blank.is_same(blank)) else {
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
    use sandbox::Spec;

    use super::*;
    use crate::boxes::broken_io;
    use crate::ready::STARTING;

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
                adopts: false,
            },
            argv: vec![argv.to_owned()],
            env: vec![("A".to_owned(), "1".to_owned())],
            packages: None,
            profile: None,
            zygote: None,
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
        let take = |name: &str| pool.take(&blank(name), Blank::is_of_profile);
        let wanted = || {
            let shelves = pool.shelves();
            let wanted: Vec<usize> = shelves.iter().map(|shelf| shelf.wanted).collect();
            wanted
        };
        assert!(take("c").is_none());
        assert_eq!(wanted(), [2, 2]);
        for _ in 0..20 {
            assert!(take("a").is_none());
        }
        assert_eq!(wanted(), [8, 2]);
        assert!(matches!(pool.due(), Due::Make(..)));
        tokio::time::advance(QUIET + Duration::from_secs(1)).await;
        assert!(matches!(pool.due(), Due::Make(..)));
        assert_eq!(wanted(), [2, 2]);
        // What is no longer there is forgotten, what stays keeps its size.
        take("a");
        pool.stock(vec![blank("a"), blank("d")]);
        assert_eq!(wanted(), [3, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_later_and_later() {
        let pool = Pool::new(1);
        pool.stock(vec![blank("a")]);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(matches!(pool.due(), Due::Make(..)));
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
