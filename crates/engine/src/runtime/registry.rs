//! The languages of this server: embedded folders, found interpreters.
//!
//! Loaded once, before any thread exists. Support files are written below the
//! data directory under a name made of their content, so a box never sees
//! files of another version, and servers that start at once do no harm. A server
//! holds a lock on the directories it uses, and removes old ones that nobody holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use super::detect::{self, Interpreter, Search};
use super::kit::{self, PackageKit};
use super::manifest::{Manifest, System, Version};
use super::packages::{PackageSet, Shelf};
use crate::engine::{Language, PackageState};
use crate::error::{Error, StartError};

/// Hexadecimal digits of the hash in a directory's name.
const HASH_DIGITS: usize = 16;
/// How long support files that no server uses are kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long after its start a directory may be half-written; then its writer crashed.
const STAGING_KEPT: Duration = Duration::from_secs(3600);

/// The folder of all runtimes, without what only tests and people need.
#[derive(RustEmbed)]
#[folder = "../../runtimes"]
#[exclude = "*/cases/*"]
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
    _in_use: Arc<fs::File>,
    /// Its interpreter, or why there is none.
    pub(crate) interpreter: Result<Interpreter, String>,
    /// Its package sets, where it can have some.
    shelf: Option<Arc<Shelf>>,
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

    /// What is installed for it, and what could be.
    pub(crate) fn package_state(&self) -> Option<PackageState> {
        let shelf = self.shelf.as_ref()?;
        let kit = self.kit()?;
        let set = self.packages();
        let added = kit::added(&shelf.directory).unwrap_or_default();
        let current = match (&kit, &set) {
            (Ok(kit), Some(set)) => kit.key(&added) == set.marker.key,
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

    fn language(&self) -> Language {
        let found = self.interpreter.as_ref();
        Language {
            name: self.manifest.name.clone(),
            title: self.manifest.title.clone(),
            aliases: self.manifest.aliases.clone(),
            extensions: self.manifest.extensions.clone(),
            version: found.map_or_else(|_| String::new(), |found| found.version.clone()),
            available: found.is_ok(),
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
        search_path: &[PathBuf],
        shared: Option<&Path>,
    ) -> Result<Self, StartError> {
        let system = System::parse(&text("system.toml")?)
            .map_err(|problem| wrong("system.toml", problem))?;
        let private: Vec<PathBuf> = std::iter::once(data_dir.to_owned())
            .chain(std::env::home_dir())
            .collect();
        let search = Search {
            path: search_path,
            private: &private,
            in_place: shared.is_some(),
        };
        if shared.is_some() {
            open_the_way(data_dir);
        }
        let mut runtimes = Vec::new();
        for folder in folders() {
            runtimes.push(load(&folder, &system, data_dir, shared, search)?);
        }
        // All that this server uses is locked by now.
        sweep(&data_dir.join("runtimes"), SystemTime::now());
        runtimes.sort_by_key(|runtime| (!runtime.manifest.default, runtime.manifest.name.clone()));
        let registry = Self { runtimes };
        registry.check()?;
        Ok(registry)
    }

    /// Whether some language has a file of its own of that name.
    pub(crate) fn is_reserved(&self, name: &str) -> bool {
        let mut runtimes = self.runtimes.iter();
        runtimes.any(|runtime| runtime.manifest.reserved.iter().any(|own| own == name))
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

/// The names of the folders that hold a manifest.
fn folders() -> Vec<String> {
    Embedded::iter()
        .filter_map(|path| path.strip_suffix("/runtime.toml").map(str::to_owned))
        .collect()
}

/// Each language with the endings of its files, without the dot, as its folder
/// says: the same on every machine, whatever is installed there.
///
/// # Errors
/// When a manifest is wrong, which no build that passed its tests has.
pub fn endings() -> Result<Vec<(String, Vec<String>)>, StartError> {
    let system =
        System::parse(&text("system.toml")?).map_err(|problem| wrong("system.toml", problem))?;
    let ending = |folder: String| {
        let manifest = text(&format!("{folder}/runtime.toml"))?;
        let manifest = Manifest::parse(&folder, &manifest, &system)
            .map_err(|problem| wrong(&folder, problem))?;
        Ok((manifest.name, manifest.extensions))
    };
    folders().into_iter().map(ending).collect()
}

fn text(path: &str) -> Result<String, StartError> {
    let file = Embedded::get(path).ok_or_else(|| wrong(path, "is missing".to_owned()))?;
    String::from_utf8(file.data.into_owned()).map_err(|_| wrong(path, "is not UTF-8".to_owned()))
}

fn load(
    folder: &str,
    system: &System,
    data_dir: &Path,
    shared: Option<&Path>,
    search: Search<'_>,
) -> Result<Runtime, StartError> {
    let manifest = Manifest::parse(folder, &text(&format!("{folder}/runtime.toml"))?, system)
        .map_err(|problem| wrong(folder, problem))?;
    let program = text(&format!("{folder}/{}", manifest.detect.program))?;
    let mut files = Vec::new();
    for name in &manifest.support {
        files.push((name.as_str(), text(&format!("{folder}/{name}"))?));
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
    let root = shared.unwrap_or(data_dir);
    let prepared = materialise(&root.join("runtimes"), folder, &files)
        .and_then(|support| Ok((hold(&support, &files)?, support)));
    let (in_use, support) = prepared.map_err(|source| StartError::Io {
        step: format!(
            "write the support files of {folder} below {}",
            root.display()
        ),
        source,
    })?;
    let interpreter = detect::detect(&manifest, &program, search);
    if let Err(why) = &interpreter {
        tracing::warn!(language = folder, why, "not available");
    }
    let abi = interpreter.as_ref().map(|found| found.abi.clone());
    let shelf = Shelf::new(
        data_dir.join("packages").join(folder),
        abi.unwrap_or_default(),
    );
    Ok(Runtime {
        shelf: manifest.packages.is_some().then(|| Arc::new(shelf)),
        manifest,
        support,
        in_place: shared.is_some(),
        _in_use: Arc::new(in_use),
        interpreter,
    })
}

/// Marks a directory as used: by a lock while this server lives, by its time
/// for a while after.
fn hold(directory: &Path, files: &[(&str, String)]) -> io::Result<fs::File> {
    let held = fs::File::open(directory)?;
    // Both fail on some network file systems, where nothing is swept either.
    if let Err(error) = held.lock_shared() {
        tracing::debug!(%error, "support files are not locked");
    }
    held.set_modified(SystemTime::now()).ok();
    if holds(directory, files) {
        Ok(held)
    } else {
        Err(io::Error::other("they were removed at once; start again"))
    }
}

/// Removes support files of other versions, old and unused, and what crashed
/// servers left half-written. What cannot be removed is left for the next start.
fn sweep(root: &Path, now: SystemTime) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if let Err(error) = sweep_one(&path, now) {
            tracing::debug!(%error, path = %path.display(), "left as it is");
        }
    }
}

fn sweep_one(path: &Path, now: SystemTime) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kept = match name.rsplit_once('-') {
        Some((before, hash)) if !before.is_empty() && is_hash(hash) => KEPT,
        _ if name.starts_with('.') => STAGING_KEPT,
        // Not of our making.
        _ => return Ok(()),
    };
    let metadata = fs::symlink_metadata(path)?;
    // A time in the future is that of a clock put back: no reason to remove.
    let age = now.duration_since(metadata.modified()?).unwrap_or_default();
    if !metadata.is_dir() || age < kept {
        return Ok(());
    }
    // Held until the removal is done: nobody can begin to use it meanwhile.
    let unused = fs::File::open(path)?;
    unused.try_lock()?;
    fs::remove_dir_all(path)
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes files into `root/<name>-<hash of the files>` and returns that directory.
///
/// The directory appears whole, by a rename. One that is there already is used
/// if its content is right, and replaced if somebody changed it.
fn materialise(root: &Path, name: &str, files: &[(&str, String)]) -> io::Result<PathBuf> {
    let target = root.join(format!("{name}-{}", hash(files)));
    if holds(&target, files) {
        return Ok(target);
    }
    fs::create_dir_all(root)?;
    // A box's user must be able to look through: the data directory's own mode guards the rest.
    let staging = root.join(format!(".{name}-{}", uuid::Uuid::now_v7()));
    let written = write(&staging, files).and_then(|()| install(&staging, &target, files));
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    written.map(|()| target)
}

/// A hash of names and contents that is the same for every build of the server.
fn hash(files: &[(&str, String)]) -> String {
    let mut hasher = Sha256::new();
    for text in files.iter().flat_map(|(name, content)| [*name, content]) {
        // With its length, so that no two lists of files read the same.
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    let mut digits = String::new();
    for byte in hasher.finalize().iter().take(HASH_DIGITS / 2) {
        write!(digits, "{byte:02x}").expect("writing to a String cannot fail");
    }
    digits
}

/// Whether a directory holds exactly these files, readable by all.
fn holds(directory: &Path, files: &[(&str, String)]) -> bool {
    let mode = |path: &Path| {
        fs::symlink_metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777)
    };
    let count = fs::read_dir(directory).map_or(0, Iterator::count);
    mode(directory).is_ok_and(|mode| mode == 0o755)
        && count == files.len()
        && files.iter().all(|(name, content)| {
            let path = directory.join(name);
            let regular = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
            regular
                && mode(&path).is_ok_and(|mode| mode == 0o644)
                && fs::read(&path).is_ok_and(|found| found == content.as_bytes())
        })
}

fn write(directory: &Path, files: &[(&str, String)]) -> io::Result<()> {
    fs::create_dir(directory)?;
    for (name, content) in files {
        let mut file = fs::File::create_new(directory.join(name))?;
        file.write_all(content.as_bytes())?;
        // The umask has no say in what a box can read.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}

/// Renames `staging` to `target`, unless another server did so first.
fn install(staging: &Path, target: &Path, files: &[(&str, String)]) -> io::Result<()> {
    let renamed = fs::rename(staging, target);
    if renamed.is_ok() || holds(target, files) {
        return Ok(());
    }
    // Something else is in the way: a changed copy, or a file. Move it aside, then away.
    let aside = staging.with_extension("old");
    fs::rename(target, &aside)?;
    let installed = fs::rename(staging, target);
    if aside.is_dir() {
        fs::remove_dir_all(&aside)?;
    } else {
        fs::remove_file(&aside)?;
    }
    if installed.is_ok() || holds(target, files) {
        return Ok(());
    }
    installed
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::time::SystemTime;

    use super::{KEPT, Registry, STAGING_KEPT, hash, hold, holds, materialise, sweep};

    fn files() -> Vec<(&'static str, String)> {
        vec![("boot.x", "one".to_owned()), ("more.x", "two".to_owned())]
    }

    fn entries(root: &Path) -> usize {
        fs::read_dir(root).unwrap().count()
    }

    #[test]
    fn support_files_are_readable_by_all_and_named_by_content() {
        let root = tempfile::tempdir().unwrap();
        let first = materialise(root.path(), "x", &files()).unwrap();
        assert_eq!(fs::read_to_string(first.join("boot.x")).unwrap(), "one");
        assert_eq!(
            fs::metadata(&first).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(
            fs::metadata(first.join("boot.x"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o644
        );
        assert_eq!(materialise(root.path(), "x", &files()).unwrap(), first);
        let other = materialise(root.path(), "x", &[("boot.x", "changed".to_owned())]).unwrap();
        assert_ne!(other, first);
        assert_eq!(entries(root.path()), 2, "staging directories were left");
    }

    #[test]
    fn whatever_is_in_the_way_is_replaced() {
        let check = |spoil: &dyn Fn(&Path)| {
            let root = tempfile::tempdir().unwrap();
            let target = materialise(root.path(), "x", &files()).unwrap();
            spoil(&target);
            assert!(!holds(&target, &files()));
            assert_eq!(materialise(root.path(), "x", &files()).unwrap(), target);
            assert!(holds(&target, &files()));
            assert_eq!(entries(root.path()), 1, "something was left");
        };
        check(&|target| fs::write(target.join("boot.x"), "evil").unwrap());
        check(&|target| fs::remove_file(target.join("boot.x")).unwrap());
        check(&|target| fs::write(target.join("extra"), "").unwrap());
        check(&|target| fs::set_permissions(target, fs::Permissions::from_mode(0o700)).unwrap());
        check(&|target| {
            fs::remove_dir_all(target).unwrap();
            fs::write(target, "a file").unwrap();
        });
        check(&|target| {
            fs::remove_file(target.join("boot.x")).unwrap();
            symlink("/etc/passwd", target.join("boot.x")).unwrap();
        });
    }

    #[test]
    fn names_are_the_same_for_every_build() {
        assert_eq!(hash(&files()), "565cbe95babb040d");
        let moved = [("boot.xone", String::new()), ("more.x", "two".to_owned())];
        assert_ne!(hash(&moved), hash(&files()));
    }

    #[test]
    fn what_is_old_and_unused_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let held = materialise(root.path(), "x", &files()).unwrap();
        let lock = hold(&held, &files()).unwrap();
        let old = materialise(root.path(), "x", &[("a", "1".to_owned())]).unwrap();
        let names = [".x-crashed", "backup", ".x-crashed.old", "x-0123"];
        let [crashed, foreign, aside, short] = names.map(|name| root.path().join(name));
        for directory in [&crashed, &foreign, &aside, &short] {
            fs::create_dir(directory).unwrap();
        }
        let check = |now, left: &[&Path]| {
            sweep(root.path(), now);
            for path in [&held, &old, &crashed, &foreign, &aside, &short] {
                assert_eq!(path.exists(), left.contains(&path.as_path()), "{path:?}");
            }
        };
        let now = SystemTime::now();
        check(now, &[&held, &old, &crashed, &foreign, &aside, &short]);
        check(
            now - KEPT,
            &[&held, &old, &crashed, &foreign, &aside, &short],
        );
        check(
            now + STAGING_KEPT + STAGING_KEPT,
            &[&held, &old, &foreign, &short],
        );
        check(now + KEPT + KEPT, &[&held, &foreign, &short]);
        drop(lock);
        check(now + KEPT + KEPT, &[&foreign, &short]);
    }

    #[test]
    fn servers_that_start_at_once_agree() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| materialise(root.path(), "x", &files()).unwrap()))
                .collect();
            for worker in workers {
                assert!(holds(&worker.join().unwrap(), &files()));
            }
        });
        assert_eq!(entries(root.path()), 1);
    }

    #[test]
    fn the_embedded_runtimes_load_without_any_interpreter() {
        let data = tempfile::tempdir().unwrap();
        let registry = Registry::load(data.path(), &[], None).unwrap();
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
        assert!(registry.find("cobol").is_none());
        for (name, expected) in [("main.py", true), ("main.mjs", true), ("data.csv", false)] {
            assert_eq!(registry.is_reserved(name), expected, "{name}");
        }
    }

    #[test]
    fn no_two_languages_claim_one_ending() {
        let data = tempfile::tempdir().unwrap();
        let mut registry = Registry::load(data.path(), &[], None).unwrap();
        registry.check().unwrap();
        registry.runtimes[1].manifest.extensions.push("py".into());
        let error = registry.check().unwrap_err().to_string();
        assert!(error.contains(".py are already those of python"), "{error}");
    }

    #[test]
    fn the_interpreters_of_this_machine_are_found() {
        let data = tempfile::tempdir().unwrap();
        let path: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
        let registry = Registry::load(data.path(), &path, None).unwrap();
        for word in ["python", "javascript"] {
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
