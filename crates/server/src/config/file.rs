//! Which `codex.toml` is read, and reading it. The working directory never
//! decides: whoever wrote a directory must not choose what runs for those who
//! enter it, how strong its box is, or who is let in.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use engine::data_dir::Hold;
use rustix::fs::{Mode, OFlags};

use super::resolve::{ConfigError, Flags, Source};
use crate::config::Env;

/// Name of the settings file in the data directory.
const NAME: &str = "codex.toml";
/// Largest settings file that is read, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// Reads the file that `--config` or `CODEX_CONFIG` names, else the data
/// directory's, and returns its path and text; `None` where there is none.
///
/// # Errors
/// When a named file is absent, or a file is not plain, too large or closed to us.
pub(super) fn read(
    flags: &Flags,
    env: &Env,
    home: &Path,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let flag = flags.0.get("config").and_then(|values| values.last());
    let (path, source) = match (flag, env.raw("CODEX_CONFIG")) {
        (Some(path), _) => (path.into(), Some(Source::Flag("--config".to_owned()))),
        (None, Some(path)) => (path.into(), Some(Source::Env("CODEX_CONFIG".to_owned()))),
        (None, None) => (home.join(NAME), None),
    };
    if source.is_none() {
        refuse_planted(home, &path)?;
    }
    match read_plain(&path, source.is_none()) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if source.is_none() && is_absent(&path, &error) => Ok(None),
        Err(error) => {
            let message = format!(
                "failed to read {}: {error}. Make it a plain file that this user may read",
                path.display()
            );
            Err(ConfigError::one(source, message))
        }
    }
}

/// Refuses the data directory's own file where others may have written it: it
/// can name the program that runs as an interpreter.
fn refuse_planted(home: &Path, path: &Path) -> Result<(), ConfigError> {
    let hold = home.metadata().ok().and_then(|found| Hold::of(&found));
    match hold {
        Some(hold) if path.symlink_metadata().is_ok() => {
            let (problem, cure) = (hold.problem(home), hold.cure(home));
            let message = format!(
                "{} is not read: {problem}. {cure}; or name the file: --config {}",
                path.display(),
                path.display()
            );
            Err(ConfigError::one(None, message))
        }
        _ => Ok(()),
    }
}

/// Says that a `codex.toml` lies in the working directory and is not `taken`,
/// with the cure; `None` where there is none, or it is the one that was taken.
#[must_use]
pub fn passed_over(taken: Option<&Path>) -> Option<String> {
    let here = Path::new(NAME);
    here.symlink_metadata().ok()?;
    let real = |path: &Path| path.canonicalize().ok();
    if taken.is_some_and(|taken| real(taken) == real(here)) {
        return None;
    }
    Some(format!(
        "./{NAME} is not read: the working directory decides nothing. To take it: --config ./{NAME}"
    ))
}

/// Whether there is no file, as far as can be seen; a home that is no
/// directory or is closed to us is told by whoever needs it.
fn is_absent(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => true,
        ErrorKind::PermissionDenied => path.symlink_metadata().is_err(),
        _ => false,
    }
}

/// Reads a plain file of at most `LIMIT` bytes, and never waits for a pipe's
/// other end. One that nobody named must be this user's or root's alone.
fn read_plain(path: &Path, unnamed: bool) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if unnamed && let Some(hold) = Hold::of(&found) {
        let (problem, cure) = (hold.problem(path), hold.cure(path));
        return Err(io::Error::other(format!("{problem} ({cure})")));
    }
    let mut text = String::new();
    let read = file.take(LIMIT + 1).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > LIMIT {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_and_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::write(at("codex.toml"), "port = 1").unwrap();
        std::fs::write(at("other.toml"), "port = 2").unwrap();
        std::fs::write(at("large.toml"), "#".repeat(2 << 20)).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe.toml"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        // Words of a refusal, or the text.
        let check = |named: &str, expected: Result<&str, &str>| {
            let mut flags = Flags::default();
            if !named.is_empty() {
                let path = at(named).to_str().unwrap().to_owned();
                flags.0.insert("config", vec![path]);
            }
            let found = read(&flags, &Env::default(), scratch.path());
            match (found, expected) {
                (Ok(Some((_, text))), Ok(expected)) => assert_eq!(text, expected, "{named}"),
                (Err(error), Err(words)) => {
                    let error = error.to_string();
                    assert!(error.starts_with("--config: failed to read "), "{error}");
                    assert!(error.contains(words), "{error} lacks {words}");
                }
                (found, _) => panic!("{named}: {found:?}"),
            }
        };
        check("", Ok("port = 1"));
        check("other.toml", Ok("port = 2"));
        check("none.toml", Err("No such file"));
        check("large.toml", Err("larger than 1 MiB"));
        check("pipe.toml", Err("not a plain file"));
        check(".", Err("not a plain file"));
        check("../../dev/null", Err("not a plain file"));
    }
}
