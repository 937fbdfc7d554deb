//! ChatGPT and Claude by a public https address and OAuth: calls the server by that
//! address first, so that nobody follows steps to one that does not answer. Where
//! there is none, says how to get one.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::ClientKind;
use super::facts::{FACTS, Way};
use super::step::{Step, shown};
use crate::cli::doctor::{Known, Report, examine_public};
use crate::cli::{Failure, health, instance};
use crate::config::{Access, Env};
use crate::exit_code::Exit;
use crate::output;

/// The port that a server has where nothing else is said.
const DEFAULT_PORT: u16 = 8000;

/// Programs that give a machine a public address, the best first. The last is
/// named whether it is there or not.
const OPENERS: [&str; 4] = ["cloudflared", "tailscale", "ngrok", "ssh"];

/// Calls the server as the client would, and prints the steps.
pub(super) fn connect(
    client: ClientKind,
    known: &Known,
    json: bool,
    env: &Env,
) -> Result<Exit, Failure> {
    let report = examine_public(known)?;
    let guide = Guide {
        client,
        known,
        report: &report,
        opener: opener(env.raw("PATH")),
    };
    output::text(&if json {
        format!("{:#}", guide.to_json())
    } else {
        guide.text()
    })?;
    Ok(guide.exit())
}

/// Returns the first of the programs that open a tunnel to be found, or else the
/// one that nearly every machine has.
fn opener(path: Option<&OsStr>) -> &'static str {
    let folders = || path.into_iter().flat_map(std::env::split_paths);
    let is_there = |name: &&&str| {
        folders().any(|folder| {
            let found = folder.join(**name).metadata();
            found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
    };
    OPENERS.iter().find(is_there).copied().unwrap_or("ssh")
}

/// Everything that there is to say of a public address.
struct Guide<'a> {
    client: ClientKind,
    known: &'a Known,
    report: &'a Report,
    /// The program that would open a tunnel.
    opener: &'static str,
}

impl Guide<'_> {
    fn way(&self) -> &'static Way {
        match self.client {
            ClientKind::Claude => &FACTS.claude,
            _ => &FACTS.address,
        }
    }

    fn is_open(&self) -> bool {
        self.known.settings.config.access == Access::Open
    }

    fn exit(&self) -> Exit {
        match self.report.exit() {
            Exit::Success if self.is_open() => Exit::Public,
            exit => exit,
        }
    }

    fn steps(&self) -> Vec<Step> {
        let settings = &self.known.settings;
        let Some(url) = &settings.config.public_url else {
            return self.tunnel_steps();
        };
        let create = format!("token create {} --scope execute", self.client.word());
        let words = [
            ("mcp", format!("{url}/mcp")),
            ("create", settings.command(&create)),
            ("test", self.test()),
        ];
        let words: Vec<(&str, &str)> = words
            .iter()
            .map(|(name, word)| (*name, word.as_str()))
            .collect();
        let groups = self.way().parts.iter();
        groups.flat_map(|group| group.steps(&[], &words)).collect()
    }

    /// Returns what to ask in a chat, to see whether it works.
    fn test(&self) -> String {
        let title = self.client.title();
        format!("Run this Python code: print('Hello from {title}!')")
    }

    /// Returns the steps to a public address.
    fn tunnel_steps(&self) -> Vec<Step> {
        let settings = &self.known.settings;
        // Where it listens, which need not be where the settings say.
        let at = health::address(&self.known.here);
        let port = at.map_or(settings.config.port, |at| at.port()).to_string();
        let start = match settings.config.port {
            DEFAULT_PORT => settings.command("up"),
            port => settings.command(&format!("up --port {port}")),
        };
        let running = instance::running(&settings.config.home);
        let stop = running
            .as_ref()
            .map(|running| format!("kill {}", running.pid));
        let again = match self.client {
            ClientKind::Chatgpt => "connect chatgpt --by address".to_owned(),
            client => format!("connect {}", client.word()),
        };
        let again = settings.command(&again);
        let words = [
            ("port", port.as_str()),
            ("start", &start),
            ("again", &again),
            ("stop", stop.as_deref().unwrap_or_default()),
        ];
        let groups = FACTS.byte_tunnel.parts.iter();
        let cases = [
            self.opener,
            if stop.is_some() { "running" } else { "stopped" },
        ];
        groups
            .flat_map(|group| group.steps(&cases, &words))
            .collect()
    }

    /// Returns what is wrong, each with its cure.
    fn problems(&self) -> Vec<(String, String)> {
        let found = self.report.problems();
        let found = found.map(|(_, detail, cure)| (detail.to_owned(), cure.to_owned()));
        let open = self.is_open().then(|| {
            (
                "the server runs with --open, and has no OAuth then".to_owned(),
                "start it without --open".to_owned(),
            )
        });
        found.chain(open).collect()
    }

    fn text(&self) -> String {
        let title = self.client.title();
        let mut text = format!("{title} by {}.\n", self.way().summary);
        let problems = self.problems();
        for (detail, cure) in &problems {
            text += &format!("\n  ✗ {detail}\n    → {cure}\n");
        }
        if problems.is_empty() {
            text += "\n  ✓ the server can be reached\n";
        }
        if self.known.settings.config.public_url.is_none() {
            text += &format!("\nBy {}:\n", FACTS.byte_tunnel.summary);
        }
        text += &shown(&self.steps(), 0);
        format!(
            "{text}\nGrants are listed by `codex-server token list` and ended by `token revoke`.\nOpenAI's and Anthropic's pages are as of {}; when something does not work: docs/oauth.md",
            FACTS.checked
        )
    }

    fn to_json(&self) -> Value {
        let problems = self.problems();
        let problems: Vec<Value> = problems
            .iter()
            .map(|(detail, cure)| json!({"detail": detail, "cure": cure}))
            .collect();
        let url = self.known.settings.config.public_url.as_deref();
        json!({
            "target": self.client.word(),
            "by": "address",
            "ready": problems.is_empty(),
            "exit_code": self.exit().code(),
            "problems": problems,
            "url": url.map(|url| format!("{url}/mcp")),
            "test": self.test(),
            "steps": self.steps().iter().map(Step::to_json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::known;
    use crate::config::{Env, Flags, resolve};

    #[test]
    fn steps_have_the_address_and_problems_come_first() {
        let check =
            |client: ClientKind, flags: &[(&'static str, &str)], bad: bool, has: &[&str]| {
                let flags = flags
                    .iter()
                    .map(|(name, value)| (*name, vec![(*value).to_owned()]));
                let env: Env = [("X", "")].into_iter().collect();
                let settings =
                    resolve(&Flags(flags.collect()), &env, None, "/none".into()).unwrap();
                let problem = bad.then_some(("the port is private", "make it public"));
                let guide = Guide {
                    client,
                    known: &known(&settings),
                    report: &Report::of_one("public URL", "address", problem),
                    opener: "ssh",
                };
                let text = guide.text();
                for words in has {
                    assert!(text.contains(words), "lacks {words:?}: {text}");
                }
                let ready = guide.problems().is_empty();
                assert_eq!(guide.exit() == Exit::Success, ready);
                assert_eq!(guide.to_json()["ready"], ready);
            };
        let url = ("public_url", "https://x.example");
        let good = [
            "✓ the server can be reached",
            "https://x.example/mcp",
            "OAuth",
        ];
        check(ClientKind::Chatgpt, &[url], false, &good);
        check(
            ClientKind::Claude,
            &[url],
            false,
            &["Connectors", "https://x.example/mcp", "token create claude"],
        );
        check(
            ClientKind::Claude,
            &[url],
            true,
            &["✗ the port is private", "→ make it public"],
        );
        check(
            ClientKind::Claude,
            &[url, ("open", "true")],
            false,
            &["start it without --open"],
        );
        let words = [
            "✗ the port is private",
            "ssh -R 80:127.0.0.1:8000 ",
            "up --public-url https://THAT-ADDRESS",
            "connect claude",
        ];
        check(ClientKind::Claude, &[], true, &words);
    }

    #[test]
    fn a_tunnel_is_opened_by_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            assert_eq!(opener(Some(folder.path().as_os_str())), expected);
        };
        check("ssh");
        for name in ["ngrok", "cloudflared"] {
            let program = folder.path().join(name);
            std::fs::write(&program, "").unwrap();
            check(if name == "ngrok" { "ssh" } else { "ngrok" });
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&program, mode).unwrap();
            check(name);
        }
        assert_eq!(opener(None), "ssh");
    }
}
