//! `session`: sessions of a server from the command line, and a REPL in one.
//! Everything goes by the HTTP API; only the REPL can do without a server, and
//! then has one in its own process.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use super::run::remote::Named;
use super::{EveryFlags, Failure};
use crate::config::{Env, value};
use crate::exit_code::Exit;

mod cell;
mod command;
mod files;
mod life;
mod link;
mod own;
mod repl;
mod shown;

use link::Link;

const AFTER_HELP: &str = "\
Sessions are those of the server that --url or CODEX_URL names, else of the one that
runs with this data directory, and of the token in CODEX_TOKEN.

Examples:
  ID=$(codex-server session create)
  codex-server session run $ID -c 'x = 40'
  codex-server session run $ID -c 'x + 2'
  codex-server session put $ID data.csv
  codex-server session exec $ID -- wc -l data.csv
  codex-server session delete $ID
  codex-server session repl";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// List the sessions of the token
    List(ListArgs),
    /// Make a session and print its id
    Create(Box<CreateArgs>),
    /// Say what a session is now, and what its interpreters do
    Show(ShowArgs),
    /// End sessions, with all that runs in them and all their files
    Delete(DeleteArgs),
    /// Stop all programs of a session until the next call
    Pause(OneArgs),
    /// Let the programs of a paused session go on
    Resume(OneArgs),
    /// Stop the code that runs, as Ctrl-C does; the state stays
    Interrupt(ContextArgs),
    /// End interpreters; the next cell starts a fresh one, and files stay
    Restart(ContextArgs),
    /// Run code in a session, where it finds what the cells before left
    Run(Box<CellArgs>),
    /// Put a file into a session
    Put(PutArgs),
    /// Get a file out of a session
    Get(GetArgs),
    /// List files of a session
    Ls(LsArgs),
    /// Run a shell command in a session
    Exec(Box<ExecArgs>),
    /// Type code that runs cell by cell, in a session or without any server
    Repl(Box<repl::ReplArgs>),
}

/// Which server is asked.
#[derive(Debug, Args)]
struct At {
    /// The server at this address [env: CODEX_URL]
    #[arg(long, value_name = "URL", help_heading = "Server", value_hint = ValueHint::Url)]
    url: Option<String>,
    /// Token for that server; CODEX_TOKEN keeps it out of the process list
    #[arg(long, value_name = "TOKEN", help_heading = "Server")]
    token: Option<String>,
    #[command(flatten)]
    flags: EveryFlags,
}

impl At {
    fn link(&self, env: &Env) -> Result<Link, Failure> {
        let named = Named {
            url: self.url.as_deref(),
            token: self.token.as_deref(),
            flags: &self.flags.0,
        };
        Link::to_found(named, env)
    }
}

#[derive(Debug, Args)]
struct ListArgs {
    /// As the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// What a session is made with.
#[derive(Debug, Default, Args)]
struct Wanted {
    /// Language of its first interpreter; others are started when a cell names them
    #[arg(short, long)]
    language: Option<String>,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// How much memory it may use, files in it included, such as 512MiB
    #[arg(long, value_name = "SIZE", value_parser = value::bytes)]
    memory: Option<u64>,
    /// When it ends, used or not, such as 2h
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    ttl: Option<Duration>,
    /// How long it may be without a call before it is paused, such as 30m
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    idle_timeout: Option<Duration>,
    /// A variable of all its interpreters; NAME alone passes ours on
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// All that the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The session's id
    id: String,
    /// As the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The sessions' ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct OneArgs {
    /// The session's id
    id: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct ContextArgs {
    /// The session's id
    id: String,
    /// That interpreter alone
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    at: At,
}

/// How results are shown and kept.
#[derive(Debug, Clone, Args)]
struct Showing {
    /// The directory for pictures that the terminal cannot show [default: codex-output]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Only name the pictures
    #[arg(long, conflicts_with = "out")]
    no_out: bool,
    /// Show images in the terminal
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value_t,
        hide_default_value = true
    )]
    images: super::run::images::Images,
    /// Send a terminal every byte that the code prints, which it may obey
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("program").required(true).args(["file", "code"]),
    after_help = "The exit code is that of the code: 0, 1 after an error, 124 after a timeout, 130 after\nCtrl-C, which stops the code and keeps the state; 125 when it could not be run at all."
)]
struct CellArgs {
    /// The session's id
    id: String,
    /// The code's file, or - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The code itself
    #[arg(
        short = 'c',
        long = "code",
        value_name = "CODE",
        allow_hyphen_values = true
    )]
    code: Option<String>,
    /// Its language; else told by the file's ending, else that of the session
    #[arg(short, long)]
    language: Option<String>,
    /// The interpreter to run it in; else the first one of its language
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// A file to give it as standard input, or - for ours
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    stdin: Option<PathBuf>,
    /// How long it may take, such as 5 or 500ms
    #[arg(short, long, value_name = "TIME", value_parser = value::duration)]
    timeout: Option<Duration>,
    /// Print what the API answers, and exit with 0 however the code ended
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    showing: Showing,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct PutArgs {
    /// The session's id
    id: String,
    /// The file, or - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    local: PathBuf,
    /// Its path in the session; its own name when left out
    remote: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct GetArgs {
    /// The session's id
    id: String,
    /// The file's path in the session
    remote: String,
    /// Where to write it, or - for standard output; here, under its own name, when left out
    #[arg(value_hint = ValueHint::FilePath)]
    local: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct LsArgs {
    /// The session's id
    id: String,
    /// A directory in it
    path: Option<String>,
    /// Go into the directories there
    #[arg(long)]
    deep: bool,
    /// As the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A single word is a command as a shell takes it ('ls | wc -l'); several words are one\ncommand with its arguments, which the shell does not look into. The exit code is the\ncommand's; 125 when it could not be run at all."
)]
struct ExecArgs {
    /// The session's id
    id: String,
    /// The directory in the session to run it in
    #[arg(long, value_name = "DIR")]
    directory: Option<String>,
    /// A variable of its environment; NAME alone passes ours on
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A file to give it as standard input, or - for ours
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    stdin: Option<PathBuf>,
    /// How long it may take, such as 5 or 500ms
    #[arg(short, long, value_name = "TIME", value_parser = value::duration)]
    timeout: Option<Duration>,
    /// Send a terminal every byte that the command prints, which it may obey
    #[arg(long)]
    raw: bool,
    /// Print what the API answers, and exit with 0 however the command ended
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    words: Vec<String>,
}

pub(super) fn session(args: SessionArgs, env: &Env) -> Result<Exit, Failure> {
    // As for `run`: whoever calls must be able to tell our failures from the code's.
    let not_run = |failure| Failure {
        exit: Exit::NotRun,
        ..failure
    };
    match args.command {
        SessionCommand::List(args) => life::list(&args, env),
        SessionCommand::Create(args) => life::create(&args, env),
        SessionCommand::Show(args) => life::show(&args, env),
        SessionCommand::Delete(args) => life::delete(&args, env),
        SessionCommand::Pause(args) => life::pause(&args, "pause", env),
        SessionCommand::Resume(args) => life::pause(&args, "resume", env),
        SessionCommand::Interrupt(args) => life::in_context(&args, "interrupt", env),
        SessionCommand::Restart(args) => life::in_context(&args, "restart", env),
        SessionCommand::Run(args) => cell::run(&args, env).map_err(not_run),
        SessionCommand::Put(args) => files::put(&args, env),
        SessionCommand::Get(args) => files::get(&args, env),
        SessionCommand::Ls(args) => files::list(&args, env),
        SessionCommand::Repl(args) => repl::repl(&args, env),
        SessionCommand::Exec(args) => command::exec(&args, env).map_err(not_run),
    }
}
