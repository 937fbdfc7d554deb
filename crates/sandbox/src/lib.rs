//! Confines one process tree: namespaces, cgroups, Landlock, seccomp.
//!
//! Three processes share the work, all of them this binary:
//!
//! * the **launcher** in the server ([`launch`], [`Launcher`]), which only
//!   sends and receives frames;
//! * the **warden**, single-threaded and started before the server has
//!   threads, which holds the rights to make boxes and sees no user's data;
//! * an **init** in each box, PID 1 there where it has a pid namespace, which
//!   confines itself and only then reads what to run.
//!
//! A program that times out, runs out of memory or crashes is an [`Exit`] or
//! a [`Report`]; an [`Error`] always names a step of the sandbox that failed.
//! This crate knows the kernel. It knows no language, no HTTP and no clock but
//! the monotonic one. All unsafe code is in `sys`.
//!
//! Words: a *box* is a confined process tree; a *rung* is a level of
//! [`Isolation`]; to *self-test* is to attack a box from inside and say what held.
#![warn(missing_docs)]

mod cgroup;
mod claim;
mod command;
mod confine;
mod cure;
mod error;
mod event;
mod exit;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handle;
mod idmap;
mod init;
mod landlock;
mod launcher;
mod limits;
mod lockdown;
mod mount;
mod network;
mod omit;
mod porter;
mod probe;
mod protocol;
mod seccomp;
mod selftest;
mod spec;
mod support;
mod sys;
mod uids;
mod warden;
mod watch;
mod zygote;

pub use command::{Command, File, LateInput};
pub use error::{Error, Step};
pub use event::{Event, Report};
pub use exit::{Exit, How};
pub use explain::{Denials, DeniedCall, Explanation};
pub use handle::Sandbox;
pub use init::CHANNEL;
pub use launcher::Launcher;
pub use limits::{Limits, Usage};
#[cfg(feature = "omit")]
pub use omit::omit;
pub use porter::Work;
pub use probe::{Refusal, launch, probe};
pub use spec::{Mount, Spec, WORKSPACE};
pub use support::{Isolation, Layer, Support};
pub use zygote::{ADOPTER, Arrival, Entrance, Word, Zygote};

use std::os::fd::AsFd as _;

use rustix::process::{Resource, Rlimit};

/// A connection and a run take a few descriptors each, and many systems start
/// services with a soft limit of 1024. Boxes get a limit of their own.
fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Up to the hard limit is always allowed; were it not, the server still works.
    rustix::process::setrlimit(Resource::Nofile, raised).ok();
}

/// First statement of `main`.
///
/// Becomes the warden, and never returns, if that is what this process was
/// started as; else makes this process non-dumpable, so that nobody of the
/// same uid can read its memory, environment or descriptors.
#[expect(clippy::exit, reason = "the warden's whole life is this call")]
pub fn enter() {
    let mut args = std::env::args_os();
    if args
        .next()
        .is_some_and(|name| name == launcher::WARDEN_NAME)
    {
        let rung = args.next().and_then(|arg| arg.to_str()?.parse().ok());
        #[cfg(feature = "omit")]
        omit::omit(args.next().unwrap_or_default().to_str().unwrap_or_default());
        let code = match (rung, std::io::stdin().as_fd().try_clone_to_owned()) {
            (Some(rung), Ok(socket)) => warden::run(socket, rung),
            _ => 1,
        };
        std::process::exit(code);
    }
    raise_open_files();
    let quiet = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(quiet)
        .expect("prctl(PR_SET_DUMPABLE, 0) takes no memory and cannot be refused");
}
