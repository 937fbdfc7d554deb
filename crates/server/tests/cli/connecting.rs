//! `connect CLIENT --write`: each client's own file, as people have it, before and
//! after.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Done, Home, finish};

/// A client, its file below the home, and the member that has its servers.
#[derive(Debug, Clone, Copy)]
struct Client {
    name: &'static str,
    file: &'static str,
    key: &'static str,
}

const fn client(name: &'static str, file: &'static str, key: &'static str) -> Client {
    Client { name, file, key }
}

const CLIENTS: [Client; 10] = [
    client("claude-code", ".claude.json", "mcpServers"),
    client("codex", ".codex/config.toml", "mcp_servers"),
    client("cursor", ".cursor/mcp.json", "mcpServers"),
    client("vscode", ".vscode/mcp.json", "servers"),
    client(
        "windsurf",
        ".codeium/windsurf/mcp_config.json",
        "mcpServers",
    ),
    client("zed", ".config/zed/settings.json", "context_servers"),
    client("gemini", ".gemini/settings.json", "mcpServers"),
    client("librechat", "librechat.yaml", "mcpServers"),
    client("lm-studio", ".lmstudio/mcp.json", "mcpServers"),
    client("goose", ".config/goose/config.yaml", "extensions"),
];

/// One client in a home of its own.
struct Desk {
    client: Client,
    home: Home,
}

impl Desk {
    fn of(client: Client) -> Self {
        Self {
            client,
            home: Home::new(),
        }
    }

    fn file(&self) -> PathBuf {
        self.home.working_directory().join(self.client.file)
    }

    fn put(&self, text: &str) {
        fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        fs::write(self.file(), text).unwrap();
    }

    fn connect(&self, more: &[&str]) -> Done {
        let args = [
            &["connect", self.client.name, "--write", "--port", "1"],
            more,
        ]
        .concat();
        let mut command = self.home.command(&args);
        // The data directory is not named by a variable, as with most people.
        command.env_remove("CODEX_HOME");
        command.env("XDG_DATA_HOME", self.home.path());
        finish(command.env("HOME", self.home.working_directory()))
    }

    /// The file as the client reads it.
    fn read(&self) -> Value {
        let text = fs::read_to_string(self.file()).unwrap();
        match self.file().extension().unwrap().to_str() {
            Some("toml") => toml::from_str(&text).unwrap(),
            Some("yaml") => yaml_serde::from_str(&text).unwrap(),
            _ => serde_json::from_str(&without_comments(&text)).unwrap(),
        }
    }

    fn entry(&self) -> Value {
        self.read()[self.client.key]["codex"].clone()
    }

    /// Members of others, in the client's own syntax, with a comment.
    fn others(&self) -> String {
        let key = self.client.key;
        match self.file().extension().unwrap().to_str() {
            Some("toml") => {
                format!("# mine\nother = 'x' # why\n\n[{key}.theirs]\ncommand = \"npx\"\n")
            }
            Some("yaml") => {
                format!("# mine\nother: x # why\n{key}:\n  theirs:\n    command: npx\n")
            }
            _ => format!(
                "{{\n  // mine\n  \"other\": \"x\", // why\n  \"{key}\": {{\n    \"theirs\": {{\"command\": \"npx\"}},\n  }},\n}}\n"
            ),
        }
    }

    fn nothing(&self) -> &'static str {
        match self.file().extension().unwrap().to_str() {
            Some("json") => "{}",
            _ => "",
        }
    }

    fn starts_processes(&self) -> bool {
        self.client.name != "librechat"
    }
}

/// JSON of the texts above, which have comments on lines of their own or after two
/// spaces, and commas before brackets.
fn without_comments(text: &str) -> String {
    let mut text: String = text
        .lines()
        .map(|line| line.split(" // ").next().unwrap_or_default().trim_end())
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    for bracket in ['}', ']'] {
        loop {
            let less = text
                .replace(&format!(",{bracket}"), &bracket.to_string())
                .replace(&format!(", {bracket}"), &bracket.to_string())
                .replace(&format!("  {bracket}"), &format!(" {bracket}"));
            if less == text {
                break;
            }
            text = less;
        }
    }
    text
}

/// The words that start us, wherever a client keeps them.
fn program(entry: &Value) -> Option<&str> {
    entry["command"].as_str().or_else(|| entry["cmd"].as_str())
}

#[test]
fn each_client_gets_a_process_and_others_keep_what_they_have() {
    for client in CLIENTS {
        let desk = Desk::of(client);
        if !desk.starts_processes() {
            desk.connect(&[]).refused(1, "there is no ");
            continue;
        }
        // Without a file, with an empty one, and with others' entries.
        let done = desk.connect(&[]);
        assert!(done.out().contains("✓ added codex to "), "{done:?}");
        let alone = desk.entry();
        assert!(
            program(&alone).unwrap().ends_with("/codex-server"),
            "{alone}"
        );
        assert_eq!(alone["args"], json!(["mcp"]), "{client:?}");
        let mode = desk.file().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{client:?}");
        for text in ["", desk.nothing()] {
            desk.put(text);
            desk.connect(&[]).out();
            assert_eq!(desk.entry(), alone, "{client:?}");
        }
        let others = desk.others();
        desk.put(&others);
        let done = desk.connect(&[]);
        assert!(
            done.out().contains("other servers in it, left alone: 1"),
            "{done:?}"
        );
        let text = fs::read_to_string(desk.file()).unwrap();
        for line in others.lines().filter(|line| !line.trim().is_empty()) {
            assert!(text.contains(line), "{client:?} lacks {line:?}: {text}");
        }
        assert_eq!(desk.entry(), alone, "{client:?}");
        let copy = done.out().split("as it was before: ").nth(1).unwrap();
        let copy = fs::read_to_string(copy.lines().next().unwrap()).unwrap();
        assert_eq!(copy, others, "{client:?}");
        // Once more, and nothing happens.
        let done = desk.connect(&["--json"]);
        let json: Value = serde_json::from_str(done.out()).unwrap();
        assert_eq!(
            (&json["change"], &json["copy"]),
            (&json!("unchanged"), &Value::Null)
        );
        assert_eq!(fs::read_to_string(desk.file()).unwrap(), text);
    }
}

#[test]
fn what_was_put_in_is_taken_out_again() {
    for client in CLIENTS {
        let desk = Desk::of(client);
        desk.put(&desk.others());
        desk.connect(&["--by", "http", "--new-token"]).out();
        assert_ne!(desk.entry(), Value::Null, "{client:?}");
        let mut command = desk
            .home
            .command(&["connect", client.name, "--remove", "--port", "1"]);
        command.env_remove("CODEX_HOME");
        command.env("XDG_DATA_HOME", desk.home.path());
        command.env("HOME", desk.home.working_directory());
        let done = finish(&mut command);
        let told = format!("token revoke {}", client.name);
        assert!(
            done.out().contains("took this server out") && done.out().contains(&told),
            "{done:?}"
        );
        assert_eq!(desk.entry(), Value::Null, "{client:?}");
        let text = fs::read_to_string(desk.file()).unwrap();
        for word in ["mine", "why", "theirs", "npx"] {
            assert!(text.contains(word), "{client:?} lacks {word}: {text}");
        }
        let again = finish(&mut command);
        assert!(again.out().contains("is not in"), "{again:?}");
    }
}

#[test]
fn each_client_gets_an_address_and_a_token_of_its_own() {
    for client in CLIENTS {
        let desk = Desk::of(client);
        desk.put(&desk.others());
        let inline = matches!(client.name, "zed" | "lm-studio");
        if inline {
            desk.connect(&["--by", "http"])
                .refused(2, "say --new-token as well");
            assert_eq!(fs::read_to_string(desk.file()).unwrap(), desk.others());
        }
        let done = desk.connect(&["--by", "http", "--new-token", "--json"]);
        let json: Value = serde_json::from_str(done.out()).unwrap();
        assert_eq!(
            (&json["change"], &json["name"]),
            (&json!("added"), &json!("codex"))
        );
        let token = json["token"].as_str().unwrap();
        assert!(token.starts_with("codex_"));
        let text = fs::read_to_string(desk.file()).unwrap();
        assert!(
            text.contains("http://127.0.0.1:1/mcp"),
            "{client:?}: {text}"
        );
        assert_eq!(text.contains(token), inline, "{client:?}: {text}");
        let steps = json["steps"].to_string();
        assert!(
            steps.contains(&format!("token revoke {}", client.name)),
            "{steps}"
        );
        // A second time the token that works stays, and the first name is taken.
        desk.connect(&["--by", "http", "--new-token"])
            .refused(1, "there is a token named");
        let done = desk.connect(&["--by", "http"]);
        assert!(done.out().contains("as it should be"), "{done:?}");
        assert_eq!(fs::read_to_string(desk.file()).unwrap(), text, "{client:?}");
        if inline {
            desk.put(&desk.others());
            let done = desk.connect(&["--by", "http", "--new-token=again"]);
            assert!(
                done.out().contains("WARNING: the file has the token"),
                "{done:?}"
            );
        }
        // From an address to a process.
        if desk.starts_processes() {
            desk.connect(&["--by", "process"]).out();
            let entry = desk.entry();
            assert!(program(&entry).is_some(), "{entry}");
            let text = entry.to_string();
            assert!(
                !text.contains("127.0.0.1") && !text.contains("Bearer"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_file_that_is_not_understood_is_left_alone() {
    for client in CLIENTS {
        let desk = Desk::of(client);
        let by = ["--by", "http", "--new-token"];
        for text in ["{\"a\": ", "[1", "- a\n- b\n"] {
            desk.put(text);
            let done = desk.connect(&by);
            done.refused(1, "it was not changed. To do it by hand, ");
            assert!(done.stderr.contains(client.key), "{done:?}");
            assert_eq!(fs::read_to_string(desk.file()).unwrap(), text);
        }
        // Read-only, and a link to nowhere.
        desk.put(&desk.others());
        fs::set_permissions(desk.file(), fs::Permissions::from_mode(0o444)).unwrap();
        desk.connect(&by).refused(1, "read-only");
        assert_eq!(fs::read_to_string(desk.file()).unwrap(), desk.others());
        fs::remove_file(desk.file()).unwrap();
        std::os::unix::fs::symlink("nowhere", desk.file()).unwrap();
        desk.connect(&by)
            .refused(1, "a link to a file that is not there");
        // A link to a file stays one.
        fs::remove_file(desk.file()).unwrap();
        let real = desk.home.working_directory().join("dotfile");
        fs::write(&real, desk.others()).unwrap();
        std::os::unix::fs::symlink(&real, desk.file()).unwrap();
        desk.connect(&by).out();
        assert!(desk.file().is_symlink(), "{client:?}");
        assert!(
            fs::read_to_string(&real).unwrap().contains("/mcp"),
            "{client:?}"
        );
        // No token was left over by what went wrong.
        let list = ["token", "list"];
        let mut command = desk.home.command(&list);
        command.env_remove("CODEX_HOME");
        let listed = finish(command.env("XDG_DATA_HOME", desk.home.path()));
        assert_eq!(listed.out().lines().count(), 2, "{listed:?}");
    }
}

#[test]
fn ways_and_files_that_there_are_not_are_refused() {
    let home = Home::new();
    for (args, words) in [
        (&["open-webui", "--write"][..], "set up on its pages"),
        (&["claude", "--write"], "set up on its pages"),
        (&["librechat", "--by", "process"], "starts no process"),
        (&["cursor", "--by", "tunnel"], "has no such way"),
        (&["claude", "--by", "http"], "has no such way"),
        (&["chatgpt", "--by", "process"], "OpenAI's machines"),
        (
            &["cursor", "--by", "process", "--new-token"],
            "needs no token",
        ),
        (&["cursor", "--write"], "HOME is not set"),
        (&["open-webui", "--remove"], "set up on its pages"),
        (&["cursor", "--remove", "--write"], "cannot be used with"),
        (
            &[
                "cursor",
                "--by",
                "address",
                "--public-url",
                "https://x.example",
                "--new-token",
            ],
            "make it where the server runs",
        ),
        (&["--write"], "<TARGET>"),
    ] {
        home.run(&[&["connect"], args].concat()).refused(2, words);
    }
    home.run(&["connect", "cursor", "--by", "address"])
        .refused(8, "no public address is known");
    assert!(!home.path().exists(), "nothing was made");
    let done = home.run(&["connect", "cursor", "--write=mine.json"]);
    assert!(done.out().contains("added codex"), "{done:?}");
    let text = fs::read_to_string(home.working_directory().join("mine.json")).unwrap();
    assert!(text.contains("\"--home\""), "{text}");
    let url = ["--public-url", "https://code.example.com", "--json"];
    let done = home.run(&[&["connect", "cursor", "--by", "address"], &url[..]].concat());
    let json: Value = serde_json::from_str(done.out()).unwrap();
    assert_eq!(json["url"], "https://code.example.com/mcp");
    // Without a public address the way to one is shown.
    let done = home.run(&["connect", "claude"]);
    assert_eq!(done.code, Some(8), "{done:?}");
    for words in [
        "no public URL is known",
        "--public-url https://THAT-ADDRESS",
        "connect claude",
    ] {
        assert!(done.stdout.contains(words), "{done:?}");
    }
}
