//! The settings of where things are: the server's own, and interpreters.

use std::path::PathBuf;

use super::{Key, Kind, Reach, form, key, outside_file};
use crate::config::value;

pub(super) const PLACES: &[Key] = &[
    outside_file(key(
        "home",
        Reach::Every,
        "$XDG_DATA_HOME/codex-server, else ~/.local/share/codex-server",
        Kind::Text(form("PATH", "a directory"), |s, v| {
            s.config.home = PathBuf::from(v);
            Ok(())
        }),
        "Where the server keeps its state: database, artifacts, runtimes",
    )),
    outside_file(key(
        "config",
        Reach::Every,
        "codex.toml in the data directory, if there is one",
        Kind::Text(form("PATH", "a file"), |s, v| {
            s.file = Some(PathBuf::from(v));
            Ok(())
        }),
        "The file to read settings from",
    )),
    key(
        "search_path",
        Reach::Engine,
        "$PATH, then the places of pyenv, uv, nvm and the like",
        Kind::Text(form("PATH", "directories joined by colons"), |s, v| {
            s.config.switchers = None;
            s.config.search_path = std::env::split_paths(v)
                .filter(|p| !p.as_os_str().is_empty())
                .collect();
            Ok(())
        }),
        "Where interpreters are looked for",
    ),
    key(
        "interpreter",
        Reach::Engine,
        "the first that will do in `search_path`",
        Kind::List(
            form(
                "LANGUAGE=FILE",
                "LANGUAGE=FILE, such as python=/opt/py/bin/python3",
            ),
            |s, v| {
                s.config.interpreters.push(value::interpreter(v)?);
                Ok(())
            },
        ),
        "The interpreter of a language; further ones of it are its other versions",
    ),
    key(
        "minimal",
        Reach::Serve,
        "false",
        Kind::Switch(|s, v| s.config.minimal = v),
        "Whether `up` leaves the packages out; those that are installed stay",
    ),
];
