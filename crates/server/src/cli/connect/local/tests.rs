//! What clients' parsers make of what is printed.

use super::*;
use crate::config::{Env, Flags, resolve};

const CLIENTS: [Client; 4] = [
    Client::ClaudeCode,
    Client::Codex,
    Client::Cursor,
    Client::Vscode,
];

fn guide<T>(client: Client, is_open: bool, tell: impl Fn(&LocalGuide<'_>) -> T) -> T {
    let home = "/a b/\"home\"";
    let env: Env = [("CODEX_HOME", home)].into_iter().collect();
    let mut settings = resolve(&Flags::default(), &env, None, home.into()).unwrap();
    "/opt/it's here/codex-server".clone_into(&mut settings.program);
    tell(&LocalGuide {
        client,
        settings: &settings,
        here: "http://127.0.0.1:8000",
        answers: true,
        is_open,
        token: None,
        name: "laptop",
    })
}

/// The configuration among the steps, as the client reads it.
fn configuration(client: Client, steps: Vec<Step>) -> Value {
    let what = match client {
        Client::Codex => "Or add to",
        _ => "Put into",
    };
    let step = steps.into_iter().find(|step| step.what.starts_with(what));
    let text = step.unwrap().copy.unwrap();
    match client {
        Client::Codex => toml::from_str(&text).unwrap(),
        _ => serde_json::from_str(&text).unwrap(),
    }
}

#[test]
fn a_process_is_started_by_its_exact_words() {
    let words = json!(["mcp", "--home", "/a b/\"home\""]);
    let program = "/opt/it's here/codex-server";
    let check = |client: Client, expected: Value| {
        let found = guide(client, false, |guide| {
            configuration(client, guide.by_process())
        });
        assert_eq!(found, expected, "{client:?}");
    };
    let server = json!({"codex": {"command": program, "args": words}});
    check(Client::Codex, json!({"mcp_servers": server}));
    check(Client::Cursor, json!({"mcpServers": server}));
    let server = json!({"codex": {"type": "stdio", "command": program, "args": words}});
    check(Client::Vscode, json!({"servers": server}));
    let line = r#"-- '/opt/it'\''s here/codex-server' mcp --home '/a b/"home"'"#;
    for (client, add) in [
        (Client::ClaudeCode, "claude mcp add --transport stdio codex"),
        (Client::Codex, "codex mcp add codex"),
    ] {
        let step = guide(client, false, |guide| guide.by_process()).remove(0);
        assert_eq!(step.copy.unwrap(), format!("{add} {line}"));
    }
}

#[test]
fn a_token_is_left_to_a_variable_or_a_prompt() {
    let url = "http://127.0.0.1:8000/mcp";
    let check = |client: Client, is_open: bool, expected: Value| {
        let found = guide(client, is_open, |guide| {
            configuration(client, guide.by_http())
        });
        assert_eq!(found, expected, "{client:?}");
    };
    let header = |value: &str| json!({"Authorization": value});
    let claude = json!({"type": "http", "url": url, "headers": header("Bearer ${CODEX_TOKEN}")});
    check(
        Client::ClaudeCode,
        false,
        json!({"mcpServers": {"codex": claude}}),
    );
    let codex = json!({"url": url, "bearer_token_env_var": "CODEX_TOKEN"});
    check(
        Client::Codex,
        false,
        json!({"mcp_servers": {"codex": codex}}),
    );
    let cursor = json!({"url": url, "headers": header("Bearer ${env:CODEX_TOKEN}")});
    check(
        Client::Cursor,
        false,
        json!({"mcpServers": {"codex": cursor}}),
    );
    let code =
        json!({"type": "http", "url": url, "headers": header("Bearer ${input:codex_token}")});
    let input = json!({"type": "promptString", "id": "codex_token",
        "description": "Token of codex-server", "password": true});
    check(
        Client::Vscode,
        false,
        json!({"servers": {"codex": code}, "inputs": [input]}),
    );

    let codex = json!({"codex": {"url": url}});
    check(Client::Codex, true, json!({"mcp_servers": codex}));
    let code = json!({"codex": {"type": "http", "url": url}});
    check(Client::Vscode, true, json!({"servers": code}));
}

#[test]
fn a_token_is_shown_only_when_it_was_made() {
    let token = Token::generate().unwrap();
    for client in CLIENTS {
        guide(client, false, |guide| {
            let (text, json) = (guide.to_string(), guide.to_json().to_string());
            assert!(
                !text.contains("codex_") || client == Client::Vscode,
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
