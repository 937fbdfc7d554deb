//! Ready boxes: made ahead, each with an interpreter that has started and waits for its
//! program, so that a run begins at once. A box serves one run and dies, as any other.
//!
//! A run gets one only if everything that its program could see is what the box was made
//! with: mounts, limits, command and environment; else it gets a box of its own. So a
//! ready box is never wrong, only sooner. Nothing of any user's is in a box that waits.

mod pool;
mod spare;

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Command, Event, LateInput, Spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::boxes::{Boxes, Kept, LiveBox, STEP_TIMEOUT, broken_io, late, unexpected};
use crate::error::Error;
use crate::runtime::PackageSet;
use crate::zygote::{Zygote, ZygotePlan};
pub use pool::Stock;
pub(crate) use pool::{Idle, Next, Pool};

/// How long an interpreter may take to be ready.
const STARTING: Duration = Duration::from_secs(20);
/// How long a box waits before another takes its place: what the machine's memory holds
/// of it was paged out by then, and its own lifetime must not end in a run.
const AGE: Duration = Duration::from_secs(1800);
/// The lifetime that a box is made with.
const LIFETIME: Duration = Duration::from_secs(2 * 1800);
/// What a ready box is made for: all that a program could tell from another's.
#[derive(Debug, Clone)]
pub(crate) struct Blank {
    /// Canonical name of the language.
    pub(crate) language: String,
    pub(crate) spec: Spec,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) packages: Option<Arc<PackageSet>>,
    /// What its program's zygote should have loaded.
    pub(crate) profile: Option<String>,
    /// From what its program is forked; where there is none it is executed.
    pub(crate) zygote: Option<Arc<ZygotePlan>>,
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

    /// Whether they are the same kind of ready box.
    fn is_same(&self, other: &Self) -> bool {
        self.suits(other) && self.profile == other.profile && self.zygote == other.zygote
    }

    /// Whether a box of the one is as soon ready as one of the other for a program that
    /// suits both.
    fn is_of_profile(&self, other: &Self) -> bool {
        self.profile == other.profile
    }

    /// Whether a zygote for boxes of this kind may be forked into one of another, which
    /// sees the same of the host. Its command line and its environment come with each
    /// fork, and what an interpreter reads of these when it starts is the same where
    /// there is a profile.
    fn forks_for(&self, other: &Self) -> bool {
        self.language == other.language
            && self.spec.mounts == other.spec.mounts
            && self.profile.is_some()
            && other.profile.is_some()
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
    /// Whether its interpreter is stopped until then.
    stopped: bool,
}

/// A box whose program has begun.
pub(crate) struct Begun {
    pub(crate) home: LiveBox,
    pub(crate) outputs: [OwnedFd; 2],
    /// What the box had used before.
    pub(crate) used: sandbox::Usage,
}

impl Ready {
    /// Makes a box and starts its interpreter, by a fork of `zygote` where there is one:
    /// with what nobody else wants of the processors, or `at_once` for a run that waits.
    async fn make(
        boxes: &Boxes,
        blank: &Blank,
        zygote: Option<&Zygote>,
        at_once: bool,
    ) -> Result<Self, Error> {
        let kept = Kept {
            _packages: blank.packages.iter().cloned().collect(),
            ..Kept::default()
        };
        let spec = Spec {
            lifetime: Some(LIFETIME),
            adopts: zygote.is_some(),
            ..blank.spec.clone()
        };
        let mut home = boxes.make(&spec, false, kept).await?;
        let entrance = home.entrance.take();
        let arrival = zygote
            .zip(entrance)
            .and_then(|(zygote, entrance)| zygote.fork(entrance, &spec.limits));
        let step = "make a waiting program's channel";
        let (ours, theirs) = StdUnixStream::pair().map_err(broken_io(step))?;
        ours.set_nonblocking(true).map_err(broken_io(step))?;
        let mut channel = UnixStream::from_std(ours).map_err(broken_io(step))?;
        let stdin = LateInput::new()?;
        let sandbox = &home.doors.sandbox;
        if !at_once {
            sandbox.idle(true)?;
        }
        sandbox.exec_waiting(&blank.command(), &stdin, theirs.as_fd(), arrival)?;
        drop(theirs);
        let step = "start a program ahead";
        let started = timeout(STEP_TIMEOUT, home.doors.event()).await;
        let Event::Started { stdout, stderr } = started.map_err(|_| late(step))?? else {
            return Err(unexpected(step));
        };
        let made = Instant::now();
        if at_once {
            // It may begin as soon as it is there.
            return Ok(Self {
                home,
                outputs: [stdout, stderr],
                channel,
                stdin,
                used: sandbox::Usage::default(),
                made,
                stopped: false,
            });
        }
        let said = timeout(STARTING, channel.read_u8()).await;
        said.map_err(|_| late(step))?.map_err(broken_io(step))?;
        // It only waits now, and is to begin at once.
        sandbox.idle(false)?;
        let used = home.measure().await?;
        let stopped = !home.measured;
        if stopped {
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
            made,
            stopped,
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
        if self.stopped {
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
