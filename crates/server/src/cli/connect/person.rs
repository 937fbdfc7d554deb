//! The person at the terminal: shown text, and asked. What is typed as a secret
//! is not shown.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::runtime::Runtime;

use crate::cli::serve::Signals;
use crate::exit_code::Exit;
use crate::output;

/// Who is shown steps and asked for what only a person knows.
pub(super) trait Person {
    /// Shows lines of text.
    ///
    /// # Errors
    /// When they cannot be written.
    fn say(&mut self, text: &str) -> io::Result<()>;

    /// Asks, and returns the answer without white space around it; `None` when
    /// nobody answers any more.
    ///
    /// # Errors
    /// When the terminal fails.
    fn ask(&mut self, question: &str) -> io::Result<Option<String>>;

    /// Asks like [`Person::ask`] for what must not be shown while it is typed.
    ///
    /// # Errors
    /// When the terminal fails.
    fn ask_secret(&mut self, question: &str) -> io::Result<Option<String>>;
}

/// The terminal that this process was started from.
pub(super) struct Terminal(());

impl Terminal {
    /// Says whether a person reads what is printed, and can answer.
    pub(super) fn is_here() -> bool {
        io::stdin().is_terminal() && output::is_terminal()
    }

    /// Takes the terminal. Whoever ends this process from now on finds it as it
    /// was, even in the middle of a hidden question.
    ///
    /// # Errors
    /// When it is none, or no thread can be started.
    pub(super) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _inside = runtime.enter();
            Signals::new()?
        };
        let thread = std::thread::Builder::new().name("interrupts".to_owned());
        thread.spawn(move || end_with(&runtime, signals, &before))?;
        Ok(Self(()))
    }
}

/// Waits for a signal, and ends the process with the terminal as it was.
#[expect(clippy::exit, reason = "the main thread is reading from the terminal")]
fn end_with(runtime: &Runtime, mut signals: Signals, before: &Termios) {
    runtime.block_on(signals.next());
    if tcsetattr(io::stdin(), OptionalActions::Now, before).is_err() {
        output::note("\nThe terminal could not be set back: type `reset`.");
    }
    output::note("");
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

impl Person for Terminal {
    fn say(&mut self, text: &str) -> io::Result<()> {
        output::text(text)
    }

    fn ask(&mut self, question: &str) -> io::Result<Option<String>> {
        output::bytes(question.as_bytes())?;
        io::stdout().flush()?;
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim().to_owned()))
    }

    fn ask_secret(&mut self, question: &str) -> io::Result<Option<String>> {
        output::bytes(question.as_bytes())?;
        io::stdout().flush()?;
        match rpassword::read_password() {
            Ok(secret) => Ok(Some(secret.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whoever reads what is printed, and answers nothing.
pub(super) struct Onlooker;

impl Person for Onlooker {
    fn say(&mut self, text: &str) -> io::Result<()> {
        output::text(text)
    }

    fn ask(&mut self, _question: &str) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn ask_secret(&mut self, _question: &str) -> io::Result<Option<String>> {
        Ok(None)
    }
}
