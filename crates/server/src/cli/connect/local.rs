//! The ways in for MCP clients on people's own machines: as a process that
//! they start, and by HTTP with a token. What is printed is read by their
//! parsers, so it is built from values and never pasted together; a token is
//! in it only when one was made just now.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use super::NAME;
use super::client::{ClientKind, ServerWords, TokenPlace, Transport};
use super::facts::FACTS;
use super::merge::alone;
use super::step::{Step, shown};
use crate::auth::Token;
use crate::config::{Settings, Source, value};

/// An MCP client, and this server as it shall see it.
pub(super) struct LocalGuide<'a> {
    pub(super) client: ClientKind,
    /// The way that was asked for; all that there are, where none was.
    pub(super) transport: Option<Transport>,
    pub(super) settings: &'a Settings,
    /// The whole path of this program.
    pub(super) program: &'a str,
    /// The client's usual file, where that is known.
    pub(super) file: Option<&'a Path>,
    /// The address that the client shall call, such as `http://127.0.0.1:8000`.
    pub(super) address: &'a str,
    /// Whether the server answers on this machine.
    pub(super) answers: bool,
    /// Whether the server lets everybody in.
    pub(super) is_open: bool,
    /// The token made just now.
    pub(super) token: Option<&'a Token>,
    /// The name of the token that it has or shall have.
    pub(super) name: &'a str,
}

impl Transport {
    /// The word that names it on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Http => "http",
        }
    }
}

impl LocalGuide<'_> {
    fn url(&self) -> String {
        format!("{}/mcp", self.address)
    }

    /// The words that start us as a process of the client.
    fn arguments(&self) -> Vec<String> {
        let mut words = vec!["mcp".to_owned()];
        if let Some(Source::Flag(_) | Source::Env(_)) = self.settings.sources.get("home") {
            words.push("--home".to_owned());
            words.push(self.settings.config.home.to_string_lossy().into_owned());
        }
        words
    }

    fn server(&self) -> ServerWords<'_> {
        ServerWords {
            program: self.program,
            words: self.arguments(),
            url: self.url(),
            is_open: self.is_open,
            token: self.token,
        }
    }

    /// Returns the entry of the way that was asked for, the process where none was.
    pub(super) fn entry(&self) -> Value {
        let transport = self.transport.unwrap_or(Transport::Process);
        self.client.entry(transport, &self.server())
    }

    /// Returns the lines that a person would add to the client's configuration.
    pub(super) fn lines(&self) -> String {
        self.lines_of(&self.entry())
    }

    fn lines_of(&self, entry: &Value) -> String {
        let question = self.client.question(entry);
        let place = self.client.place();
        place.map_or_else(String::new, |place| {
            alone(place.syntax, place.key, entry, question.as_ref())
        })
    }

    /// Says whether the client's configuration has the token itself.
    pub(super) fn holds_token(&self) -> bool {
        self.transport == Some(Transport::Http)
            && self.token.is_some()
            && self.client.token_place() == TokenPlace::File
    }

    /// The steps without server and token.
    fn by_process(&self) -> Vec<Step> {
        let mut line: Vec<_> = vec![value::quoted(&self.settings.program)];
        let words = self.arguments();
        line.extend(words.iter().map(|word| value::quoted(word)));
        let line = line.join(" ");
        let file = self.file(Transport::Process);
        match self.client {
            ClientKind::ClaudeCode => {
                let add = format!("claude mcp add --scope user --transport stdio {NAME} -- {line}");
                vec![Step::copying("Run", add), or(file)]
            }
            ClientKind::Codex => {
                let add = format!("codex mcp add {NAME} -- {line}");
                vec![Step::copying("Run", add), or(file)]
            }
            _ => vec![file],
        }
    }

    /// The steps by HTTP.
    fn by_http(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.obtain().into_iter().collect();
        match self.client {
            ClientKind::Codex => {
                let mut line = format!("codex mcp add {NAME} --url {}", value::quoted(&self.url()));
                if !self.is_open {
                    let variable = self.client.variable();
                    line += &format!(" --bearer-token-env-var {variable}");
                }
                steps.push(Step::copying("Run", line));
                steps.push(or(self.file(Transport::Http)));
            }
            ClientKind::OpenWebui => {
                let url = self.url();
                let test = format!(
                    "Run this Python code: print('Hello from {}!')",
                    self.client.title()
                );
                let words = [("mcp", url.as_str()), ("test", &test)];
                let groups = FACTS.open_webui.parts.iter();
                let cases = if self.is_open { ["open"] } else { ["token"] };
                steps.extend(groups.flat_map(|group| group.steps(&cases, &words)));
            }
            _ => steps.push(self.file(Transport::Http)),
        }
        steps.extend(self.revoke());
        steps
    }

    /// The step that gives the client a token, where it needs one.
    pub(super) fn obtain(&self) -> Option<Step> {
        if self.is_open {
            return None;
        }
        let (title, variable) = (self.client.title(), self.client.variable());
        let create = format!("token create {} --scope execute", self.name);
        let create = self.settings.command(&create);
        let mut step = match (self.client.token_place(), self.token) {
            (TokenPlace::Prompt, Some(token)) => Step::copying(
                &format!("The token, which is shown this once; {title} asks for it and keeps it"),
                token.reveal().to_owned(),
            ),
            (TokenPlace::Prompt, None) => Step::copying(
                &format!("Make a token, which {title} asks for and keeps"),
                create,
            ),
            (TokenPlace::Variable, Some(token)) => Step::copying(
                "Start the client with the token, which is shown this once, in its environment",
                format!("export {variable}={}", token.reveal()),
            ),
            (TokenPlace::Variable, None) => Step::copying(
                "Make a token, and start the client with it in its environment",
                format!("export {variable}=\"$({create})\""),
            ),
            (TokenPlace::File, Some(token)) => Step::copying(
                &format!("The token, which is shown this once; {title} keeps it in its settings"),
                token.reveal().to_owned(),
            ),
            (TokenPlace::File, None) => Step::copying(
                &format!("Make a token, which {title} keeps in its settings"),
                create,
            ),
        };
        if matches!(self.client, ClientKind::Cursor | ClientKind::Windsurf) {
            step.note = Some(format!(
                "Started from a menu, {title} does not see it: start it from this terminal, or connect it with --by process, which needs no token."
            ));
        }
        Some(step)
    }

    /// The step that ends the client's access, where it needs a token.
    pub(super) fn revoke(&self) -> Option<Step> {
        let line = format!("token revoke {}", self.name);
        let line = self.settings.command(&line);
        (!self.is_open).then(|| Step::copying("To end its access", line))
    }

    /// The step that adds this server to the client's configuration.
    fn file(&self, transport: Transport) -> Step {
        let shown = self.client.place().map_or("", |place| place.shown);
        let lines = self.lines_of(&self.client.entry(transport, &self.server()));
        let mut step = Step::copying(&format!("Put into {shown}, beside what is there"), lines);
        step.note = self.note(transport);
        step
    }

    /// Returns what to know of a client besides.
    pub(super) fn note(&self, transport: Transport) -> Option<String> {
        let (port, variable) = (self.settings.config.port, self.client.variable());
        Some(match (self.client, transport) {
            (ClientKind::Zed, Transport::Http) => {
                "Without headers Zed signs in by OAuth, and keeps no token in this file.".to_owned()
            }
            (ClientKind::Librechat, Transport::Http) => format!(
                "{variable} belongs into LibreChat's .env. In a container 127.0.0.1 is the container itself: start the server with --host 172.17.0.1, Docker's address of this machine, and let the url be http://172.17.0.1:{port}/mcp. LibreChat calls a private address only where its file says so: mcpSettings: {{allowedAddresses: [\"172.17.0.1:{port}\"]}}."
            ),
            (ClientKind::Goose, Transport::Http) => {
                format!("Goose takes {variable} from its own store of secrets, too.")
            }
            (ClientKind::Gemini, _) => {
                "In a folder that Gemini CLI trusts: elsewhere it shows its servers as disabled."
                    .to_owned()
            }
            (ClientKind::Vscode, _) => "It is for the folder that you open in VS Code.".to_owned(),
            _ => return None,
        })
    }

    /// Returns what is wrong with the server that the client would call, if
    /// anything is.
    pub(super) fn warnings(&self) -> String {
        let mut text = String::new();
        if self.transport == Some(Transport::Process) {
            return text;
        }
        if !self.answers {
            text += &format!(
                "\n  ✗ no codex-server answers on this machine yet\n    → {}\n",
                self.settings.command("up")
            );
        }
        if self.is_open {
            text += "\nWARNING: it runs with --open: whoever finds the address runs code on it. Restart it without.\n";
        }
        text
    }

    fn transports(&self) -> (Vec<Step>, Vec<Step>) {
        let process = self.client.starts_processes() && self.transport != Some(Transport::Http);
        let http = self.transport != Some(Transport::Process);
        (
            if process {
                self.by_process()
            } else {
                Vec::new()
            },
            if http { self.by_http() } else { Vec::new() },
        )
    }

    pub(super) fn to_json(&self) -> Value {
        let steps = |steps: Vec<Step>| -> Vec<Value> { steps.iter().map(Step::to_json).collect() };
        let public = self.settings.config.public_url.as_deref();
        let (process, http) = self.transports();
        json!({
            "target": self.client.word(),
            "url": self.url(),
            "public_url": public.map(|url| format!("{url}/mcp")),
            "server_answers": self.answers,
            "token": self.token.map(Token::reveal),
            "stdio": steps(process),
            "http": steps(http),
        })
    }
}

/// Makes a step one of two that do the same.
fn or(mut step: Step) -> Step {
    step.what = step.what.replacen("Put into", "Or put into", 1);
    step
}

impl fmt::Display for LocalGuide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = self.client.title();
        let (process, http) = self.transports();
        if !process.is_empty() {
            writeln!(
                f,
                "{title} on this machine starts the engine itself; no server, port or token is needed:"
            )?;
            f.write_str(&shown(&process, 0))?;
        }
        if !http.is_empty() {
            let or = if process.is_empty() { title } else { "\nOr" };
            writeln!(f, "{or} by HTTP, from the server at {}:", self.url())?;
            f.write_str(&self.warnings())?;
            f.write_str(&shown(&http, 0))?;
            if let Some(url) = &self.settings.config.public_url
                && url != self.address
            {
                writeln!(f, "\nFrom another machine the address is {url}/mcp.")?;
            }
        }
        if self.client.place().is_some() && self.transport.is_none() {
            let line = format!("connect {} --write", self.client.word());
            let more = if self.client.starts_processes() {
                " (with --by http --new-token by HTTP)"
            } else {
                ""
            };
            writeln!(
                f,
                "\nThis puts it into the file for you{more}, and keeps a copy:\n\n      {}",
                self.settings.command(&line)
            )?;
        }
        write!(
            f,
            "\nThen ask {title} to run: print('Hello from {title}!')\nWhen something does not work: docs/connect-mcp.md"
        )
    }
}

#[cfg(test)]
#[path = "local/tests.rs"]
mod tests;
