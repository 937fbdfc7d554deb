//! ChatGPT: which way it takes, and the steps of the tunnel for who only reads
//! them. On a terminal [`walk`](super::walk) leads through them.

use std::time::Duration;

use serde_json::{Value, json};

use super::facts::{FACTS, StepGroup};
use super::person::{Onlooker, Person, Terminal};
use super::step::{Step, shown};
use super::{By, ClientKind, ConnectArgs, action, address, walk};
use crate::cli::Failure;
use crate::cli::doctor::Known;
use crate::cli::sight::{Obstacle, Sight, TunnelPlan};
use crate::config::{Env, value};
use crate::exit_code::Exit;
use crate::output;

/// How long a walk waits on a terminal: a change of roles takes half an hour.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// Connects ChatGPT by the way that is asked for, or else by the one that fits.
pub(super) fn connect(
    args: &ConnectArgs,
    known: &Known,
    token: Option<&str>,
    env: &Env,
) -> Result<Exit, Failure> {
    let terminal = !args.json && matches!(args.by, None | Some(By::Tunnel)) && Terminal::is_here();
    let tunnel = TunnelPlan::of(&known.settings);
    let by = match args.by {
        Some(By::Tunnel) if token.is_some() => {
            let problem = "the tunnel needs no token of a client's; --new-token is for --by action";
            return Err(Failure::text(Exit::Usage, problem));
        }
        Some(by) => by,
        None if token.is_some() => {
            let problem = "ChatGPT needs no token by the tunnel; for an Action (legacy) say --by action --new-token";
            return Err(Failure::text(Exit::Usage, problem));
        }
        None if tunnel.id.is_some() || !terminal => By::Tunnel,
        None => choose(&mut Terminal::take()?)?,
    };
    match (by, args.wait) {
        (By::Address, None) => address::connect(ClientKind::Chatgpt, known, args.json, env),
        (By::Action | By::Address, Some(_)) => {
            let problem =
                "--wait is for the tunnel: whether a public address answers is tried at once";
            Err(Failure::text(Exit::Usage, problem))
        }
        (By::Action, None) => action::connect(known, token, args.json),
        (By::Process | By::Http, _) => Err(Failure::text(
            Exit::Usage,
            "ChatGPT calls from OpenAI's machines; it takes --by tunnel or --by address",
        )),
        (By::Tunnel, _) if args.json => {
            let sight = Sight::of(tunnel.home());
            output::text(&format!("{:#}", to_json(&tunnel, &sight)))?;
            Ok(exit(&tunnel, &sight))
        }
        (By::Tunnel, wait) if terminal => {
            walk::lead(&mut Terminal::take()?, tunnel, wait.unwrap_or(PATIENCE))
        }
        (By::Tunnel, Some(wait)) => walk::wait(&mut Onlooker, &tunnel, wait, 0),
        (By::Tunnel, None) => {
            let sight = Sight::of(tunnel.home());
            output::text(&page(&tunnel, &sight))?;
            Ok(exit(&tunnel, &sight))
        }
    }
}

fn exit(tunnel: &TunnelPlan, sight: &Sight) -> Exit {
    if tunnel.is_open(sight) {
        Exit::Success
    } else {
        Exit::Public
    }
}

/// Asks which way ChatGPT shall take.
fn choose(person: &mut impl Person) -> Result<By, Failure> {
    person.say(&format!(
        "How shall ChatGPT reach this server?\n\n  1  {} (recommended)\n  2  {}\n  3  {}\n",
        FACTS.tunnel.summary, FACTS.address.summary, FACTS.action.summary
    ))?;
    loop {
        match person.ask("Which? [1] ")?.as_deref() {
            None | Some("" | "1") => return Ok(By::Tunnel),
            Some("2") => return Ok(By::Address),
            Some("3") => return Ok(By::Action),
            Some(_) => person.say("Type 1, 2 or 3.")?,
        }
    }
}

/// Returns the steps of a group that are needed, with what this server knows filled in.
pub(super) fn steps(
    part: &StepGroup,
    cases: &[&str],
    tunnel: &TunnelPlan,
    sight: &Sight,
) -> Vec<Step> {
    let (stop, server) = match sight {
        Sight::Tunnelless { pid, .. } => (format!("kill {pid}"), "running"),
        _ => (String::new(), "stopped"),
    };
    let cases: Vec<&str> = cases.iter().copied().chain([server]).collect();
    let key_file = tunnel.key_file();
    let folder = key_file.parent().unwrap_or(tunnel.home()).to_string_lossy();
    let key_folder = value::quoted(&folder).into_owned();
    let key_file = value::quoted(&key_file.to_string_lossy()).into_owned();
    let words = [
        ("test", FACTS.test.as_str()),
        ("tunnel", tunnel.id.as_deref().unwrap_or("its id")),
        ("start", &tunnel.start()),
        ("key_file", &key_file),
        ("key_folder", &key_folder),
        ("stop", &stop),
    ];
    part.steps(&cases, &words)
}

/// Returns the parts that are left to do.
fn left<'a>(tunnel: &TunnelPlan, sight: &Sight) -> &'a [StepGroup] {
    let parts = FACTS.tunnel.parts.as_slice();
    let done = match (sight, &tunnel.id) {
        _ if tunnel.is_open(sight) => parts.len() - 1,
        // It runs, and has its key: what is wrong is told.
        (Sight::Tunnel { .. }, _) => parts.len() - 1,
        (_, Some(_)) => 1,
        (_, None) => 0,
    };
    parts.get(done..).unwrap_or_default()
}

/// Returns the steps that are left, as a text.
fn page(tunnel: &TunnelPlan, sight: &Sight) -> String {
    let mut page = format!("By {}.\n", FACTS.tunnel.summary);
    page += &match tunnel.obstacle(sight) {
        None => "\n  ✓ the tunnel is open\n".to_owned(),
        Some(Obstacle { what, cure }) => format!("\n  ✗ {what}\n    → {cure}\n"),
    };
    let mut number = 0;
    for part in left(tunnel, sight) {
        let steps = steps(part, &["by hand"], tunnel, sight);
        page += &format!("\n{}:\n{}", part.title, shown(&steps, number));
        number += steps.len();
    }
    format!("{page}\n{}", last_words(tunnel))
}

/// Returns what is said last, whatever came before.
pub(super) fn last_words(tunnel: &TunnelPlan) -> String {
    format!(
        "Every member of the workspace who may use the tunnel may run code here; this closes it until the server is started again:\n{}\nOpenAI's pages are as of {}; when something does not work: docs/connect-chatgpt.md.\nBy an Action of a GPT (legacy): {}",
        tunnel.command("token revoke tunnel"),
        FACTS.checked,
        tunnel.command("connect chatgpt --by action"),
    )
}

fn to_json(tunnel: &TunnelPlan, sight: &Sight) -> Value {
    let obstacle = tunnel.obstacle(sight);
    let problems: Vec<Value> = obstacle
        .iter()
        .map(|one| json!({"name": "tunnel", "detail": one.what, "cure": one.cure}))
        .collect();
    let steps: Vec<Value> = left(tunnel, sight)
        .iter()
        .flat_map(|part| steps(part, &["by hand"], tunnel, sight))
        .map(|step| step.to_json())
        .collect();
    let state = match sight {
        Sight::Tunnel { state, .. } => Some(state),
        _ => None,
    };
    json!({
        "target": "chatgpt",
        "by": "tunnel",
        "ready": tunnel.is_open(sight),
        "exit_code": exit(tunnel, sight).code(),
        "problems": problems,
        "tunnel": {"id": tunnel.id, "state": state, "start": tunnel.start()},
        "test": FACTS.test,
        "steps": steps,
    })
}

#[cfg(test)]
pub(super) mod tests;
