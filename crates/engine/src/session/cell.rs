//! One cell: from its turn to its outcome.
//!
//! How a cell ended is for the kernel and the clock to say; its interpreter only claims
//! whether it was done or raised. A cell that does not stop when it is told to is ended
//! with its interpreter, and the state is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use sandbox::{Exit, File, How};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::SessionEnd;
use super::context::{Beginning, Context, Kernel, NoFrame};
use super::files;
use super::frames::{self, Said, Went};
use super::live::Session;
use crate::boxes::STEP_TIMEOUT;
use crate::captures::{Captures, waiting_in};
use crate::config::Bounds;
use crate::error::Error;
use crate::events::{Sink, Started};
use crate::executor::ended::since;
use crate::outcome::{CellOutcome, Outcome, Output, StageOutcome, Status, Usage};
use crate::pace::Pace;
use crate::shown::Shown;
use crate::verdict::{End, verdict};

/// From one interrupt of a cell that goes on to the next, and then to its end.
const ESCALATION: Duration = Duration::from_secs(1);
/// How long an interpreter may take to start, where its cell may not take longer.
const STARTING: Duration = Duration::from_secs(10);
/// How long an interpreter may take to read a cell.
pub(super) const HAND_OVER: Duration = Duration::from_secs(10);
/// How long what a cell wrote is read after its end.
const SETTLE: Duration = Duration::from_secs(2);
/// Frames that an interpreter may send for one cell: many times what anybody is shown.
const FRAMES: u32 = 100_000;
/// SIGINT and SIGKILL.
const INTERRUPT: i32 = 2;
pub(super) const KILL: i32 = 9;

/// What the first cell after a loss is told.
const AFRESH: &str = "the interpreter was started afresh: the state of earlier cells is lost, their files are still there";

/// A cell to run.
#[derive(Debug)]
pub(crate) struct CellJob {
    pub(crate) id: String,
    pub(crate) code: String,
    pub(crate) stdin: Vec<u8>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) files: Vec<File>,
    pub(crate) wall_time: Duration,
    pub(crate) started: SystemTime,
}

/// Why a cell was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Its time was up.
    Late,
    /// Its caller interrupted it.
    Interrupted,
    /// Its caller went away, or the server shuts down.
    Cancelled,
}

/// What became of a cell.
#[derive(Debug)]
struct Ended {
    how: How,
    /// Whether the interpreter lives on.
    alive: bool,
    stop: Option<Stop>,
    /// What its interpreter did that no interpreter of ours does.
    broke: Option<String>,
    over_memory: bool,
    wall_time: Duration,
}

/// How it came that a cell is over.
enum Over {
    /// Its interpreter says so.
    Went(Went),
    /// Its interpreter ended.
    Dead(Option<Exit>),
    /// Its interpreter did what none of ours does.
    Broke(String),
}

/// How a cell is told to stop: interrupted twice, then killed.
struct Stopping {
    why: Option<Stop>,
    /// When something is to be done next.
    next: Instant,
    /// Signals sent so far.
    sent: u32,
}

impl Stopping {
    fn at(deadline: Instant) -> Self {
        Self {
            why: None,
            next: deadline,
            sent: 0,
        }
    }

    fn begin(&mut self, why: Stop) {
        self.why = Some(why);
        self.next = Instant::now();
    }

    /// The signal whose time has come; `None` when the last one was of no use.
    fn signal(&mut self) -> Option<i32> {
        self.why.get_or_insert(Stop::Late);
        self.next = Instant::now()
            + if self.sent < 2 {
                ESCALATION
            } else {
                STEP_TIMEOUT
            };
        self.sent += 1;
        match self.sent {
            1 | 2 => Some(INTERRUPT),
            3 => Some(KILL),
            _ => None,
        }
    }
}

/// A cell in the middle of its run.
struct Running<'a> {
    session: &'a Session,
    context: &'a Context,
    captures: Captures,
    shown: Shown,
    /// Whether an interpreter was started in place of one that had ended.
    afresh: bool,
    gone: &'a CancellationToken,
}

/// Runs a cell whose turn it is, in the interpreter that there is or in one started for
/// it. `gone` is cancelled when nobody waits for it any more.
///
/// # Errors
/// Only our own failures, and a session that has ended.
pub(crate) async fn run(
    session: &Session,
    context: &Context,
    mut turn: Turn,
    job: CellJob,
    sink: Option<Sink>,
    gone: &CancellationToken,
) -> Result<Outcome, Error> {
    let Beginning {
        number,
        lost,
        interrupt,
    } = context.begin();
    let ended = Done {
        context,
        had: turn.is_some(),
        kernel: &mut turn,
    };
    let bounds = &session.terms.bounds;
    let mut warnings: Vec<String> = lost.then(|| AFRESH.to_owned()).into_iter().collect();
    let late = ended.kernel.as_ref().map(|kernel| late(kernel, bounds));
    if !job.files.is_empty() {
        files::write(session, job.files).await?;
    }
    if let Some(sink) = &sink {
        sink.started(told(session, context, &job.id));
    }
    let before = session.measure().await?;
    let mut running = Running {
        session,
        context,
        shown: Shown::new(sink.clone()),
        captures: Captures::new(bounds.output, sink, Pace::new(bounds.output_rate)),
        afresh: false,
        gone,
    };
    let frame = frames::run(number, &job.code, &job.stdin, &job.env);
    let cell = running.cell(ended.kernel, number, &frame, job.wall_time, &interrupt);
    let end = tokio::select! {
        end = cell => end?,
        () = session.over.cancelled() => {
            return Err(session.gone(session.ended().unwrap_or(SessionEnd::Died)));
        }
    };
    if let Some(end) = session.ended() {
        return Err(session.gone(end));
    }
    if !end.alive {
        *ended.kernel = None;
    }
    drop(ended);
    let used = since(session.measure().await?, before);
    let collected = files::changed(session, context.language()).await?;
    warnings.extend(collected.warnings);
    let (stage, warned) = judged(session, &end, used, running.captures.finish());
    warnings.extend(running.afresh.then(|| AFRESH.to_owned()));
    warnings.extend(warned);
    let mut shown = running.shown;
    warnings.extend(shown.warnings());
    let Started {
        id,
        language,
        version,
        isolation,
    } = told(session, context, &job.id);
    Ok(Outcome {
        id,
        status: stage.status,
        usage: stage.usage,
        stages: vec![stage],
        files: collected.files,
        language,
        version,
        isolation,
        warnings,
        denied_calls: None,
        started: job.started,
        results: shown.results(),
        cell: Some(CellOutcome {
            session: session.terms.id.clone(),
            context: context.name().to_owned(),
            number,
            exception: shown.exception,
            late: late.unwrap_or_default(),
        }),
    })
}

/// Notes at its end whether an interpreter is left.
struct Done<'a> {
    context: &'a Context,
    kernel: &'a mut Option<Kernel>,
    /// Whether there was one before.
    had: bool,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.context.done(self.kernel.is_some(), self.had);
    }
}

/// Takes what was written since the cell before.
fn late(kernel: &Kernel, bounds: &Bounds) -> [Output; 2] {
    let captures = Captures::new(bounds.output, None, Pace::new(bounds.output_rate));
    captures.take_now(kernel.outputs.each_ref());
    captures.finish()
}

fn told(session: &Session, context: &Context, id: &str) -> Started {
    let language = session.terms.languages.get(context.language());
    Started {
        id: id.to_owned(),
        language: context.language().to_owned(),
        version: language.map_or_else(String::new, |language| language.version.clone()),
        isolation: session.terms.isolation,
    }
}

impl Running<'_> {
    /// Has the interpreter run the cell, and starts one where there is none.
    async fn cell(
        &mut self,
        kernel: &mut Option<Kernel>,
        number: u64,
        frame: &[u8],
        wall_time: Duration,
        interrupt: &CancellationToken,
    ) -> Result<Ended, Error> {
        if let Some(old) = kernel
            && !old.is_alive()
        {
            // It ended between two cells, by itself or for others' memory.
            *kernel = None;
            self.afresh = true;
        }
        if kernel.is_none() {
            let launched = Kernel::launch(self.session, self.context.language()).await?;
            let fresh = kernel.insert(launched);
            let begun = Instant::now();
            // Ready when it says so, for a cell that nobody sent; an interrupt waits for
            // that, since there is nothing yet that could take it.
            let patience = STARTING.max(wall_time).min(STEP_TIMEOUT);
            let not_yet = CancellationToken::new();
            let ready = self.follow(fresh, 0, begun + patience, &not_yet).await?;
            if !ready.alive || ready.how != How::Exited(0) {
                return Ok(ready);
            }
        }
        let Some(kernel) = kernel else {
            return Err(crate::boxes::unexpected("start an interpreter"));
        };
        let begun = Instant::now();
        let patience = HAND_OVER.min(wall_time);
        let sent = timeout(patience, kernel.channel.stream.write_all(frame)).await;
        if !matches!(sent, Ok(Ok(()))) {
            let broke = "the interpreter took no more cells".to_owned();
            return self.break_off(kernel, None, broke, begun).await;
        }
        self.follow(kernel, number, begun + wall_time, interrupt)
            .await
    }

    /// Follows a cell to its end, however it comes.
    async fn follow(
        &mut self,
        kernel: &mut Kernel,
        number: u64,
        deadline: Instant,
        interrupt: &CancellationToken,
    ) -> Result<Ended, Error> {
        let begun = Instant::now();
        let step = crate::boxes::broken_io("read a cell's output");
        let [stdout, stderr] = &kernel.outputs;
        let stdout = stdout.try_clone().map_err(&step)?;
        let stderr = stderr.try_clone().map_err(&step)?;
        let mut reading = Box::pin(self.captures.read(stdout, stderr));
        let mut read = false;
        let mut stopping = Stopping::at(deadline);
        let mut frames = 0;
        let over = loop {
            let frame = tokio::select! {
                // What stops a cell comes first: a flood of frames is always ready.
                biased;
                () = interrupt.cancelled(), if stopping.why.is_none() => {
                    stopping.begin(Stop::Interrupted);
                    continue;
                }
                () = self.gone.cancelled(), if stopping.why.is_none() => {
                    stopping.begin(Stop::Cancelled);
                    continue;
                }
                () = sleep_until(stopping.next) => {
                    let Some(signal) = stopping.signal() else {
                        break Over::Broke("the interpreter did not end when it was killed".to_owned());
                    };
                    self.session.home.doors.sandbox.signal(kernel.program, signal)?;
                    continue;
                }
                frame = kernel.channel.next() => frame,
                () = &mut reading, if !read => { read = true; continue }
                exit = &mut kernel.ended => break Over::Dead(exit.ok()),
            };
            frames += 1;
            if frames > FRAMES {
                break Over::Broke("the interpreter answered without an end".to_owned());
            }
            match frame {
                // What a thread of an earlier cell shows comes too late.
                Ok(frame) if frame.cell < number => {}
                Ok(frame) if frame.cell > number => {
                    break Over::Broke("the interpreter answered for another cell".to_owned());
                }
                Ok(frame) => match frame.said {
                    Said::Result(result) => self.shown.add(result),
                    Said::Failed(told) => self.shown.fail(told),
                    Said::End(went) => break Over::Went(went),
                    Said::Forked(..) | Said::Refused(_) => {
                        break Over::Broke("the interpreter answered what nobody asked".to_owned());
                    }
                },
                // Most often since it is ending: its end says more.
                Err(NoFrame::Closed) => match timeout(ESCALATION, &mut kernel.ended).await {
                    Ok(exit) => break Over::Dead(exit.ok()),
                    Err(_) => break Over::Broke("the interpreter closed its channel".to_owned()),
                },
                Err(NoFrame::Malformed(error)) => {
                    break Over::Broke(format!("the interpreter answered with nonsense: {error}"));
                }
            }
        };
        self.settle(kernel, reading.as_mut(), read).await;
        let stop = stopping.why;
        match over {
            Over::Went(went) => Ok(Ended {
                how: match went {
                    Went::Done => How::Exited(0),
                    Went::Raised => How::Exited(1),
                    Went::Exited(code) => How::Exited(i32::from(code)),
                },
                alive: true,
                stop,
                broke: None,
                over_memory: false,
                wall_time: begun.elapsed(),
            }),
            Over::Dead(exit) => Ok(dead(exit, stop, None, begun)),
            Over::Broke(broke) => self.break_off(kernel, stop, broke, begun).await,
        }
    }

    /// Reads exactly what the pipes hold now that the cell is over: no more, so that no
    /// flood of what goes on holds it up.
    async fn settle(
        &self,
        kernel: &Kernel,
        mut reading: Pin<&mut (impl Future<Output = ()> + Send)>,
        read: bool,
    ) {
        self.captures.drain();
        if read {
            return;
        }
        let [out, err] = self.captures.read_so_far();
        let [stdout, stderr] = &kernel.outputs;
        let wanted = [out + waiting_in(stdout), err + waiting_in(stderr)];
        let settled = std::future::poll_fn(|cx| {
            let at_end = reading.as_mut().poll(cx).is_ready();
            let [out, err] = self.captures.read_so_far();
            if at_end || (out >= wanted[0] && err >= wanted[1]) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        // What is not read by then is told with the next cell.
        timeout(SETTLE, settled).await.ok();
    }

    /// Ends an interpreter that does what none of ours does.
    async fn break_off(
        &self,
        kernel: &mut Kernel,
        stop: Option<Stop>,
        broke: String,
        begun: Instant,
    ) -> Result<Ended, Error> {
        let doors = &self.session.home.doors;
        doors.sandbox.signal(kernel.program, KILL)?;
        let exit = timeout(STEP_TIMEOUT, &mut kernel.ended).await;
        Ok(dead(
            exit.ok().and_then(Result::ok),
            stop,
            Some(broke),
            begun,
        ))
    }
}

/// The end of a cell that was its interpreter's, too.
fn dead(exit: Option<Exit>, stop: Option<Stop>, broke: Option<String>, begun: Instant) -> Ended {
    Ended {
        how: exit.map_or(How::Signalled(KILL), |exit| exit.how),
        alive: false,
        stop,
        broke,
        over_memory: exit.is_some_and(|exit| exit.over_memory),
        wall_time: begun.elapsed(),
    }
}

/// Returns what is told of a cell's end, and the warnings that belong to it.
fn judged(
    session: &Session,
    end: &Ended,
    used: sandbox::Usage,
    [stdout, stderr]: [Output; 2],
) -> (StageOutcome, Vec<String>) {
    let verdict = verdict(End {
        how: end.how,
        timed_out: end.stop == Some(Stop::Late),
        cancelled: end.stop == Some(Stop::Cancelled),
        interrupted: end.stop == Some(Stop::Interrupted),
        memory_kills: used.oom_kills + u64::from(end.over_memory),
        refused_processes: used.forks_refused,
    });
    let mut warnings: Vec<String> = verdict.warning.into_iter().collect();
    if let Some(broke) = &end.broke {
        warnings.push(format!("{broke}, and was ended"));
    }
    if !end.alive {
        warnings.push(
            "the interpreter ended: the state of its cells is lost, their files are still there"
                .to_owned(),
        );
    }
    // An interpreter that ended by itself did not do what was asked.
    let silent = !end.alive && verdict.status == Status::Success;
    let measured = session.home.measured;
    let stage = StageOutcome {
        name: "cell".to_owned(),
        status: if silent {
            Status::Error
        } else {
            verdict.status
        },
        exit_code: verdict.exit_code,
        signal: verdict.signal,
        stdout,
        stderr,
        usage: Usage {
            wall_time: end.wall_time,
            cpu_time: measured.then_some(used.cpu_time),
            memory_peak: (used.memory_peak > 0).then_some(used.memory_peak),
        },
    };
    (stage, warnings)
}

/// The turn in a context: the right to run a cell in its interpreter.
pub(crate) type Turn = OwnedMutexGuard<Option<Kernel>>;

/// Waits for the turn in a context, in the order of the calls and at most `patience`.
/// Dropping the future leaves the queue.
///
/// # Errors
/// [`Error::ContextBusy`] when too many wait or the wait was too long,
/// [`Error::NoSession`] when the session ends meanwhile.
pub(crate) async fn turn(
    session: &Session,
    context: &Context,
    patience: Duration,
) -> Result<Turn, Error> {
    let waiting = context.wait()?;
    tokio::select! {
        turn = timeout(patience, Arc::clone(&context.turn).lock_owned()) => {
            turn.map_err(|_| waiting.too_long())
        }
        () = session.over.cancelled() => {
            Err(session.gone(session.ended().unwrap_or(SessionEnd::Died)))
        }
        () = context.over.cancelled() => Err(Error::NoContext {
            name: context.name().to_owned(),
            known: Vec::new(),
        }),
    }
}
