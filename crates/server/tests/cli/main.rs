//! The real binary, as people and service units call it: exit codes, what
//! goes to which stream, and what several processes see of each other.
#![expect(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod commands;
mod connecting;
mod generated;
mod packages;
mod remote;
mod repl;
mod running;
mod serving;
mod sessions;
mod support;
mod terminal;
mod tokens;

#[path = "../shared/processes.rs"]
mod processes;

#[path = "../shared/server.rs"]
mod server;
