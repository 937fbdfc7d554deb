//! `connect`: the steps that connect a client to this server, with the
//! addresses that hold right now, and whether the client gets through. Changes
//! nothing but what it is asked for: a token, the tunnel's key, a client's file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::doctor::{Known, known, our_version};
use super::{Failure, ServeFlags, health, port, settings};
use crate::auth::{Scope, Token};
use crate::config::{Access, Env, Settings, value};
use crate::exit_code::Exit;
use crate::output;
use crate::public_url::local as local_url;
use crate::store::{CreateError, Store};

mod action;
mod address;
mod chatgpt;
mod client;
mod facts;
mod file;
mod local;
mod merge;
mod person;
mod step;
mod walk;
mod write;

use client::{ClientKind, Transport};
use local::LocalGuide;
use write::Plan;

/// How clients call this server.
const NAME: &str = "codex";
/// What they say that it does.
const ABOUT: &str = "Runs code in a sandbox";

const TARGETS: &str = "\
codex-server connect chatgpt       ChatGPT, by OpenAI's tunnel: no public port needed
codex-server connect claude        Claude on the web and the desktop, by a public address and OAuth

By MCP, as a process on the same machine or by HTTP:

codex-server connect claude-code   Claude Code
codex-server connect codex         Codex: command line, editors and desktop
codex-server connect cursor        Cursor
codex-server connect vscode        VS Code
codex-server connect windsurf      Windsurf
codex-server connect zed           Zed
codex-server connect gemini        Gemini CLI
codex-server connect lm-studio     LM Studio
codex-server connect goose         Goose
codex-server connect open-webui    Open WebUI, by HTTP alone
codex-server connect librechat     LibreChat, by HTTP alone

With --write it is put into the client's own file.
Any other MCP client: docs/connect-mcp.md. Any other client that speaks HTTP or reads OpenAPI: docs/connect-chatgpt.md, \"Other ways in\".";

#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 8 when ChatGPT or Claude cannot reach the server yet.\n\nExamples:\n  codex-server connect\n  codex-server connect chatgpt\n  codex-server connect chatgpt --wait\n  codex-server connect chatgpt --by action --new-token\n  codex-server connect claude-code\n  codex-server connect cursor --write\n  codex-server connect zed --write --by http --new-token"
)]
pub(super) struct ConnectArgs {
    /// What to connect; leave it out for a list
    #[arg(value_enum)]
    target: Option<ClientKind>,
    /// Make a token for it, named after it unless NAME is given, and show it this once
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, requires = "target")]
    #[expect(
        clippy::option_option,
        reason = "clap's form of a flag whose value may be left out"
    )]
    new_token: Option<Option<String>>,
    /// Put this server into the client's own file, or into FILE, and keep a copy of what was there
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, requires = "target")]
    #[expect(
        clippy::option_option,
        reason = "clap's form of a flag whose value may be left out"
    )]
    write: Option<Option<PathBuf>>,
    /// Take this server out of the client's own file, or of FILE, and keep a copy of what was there
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, requires = "target", conflicts_with_all = ["write", "new_token", "by", "json"])]
    #[expect(
        clippy::option_option,
        reason = "clap's form of a flag whose value may be left out"
    )]
    remove: Option<Option<PathBuf>>,
    /// The way by which the client reaches the server; for ChatGPT asked on a terminal, else the tunnel
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Wait so long until ChatGPT has called by the tunnel, and say what is wrong; on a terminal it waits unasked
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "30m", value_parser = value::duration, conflicts_with = "json")]
    wait: Option<Duration>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ServeFlags,
}

/// A way by which a client reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// ChatGPT: OpenAI's tunnel, no public port
    Tunnel,
    /// The public https address; ChatGPT and Claude sign in by OAuth
    Address,
    /// ChatGPT: an Action of a GPT, by a public https address (legacy)
    Action,
    /// Others: a process that the client starts on the same machine
    Process,
    /// Others: HTTP on the same machine
    Http,
}

pub(super) fn connect(args: &ConnectArgs, env: &Env) -> Result<Exit, Failure> {
    let Some(client) = args.target else {
        let names: Vec<String> = ClientKind::value_variants()
            .iter()
            .map(|client| client.word())
            .collect();
        if args.json {
            output::text(&format!("{:#}", json!({"targets": names})))?;
        } else {
            output::text(TARGETS)?;
        }
        return Ok(Exit::Success);
    };
    let wanted = args
        .new_token
        .as_ref()
        .map(|name| name.clone().unwrap_or_else(|| client.word()));
    if let Some(name) = &wanted {
        crate::auth::check_name(name).map_err(|problem| Failure::text(Exit::Usage, problem))?;
    }
    if client == ClientKind::Claude && wanted.is_some() {
        let problem = "a page of this server asks for a token that you make first: codex-server token create claude";
        return Err(Failure::text(Exit::Usage, problem));
    }
    if client != ClientKind::Chatgpt && args.wait.is_some() {
        let problem = "--wait is for chatgpt: the other clients call this server themselves";
        return Err(Failure::text(Exit::Usage, problem));
    }
    if (args.write.is_some() || args.remove.is_some()) && client.place().is_none() {
        let title = client.title();
        let problem = format!(
            "{title} is set up on its pages, not by a file; leave out --write and --remove"
        );
        return Err(Failure::text(Exit::Usage, problem));
    }
    let known = known(&settings(&args.flags, env)?);
    match (client, args.by) {
        (ClientKind::Chatgpt, _) => chatgpt::connect(args, &known, wanted.as_deref(), env),
        (ClientKind::Claude, None | Some(By::Address)) => {
            address::connect(client, &known, args.json, env)
        }
        (ClientKind::Claude, Some(_)) | (_, Some(By::Tunnel | By::Action)) => {
            let problem = format!(
                "{} has no such way; codex-server connect {} prints those that it has",
                client.title(),
                client.word()
            );
            Err(Failure::text(Exit::Usage, problem))
        }
        (client, by) => {
            let transport = transport(client, by, args)?;
            on_this_machine(args, client, transport, &known, wanted.as_deref(), env)
        }
    }
}

/// Returns the way of a client on this machine, where it is settled.
fn transport(
    client: ClientKind,
    by: Option<By>,
    args: &ConnectArgs,
) -> Result<Option<Transport>, Failure> {
    let title = client.title();
    match by {
        Some(By::Process) if !client.starts_processes() => {
            let problem = format!("{title} starts no process of yours; it takes --by http");
            Err(Failure::text(Exit::Usage, problem))
        }
        Some(By::Process) if args.new_token.is_some() => {
            let problem = "a process needs no token; --new-token is for --by http";
            Err(Failure::text(Exit::Usage, problem))
        }
        Some(By::Process) => Ok(Some(Transport::Process)),
        Some(_) => Ok(Some(Transport::Http)),
        None if args.write.is_none() => Ok(None),
        None if args.new_token.is_some() || !client.starts_processes() => Ok(Some(Transport::Http)),
        None => Ok(Some(Transport::Process)),
    }
}

/// Prints how a client that may run on this machine is connected, or does it.
fn on_this_machine(
    args: &ConnectArgs,
    client: ClientKind,
    transport: Option<Transport>,
    known: &Known,
    wanted: Option<&str>,
    env: &Env,
) -> Result<Exit, Failure> {
    let settings = &known.settings;
    let at = health::address(&known.here);
    let here = match (args.by, at) {
        (Some(By::Address), _) => settings.config.public_url.clone().ok_or_else(|| {
            let problem = "no public address is known; start the server with --public-url https://…, or say --by http";
            Failure::text(Exit::Public, problem)
        })?,
        (_, Some(address)) => format!("http://{address}"),
        (_, None) => local_url(&settings.config),
    };
    let answer = at.and_then(port::health);
    let answers = answer.is_some_and(|health| our_version(&health).is_some());
    if wanted.is_some() && args.by == Some(By::Address) && !answers {
        let problem = format!(
            "no codex-server runs here, and a token of this machine opens no other: make it where the server runs, codex-server token create {} --scope execute, and leave out --new-token",
            client.word()
        );
        return Err(Failure::text(Exit::Usage, problem));
    }
    let usual = client.word();
    let program = whole_path(&settings.program, env);
    let file = client.file(env);
    let mut guide = LocalGuide {
        client,
        transport,
        settings,
        program: &program,
        file: file.as_deref(),
        address: &here,
        answers,
        is_open: settings.config.access == Access::Open,
        token: None,
        name: wanted.unwrap_or(&usual),
    };
    let path = |named: &Option<PathBuf>| {
        let named = named.as_ref().map(|path| below_home(path, env));
        named.or_else(|| file.clone()).ok_or_else(|| {
            let problem = "HOME is not set, or no whole path; name the file: --write=FILE";
            Failure::text(Exit::Usage, problem)
        })
    };
    if let Some((named, place)) = args.remove.as_ref().zip(client.place()) {
        return write::remove(&guide, place, &path(named)?);
    }
    let plan = match args.write.as_ref().zip(client.place()) {
        Some((named, place)) => {
            let path = path(named)?;
            Some(Plan::of(&guide, place, &path, wanted.is_some())?)
        }
        None => None,
    };
    let token = match wanted {
        Some(name) if !guide.is_open => Some(new_token(settings, name, &[Scope::Execute])?),
        _ => None,
    };
    guide.token = token.as_ref();
    match plan {
        Some(plan) => plan.carry_out(&guide, args.json).inspect_err(|_| {
            if guide.token.is_some() {
                end_token(settings, guide.name);
            }
        }),
        None => {
            output::text(&if args.json {
                format!("{:#}", guide.to_json())
            } else {
                guide.to_string()
            })?;
            Ok(Exit::Success)
        }
    }
}

/// Returns the whole path of this program, which `program` names for a shell: a
/// client that was started from a menu has another `PATH`.
fn whole_path(program: &str, env: &Env) -> String {
    let found = if program.contains('/') {
        std::path::absolute(program).ok()
    } else {
        let folders = env.raw("PATH").map(std::env::split_paths);
        let mut paths = folders
            .into_iter()
            .flatten()
            .map(|folder| folder.join(program));
        paths.find(|path| path.is_absolute() && path.is_file())
    };
    let found = found.and_then(|path| path.to_str().map(str::to_owned));
    found.unwrap_or_else(|| program.to_owned())
}

/// Returns a path with the home in place of `~`, which shells leave after an `=`.
fn below_home(path: &Path, env: &Env) -> PathBuf {
    match (path.strip_prefix("~"), env.raw("HOME")) {
        (Ok(rest), Some(home)) => Path::new(home).join(rest),
        _ => path.to_owned(),
    }
}

/// Revokes a token that nobody has.
fn end_token(settings: &Settings, name: &str) {
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                let store = Store::open(&settings.config.home).await?;
                let ended = store.revoke_key(name).await;
                store.close().await;
                ended.map_err(|error| Failure::new(Exit::State, error))
            })
        });
    if ended.is_err() {
        output::note(&format!(
            "The token {name} was made, and nobody has it: codex-server token revoke {name}"
        ));
    }
}

fn new_token(settings: &Settings, name: &str, scopes: &[Scope]) -> Result<Token, Failure> {
    crate::store::make_home(&settings.config.home)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = Store::open(&settings.config.home).await?;
        let made = store.create_key(name, scopes).await;
        store.close().await;
        made.map_err(|error| match error {
            CreateError::Taken(_) => Failure::text(
                Exit::Failed,
                format!(
                    "there is a token named {name:?} already; use that one, or codex-server token revoke {name}, or give another name: --new-token=NAME"
                ),
            ),
            CreateError::Name(_) => Failure::new(Exit::Usage, error),
            CreateError::Random(_) => Failure::new(Exit::Failed, error),
            CreateError::Store(_) => Failure::new(Exit::State, error),
        })
    })
}
