//! `connect`: the steps that connect a client to this server, with the
//! addresses that hold right now, and whether the client gets through. Changes
//! nothing but what it is asked for: a token, the tunnel's key.

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
mod facts;
mod local;
mod person;
mod step;
mod walk;

use local::LocalGuide;

const TARGETS: &str = "\
codex-server connect chatgpt       ChatGPT, by OpenAI's tunnel: no public port needed
codex-server connect claude        Claude on the web and the desktop, by a public address and OAuth
codex-server connect claude-code   Claude Code, by MCP
codex-server connect codex         Codex: command line, editors and desktop, by MCP
codex-server connect cursor        Cursor, by MCP
codex-server connect vscode        VS Code, by MCP

Any other MCP client: docs/connect-mcp.md. Any other client that speaks HTTP or reads OpenAPI: docs/connect-chatgpt.md, \"Other ways in\".";

#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 8 when ChatGPT cannot reach the server yet.\n\nExamples:\n  codex-server connect\n  codex-server connect chatgpt\n  codex-server connect chatgpt --wait\n  codex-server connect chatgpt --by action --new-token\n  codex-server connect claude-code"
)]
pub(super) struct ConnectArgs {
    /// What to connect; leave it out for a list
    #[arg(value_enum)]
    target: Option<Client>,
    /// Make a token for it, named after it unless NAME is given, and show it this once
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, requires = "target")]
    #[expect(
        clippy::option_option,
        reason = "clap's form of a flag whose value may be left out"
    )]
    new_token: Option<Option<String>>,
    /// The way by which ChatGPT reaches the server; asked on a terminal, else the tunnel
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

/// A way by which ChatGPT reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// OpenAI's tunnel: no public port
    Tunnel,
    /// A public https address, and OAuth
    Address,
    /// An Action of a GPT, by a public https address (legacy)
    Action,
}

/// A client that can be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// ChatGPT, by OpenAI's tunnel or an Action of a GPT
    Chatgpt,
    /// Claude on the web and the desktop, by a public address and OAuth
    Claude,
    /// Claude Code, by MCP
    ClaudeCode,
    /// Codex of OpenAI, by MCP
    Codex,
    /// Cursor, by MCP
    Cursor,
    /// VS Code, by MCP
    Vscode,
}

pub(super) fn connect(args: &ConnectArgs, env: &Env) -> Result<Exit, Failure> {
    let Some(client) = args.target else {
        let names: Vec<String> = Client::value_variants()
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
    if client != Client::Chatgpt && (args.by.is_some() || args.wait.is_some()) {
        let problem =
            "--by and --wait are for chatgpt: the other clients call this server themselves";
        return Err(Failure::text(Exit::Usage, problem));
    }
    if client == Client::Claude && wanted.is_some() {
        let problem = "a page of this server asks for a token that you make first: codex-server token create claude";
        return Err(Failure::text(Exit::Usage, problem));
    }
    let known = known(&settings(&args.flags, env)?);
    match client {
        Client::Chatgpt => chatgpt::connect(args, &known, wanted.as_deref()),
        Client::Claude => address::connect(client, &known, args.json),
        client => on_this_machine(client, &known, wanted.as_deref(), args.json),
    }
}

/// Prints how a client that may run on this machine is connected.
fn on_this_machine(
    client: Client,
    known: &Known,
    wanted: Option<&str>,
    json: bool,
) -> Result<Exit, Failure> {
    let settings = &known.settings;
    let address = health::address(&known.here);
    let here = match address {
        Some(address) => format!("http://{address}"),
        None => local_url(&settings.config),
    };
    let answer = address.and_then(port::health);
    let is_open = settings.config.access == Access::Open;
    let token = match wanted {
        Some(name) if !is_open => Some(new_token(settings, name, &[Scope::Execute])?),
        _ => None,
    };
    let usual = client.word();
    let guide = LocalGuide {
        client,
        settings,
        here: &here,
        answers: answer.is_some_and(|health| our_version(&health).is_some()),
        is_open,
        token: token.as_ref(),
        name: wanted.unwrap_or(&usual),
    };
    output::text(&if json {
        format!("{:#}", guide.to_json())
    } else {
        guide.to_string()
    })?;
    Ok(Exit::Success)
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
                    "there is a token named {name:?} already; use that one, or codex-server token revoke {name}, or give another name: --new-token NAME"
                ),
            ),
            CreateError::Name(_) => Failure::new(Exit::Usage, error),
            CreateError::Random(_) => Failure::new(Exit::Failed, error),
            CreateError::Store(_) => Failure::new(Exit::State, error),
        })
    })
}
