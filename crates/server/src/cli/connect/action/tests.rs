//! The steps, for a server that can be reached and for those that cannot.

use super::*;
use crate::cli::doctor::known;
use crate::config::{Env, Flags, resolve};

fn guide(
    env: &[(&str, &str)],
    flags: &[(&'static str, &str)],
    report: &Report,
    tell: impl Fn(&Guide<'_>),
) {
    let env: Env = env.iter().copied().collect();
    let flags = flags
        .iter()
        .map(|(name, value)| (*name, vec![(*value).to_owned()]));
    let settings = resolve(&Flags(flags.collect()), &env, None, "/none".into()).unwrap();
    let known = known(&settings);
    tell(&Guide {
        known: &known,
        report,
        token: None,
        wanted: Some("gpt"),
    });
}

fn good() -> Report {
    Report::of_one("public URL", "address", None)
}

fn bad() -> Report {
    Report::of_one(
        "public URL",
        "GET /health",
        Some(("the port is private", "make it public")),
    )
}

#[test]
fn a_server_that_can_be_reached_gets_its_own_addresses() {
    let flags = [("public_url", "https://x.example")];
    guide(&[], &flags, &good(), |guide| {
        let text = guide.to_string();
        for words in [
            "ChatGPT can reach this server at https://x.example.",
            "      https://x.example/actions/openapi.json\n",
            "      https://x.example/privacy\n",
            "API key, Auth type Bearer",
            "codex-server token create gpt",
            "never guess a program's",
            &FACTS.test,
        ] {
            assert!(text.contains(words), "lacks {words:?}: {text}");
        }
        assert!(
            !text.contains("gh codespace") && !text.contains("WARNING"),
            "{text}"
        );
        let json = guide.to_json();
        assert_eq!(json["ready"], true);
        assert_eq!(json["schema_url"], "https://x.example/actions/openapi.json");
        assert_eq!(json["authentication"]["auth_type"], "bearer");
        assert_eq!(json["token"], Value::Null);
        assert_eq!(json["steps"].as_array().unwrap().len(), 7);
    });
}

#[test]
fn one_that_cannot_says_why_first() {
    let codespace = [
        ("CODESPACES", "true"),
        ("CODESPACE_NAME", "super-duper"),
        ("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN", "app.github.dev"),
    ];
    guide(&codespace, &[], &bad(), |guide| {
        let text = guide.to_string();
        let problem = text.find("✗ the port is private").unwrap();
        assert!(problem < text.find("Import from URL").unwrap(), "{text}");
        for words in [
            "→ make it public",
            " 1. Make the port public",
            "gh codespace ports visibility 8000:public -c super-duper",
            "https://super-duper-8000.app.github.dev/actions/openapi.json",
            "No token was made",
        ] {
            assert!(text.contains(words), "lacks {words:?}: {text}");
        }
        assert_eq!(guide.to_json()["problems"][0]["cure"], "make it public");
        assert_eq!(guide.to_json()["exit_code"], 8);
    });
    guide(&[], &[], &bad(), |guide| {
        let text = guide.to_string();
        assert!(
            text.contains("docs/connect-chatgpt.md") && !text.contains("Import"),
            "{text}"
        );
        assert_eq!(guide.to_json()["public_url"], Value::Null);
    });
    let flags = [("public_url", "https://x.example"), ("open", "true")];
    guide(&[], &flags, &good(), |guide| {
        let text = guide.to_string();
        assert!(
            text.contains("WARNING") && text.contains("Authentication: None"),
            "{text}"
        );
        assert_eq!(guide.to_json()["authentication"]["type"], "none");
    });
}
