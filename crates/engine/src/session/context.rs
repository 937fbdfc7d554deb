//! A context: an interpreter that keeps its state, and the turns of the cells in it.
//!
//! Starts the interpreter when a cell needs it, and says when its state was lost.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandbox::{Command, Exit};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::frames::{self, Frame, Malformed};
use super::live::Session;
use super::{Activity, ContextState};
use crate::boxes::broken_io;
use crate::config::Bounds;
use crate::error::Error;

/// Bytes asked of a channel at once.
const READ: usize = 64 * 1024;
/// Bytes of a frame's own length.
const LENGTH: usize = 4;

/// A context.
#[derive(Debug)]
pub(crate) struct Context {
    name: String,
    language: String,
    /// The interpreter, for who has the turn; `None` before the first and after its end.
    pub(super) turn: Arc<tokio::sync::Mutex<Option<Kernel>>>,
    waiting: AtomicUsize,
    /// Cancelled when the context is no more.
    pub(super) over: CancellationToken,
    facts: Mutex<Facts>,
}

#[derive(Debug)]
struct Facts {
    activity: Activity,
    cells: u64,
    /// Whether a cell was promised a state that is gone.
    lost: bool,
    /// Interrupts the cell that runs.
    interrupt: CancellationToken,
}

/// What a cell is told when it begins.
#[derive(Debug)]
pub(super) struct Beginning {
    /// Which cell of its context it is, from 1.
    pub(super) number: u64,
    /// Whether the state of the cells before was lost.
    pub(super) lost: bool,
    /// Cancelled when it is to be interrupted.
    pub(super) interrupt: CancellationToken,
}

/// A turn that is waited for.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Context);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting<'_> {
    /// Returns the error of who has waited too long.
    pub(super) fn too_long(&self) -> Error {
        Error::ContextBusy {
            waiting: self.0.waiting.load(Ordering::Relaxed),
        }
    }
}

impl Context {
    pub(super) fn new(name: &str, language: &str) -> Self {
        Self {
            name: name.to_owned(),
            language: language.to_owned(),
            turn: Arc::default(),
            waiting: AtomicUsize::new(0),
            over: CancellationToken::new(),
            facts: Mutex::new(Facts {
                activity: Activity::New,
                cells: 0,
                lost: false,
                interrupt: CancellationToken::new(),
            }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn language(&self) -> &str {
        &self.language
    }

    pub(crate) fn state(&self) -> ContextState {
        let facts = self.facts();
        ContextState {
            name: self.name.clone(),
            language: self.language.clone(),
            activity: facts.activity,
            cells: facts.cells,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among the cells that wait.
    ///
    /// # Errors
    /// [`Error::ContextBusy`].
    pub(super) fn wait(&self) -> Result<Waiting<'_>, Error> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(self);
        if waiting >= Bounds::CELLS_WAITING {
            return Err(Error::ContextBusy { waiting });
        }
        Ok(place)
    }

    /// Begins a cell.
    pub(super) fn begin(&self) -> Beginning {
        let mut facts = self.facts();
        facts.activity = Activity::Busy;
        facts.cells += 1;
        facts.interrupt = CancellationToken::new();
        Beginning {
            number: facts.cells,
            lost: std::mem::take(&mut facts.lost),
            interrupt: facts.interrupt.clone(),
        }
    }

    /// A cell is over, after which the interpreter is alive or not; `had` says whether
    /// there was one before it.
    pub(super) fn done(&self, alive: bool, had: bool) {
        let mut facts = self.facts();
        facts.activity = match (alive, had || facts.cells > 1) {
            (true, _) => Activity::Idle,
            (false, true) => Activity::Lost,
            (false, false) => Activity::New,
        };
        facts.lost |= facts.activity == Activity::Lost;
    }

    /// The interpreter is a copy of another context's, which no cell uses meanwhile.
    pub(super) fn continues(&self, other: &Self) {
        let cells = other.facts().cells;
        let mut facts = self.facts();
        facts.activity = Activity::Idle;
        facts.cells = cells;
    }

    /// The interpreter was ended on purpose: the next cell is not told of a loss.
    pub(super) fn forget(&self) {
        let mut facts = self.facts();
        facts.activity = Activity::New;
        facts.lost = false;
    }

    /// Has the cell interrupted that runs now. Says whether one did.
    pub(crate) fn interrupt(&self) -> bool {
        let facts = self.facts();
        let busy = facts.activity == Activity::Busy;
        if busy {
            facts.interrupt.cancel();
        }
        busy
    }
}

/// An interpreter that runs.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(super) program: u32,
    pub(super) channel: Channel,
    /// Read ends of its standard output and standard error.
    pub(super) outputs: [OwnedFd; 2],
    pub(super) ended: oneshot::Receiver<Exit>,
}

impl Kernel {
    /// Launches the interpreter of a language; it has yet to say that it is ready.
    pub(super) async fn launch(session: &Session, language: &str) -> Result<Self, Error> {
        let of_language = session.terms.languages.get(language);
        let plan = &of_language
            .ok_or_else(|| crate::boxes::unexpected("start an interpreter"))?
            .kernel;
        let step = "make an interpreter's channel";
        let (ours, theirs) = StdUnixStream::pair().map_err(broken_io(step))?;
        let env = plan.env.iter();
        let command = Command {
            argv: plan.argv.iter().cloned().map(String::into_bytes).collect(),
            env: env
                .map(|(name, value)| format!("{name}={value}").into_bytes())
                .collect(),
            ..Command::default()
        };
        let launched = session
            .launch_kernel(language, &command, theirs.as_fd())
            .await?;
        drop(theirs);
        let outputs = [launched.stdout, launched.stderr];
        for stream in &outputs {
            rustix::io::ioctl_fionbio(stream, true)
                .map_err(|errno| broken_io(step)(errno.into()))?;
        }
        Ok(Self {
            program: launched.number,
            channel: Channel::new(ours).map_err(broken_io(step))?,
            outputs,
            ended: launched.ended,
        })
    }

    /// Whether nothing was heard of its end yet.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(
            self.ended.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }
}

/// The engine's end of an interpreter's channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(super) stream: UnixStream,
    /// What was read of the next frame, and never more than that.
    bytes: Vec<u8>,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoFrame {
    /// The interpreter closed its end, or is gone.
    #[error("the channel is closed")]
    Closed,
    /// It sent something else.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Channel {
    pub(super) fn new(stream: StdUnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
            bytes: Vec::new(),
        })
    }

    /// Returns the next frame, waiting for it. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Frame, NoFrame> {
        loop {
            if let Some((frame, _)) = frames::parse(&self.bytes)? {
                // An idle context holds nothing.
                self.bytes = Vec::new();
                return Ok(frame);
            }
            let whole = frames::length_of(&self.bytes).unwrap_or(LENGTH);
            let missing = whole.saturating_sub(self.bytes.len());
            // It may claim more than ever comes.
            self.bytes.reserve(missing.min(READ));
            let mut rest = (&mut self.stream).take(missing as u64);
            match rest.read_buf(&mut self.bytes).await {
                Ok(0) | Err(_) => return Err(NoFrame::Closed),
                Ok(_) => {}
            }
        }
    }
}
