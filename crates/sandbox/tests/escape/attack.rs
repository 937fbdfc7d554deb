//! The corpus as data: hostile programs and what must come of them.
//!
//! `corpus/<class>.toml`. A program announces each thing that it tries; what
//! it must not get it reports as a breach, and at its end it says how many
//! there were, so that silence never passes for safety. Read by the tests
//! here, and by the command that sends the same programs to a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// Prepended to every program: `attack`, `tried` and raw system calls.
pub(crate) const PRELUDE: &str = include_str!("prelude.py");

/// The classes, in the order in which they are told.
pub(crate) const CLASSES: [&str; 6] = [
    "resources",
    "filesystem",
    "kernel",
    "network",
    "tenancy",
    "since",
];

/// From where a program is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Door {
    /// The sandbox itself.
    Box,
    /// A running server, by its API and over MCP.
    Http,
}

/// One word, or several of which any will do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Words {
    /// This one.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl Words {
    /// All of them.
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Any(words) => words,
        }
    }
}

/// What is bounded differently from other attacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bounds {
    /// Seconds until it is killed.
    pub(crate) wall: Option<u64>,
    /// Its memory in MiB.
    pub(crate) memory_mb: Option<u64>,
    /// Its files and directories.
    pub(crate) inodes: Option<u64>,
}

/// What stands in place of a rung's name for what is different in a session.
pub(crate) const CELL: &str = "cell";

/// What is different at one rung, or in a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct At {
    /// How it ends there.
    pub(crate) status: Option<Words>,
    /// How much it tries there.
    pub(crate) tried: Option<u32>,
    /// What it says there.
    pub(crate) says: Option<Vec<String>>,
    /// What gets through there, by the names that the program gives.
    #[serde(default)]
    pub(crate) open: Vec<String>,
    /// Whether what is open depends on chance.
    #[serde(default)]
    pub(crate) sometimes: bool,
    /// Whether it may be ended before it has said all.
    #[serde(default)]
    pub(crate) cut: bool,
    /// Why it is open, in the words of SECURITY.md; in a session, why it is no breach.
    pub(crate) reason: Option<String>,
}

/// A hostile program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attack {
    /// Number in the corpus, or a letter and a number for what came later.
    pub(crate) id: String,
    /// What it attacks, in few words.
    pub(crate) name: String,
    /// From where; from everywhere when left out.
    #[serde(default)]
    doors: Vec<Door>,
    /// The program, in Python.
    pub(crate) program: String,
    /// A program in C that it finds as `./attack`.
    pub(crate) c: Option<String>,
    /// How much it says to have tried.
    tried: Option<u32>,
    /// Lines that it must print besides.
    #[serde(default)]
    says: Vec<String>,
    /// How it ends.
    status: Option<Words>,
    /// What is different at a rung.
    #[serde(default)]
    pub(crate) at: BTreeMap<String, At>,
    /// What is bounded differently.
    #[serde(default)]
    bounds: Bounds,
    /// The same, where there is time.
    #[serde(default)]
    long: Bounds,
    /// Rungs of the long version; every one when left out.
    #[serde(default)]
    long_at: Vec<String>,
    /// Paths at which the next program's file must not be written.
    #[serde(default)]
    pub(crate) no_next: Vec<String>,
    /// Files that the server gives back, where it matters.
    pub(crate) files: Option<Vec<String>>,
    /// Whether the server says that it cut something.
    pub(crate) truncated: Option<bool>,
}

impl Attack {
    /// Whether it is started from there.
    pub(crate) fn is_for(&self, door: Door) -> bool {
        self.doors.is_empty() || self.doors.contains(&door)
    }

    /// How it may end at a rung.
    pub(crate) fn status(&self, rung: &str) -> Vec<String> {
        let here = self.at.get(rung).and_then(|at| at.status.as_ref());
        here.or(self.status.as_ref())
            .map_or_else(|| vec!["success".to_owned()], |words| words.all().to_vec())
    }

    /// What it gets through with at a rung, and whether only sometimes.
    pub(crate) fn open(&self, rung: &str) -> (BTreeSet<&str>, bool) {
        let at = self.at.get(rung);
        let open = at.map_or(&[][..], |at| &at.open);
        let names = open.iter().map(String::as_str).collect();
        (names, at.is_some_and(|at| at.sometimes))
    }

    /// The bounds at a rung, with those of a long run on top.
    pub(crate) fn bounds(&self, long: bool, rung: &str) -> Bounds {
        let (usual, more) = (&self.bounds, &self.long);
        let long = long && (self.long_at.is_empty() || self.long_at.iter().any(|at| at == rung));
        let pick = |a: Option<u64>, b: Option<u64>| if long { b.or(a) } else { a };
        Bounds {
            wall: pick(usual.wall, more.wall),
            memory_mb: pick(usual.memory_mb, more.memory_mb),
            inodes: pick(usual.inodes, more.inodes),
        }
    }

    /// The whole program; `ground` is JSON that it finds as `G`.
    pub(crate) fn text(&self, ground: &str) -> String {
        format!("G = {ground}\n{PRELUDE}\n{}", self.program.trim_start())
    }

    /// What is wrong with what it printed and how it ended at a rung. What got
    /// through and is explained is no complaint.
    pub(crate) fn complaints(&self, rung: &str, status: &str, stdout: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        let allowed = self.status(rung);
        if !allowed.iter().any(|word| word == status) {
            complaints.push(format!("ended as {status}, not {}", allowed.join(" or ")));
        }
        let (open, sometimes) = self.open(rung);
        let found: BTreeSet<&str> = stdout
            .lines()
            .filter_map(|line| line.strip_prefix("BREACH "))
            .map(|rest| rest.split(':').next().unwrap_or(rest))
            .collect();
        complaints.extend(
            stdout
                .lines()
                .filter(|line| line.starts_with("BREACH ") && !open.contains(named(line)))
                .map(|line| line.chars().take(300).collect()),
        );
        if !sometimes {
            let shut = open.difference(&found);
            complaints.extend(shut.map(|name| format!("{name} is explained as open and is not")));
        }
        let at = self.at.get(rung);
        let marker = match at.and_then(|at| at.tried).or(self.tried) {
            Some(count) => format!("tried {count}"),
            None => "tried".to_owned(),
        };
        let says = at.and_then(|at| at.says.as_ref()).unwrap_or(&self.says);
        let cut = at.is_some_and(|at| at.cut);
        for line in says.iter().chain([&marker]).filter(|_| !cut) {
            if !stdout.lines().any(|found| found == line) {
                complaints.push(format!("never said {line:?}"));
            }
        }
        complaints
    }
}

fn named(breach: &str) -> &str {
    let rest = breach.strip_prefix("BREACH ").unwrap_or(breach);
    rest.split(':').next().unwrap_or(rest)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    attack: Vec<Attack>,
}

/// All attacks of a class, from the corpus in `directory`.
pub(crate) fn class(directory: &Path, name: &str) -> Result<Vec<Attack>, String> {
    let path = directory.join(format!("{name}.toml"));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let class: Class =
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(class.attack)
}

/// The whole corpus.
pub(crate) fn corpus(directory: &Path) -> Result<Vec<Attack>, String> {
    let mut all = Vec::new();
    for name in CLASSES {
        all.extend(class(directory, name)?);
    }
    Ok(all)
}

/// A program in C with all its libraries in it, so that it runs in every box.
#[expect(
    clippy::disallowed_methods,
    reason = "a compiler is no program of a user's"
)]
pub(crate) fn compiled(source: &str) -> Result<Vec<u8>, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let at = |name: &str| directory.path().join(name);
    fs::write(at("attack.c"), source).map_err(|error| error.to_string())?;
    let compiler = ["/usr/bin/cc", "/usr/bin/gcc", "/usr/bin/clang"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or("there is no C compiler; run `apt install gcc libc6-dev`, then try again")?;
    let done = std::process::Command::new(compiler)
        .args(["-O1", "-static", "-pthread", "-o"])
        .args([at("attack"), at("attack.c")])
        .output()
        .map_err(|error| error.to_string())?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    fs::read(at("attack")).map_err(|error| error.to_string())
}
