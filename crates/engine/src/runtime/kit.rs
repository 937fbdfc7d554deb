//! What it takes to build a package set: the files of the language's folder,
//! a place aside, the check, and the switch at the end.
//!
//! Starts no process itself; whoever does, runs [`Stage::argv`]. Nothing that
//! is being built is ever seen by a run, except by the check.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::manifest;
use super::packages::{CURRENT, MARKER, Marker, Package, SET, STAGING, Shelf, TREE, sweep};
use crate::data_dir;
use crate::quote::quote;

/// What the operator added, a specifier a line.
const ADDED: &str = "added.txt";
/// Locked while somebody installs.
const LOCK: &str = "install.lock";
/// What the language's own tool keeps of what it fetched.
const CACHE: &str = "cache";
/// Where the installer works, beside the tree.
const WORK: &str = "work";
/// Longest file of the operator's that is read, in bytes: what was added, or a
/// lock of his own.
const FILE_MAX: u64 = 4 << 20;
/// Hexadecimal digits of a key.
const KEY_DIGITS: usize = 16;

/// How to build package sets of one language for the interpreter found here.
#[derive(Debug, Clone)]
pub struct PackageKit {
    /// Canonical name of the language.
    pub language: String,
    /// Human name of the language.
    pub title: String,
    /// `packages/<language>` of the data directory.
    pub directory: PathBuf,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) recipe: manifest::Packages,
    /// The installer and the files it needs: name and text.
    pub(crate) files: Vec<(String, String)>,
    /// The program that is run in a box before a set is used.
    pub(crate) check: String,
    pub(crate) interpreter: PathBuf,
    pub(crate) abi: String,
}

/// The right to build sets of a language, until it is dropped.
#[derive(Debug)]
pub struct InstallLock {
    _file: fs::File,
}

impl PackageKit {
    /// The packages that people name, most wanted first.
    #[must_use]
    pub fn main(&self) -> &[String] {
        &self.recipe.main
    }

    /// Free disk space that building a set takes, in MiB.
    #[must_use]
    pub fn disk_mib(&self) -> u64 {
        self.recipe.disk_mib
    }

    /// Where what was fetched is kept for the next time.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.directory.join(CACHE)
    }

    /// Takes the lock, waiting while somebody else has it when `wait` says so.
    ///
    /// # Errors
    /// When the directory cannot be made or locked; `WouldBlock` when somebody has it.
    pub fn lock(&self, wait: bool) -> io::Result<InstallLock> {
        let shelves = self.directory.parent().unwrap_or(&self.directory);
        fs::create_dir_all(shelves.parent().unwrap_or(shelves))?;
        for folder in [shelves, &self.directory] {
            data_dir::make_folder(folder, 0o755)?;
        }
        let file = open_lock(&self.directory)?;
        if wait {
            file.lock()?;
        } else {
            file.try_lock()?;
        }
        Ok(InstallLock { _file: file })
    }

    /// What the operator added, a specifier each.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn added(&self) -> io::Result<Vec<String>> {
        added(&self.directory)
    }

    /// The hash of all that a set with these additions is made from.
    #[must_use]
    pub fn key(&self, added: &[String]) -> String {
        let mut hasher = Sha256::new();
        let mut sorted = added.to_vec();
        sorted.sort();
        // The installer may be mended without a set being another.
        let files = self
            .files
            .iter()
            .filter(|(name, _)| *name != self.recipe.program);
        let texts = files.flat_map(|(name, text)| [name, text]).chain(&sorted);
        for text in texts.chain([&self.abi, &self.recipe.at, &self.check]) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        let mut digits = String::new();
        for byte in hasher.finalize().iter().take(KEY_DIGITS / 2) {
            write!(digits, "{byte:02x}").expect("writing to a String cannot fail");
        }
        digits
    }

    /// Lets go of the set that was seen last, which else is kept for the next look.
    pub fn release(&self) {
        self.shelf.release();
    }

    /// Removes what earlier builds left, and old sets that nobody uses.
    pub fn sweep(&self, _held: &InstallLock) {
        self.release();
        sweep(&self.directory);
    }

    /// Prepares a build with these additions.
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn stage(&self, _held: &InstallLock, added: &[String]) -> io::Result<Stage> {
        let mut stage = Stage {
            directory: self
                .directory
                .join(format!("{STAGING}{}", uuid::Uuid::now_v7())),
            shelf: self.directory.clone(),
            added: added.to_vec(),
            marker: Marker {
                key: self.key(added),
                abi: self.abi.clone(),
                packages: Vec::new(),
            },
            argv: Vec::new(),
        };
        fs::create_dir(&stage.directory)?;
        for directory in [stage.work(), stage.temporary(), self.cache()] {
            fs::create_dir_all(directory)?;
        }
        for (name, text) in &self.files {
            fs::write(stage.work().join(name), text)?;
        }
        fs::write(stage.work().join(ADDED), lines(added))?;
        let words = self.recipe.argv.iter();
        stage.argv = words.map(|word| self.fill(word, &stage)).collect();
        Ok(stage)
    }

    /// The installer's words; a path that is no text would not survive any of them.
    fn fill(&self, word: &str, stage: &Stage) -> String {
        let program = stage.work().join(&self.recipe.program);
        match word {
            "{interpreter}" => self.interpreter.to_string_lossy().into_owned(),
            "{program}" => program.to_string_lossy().into_owned(),
            "{tree}" => stage.tree().to_string_lossy().into_owned(),
            "{cache}" => self.cache().to_string_lossy().into_owned(),
            "{at}" => self.recipe.at.clone(),
            word => word.to_owned(),
        }
    }
}

/// Whether somebody installs packages of a language right now.
pub(crate) fn is_locked(directory: &Path) -> bool {
    let probe = fs::File::open(directory.join(LOCK));
    probe.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

fn open_lock(directory: &Path) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.create(true).truncate(false).write(true);
    data_dir::open(&directory.join(LOCK), &mut options)
}

/// A file that the operator put beside the sets.
pub(crate) fn own_file(directory: &Path, name: &str) -> Option<String> {
    read(&directory.join(name)).ok()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(FILE_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// What the operator added to a language.
pub(crate) fn added(directory: &Path) -> io::Result<Vec<String>> {
    let text = match read(&directory.join(ADDED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let lines = text.lines().map(str::trim);
    let meant = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(meant.map(str::to_owned).collect())
}

fn lines(words: &[String]) -> String {
    words
        .iter()
        .fold(String::new(), |text, word| text + word + "\n")
}

/// A set while it is built. Dropping it removes all of it.
#[derive(Debug)]
pub struct Stage {
    pub(crate) directory: PathBuf,
    shelf: PathBuf,
    added: Vec<String>,
    marker: Marker,
    /// The command that fills [`Stage::tree`], to be run in [`Stage::work`].
    pub argv: Vec<String>,
}

impl Stage {
    /// Where the installer runs; what it leaves here is not a part of the set.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.directory.join(WORK)
    }

    /// For the installer's temporary files, on the same file system.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.work().join("tmp")
    }

    /// What the installer makes.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.directory.join(TREE)
    }

    /// Adds a file that the check left. Its path comes from a box.
    ///
    /// # Errors
    /// When the path is not a plain one, or the file cannot be written.
    pub fn keep(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let relative = Path::new(path);
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(io::Error::other(format!(
                "the check left an odd path: \"{}\"",
                quote(path)
            )));
        }
        let path = self.tree().join(relative);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder)?;
        // Never through a link of the set's own, nor over one of its files.
        if !fs::canonicalize(folder)?.starts_with(fs::canonicalize(self.tree())?) {
            return Err(io::Error::other(format!(
                "the check left an odd path: \"{}\"",
                quote(&relative.to_string_lossy())
            )));
        }
        for folder in relative.ancestors().skip(1) {
            fs::set_permissions(self.tree().join(folder), fs::Permissions::from_mode(0o755))?;
        }
        let mut file = fs::File::create_new(path)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))
    }

    /// Makes this the set that programs see.
    ///
    /// # Errors
    /// When the data directory cannot be written; the old set stays then.
    pub fn finish(mut self, mut packages: Vec<Package>) -> io::Result<()> {
        packages.sort();
        self.marker.packages = packages;
        fs::remove_dir_all(self.work())?;
        for directory in [&self.directory, &self.tree()] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        }
        let marker = toml::to_string(&self.marker).map_err(io::Error::other)?;
        let held = fs::File::open(&self.directory)?;
        // The marker must never outlive a power cut that the files did not.
        rustix::fs::syncfs(&held)?;
        fs::File::create_new(self.directory.join(MARKER)).and_then(|mut file| {
            file.write_all(marker.as_bytes())?;
            file.sync_all()
        })?;
        let name = format!("{SET}{}-{}", self.marker.key, uuid::Uuid::now_v7().simple());
        fs::rename(&self.directory, self.shelf.join(&name))?;
        // From here on it is no staging directory to be removed when dropped.
        self.directory.clear();
        replace(&self.shelf.join(ADDED), |path| {
            fs::write(path, lines(&self.added))
        })?;
        replace(&self.shelf.join(CURRENT), |path| {
            std::os::unix::fs::symlink(&name, path)
        })?;
        fs::File::open(&self.shelf)?.sync_all()
    }
}

/// Puts something in the place of `path` at once.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => make(&aside)?,
    }
    fs::rename(&aside, path)
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.directory.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, "a half-built package set is left for the next sweep");
        }
    }
}

#[cfg(test)]
mod tests;
