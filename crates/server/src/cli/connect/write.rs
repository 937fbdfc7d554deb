//! `connect CLIENT --write`: puts this server into the client's own file, and
//! says what was done, what is left to do, and how to undo it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::{NO_TOKEN, Place, Transport};
use super::file::ClientFile;
use super::local::LocalGuide;
use super::merge::{EntryChange, MergeError, MergeResult, NewEntry, merge};
use super::step::{Step, shown};
use crate::auth::Token;
use crate::cli::Failure;
use crate::config::value;
use crate::exit_code::Exit;
use crate::output;
use crate::public_url::host_of;

/// A client's file, read, and what shall be in it.
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
        path: &Path,
        token_follows: bool,
    ) -> Result<Self, Failure> {
        let title = guide.client.title();
        let Some(place) = guide.client.place() else {
            let problem =
                format!("{title} is set up on its pages, not by a file; leave out --write");
            return Err(Failure::text(Exit::Usage, problem));
        };
        let file = ClientFile::read(path).map_err(|error| Failure::new(Exit::Failed, error))?;
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
        if merged.text.contains(NO_TOKEN) && !token_follows {
            let problem = format!("{title} keeps its token in that file: say --new-token as well");
            return Err(Failure::text(Exit::Usage, problem));
        }
        Ok(plan)
    }

    fn merged(&self, guide: &LocalGuide<'_>) -> Result<MergeResult, Failure> {
        let entry = guide.entry();
        let question = guide.client.question(&entry);
        let own_host = guide
            .settings
            .config
            .public_url
            .as_deref()
            .and_then(host_of);
        let is_our_url = |url: &str| {
            let Some(host) = host_of(url).filter(|_| url.ends_with("/mcp")) else {
                return false;
            };
            let ip = host.parse::<std::net::IpAddr>();
            host == "localhost" || Some(host) == own_host || ip.is_ok_and(|ip| ip.is_loopback())
        };
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
            let add = match refusal {
                MergeError::Taken => String::new(),
                _ => format!(" Add this yourself:\n\n{}", guide.lines()),
            };
            let problem = format!("{path} {refusal}; it was not changed.{add}");
            Failure::text(Exit::Failed, problem)
        })
    }

    /// Writes the file, and tells.
    ///
    /// # Errors
    /// When nothing was changed.
    pub(super) fn carry_out(self, guide: &LocalGuide<'_>, json: bool) -> Result<Exit, Failure> {
        let merged = self.merged(guide)?;
        let copy = match merged.change {
            EntryChange::Nothing if self.file.text() == Some(merged.text.as_str()) => None,
            _ => {
                let written = self.file.write(&merged.text);
                written.map_err(|error| match guide.token {
                    Some(_) => Failure::text(
                        Exit::Failed,
                        format!("{error}; the token {name} was made, and nobody has it: codex-server token revoke {name}", name = guide.name),
                    ),
                    None => Failure::new(Exit::Failed, error),
                })?
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
    fn undo(&self) -> Option<String> {
        let path = self.path.to_string_lossy();
        let path = value::quoted(&path);
        match (&self.copy, self.merged.change) {
            (Some(copy), _) => {
                let copy = copy.to_string_lossy();
                Some(format!("cp {} {path}", value::quoted(&copy)))
            }
            (None, EntryChange::Nothing) => None,
            (None, _) => Some(format!("rm {path}")),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let title = self.guide.client.title();
        let mut steps = Vec::new();
        if self.guide.transport == Some(Transport::Http) {
            steps.extend(self.guide.obtain());
        }
        steps.push(Step::copying(
            &format!("Start {title} anew, and ask it to run"),
            format!("print('Hello from {title}!')"),
        ));
        if self.guide.transport == Some(Transport::Http) {
            steps.extend(self.guide.revoke());
        }
        if let Some(undo) = self.undo() {
            steps.push(Step::copying("To undo this", undo));
        }
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
        text + shown(&self.steps(), 0).trim_end()
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
