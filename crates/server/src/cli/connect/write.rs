//! `connect CLIENT --write` and `--remove`: puts this server into the client's own
//! file, or takes it out, and says what was done and what is left to do.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::{NO_TOKEN, Place, TokenPlace, Transport};
use super::file::{ClientFile, FileError};
use super::local::LocalGuide;
use super::merge::{self, EntryChange, MergeError, MergeResult, NewEntry, merge};
use super::step::{Step, shown as steps_shown};
use crate::auth::Token;
use crate::cli::Failure;
use crate::config::value;
use crate::exit_code::Exit;
use crate::output;

/// A client's file that was read, and that may be written.
pub(super) struct Plan {
    place: Place,
    file: ClientFile,
}

impl Plan {
    /// Reads the client's file, so that nothing is made for one that cannot be
    /// changed.
    ///
    /// # Errors
    /// When it can't, with the cure.
    pub(super) fn of(
        guide: &LocalGuide<'_>,
        place: Place,
        path: &Path,
        token_follows: bool,
    ) -> Result<Self, Failure> {
        let title = guide.client.title();
        if path.to_str().is_none() {
            let problem = "the file's path is not UTF-8 text; name another: --write=FILE";
            return Err(Failure::text(Exit::Usage, problem));
        }
        let file = ClientFile::read(path).map_err(|error| by_hand(&error, guide))?;
        if file.text().is_none() && !place.may_be_new {
            let shown = file.path().display();
            let problem = format!(
                "there is no {shown}, and {title} needs more in it than this server; run this where it is, or name it: --write=FILE"
            );
            return Err(Failure::text(Exit::Failed, problem));
        }
        let plan = Self { place, file };
        // Whatever can be wrong with the text is wrong before a token is made, too.
        let merged = plan.merged(guide)?;
        let bearer = merged.entry.pointer("/headers/Authorization");
        let is_open = bearer.and_then(Value::as_str) == Some(&format!("Bearer {NO_TOKEN}"));
        if is_open && !token_follows {
            let problem = format!("{title} keeps its token in that file: say --new-token as well");
            return Err(Failure::text(Exit::Usage, problem));
        }
        Ok(plan)
    }

    fn merged(&self, guide: &LocalGuide<'_>) -> Result<MergeResult, Failure> {
        let entry = guide.entry();
        let question = guide.client.question(&entry);
        let is_our_url = |url: &str| is_our_url(url, guide);
        let wanted = NewEntry {
            syntax: self.place.syntax,
            key: self.place.key,
            entry: &entry,
            question: question.as_ref(),
            keeps_credentials: guide.token.is_none(),
            is_our_url: &is_our_url,
        };
        merge(self.file.text().unwrap_or_default(), &wanted).map_err(|refusal| {
            let path = self.file.path().display();
            let hint = match refusal {
                MergeError::Broken(_) => "mend it and run this again, or add",
                MergeError::Taken => "under another name, add",
                _ => "add",
            };
            let lines = guide.lines();
            let problem = format!(
                "{path} {refusal}; it was not changed. To do it by hand, {hint} this:\n\n{lines}"
            );
            Failure::text(Exit::Failed, problem)
        })
    }

    /// Writes the file, and tells.
    ///
    /// # Errors
    /// When the file is as it was.
    pub(super) fn carry_out(self, guide: &LocalGuide<'_>, json: bool) -> Result<Exit, Failure> {
        let merged = self.merged(guide)?;
        let copy = match merged.change {
            EntryChange::Nothing => None,
            _ => {
                let written = self.file.write(&merged.text);
                written.map_err(|error| by_hand(&error, guide))?
            }
        };
        let done = WriteReport {
            guide,
            path: self.file.path(),
            is_for_others: self.file.is_for_others(),
            merged: &merged,
            copy,
        };
        output::text(&if json {
            format!("{:#}", done.to_json())
        } else {
            done.text()
        })?;
        Ok(Exit::Success)
    }
}

/// Says whether an address is this server's: the one that clients are given, the
/// public one, or the same port of this machine by another name.
fn is_our_url(url: &str, guide: &LocalGuide<'_>) -> bool {
    let Some(base) = url.strip_suffix("/mcp") else {
        return false;
    };
    let config = &guide.settings.config;
    let local = ["127.0.0.1", "localhost", "[::1]"];
    let mut local = local
        .iter()
        .map(|host| format!("http://{host}:{}", config.port));
    base == guide.address
        || Some(base) == config.public_url.as_deref()
        || local.any(|own| own == base)
}

fn by_hand(error: &FileError, guide: &LocalGuide<'_>) -> Failure {
    let lines = guide.lines();
    Failure::text(
        Exit::Failed,
        format!("{error}\n\nTo do it by hand, add this:\n\n{lines}"),
    )
}

/// Takes this server out of a client's file, and tells.
///
/// # Errors
/// When the file is as it was.
pub(super) fn remove(guide: &LocalGuide<'_>, place: Place, path: &Path) -> Result<Exit, Failure> {
    let failed = |problem: String| Failure::text(Exit::Failed, problem);
    let file = ClientFile::read(path).map_err(|error| failed(error.to_string()))?;
    let shown = file.path().display();
    let entry = guide.entry();
    let wanted = NewEntry {
        syntax: place.syntax,
        key: place.key,
        entry: &entry,
        question: None,
        keeps_credentials: true,
        is_our_url: &|url| is_our_url(url, guide),
    };
    let removed = file
        .text()
        .map(|text| merge::remove(text, &wanted))
        .transpose();
    let removed =
        removed.map_err(|refusal| failed(format!("{shown} {refusal}; it was not changed")))?;
    let Some(text) = removed.flatten() else {
        output::text(&format!("  ✓ this server is not in {shown}"))?;
        return Ok(Exit::Success);
    };
    let copy = file
        .write(&text)
        .map_err(|error| failed(error.to_string()))?;
    let mut told = format!("  ✓ took this server out of {shown}\n");
    if let Some(copy) = copy {
        told += &format!("    as it was before: {}\n", copy.display());
    }
    if let Some(revoke) = guide.revoke() {
        told += &steps_shown(&[revoke], 0);
    }
    output::text(told.trim_end())?;
    Ok(Exit::Success)
}

/// What was done.
struct WriteReport<'a> {
    guide: &'a LocalGuide<'a>,
    path: &'a Path,
    is_for_others: bool,
    merged: &'a MergeResult,
    /// Where the file is as it was before.
    copy: Option<PathBuf>,
}

impl WriteReport<'_> {
    fn steps(&self) -> Vec<Step> {
        let (guide, title) = (self.guide, self.guide.client.title());
        let is_called = guide.transport == Some(Transport::Http);
        let mut steps = Vec::new();
        // What is in the file is nobody's to copy.
        if is_called && guide.client.token_place() != TokenPlace::File {
            steps.extend(guide.obtain());
        }
        let mut start = Step::copying(
            &format!("Start {title} anew, and ask it to run"),
            format!("print('Hello from {title}!')"),
        );
        start.note = guide.transport.and_then(|transport| guide.note(transport));
        steps.push(start);
        if is_called {
            steps.extend(guide.revoke());
        }
        let mut line = format!("connect {} --remove", guide.client.word());
        if guide.file != Some(self.path) {
            line += &format!("={}", value::quoted(&self.path.to_string_lossy()));
        }
        let line = guide.settings.command(&line);
        steps.push(Step::copying("To take it out of the file again", line));
        steps
    }

    fn text(&self) -> String {
        let (path, name) = (self.path.display(), self.merged.name);
        let done = match self.merged.change {
            EntryChange::Added => format!("added {name} to {path}"),
            EntryChange::Updated => format!("brought {name} in {path} up to date"),
            EntryChange::Nothing => format!("{name} is in {path} as it should be"),
        };
        let mut text = format!("  ✓ {done}\n");
        if let Some(copy) = &self.copy {
            text += &format!("    as it was before: {}\n", copy.display());
        }
        if self.merged.others > 0 {
            text += &format!(
                "    other servers in it, left alone: {}\n",
                self.merged.others
            );
        }
        if self.guide.holds_token() && self.is_for_others {
            text += &format!(
                "\nWARNING: the file has the token now, and others of this machine may read it:\n    chmod 600 {}\n",
                value::quoted(&self.path.to_string_lossy())
            );
        }
        text += &self.guide.warnings();
        text + steps_shown(&self.steps(), 0).trim_end()
    }

    fn to_json(&self) -> Value {
        let change = match self.merged.change {
            EntryChange::Added => "added",
            EntryChange::Updated => "updated",
            EntryChange::Nothing => "unchanged",
        };
        json!({
            "target": self.guide.client.word(),
            "by": self.guide.transport.map(Transport::word),
            "file": self.path,
            "name": self.merged.name,
            "change": change,
            "copy": self.copy,
            "token": self.guide.token.map(Token::reveal),
            "steps": self.steps().iter().map(Step::to_json).collect::<Vec<_>>(),
        })
    }
}
