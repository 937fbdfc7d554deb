//! ChatGPT and Claude by a public https address and OAuth: calls the server by that
//! address first, so that nobody follows steps to one that does not answer.

use serde_json::{Value, json};

use super::Client;
use super::facts::{FACTS, Way};
use super::step::{Step, shown};
use crate::cli::Failure;
use crate::cli::doctor::{Known, Report, examine_public};
use crate::config::Access;
use crate::exit_code::Exit;
use crate::output;

/// Calls the server as the client would, and prints the steps.
pub(super) fn connect(client: Client, known: &Known, json: bool) -> Result<Exit, Failure> {
    let report = examine_public(known)?;
    let guide = Guide {
        client,
        known,
        report: &report,
    };
    output::text(&if json {
        format!("{:#}", guide.to_json())
    } else {
        guide.text()
    })?;
    Ok(guide.exit())
}

/// Everything that there is to say of a public address.
struct Guide<'a> {
    client: Client,
    known: &'a Known,
    report: &'a Report,
}

impl Guide<'_> {
    fn way(&self) -> &'static Way {
        match self.client {
            Client::Claude => &FACTS.claude,
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
            return Vec::new();
        };
        let create = format!("token create {}", self.client.word());
        let words = [
            ("mcp", format!("{url}/mcp")),
            ("create", settings.command(&create)),
            ("test", FACTS.test.clone()),
        ];
        let words: Vec<(&str, &str)> = words
            .iter()
            .map(|(name, word)| (*name, word.as_str()))
            .collect();
        let groups = self.way().parts.iter();
        groups.flat_map(|group| group.steps(&[], &words)).collect()
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
            "test": FACTS.test,
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
        let check = |client: Client, flags: &[(&'static str, &str)], bad: bool, has: &[&str]| {
            let flags = flags
                .iter()
                .map(|(name, value)| (*name, vec![(*value).to_owned()]));
            let env: Env = [("X", "")].into_iter().collect();
            let settings = resolve(&Flags(flags.collect()), &env, None, "/none".into()).unwrap();
            let problem = bad.then_some(("the port is private", "make it public"));
            let guide = Guide {
                client,
                known: &known(&settings),
                report: &Report::of_one("public URL", "address", problem),
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
        check(Client::Chatgpt, &[url], false, &good);
        check(
            Client::Claude,
            &[url],
            false,
            &["Connectors", "https://x.example/mcp", "token create claude"],
        );
        check(
            Client::Claude,
            &[url],
            true,
            &["✗ the port is private", "→ make it public"],
        );
        check(
            Client::Claude,
            &[url, ("open", "true")],
            false,
            &["start it without --open"],
        );
        check(Client::Claude, &[], true, &["✗ the port is private"]);
    }
}
