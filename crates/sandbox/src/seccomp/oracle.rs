//! What the policy says of a call, read afresh from its file, for tests.
//!
//! Shares nothing with build.rs, with the tables it makes or with the search
//! tree: the file is read as plain TOML, and numbers come from the kernel's
//! headers (`numbers.txt`).

use std::collections::BTreeMap;

use toml::Value;

use super::emulator::Call;

/// What is to become of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Errno(i32),
}

/// The rungs as the policy writes them, weakest first.
pub(super) const RUNGS: [&str; 3] = ["uids", "namespaces", "full"];

/// Column of `numbers.txt`, and what the kernel calls the architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) column: usize,
    pub(super) audit: u32,
}

pub(super) const INTEL: Machine = Machine {
    column: 1,
    audit: 0xc000_003e,
};
pub(super) const ARM: Machine = Machine {
    column: 2,
    audit: 0xc000_00b7,
};

/// The policy, by name.
#[derive(Debug)]
pub(super) struct Oracle {
    entries: BTreeMap<String, Entry>,
    /// Names by number.
    names: BTreeMap<u32, String>,
    machine: Machine,
}

#[derive(Debug)]
pub(super) enum Entry {
    Allow { from: usize },
    Deny { errno: i32 },
    When { from: usize, any: Vec<Vec<Check>> },
}

/// One comparison of an argument.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    pub(super) arg: usize,
    pub(super) mask: u32,
    pub(super) value: u32,
    equal: bool,
    /// The rung from which on it is not asked.
    below: Option<usize>,
}

impl Check {
    fn holds(&self, rung: usize, args: &[u64; 6]) -> bool {
        if self.below.is_some_and(|below| rung >= below) {
            return true;
        }
        // The low half, as `high_halves_are_not_looked_at_by_the_kernel` shows.
        let low = u32::try_from(args[self.arg] % (1 << 32)).unwrap();
        (low & self.mask == self.value) == self.equal
    }
}

impl Oracle {
    pub(super) fn of(machine: Machine) -> Self {
        Self {
            entries: entries(include_str!("../policies/default.toml")),
            names: numbers(machine),
            machine,
        }
    }

    pub(super) fn answer(&self, rung: usize, call: &Call) -> Answer {
        if call.arch != self.machine.audit {
            return Answer::Errno(libc::ENOSYS);
        }
        let Some(name) = self.names.get(&call.number) else {
            return Answer::Errno(libc::ENOSYS);
        };
        let allowed = match &self.entries[name] {
            Entry::Deny { errno } => return Answer::Errno(*errno),
            Entry::Allow { from } => rung >= *from,
            Entry::When { from, any } => {
                rung >= *from
                    && any
                        .iter()
                        .any(|all| all.iter().all(|check| check.holds(rung, &call.args)))
            }
        };
        if allowed {
            Answer::Allow
        } else {
            Answer::Errno(libc::EPERM)
        }
    }

    /// Numbers and names of the machine's calls.
    pub(super) fn names(&self) -> &BTreeMap<u32, String> {
        &self.names
    }

    /// Calls whose arguments are looked at, with all comparisons.
    pub(super) fn checked(&self) -> impl Iterator<Item = (u32, &str, &Vec<Vec<Check>>)> {
        self.names.iter().filter_map(|(number, name)| {
            let entry = self.entries.get(name)?;
            let Entry::When { any, .. } = entry else {
                return None;
            };
            Some((*number, name.as_str(), any))
        })
    }
}

fn numbers(machine: Machine) -> BTreeMap<u32, String> {
    include_str!("numbers.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let number = words[machine.column];
            (number != "-").then(|| (number.parse().unwrap(), words[0].to_owned()))
        })
        .collect()
}

fn entries(policy: &str) -> BTreeMap<String, Entry> {
    let policy: toml::Table = policy.parse().unwrap();
    let mut entries = BTreeMap::new();
    let mut add = |name: &Value, entry| {
        let name = name.as_str().unwrap().to_owned();
        assert!(
            entries.insert(name.clone(), entry).is_none(),
            "{name} twice"
        );
    };
    for (kind, groups) in &policy {
        for group in groups.as_array().unwrap() {
            let from = group.get("from").map_or(0, rung);
            match kind.as_str() {
                "allow" => {
                    for name in group["names"].as_array().unwrap() {
                        add(name, Entry::Allow { from });
                    }
                }
                "deny" => {
                    let errno = match group.get("errno").map(|errno| errno.as_str().unwrap()) {
                        None | Some("EPERM") => libc::EPERM,
                        Some("ENOSYS") => libc::ENOSYS,
                        Some(other) => panic!("{other}"),
                    };
                    for name in group["names"].as_array().unwrap() {
                        add(name, Entry::Deny { errno });
                    }
                }
                "when" => {
                    let any = group["any"].as_array().unwrap();
                    let all = |all: &Value| all.as_array().unwrap().iter().map(check).collect();
                    let any = any.iter().map(all).collect();
                    add(&group["name"], Entry::When { from, any });
                }
                other => panic!("{other}"),
            }
        }
    }
    entries
}

fn rung(word: &Value) -> usize {
    let word = word.as_str().unwrap();
    RUNGS.iter().position(|rung| *rung == word).unwrap()
}

fn check(text: &Value) -> Check {
    let word = |name: &str| {
        let value = text.get(name)?.as_integer().unwrap();
        Some(u32::try_from(value).unwrap())
    };
    let (eq, ne) = (word("eq"), word("ne"));
    assert!(eq.is_some() != ne.is_some(), "{text}");
    Check {
        arg: word("arg").unwrap() as usize,
        mask: word("mask").unwrap_or(u32::MAX),
        value: eq.or(ne).unwrap(),
        equal: eq.is_some(),
        below: text.get("below").map(rung),
    }
}
