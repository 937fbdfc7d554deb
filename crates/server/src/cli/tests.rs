//! The command line as clap understands it.

use clap::CommandFactory as _;

use super::*;
use crate::config::keys::{self, Reach};

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn flags_arrive_by_setting() {
    let parse = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
        Command::Serve(flags) => flags.0.0,
        other => panic!("{other:?}"),
    };
    let flags = parse(&[
        "codex-server",
        "serve",
        "--port",
        "1",
        "--port=2",
        "--open",
        "--cors-origin",
        "*",
    ]);
    assert_eq!(flags["port"], ["1", "2"]);
    assert_eq!(flags["open"], ["true"]);
    assert_eq!(flags["cors_origin"], ["*"]);
    assert!(!flags.contains_key("host"));
    assert_eq!(
        parse(&["codex-server", "serve", "--open=false"])["open"],
        ["false"]
    );
    assert_eq!(
        parse(&["codex-server", "serve", "--port", "-1"])["port"],
        ["-1"]
    );
}

#[test]
fn every_flag_is_documented() {
    let page = include_str!("../../../../docs/configuration.md");
    for key in keys::all().filter(|key| key.reach != Reach::NoFlag) {
        assert!(
            page.contains(&format!("`--{}`", key.flag())),
            "{}",
            key.name
        );
    }
}

#[test]
fn wrong_command_lines_are_refused() {
    let check = |args: &[&str]| {
        let line = std::iter::once("codex-server").chain(args.iter().copied());
        assert!(Cli::try_parse_from(line).is_err(), "{args:?}");
    };
    check(&[]);
    check(&["srve"]);
    check(&["run"]);
    check(&["run", "a.py", "-c", "print(1)"]);
    check(&["run", "a.py", "--timeout", "ten"]);
    check(&["run", "a.py", "--port", "1"]);
    check(&["token", "create"]);
    check(&["token", "create", "a", "--scope", "root"]);
    check(&["token", "list", "--port", "1"]);
}
