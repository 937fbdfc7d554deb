//! The server's half: starts the warden and asks it for boxes.
//!
//! Boxes are talked to without blocking, so that an async caller can wait on
//! the descriptors itself. Asking for one blocks only while dozens of others
//! wait for the warden already.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::Shutdown;
use rustix::time::Timespec;

use crate::command::{Command, LateInput};
use crate::error::{At, Error, Step};
use crate::event::{Event, Report};
use crate::explain::Explanation;
use crate::porter::Work;
use crate::protocol::{self, Along, Frame, Received, Targets};
use crate::spec::Spec;
use crate::support::Isolation;
use crate::zygote::{Arrival, Entrance, Zygote};

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
        Ok(Sandbox {
            init,
            monitor,
            stops: Mutex::default(),
        })
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

/// A box. Dropping it kills everything in it and leaves nothing.
#[derive(Debug)]
pub struct Sandbox {
    init: OwnedFd,
    monitor: OwnedFd,
    stops: Mutex<Stops>,
}

/// What is known of stops, so that one which was taken back since is not told.
#[derive(Debug, Default)]
struct Stops {
    /// Whether programs are to be stopped.
    wanted: bool,
    /// Stops that init has not answered yet.
    open: u32,
}

impl Sandbox {
    /// Readable when [`Sandbox::event`] has something to give.
    #[must_use]
    pub fn events(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// Readable when [`Sandbox::report`] has something to give.
    #[must_use]
    pub fn reports(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }

    /// The next event of the box's init, if there is one.
    ///
    /// # Errors
    /// The step at which init failed; [`Step::Init`] when it is gone without
    /// a word, and then [`Sandbox::report`] tells of its end.
    pub fn event(&self) -> Result<Option<Event>, Error> {
        let malformed = || Error::new(Step::Frame, io::Error::from(io::ErrorKind::InvalidData));
        let (frame, fds) = match protocol::receive(&self.init, false)? {
            Received::Nothing => return Ok(None),
            Received::Closed => {
                let gone = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(Error::new(Step::Init, gone));
            }
            Received::Frame(frame, fds) => (frame, fds),
        };
        let event = match frame {
            Frame::Explained => {
                let [memory] = fds.try_into().map_err(|_| malformed())?;
                Event::Explained(Explanation::of(memory)?)
            }
            Frame::Ready { namespaces } => {
                let mut fds = fds.into_iter();
                let (workspace, temporary) = fds.next().zip(fds.next()).ok_or_else(malformed)?;
                let entrance =
                    (namespaces > 0).then(|| Entrance::of(usize::from(namespaces), fds.collect()));
                Event::Ready {
                    workspace,
                    temporary,
                    entrance: entrance.transpose()?,
                }
            }
            Frame::Started => {
                let [stdout, stderr] = fds.try_into().map_err(|_| malformed())?;
                Event::Started { stdout, stderr }
            }
            Frame::Exited(exit) => Event::Exited(exit),
            Frame::CopiedIn => Event::CopiedIn,
            Frame::Launched(program) => {
                let [stdout, stderr] = fds.try_into().map_err(|_| malformed())?;
                Event::Launched {
                    program,
                    stdout,
                    stderr,
                }
            }
            Frame::NotLaunched {
                program,
                step,
                errno,
                detail,
            } => Event::NotLaunched {
                program,
                error: failed(step, errno, detail),
            },
            Frame::Ended(program, exit) => Event::Ended { program, exit },
            Frame::Adopted(program) => Event::Adopted { program },
            Frame::Stopped => {
                let mut stops = self.stops();
                stops.open = stops.open.saturating_sub(1);
                if stops.wanted && stops.open == 0 {
                    self.tell_warden(&Frame::Asleep(true))?;
                }
                Event::Stopped
            }
            Frame::SelfTested(findings) => Event::SelfTested(findings),
            Frame::Failed {
                step,
                errno,
                detail,
            } => return Err(failed(step, errno, detail)),
            _ => return Err(malformed()),
        };
        Ok(Some(event))
    }

    /// The next report of the warden, if there is one.
    ///
    /// # Errors
    /// The step at which the box could not be made; [`Step::Warden`] when the
    /// warden is gone.
    pub fn report(&self) -> Result<Option<Report>, Error> {
        match protocol::receive(&self.monitor, false)? {
            Received::Nothing => Ok(None),
            Received::Frame(Frame::Usage(usage), _) => Ok(Some(Report::Usage(usage))),
            Received::Frame(Frame::Gone(usage), _) => Ok(Some(Report::Gone(usage))),
            Received::Frame(
                Frame::Failed {
                    step,
                    errno,
                    detail,
                },
                _,
            ) => Err(failed(step, errno, detail)),
            Received::Closed => Err(Error::new(
                Step::Warden,
                io::Error::from(io::ErrorKind::UnexpectedEof),
            )),
            Received::Frame(..) => Err(Error::new(
                Step::Frame,
                io::Error::from(io::ErrorKind::InvalidData),
            )),
        }
    }

    /// Hands init a program to run, alone: with its end everybody else in the box is
    /// killed. [`Event::Started`] and [`Event::Exited`] follow.
    ///
    /// # Errors
    /// [`Step::Command`] when it cannot be put into memory; [`Step::Init`]
    /// when init is gone.
    pub fn exec(&self, command: &Command) -> Result<(), Error> {
        let stdin = command.seal_stdin()?;
        self.start(command, stdin.as_ref().map(|fd| fd.as_fd()), None, None)
    }

    /// The same of a program that is started ahead and waits for the rest: it finds
    /// `channel` as descriptor [`CHANNEL`](crate::CHANNEL), and `stdin` may be
    /// [filled](LateInput::fill) later. What it then runs is [`Sandbox::copy_in`]'s to
    /// write. With an `arrival` it is the program that a zygote was asked for, or,
    /// should none come, an executed one.
    ///
    /// # Errors
    /// As of [`Sandbox::exec`].
    pub fn exec_waiting(
        &self,
        command: &Command,
        stdin: &LateInput,
        channel: BorrowedFd<'_>,
        arrival: Option<Arrival>,
    ) -> Result<(), Error> {
        self.start(command, Some(stdin.as_fd()), Some(channel), arrival)
    }

    fn start(
        &self,
        command: &Command,
        stdin: Option<BorrowedFd<'_>>,
        channel: Option<BorrowedFd<'_>>,
        arrival: Option<Arrival>,
    ) -> Result<(), Error> {
        let sealed = command.seal()?;
        let frame = Frame::Exec(Along {
            stdin: stdin.is_some(),
            channel: channel.is_some(),
            arrival: arrival.is_some(),
        });
        let mut fds = vec![sealed.as_fd()];
        fds.extend(stdin);
        fds.extend(channel);
        fds.extend(arrival.as_ref().map(Arrival::socket));
        protocol::send(&self.init, &frame, &fds).at(Step::Init)
    }

    /// Has init write a command's files, beside a program that waits for them;
    /// [`Event::CopiedIn`] follows.
    ///
    /// # Errors
    /// As of [`Sandbox::exec`].
    pub fn copy_in(&self, command: &Command) -> Result<(), Error> {
        let sealed = command.seal()?;
        protocol::send(&self.init, &Frame::CopyIn, &[sealed.as_fd()]).at(Step::Init)
    }

    /// Hands init a program to run beside others, under a number of the caller's that
    /// no living program has. [`Event::Launched`] or [`Event::NotLaunched`] follow, and
    /// [`Event::Ended`] at its end.
    ///
    /// The program finds `channel` as descriptor [`CHANNEL`](crate::CHANNEL). Its standard input is
    /// `stdin`, where there is one, instead of the command's.
    ///
    /// # Errors
    /// [`Step::Command`] when it cannot be put into memory; [`Step::Init`]
    /// when init is gone.
    pub fn launch(
        &self,
        program: u32,
        command: &Command,
        stdin: Option<BorrowedFd<'_>>,
        channel: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let sealed = command.seal()?;
        let own = match stdin {
            None => command.seal_stdin()?,
            Some(_) => None,
        };
        let stdin = stdin.or(own.as_ref().map(|fd| fd.as_fd()));
        let frame = Frame::Launch {
            program,
            along: Along {
                stdin: stdin.is_some(),
                channel: channel.is_some(),
                arrival: false,
            },
        };
        let mut fds = vec![sealed.as_fd()];
        fds.extend(stdin);
        fds.extend(channel);
        protocol::send(&self.init, &frame, &fds).at(Step::Init)
    }

    /// Has init take a process for a program that runs beside others, under a number of
    /// the caller's that no living program has. `pid` is what the box's programs call
    /// it; nobody has to believe who named it: init takes only its own children, which
    /// are the box's programs and those that their parents left.
    /// [`Event::Adopted`] or [`Event::NotLaunched`] follow, and [`Event::Ended`] at its
    /// end.
    ///
    /// # Errors
    /// [`Step::Init`] when init is gone.
    pub fn adopt(&self, program: u32, pid: i32) -> Result<(), Error> {
        protocol::send(&self.init, &Frame::Adopt { program, pid }, &[]).at(Step::Init)
    }

    /// Sends a signal to a program of [`Sandbox::launch`] and those of its
    /// descendants that are still of its process group. Nothing, where it has ended.
    ///
    /// # Errors
    /// [`Step::Init`] when init is gone.
    pub fn signal(&self, program: u32, signal: i32) -> Result<(), Error> {
        protocol::send(&self.init, &Frame::Signal { program, signal }, &[]).at(Step::Init)
    }

    /// Stops all programs, so that they use no more time; [`Event::Stopped`] follows.
    ///
    /// # Errors
    /// [`Step::Init`] when init is gone.
    pub fn stop(&self) -> Result<(), Error> {
        let mut stops = self.stops();
        stops.wanted = true;
        stops.open += 1;
        protocol::send(&self.init, &Frame::Stop, &[]).at(Step::Init)
    }

    fn stops(&self) -> MutexGuard<'_, Stops> {
        // Whole between any two statements.
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets stopped programs go on.
    ///
    /// # Errors
    /// [`Step::Warden`] when the box is gone, [`Step::Init`] when its init is.
    pub fn go_on(&self) -> Result<(), Error> {
        // The warden looks after them before they can do anything.
        let mut stops = self.stops();
        stops.wanted = false;
        self.tell_warden(&Frame::Asleep(false))?;
        protocol::send(&self.init, &Frame::GoOn, &[]).at(Step::Init)
    }

    /// Has work on the workspace's files done beside the programs, under a number like
    /// that of a program. The content of a [`Work::Put`] is read from `content`:
    /// pieces, each after its length (4 bytes, little-endian), and at last one of none.
    /// [`Event::Ended`] follows: its exit code is 0 or the number of the system's error.
    ///
    /// # Errors
    /// [`Step::Init`] when init is gone.
    pub fn port(
        &self,
        program: u32,
        work: Work,
        content: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let fds: Vec<BorrowedFd<'_>> = content.into_iter().collect();
        protocol::send(&self.init, &Frame::Port { program, work }, &fds).at(Step::Init)
    }

    /// Lets all other boxes have the processors first, or no more. Nothing where no
    /// cgroup shares them.
    ///
    /// # Errors
    /// [`Step::Warden`] when the warden, or the box, is gone.
    pub fn idle(&self, idle: bool) -> Result<(), Error> {
        self.tell_warden(&Frame::Idle(idle))
    }

    /// Has the box killed after so long from now on, whatever the server does, or
    /// never: in place of [`Spec::lifetime`].
    ///
    /// # Errors
    /// [`Step::Warden`] when the warden, or the box, is gone.
    pub fn live_on(&self, lifetime: Option<Duration>) -> Result<(), Error> {
        self.tell_warden(&Frame::LiveOn(lifetime))
    }

    fn tell_warden(&self, frame: &Frame) -> Result<(), Error> {
        protocol::send(&self.monitor, frame, &[]).at(Step::Warden)
    }

    /// Asks for the box's usage.
    ///
    /// # Errors
    /// [`Step::Warden`] when the warden, or the box, is gone.
    pub fn measure(&self) -> Result<(), Error> {
        self.tell_warden(&Frame::Measure)
    }

    /// Kills everything in the box; [`Report::Gone`] follows.
    ///
    /// # Errors
    /// [`Step::Warden`] when the warden, or the box, is gone.
    pub fn kill(&self) -> Result<(), Error> {
        self.tell_warden(&Frame::Kill)
    }

    pub(crate) fn self_test(&self, targets: Targets) -> Result<(), Error> {
        protocol::send(&self.init, &Frame::SelfTest(targets), &[]).at(Step::Init)
    }
}
