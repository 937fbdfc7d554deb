//! The command line: its words, and the way from each to its command. What a
//! setting may be is not known here; [`config`](crate::config) decides.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Env, Settings, load};
use crate::exit_code::Exit;
use crate::output;

mod completions;
mod connect;
mod doctor;
mod flags;
mod health;
mod instance;
mod man;
pub(crate) mod mcp;
mod openapi;
mod packages;
mod peer;
mod port;
pub(crate) mod run;
mod serve;
mod session;
mod sight;
mod token;
mod up;

use flags::{EngineFlags, EveryFlags, ServeFlags};

const EXAMPLES: &str = "\
Examples:
  codex-server up                          start, and say how to use it
  codex-server run hello.py                run a file in the sandbox, without a server
  codex-server run -c 'print(2+2)'         run a line
  codex-server session repl                type Python that keeps its state from cell to cell
  codex-server packages add polars         let programs import it
  codex-server token create laptop         make a token; works while the server runs
  codex-server doctor                      what holds here, what is missing, how to get it
  codex-server doctor --public             can ChatGPT reach this server?
  codex-server connect chatgpt             leads through the steps, waits for the first call

Settings come from flags, then CODEX_* variables, then codex.toml, then defaults;
docs/configuration.md lists them. docs/cli.md lists commands and exit codes.";

/// Runs Python, JavaScript and Bash for ChatGPT, agents and people, in a
/// sandbox on this machine: no Docker, no cloud.
#[derive(Debug, Parser)]
#[command(name = "codex-server", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server unless it runs already, and say how to use it
    #[command(after_help = flags::elsewhere())]
    Up(ServeFlags),
    /// Start the server in the foreground, as a service unit would
    #[command(after_help = flags::elsewhere())]
    Serve(ServeFlags),
    /// Run a program in the sandbox, here or on a server
    Run(Box<run::RunArgs>),
    /// Make and use sessions, which keep variables and files between cells
    Session(session::SessionArgs),
    /// Make, list and revoke the tokens that callers need
    Token(token::TokenArgs),
    /// List, add and remove what programs find installed
    Packages(packages::PackagesArgs),
    /// Say what holds on this machine, what does not, and the cure
    Doctor(doctor::DoctorArgs),
    /// Connect a client: lead through the steps, or print them
    Connect(connect::ConnectArgs),
    /// Serve MCP on standard input and output, as clients start it
    Mcp(mcp::McpArgs),
    /// Say by the exit code whether the running server is healthy
    #[command(
        after_help = "Exits with 0 when it is, else with 1: what a container's health check wants."
    )]
    Health(EveryFlags),
    /// Print the OpenAPI document without starting anything
    Openapi(OpenapiArgs),
    /// Print what a shell needs to complete command lines
    Completions(completions::CompletionsArgs),
    /// Print a page of the manual, or write them all
    Man(man::ManArgs),
}

#[derive(Debug, Args)]
struct OpenapiArgs {
    /// The flattened document for ChatGPT's action editor
    #[arg(long)]
    actions: bool,
    /// YAML in place of JSON
    #[arg(long)]
    yaml: bool,
    #[command(flatten)]
    flags: ServeFlags,
}

/// Why a command failed, and the code to exit with.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    fn text(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            error: anyhow::Error::msg(message.into()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = if error.is_usage() {
            Exit::Usage
        } else {
            Exit::Config
        };
        Self::new(exit, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<crate::store::OpenError> for Failure {
    fn from(error: crate::store::OpenError) -> Self {
        Self::new(Exit::State, error)
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Self {
        Self::new(Exit::State, error)
    }
}

/// Parses a command line and runs it to its end.
pub fn run(args: impl IntoIterator<Item = OsString>, env: &Env) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => {
            let printed = answer.print();
            return match (answer.use_stderr(), printed) {
                (false, Ok(())) => Exit::Success,
                _ => Exit::Usage,
            };
        }
    };
    match dispatch(cli.command, env) {
        Ok(exit) => exit,
        Err(failure) => {
            // An error may quote its cause already; say each thing once.
            let mut told = failure.error.to_string();
            for cause in failure.error.chain().skip(1).map(ToString::to_string) {
                if !told.contains(&cause) {
                    told = format!("{told}: {cause}");
                }
            }
            output::note(&format!("error: {told}"));
            failure.exit
        }
    }
}

fn dispatch(command: Command, env: &Env) -> Result<Exit, Failure> {
    match command {
        Command::Up(flags) => up::up(settings(&flags, env)?, env),
        Command::Serve(flags) => serve::serve(settings(&flags, env)?),
        Command::Run(args) => run::run(&args, env),
        Command::Session(args) => session::session(args, env),
        Command::Token(args) => token::token(args, env),
        Command::Packages(args) => packages::packages(args, env),
        Command::Doctor(args) => doctor::doctor(&args, env),
        Command::Connect(args) => connect::connect(&args, env),
        Command::Mcp(args) => mcp::mcp(&args, env),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args),
        Command::Health(flags) => health::health(&flags, env),
        Command::Openapi(args) => {
            openapi::openapi(&settings(&args.flags, env)?, args.actions, args.yaml)
        }
    }
}

/// Resolves the configuration and says what the operator should hear about it.
fn settings<const REACH: u8>(flags: &flags::Given<REACH>, env: &Env) -> Result<Settings, Failure> {
    let mut settings = load(&flags.0, env)?;
    if let Some(program) = outside_path(env) {
        settings.program = program;
    }
    for warning in &settings.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(settings)
}

/// The path of this program, where a shell would not find it by its name alone.
fn outside_path(env: &Env) -> Option<String> {
    let own = std::env::current_exe().ok()?;
    let name = own.file_name()?;
    let found = std::env::split_paths(env.raw("PATH")?)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    let same = found.and_then(|file| file.canonicalize().ok()) == own.canonicalize().ok();
    (!same).then(|| own.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
