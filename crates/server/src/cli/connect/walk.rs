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
use crate::{store, tunnel};

/// How often the server is looked at while somebody waits.
const LOOK: Duration = Duration::from_millis(500);

/// How long something keeps the tunnel closed before it is told.
const LASTS: Duration = Duration::from_secs(5);

/// How often the same obstacle is examined again: the control plane may be asked.
const AGAIN: Duration = Duration::from_secs(15);

/// A use of the tunnel within this time is a call of now, in seconds. The store
/// notes uses once a minute.
const RECENT: i64 = 60;

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
            "chatgpt.toml has other parts than three",
        ));
    };
    let mut number = 0;
    if !Sight::of(tunnel.home()).is_open() {
        if tunnel.id.is_none() {
            number += show(person, at_openai, &tunnel, number)?;
        }
        let known = identify(person, &mut tunnel)? && unlock(person, &tunnel)?;
        if !matches!(Sight::of(tunnel.home()), Sight::Tunnel { .. }) {
            number += show(person, here, &tunnel, number)?;
        }
        if !known {
            person.say("\nThen run this command again.")?;
            return Ok(Exit::Public);
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
    let steps = steps(part, &[], tunnel);
    person.say(&format!("\n{}:\n{}", part.title, shown(&steps, before)))?;
    Ok(steps.len())
}

/// Asks for the tunnel's id where nobody named it; returns whether it is known.
fn identify(person: &mut impl Person, tunnel: &mut TunnelPlan) -> Result<bool, Failure> {
    while tunnel.id.is_none() {
        let Some(text) = person.ask("The tunnel's id (tunnel_…), or Enter to do this later: ")?
        else {
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
    while let Err(why) = tunnel.bounds() {
        let file = tunnel.key_file();
        if file.symlink_metadata().is_ok() {
            // What is there is the person's, and not replaced.
            person.say(&format!("  ✗ {why}"))?;
            return Ok(false);
        }
        let question = format!(
            "The API key, kept in {} for you alone and not shown, or Enter to do this later: ",
            file.display()
        );
        let Some(text) = person
            .ask_secret(&question)?
            .filter(|text| !text.is_empty())
        else {
            return Ok(false);
        };
        match tunnel::Key::parse(&text) {
            Err(problem) => person.say(&format!("  ✗ {problem}"))?,
            Ok(key) => {
                store::make_home(tunnel.home())?;
                key.keep(&file).map_err(|error| {
                    let text = format!("failed to keep the key in {}: {error}", file.display());
                    Failure::text(Exit::State, text)
                })?;
            }
        }
    }
    match tunnel.ask() {
        Ok(name) => person.say(&format!("  ✓ the key opens the tunnel \"{name}\""))?,
        Err(why) => person.say(&format!("  ✗ {why}"))?,
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
    let until = Instant::now() + patience;
    if !opened(person, tunnel, until)? {
        return given_up(person, patience);
    }
    person.say("\n  ✓ the server asks OpenAI for work: the tunnel is open")?;
    if let Some(part) = FACTS.tunnel.parts.last() {
        show(person, part, tunnel, number)?;
    }
    let uses = Uses::of(tunnel.home())?;
    let recent = jiff::Timestamp::now().as_second() - RECENT;
    person.say("\nWaiting for ChatGPT's first call; Ctrl-C ends the waiting and nothing else.")?;
    while uses.last()?.is_none_or(|last| last < recent) {
        if Instant::now() >= until {
            person.say(
                "\n  ✗ ChatGPT has not called\n    → is the plugin made, with this very tunnel, and chosen in the chat? Is the ChatGPT workspace attached to the tunnel?",
            )?;
            return given_up(person, patience);
        }
        sleep(LOOK);
    }
    person.say(&format!(
        "\n  ✓ ChatGPT has called: it is connected.\n\n{}",
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
        if sight.is_open() || over && said.is_some() {
            return Ok(sight.is_open());
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
        "\nGave up after {time}. Run this command again; `codex-server doctor` and the server's log have more."
    ))?;
    Ok(Exit::Public)
}

#[cfg(test)]
mod tests;
