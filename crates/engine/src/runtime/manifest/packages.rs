//! The `[packages]` table of a manifest: how a language's package set is built
//! and where a box sees it. Never touches the file system.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Version, check_environment, check_file_names, check_words};

/// How a language's package set is built, checked and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packages {
    /// The command that builds a set, on the host; `{program}` and the like are filled in.
    pub(crate) argv: Vec<String>,
    /// File of the folder that is `{program}`.
    pub(crate) program: String,
    /// Further files of the folder that the command finds beside it: the lock.
    pub(crate) files: Vec<String>,
    /// File of the folder that is run in a box before a set is used.
    pub(crate) check: String,
    /// Where a box sees the set: an absolute path.
    pub(crate) at: String,
    /// The oldest interpreter that the lock is for.
    pub(crate) minimum: Version,
    /// Free disk space that building one takes, in MiB.
    pub(crate) disk_mib: u64,
    /// What the set is for: the packages that people name, most wanted first.
    pub(crate) main: Vec<String>,
    /// What an uncaught error says before the name of a module that is missing;
    /// the name ends at a `'`.
    pub(crate) missing: Vec<String>,
    /// What an installer's line says before the name, or the address, of a package
    /// that it cannot reach.
    pub(crate) unreached: Vec<String>,
    /// What stands between the parts of a module's name.
    pub(crate) separator: char,
    /// Modules of the language's own, which no package brings.
    pub(crate) builtin: Vec<String>,
    /// Names by which programs import a package that is called otherwise.
    pub(crate) imported: BTreeMap<String, String>,
    /// Environment of programs that see a set; `{packages}` is where.
    pub(crate) environment: BTreeMap<String, String>,
}

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PackagesFile {
    argv: Vec<String>,
    program: String,
    files: Vec<String>,
    check: String,
    at: String,
    minimum: String,
    disk_mib: u64,
    main: Vec<String>,
    missing: Vec<String>,
    unreached: Vec<String>,
    separator: char,
    builtin: Vec<String>,
    #[serde(default)]
    imported: BTreeMap<String, String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

impl PackagesFile {
    /// Checks the table.
    ///
    /// # Errors
    /// A sentence that names the field and what is wrong with it.
    pub(super) fn checked(self) -> Result<Packages, String> {
        let known = ["interpreter", "program", "tree", "cache", "at"];
        check_words("packages.argv", &self.argv, &known)?;
        let minimum = Version::parse(&self.minimum)
            .ok_or_else(|| format!("packages.minimum: {:?} is no version", self.minimum))?;
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !self
            .at
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(plain))
        {
            return Err(format!(
                "packages.at: {:?} is not an absolute path",
                self.at
            ));
        }
        check_file_names("packages", [&self.program, &self.check])?;
        check_file_names("packages.files", &self.files)?;
        if self.main.is_empty() {
            return Err("packages.main: at least one is needed".to_owned());
        }
        for (field, phrases) in [("missing", &self.missing), ("unreached", &self.unreached)] {
            if phrases.iter().any(String::is_empty) {
                return Err(format!("packages.{field}: \"\" would find anything"));
            }
        }
        check_environment("packages.environment", &self.environment, &["packages"])?;
        Ok(Packages {
            argv: self.argv,
            program: self.program,
            files: self.files,
            check: self.check,
            at: self.at,
            minimum,
            disk_mib: self.disk_mib,
            main: self.main,
            missing: self.missing,
            unreached: self.unreached,
            separator: self.separator,
            builtin: self.builtin,
            imported: self.imported,
            environment: self.environment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PackagesFile;

    const GOOD: &str = r#"
argv = ["{interpreter}", "{program}", "{tree}", "{cache}", "{at}"]
program = "install.tcl"
files = ["packages.lock"]
check = "check.tcl"
at = "/opt/packages"
minimum = "8.6"
disk_mib = 10
main = ["tcllib"]
missing = ["can't find package "]
unreached = ["no route to "]
separator = ":"
builtin = ["http"]
[environment]
TCLLIBPATH = "{packages}/lib"
"#;

    fn parse(text: &str) -> Result<super::Packages, String> {
        let file: PackagesFile = toml::from_str(text).map_err(|error| error.to_string())?;
        file.checked()
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        parse(GOOD).unwrap();
        let check = |from: &str, to: &str, expected: &str| {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from} is not in the good table");
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        };
        check("{tree}", "{where}", "packages.argv");
        check("\"8.6\"", "\"new\"", "packages.minimum");
        check("/opt/packages", "opt", "packages.at: \"opt\"");
        check("/opt/packages", "/opt/../etc", "packages.at");
        check("install.tcl", "../install.tcl", "\"../install.tcl\"");
        check("packages.lock", "", "\"\" is not a plain file name");
        check("\"tcllib\"", "", "packages.main");
        check("TCLLIBPATH", "\"TCL LIB\"", "is no variable's name");
        check("{packages}", "{support}", "packages.environment.TCLLIBPATH");
        check("disk_mib", "disk_mb", "unknown field");
    }
}
