//! The world's side of the code execution server: HTTP, command line, state.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod activity;
pub mod api;
pub mod app;
pub mod artifact;
pub mod auth;
pub mod cli;
pub mod config;
pub mod exit_code;
pub mod file_url;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hooks;
pub mod http;
mod mcp;
pub mod media;
mod oauth;
pub mod outbound;
pub mod output;
pub mod provision;
pub mod public_url;
pub mod rate;
mod runs;
#[cfg(test)]
mod shared_bounds;
pub mod store;
pub mod telemetry;
pub mod tunnel;

pub use http::serve;
