//! The server's half: starts the warden and asks it for boxes.
//!
//! Boxes are talked to without blocking, so that an async caller can wait on
//! the descriptors itself. Asking for one blocks only while dozens of others
//! wait for the warden already.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::Shutdown;
use rustix::time::Timespec;

use crate::command::Command;
use crate::error::{At, Error, Step};
use crate::handle::Sandbox;
use crate::protocol::{self, Frame, Received};
use crate::spec::Spec;
use crate::support::Isolation;
use crate::zygote::Zygote;

/// How the binary knows, by its own name, that it is a warden.
pub(crate) const WARDEN_NAME: &str = "codex-server: warden";

/// How long the warden may take to get ready.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the warden may take to end its boxes and itself.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A running warden. Dropping the last clone ends it and all its boxes.
#[derive(Debug, Clone)]
pub struct Launcher {
    warden: Arc<Warden>,
    rung: Isolation,
    cgroup: String,
    own_uids: bool,
    shared: Option<PathBuf>,
}

/// The warden's process. Dropping it ends the warden and waits for it, so that
/// its cgroups are gone when the server is.
#[derive(Debug)]
struct Warden {
    socket: OwnedFd,
    process: Mutex<Child>,
}

impl Warden {
    fn process(&self) -> MutexGuard<'_, Child> {
        // Nothing panics while it is held.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // It ends when its socket does. Refused only if it is gone already.
        rustix::net::shutdown(&self.socket, Shutdown::Both).ok();
        let until = Instant::now() + END_TIMEOUT;
        while Instant::now() < until {
            if !matches!(self.process().try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Launcher {
    /// Starts a warden. Must be called before this process has threads.
    ///
    /// # Errors
    /// What the warden could not do, by step.
    pub(crate) fn start(rung: Isolation) -> Result<Self, Error> {
        let (ours, theirs) = protocol::pair().at(Step::StartWarden)?;
        // The running binary, even if the file was replaced since.
        #[expect(
            clippy::disallowed_methods,
            reason = "the one process the server starts"
        )]
        let mut command = std::process::Command::new("/proc/self/exe");
        let child = command
            .arg0(WARDEN_NAME)
            .arg(rung.as_str())
            .args(left_out())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .at(Step::StartWarden)?;
        // The command keeps its copy of the warden's socket until it is dropped.
        drop(command);
        let warden = Warden {
            socket: ours,
            process: Mutex::new(child),
        };
        let (cgroup, own_uids, shared) = first_word(&warden.socket)?;
        Ok(Self {
            warden: Arc::new(warden),
            rung,
            cgroup,
            own_uids,
            shared: (!shared.as_os_str().is_empty()).then_some(shared),
        })
    }

    /// Whether the warden still runs. Without it no box can be made; the
    /// server must be started again, because only a process without threads
    /// may start one.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self.warden.process().try_wait(), Ok(None))
    }

    /// The warden's process id, for logs.
    #[must_use]
    pub fn warden_id(&self) -> u32 {
        self.warden.process().id()
    }

    /// Where its cgroups are; empty without.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Whether each box has a host uid of its own.
    pub(crate) fn own_uids(&self) -> bool {
        self.own_uids
    }

    /// Where the caller may put what boxes are to see, on the rungs where a
    /// box has no root of its own: there a [`Mount`](crate::Mount) is seen at
    /// its source, and only what every user may pass and read is seen at all.
    /// `None` where boxes see each mount at its target.
    ///
    /// The directory is the warden's: it goes with it.
    #[must_use]
    pub fn shared_directory(&self) -> Option<&Path> {
        self.shared.as_deref()
    }

    /// Asks for a box. Returns at once; its first event is [`Event::Ready`].
    ///
    /// # Errors
    /// [`Step::Warden`] when the warden is gone.
    pub fn create(&self, spec: &Spec) -> Result<Sandbox, Error> {
        self.ask_for(spec, false)
    }

    /// The same for a box whose denied system calls are told: its first event
    /// is [`Event::Explained`]. They take longer there, and nothing else does.
    ///
    /// # Errors
    /// [`Step::Warden`] when the warden is gone.
    pub fn create_explained(&self, spec: &Spec) -> Result<Sandbox, Error> {
        self.ask_for(spec, true)
    }

    /// Starts an interpreter that is forked into boxes of this launcher's rung. Returns
    /// at once; its first [`Zygote::word`] is that it serves.
    ///
    /// `spec` is what boxes see of the host, and how large its directories may be;
    /// `command` is the interpreter, which loads [`ADOPTER`](crate::ADOPTER) and serves
    /// [`CHANNEL`](crate::CHANNEL) with it.
    ///
    /// # Errors
    /// [`Step::Seal`], [`Step::Warden`] when the warden is gone.
    pub fn zygote(&self, spec: &Spec, command: &Command) -> Result<Zygote, Error> {
        let (ours, theirs) = protocol::pair().at(Step::Zygote)?;
        let (monitor, monitor_theirs) = protocol::pair().at(Step::Warden)?;
        let sealed = command.seal()?;
        protocol::send(
            &self.warden.socket,
            &Frame::CreateZygote(spec.clone()),
            &[theirs.as_fd(), monitor_theirs.as_fd(), sealed.as_fd()],
        )
        .at(Step::Warden)?;
        Zygote::new(ours, monitor, self.rung, self.own_uids)
    }

    fn ask_for(&self, spec: &Spec, explain: bool) -> Result<Sandbox, Error> {
        let (init, init_theirs) = protocol::pair().at(Step::Init)?;
        let (monitor, monitor_theirs) = protocol::pair().at(Step::Warden)?;
        protocol::send(
            &self.warden.socket,
            &Frame::Create(spec.clone(), explain),
            &[init_theirs.as_fd(), monitor_theirs.as_fd()],
        )
        .at(Step::Warden)?;
        // An async runtime watches these ends and wants them so; frames to a
        // box are few and small, so a full buffer is a fault, not a wait.
        rustix::io::ioctl_fionbio(&init, true).at(Step::Init)?;
        rustix::io::ioctl_fionbio(&monitor, true).at(Step::Warden)?;
        Ok(Sandbox::new(init, monitor))
    }
}

/// What a test leaves out; nothing in any other build.
fn left_out() -> Option<&'static str> {
    #[cfg(feature = "omit")]
    return Some(crate::omit::chosen());
    #[cfg(not(feature = "omit"))]
    None
}

fn first_word(socket: &OwnedFd) -> Result<(String, bool, PathBuf), Error> {
    let timeout = Timespec::try_from(START_TIMEOUT).ok();
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, timeout.as_ref()))
        .at(Step::StartWarden)?;
    if ready == 0 {
        return Err(Error::new(
            Step::StartWarden,
            io::Error::from(io::ErrorKind::TimedOut),
        ));
    }
    match protocol::receive(socket, false)? {
        Received::Frame(
            Frame::Hello {
                cgroup,
                own_uids,
                shared,
            },
            _,
        ) => Ok((cgroup, own_uids, shared)),
        Received::Frame(
            Frame::Failed {
                step,
                errno,
                detail,
            },
            _,
        ) => Err(failed(step, errno, detail)),
        _ => Err(Error::new(
            Step::StartWarden,
            io::Error::from(io::ErrorKind::UnexpectedEof),
        )
        .with("it ended before it was ready")),
    }
}

pub(crate) fn failed(step: Step, errno: i32, detail: String) -> Error {
    Error::new(step, io::Error::from_raw_os_error(errno)).with(detail)
}
