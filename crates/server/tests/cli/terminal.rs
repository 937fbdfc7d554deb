//! A terminal with somebody at it: what is typed goes in, what is shown is looked
//! at. `script` of util-linux gives it, since tests make no system calls.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::server::wait_until;

/// What a terminal sends for Ctrl-C and Ctrl-D.
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";

pub(crate) struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
    /// Bytes of the screen that were looked at.
    seen: usize,
}

impl Terminal {
    /// Starts a command in a terminal of its own.
    #[expect(clippy::disallowed_methods, reason = "script gives the terminal")]
    pub(crate) fn start(command: &Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words
            .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")))
            .collect();
        let line = format!("exec {}", words.join(" "));
        let mut script = Command::new("script");
        script
            .args(["-q", "-e", "-f", "-c", &line, "/dev/null"])
            .env_clear()
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .current_dir(command.get_current_dir().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (name, value) in command.get_envs() {
            script.env(name, value.unwrap_or_default());
        }
        let started = script.spawn();
        let mut child = started.expect("script must be installed: apt-get install bsdutils");
        let mut shown = child.stdout.take().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let whole = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = shown.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..count]);
                whole.lock().unwrap().push_str(&text);
            }
        });
        Self {
            keyboard: child.stdin.take().unwrap(),
            child,
            screen,
            seen: 0,
        }
    }

    /// Types, as a person does.
    pub(crate) fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits until the words are shown, after those that were waited for before.
    #[track_caller]
    pub(crate) fn shows(&mut self, words: &str) {
        let (screen, seen) = (Arc::clone(&self.screen), self.seen);
        let end = || {
            let screen = screen.lock().unwrap();
            screen[seen..].find(words).map(|at| seen + at + words.len())
        };
        wait_until(
            format_args!("{words:?} on {:?}", Shown(&self.screen, seen)),
            || end().is_some(),
        );
        self.seen = end().unwrap();
    }

    /// All that was shown.
    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits for the command's end and gives its code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        wait_until("the end of what runs in the terminal", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already in most tests.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What is shown when somebody asks, which is after waiting in vain.
struct Shown<'a>(&'a Mutex<String>, usize);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", &self.0.lock().unwrap()[self.1..])
    }
}
