//! Reads `runtime.toml` and `system.toml` into checked values.
//!
//! A manifest is written by people who add a language, so every error names
//! the field. Never touches the file system: see `registry` and `detect`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

mod packages;
mod versions;
mod zygote;

pub(crate) use packages::Packages;
use packages::PackagesFile;
use versions::VersionsFile;
pub(crate) use versions::{ANY, HOME, Pattern, Versions};
use zygote::ZygoteFile;
pub(crate) use zygote::{ADOPTER, Zygote};

/// Where a runtime's support files are in the box: one folder a language below this.
const SUPPORT_ROOT: &str = "/opt/codex";

/// A checked `runtime.toml`, with what `system.toml` adds to every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Canonical name: the folder's, or that of one version.
    pub(crate) name: String,
    /// Name of the folder.
    pub(crate) folder: String,
    /// Human name.
    pub(crate) title: String,
    /// Other accepted names.
    pub(crate) aliases: Vec<String>,
    /// Endings of its files, without the dot.
    pub(crate) extensions: Vec<String>,
    /// Whether code without a language is in this one.
    pub(crate) default: bool,
    /// File name of the program text in the workspace.
    pub(crate) source: String,
    /// Paths in the workspace that a caller's files may not take, `source` among them.
    pub(crate) reserved: Vec<String>,
    /// Files of the folder that the box sees below [`Manifest::support_dir`].
    pub(crate) support: Vec<String>,
    /// Names of files and directories that are never collected as output.
    pub(crate) ignored: Vec<String>,
    /// Processes and threads, where the language needs another number than the default.
    pub(crate) processes: Option<u32>,
    /// How the interpreter is found.
    pub(crate) detect: Detect,
    /// Host paths that the box sees read-only, where they exist.
    pub(crate) mounts: Vec<PathBuf>,
    /// Environment of the program, placeholders not yet filled, sorted by name.
    pub(crate) environment: BTreeMap<String, String>,
    /// Places that come first in variables with a list of such, whatever the caller
    /// gives in these; `{support}` is filled in.
    pub(crate) search_paths: BTreeMap<String, String>,
    /// The package set that it can have, if any.
    pub(crate) packages: Option<Packages>,
    /// The command of the interpreter that serves a context of a session, where the
    /// language has sessions.
    pub(crate) kernel: Option<Vec<String>>,
    /// Why that interpreter can't be forked with its state, where it can't; a phrase
    /// for people.
    pub(crate) no_fork: Option<String>,
    /// Whether its program, started with a channel, waits there until it is told to begin.
    pub(crate) waits: bool,
    /// How it is forked instead of started, where it can be.
    pub(crate) zygote: Option<Zygote>,
    /// How a session runs a command, whose text comes after these words; where the
    /// language is a shell.
    pub(crate) command: Option<Vec<String>>,
    /// What is run, in order; never empty.
    pub(crate) stages: Vec<StageTemplate>,
}

/// How an interpreter is found and asked about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Detect {
    /// File names looked for in each directory of the search path, best first.
    pub(crate) candidates: Vec<String>,
    /// Command that prints `key=value` lines; `{candidate}` and `{program}` are filled in.
    pub(crate) argv: Vec<String>,
    /// File of the folder whose text is `{program}`.
    pub(crate) program: String,
    /// The oldest version that will do.
    pub(crate) minimum: Version,
    /// What to do when there is none.
    pub(crate) cure: String,
    /// Variables of the server's that version switchers in the search path read.
    pub(crate) environment: Vec<String>,
    /// How further versions are found and named.
    pub(crate) versions: Option<Versions>,
}

/// A stage before its placeholders are filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StageTemplate {
    /// Such as `compile` or `run`.
    pub(crate) name: String,
    /// Words with `{interpreter}`, `{support}`, `{source}`; a word `{args}` becomes all arguments.
    pub(crate) argv: Vec<String>,
}

/// A version as numbers, so that 3.10 is newer than 3.9.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(Vec<u32>);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl Version {
    /// The leading numbers of `text`: `3.13.0rc1` is 3.13.0. `None` without any.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = Vec::new();
        for part in text.split('.') {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(number) = part[..digits].parse() else {
                break;
            };
            numbers.push(number);
            if digits < part.len() {
                break;
            }
        }
        (!numbers.is_empty()).then_some(Self(numbers))
    }

    /// One of its numbers; 0 where it has none.
    pub(crate) fn part(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or_default()
    }

    /// Whether it is a release of `series`: 3.12.1 is one of 3.12.
    pub(crate) fn begins_with(&self, series: &Self) -> bool {
        self.0.starts_with(&series.0)
    }

    /// Whether it is older than `minimum` however it goes on: 3 may be 3.8, 3.7 may not.
    pub(crate) fn is_before(&self, minimum: &Self) -> bool {
        let known = self.0.len().min(minimum.0.len());
        self.0[..known] < minimum.0[..known]
    }
}

impl Manifest {
    /// Reads a folder's manifest, adding what every runtime shares.
    ///
    /// # Errors
    /// A sentence that names the field and what is wrong with it.
    pub(crate) fn parse(folder: &str, text: &str, system: &System) -> Result<Self, String> {
        let file: RuntimeFile = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check(folder)?;
        let mut mounts = system.mounts.clone();
        mounts.extend(file.mounts);
        let mut environment = system.environment.clone();
        environment.extend(file.environment);
        check_environment("environment", &environment, &["bin", "support"])?;
        check_environment("search_paths", &file.search_paths, &["support"])?;
        let mut reserved = vec![file.source.clone()];
        reserved.extend(file.reserved);
        let minimum = Version::parse(&file.detect.minimum)
            .ok_or_else(|| format!("detect.minimum: {:?} is no version", file.detect.minimum))?;
        let zygote = file.zygote.map(|zygote| zygote.checked(&file.support));
        Ok(Self {
            zygote: zygote.transpose()?,
            folder: file.name.clone(),
            name: file.name,
            title: file.title,
            aliases: file.aliases,
            extensions: file.extensions,
            default: file.default,
            source: file.source,
            reserved,
            support: file.support,
            ignored: file.ignored,
            processes: file.processes,
            detect: Detect {
                candidates: file.detect.candidates,
                argv: file.detect.argv,
                program: file.detect.program,
                minimum,
                cure: file.detect.cure,
                environment: file.detect.environment,
                versions: file
                    .detect
                    .versions
                    .map(VersionsFile::checked)
                    .transpose()?,
            },
            mounts,
            environment,
            search_paths: file.search_paths,
            packages: file.packages.map(PackagesFile::checked).transpose()?,
            waits: file.waits,
            kernel: file.kernel,
            no_fork: file.no_fork,
            command: file.command,
            stages: file
                .stages
                .into_iter()
                .map(|stage| StageTemplate {
                    name: stage.name,
                    argv: stage.argv,
                })
                .collect(),
        })
    }

    /// Where the box sees the support files.
    pub(crate) fn support_dir(&self) -> String {
        format!("{SUPPORT_ROOT}/{}", self.folder)
    }

    /// Lets the language be called by its version too.
    pub(crate) fn name_version(&mut self, version: &Version) {
        if let Some(versions) = &self.detect.versions {
            let names = std::iter::once(&versions.name).chain(&versions.aliases);
            let names: Vec<String> = names.map(|pattern| pattern.fill(version)).collect();
            self.aliases.extend(names);
        }
    }

    /// The language that another version of the interpreter is: named by it,
    /// without files of its own ending, and without packages, which are
    /// compiled for one version. `None` where versions have no names.
    pub(crate) fn of_version(&self, version: &Version) -> Option<Self> {
        let names = self.detect.versions.as_ref()?;
        let aliases = names.aliases.iter();
        Some(Self {
            name: names.name.fill(version),
            title: names.title.fill(version),
            aliases: aliases.map(|pattern| pattern.fill(version)).collect(),
            extensions: Vec::new(),
            default: false,
            packages: None,
            ..self.clone()
        })
    }

    /// Whether `word` names this runtime, in any case.
    pub(crate) fn answers_to(&self, word: &str) -> bool {
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .any(|name| name.eq_ignore_ascii_case(word))
    }
}

/// What `system.toml` gives to every runtime.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct System {
    mounts: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
}

impl System {
    /// Reads `system.toml`.
    ///
    /// # Errors
    /// A sentence that names the field and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let system: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        check_mounts(&system.mounts)?;
        Ok(system)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuntimeFile {
    name: String,
    title: String,
    #[serde(default)]
    aliases: Vec<String>,
    extensions: Vec<String>,
    #[serde(default)]
    default: bool,
    source: String,
    #[serde(default)]
    reserved: Vec<String>,
    #[serde(default)]
    support: Vec<String>,
    #[serde(default)]
    ignored: Vec<String>,
    processes: Option<u32>,
    detect: DetectFile,
    #[serde(default)]
    mounts: Vec<PathBuf>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    search_paths: BTreeMap<String, String>,
    packages: Option<PackagesFile>,
    kernel: Option<Vec<String>>,
    no_fork: Option<String>,
    #[serde(default)]
    waits: bool,
    zygote: Option<ZygoteFile>,
    command: Option<Vec<String>>,
    stages: Vec<StageFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DetectFile {
    candidates: Vec<String>,
    argv: Vec<String>,
    program: String,
    minimum: String,
    cure: String,
    #[serde(default)]
    environment: Vec<String>,
    versions: Option<VersionsFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageFile {
    name: String,
    argv: Vec<String>,
}

impl RuntimeFile {
    fn check(&self, folder: &str) -> Result<(), String> {
        if self.name != folder {
            return Err(format!("name: {:?} is not the folder's name", self.name));
        }
        let words = [
            ("name", std::slice::from_ref(&self.name)),
            ("aliases", &self.aliases),
            ("extensions", &self.extensions),
        ];
        for (field, names) in words {
            for name in names {
                let plain =
                    |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+#-_.".contains(c);
                if name.is_empty() || !name.chars().all(plain) {
                    return Err(format!("{field}: {name:?} is not a lower-case word"));
                }
            }
        }
        if let Some(dotted) = self.extensions.iter().find(|name| name.starts_with('.')) {
            return Err(format!("extensions: {dotted:?} begins with a dot"));
        }
        let files = [
            ("source", std::slice::from_ref(&self.source)),
            ("reserved", &self.reserved),
            ("support", &self.support),
            ("ignored", &self.ignored),
            ("detect.program", std::slice::from_ref(&self.detect.program)),
            ("detect.candidates", &self.detect.candidates),
        ];
        for (field, names) in files {
            check_file_names(field, names)?;
        }
        if self.processes == Some(0) {
            return Err("processes: 0 leaves no room for the program".to_owned());
        }
        check_mounts(&self.mounts)?;
        self.check_commands()
    }

    fn check_commands(&self) -> Result<(), String> {
        if self.detect.candidates.is_empty() {
            return Err("detect.candidates: at least one is needed".to_owned());
        }
        check_words("detect.argv", &self.detect.argv, &["candidate", "program"])?;
        let mut names = self.detect.environment.iter();
        if let Some(name) = names.find(|name| !is_environment_name(name)) {
            return Err(format!(
                "detect.environment: {name:?} is no variable's name"
            ));
        }
        if let Some(command) = &self.command {
            check_words("command", command, &["interpreter", "support"])?;
        }
        if let Some(kernel) = &self.kernel {
            check_words("kernel", kernel, &["interpreter", "support", "channel"])?;
        }
        if self.stages.is_empty() {
            return Err("stages: at least one is needed".to_owned());
        }
        for (number, stage) in self.stages.iter().enumerate() {
            let field = format!("stages[{number}].argv");
            check_words(
                &field,
                &stage.argv,
                &["interpreter", "support", "source", "args"],
            )?;
            if stage
                .argv
                .iter()
                .any(|word| word.contains("{args}") && word != "{args}")
            {
                return Err(format!("{field}: {{args}} must be a word of its own"));
            }
            if stage.name.is_empty() {
                return Err(format!("stages[{number}].name: is empty"));
            }
        }
        Ok(())
    }
}

fn check_file_names<'a>(
    field: &str,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<(), String> {
    for name in names {
        if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(format!("{field}: {name:?} is not a plain file name"));
        }
    }
    Ok(())
}

fn check_mounts(mounts: &[PathBuf]) -> Result<(), String> {
    let relative = mounts.iter().find(|path| !path.is_absolute());
    relative.map_or(Ok(()), |path| {
        Err(format!(
            "mounts: {} is not an absolute path",
            path.display()
        ))
    })
}

fn check_environment(
    field: &str,
    environment: &BTreeMap<String, String>,
    known: &[&str],
) -> Result<(), String> {
    for (name, value) in environment {
        if !is_environment_name(name) {
            return Err(format!("{field}: {name:?} is no variable's name"));
        }
        check_placeholders(&format!("{field}.{name}"), value, known)?;
    }
    Ok(())
}

fn check_words(field: &str, words: &[String], known: &[&str]) -> Result<(), String> {
    if words.is_empty() {
        return Err(format!("{field}: is empty"));
    }
    words
        .iter()
        .try_for_each(|word| check_placeholders(field, word, known))
}

/// A word may hold only the placeholders that somebody fills in.
fn check_placeholders(field: &str, word: &str, known: &[&str]) -> Result<(), String> {
    for part in word.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or_default();
        if !part.contains('}') || !known.contains(&name) {
            return Err(format!(
                "{field}: {word:?} holds an unknown placeholder; known are {}",
                known.join(", ")
            ));
        }
    }
    Ok(())
}

/// Whether a variable may be called so: `[A-Za-z_][A-Za-z0-9_]*`.
pub(crate) fn is_environment_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Manifest, System, Version, is_environment_name};

    const SYSTEM: &str =
        "mounts = ['/usr/bin']\n[environment]\nPATH = '{bin}:/usr/bin'\nHOME = '/tmp'\n";

    const GOOD: &str = r#"
name = "tcl"
title = "Tcl"
aliases = ["tclsh"]
extensions = ["tcl", "tm"]
source = "main.tcl"
support = ["boot.tcl"]
processes = 8
mounts = ["/opt/tcl"]

[detect]
candidates = ["tclsh"]
argv = ["{candidate}", "{program}"]
program = "detect.tcl"
minimum = "8.6"
cure = "Install Tcl."

[environment]
HOME = "/root"

[[stages]]
name = "run"
argv = ["{interpreter}", "{support}/boot.tcl", "{source}", "{args}"]
"#;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse("tcl", text, &System::parse(SYSTEM).unwrap())
    }

    #[test]
    fn joins_the_manifest_with_the_system() {
        let manifest = parse(GOOD).unwrap();
        assert_eq!(manifest.mounts, ["/usr/bin", "/opt/tcl"].map(PathBuf::from));
        assert_eq!(manifest.environment["HOME"], "/root");
        assert_eq!(manifest.environment["PATH"], "{bin}:/usr/bin");
        assert_eq!(manifest.reserved, ["main.tcl"]);
        assert_eq!(manifest.support_dir(), "/opt/codex/tcl");
        assert!(manifest.answers_to("TCLsh") && !manifest.answers_to("tc"));
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from} is not in the good manifest");
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        };
        check(
            "name = \"tcl\"",
            "name = \"perl\"",
            "name: \"perl\" is not the folder's name",
        );
        check(
            "title = \"Tcl\"",
            "titel = \"Tcl\"",
            "unknown field `titel`",
        );
        check("title = \"Tcl\"", "", "missing field `title`");
        check(
            "tclsh\"]\nextensions",
            "Tcl sh\"]\nextensions",
            "aliases: \"Tcl sh\"",
        );
        check("\"tm\"", "\"\"", "extensions: \"\"");
        check("\"tm\"", "\".tm\"", "extensions: \".tm\" begins with a dot");
        check("main.tcl", "../main.tcl", "source: \"../main.tcl\"");
        check("[\"boot.tcl\"]", "[\"..\"]", "support: \"..\"");
        check("processes = 8", "processes = 0", "processes: 0");
        check("/opt/tcl", "opt/tcl", "mounts: opt/tcl");
        check(
            "candidates = [\"tclsh\"]",
            "candidates = []",
            "detect.candidates",
        );
        check("{program}", "{script}", "detect.argv: \"{script}\"");
        check("8.6", "new", "detect.minimum: \"new\"");
        check("HOME =", "\"1HOME\" =", "environment: \"1HOME\"");
        check("\"/root\"", "\"{home}\"", "environment.HOME: \"{home}\"");
        check(
            "\"{args}\"",
            "\"-a{args}\"",
            "stages[0].argv: {args} must be a word",
        );
        check(
            "{support}",
            "{suport}",
            "stages[0].argv: \"{suport}/boot.tcl\"",
        );
        check("\"run\"", "\"\"", "stages[0].name");
    }

    #[test]
    fn versions_compare_as_numbers() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("3.10.2") > version("3.9"));
        assert!(version("18") <= version("18.0.0"));
        assert!(version("3.13.0rc1") >= version("3.13"));
        assert_eq!(version("3.12.1+"), version("3.12.1"));
        assert_eq!(Version::parse("unknown"), None);
    }

    #[test]
    fn knows_the_names_of_variables() {
        let check = |name, expected| assert_eq!(is_environment_name(name), expected, "{name:?}");
        check("PATH", true);
        check("_x9", true);
        check("", false);
        check("9x", false);
        check("A=B", false);
        check("A B", false);
        check("É", false);
    }
}
