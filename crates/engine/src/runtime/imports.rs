//! Who brings a module: a package, under its own name or another, or the language.
//!
//! Pure. What a program printed is hostile: a name from there is told only where
//! it could be a package's, and nothing is decided by it.

use super::manifest::Packages;

/// Bytes at the end of an error output in which a missing module is looked for.
const TAIL: usize = 8 * 1024;
/// Bytes of the longest name that is told.
const LONGEST: usize = 100;

/// Where a module comes from that is asked for by the name that programs import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// A package of another name.
    Package(String),
    /// The language itself.
    Language,
}

impl Packages {
    /// Returns what brings the module `name`; `None` where that could only be a
    /// package of the same name.
    pub(crate) fn provider(&self, name: &str) -> Option<Provider> {
        if self.builtin.iter().any(|own| own == name) {
            return Some(Provider::Language);
        }
        let mut imported = self.imported.iter();
        let (_, package) = imported.find(|(module, _)| same(module, name))?;
        Some(Provider::Package(package.clone()))
    }

    /// Returns what a failed program missed by its error output: the part of the
    /// module's name that could be a package.
    pub(super) fn missing_module(&self, stderr: &[u8]) -> Option<String> {
        let tail = &stderr[stderr.len().saturating_sub(TAIL)..];
        let text = String::from_utf8_lossy(tail);
        let module = after(&self.missing, &text)?.split('\'').next()?;
        let mut parts = module.split(self.separator);
        let mut name = parts.next()?.to_owned();
        if name.starts_with('@') {
            name = format!("{name}/{}", parts.next()?);
        }
        could_be_a_package(&name).then_some(name)
    }

    /// Returns the package that an installer could not reach, by what it printed.
    pub(super) fn unreached_package(&self, output: &[u8]) -> Option<String> {
        let tail = &output[output.len().saturating_sub(TAIL)..];
        let text = String::from_utf8_lossy(tail);
        let asked = after(&self.unreached, &text)?.split_whitespace().next()?;
        // Of an address, the end: a scope and its package are one part there.
        let name = asked.rsplit('/').next()?.replace("%2f", "/");
        let end = name.find(['=', '<', '>', '!', '~', '[', ';', ',']);
        let name = &name[..end.unwrap_or(name.len())];
        could_be_a_package(name).then(|| name.to_owned())
    }

    /// Returns what the caller of a failed program should know of a module that
    /// it missed, where a package would help that is not `installed`. `flags`
    /// are those by which `packages add` knows the language.
    pub(super) fn advice<'a>(
        &self,
        stderr: &[u8],
        mut installed: impl Iterator<Item = &'a str>,
        flags: &str,
    ) -> Option<String> {
        let module = self.missing_module(stderr)?;
        let (package, certain) = match self.provider(&module) {
            Some(Provider::Language) => return None,
            Some(Provider::Package(package)) => (package, true),
            None => (module.clone(), false),
        };
        if installed.any(|name| same(name, &package)) {
            return None;
        }
        if self.main.iter().any(|name| same(name, &package)) {
            return Some(format!(
                "{module} is one of the packages that come with the server, but they are not installed, or not yet: `codex-server packages list` tells its operator why"
            ));
        }
        let condition = if certain {
            format!("it is the package {package}, which")
        } else {
            format!("if a package called {package} is meant,")
        };
        Some(format!(
            "{module} is not installed; {condition} the server's operator can add: codex-server packages add {package}{flags}"
        ))
    }
}

/// Returns what the last line that begins with one of the `phrases` goes on with.
fn after<'a>(phrases: &[String], text: &'a str) -> Option<&'a str> {
    let mut lines = text.lines().rev();
    lines.find_map(|line| {
        let mut phrases = phrases.iter();
        phrases.find_map(|phrase| line.strip_prefix(phrase.as_str()))
    })
}

/// Says whether two names are the same package's.
fn same(one: &str, other: &str) -> bool {
    let key = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-");
    key(one) == key(other)
}

fn could_be_a_package(name: &str) -> bool {
    let inner = name.strip_prefix('@').unwrap_or(name);
    let mut parts = inner.split('/');
    let scoped = usize::from(inner.len() < name.len());
    name.len() <= LONGEST
        && inner.matches('/').count() == scoped
        && parts.all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use crate::runtime::registry::manifests;

    use super::*;

    fn packages(language: &str) -> Packages {
        let all = manifests().unwrap().into_iter();
        let found = all.filter(|manifest| manifest.name == language);
        found
            .filter_map(|manifest| manifest.packages)
            .next()
            .unwrap()
    }

    #[test]
    fn a_module_is_known_by_the_name_that_programs_import() {
        let check = |language: &str, name: &str, expected: Option<Provider>| {
            let found = packages(language).provider(name);
            assert_eq!(found, expected, "{name}");
        };
        let package = |name: &str| Some(Provider::Package(name.to_owned()));
        check("python", "sklearn", package("scikit-learn"));
        check("python", "pil", package("pillow"));
        check("python", "PIL", package("pillow"));
        check("python", "mpl-toolkits", package("matplotlib"));
        check("python", "json", Some(Provider::Language));
        check("python", "scikit-learn", None);
        check("python", "polars", None);
        check("javascript", "fs", Some(Provider::Language));
        check("javascript", "yaml", None);
    }

    #[test]
    fn no_package_that_comes_along_is_taken_for_another() {
        for packages in ["python", "javascript"].map(packages) {
            for name in packages.main.iter().chain(packages.imported.values()) {
                assert_eq!(packages.provider(name), None, "{name}");
            }
        }
    }

    #[test]
    fn a_package_that_an_installer_misses_is_found() {
        let check = |language: &str, output: &str, expected: &str| {
            let found = packages(language).unreached_package(output.as_bytes());
            assert_eq!(found.unwrap_or_default(), expected, "{output}");
        };
        let pip = |asked: &str, expected: &str| {
            let line = format!("x\nERROR: No matching distribution found for {asked}\n");
            check("python", &line, expected);
        };
        pip("emoji", "emoji");
        pip("emoji==2.0,<3", "emoji");
        pip("uvicorn[standard]>=1; python_version > '3'", "uvicorn");
        pip("--x", "");
        pip("", "");
        check(
            "python",
            "it said ERROR: No matching distribution found for x",
            "",
        );
        let npm = |asked: &str, expected: &str| {
            let line = format!("npm error request to https://host/{asked} failed, reason: x\n");
            check("javascript", &line, expected);
        };
        npm("is-odd", "is-odd");
        npm("@types%2fnode", "@types/node");
        npm("", "");
        npm("`x`", "");
    }

    #[test]
    fn a_missing_module_is_told_with_its_package() {
        let check = |language: &str, stderr: &str, expected: &str| {
            let flags = if language == "python" { "" } else { " -l x" };
            let installed = ["numpy", "Zope.Interface"].into_iter();
            let told = packages(language).advice(stderr.as_bytes(), installed, flags);
            let told = told.unwrap_or_default();
            assert!(
                told.contains(expected) && told.is_empty() == expected.is_empty(),
                "{stderr}: {told:?}"
            );
        };
        let python = |name: &str| {
            format!("Traceback:\n  x\nModuleNotFoundError: No module named '{name}'\n")
        };
        let is = |name: &str, expected: &str| check("python", &python(name), expected);
        is(
            "polars",
            "if a package called polars is meant, the server's operator can add: codex-server packages add polars",
        );
        is("polars.io.x", "packages add polars");
        is(
            "cv2",
            "it is the package opencv-python-headless, which the server's",
        );
        is(
            "sklearn",
            "sklearn is one of the packages that come with the server",
        );
        is("numpy.nothing", "");
        is("zope_interface", "");
        is("json.nothing", "");
        is("", "");
        is("--index-url=x", "");
        is("a b", "");
        is("../x", "");
        is("ä", "");
        is(&"x".repeat(101), "");
        check(
            "python",
            "it said: ModuleNotFoundError: No module named 'x'",
            "",
        );
        let node = |name: &str| format!("x\nError: Cannot find module '{name}'\nRequire stack:\n");
        let is = |name: &str, expected: &str| check("javascript", &node(name), expected);
        is("left-pad", "packages add left-pad -l x");
        is("lodash.debounce/x", "packages add lodash.debounce -l x");
        is("@scope/name/deep", "packages add @scope/name -l x");
        is("@scope", "");
        is("./own", "");
        is("/workspace/own.js", "");
        is("fs/nothing", "");
        check(
            "javascript",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'chalk' imported from /workspace/main.mjs\n",
            "packages add chalk -l x",
        );
    }
}
