//! `man`: the manual's pages, out of the definition that parses command lines:
//! one for the program and one for each of its commands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Args, Command, CommandFactory as _, ValueHint};
use clap_mangen::Man;

use super::{Cli, Failure, flags};
use crate::exit_code::{self, Exit};
use crate::output;

const AFTER_HELP: &str = "\
Examples:
  codex-server man run | man -l -
  codex-server man --out ~/.local/share/man/man1";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ManArgs {
    /// The command whose page to print, such as run or token create; else the program's own
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write all pages into this directory, over older ones
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

pub(super) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let pages = pages()?;
    if let Some(directory) = &args.out {
        write(directory, &pages)?;
        output::note(&format!(
            "{} pages written to {}",
            pages.len(),
            directory.display()
        ));
        return Ok(Exit::Success);
    }
    let mut name = vec!["codex-server"];
    name.extend(args.command.iter().map(String::as_str));
    let name = name.join("-");
    let page = pages.iter().find(|page| page.name == name);
    let page = page.ok_or_else(|| {
        let known: Vec<String> = pages
            .iter()
            .filter_map(|page| page.name.strip_prefix("codex-server-"))
            .map(|name| name.replace('-', " "))
            .collect();
        Failure::text(
            Exit::Usage,
            format!("there is no such command; there are: {}", known.join(", ")),
        )
    })?;
    output::bytes(&page.roff)?;
    Ok(Exit::Success)
}

/// A page of the manual.
struct Page {
    /// Such as `codex-server-run`.
    name: String,
    roff: Vec<u8>,
}

fn pages() -> io::Result<Vec<Page>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    // Gives each command its full name and what it inherits.
    command.build();
    let mut pages = Vec::new();
    collect(&command, "codex-server".to_owned(), &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, name: String, pages: &mut Vec<Page>) -> io::Result<()> {
    for child in command.get_subcommands() {
        collect(child, format!("{name}-{}", child.get_name()), pages)?;
    }
    let page = command
        .clone()
        .after_help(Resettable::Reset)
        .after_long_help(Resettable::Reset);
    let man = Man::new(page)
        .manual("Codex Server")
        .source(concat!("codex-server ", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    man.render(&mut roff)?;
    let serves = matches!(command.get_name(), "up" | "serve");
    let notes = command.get_after_long_help().or(command.get_after_help());
    if let Some(notes) = notes.filter(|_| !serves) {
        roff.extend(as_it_stands(&notes.to_string()).bytes());
    }
    if serves {
        roff.extend(settings_without_flag().bytes());
    }
    if name == "codex-server" {
        roff.extend(exit_status().bytes());
    }
    pages.push(Page { name, roff });
    Ok(())
}

/// What a server takes from its environment or `codex.toml` alone.
fn settings_without_flag() -> String {
    let entries = flags::without_flag().map(|key| {
        let (about, default) = (key.about, key.default);
        let text = format!("{about}. [default: {default}] [{}]", key.range());
        (format!("{}, in codex.toml {}", key.env(), key.name), text)
    });
    section("MORE SETTINGS", entries)
}

fn exit_status() -> String {
    let entries = exit_code::TABLE
        .iter()
        .map(|(exit, meaning)| (exit.code().to_string(), meaning.replace('`', "")));
    section("EXIT STATUS", entries)
}

/// A list of words, each with what it means.
fn section(title: &str, entries: impl Iterator<Item = (String, String)>) -> String {
    entries.fold(format!(".SH {title:?}\n"), |roff, (word, meaning)| {
        format!(
            "{roff}.TP\n\\&{}\n\\&{}\n",
            escaped(&word),
            escaped(&meaning)
        )
    })
}

/// Text in which nothing means anything to the formatter, but at its beginning.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
}

/// Examples and their like: lines stay lines, and nothing in them is a request
/// to the formatter.
fn as_it_stands(text: &str) -> String {
    let mut roff = ".SH NOTES\n.nf\n".to_owned();
    for line in text.lines() {
        let line = escaped(line);
        if line.starts_with('.') {
            roff.push_str("\\&");
        }
        roff.push_str(&line);
        roff.push('\n');
    }
    roff + ".fi\n"
}

fn write(directory: &Path, pages: &[Page]) -> Result<(), Failure> {
    let failed = |path: &Path, error: &io::Error| {
        Failure::text(
            Exit::Failed,
            format!("failed to write {}: {error}", path.display()),
        )
    };
    fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    for page in pages {
        let path = directory.join(format!("{}.1", page.name));
        fs::write(&path, &page.roff).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages().unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|page| page.name == name);
            let page = page.unwrap_or_else(|| panic!("no page {name}"));
            String::from_utf8(page.roff.clone()).unwrap()
        };
        for command in Cli::command().get_subcommands() {
            let page = text(&format!("codex-server-{}", command.get_name()));
            assert!(page.contains(".SH SYNOPSIS"), "{command}");
            // The program's own page leads to it.
            let name = command.get_name().replace('-', "\\-");
            assert!(
                text("codex-server").contains(&format!("codex\\-server\\-{name}(1)")),
                "{command}"
            );
        }
        assert!(
            text("codex-server-token-create")
                .contains("TOKEN=$(codex\\-server token create laptop)")
        );
        assert!(!text("codex-server-run").contains(".SH EXTRA"));
        assert!(text("codex-server-run").contains("\\-\\-timeout"));
        assert!(text("codex-server-serve").contains("CODEX_IDLE_SHUTDOWN"));
        assert!(text("codex-server-up").contains("\\&CODEX_MEMORY, in codex.toml memory"));
        assert!(!text("codex-server-run").contains("CODEX_QUEUE"));
        assert!(text("codex-server").contains(".TP\n\\&130\n"));
    }

    #[test]
    fn lines_are_no_requests() {
        let roff = as_it_stands(".x\n'a\\b' -c");
        assert_eq!(roff, ".SH NOTES\n.nf\n\\&.x\n\\(aqa\\eb\\(aq \\-c\n.fi\n");
    }
}
