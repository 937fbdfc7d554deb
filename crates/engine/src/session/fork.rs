//! A second context with the memory of the first: its interpreter forks itself.
//!
//! The interpreter is asked over its channel and gets the descriptors of the second
//! along with that. What it answers is a program's word: the second exists when init
//! says so, and is an interpreter when it says that it is ready. One that answers with
//! anything else is ended, as after a cell.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pipe::PipeFlags;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::SessionEnd;
use super::cell::{HAND_OVER, KILL, turn};
use super::context::{Channel, Context, Kernel};
use super::contexts::invalid;
use super::frames::{self, Said, Went};
use super::live::Session;
use crate::boxes::broken_io;
use crate::error::Error;

/// How long an interpreter may take to fork itself: it looks at all that it has open.
const FORKING: Duration = Duration::from_secs(10);
/// Frames that may come before the answer, such as what a thread shows too late.
const STRAY: usize = 100;

/// A context that was forked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forked {
    /// Its name.
    pub(crate) name: String,
    /// What both interpreters share, for people.
    pub(crate) warnings: Vec<String>,
}

/// The engine's ends of an interpreter's descriptors, and the interpreter's.
struct Ends {
    channel: StdUnixStream,
    outputs: [OwnedFd; 2],
    theirs: [OwnedFd; 3],
}

/// Forks the interpreter of a context that has nothing else to do, after the cells that
/// wait for it. The second one has a context of its own.
///
/// # Errors
/// [`Error::NotForked`] with the reasons; [`Error::Invalid`] for its name;
/// [`Error::NoContext`] when it was ended meanwhile; [`Error::ContextBusy`],
/// [`Error::NoSession`], and our own failures.
pub(crate) async fn fork(
    session: &Session,
    source: &Context,
    name: Option<String>,
    patience: Duration,
) -> Result<Forked, Error> {
    let of_language = session.terms.languages.get(source.language());
    if let Some(reason) = of_language.and_then(|language| language.no_fork.clone()) {
        return Err(refused(vec![reason]));
    }
    let mut turn = turn(session, source, patience).await?;
    if turn.as_mut().is_none_or(|kernel| !kernel.is_alive()) {
        let none = "it has no interpreter yet: run a cell in it first";
        return Err(refused(vec![none.to_owned()]));
    }
    let Some(kernel) = turn.as_mut() else {
        return Err(crate::boxes::unexpected("fork an interpreter"));
    };
    let copy = session.add_context(name, source.language())?;
    let mut place = copy.turn.lock().await;
    let cell = source.state().cells;
    let split = tokio::select! {
        split = split(session, kernel, cell) => split,
        () = session.over.cancelled() => Err(Broken::Error(
            session.gone(session.ended().unwrap_or(SessionEnd::Died)),
        )),
    };
    let error = match split {
        Ok((second, warnings)) if !copy.over.is_cancelled() => {
            *place = Some(second);
            copy.continues(source);
            return Ok(Forked {
                name: copy.name().to_owned(),
                warnings,
            });
        }
        // Somebody ended its context meanwhile, and may wait for the turn no more.
        Ok((mut second, _)) => match session.end_kernel(&mut second).await {
            Ok(()) => session.no_context(copy.name()),
            Err(error) => error,
        },
        Err(Broken::Error(error)) => error,
        Err(Broken::Interpreter(how)) => match session.end_kernel(kernel).await {
            Ok(()) => {
                *turn = None;
                source.done(false, true);
                refused(vec![format!("the interpreter {how}, and was ended")])
            }
            Err(error) => error,
        },
    };
    session.remove_context(&copy);
    Err(error)
}

/// Why nothing was forked.
enum Broken {
    /// Told to the caller; the interpreter goes on.
    Error(Error),
    /// The interpreter did what none of ours does.
    Interpreter(&'static str),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn refused(reasons: Vec<String>) -> Error {
    Error::NotForked { reasons }
}

/// Has an interpreter fork itself, and takes the second one for a program of the box.
async fn split(
    session: &Session,
    kernel: &mut Kernel,
    cell: u64,
) -> Result<(Kernel, Vec<String>), Broken> {
    let ends = ends().map_err(broken_io("make an interpreter's channel"))?;
    let order = frames::fork(cell);
    let stream = &mut kernel.channel.stream;
    let sent = timeout(HAND_OVER, async {
        stream.write_all(&order).await?;
        hand(stream, ends.theirs.each_ref().map(|end| end.as_fd())).await
    });
    if !matches!(sent.await, Ok(Ok(()))) {
        return Err(Broken::Interpreter("took no order to fork"));
    }
    drop(ends.theirs);
    let answered = timeout(FORKING, answer(&mut kernel.channel, cell)).await;
    let (pid, warnings) = match answered {
        Ok(Some(Said::Forked(pid, warnings))) => (pid, warnings),
        Ok(Some(Said::Refused(reasons))) => return Err(refused(reasons).into()),
        _ => return Err(Broken::Interpreter("did not say whether it forked")),
    };
    let (program, ended) = session.adopt(pid).await?;
    let broken = broken_io("make an interpreter's channel");
    let mut second = Kernel {
        program,
        channel: Channel::new(ends.channel).map_err(broken)?,
        outputs: ends.outputs,
        ended,
    };
    let ready = timeout(FORKING, answer(&mut second.channel, cell)).await;
    if !matches!(ready, Ok(Some(Said::End(Went::Done)))) {
        // The first one is as it was.
        session
            .home
            .doors
            .sandbox
            .signal(program, KILL)
            .map_err(Error::from)?;
        let reason = "the second interpreter did not begin".to_owned();
        return Err(refused(vec![reason]).into());
    }
    Ok((second, warnings))
}

/// Returns what an interpreter says to an order, but for what is of earlier cells.
async fn answer(channel: &mut Channel, cell: u64) -> Option<Said> {
    for _ in 0..STRAY {
        let frame = channel.next().await.ok()?;
        if !matches!(frame.said, Said::Result(_) | Said::Failed(_)) {
            return (frame.cell == cell).then_some(frame.said);
        }
    }
    None
}

/// Makes the descriptors of a second interpreter.
fn ends() -> std::io::Result<Ends> {
    let (channel, theirs) = StdUnixStream::pair()?;
    let output = || {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // By /dev/stdout programs open it once more, and they are not who made it.
        // Nobody finds it but by the descriptors of this box.
        rustix::fs::fchmod(&theirs, Mode::from_raw_mode(0o666))?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok::<_, std::io::Error>((ours, theirs))
    };
    let (out, err) = (output()?, output()?);
    Ok(Ends {
        channel,
        outputs: [out.0, err.0],
        theirs: [theirs.into(), out.1, err.1],
    })
}

/// Sends descriptors, with a byte that they come along with.
async fn hand(stream: &UnixStream, fds: [BorrowedFd<'_>; 3]) -> std::io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            rustix::net::sendmsg(stream, &[IoSlice::new(b"f")], &mut ancillary, flags)?;
            Ok(())
        })
        .await
}

impl Session {
    /// The context that is forked where none is named: the only one.
    ///
    /// # Errors
    /// [`Error::NoContext`], [`Error::Invalid`].
    pub(crate) fn to_fork(&self, name: Option<&str>) -> Result<Arc<Context>, Error> {
        let mut found = self.named(name)?;
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(invalid(
                "context",
                "is missing, and the session has none",
                "Run a cell first.",
            )
            .into()),
            (Some(last), false) => {
                let names = found.iter().map(|one| one.name());
                let names: Vec<&str> = names.chain([last.name()]).collect();
                let cure = format!("Name one of: {}.", names.join(", "));
                Err(invalid("context", "is missing", &cure).into())
            }
        }
    }
}
