//! The person at the terminal: shown text, and asked. What is typed as a secret
//! is not shown.

use std::io::{self, IsTerminal as _, Write as _};

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
pub(super) struct Terminal;

impl Terminal {
    /// Says whether a person reads what is printed, and can answer.
    pub(super) fn is_here() -> bool {
        io::stdin().is_terminal() && output::is_terminal()
    }
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
