//! Making a zygote: the process of an interpreter that is forked into boxes.
//!
//! It is no box: it has no user namespace, and its pid namespace is the host's, since
//! only so may it enter those of boxes. Its uid owns the boxes' user namespaces, so
//! whoever runs code in it could enter every box: it must never get anything of a
//! user's. It has no capability, sees the files of its interpreter alone, and dies with
//! the warden.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use rustix::thread::{Gid, Uid};

use super::Warden;
use super::create::offer_to_oom_killer;
use super::ground::Ground;
use super::live::{Kind, LiveBox, Phase};
use crate::command::Command;
use crate::confine::give_up;
use crate::error::{At, Error, Step};
use crate::idmap::HostIds;
use crate::init::{CHANNEL, exec_of};
use crate::spec::Spec;
use crate::sys::{self, Child, CloneFlags};
use crate::uids::Awaited;
use crate::{landlock, lockdown, mount};

/// Namespaces of its own. Not of pids: those of boxes must be below its own.
const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET) as u64;

impl Warden {
    /// Makes a zygote. Gives its monitor back when that fails.
    pub(super) fn create_zygote(
        &mut self,
        spec: &Spec,
        socket: &OwnedFd,
        monitor: OwnedFd,
        command: &OwnedFd,
    ) -> Result<(), (Error, OwnedFd)> {
        match self.start_zygote(spec, socket, command) {
            Ok((init, lifeline)) => {
                self.boxes.push(LiveBox {
                    phase: Phase::Alive,
                    init: Some(init),
                    _lifeline: lifeline,
                    monitor,
                    kind: Kind::Namespaced { cgroup: None },
                    slot: None,
                    deadline: None,
                    asleep: false,
                    killed: false,
                });
                Ok(())
            }
            Err(error) => Err((error, monitor)),
        }
    }

    fn start_zygote(
        &self,
        spec: &Spec,
        socket: &OwnedFd,
        command: &OwnedFd,
    ) -> Result<(Awaited, OwnedFd), Error> {
        let Ground::Namespaces { host_ids, .. } = &self.ground else {
            let unsupported = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(Error::new(Step::Zygote, unsupported).with("boxes have no namespaces"));
        };
        let sources = mount::open(&spec.mounts)?;
        // Only held: a zygote dies with the warden by a signal.
        let (lifeline, _) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Zygote)?;
        let warden = rustix::process::getpid();
        let flags = CloneFlags {
            namespaces: NAMESPACES,
        };
        let init = match sys::clone_box(flags, None).at(Step::Zygote)? {
            Child::Me => {
                let needed = sources.iter().filter_map(mount::Source::fd);
                let error = sys::close_all_but(needed.chain([socket, command]))
                    .at(Step::CloseFds)
                    .and_then(|()| confine(spec, &sources, host_ids, warden))
                    .and_then(|()| start_program(socket, command))
                    .err();
                if let Some(error) = error {
                    super::log(&error);
                }
                sys::exit_now(1)
            }
            Child::Pid(pid, Some(fd)) => Awaited::with(pid, fd),
            Child::Pid(pid, None) => Awaited::of(pid)?,
        };
        if let Err(error) = offer_to_oom_killer(init.pid) {
            super::log(&error);
        }
        Ok((init, lifeline))
    }
}

/// Takes from this process all but what a zygote needs: its files, its socket, and its
/// uid.
fn confine(
    spec: &Spec,
    sources: &[mount::Source],
    host_ids: &HostIds,
    warden: Pid,
) -> Result<(), Error> {
    // The boxes' programs are its copies, and no limit can be raised again: it has none
    // of its own but this.
    mount::enter(sources, &spec.limits, false)?;
    if let Some(id) = host_ids.zygote() {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        rustix::thread::set_thread_groups(&[]).at(Step::Identity)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::Identity)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::Identity)?;
    }
    give_up(lockdown::unprivileged_for_good())?;
    give_up(lockdown::powerless())?;
    if host_ids.zygote().is_none() {
        // Of the same user as the server.
        landlock::scope_signals()?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Step::DeathSignal)?;
    // Had the warden died before, nobody would ever end it.
    if rustix::process::getppid() != Some(warden) {
        sys::exit_now(1);
    }
    Ok(())
}

/// Becomes the interpreter. Returns only when that fails.
fn start_program(socket: &OwnedFd, command: &OwnedFd) -> Result<(), Error> {
    let command = Command::unseal(command.as_fd())?;
    // Of the kinds that a program's streams have: nothing to read, and pipes.
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .at(Step::StandardStreams)?;
    let (_, output) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Step::Pipes)?;
    rustix::stdio::dup2_stdin(&nothing).at(Step::StandardStreams)?;
    rustix::stdio::dup2_stdout(&output).at(Step::StandardStreams)?;
    rustix::stdio::dup2_stderr(&output).at(Step::StandardStreams)?;
    sys::give(socket, CHANNEL).at(Step::Zygote)?;
    sys::default_signals();
    Err(exec_of(&command)?)
}
