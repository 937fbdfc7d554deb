//! The protocol's own conformance suite, in both kinds of version. It can send no
//! token, so a proxy of ours adds it and changes nothing else.
//!
//! Most of its scenarios ask for tools, prompts and resources that are made for the
//! suite; the others are listed here and in `docs/testing.md`, and must pass.

use anyhow::Result;

use super::{Subject, Verdict, script};
use crate::live::Server;

/// A scenario of the suite with what has to come of it.
struct Scenario {
    name: &'static str,
    /// Checks that pass, at least.
    passed: u32,
    /// Checks that fail, at most.
    failed: u32,
}

const fn whole(name: &'static str, passed: u32) -> Scenario {
    Scenario {
        name,
        passed,
        failed: 0,
    }
}

/// What has to pass of the suite of each version.
const SUITES: [(&str, &[Scenario]); 2] = [
    (
        "2026-07-28",
        &[
            // Four ask for tools that are made for the suite.
            Scenario {
                name: "server-stateless",
                passed: 21,
                failed: 4,
            },
            whole("completion-complete", 2),
            whole("tools-list", 4),
            whole("server-sse-multiple-streams", 2),
            whole("resources-list", 2),
            whole("sep-2164-resource-not-found", 3),
            whole("prompts-list", 2),
            whole("dns-rebinding-protection", 2),
            whole("caching", 7),
            whole("input-required-result-missing-input-response", 1),
            whole("input-required-result-unsupported-methods", 2),
            whole("input-required-result-ignore-extra-params", 1),
            whole("input-required-result-validate-input", 3),
            whole("http-header-validation", 14),
        ],
    ),
    (
        "2025-11-25",
        &[
            whole("server-initialize", 3),
            whole("ping", 2),
            whole("completion-complete", 2),
            whole("tools-list", 3),
            whole("server-sse-multiple-streams", 2),
            whole("resources-list", 2),
            whole("prompts-list", 2),
            whole("dns-rebinding-protection", 2),
            whole("server-session-lifecycle", 3),
            whole("server-sse-polling", 2),
        ],
    ),
];

/// Runs the suite of each version: a check for each scenario that is listed.
pub(super) fn probe(subject: &Subject<'_>) -> Result<Vec<Verdict>> {
    let mut node = subject.packages.node();
    node.arg(script("proxy.mjs"));
    node.args([&subject.url(), subject.token()?]);
    let proxy = Server::spawn(&mut node, None)?;
    // Its check of hosts wants this name, and no other.
    let url = format!("http://localhost:{}/mcp", proxy.address.port());
    let mut checks = Vec::new();
    for (version, scenarios) in SUITES {
        let mut suite = subject.packages.node();
        suite.args(["node_modules/.bin/conformance", "server", "--url", &url]);
        suite.args(["--requirements", version, "--output-dir"]);
        suite.arg(subject.home.path().join(version));
        let printed = subject.run(&suite)?;
        checks.extend(scenarios.iter().map(|scenario| Verdict {
            name: format!("conformance {version}: {}", scenario.name),
            failure: failure(scenario, &printed.out, printed.error.trim()),
        }));
    }
    Ok(checks)
}

/// Returns what came of a scenario, where it is less than it has to be.
fn failure(scenario: &Scenario, summary: &str, error: &str) -> Option<String> {
    let Some((passed, failed)) = result(summary, scenario.name) else {
        return Some(format!("the suite did not run it: {error}"));
    };
    let enough = passed >= scenario.passed && failed <= scenario.failed;
    (!enough).then(|| format!("{passed} checks passed, {failed} failed"))
}

/// Finds the line of a scenario in the suite's summary, such as
/// `✓ ping: 2 passed, 0 failed`, and returns both numbers.
fn result(summary: &str, name: &str) -> Option<(u32, u32)> {
    let numbers = summary.lines().find_map(|line| {
        let line = line.strip_prefix(['✓', '✗'])?;
        line.trim_start().strip_prefix(name)?.strip_prefix(": ")
    })?;
    let (passed, failed) = numbers.split_once(" passed, ")?;
    let failed = failed.split(' ').next()?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_found_in_the_summary() {
        let summary = "\n=== SUMMARY ===\n✓ tools-list: 4 passed, 0 failed\n✗ caching: 6 passed, 1 failed, 2 warnings\n  ✓ ping (pending)\n";
        let check = |name, expected| assert_eq!(result(summary, name), expected, "{name}");
        check("tools-list", Some((4, 0)));
        check("caching", Some((6, 1)));
        check("tools", None);
        check("ping", None);
    }

    #[test]
    fn less_than_is_listed_is_a_failure() {
        let scenario = Scenario {
            name: "x",
            passed: 3,
            failed: 1,
        };
        let check = |summary, fails: bool| {
            assert_eq!(
                failure(&scenario, summary, "").is_some(),
                fails,
                "{summary}"
            );
        };
        check("✗ x: 3 passed, 1 failed", false);
        check("✓ x: 4 passed, 0 failed", false);
        check("✓ x: 0 passed, 0 failed", true);
        check("✗ x: 3 passed, 2 failed", true);
        check("✗ y: 3 passed, 1 failed", true);
        check("", true);
    }

    #[test]
    fn the_list_is_documented() {
        let path = xtask::process::root().join("docs/testing.md");
        let text = std::fs::read_to_string(path).expect("it is there");
        for (version, scenarios) in SUITES {
            let row = text
                .lines()
                .find(|line| line.starts_with(&format!("| {version} |")))
                .expect("the version has a row");
            let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
            let listed: Vec<&str> = scenarios.iter().map(|one| one.name).collect();
            assert_eq!(named, listed);
        }
    }
}
