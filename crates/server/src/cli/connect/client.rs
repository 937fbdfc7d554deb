//! The clients that can be connected: their names, where each keeps its MCP
//! servers, and how a server stands there. Only knows; reads and writes nothing.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::auth::Token;
use crate::config::Env;

/// What stands for a token that is not made yet, where a file has to hold it.
pub(super) const NO_TOKEN: &str = "YOUR_TOKEN";
/// The name of VS Code's question for the token.
const INPUT: &str = "codex_token";
/// Seconds that Goose waits for a call; it asks for a number.
const GOOSE_TIMEOUT: u64 = 300;

/// A client that can be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientKind {
    /// ChatGPT, by OpenAI's tunnel, a public address or an Action of a GPT
    Chatgpt,
    /// Claude on the web and the desktop, by a public address and OAuth
    Claude,
    /// Claude Code, by MCP
    ClaudeCode,
    /// Codex of OpenAI, by MCP
    Codex,
    /// Cursor, by MCP
    Cursor,
    /// VS Code, by MCP
    Vscode,
    /// Windsurf, by MCP
    Windsurf,
    /// Zed, by MCP
    Zed,
    /// Gemini CLI, by MCP
    Gemini,
    /// Open WebUI, by MCP
    OpenWebui,
    /// LibreChat, by MCP
    Librechat,
    /// LM Studio, by MCP
    LmStudio,
    /// Goose, by MCP
    Goose,
}

/// How a client reaches this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// It starts `codex-server mcp`, and needs no server.
    Process,
    /// It calls a server.
    Http,
}

/// The syntax of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// JSON, with comments and trailing commas where they are there already.
    Json,
    Toml,
    Yaml,
}

/// Where a client keeps its MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The file, as people write it.
    pub(super) shown: &'static str,
    pub(super) syntax: Syntax,
    /// The member that has the servers by their names.
    pub(super) key: &'static str,
    /// Whether the client takes a file that has nothing else.
    pub(super) may_be_new: bool,
}

/// Where a client finds the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenPlace {
    /// In [`ClientKind::variable`] of its environment.
    Variable,
    /// It asks for it, and keeps it in the system's store of secrets.
    Prompt,
    /// In its configuration: it knows nothing better.
    File,
}

/// This server, as a configuration names it.
#[derive(Debug, Clone)]
pub(super) struct ServerWords<'a> {
    /// The program, by its whole path: who starts it may have another `PATH`.
    pub(super) program: &'a str,
    /// The words after it.
    pub(super) words: Vec<String>,
    /// The address of `/mcp`.
    pub(super) url: String,
    /// Whether the server lets everybody in.
    pub(super) is_open: bool,
    /// The token made just now.
    pub(super) token: Option<&'a Token>,
}

impl ClientKind {
    /// The word that names it on the command line.
    pub(super) fn word(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns the variable that holds its token: a token of its own is revoked
    /// for it alone, so no two clients share one.
    pub(super) fn variable(self) -> String {
        format!(
            "CODEX_TOKEN_{}",
            self.word().to_uppercase().replace('-', "_")
        )
    }

    /// Returns what people call it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Chatgpt => "ChatGPT",
            Self::Claude => "Claude",
            Self::ClaudeCode => "Claude Code",
            Self::Codex => "Codex",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
            Self::Windsurf => "Windsurf",
            Self::Zed => "Zed",
            Self::Gemini => "Gemini CLI",
            Self::OpenWebui => "Open WebUI",
            Self::Librechat => "LibreChat",
            Self::LmStudio => "LM Studio",
            Self::Goose => "Goose",
        }
    }

    /// Returns where it keeps its servers; `None` for what is set up on pages.
    pub(super) fn place(self) -> Option<Place> {
        let json = |shown, key| Place {
            shown,
            syntax: Syntax::Json,
            key,
            may_be_new: true,
        };
        Some(match self {
            Self::Chatgpt | Self::Claude | Self::OpenWebui => return None,
            Self::ClaudeCode => json("~/.claude.json", "mcpServers"),
            Self::Codex => Place {
                syntax: Syntax::Toml,
                ..json("~/.codex/config.toml", "mcp_servers")
            },
            Self::Cursor => json("~/.cursor/mcp.json", "mcpServers"),
            Self::Vscode => json(".vscode/mcp.json", "servers"),
            Self::Windsurf => json("~/.codeium/windsurf/mcp_config.json", "mcpServers"),
            Self::Zed => json("~/.config/zed/settings.json", "context_servers"),
            Self::Gemini => json("~/.gemini/settings.json", "mcpServers"),
            Self::Librechat => Place {
                syntax: Syntax::Yaml,
                may_be_new: false,
                ..json("librechat.yaml", "mcpServers")
            },
            Self::LmStudio => json("~/.lmstudio/mcp.json", "mcpServers"),
            Self::Goose => Place {
                syntax: Syntax::Yaml,
                ..json("~/.config/goose/config.yaml", "extensions")
            },
        })
    }

    /// Returns the path of its configuration, which need not be there; `None`
    /// when it has none, or nobody's home is known.
    pub(super) fn file(self, env: &Env) -> Option<PathBuf> {
        let place = self.place()?;
        let Some(below) = place.shown.strip_prefix("~/") else {
            return Some(PathBuf::from(place.shown));
        };
        let home = PathBuf::from(env.raw("HOME")?);
        if !home.is_absolute() {
            return None;
        }
        let moved = |variable: &str, name: &str| {
            let folder = PathBuf::from(env.raw(variable)?);
            folder.is_absolute().then(|| folder.join(name))
        };
        let there = |path: &PathBuf| path.exists();
        match self {
            Self::ClaudeCode => moved("CLAUDE_CONFIG_DIR", ".claude.json"),
            // The variable is ours, too: it counts where Codex has its file there.
            Self::Codex => moved("CODEX_HOME", "config.toml").filter(there),
            Self::Windsurf => Some(home.join(".codeium/mcp_config.json")).filter(there),
            Self::Zed | Self::Goose => {
                let name = Path::new(below).strip_prefix(".config").ok()?;
                moved("XDG_CONFIG_HOME", &name.to_string_lossy())
            }
            _ => None,
        }
        .or_else(|| Some(home.join(below)))
    }

    /// Whether it can start a process on this machine.
    pub(super) fn starts_processes(self) -> bool {
        !matches!(
            self,
            Self::Chatgpt | Self::Claude | Self::OpenWebui | Self::Librechat
        )
    }

    /// Returns where it finds its token.
    pub(super) fn token_place(self) -> TokenPlace {
        match self {
            Self::Vscode => TokenPlace::Prompt,
            Self::Zed | Self::LmStudio | Self::OpenWebui => TokenPlace::File,
            _ => TokenPlace::Variable,
        }
    }

    /// Returns the entry of this server in its configuration.
    pub(super) fn entry(self, transport: Transport, server: &ServerWords<'_>) -> Value {
        match transport {
            Transport::Process => self.process_entry(server),
            Transport::Http => self.http_entry(server),
        }
    }

    fn process_entry(self, server: &ServerWords<'_>) -> Value {
        let (program, words) = (server.program, &server.words);
        match self {
            Self::ClaudeCode | Self::Vscode => {
                json!({"type": "stdio", "command": program, "args": words})
            }
            Self::Goose => json!({
                "enabled": true, "type": "stdio", "name": super::NAME, "description": super::ABOUT,
                "cmd": program, "args": words, "timeout": GOOSE_TIMEOUT,
            }),
            _ => json!({"command": program, "args": words}),
        }
    }

    fn http_entry(self, server: &ServerWords<'_>) -> Value {
        let url = &server.url;
        let mut entry = match self {
            Self::ClaudeCode | Self::Vscode => json!({"type": "http", "url": url}),
            Self::Windsurf => json!({"serverUrl": url}),
            // Its `url` is for the transport before this one.
            Self::Gemini => json!({"httpUrl": url}),
            Self::Librechat => json!({"type": "streamable-http", "url": url}),
            Self::Goose => json!({
                "enabled": true, "type": "streamable_http", "name": super::NAME,
                "description": super::ABOUT, "uri": url, "timeout": GOOSE_TIMEOUT,
            }),
            _ => json!({"url": url}),
        };
        if server.is_open {
            return entry;
        }
        let variable = self.variable();
        if self == Self::Codex {
            entry["bearer_token_env_var"] = variable.into();
            return entry;
        }
        if self == Self::Goose {
            entry["env_keys"] = json!([variable]);
        }
        let token = match self {
            Self::Cursor | Self::Windsurf => format!("${{env:{variable}}}"),
            Self::Vscode => format!("${{input:{INPUT}}}"),
            _ if self.token_place() == TokenPlace::File => {
                let token = server.token.map_or(NO_TOKEN, Token::reveal);
                token.to_owned()
            }
            _ => format!("${{{variable}}}"),
        };
        entry["headers"] = json!({"Authorization": format!("Bearer {token}")});
        entry
    }

    /// Returns the question that goes with an entry, for who asks for the token.
    pub(super) fn question(self, entry: &Value) -> Option<Value> {
        (self == Self::Vscode && entry.get("headers").is_some()).then(|| {
            json!({
                "type": "promptString",
                "id": INPUT,
                "description": "Token of codex-server",
                "password": true,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_where_its_client_looks() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("a name");
        let check = |client: ClientKind, more: &[(&str, &str)], expected: Option<&str>| {
            let pairs = [("HOME", home)];
            let env: Env = pairs.into_iter().chain(more.iter().copied()).collect();
            let found = client.file(&env);
            let expected = expected.map(|path| PathBuf::from(path.replace('~', home)));
            assert_eq!(found, expected, "{client:?} {more:?}");
        };
        for client in ClientKind::value_variants() {
            check(*client, &[], client.place().map(|place| place.shown));
        }
        let elsewhere = format!("{home}/else");
        for (client, variable, name) in [
            (
                ClientKind::ClaudeCode,
                "CLAUDE_CONFIG_DIR",
                "~/else/.claude.json",
            ),
            (
                ClientKind::Zed,
                "XDG_CONFIG_HOME",
                "~/else/zed/settings.json",
            ),
            (
                ClientKind::Goose,
                "XDG_CONFIG_HOME",
                "~/else/goose/config.yaml",
            ),
            (ClientKind::Cursor, "XDG_CONFIG_HOME", "~/.cursor/mcp.json"),
            (ClientKind::Codex, "CODEX_HOME", "~/.codex/config.toml"),
        ] {
            check(client, &[(variable, &elsewhere)], Some(name));
        }
        check(
            ClientKind::Zed,
            &[("XDG_CONFIG_HOME", "else")],
            Some("~/.config/zed/settings.json"),
        );
        std::fs::create_dir_all(folder.path().join(".codeium")).expect("a folder");
        std::fs::create_dir_all(folder.path().join("else")).expect("a folder");
        for name in [".codeium/mcp_config.json", "else/config.toml"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        check(
            ClientKind::Windsurf,
            &[],
            Some("~/.codeium/mcp_config.json"),
        );
        check(
            ClientKind::Codex,
            &[("CODEX_HOME", &elsewhere)],
            Some("~/else/config.toml"),
        );
        assert_eq!(ClientKind::Cursor.file(&Env::default()), None);
    }
}
