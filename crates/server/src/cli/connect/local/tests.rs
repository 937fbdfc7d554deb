//! What clients' parsers make of what is printed.

use clap::ValueEnum as _;

use super::*;
use crate::cli::connect::client::Syntax;
use crate::config::{Env, Flags, resolve};

fn guide<T>(client: ClientKind, is_open: bool, tell: impl Fn(&LocalGuide<'_>) -> T) -> T {
    let home = "/a b/\"home\"";
    let env: Env = [("CODEX_HOME", home)].into_iter().collect();
    let mut settings = resolve(&Flags::default(), &env, None, home.into()).unwrap();
    let program = "/opt/it's here/codex-server";
    program.clone_into(&mut settings.program);
    tell(&LocalGuide {
        client,
        transport: None,
        settings: &settings,
        program,
        file: None,
        address: "http://127.0.0.1:8000",
        answers: true,
        is_open,
        token: None,
        name: "laptop",
    })
}

/// Every client that has a file.
fn with_files() -> impl Iterator<Item = ClientKind> {
    let all = ClientKind::value_variants().iter().copied();
    all.filter(|client| client.place().is_some())
}

/// The configuration among the steps, as the client reads it.
fn configuration(client: ClientKind, steps: &[Step]) -> Value {
    let step = steps
        .iter()
        .find(|step| step.what.contains("beside what is there"));
    let text = step.unwrap().copy.as_deref().unwrap();
    match client.place().unwrap().syntax {
        Syntax::Json => serde_json::from_str(text).unwrap(),
        Syntax::Toml => toml::from_str(text).unwrap(),
        Syntax::Yaml => yaml_serde::from_str(text).unwrap(),
    }
}

#[test]
fn a_process_is_started_by_its_exact_words() {
    let words = json!(["mcp", "--home", "/a b/\"home\""]);
    let program = "/opt/it's here/codex-server";
    let plain = json!({"command": program, "args": words});
    let typed = json!({"type": "stdio", "command": program, "args": words});
    let goose = json!({"enabled": true, "type": "stdio", "name": "codex",
        "description": "Runs code in a sandbox", "cmd": program, "args": words, "timeout": 300});
    for client in with_files().filter(|client| client.starts_processes()) {
        let (found, key) = guide(client, false, |guide| {
            let found = configuration(client, &guide.by_process());
            (found, client.place().unwrap().key)
        });
        let entry = match client {
            ClientKind::ClaudeCode | ClientKind::Vscode => &typed,
            ClientKind::Goose => &goose,
            _ => &plain,
        };
        assert_eq!(found, json!({key: {"codex": entry}}), "{client:?}");
    }
    let line = r#"-- '/opt/it'\''s here/codex-server' mcp --home '/a b/"home"'"#;
    for (client, add) in [
        (
            ClientKind::ClaudeCode,
            "claude mcp add --scope user --transport stdio codex",
        ),
        (ClientKind::Codex, "codex mcp add codex"),
    ] {
        let step = guide(client, false, |guide| guide.by_process()).remove(0);
        assert_eq!(step.copy.unwrap(), format!("{add} {line}"));
    }
}

#[test]
fn a_token_is_left_to_a_variable_or_a_prompt() {
    let url = "http://127.0.0.1:8000/mcp";
    let check = |client: ClientKind, is_open: bool, expected: Value| {
        let found = guide(client, is_open, |guide| {
            configuration(client, &guide.by_http())
        });
        assert_eq!(found, expected, "{client:?}");
    };
    let header = |value: &str| json!({"Authorization": format!("Bearer {value}")});
    let braces = |name: &str| header(&format!("${{CODEX_TOKEN_{name}}}"));
    let env = |name: &str| header(&format!("${{env:CODEX_TOKEN_{name}}}"));
    let ask = header("${input:codex_token}");
    let typed = header("YOUR_TOKEN");
    for (client, key, entry) in [
        (
            ClientKind::ClaudeCode,
            "mcpServers",
            json!({"type": "http", "url": url, "headers": braces("CLAUDE_CODE")}),
        ),
        (
            ClientKind::Codex,
            "mcp_servers",
            json!({"url": url, "bearer_token_env_var": "CODEX_TOKEN_CODEX"}),
        ),
        (
            ClientKind::Cursor,
            "mcpServers",
            json!({"url": url, "headers": env("CURSOR")}),
        ),
        (
            ClientKind::Windsurf,
            "mcpServers",
            json!({"serverUrl": url, "headers": env("WINDSURF")}),
        ),
        (
            ClientKind::Zed,
            "context_servers",
            json!({"url": url, "headers": typed}),
        ),
        (
            ClientKind::Gemini,
            "mcpServers",
            json!({"httpUrl": url, "headers": braces("GEMINI")}),
        ),
        (
            ClientKind::Librechat,
            "mcpServers",
            json!({"type": "streamable-http", "url": url, "headers": braces("LIBRECHAT")}),
        ),
        (
            ClientKind::LmStudio,
            "mcpServers",
            json!({"url": url, "headers": typed}),
        ),
        (
            ClientKind::Goose,
            "extensions",
            json!({"enabled": true, "type": "streamable_http", "name": "codex",
                "description": "Runs code in a sandbox", "uri": url, "timeout": 300,
                "env_keys": ["CODEX_TOKEN_GOOSE"], "headers": braces("GOOSE")}),
        ),
    ] {
        check(client, false, json!({key: {"codex": entry}}));
    }
    let code = json!({"type": "http", "url": url, "headers": ask});
    let input = json!({"type": "promptString", "id": "codex_token",
        "description": "Token of codex-server", "password": true});
    check(
        ClientKind::Vscode,
        false,
        json!({"servers": {"codex": code}, "inputs": [input]}),
    );

    let codex = json!({"codex": {"url": url}});
    check(ClientKind::Codex, true, json!({"mcp_servers": codex}));
    let code = json!({"codex": {"type": "http", "url": url}});
    check(ClientKind::Vscode, true, json!({"servers": code}));
    for client in with_files() {
        let text = guide(client, true, |guide| guide.to_json().to_string());
        assert!(!text.contains("Authorization"), "{client:?}: {text}");
    }
}

#[test]
fn pages_are_named_for_what_has_no_file() {
    let check = |is_open: bool, expected: &str| {
        let text = guide(ClientKind::OpenWebui, is_open, |guide| guide.to_string());
        for words in ["External Tools", "http://127.0.0.1:8000/mcp", expected] {
            assert!(text.contains(words), "lacks {words}: {text}");
        }
        assert!(
            !text.contains("--write") && !text.contains("starts the engine"),
            "{text}"
        );
    };
    check(true, "Auth: None");
    check(false, "Auth: Bearer");
}

#[test]
fn a_token_is_shown_only_when_it_was_made() {
    let token = Token::generate().unwrap();
    for client in with_files().chain([ClientKind::OpenWebui]) {
        guide(client, false, |guide| {
            let (text, json) = (guide.to_string(), guide.to_json().to_string());
            assert!(
                !text.contains("codex_") || client == ClientKind::Vscode,
                "{text}"
            );
            for words in ["token create laptop", "token revoke laptop"] {
                assert!(text.contains(words) && json.contains(words), "{text}");
            }
            let made = LocalGuide {
                token: Some(&token),
                ..*guide
            };
            assert!(made.to_string().contains(token.reveal()), "{client:?}");
            assert!(!made.to_string().contains("token create"), "{client:?}");
            assert_eq!(made.to_json()["token"], token.reveal());
        });
        guide(client, true, |guide| {
            let text = guide.to_string();
            assert!(
                text.contains("WARNING") && !text.contains("token revoke"),
                "{text}"
            );
        });
    }
}
