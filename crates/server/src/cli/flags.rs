//! Flags out of the list of settings, so that neither can have what the
//! other has not. Values pass through as text; [`config`](crate::config)
//! checks them, whichever way they came.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::Flags;
use crate::config::keys::{self, Key, Kind, Reach};

/// Columns of a line of help.
const LINE: usize = 96;

/// The settings given as flags, for commands of that reach.
#[derive(Debug, Clone, Default)]
pub(super) struct Given<const REACH: u8>(pub(super) Flags);

/// Of every command.
pub(super) type EveryFlags = Given<{ Reach::Every as u8 }>;
/// Of commands that run code.
pub(super) type EngineFlags = Given<{ Reach::Engine as u8 }>;
/// Of commands that serve.
pub(super) type ServeFlags = Given<{ Reach::Serve as u8 }>;

fn of_reach(reach: u8) -> impl Iterator<Item = &'static Key> {
    keys::all().filter(move |key| key.reach as u8 <= reach)
}

/// The settings that no flag gives.
pub(super) fn without_flag() -> impl Iterator<Item = &'static Key> {
    keys::all().filter(|key| key.reach == Reach::NoFlag)
}

/// Where the settings are that a server has and its flags have not.
pub(super) fn elsewhere() -> String {
    let mut text = "More settings, by these variables or in codex.toml:".to_owned();
    let mut width = usize::MAX;
    for key in without_flag() {
        let name = key.env();
        if width.saturating_add(name.len()) > LINE {
            text.push_str("\n ");
            width = 1;
        }
        text.push(' ');
        text.push_str(&name);
        width += 1 + name.len();
    }
    text + "\nWhat they do: codex-server man serve | man -l -"
}

/// The flags' spelling by setting; clap wants names that live for ever.
static SPELLING: LazyLock<BTreeMap<&str, String>> =
    LazyLock::new(|| keys::all().map(|key| (key.name, key.flag())).collect());

fn argument(key: &'static Key) -> Arg {
    let arg = Arg::new(key.name)
        .long(SPELLING[key.name].as_str())
        .help(key.about)
        .long_help(format!(
            "{}.\n[default: {}] [env: {}] [{}]",
            key.about,
            key.default,
            key.env(),
            key.range()
        ))
        .help_heading("Settings");
    match key.kind {
        Kind::Switch(_) => arg
            .action(ArgAction::Append)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name(key.value_name()),
        // The last one counts, except for lists: wrappers can add their own.
        _ => arg
            .action(ArgAction::Append)
            .value_name(key.value_name())
            .allow_hyphen_values(true),
    }
}

impl<const REACH: u8> FromArgMatches for Given<REACH> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        for key in of_reach(REACH) {
            if let Some(values) = matches.get_many::<String>(key.name) {
                flags.0.insert(key.name, values.cloned().collect());
            }
        }
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<const REACH: u8> Args for Given<REACH> {
    fn augment_args(command: Command) -> Command {
        command.args(of_reach(REACH).map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
