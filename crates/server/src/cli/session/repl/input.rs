//! Where inputs come from: a person at a terminal, who edits them, or a pipe.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use rustyline::completion::Completer;
use rustyline::config::Configurer as _;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::commands;
use super::whole::{Lack, Syntax, lack};
use crate::cli::Failure;
use crate::config::Env;
use crate::exit_code::Exit;
use crate::output;

/// Inputs that the history holds.
const HISTORY: usize = 2000;
/// Lines of a pipe that are read ahead.
const AHEAD: usize = 64;
/// What Tab goes on to: a column that is a multiple of this.
const TAB: usize = 4;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    Code(String),
    /// Ctrl-C where nothing ran: on a terminal the line is dropped.
    Interrupt,
    End,
}

/// Where inputs come from.
pub(super) enum Source {
    Person(Box<Person>),
    Pipe(Pipe),
}

impl Source {
    /// Takes a terminal where there is one for both directions, else our standard input.
    ///
    /// # Errors
    /// When no thread can be started, or the terminal cannot be prepared.
    pub(super) fn new(env: &Env) -> Result<Self, Failure> {
        if io::stdin().is_terminal() && output::is_terminal() {
            return Person::new(env).map(|person| Self::Person(Box::new(person)));
        }
        Ok(Self::Pipe(Pipe::new()?))
    }

    pub(super) fn is_person(&self) -> bool {
        matches!(self, Self::Person(_))
    }

    /// Reads one input, which is whole by the rule of its language.
    pub(super) fn next(
        &mut self,
        runtime: &Runtime,
        prompt: &str,
        syntax: Syntax,
    ) -> Result<Input, Failure> {
        match self {
            Self::Person(person) => person.next(prompt, syntax),
            Self::Pipe(pipe) => runtime.block_on(pipe.next(syntax)),
        }
    }
}

/// A person at a terminal.
pub(super) struct Person {
    editor: Editor<Rules, DefaultHistory>,
    history: Option<PathBuf>,
}

impl Person {
    fn new(env: &Env) -> Result<Self, Failure> {
        let config = Config::builder()
            .max_history_size(HISTORY)
            .map_err(failed)?
            .bracketed_paste(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Rules(Syntax::Lines)));
        editor.set_auto_add_history(false);
        let history = history(env);
        if let Some(path) = &history {
            // One that is not there yet, or is damaged, is no reason not to begin.
            if let Err(error) = editor.load_history(path) {
                tracing::debug!(%error, "no history was read");
            }
        }
        Ok(Self { editor, history })
    }

    fn next(&mut self, prompt: &str, syntax: Syntax) -> Result<Input, Failure> {
        if let Some(rules) = self.editor.helper_mut() {
            rules.0 = syntax;
        }
        match self.editor.readline(prompt) {
            Ok(text) => {
                if !text.trim().is_empty() {
                    self.remember(text.trim_end());
                }
                Ok(Input::Code(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Input::Interrupt),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(failed(error)),
        }
    }

    fn remember(&mut self, text: &str) {
        let kept = self.editor.add_history_entry(text);
        let kept = kept.and_then(|_| match &self.history {
            Some(path) => self.editor.append_history(path),
            None => Ok(()),
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "the history was not written");
        }
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::text(
        Exit::Failed,
        format!(
            "failed to read from the terminal: {error}; pipe the input, or run each cell with `session run`"
        ),
    )
}

/// Where the history is kept: it is of this person, and of no server. `None`
/// where there is no place.
fn history(env: &Env) -> Option<PathBuf> {
    let state = env.raw("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(Path::new(env.raw("HOME")?).join(".local/state")))?;
    let directory = state.join("codex-server");
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(&directory).ok()?;
    Some(directory.join("repl-history"))
}

/// When an input is whole, and what Tab does.
struct Rules(Syntax);

impl Helper for Rules {}
impl Hinter for Rules {
    type Hint = String;
}
impl Highlighter for Rules {}

impl Validator for Rules {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        // Two empty lines send it in any case.
        let forced = input.ends_with("\n\n");
        if forced || commands::is_command(input) || lack(self.0, input) == Lack::Nothing {
            return Ok(ValidationResult::Valid(None));
        }
        Ok(ValidationResult::Incomplete)
    }
}

impl Completer for Rules {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let begin = line[..at].rfind('\n').map_or(0, |end| end + 1);
        let column = line[begin..at].chars().count();
        Ok((at, vec![" ".repeat(TAB - column % TAB)]))
    }
}

/// A pipe or a file, read on a thread of its own, so that Ctrl-C is heard meanwhile.
pub(super) struct Pipe {
    lines: mpsc::Receiver<io::Result<String>>,
    /// A line that belongs to the next input.
    ahead: Option<String>,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (sender, lines) = mpsc::channel(AHEAD);
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                for line in io::stdin().lock().lines() {
                    let last = line.is_err();
                    if sender.blocking_send(line).is_err() || last {
                        return;
                    }
                }
            })?;
        Ok(Self { lines, ahead: None })
    }

    async fn next(&mut self, syntax: Syntax) -> Result<Input, Failure> {
        tokio::select! {
            input = self.whole(syntax) => input,
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                Ok(Input::Interrupt)
            }
        }
    }

    /// Lines until the input is whole. A block's empty line ends it only when no
    /// indented line follows, as in a file.
    async fn whole(&mut self, syntax: Syntax) -> Result<Input, Failure> {
        let mut text = String::new();
        let mut any = false;
        while let Some(line) = self.line().await? {
            if any {
                text.push('\n');
            }
            text.push_str(&line);
            any = true;
            if commands::is_command(&text) {
                return Ok(Input::Code(text));
            }
            if lack(syntax, &text) != Lack::Nothing {
                continue;
            }
            let block = syntax == Syntax::Python && text.contains('\n') && line.trim().is_empty();
            if block && self.goes_on(&mut text).await? {
                continue;
            }
            return Ok(Input::Code(text));
        }
        Ok(if any { Input::Code(text) } else { Input::End })
    }

    /// Whether an indented line follows; empty lines before it are taken.
    async fn goes_on(&mut self, text: &mut String) -> Result<bool, Failure> {
        while let Some(line) = self.line().await? {
            if line.trim().is_empty() {
                text.push('\n');
                continue;
            }
            let indented = line.starts_with([' ', '\t']);
            self.ahead = Some(line);
            return Ok(indented);
        }
        Ok(false)
    }

    async fn line(&mut self) -> Result<Option<String>, Failure> {
        if let Some(line) = self.ahead.take() {
            return Ok(Some(line));
        }
        let line = self.lines.recv().await.transpose();
        line.map_err(|error| {
            Failure::text(
                Exit::Failed,
                format!("failed to read standard input: {error}"),
            )
        })
    }
}
