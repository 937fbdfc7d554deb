//! The protocol's inspector on the command line, in both kinds of version.

use anyhow::Result;
use serde_json::Value;

use super::{Printed, Subject, Verdict};

/// What it calls the kinds of version.
const ERAS: [&str; 2] = ["legacy", "modern"];

/// What it is asked: a name, its arguments, and where in the answer stands what.
const QUESTIONS: [(&str, &[&str], &str, &str); 2] = [
    // Strict: no schema that other clients stumble over.
    (
        "tools/list",
        &["--method", "tools/list", "--strict"],
        "/tools/5/name",
        "run_code",
    ),
    (
        "tools/call",
        &[
            "--method",
            "tools/call",
            "--tool-name",
            "run_code",
            "--tool-args-json",
            r#"{"code": "print(6 * 7)"}"#,
        ],
        "/structuredContent/output",
        "42\n",
    ),
];

/// Asks a server in each kind of version.
pub(super) fn inspect(subject: &Subject<'_>) -> Result<Vec<Verdict>> {
    let header = format!("Authorization: Bearer {}", subject.token()?);
    let mut checks = Vec::new();
    for era in ERAS {
        for (name, question, place, wanted) in QUESTIONS {
            let mut inspector = subject.packages.node();
            inspector.args(["node_modules/.bin/mcp-inspector", "--cli", &subject.url()]);
            inspector.args(["--transport", "http", "--header", &header]);
            inspector.args(["--protocol-era", era]).args(question);
            let printed = subject.run(&inspector)?;
            checks.push(Verdict {
                name: format!("inspector {era}: {name}"),
                failure: failure(&printed, place, wanted),
            });
        }
    }
    Ok(checks)
}

/// Returns all that it printed where that is not what was wanted.
fn failure(printed: &Printed, place: &str, wanted: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(&printed.out).unwrap_or_default();
    let right = answer.pointer(place).and_then(Value::as_str) == Some(wanted);
    let whole = printed.succeeded && right;
    (!whole).then(|| format!("{} {}", printed.out.trim(), printed.error.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_answer_passes() {
        let check = |out: &str, succeeded, fails: bool| {
            let printed = Printed {
                out: out.to_owned(),
                error: String::new(),
                succeeded,
            };
            assert_eq!(failure(&printed, "/a/0", "x").is_some(), fails, "{out}");
        };
        check(r#"{"a": ["x"]}"#, true, false);
        check(r#"{"a": ["x"]}"#, false, true);
        check(r#"{"a": ["y"]}"#, true, true);
        check("no JSON", true, true);
        check("", true, true);
    }
}
