//! The `[zygote]` table of a manifest: how an interpreter is started that is forked into
//! boxes, and what it loads before. Never touches the file system.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{check_environment, check_words};

/// The support file that is no file of the folder: the sandbox's shared object, which the
/// interpreter serves its channel with.
pub(crate) const ADOPTER: &str = "adopt.so";

/// How an interpreter is started that is forked into boxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zygote {
    /// The command; `{interpreter}` is filled in.
    pub(crate) argv: Vec<String>,
    /// Support files that it sees beside what boxes see, by their paths there.
    pub(crate) files: BTreeMap<String, String>,
    /// Variables that it has instead of a program's.
    pub(crate) environment: BTreeMap<String, String>,
    /// The variable that names the modules it loads.
    pub(crate) modules: String,
    /// Beginnings of the names of variables that an interpreter reads when it starts: a
    /// program that is given one of them has an interpreter of its own.
    pub(crate) read_early: Vec<String>,
    /// What it may load; never empty.
    pub(crate) profiles: Vec<Profile>,
}

/// Modules that are loaded ahead for one kind of program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Such as `small`.
    pub(crate) name: String,
    /// The modules of which a program of this kind imports at least one; empty for all
    /// other programs.
    #[serde(default)]
    pub(crate) imports: Vec<String>,
    /// What is loaded, as far as it is there.
    pub(crate) modules: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZygoteFile {
    argv: Vec<String>,
    files: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    modules: String,
    read_early: Vec<String>,
    profiles: Vec<Profile>,
}

impl ZygoteFile {
    /// Checks the table.
    ///
    /// # Errors
    /// A sentence that names the field and what is wrong with it.
    pub(super) fn checked(self, support: &[String]) -> Result<Zygote, String> {
        check_words("zygote.argv", &self.argv, &["interpreter"])?;
        check_environment("zygote.environment", &self.environment, &["support"])?;
        let known = |name: &&String| *name == ADOPTER || support.contains(name);
        if let Some(name) = self.files.values().find(|name| !known(name)) {
            return Err(format!("zygote.files: {name:?} is no support file"));
        }
        if let Some(path) = self.files.keys().find(|path| !path.starts_with('/')) {
            return Err(format!("zygote.files: {path:?} is not absolute"));
        }
        let usual = self.profiles.first();
        if usual.is_none_or(|profile| !profile.imports.is_empty()) {
            return Err("zygote.profiles: the first one is for all programs".to_owned());
        }
        Ok(Zygote {
            argv: self.argv,
            files: self.files,
            environment: self.environment,
            modules: self.modules,
            read_early: self.read_early,
            profiles: self.profiles,
        })
    }
}

impl Zygote {
    /// Returns the profile that suits a program best, by the lines of its text that
    /// seem to import something. It is a guess, which costs time at most.
    pub(crate) fn profile_of(&self, code: &str) -> &Profile {
        let wanted = |profile: &&Profile| {
            let mut lines = code.lines().filter(|line| line.contains("import"));
            lines.any(|line| {
                let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                words.any(|word| profile.imports.iter().any(|name| name == word))
            })
        };
        let special = self.profiles.iter().skip(1).find(wanted);
        special.unwrap_or_else(|| self.usual())
    }

    /// Whether an interpreter with these variables may be forked: it reads none of them
    /// when it starts.
    pub(crate) fn suits(&self, env: &[(String, String)]) -> bool {
        let is_read_early = |name: &str| {
            let mut beginnings = self.read_early.iter();
            beginnings.any(|beginning| name.starts_with(beginning))
        };
        !env.iter().any(|(name, _)| is_read_early(name))
    }

    /// The profile for programs that import nothing special.
    pub(crate) fn usual(&self) -> &Profile {
        // Checked when the manifest was read.
        &self.profiles[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_guessed_by_its_imports() {
        let profile = |name: &str, imports: &[&str]| Profile {
            name: name.to_owned(),
            imports: imports.iter().map(|name| (*name).to_owned()).collect(),
            modules: Vec::new(),
        };
        let zygote = Zygote {
            argv: Vec::new(),
            files: BTreeMap::new(),
            environment: BTreeMap::new(),
            modules: String::new(),
            read_early: Vec::new(),
            profiles: vec![
                profile("small", &[]),
                profile("science", &["numpy", "pandas"]),
            ],
        };
        let check = |code: &str, expected: &str| {
            assert_eq!(zygote.profile_of(code).name, expected, "{code}");
        };
        check("print(1)", "small");
        check("import numpy as np", "science");
        check("import os, pandas", "science");
        check("from numpy.linalg import inv", "science");
        check("def f():\n    import numpy", "science");
        check("import numpylike", "small");
        check("print('numpy')", "small");
        check("", "small");
    }
}
