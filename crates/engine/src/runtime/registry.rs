//! The languages of this server: embedded folders, found interpreters.
//!
//! Loaded once, before any thread exists. Support files are written below the
//! data directory under a name made of their content, so a box never sees
//! files of another version, and servers that start at once do no harm. A server
//! holds a lock on the directories it uses, and removes old ones that nobody holds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rust_embed::RustEmbed;

use super::detect::{self, Found, Interpreter, Reach, Search};
use super::kit::{self, PackageKit};
use super::manifest::{ADOPTER, Manifest, System, Version};
use super::packages::{PackageSet, Shelf};
use crate::engine::{Language, PackageState};
use crate::error::{Error, StartError};
use support::{hold, materialise, sweep};

mod support;

/// The folder of all runtimes, without what only tests and people need.
#[derive(RustEmbed)]
#[folder = "../../runtimes"]
#[exclude = "*/cases/*"]
#[exclude = "*/gallery/*"]
#[exclude = "*.md"]
struct Embedded;

/// A language: what its folder says, and what was found of it on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// What its folder says.
    pub(crate) manifest: Manifest,
    /// Host directory of its support files.
    pub(crate) support: PathBuf,
    /// Whether boxes see what is lent to them where the host has it.
    pub(crate) in_place: bool,
    /// Keeps other servers from removing them.
    in_use: Arc<fs::File>,
    /// Its interpreter, or why there is none.
    pub(crate) interpreter: Result<Interpreter, String>,
    /// Its package sets, where it can have some.
    shelf: Option<Arc<Shelf>>,
    /// For one version beside the preferred one: the language it is a version of.
    version_of: Option<String>,
    /// What was found of it and will not do, each with the reason.
    passed_over: Vec<String>,
}

impl Runtime {
    /// Where a box sees a directory that is lent to it as `target`.
    pub(crate) fn seen(&self, source: &Path, target: &str) -> PathBuf {
        if self.in_place {
            source.to_owned()
        } else {
            target.into()
        }
    }

    /// Where a box sees the support files.
    pub(crate) fn support_seen(&self) -> PathBuf {
        self.seen(&self.support, &self.manifest.support_dir())
    }

    /// Whether it is one version beside the preferred one of its language.
    pub(crate) fn is_another_version(&self) -> bool {
        self.version_of.is_some()
    }

    /// The interpreter.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the cure when there is none on this machine.
    pub(crate) fn interpreter(&self) -> Result<&Interpreter, Error> {
        self.interpreter.as_ref().map_err(|_| Error::Unavailable {
            language: self.manifest.name.clone(),
            cure: self.manifest.detect.cure.clone(),
        })
    }

    /// The packages that programs see now.
    pub(crate) fn packages(&self) -> Option<Arc<PackageSet>> {
        let shelf = self.shelf.as_ref()?;
        // Out of reach they would be an error of each program, not a lack.
        if self.in_place && detect::locked_up(&shelf.directory).is_some() {
            return None;
        }
        shelf.current()
    }

    /// Returns what the caller of a failed program should know of a module that
    /// the program missed by its error output, where a package would help.
    pub(crate) fn advice(&self, stderr: &[u8]) -> Option<String> {
        let recipe = self.manifest.packages.as_ref()?;
        let set = self.packages();
        let installed = set.iter().flat_map(|set| &set.marker.packages);
        let flags = self.package_flags();
        recipe.advice(stderr, installed.map(|one| one.name.as_str()), &flags)
    }

    /// As [`Registry::installer_advice`], for packages of this language.
    fn installer_advice(&self, output: &[u8]) -> Option<String> {
        let recipe = self.manifest.packages.as_ref()?;
        let package = recipe.unreached_package(output)?;
        let flags = self.package_flags();
        Some(format!(
            "{package} can't be installed from inside a run, which reaches no network; the server's operator can add it: codex-server packages add {package}{flags}"
        ))
    }

    /// Returns the flags by which `packages add` knows the language.
    fn package_flags(&self) -> String {
        match self.manifest.default {
            true => String::new(),
            false => format!(" --language {}", self.manifest.name),
        }
    }

    /// What it takes to build packages for it; `None` for a language without
    /// any, else why none can be built here, with the cure.
    pub(crate) fn kit(&self) -> Option<Result<PackageKit, String>> {
        let recipe = self.manifest.packages.as_ref()?;
        let shelf = self.shelf.as_ref()?;
        let (title, minimum) = (&self.manifest.title, &recipe.minimum);
        let interpreter = match &self.interpreter {
            Err(_) => return Some(Err(self.manifest.detect.cure.clone())),
            Ok(_)
                if self.in_place
                    && let Some(directory) = detect::locked_up(&shelf.directory) =>
            {
                return Some(Err(format!(
                    "Packages are out of reach of other users, as which code runs here: {} is not for all to enter. Name a data directory outside of it, with --home or CODEX_HOME.",
                    directory.display()
                )));
            }
            Ok(found) if Version::parse(&found.version).is_none_or(|found| found < *minimum) => {
                return Some(Err(format!(
                    "{title} {} is too old for the packages. Install {title} {minimum} or newer and restart the server.",
                    found.version
                )));
            }
            Ok(found) => found,
        };
        let folder = &self.manifest.name;
        // That they are there was seen when the registry was loaded.
        let read = |name: &String| Some((name.clone(), text(&format!("{folder}/{name}")).ok()?));
        // A lock of the operator's own takes the place of ours.
        let own = |name: &String| Some((name.clone(), kit::own_file(&shelf.directory, name)?));
        let locks = recipe.files.iter();
        let locks = locks.filter_map(|name| own(name).or_else(|| read(name)));
        let files = read(&recipe.program).into_iter().chain(locks).collect();
        Some(Ok(PackageKit {
            language: folder.clone(),
            title: title.clone(),
            directory: shelf.directory.clone(),
            shelf: Arc::clone(shelf),
            files,
            check: read(&recipe.check)
                .map(|(_, text)| text)
                .unwrap_or_default(),
            interpreter: interpreter.path.clone(),
            abi: interpreter.abi.clone(),
            recipe: recipe.clone(),
        }))
    }

    /// Whether a set holds what this server pins and nothing that somebody added.
    pub(crate) fn is_pinned(&self, set: &PackageSet) -> bool {
        *set.pinned.get_or_init(|| {
            let kit = self.kit().and_then(Result::ok);
            kit.is_some_and(|kit| kit.key(&[]) == set.marker.key)
        })
    }

    /// What is installed for it, and what could be.
    pub(crate) fn package_state(&self) -> Option<PackageState> {
        let shelf = self.shelf.as_ref()?;
        let kit = self.kit()?;
        let set = self.packages();
        let added = kit::added(&shelf.directory).unwrap_or_default();
        let current = match (&kit, &set) {
            (Ok(kit), Some(set)) => kit.key(&added) == set.marker.key && set.fits_machine(),
            _ => false,
        };
        Some(PackageState {
            language: self.manifest.name.clone(),
            title: self.manifest.title.clone(),
            directory: shelf.directory.clone(),
            main: self.manifest.packages.as_ref()?.main.clone(),
            installing: kit::is_locked(&shelf.directory),
            installed: set.map(|set| set.marker.packages.clone()),
            current,
            added,
            obstacle: kit.err(),
        })
    }

    /// The language of another version of the interpreter.
    fn of_version(&self, interpreter: Interpreter) -> Option<Self> {
        let version = Version::parse(&interpreter.version)?;
        Some(Self {
            manifest: self.manifest.of_version(&version)?,
            support: self.support.clone(),
            in_place: self.in_place,
            in_use: Arc::clone(&self.in_use),
            interpreter: Ok(interpreter),
            shelf: None,
            version_of: Some(self.manifest.name.clone()),
            passed_over: Vec::new(),
        })
    }

    fn language(&self) -> Language {
        let found = self.interpreter.as_ref();
        Language {
            name: self.manifest.name.clone(),
            title: self.manifest.title.clone(),
            aliases: self.manifest.aliases.clone(),
            extensions: self.manifest.extensions.clone(),
            version: found.map_or_else(|_| String::new(), |found| found.version.clone()),
            available: found.is_ok(),
            interpreter: found.ok().map(|found| found.path.clone()),
            passed_over: self.passed_over.clone(),
            version_of: self.version_of.clone(),
            cure: found
                .err()
                .map(|why| format!("{} (Now: {why}.)", self.manifest.detect.cure)),
        }
    }
}

/// All languages, the default one first.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    runtimes: Vec<Runtime>,
}

impl Registry {
    /// Reads the embedded manifests, writes support files, finds interpreters.
    ///
    /// `shared` is the sandbox's directory for what boxes see in place, on the
    /// rungs where they see everything in place.
    ///
    /// # Errors
    /// When a manifest is wrong or the data directory cannot be written. A
    /// missing interpreter is no error.
    pub(crate) fn load(
        data_dir: &Path,
        places: Places<'_>,
        shared: Option<&Path>,
    ) -> Result<Self, StartError> {
        let manifests = manifests()?;
        let private: Vec<PathBuf> = std::iter::once(data_dir.to_owned())
            .chain(std::env::home_dir())
            .collect();
        let reach = match shared {
            Some(_) => Reach::InPlace,
            None if rustix::process::geteuid().is_root() => Reach::Lent,
            None => Reach::Own,
        };
        if shared.is_some() {
            open_the_way(data_dir);
        }
        let mut runtimes = Vec::new();
        for manifest in manifests {
            let named = places
                .named
                .iter()
                .filter(|(name, _)| *name == manifest.name);
            let named: Vec<PathBuf> = named.map(|(_, file)| file.clone()).collect();
            let search = Search {
                named: &named,
                path: places.path,
                home: places.home,
                private: &private,
                reach,
            };
            runtimes.extend(load(manifest, data_dir, shared, search)?);
        }
        // All that this server uses is locked by now.
        sweep(&data_dir.join("runtimes"), SystemTime::now());
        // Stable: the versions of a language stay as they are, after all languages.
        runtimes.sort_by_key(|runtime| {
            let manifest = &runtime.manifest;
            let version_of = runtime.version_of.clone();
            (
                version_of.is_some(),
                !manifest.default,
                version_of.unwrap_or_else(|| manifest.name.clone()),
            )
        });
        let registry = Self { runtimes };
        registry.check()?;
        Ok(registry)
    }

    /// Whether some language has a file of its own of that name.
    pub(crate) fn is_reserved(&self, name: &str) -> bool {
        let mut runtimes = self.runtimes.iter();
        runtimes.any(|runtime| runtime.manifest.reserved.iter().any(|own| own == name))
    }

    /// Returns what the caller of a run should know that tried to install a
    /// package, of any language, by what it printed.
    pub(crate) fn installer_advice(&self, output: &[u8]) -> Option<String> {
        let mut runtimes = self.runtimes.iter();
        runtimes.find_map(|runtime| runtime.installer_advice(output))
    }

    /// All languages, the default one first.
    pub(crate) fn runtimes(&self) -> impl Iterator<Item = &Runtime> {
        self.runtimes.iter()
    }

    /// By name or alias, in any case.
    pub(crate) fn find(&self, word: &str) -> Option<&Runtime> {
        self.runtimes
            .iter()
            .find(|runtime| runtime.manifest.answers_to(word))
    }

    /// As if that interpreter had been found.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, language: &str, version: &str, abi: &str) {
        let mut named = self.runtimes.iter_mut();
        let runtime = named.find(|runtime| runtime.manifest.name == language);
        let runtime = runtime.expect("the language is known");
        runtime.interpreter = Ok(Interpreter {
            version: version.to_owned(),
            abi: abi.to_owned(),
            path: "/nowhere/interpreter".into(),
            ..Interpreter::default()
        });
        let directory = runtime.shelf.as_ref().map(|shelf| shelf.directory.clone());
        runtime.shelf = directory.map(|directory| Arc::new(Shelf::new(directory, abi.to_owned())));
    }

    /// The version that a word asks for of a language that is here in others:
    /// the human name of what is not on this machine.
    pub(crate) fn missing_version(&self, word: &str) -> Option<String> {
        self.runtimes.iter().find_map(|runtime| {
            let version = runtime.manifest.detect.versions.as_ref()?;
            Some(version.title.fill(&version.asked_for(word)?))
        })
    }

    /// The language of code that names none.
    pub(crate) fn default_runtime(&self) -> &Runtime {
        self.runtimes
            .first()
            .expect("a registry without a default language does not load")
    }

    /// The languages, the default one first.
    pub(crate) fn languages(&self) -> Vec<Language> {
        self.runtimes.iter().map(Runtime::language).collect()
    }

    /// What is installed for the languages that can have packages.
    pub(crate) fn package_states(&self) -> Vec<PackageState> {
        self.runtimes
            .iter()
            .filter_map(Runtime::package_state)
            .collect()
    }

    /// No two languages answer to one word or claim one ending of files, and
    /// exactly one is the default.
    fn check(&self) -> Result<(), StartError> {
        for runtime in &self.runtimes {
            let manifest = &runtime.manifest;
            for word in std::iter::once(&manifest.name).chain(&manifest.aliases) {
                let owner = self
                    .find(word)
                    .map_or("", |owner| owner.manifest.name.as_str());
                if owner != manifest.name {
                    return Err(wrong(
                        &manifest.name,
                        format!("{word:?} already names {owner}"),
                    ));
                }
            }
        }
        let mut endings = BTreeMap::new();
        for manifest in self.runtimes.iter().map(|runtime| &runtime.manifest) {
            for ending in &manifest.extensions {
                if let Some(owner) = endings.insert(ending, &manifest.name) {
                    return Err(wrong(
                        &manifest.name,
                        format!("files that end in .{ending} are already those of {owner}"),
                    ));
                }
            }
        }
        let defaults = self
            .runtimes
            .iter()
            .filter(|runtime| runtime.manifest.default);
        match defaults.count() {
            1 => Ok(()),
            count => Err(wrong(
                "default",
                format!("{count} languages are the default, not one"),
            )),
        }
    }
}

/// Lets everybody pass through the data directory, not list it: package sets
/// lie there, and nothing else in it is readable to others. Where that fails,
/// packages are said to be out of reach.
fn open_the_way(data_dir: &Path) {
    let opened = fs::metadata(data_dir).and_then(|found| {
        let mode = found.permissions().mode() | 0o011;
        fs::set_permissions(data_dir, fs::Permissions::from_mode(mode))
    });
    if let Err(error) = opened {
        tracing::debug!(%error, "the data directory stays closed");
    }
}

fn wrong(name: &str, problem: String) -> StartError {
    StartError::Manifest {
        name: name.to_owned(),
        problem,
    }
}

/// The manifests of all folders, as they are on every machine.
pub(super) fn manifests() -> Result<Vec<Manifest>, StartError> {
    let system =
        System::parse(&text("system.toml")?).map_err(|problem| wrong("system.toml", problem))?;
    let paths = Embedded::iter();
    let folders = paths.filter_map(|path| path.strip_suffix("/runtime.toml").map(str::to_owned));
    folders
        .map(|folder| {
            let manifest = text(&format!("{folder}/runtime.toml"))?;
            Manifest::parse(&folder, &manifest, &system).map_err(|problem| wrong(&folder, problem))
        })
        .collect()
}

/// Each language with the endings of its files, without the dot, as its folder
/// says: the same on every machine, whatever is installed there.
///
/// # Errors
/// When a manifest is wrong, which no build that passed its tests has.
pub fn endings() -> Result<Vec<(String, Vec<String>)>, StartError> {
    let manifests = manifests()?.into_iter();
    Ok(manifests
        .map(|manifest| (manifest.name, manifest.extensions))
        .collect())
}

/// The canonical name of a language by any of its names, whether it is on this
/// machine or not.
///
/// # Errors
/// The canonical names of all languages; none where a manifest is wrong, which
/// no build that passed its tests has.
pub fn language_named(word: &str) -> Result<String, Vec<String>> {
    let manifests = manifests().unwrap_or_default();
    let named = manifests.iter().find(|manifest| manifest.answers_to(word));
    named
        .map(|manifest| manifest.name.clone())
        .ok_or_else(|| manifests.iter().map(|one| one.name.clone()).collect())
}

fn text(path: &str) -> Result<String, StartError> {
    let file = Embedded::get(path).ok_or_else(|| wrong(path, "is missing".to_owned()))?;
    String::from_utf8(file.data.into_owned()).map_err(|_| wrong(path, "is not UTF-8".to_owned()))
}

/// Where interpreters come from: see [`Search`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Places<'a> {
    /// Languages by canonical name, and interpreters that the operator named for them.
    pub(crate) named: &'a [(String, PathBuf)],
    /// Directories in order of preference.
    pub(crate) path: &'a [PathBuf],
    /// Home directory below which version switchers keep interpreters.
    pub(crate) home: Option<&'a Path>,
}

/// The language of a folder, and its versions.
fn load(
    manifest: Manifest,
    data_dir: &Path,
    shared: Option<&Path>,
    search: Search<'_>,
) -> Result<Vec<Runtime>, StartError> {
    let folder = &manifest.folder.clone();
    let program = text(&format!("{folder}/{}", manifest.detect.program))?;
    let mut files = Vec::new();
    for name in &manifest.support {
        let content = text(&format!("{folder}/{name}"))?;
        files.push((name.as_str(), content.into_bytes()));
    }
    if let Some(adopter) = sandbox::ADOPTER.filter(|_| manifest.zygote.is_some()) {
        files.push((ADOPTER, adopter.to_vec()));
    }
    if let Some(packages) = &manifest.packages {
        for name in packages
            .files
            .iter()
            .chain([&packages.program, &packages.check])
        {
            text(&format!("{folder}/{name}"))?;
        }
    }
    let root = shared.unwrap_or(data_dir).join("runtimes");
    let prepared = materialise(&root, folder, &files)
        .and_then(|support| Ok((hold(&support, &files)?, support)));
    let (in_use, support) = prepared.map_err(|source| StartError::Io {
        step: format!(
            "write the support files of {folder} below {}",
            root.display()
        ),
        source,
    })?;
    let Found {
        usable,
        passed_over,
    } = detect::detect(&manifest, &program, search);
    for why in &passed_over {
        if search.named.is_empty() && !usable.is_empty() {
            tracing::debug!(language = folder, why, "passed over");
        } else {
            tracing::warn!(language = folder, why, "passed over");
        }
    }
    let mut usable = usable.into_iter();
    let interpreter = usable.next().ok_or_else(|| passed_over.join("; "));
    let abi = interpreter.as_ref().map(|found| found.abi.clone());
    let shelf = Shelf::new(
        data_dir.join("packages").join(folder),
        abi.unwrap_or_default(),
    );
    let mut plain = Runtime {
        shelf: manifest.packages.is_some().then(|| Arc::new(shelf)),
        manifest,
        support,
        in_place: shared.is_some(),
        in_use: Arc::new(in_use),
        interpreter,
        version_of: None,
        passed_over,
    };
    let others: Vec<Runtime> = usable.filter_map(|found| plain.of_version(found)).collect();
    if let Ok(found) = &plain.interpreter
        && let Some(version) = Version::parse(&found.version)
    {
        plain.manifest.name_version(&version);
    }
    Ok(std::iter::once(plain).chain(others).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Places, Registry};

    #[test]
    fn the_embedded_runtimes_load_without_any_interpreter() {
        let data = tempfile::tempdir().unwrap();
        let registry = Registry::load(data.path(), Places::default(), None).unwrap();
        let languages = registry.languages();
        assert_eq!(languages[0].name, "python");
        assert_eq!(registry.default_runtime().manifest.name, "python");
        assert!(
            languages
                .iter()
                .any(|language| language.name == "javascript")
        );
        for language in languages {
            assert!(!language.available && language.version.is_empty());
            let cure = language.cure.unwrap();
            assert!(
                cure.contains("Install") && cure.contains("found in PATH"),
                "{cure}"
            );
            let runtime = registry.find(&language.name.to_uppercase()).unwrap();
            assert!(runtime.support.starts_with(data.path()));
            assert!(
                runtime
                    .interpreter()
                    .unwrap_err()
                    .to_string()
                    .contains("Install")
            );
        }
        assert_eq!(registry.find("JS").unwrap().manifest.name, "javascript");
        assert_eq!(registry.find("sh").unwrap().manifest.name, "bash");
        assert!(registry.find("cobol").is_none());
        for (name, expected) in [("main.py", true), ("main.mjs", true), ("data.csv", false)] {
            assert_eq!(registry.is_reserved(name), expected, "{name}");
        }
    }

    #[test]
    fn no_two_languages_claim_one_ending() {
        let data = tempfile::tempdir().unwrap();
        let mut registry = Registry::load(data.path(), Places::default(), None).unwrap();
        registry.check().unwrap();
        registry.runtimes[1].manifest.extensions.push("py".into());
        let error = registry.check().unwrap_err().to_string();
        assert!(error.contains(".py are already those of python"), "{error}");
    }

    #[test]
    fn the_interpreters_of_this_machine_are_found() {
        let data = tempfile::tempdir().unwrap();
        let path: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
        let registry = Registry::load(
            data.path(),
            Places {
                path: &path,
                ..Places::default()
            },
            None,
        )
        .unwrap();
        for word in ["python", "bash", "javascript"] {
            let found = registry.find(word).unwrap().interpreter.clone().unwrap();
            assert!(found.path.is_absolute() && found.path.exists(), "{found:?}");
            assert!(found.version.contains('.'), "{found:?}");
            assert!(
                found
                    .mounts
                    .iter()
                    .any(|mount| mount == Path::new("/usr/lib")),
                "{found:?}"
            );
            let bin = fs::canonicalize(&found.path).unwrap();
            assert!(
                found.mounts.iter().any(|mount| bin.starts_with(mount)),
                "{found:?}"
            );
        }
    }
}
