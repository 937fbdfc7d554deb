//! What the commands of `xtask` and of `lab` share: other programs, Debian's
//! packages, the server's binary, and sums of what passed and failed.
//!
//! Holds no product code and is never shipped. What only attacks, emulates or
//! measures belongs into `lab`: `cargo xtask up` compiles all that is here.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to the person who typed them"
)]

pub mod apt;
pub mod build;
pub mod dist;
pub mod lab;
pub mod openapi;
pub mod process;
pub mod python;
pub mod tally;
