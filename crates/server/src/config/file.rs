//! Which `codex.toml` is read, and reading it. The working directory never
//! decides: whoever wrote a directory must not choose what runs for those who
//! enter it, how strong its box is, or who is let in.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
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
    match read_plain(&path) {
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
    let Ok(directory) = home.metadata() else {
        return Ok(());
    };
    let refusal = match (Hold::of(&directory), path.metadata()) {
        // There is nothing to refuse, as far as can be seen.
        (_, Err(_)) => None,
        (Some(hold), Ok(_)) => Some((hold.problem(home), hold.cure(home))),
        (None, Ok(file)) => planted(path, &file, &directory),
    };
    let Some((problem, cure)) = refusal else {
        return Ok(());
    };
    let message = format!(
        "{} is not read: {problem}. {cure}; or name the file: --config {}",
        path.display(),
        path.display()
    );
    Err(ConfigError::one(None, message))
}

/// Returns why a file may be another user's work, with the cure. Writing a file
/// takes the right to enter its directory as well.
fn planted(path: &Path, file: &Metadata, directory: &Metadata) -> Option<(String, String)> {
    let entered = (directory.mode() & 0o011) << 1;
    let uid = rustix::process::geteuid().as_raw();
    let path = path.display();
    if file.uid() != 0 && file.uid() != uid {
        let problem = format!("it belongs to another user, uid {}", file.uid());
        return Some((problem, format!("chown {uid} {path}")));
    }
    let writable = file.mode() & 0o022 & entered != 0;
    writable.then(|| {
        let problem = "it can be written by other users".to_owned();
        (problem, format!("chmod go-w {path}"))
    })
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
/// other end.
fn read_plain(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
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
    fn a_file_that_others_may_have_written_is_not_read_unasked() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = rustix::process::geteuid().is_root();
        // Mode of the directory and the file, owner of both, words of a refusal.
        for (directory, file, dir_uid, uid, words) in [
            (0o700, 0o600, 0, 0, None),
            (0o755, 0o644, 0, 0, None),
            // Nobody else gets to it.
            (0o700, 0o666, 0, 0, None),
            (0o755, 0o664, 0, 0, Some("chmod go-w")),
            (0o711, 0o646, 0, 0, Some("can be written by other users")),
            (0o710, 0o606, 0, 0, None),
            (0o700, 0o600, 0, 65534, Some("another user, uid 65534")),
            (0o755, 0o644, 65534, 0, Some("chown 0")),
            (0o755, 0o644, 65534, 65534, Some("--config")),
            (0o777, 0o600, 0, 0, Some("can be written by other users")),
        ] {
            if (uid, dir_uid) != (0, 0) && !root {
                // Only root can give files away, and only root runs all of this.
                continue;
            }
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join(NAME);
            std::fs::write(&path, "port = 1").unwrap();
            for (path, mode, uid) in [
                (&path, file, uid),
                (&scratch.path().into(), directory, dir_uid),
            ] {
                let permissions = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(path, permissions).unwrap();
                if root {
                    std::os::unix::fs::chown(path, Some(uid), None).unwrap();
                }
            }
            let found = read(&Flags::default(), &Env::default(), scratch.path());
            match (found, words) {
                (Ok(Some(_)), None) => {}
                (Err(error), Some(words)) => {
                    let error = error.to_string();
                    assert!(error.contains(words), "{error} lacks {words}");
                }
                (found, words) => panic!("{directory:o} {file:o} {uid}: {found:?} {words:?}"),
            }
            // Who names it has looked at it.
            let mut flags = Flags::default();
            flags
                .0
                .insert("config", vec![path.to_str().unwrap().to_owned()]);
            assert!(read(&flags, &Env::default(), scratch.path()).is_ok());
        }
    }

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
