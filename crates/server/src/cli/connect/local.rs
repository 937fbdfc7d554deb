//! The ways in for MCP clients on people's own machines: as a process that
//! they start, and by HTTP with a token. What is printed is read by their
//! parsers, so it is built from values and never pasted together; a token is
//! in it only when one was made just now.

use std::fmt;

use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::Client;
use super::step::{Step, shown};
use crate::auth::Token;
use crate::config::{Settings, Source, value};

/// How clients call this server.
const NAME: &str = "codex";
/// The variable that holds the token.
const VARIABLE: &str = "CODEX_TOKEN";

/// An MCP client, and this server as it shall see it.
pub(super) struct LocalGuide<'a> {
    pub(super) client: Client,
    pub(super) settings: &'a Settings,
    /// The server's address on this machine, such as `http://127.0.0.1:8000`.
    pub(super) here: &'a str,
    /// Whether the server answers there.
    pub(super) answers: bool,
    /// Whether the server lets everybody in.
    pub(super) is_open: bool,
    /// The token made just now.
    pub(super) token: Option<&'a Token>,
    /// The name of the token that it has or shall have.
    pub(super) name: &'a str,
}

impl Client {
    /// The word that names it on the command line.
    pub(super) fn word(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Chatgpt => "ChatGPT",
            Self::Claude => "Claude",
            Self::ClaudeCode => "Claude Code",
            Self::Codex => "Codex",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
        }
    }

    /// Where its configuration is, and under which key servers are.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Codex => ("~/.codex/config.toml", "mcp_servers"),
            Self::Cursor => ("~/.cursor/mcp.json", "mcpServers"),
            Self::Vscode => (".vscode/mcp.json in the workspace", "servers"),
            Self::ClaudeCode | Self::Claude | Self::Chatgpt => {
                (".mcp.json in the project", "mcpServers")
            }
        }
    }
}

impl LocalGuide<'_> {
    fn url(&self) -> String {
        format!("{}/mcp", self.here)
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

    /// The steps without server and token.
    fn by_process(&self) -> Vec<Step> {
        let program = &self.settings.program;
        let words = self.arguments();
        let mut line: Vec<_> = vec![value::quoted(program)];
        line.extend(words.iter().map(|word| value::quoted(word)));
        let line = line.join(" ");
        match self.client {
            Client::ClaudeCode => vec![Step::copying(
                "Run",
                format!("claude mcp add --transport stdio {NAME} -- {line}"),
            )],
            Client::Codex => vec![
                Step::copying("Run", format!("codex mcp add {NAME} -- {line}")),
                self.file(&json!({"command": program, "args": words})),
            ],
            Client::Vscode => {
                vec![self.file(&json!({"type": "stdio", "command": program, "args": words}))]
            }
            Client::Cursor | Client::Claude | Client::Chatgpt => {
                vec![self.file(&json!({"command": program, "args": words}))]
            }
        }
    }

    /// The steps by HTTP.
    fn by_http(&self) -> Vec<Step> {
        let url = self.url();
        let mut steps = Vec::new();
        if !self.is_open {
            steps.push(self.obtain());
        }
        let header = match self.client {
            Client::Cursor => format!("Bearer ${{env:{VARIABLE}}}"),
            Client::Vscode => "Bearer ${input:codex_token}".to_owned(),
            _ => format!("Bearer ${{{VARIABLE}}}"),
        };
        let mut server = json!({"url": url});
        if matches!(self.client, Client::ClaudeCode | Client::Vscode) {
            server["type"] = "http".into();
        }
        if self.client == Client::Codex {
            let mut line = format!("codex mcp add {NAME} --url {}", value::quoted(&url));
            if !self.is_open {
                server["bearer_token_env_var"] = VARIABLE.into();
                line += &format!(" --bearer-token-env-var {VARIABLE}");
            }
            steps.push(Step::copying("Run", line));
        } else if !self.is_open {
            server["headers"] = json!({"Authorization": header});
        }
        steps.push(self.file(&server));
        if !self.is_open {
            let line = format!("token revoke {}", self.name);
            steps.push(Step::copying(
                "To end its access",
                self.settings.command(&line),
            ));
        }
        steps
    }

    /// The step that gives the client a token.
    fn obtain(&self) -> Step {
        let create = format!("token create {} --scope execute", self.name);
        let create = self.settings.command(&create);
        match (self.client, self.token) {
            (Client::Vscode, Some(token)) => Step::copying(
                "The token, which is shown this once; VS Code asks for it and keeps it",
                token.reveal().to_owned(),
            ),
            (Client::Vscode, None) => {
                Step::copying("Make a token, which VS Code asks for and keeps", create)
            }
            (_, Some(token)) => Step::copying(
                "Start the client with the token, which is shown this once, in its environment",
                format!("export {VARIABLE}={}", token.reveal()),
            ),
            (_, None) => Step::copying(
                "Make a token, and start the client with it in its environment",
                format!("export {VARIABLE}=\"$({create})\""),
            ),
        }
    }

    /// The step that adds `server` to the client's configuration.
    fn file(&self, server: &Value) -> Step {
        let (place, key) = self.client.place();
        if self.client == Client::Codex {
            // Strings and lists of JSON are such of TOML, too.
            let lines = server.as_object().into_iter().flatten();
            let lines: Vec<String> = lines
                .map(|(key, value)| format!("{key} = {value}"))
                .collect();
            let table = format!("[{key}.{NAME}]\n{}", lines.join("\n"));
            return Step::copying(&format!("Or add to {place}"), table);
        }
        let mut whole = json!({key: {NAME: server}});
        if self.client == Client::Vscode && server.get("headers").is_some() {
            whole["inputs"] = json!([{
                "type": "promptString",
                "id": "codex_token",
                "description": "Token of codex-server",
                "password": true,
            }]);
        }
        Step::copying(
            &format!("Put into {place}, beside what is there"),
            format!("{whole:#}"),
        )
    }

    pub(super) fn to_json(&self) -> Value {
        let steps = |steps: Vec<Step>| -> Vec<Value> { steps.iter().map(Step::to_json).collect() };
        let public = self.settings.config.public_url.as_deref();
        json!({
            "target": self.client.word(),
            "url": self.url(),
            "public_url": public.map(|url| format!("{url}/mcp")),
            "server_answers": self.answers,
            "token": self.token.map(Token::reveal),
            "stdio": steps(self.by_process()),
            "http": steps(self.by_http()),
        })
    }
}

impl fmt::Display for LocalGuide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = self.client.title();
        writeln!(
            f,
            "{title} on this machine starts the engine itself; no server, port or token is needed:"
        )?;
        f.write_str(&shown(&self.by_process(), 0))?;
        writeln!(f, "\nOr by HTTP, from the server at {}:", self.url())?;
        if !self.answers {
            writeln!(
                f,
                "\n  ✗ no codex-server answers at {} yet\n    → {}",
                self.here,
                self.settings.command("up")
            )?;
        }
        if self.is_open {
            writeln!(
                f,
                "\nWARNING: it runs with --open: whoever finds the address runs code on it. Restart it without."
            )?;
        }
        f.write_str(&shown(&self.by_http(), 0))?;
        if let Some(url) = &self.settings.config.public_url {
            writeln!(f, "\nFrom another machine the address is {url}/mcp.")?;
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
