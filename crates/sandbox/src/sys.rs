//! The raw system calls that rustix has no safe form of. The crate's only unsafe.
//!
//! Each function is safe to call: its doc says what it relies on, and every
//! block says why that holds. Nothing here decides anything.
#![expect(unsafe_code, reason = "raw system calls, each with its safety note")]

mod listen;
mod memory;
mod mount;
mod process;
#[cfg(test)]
pub(crate) mod raw;
mod signal;
mod steps;

pub(crate) use listen::{is_filtered, next_call, refuse, seccomp_listen};
pub(crate) use memory::{fixed_memory, read_whole, sealed_memory, touch};
pub(crate) use mount::{Attributes, loopback_up, set_mount_attributes};
pub(crate) use process::{
    Child, CloneFlags, carry_out, children_cpu_time, clone_box, close_all_but, close_range, exec,
    exit_now, fork, give, restrict, seccomp_install, seize, unshare,
};
pub(crate) use signal::{
    child_signals, default_signals, drain_signals, ignore_signals, send_signal_to_all,
    send_signal_to_group,
};
pub(crate) use steps::Op;

/// The result of a libc call as an `io::Result`.
fn check(result: libc::c_long) -> std::io::Result<libc::c_long> {
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
