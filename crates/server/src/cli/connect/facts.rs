//! What people do on the pages of others, as `pages.toml` says. Only reads and
//! fills in; knows no server.

use std::sync::LazyLock;

use serde::Deserialize;

use super::step::Step;

/// The file, read.
pub(super) static FACTS: LazyLock<Facts> = LazyLock::new(|| {
    toml::from_str(include_str!("pages.toml")).expect("a test reads the same file")
});

/// All that is known of the ways into clients.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    /// The day on which it was compared with OpenAI's pages.
    pub(super) checked: String,
    /// What to say in a chat to see whether it works.
    pub(super) test: String,
    pub(super) tunnel: Way,
    pub(super) address: Way,
    pub(super) claude: Way,
    pub(super) action: Way,
    pub(super) open_webui: Way,
    /// How a server without a public address gets one.
    pub(super) byte_tunnel: Way,
}

/// A way by which a client reaches a server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Way {
    /// A line that tells it from the others.
    pub(super) summary: String,
    /// What to know before anything is done.
    #[serde(default)]
    pub(super) notice: String,
    #[serde(rename = "part")]
    pub(super) parts: Vec<StepGroup>,
}

/// Steps that are done in one place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepGroup {
    pub(super) title: String,
    #[serde(rename = "step")]
    steps: Vec<Template>,
}

/// A step with words in braces.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    /// The case in which it is needed; always, where none is named.
    only: Option<String>,
    what: String,
    copy: Option<String>,
    #[serde(default)]
    fields: Vec<[String; 2]>,
    note: Option<String>,
}

impl StepGroup {
    /// Returns the steps that are needed in these cases, with the words filled in.
    pub(super) fn steps(&self, cases: &[&str], words: &[(&str, &str)]) -> Vec<Step> {
        let fill = |text: &String| {
            let mut text = text.clone();
            for (name, word) in words {
                text = text.replace(&format!("{{{name}}}"), word);
            }
            text
        };
        let needed = self.steps.iter().filter(|step| {
            let only = step.only.as_deref();
            only.is_none_or(|case| cases.contains(&case))
        });
        needed
            .map(|step| Step {
                what: fill(&step.what),
                copy: step.copy.as_ref().map(fill),
                fields: step
                    .fields
                    .iter()
                    .map(|[label, value]| (label.clone(), fill(value)))
                    .collect(),
                note: step.note.as_ref().map(fill),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every caller fills in, with what the manual shows.
    const WORDS: [(&str, &str); 14] = [
        ("test", ""),
        ("tunnel", "tunnel_…"),
        ("start", "codex-server up --tunnel tunnel_…"),
        ("key_folder", "~/.local/share/codex-server"),
        ("key_file", "~/.local/share/codex-server/tunnel.key"),
        ("stop", "kill PID"),
        ("url", "https://YOUR-ADDRESS"),
        ("mcp", "https://YOUR-ADDRESS/mcp"),
        ("port", "8000"),
        ("codespace", "\"$CODESPACE_NAME\""),
        ("token", "codex_…"),
        ("create", "codex-server token create chatgpt"),
        ("instructions", ""),
        ("again", "codex-server connect claude"),
    ];

    #[test]
    fn the_file_is_whole() {
        let facts: Facts = toml::from_str(include_str!("pages.toml")).expect("it is read");
        let checked: jiff::civil::Date = facts.checked.parse().expect("a day");
        assert!(checked.year() >= 2026);
        let cases = [
            "by hand",
            "running",
            "stopped",
            "codespace",
            "open",
            "token",
            "no token",
            "cloudflared",
            "tailscale",
            "ngrok",
            "ssh",
        ];
        for way in [
            &facts.tunnel,
            &facts.address,
            &facts.claude,
            &facts.action,
            &facts.open_webui,
            &facts.byte_tunnel,
        ] {
            for part in &way.parts {
                let known = |step: &&Template| {
                    step.only
                        .as_deref()
                        .is_none_or(|case| cases.contains(&case))
                };
                assert!(part.steps.iter().all(|step| known(&step)));
                for step in part.steps(&cases, &WORDS) {
                    let fields = step.fields.iter().map(|(_, value)| value);
                    let others = [Some(&step.what), step.copy.as_ref(), step.note.as_ref()];
                    for text in others.into_iter().flatten().chain(fields) {
                        assert!(!text.contains('{'), "a word is left: {text}");
                    }
                }
            }
        }
    }

    /// The manual's form of the steps of a way.
    fn markdown(way: &Way, cases: &[&str]) -> String {
        let mut page = String::new();
        let mut number = 0;
        for part in &way.parts {
            if !part.title.is_empty() {
                page += &format!("**{}**\n\n", part.title);
            }
            let words: Vec<(&str, &str)> = WORDS
                .into_iter()
                .map(|(name, word)| match name {
                    "test" => (name, FACTS.test.as_str()),
                    "instructions" => (name, super::super::action::INSTRUCTIONS),
                    _ => (name, word),
                })
                .collect();
            for step in part.steps(cases, &words) {
                number += 1;
                page += &format!("{number}. {}", step.what);
                match &step.copy {
                    Some(url) if url.starts_with("https://") => page += &format!(": <{url}>\n"),
                    Some(text) => {
                        let lines: String =
                            text.lines().map(|line| format!("   {line}\n")).collect();
                        page += &format!(":\n\n   ```text\n{lines}   ```\n");
                    }
                    None => page += ".\n",
                }
                if !step.fields.is_empty() {
                    page += "\n";
                }
                for (label, value) in &step.fields {
                    page += &format!("   - *{label}*: {value}\n");
                }
                if let Some(note) = &step.note {
                    page += &format!("\n   {note}\n");
                }
                page += "\n";
            }
        }
        page
    }

    #[test]
    fn the_manual_has_the_same_table_of_steps() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/connect-chatgpt.md");
        let mut page = std::fs::read_to_string(path).expect("the page");
        for (name, way, cases) in [
            ("tunnel", &FACTS.tunnel, &["by hand"][..]),
            ("action", &FACTS.action, &["no token"]),
        ] {
            let begin = format!("<!-- {name}: made of pages.toml, do not edit -->\n\n");
            let end = format!("<!-- end of {name} -->");
            let (before, rest) = page.split_once(&begin).expect("a begin");
            let (found, after) = rest.split_once(&end).expect("an end");
            let notice = match way.notice.as_str() {
                "" => String::new(),
                notice => format!("> {notice}\n\n"),
            };
            let checked = format!("As of {}.\n\n", FACTS.checked);
            let wanted = format!("{notice}{checked}{}", markdown(way, cases));
            if std::env::var_os("UPDATE_DOCS").is_some() {
                page = format!("{before}{begin}{wanted}{end}{after}");
                std::fs::write(path, &page).expect("written");
                continue;
            }
            assert!(
                found == wanted,
                "docs/connect-chatgpt.md is out of step; run: UPDATE_DOCS=1 cargo test -p codex-server --lib table"
            );
        }
    }
}
