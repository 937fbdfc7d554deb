//! The `codex-server` binary: becomes the warden or an init if it was started
//! as one, else runs the command line. Does nothing before that is decided.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use codex_server::cli;
use codex_server::config::Env;

fn main() -> ExitCode {
    // First of all: a warden must not have parsed, allocated or opened anything.
    sandbox::enter();
    cli::run(std::env::args_os(), &Env::of_process()).into()
}
