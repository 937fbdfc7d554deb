//! `cargo xtask clients`: what `connect --write` puts into the files of clients that
//! npm has, read by their own listings; and the bundle for desktop clients, judged by
//! its packer's own check, unpacked and used as its manifest says.
//!
//! The clients' versions are pinned in `lab/clients/package.json`. Never signs in
//! anywhere: a listing needs no account.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bundle;
use crate::live::{CLEAN_PATH, Home, Server};
use crate::npm::Packages;
use xtask::process;

/// Seconds that one program of these may take.
const PATIENCE: &str = "90";

/// A client, and how it lists its servers.
struct Lister {
    /// Its name for `connect`.
    name: &'static str,
    /// Below `node_modules/`.
    program: &'static str,
    /// Whether Node runs it.
    is_script: bool,
    words: &'static [&'static str],
    /// What it says of a process, and of an address, besides its name.
    says: [&'static str; 2],
    /// Its file, and another's entry in it.
    others: (&'static str, &'static str),
}

/// What a program said until it ended.
struct Said {
    said: String,
    succeeded: bool,
}

const LISTERS: [Lister; 3] = [
    Lister {
        name: "claude-code",
        program: "@anthropic-ai/claude-code-linux-{arch}/claude",
        is_script: false,
        words: &["mcp", "list"],
        // It starts the one and calls the other.
        says: ["Connected", "Connected"],
        others: (
            ".claude.json",
            "{\"mcpServers\": {\"theirs\": {\"type\": \"stdio\", \"command\": \"false\", \"args\": []}}}",
        ),
    },
    Lister {
        name: "codex",
        program: "@openai/codex-linux-{arch}/vendor/{machine}-unknown-linux-musl/bin/codex",
        is_script: false,
        words: &["mcp", "list", "--json"],
        says: ["stdio", "streamable_http"],
        others: (
            ".codex/config.toml",
            "# mine\n[mcp_servers.theirs]\ncommand = \"false\"\n",
        ),
    },
    Lister {
        name: "gemini",
        program: "@google/gemini-cli/bundle/gemini.js",
        is_script: true,
        words: &["mcp", "list"],
        says: ["Connected", "Connected"],
        others: (
            ".gemini/settings.json",
            "{\n  // mine\n  \"mcpServers\": {\"theirs\": {\"command\": \"false\"}}\n}\n",
        ),
    },
];

/// What all checks need.
struct Desk<'a> {
    packages: Packages,
    binary: &'a Path,
    home: &'a Home,
    server: &'a Server,
    passed: usize,
    failed: Vec<String>,
}

/// Lets all of them read.
///
/// # Errors
/// With the names of the checks that failed.
pub(crate) fn clients(binary: &Path) -> Result<()> {
    let packages = Packages::of_clients()?;
    let home = Home::new()?;
    let server = Server::start(binary, &home, &[])?;
    let mut desk = Desk {
        packages,
        binary,
        home: &home,
        server: &server,
        passed: 0,
        failed: Vec::new(),
    };
    for lister in &LISTERS {
        desk.lists(lister)?;
    }
    desk.bundles()?;
    ensure!(
        desk.failed.is_empty(),
        "{} of {} checks of clients failed: {}",
        desk.failed.len(),
        desk.failed.len() + desk.passed,
        desk.failed.join(", ")
    );
    println!("{} checks of clients passed", desk.passed);
    Ok(())
}

impl Desk<'_> {
    fn tell(&mut self, name: &str, holds: bool, saw: &str) {
        if holds {
            println!("ok      {name}");
            self.passed += 1;
        } else {
            println!("FAILED  {name}: {saw}");
            self.failed.push(name.to_owned());
        }
    }

    /// Has `connect` write a client's file beside another's entry, by each way, and
    /// the client list what is there.
    fn lists(&mut self, lister: &Lister) -> Result<()> {
        let desk = self.home.path().join("desks").join(lister.name);
        fs::create_dir_all(&desk).context("failed to make a client's home")?;
        let url = format!("http://{}/mcp", self.server.address);
        let (file, others) = lister.others;
        let file = desk.join(file);
        let folder = file.parent().context("a file has a folder")?;
        fs::create_dir_all(folder).context("failed to make a client's folder")?;
        fs::write(&file, others).context("failed to write a client's file")?;
        let ways: [&[&str]; 2] = [&["--by", "process"], &["--by", "http", "--new-token"]];
        for (way, says) in ways.into_iter().zip(lister.says) {
            let mut connect = self.home.command(self.binary);
            connect.env("HOME", &desk);
            connect.args(["connect", lister.name, "--write", "--json"]);
            let written = process::capture("write a client's file", connect.args(way))?;
            let written: Value = serde_json::from_str(&written).context("no JSON")?;
            let token = written["token"].as_str().unwrap_or_default().to_owned();
            let mut command = self.client(lister);
            command.args(lister.words);
            let listed = self.run(&command, &desk, &token)?.said;
            let name = format!("{}: its listing, {}", lister.name, way.join(" "));
            let both = listed.contains("codex") && listed.contains("theirs");
            let is_there = both && listed.contains(says);
            let by_http = token.is_empty() != listed.contains(&url);
            self.tell(&name, is_there && by_http, &listed);
        }
        Ok(())
    }

    fn client(&self, lister: &Lister) -> Command {
        let (arch, machine) = match std::env::consts::ARCH {
            "aarch64" => ("arm64", "aarch64"),
            _ => ("x64", "x86_64"),
        };
        let program = lister.program.replace("{arch}", arch);
        let program = program.replace("{machine}", machine);
        let program = self.packages.path(&program);
        if lister.is_script {
            let mut node = self.packages.node();
            node.arg(program);
            return node;
        }
        process::command(program)
    }

    /// Runs a command to its end, in a client's home.
    fn run(&self, command: &Command, desk: &Path, token: &str) -> Result<Said> {
        let mut bounded = process::command("timeout");
        bounded
            .arg(PATIENCE)
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .env("HOME", desk)
            .env("TMPDIR", self.home.tmp())
            .env("CODEX_TOKEN", token)
            .env("CODEX_TOKEN_CLAUDE_CODE", token)
            .env("CODEX_TOKEN_CODEX", token)
            .env("CODEX_TOKEN_GEMINI", token)
            // Gemini lists nothing as connected in a folder that nobody vouched for.
            .env("GEMINI_CLI_TRUST_WORKSPACE", "true")
            .current_dir(command.get_current_dir().unwrap_or(desk));
        let output = bounded.output().with_context(|| {
            let program = command.get_program().to_string_lossy();
            format!("failed to start {program} with `timeout`")
        })?;
        let said = [output.stdout, output.stderr].concat();
        Ok(Said {
            said: String::from_utf8_lossy(&said).into_owned(),
            succeeded: output.status.success(),
        })
    }

    /// Packs the bundle, and does what a desktop client does with it.
    fn bundles(&mut self) -> Result<()> {
        let place = self.home.path().join("bundle");
        fs::create_dir_all(&place).context("failed to make the bundle's folder")?;
        let (file, unpacked) = (place.join("codex-server.mcpb"), place.join("unpacked"));
        bundle::pack(self.binary, &file)?;
        let packer = self.packages.path("@anthropic-ai/mcpb/dist/cli/cli.js");
        let told = |words: &[&Path]| -> Result<Said> {
            let mut node = self.packages.node();
            node.arg(&packer).args(words);
            self.run(&node, &place, "")
        };
        told(&["unpack".as_ref(), &file, &unpacked])?;
        let manifest = unpacked.join("manifest.json");
        let judged = told(&["validate".as_ref(), &manifest])?;
        let is_valid = judged.succeeded && judged.said.contains("validation passes");
        self.tell("bundle: its packer's own check", is_valid, &judged.said);
        let manifest = fs::read_to_string(&manifest).context("the bundle has no manifest")?;
        let manifest: Value = serde_json::from_str(&manifest).context("no JSON")?;
        let token = self.server.token().unwrap_or_default().to_owned();
        let here = format!("http://{}", self.server.address);
        for (name, url, token) in [("here", "", ""), ("a server", &*here, &*token)] {
            let started = ClientCommand::of(&manifest, &unpacked, url, token);
            let mut node = Packages::ready()?.node();
            node.arg(process::root().join("lab/mcp/client.mjs"));
            node.args(["sdk", "legacy", "2025-11-25", "stdio"]);
            node.args(&started.words);
            let printed = self.run(&node, &place, &started.token)?.said;
            let passed = printed.matches("\"passed\":true").count();
            let all = passed == CHECKS && !printed.contains("\"passed\":false");
            self.tell(&format!("bundle: used by the sdk, {name}"), all, &printed);
        }
        let listed = manifest["tools"].as_array().into_iter().flatten();
        let listed: Vec<&str> = listed.filter_map(|tool| tool["name"].as_str()).collect();
        let same = listed
            == [
                "create_session",
                "fork_context",
                "list_files",
                "list_languages",
                "read_file",
                "run_code",
                "run_command",
                "write_file",
            ];
        self.tell("bundle: it names the tools", same, &format!("{listed:?}"));
        Ok(())
    }
}

/// Checks that `client.mjs` makes of a server by standard input and output.
const CHECKS: usize = 10;

/// What a desktop client starts.
struct ClientCommand {
    words: Vec<PathBuf>,
    token: String,
}

impl ClientCommand {
    /// Fills in a manifest as desktop clients do.
    fn of(manifest: &Value, folder: &Path, url: &str, token: &str) -> Self {
        let filled = |text: &Value| {
            let text = text.as_str().unwrap_or_default();
            text.replace("${__dirname}", &folder.to_string_lossy())
                .replace("${user_config.url}", url)
                .replace("${user_config.token}", token)
        };
        let config = &manifest["server"]["mcp_config"];
        let mut words = vec![PathBuf::from(filled(&config["command"]))];
        let args = config["args"].as_array().into_iter().flatten();
        words.extend(args.map(|word| PathBuf::from(filled(word))));
        Self {
            words,
            token: filled(&config["env"]["CODEX_TOKEN"]),
        }
    }
}
