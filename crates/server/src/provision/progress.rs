//! What a person sees of an installation: a bar in a terminal, a line now and
//! then elsewhere. Standard error only.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use crate::output;

/// Characters of the bar.
const WIDTH: usize = 30;
/// A terminal is not written to more often.
const REDRAW: Duration = Duration::from_millis(100);
/// Elsewhere one line stands for so much of the whole, in percent.
const STEP: u32 = 25;

/// Shows how far an installation is.
#[derive(Debug)]
pub struct Display {
    terminal: bool,
    title: String,
    drawn: Option<Instant>,
    told: u32,
}

impl Display {
    /// On this process's standard error.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            title: String::new(),
            drawn: None,
            told: 0,
        }
    }

    /// Another language begins.
    pub fn begin(&mut self, title: &str) {
        title.clone_into(&mut self.title);
        self.told = 0;
        self.say("installing");
    }

    /// How far it is.
    pub fn progress(&mut self, done: u32, total: u32, what: &str) {
        let percent = 100 * u64::from(done.min(total)) / u64::from(total.max(1));
        let percent = u32::try_from(percent).unwrap_or(100);
        if self.terminal {
            if self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
                return;
            }
            self.drawn = Some(Instant::now());
            let line = bar(&self.title, percent, what);
            // Back to the start of the line, so that a log line covers the bar.
            drop(output::error_bytes(format!("\r\x1b[2K{line}\r").as_bytes()));
        } else if percent >= self.told + STEP {
            self.told = percent - percent % STEP;
            self.say(&format!("{percent} % ({what})"));
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if self.terminal && self.drawn.take().is_some() {
            drop(output::error_bytes(b"\r\x1b[2K"));
        }
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        self.clear();
        let title = match self.title.as_str() {
            "" => String::new(),
            title => format!("{title}: "),
        };
        output::note(&format!("packages: {title}{text}"));
    }
}

impl Default for Display {
    fn default() -> Self {
        Self::new()
    }
}

fn bar(title: &str, percent: u32, what: &str) -> String {
    let filled = WIDTH * usize::try_from(percent).unwrap_or(100) / 100;
    let (full, empty) = ("#".repeat(filled), ".".repeat(WIDTH - filled.min(WIDTH)));
    let what: String = what.chars().take(24).collect();
    format!("packages: {title} [{full}{empty}] {percent:3} % {what}")
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn the_bar_fills() {
        let check = |percent, expected: &str| {
            let line = bar("Python", percent, "numpy");
            assert!(line.contains(expected), "{line}");
            assert!(line.len() <= 80, "{line}");
        };
        check(0, "[..............................]   0 % numpy");
        check(50, "[###############...............]  50 %");
        check(100, "[##############################] 100 %");
    }
}
