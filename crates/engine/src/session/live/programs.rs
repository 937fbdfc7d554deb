//! What a session asks of its box: programs, forked or executed, and work on files.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use sandbox::{Command, Exit, Step, Work};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Launched, Session, WayIn};
use crate::boxes::{STEP_TIMEOUT, late, unexpected};
use crate::error::Error;
use crate::session::SessionEnd;

impl Session {
    /// Launches a program, which may have standard input of its own.
    pub(in crate::session) async fn launch(
        &self,
        command: &Command,
        stdin: Option<BorrowedFd<'_>>,
    ) -> Result<Launched, Error> {
        let sandbox = &self.home.doors.sandbox;
        let send = |number, _| sandbox.launch(number, command, stdin, None);
        self.launch_by(send).await
    }

    /// Launches an interpreter with a channel: the first program of the box by a fork,
    /// where it can be.
    pub(in crate::session) async fn launch_kernel(
        &self,
        language: &str,
        command: &Command,
        channel: BorrowedFd<'_>,
    ) -> Result<Launched, Error> {
        let sandbox = &self.home.doors.sandbox;
        let limits = &self.terms.limits;
        let fork = |door: WayIn| door.warm.zygote.fork(door.entrance, limits);
        let is_it = |door: &WayIn| door.warm.language == language;
        let send = |number, door: Option<WayIn>| match door.filter(is_it).and_then(fork) {
            Some(arrival) => sandbox.launch_forked(number, command, channel, &arrival),
            None => sandbox.launch(number, command, None, Some(channel)),
        };
        self.launch_by(send).await
    }

    async fn launch_by(
        &self,
        send: impl FnOnce(u32, Option<WayIn>) -> Result<(), sandbox::Error>,
    ) -> Result<Launched, Error> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (launched, answer) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let sent = {
            let mut programs = self.programs();
            programs.launching.insert(number, launched);
            programs.running.insert(number, end);
            let door = programs.door.take();
            // Under the lock: nobody else's program comes between an order and this.
            send(number, door)
        };
        let streams = match sent {
            Ok(()) => self.answer(answer, "start a program").await,
            Err(error) => Err(error.into()),
        };
        let streams = streams.inspect_err(|_| {
            let mut programs = self.programs();
            programs.launching.remove(&number);
            programs.running.remove(&number);
        });
        let [stdout, stderr] = streams.map_err(|error| match error {
            // What runs in it already has taken all there is.
            Error::Sandbox(error)
                if matches!(error.step, Step::Fork | Step::Pipes)
                    || error.source.kind() == std::io::ErrorKind::OutOfMemory =>
            {
                Error::NoRoom {
                    reason: error.source.to_string(),
                }
            }
            other => other,
        })?;
        Ok(Launched {
            number,
            stdout,
            stderr,
            ended,
        })
    }

    /// Takes a process of the box for a program; `pid` is what programs call it.
    /// Returns the program's number, and who is told of its end.
    ///
    /// # Errors
    /// [`Error::NotForked`] where that is no process that its parent left.
    pub(in crate::session) async fn adopt(
        &self,
        pid: i32,
    ) -> Result<(u32, oneshot::Receiver<Exit>), Error> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (adopted, answer) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        {
            let mut programs = self.programs();
            programs.adopting.insert(number, adopted);
            programs.running.insert(number, end);
        }
        let done = match self.home.doors.sandbox.adopt(number, pid) {
            Ok(()) => self.answer(answer, "adopt a forked interpreter").await,
            Err(error) => Err(error.into()),
        };
        let done = done.inspect_err(|_| {
            let mut programs = self.programs();
            programs.adopting.remove(&number);
            programs.running.remove(&number);
        });
        match done {
            Ok(()) => Ok((number, ended)),
            Err(Error::Sandbox(error)) if error.step == Step::Adopt => Err(Error::NotForked {
                reasons: vec!["the second interpreter ended at once".to_owned()],
            }),
            Err(error) => Err(error),
        }
    }

    /// Begins work on files; how it ends comes later.
    pub(in crate::session) fn port(
        &self,
        work: Work,
        content: Option<BorrowedFd<'_>>,
    ) -> Result<oneshot::Receiver<Exit>, Error> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (end, ended) = oneshot::channel();
        let sent = {
            let mut programs = self.programs();
            programs.running.insert(number, end);
            programs.door = None;
            self.home.doors.sandbox.port(number, work, content)
        };
        if sent.is_err() {
            self.programs().running.remove(&number);
        }
        sent?;
        Ok(ended)
    }

    /// What the box has used up to now.
    pub(in crate::session) async fn measure(&self) -> Result<sandbox::Usage, Error> {
        let _one = self.measuring.lock().await;
        self.home.measure().await
    }

    pub(super) async fn answer<T>(
        &self,
        answer: oneshot::Receiver<Result<T, sandbox::Error>>,
        step: &'static str,
    ) -> Result<T, Error> {
        tokio::select! {
            answer = timeout(STEP_TIMEOUT, answer) => match answer {
                Ok(Ok(answer)) => Ok(answer?),
                Ok(Err(_dropped)) => Err(unexpected(step)),
                // A box that does not answer is not to be used again.
                Err(_late) => {
                    self.end(SessionEnd::Died);
                    Err(late(step))
                }
            },
            () = self.over.cancelled() => Err(self.gone(self.ended().unwrap_or(SessionEnd::Died))),
        }
    }
}
