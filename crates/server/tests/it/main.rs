//! Integration tests: documents made in this process, and the real binary on
//! a port of its own, spoken to over plain sockets.

mod bad_input;
mod clients;
mod connection;
mod http;
mod importer;
mod openapi;
mod rules;
mod support;

#[path = "../shared/processes.rs"]
mod processes;
