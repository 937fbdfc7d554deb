//! Integration tests: documents made in this process, and the real binary on
//! a port of its own, spoken to over plain sockets.

mod artifacts;
mod bad_input;
mod clients;
mod connection;
mod conversation;
mod events;
mod file_refs;
mod forms;
mod hooks;
mod http;
mod importer;
mod mcp;
mod mcp_forward;
mod mcp_stdio;
mod metrics;
mod oauth;
mod openapi;
mod rules;
mod sessions;
mod shares;
mod streaming;
mod support;
mod tunnel;

#[path = "../shared/processes.rs"]
mod processes;

#[path = "../shared/server.rs"]
mod server;
