//! The way to a ChatGPT that calls, step by step with the person at the terminal:
//! asks for the tunnel's id and key, keeps the key where the server finds it,
//! waits for the first poll and the first call, and says what is wrong meanwhile.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::chatgpt::{last_words, steps};
use super::facts::{FACTS, StepGroup};
use super::person::Person;
use super::step::shown;
use crate::cli::Failure;
use crate::cli::sight::{Obstacle, Sight, TunnelPlan, Uses};
use crate::config::value;
use crate::exit_code::Exit;
use crate::tunnel::Trouble;
use crate::{store, tunnel};

/// How often the server is looked at while somebody waits.
const LOOK: Duration = Duration::from_millis(500);

/// How long something keeps the tunnel closed before it is told.
const LASTS: Duration = Duration::from_secs(5);

/// The longest that is waited.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the same obstacle is examined again: the control plane may be asked.
const AGAIN: Duration = Duration::from_secs(15);

/// Leads a person through all that is left to do.
///
/// # Errors
/// When the terminal or the data directory fails.
pub(super) fn lead(
    person: &mut impl Person,
    mut tunnel: TunnelPlan,
    patience: Duration,
) -> Result<Exit, Failure> {
    person.say(&format!("\nBy {}.", FACTS.tunnel.summary))?;
    let [at_openai, here, _] = FACTS.tunnel.parts.as_slice() else {
        return Err(Failure::text(
            Exit::Failed,
            "pages.toml has other parts than three",
        ));
    };
    let mut number = 0;
    if !tunnel.is_open(&Sight::of(tunnel.home())) {
        if tunnel.id.is_none() {
            number += show(person, at_openai, &tunnel, number)?;
        }
        if !identify(person, &mut tunnel)? || !unlock(person, &tunnel)? {
            let again = match &tunnel.id {
                Some(id) => format!("connect chatgpt --tunnel {id}"),
                None => "connect chatgpt".to_owned(),
            };
            let again = tunnel.command(&again);
            person.say(&format!("\nThen run this again:\n\n      {again}"))?;
            return Ok(Exit::Public);
        }
        if !matches!(Sight::of(tunnel.home()), Sight::Tunnel { .. }) {
            number += show(person, here, &tunnel, number)?;
            person.say("\nWaiting for the server; Ctrl-C ends the waiting and nothing else.")?;
        }
    }
    wait(person, &tunnel, patience, number)
}

/// Shows the steps of a part, and returns how many they are.
fn show(
    person: &mut impl Person,
    part: &StepGroup,
    tunnel: &TunnelPlan,
    before: usize,
) -> Result<usize, Failure> {
    let steps = steps(part, &[], tunnel, &Sight::of(tunnel.home()));
    person.say(&format!("\n{}:\n{}", part.title, shown(&steps, before)))?;
    Ok(steps.len())
}

/// Asks for the tunnel's id where nobody named it; returns whether it is known.
fn identify(person: &mut impl Person, tunnel: &mut TunnelPlan) -> Result<bool, Failure> {
    while tunnel.id.is_none() {
        let Some(text) = person.ask("\nThe tunnel's id (tunnel_…), or Enter for later: ")? else {
            return Ok(false);
        };
        if text.is_empty() {
            return Ok(false);
        }
        match tunnel::id(&text) {
            Ok(id) => tunnel.call(id),
            Err(problem) => person.say(&format!("  ✗ that {problem}"))?,
        }
    }
    Ok(true)
}

/// Asks for the key where none is found, keeps it, and tries it; returns whether
/// there is one.
fn unlock(person: &mut impl Person, tunnel: &TunnelPlan) -> Result<bool, Failure> {
    // A server that runs has its key, which may be nowhere else.
    if matches!(Sight::of(tunnel.home()), Sight::Tunnel { .. }) {
        return Ok(true);
    }
    let file = tunnel.key_file();
    // A key that cannot be kept is not asked for.
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| *folder != tunnel.home() && !folder.is_dir()) {
        let folder = folder.display();
        person.say(&format!("\n  ✗ the key's file shall be in {folder}, which is not there: make it, or leave tunnel_key_file out"))?;
        return Ok(false);
    }
    if !tunnel.lacks_key() {
        let tried = match tunnel.bounds() {
            // What is there is the person's, and not replaced.
            Err(why) => {
                person.say(&format!("\n  ✗ {why}"))?;
                return Ok(false);
            }
            Ok(_) => tunnel.ask(),
        };
        return told(
            person,
            tried,
            &format!("put a new key into {}, then run this again", file.display()),
        );
    }
    loop {
        let question = format!(
            "\nThe API key (not shown; kept in {}), or Enter for later: ",
            file.display()
        );
        let Some(text) = person
            .ask_secret(&question)?
            .filter(|text| !text.is_empty())
        else {
            return Ok(false);
        };
        let key = match tunnel::Key::parse(&text) {
            _ if text.starts_with("codex_") => {
                person.say("  ✗ that is a token of this server; the key is from OpenAI's console, and begins with sk-")?;
                continue;
            }
            Err(problem) => {
                person.say(&format!("  ✗ {problem}"))?;
                continue;
            }
            Ok(key) => key,
        };
        let tried = tunnel.ask_with(&key);
        // A wrong key is not kept; one whose owner lacks a role may be right.
        if matches!(tried, Err(Trouble::Key(_))) {
            person.say("  ✗ OpenAI does not know this key. Paste it again.")?;
            continue;
        }
        store::make_home(tunnel.home())?;
        key.keep(&file).map_err(|error| {
            let text = format!(
                "failed to keep the key in {}: {error}. Make its folder writable for this user",
                file.display()
            );
            Failure::text(Exit::State, text)
        })?;
        return told(person, tried, "");
    }
}

/// Tells what came of trying the key; a tunnel that is not known needs another id.
fn told(
    person: &mut impl Person,
    tried: Result<String, Trouble>,
    hint: &str,
) -> Result<bool, Failure> {
    match tried {
        Ok(name) => person.say(&format!("  ✓ the key opens the tunnel \"{name}\""))?,
        Err(Trouble::Id(why)) => {
            person.say(&format!("\n  ✗ {why}; one just made takes half a minute"))?;
            return Ok(false);
        }
        Err(Trouble::Key(why)) => {
            person.say(&format!("\n  ✗ {why}; {hint}"))?;
            return Ok(false);
        }
        Err(why) => person.say(&format!("\n  ✗ {why}"))?,
    }
    Ok(true)
}

/// Waits until the tunnel is open and ChatGPT has called, and says what is wrong
/// meanwhile.
///
/// # Errors
/// When the terminal or the data directory fails.
pub(super) fn wait(
    person: &mut impl Person,
    tunnel: &TunnelPlan,
    patience: Duration,
    number: usize,
) -> Result<Exit, Failure> {
    let patience = patience.min(LONGEST);
    let until = Instant::now() + patience;
    if !opened(person, tunnel, until)? {
        return given_up(person, patience);
    }
    person.say("\n  ✓ the server asks OpenAI for work: the tunnel is open")?;
    if let Some(part) = FACTS.tunnel.parts.last() {
        show(person, part, tunnel, number)?;
    }
    let uses = Uses::of(tunnel.home())?;
    let before = uses.last()?;
    if let Some(last) = before.and_then(|last| jiff::Timestamp::from_second(last).ok()) {
        person.say(&format!("\n  ✓ ChatGPT has called, last at {last}."))?;
        return Ok(Exit::Success);
    }
    person.say("\nWaiting for ChatGPT's first call; Ctrl-C ends the waiting and nothing else.")?;
    while uses.last()?.is_none() {
        if Instant::now() >= until {
            person.say(
                "\n  ✗ ChatGPT has not called\n    → is the plugin made, with this very tunnel, and chosen in the chat? Is the ChatGPT workspace attached to the tunnel?",
            )?;
            return given_up(person, patience);
        }
        sleep(LOOK);
        // The server may have gone, or its tunnel been closed, meanwhile.
        if !opened(person, tunnel, until)? {
            return given_up(person, patience);
        }
    }
    person.say(&format!(
        "\n  ✓ ChatGPT has called: it is connected. From now on the server is started with:\n\n      {}\n\n{}",
        tunnel.start(),
        last_words(tunnel)
    ))?;
    Ok(Exit::Success)
}

/// Waits until the tunnel is open; returns whether it is. What keeps it closed is
/// told when it lasts, and at the end.
fn opened(person: &mut impl Person, tunnel: &TunnelPlan, until: Instant) -> Result<bool, Failure> {
    let mut sight = Sight::of(tunnel.home());
    let mut examine = Instant::now() + LASTS;
    let mut said = None;
    loop {
        let now = Instant::now();
        let over = now >= until;
        let is_open = tunnel.is_open(&sight);
        if is_open || over && said.is_some() {
            return Ok(is_open);
        }
        if now >= examine || over {
            let obstacle = tunnel.obstacle(&sight);
            if let Some(Obstacle { what, cure }) = &obstacle
                && said != obstacle
            {
                person.say(&format!("\n  … {what}\n    → {cure}"))?;
            }
            said = obstacle;
            examine = now + AGAIN;
            continue;
        }
        sleep(LOOK);
        let seen = Sight::of(tunnel.home());
        if seen != sight {
            sight = seen;
            examine = Instant::now() + LASTS;
        }
    }
}

fn given_up(person: &mut impl Person, patience: Duration) -> Result<Exit, Failure> {
    let time = value::show_duration(patience);
    person.say(&format!(
        "\nNot connected after {time}. Run this command again; `codex-server doctor` and the server's log have more."
    ))?;
    Ok(Exit::Public)
}

#[cfg(test)]
mod tests;
