//! A box as the server holds it: what it may be asked, and what it says. Never blocks.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::command::{Command, LateInput};
use crate::error::{At, Error, Step};
use crate::event::{Event, Report};
use crate::explain::Explanation;
use crate::launcher::failed;
use crate::porter::Work;
use crate::protocol::{self, Along, Frame, Received, Targets};
use crate::zygote::{Arrival, Entrance};

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
    /// The box behind these sockets, of its init and of the warden.
    pub(crate) fn new(init: OwnedFd, monitor: OwnedFd) -> Self {
        Self {
            init,
            monitor,
            stops: Mutex::default(),
        }
    }

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
        self.launch_from(program, command, stdin, channel, None)
    }

    /// The same of a box's first program, which is the one that a zygote was asked for,
    /// or, should none come, an executed one. Nothing of the box may have been told to
    /// init between the zygote's order and this.
    ///
    /// # Errors
    /// As of [`Sandbox::launch`].
    pub fn launch_forked(
        &self,
        program: u32,
        command: &Command,
        channel: BorrowedFd<'_>,
        arrival: &Arrival,
    ) -> Result<(), Error> {
        self.launch_from(program, command, None, Some(channel), Some(arrival))
    }

    fn launch_from(
        &self,
        program: u32,
        command: &Command,
        stdin: Option<BorrowedFd<'_>>,
        channel: Option<BorrowedFd<'_>>,
        arrival: Option<&Arrival>,
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
                arrival: arrival.is_some(),
            },
        };
        let mut fds = vec![sealed.as_fd()];
        fds.extend(stdin);
        fds.extend(channel);
        fds.extend(arrival.map(Arrival::socket));
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
