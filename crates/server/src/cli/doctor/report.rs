//! What `doctor` found, for people on one screen and for programs as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::exit_code::Exit;

/// Characters of a line that lists names, so that it fits a terminal's 80.
const NAMES_WIDTH: usize = 58;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Warning,
    Bad(Exit),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    name: String,
    state: State,
    detail: String,
    cure: String,
}

impl Check {
    pub(super) fn good(name: &str, detail: &str) -> Self {
        Self::new(name, State::Good, detail, "")
    }

    /// The server can serve, but something is missing.
    pub(super) fn warning(name: &str, detail: &str, cure: &str) -> Self {
        Self::new(name, State::Warning, detail, cure)
    }

    /// The server could not serve, and would exit with this code.
    pub(super) fn bad(name: &str, detail: &str, cure: &str, exit: Exit) -> Self {
        Self::new(name, State::Bad(exit), detail, cure)
    }

    fn new(name: &str, state: State, detail: &str, cure: &str) -> Self {
        Self {
            name: name.to_owned(),
            state,
            detail: detail.to_owned(),
            cure: cure.to_owned(),
        }
    }
}

/// Checks that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    title: String,
    /// Whether people see only the names of what is good, but for the first.
    listing: bool,
    checks: Vec<Check>,
}

impl Section {
    pub(super) fn new(title: &str, checks: Vec<Check>) -> Self {
        Self {
            title: title.to_owned(),
            listing: false,
            checks,
        }
    }

    /// A section of so many checks that people see the first of them, what is
    /// not good, and the names of the rest.
    pub(super) fn listing(title: &str, checks: Vec<Check>) -> Self {
        Self {
            listing: true,
            ..Self::new(title, checks)
        }
    }

    /// Whether a person sees a line for the check of that number.
    fn has_line(&self, number: usize) -> bool {
        !self.listing || number == 0 || self.checks[number].state != State::Good
    }

    /// The names without a line of their own, broken into lines.
    fn names(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for (number, check) in self.checks.iter().enumerate() {
            match lines.last_mut() {
                _ if self.has_line(number) => {}
                Some(line) if line.len() + check.name.len() < NAMES_WIDTH => {
                    line.push_str(", ");
                    line.push_str(&check.name);
                }
                previous => {
                    if let Some(line) = previous {
                        line.push(',');
                    }
                    lines.push(check.name.clone());
                }
            }
        }
        lines
    }
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Report {
    pub(super) sections: Vec<Section>,
}

impl Report {
    /// A single check, good or with problem and cure.
    #[cfg(test)]
    pub(in crate::cli) fn of_one(title: &str, name: &str, bad: Option<(&str, &str)>) -> Self {
        let check = match bad {
            None => Check::good(name, "as it should be"),
            Some((problem, cure)) => Check::bad(name, problem, cure, Exit::Public),
        };
        Self {
            sections: vec![Section::new(title, vec![check])],
        }
    }

    /// The code of the first thing that is bad.
    pub(in crate::cli) fn exit(&self) -> Exit {
        let states = self
            .sections
            .iter()
            .flat_map(|section| &section.checks)
            .map(|check| check.state);
        states
            .into_iter()
            .find_map(|state| {
                if let State::Bad(exit) = state {
                    Some(exit)
                } else {
                    None
                }
            })
            .unwrap_or(Exit::Success)
    }

    /// Name, detail and cure of what is bad.
    pub(in crate::cli) fn problems(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let checks = self.sections.iter().flat_map(|section| &section.checks);
        checks
            .filter(|check| matches!(check.state, State::Bad(_)))
            .map(|check| {
                (
                    check.name.as_str(),
                    check.detail.as_str(),
                    check.cure.as_str(),
                )
            })
    }

    pub(super) fn to_json(&self) -> String {
        let check = |check: &Check| {
            let state = match check.state {
                State::Good => "ok",
                State::Warning => "warning",
                State::Bad(_) => "error",
            };
            json!({"name": check.name, "state": state, "detail": check.detail, "cure": (!check.cure.is_empty()).then_some(&check.cure)})
        };
        let sections: serde_json::Map<String, Value> = self
            .sections
            .iter()
            .map(|section| {
                (
                    section.title.replace(' ', "_"),
                    section.checks.iter().map(check).collect(),
                )
            })
            .collect();
        let exit = self.exit().code();
        format!(
            "{:#}",
            json!({"version": env!("CARGO_PKG_VERSION"), "ok": exit == 0, "exit_code": exit, "sections": sections})
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "codex-server {}", env!("CARGO_PKG_VERSION"))?;
        let names = self
            .sections
            .iter()
            .flat_map(|section| {
                section
                    .checks
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| section.has_line(*n))
            })
            .map(|(_, check)| check.name.chars().count());
        let width = names.max().unwrap_or(0);
        for section in &self.sections {
            write!(f, "\n{}", section.title)?;
            let lines = section.checks.iter().enumerate();
            let lines = lines.filter(|(number, _)| section.has_line(*number));
            let mut lines = lines.map(|(_, check)| check).peekable();
            while let Some(check) = lines.next() {
                let mark = match check.state {
                    State::Good => "✓",
                    State::Warning => "!",
                    State::Bad(_) => "✗",
                };
                write!(f, "\n  {mark} {:<width$}  {}", check.name, check.detail)?;
                // What cures the next one too is said once, after both.
                let repeated = lines.peek().is_some_and(|next| next.cure == check.cure);
                if !check.cure.is_empty() && !repeated {
                    write!(f, "\n    {:<width$}  → {}", "", check.cure)?;
                }
            }
            for (number, names) in section.names().iter().enumerate() {
                let (mark, title) = if number == 0 {
                    ("✓", "holds")
                } else {
                    (" ", "")
                };
                write!(f, "\n  {mark} {title:<width$}  {names}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            sections: vec![
                Section::new(
                    "isolation",
                    vec![
                        Check::good("level", "namespaces"),
                        Check::warning("memory cgroup", "none", "Delegate=yes"),
                    ],
                ),
                Section::new(
                    "server",
                    vec![Check::bad("port", "taken", "", Exit::Address)],
                ),
            ],
        }
    }

    #[test]
    fn people_see_marks_and_cures() {
        let expected = format!(
            "codex-server {}\nisolation\n  ✓ level          namespaces\n  ! memory cgroup  none\n                   → Delegate=yes\nserver\n  ✗ port           taken",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn what_cures_neighbours_is_said_once() {
        let cures = ["install", "install", "", "", "restart", "install"];
        let checks = cures.map(|cure| Check::warning("x", "none", cure));
        let report = Report {
            sections: vec![Section::new("languages", checks.to_vec())],
        };
        let expected = "languages\n  ! x  none\n  ! x  none\n       → install\n  ! x  none\n  ! x  none\n  ! x  none\n       → restart\n  ! x  none\n       → install";
        assert!(report.to_string().ends_with(expected), "{report}");
    }

    #[test]
    fn what_holds_is_listed_in_short() {
        let names = [
            "pid namespace",
            "read-only root",
            "host files",
            "seccomp",
            "network namespace",
            "network",
        ];
        let mut checks = vec![Check::good("level", "namespaces")];
        checks.extend(names.map(|name| Check::good(name, "EPERM")));
        checks.insert(2, Check::warning("cgroup", "none", "Delegate=yes"));
        let report = Report {
            sections: vec![Section::listing("isolation", checks)],
        };
        let expected = "isolation\n  ✓ level   namespaces\n  ! cgroup  none\n            → Delegate=yes\n  ✓ holds   pid namespace, read-only root, host files, seccomp,\n            network namespace, network";
        assert!(report.to_string().ends_with(expected), "{report}");
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["sections"]["isolation"][1]["detail"], "EPERM");
    }

    #[test]
    fn programs_see_the_same() {
        let json: Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["exit_code"], 5);
        assert_eq!(json["sections"]["isolation"][1]["cure"], "Delegate=yes");
        assert_eq!(json["sections"]["server"][0]["state"], "error");
        assert_eq!(json["sections"]["server"][0]["cure"], Value::Null);
    }

    #[test]
    fn the_first_bad_thing_decides() {
        assert_eq!(report().exit(), Exit::Address);
        assert_eq!(
            Report {
                sections: Vec::new()
            }
            .exit(),
            Exit::Success
        );
    }
}
