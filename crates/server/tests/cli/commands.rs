//! Commands that need no engine: mistakes, help, documents.

use std::process::Stdio;

use crate::support::{Home, finish};

#[test]
fn version_and_help() {
    let home = Home::new();
    assert_eq!(
        home.run(&["--version"]).out(),
        format!("codex-server {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = home.run(&["--help"]);
    for words in [
        "codex-server up",
        "token create",
        "doctor --public",
        "docs/configuration.md",
    ] {
        assert!(help.out().contains(words), "lacks {words:?}");
    }
    let serve = home.run(&["serve", "--help"]);
    assert!(
        serve
            .out()
            .contains("[env: CODEX_MAX_TIMEOUT] [1 s to 300 s]"),
        "{serve:?}"
    );
    assert!(!home.path().exists(), "help makes nothing");
}

#[test]
fn mistakes_have_their_exit_codes() {
    let home = Home::new();
    home.run(&[]).refused(2, "Usage:");
    home.run(&["srve"]).refused(2, "serve");
    home.run(&["serve", "--port", "http"]).refused(
        2,
        "--port: port = \"http\" is not a whole number. Give 0 to 65535",
    );
    finish(home.command(&["serve"]).env("CODEX_PORT", "http")).refused(3, "CODEX_PORT: port");
    home.run(&["serve", "--config", "none.toml"])
        .refused(2, "--config: failed to read none.toml");
    home.configure("prot = 8000");
    home.run(&["serve"]).refused(
        3,
        "codex.toml:1: unknown setting \"prot\"; did you mean port?",
    );
    finish(home.command(&["serve"]).env_remove("CODEX_HOME"))
        .refused(3, "neither CODEX_HOME nor HOME is set");
}

#[test]
fn a_data_directory_that_is_none() {
    let home = Home::new();
    std::fs::write(home.path(), "a file").unwrap();
    home.run(&["token", "list"])
        .refused(7, "failed to make the data directory");
    home.run(&["serve"])
        .refused(7, "failed to make the data directory");
}

#[test]
fn documents_need_nothing() {
    let home = Home::new();
    let url = "https://x.example";
    for args in [&["openapi"][..], &["openapi", "--actions"]] {
        let done = home.run(&[args, &["--public-url", "https://X.example/"]].concat());
        let document: serde_json::Value = serde_json::from_str(done.out()).unwrap();
        assert_eq!(document["servers"][0]["url"], url, "{args:?}");
        assert!(done.stderr.is_empty());
    }
    let yaml = home.run(&["openapi", "--yaml", "--public-url", url]);
    assert!(yaml.out().contains(url));
    let longer = home.run(&["openapi", "--max-timeout", "60"]);
    let longer: serde_json::Value = serde_json::from_str(longer.out()).unwrap();
    let request = &longer["components"]["schemas"]["ExecuteRequest"];
    assert_eq!(request["properties"]["timeout"]["maximum"], 60);
    let local = home.run(&["openapi", "--actions"]);
    assert!(local.stderr.contains("ChatGPT cannot reach"), "{local:?}");
    assert!(!home.path().exists());
}

#[test]
fn run_keeps_its_own_failures_apart() {
    let home = Home::new();
    home.run(&["run", "none.py"])
        .refused(125, "failed to read none.py");
    home.run(&["run", "-", "--stdin", "-"])
        .refused(125, "cannot be both");
    home.run(&["run", "-c", "1", "--max-timeout", "1h"])
        .refused(125, "out of range");
    home.run(&["run"]).refused(2, "Usage:");
}

#[test]
fn an_idle_time_is_off_or_a_minute_at_least() {
    let home = Home::new();
    home.run(&["serve", "--idle-shutdown", "59s"]).refused(
        2,
        "--idle-shutdown: idle_shutdown = \"59s\" is out of range. Give off, or 60 s to 30 days",
    );
    home.run(&["openapi", "--idle-shutdown", "off"]).out();
}

#[test]
fn connect_lists_and_says_what_is_wrong() {
    let home = Home::new();
    assert!(home.run(&["connect"]).out().contains("connect chatgpt"));
    home.run(&["connect", "cobol"]).refused(2, "chatgpt");
    let done = home.run(&["connect", "chatgpt", "--by", "action", "--new-token"]);
    assert_eq!(done.code, Some(8), "{done:?}");
    assert!(done.stdout.contains("no public URL is known"), "{done:?}");
    let none = "https://127.0.0.1:1";
    let action = ["connect", "chatgpt", "--by", "action", "--json"];
    let done = home.run(&[&action[..], &["--public-url", none]].concat());
    assert_eq!(done.code, Some(8), "{done:?}");
    let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(json["ready"], false);
    assert_eq!(json["schema_url"], format!("{none}/actions/openapi.json"));
    let done = home.run(&["connect", "chatgpt"]);
    assert_eq!(done.code, Some(8), "{done:?}");
    for words in ["no server runs", "Create a tunnel", "up --tunnel tunnel_…"] {
        assert!(done.stdout.contains(words), "{done:?}");
    }
    let done = home.run(&["connect", "chatgpt", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        (&json["by"], &json["ready"]),
        (&"tunnel".into(), &false.into())
    );
    let done = home.run(&["connect", "chatgpt", "--wait=1s"]);
    assert_eq!(done.code, Some(8), "{done:?}");
    assert!(done.stdout.contains("Not connected after 1 s"), "{done:?}");
    assert!(!home.path().exists(), "nothing was made");
    for (args, words) in [
        (
            &["chatgpt", "--by", "action", "--new-token=a b"][..],
            "name",
        ),
        (
            &["chatgpt", "--by", "tunnel", "--new-token"],
            "needs no token",
        ),
        (
            &["chatgpt", "--by", "action", "--wait"],
            "--wait is for the tunnel",
        ),
        (&["cursor", "--wait"], "is for chatgpt"),
        (&["claude", "--new-token"], "asks for a token"),
        (&["chatgpt", "--new-token"], "--by action --new-token"),
        (&["--new-token"], "<TARGET>"),
    ] {
        home.run(&[&["connect"], args].concat()).refused(2, words);
    }
}

#[test]
fn clients_of_this_machine_get_configurations() {
    let home = Home::new();
    let listed = home.run(&["connect", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(listed.out()).unwrap();
    let clients: Vec<&str> = listed["targets"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|name| name.as_str())
        .filter(|name| !matches!(*name, "chatgpt" | "claude"))
        .collect();
    let all = [
        "claude-code",
        "codex",
        "cursor",
        "vscode",
        "windsurf",
        "zed",
        "gemini",
        "open-webui",
        "librechat",
        "lm-studio",
        "goose",
    ];
    assert_eq!(clients, all);
    let shown = home.run(&["connect"]);
    for client in all {
        assert!(
            shown.out().contains(&format!("connect {client} ")),
            "{shown:?}"
        );
    }
    // Nothing listens on port 1.
    let none = ["--json", "--port", "1"];
    for client in &clients {
        let done = home.run(&[&["connect", *client][..], &none].concat());
        let json: serde_json::Value = serde_json::from_str(done.out()).unwrap();
        assert_eq!(json["server_answers"], false, "{json:#}");
        assert_eq!(json["url"], "http://127.0.0.1:1/mcp");
        assert_eq!(json["token"], serde_json::Value::Null);
    }
    assert!(!home.path().exists(), "nothing was made");

    let server = home.serve(&["serve"]);
    let url = format!("{}/mcp", server.url);
    for client in clients {
        let done = home.run(&["connect", client, "--new-token"]);
        let text = done.out();
        assert!(text.contains(&url) && !text.contains('✗'), "{text}");
        let shown = text.lines().any(|line| {
            let word = line.rsplit([' ', '=']).next().unwrap_or_default();
            word.starts_with("codex_") && word.len() > 40
        });
        assert!(shown, "no token: {text}");
        assert!(text.contains(&format!("token revoke {client}")), "{text}");
        home.run(&["connect", client, "--new-token"])
            .refused(1, "there is a token named");
        assert!(home.run(&["token", "list"]).out().contains(client));
    }
}

#[test]
fn doctor_without_a_public_url_says_so() {
    let home = Home::new();
    let done = home.run(&["doctor", "--public", "--json"]);
    assert_eq!(done.code, Some(8), "{done:?}");
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        report["sections"]["public_URL"][0]["detail"],
        "no public URL is known"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    let mut child = home
        .command(&["openapi"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
