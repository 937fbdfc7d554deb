//! Where the data directory is. Makes nothing, and takes nothing that looks
//! like another program's.

use std::path::{Path, PathBuf};

use super::resolve::{ConfigError, Flags, Source};
use crate::config::Env;

/// The data directory as an absolute path, unless it is another program's.
///
/// # Errors
/// When none can be told, or the one that `CODEX_HOME` names is not ours.
pub fn home_directory(flags: &Flags, env: &Env) -> Result<PathBuf, ConfigError> {
    let home = directory(flags, env)?;
    let home = std::path::absolute(&home).unwrap_or(home);
    refuse_foreign(flags, env, &home)?;
    Ok(home)
}

/// The data directory: `--home`, `CODEX_HOME`, else under XDG's.
fn directory(flags: &Flags, env: &Env) -> Result<PathBuf, ConfigError> {
    if let Some(path) = flags.0.get("home").and_then(|values| values.last()) {
        if path.is_empty() {
            let source = Source::Flag("--home".to_owned());
            return Err(ConfigError::one(
                Some(source),
                "is empty: give a directory".to_owned(),
            ));
        }
        return Ok(PathBuf::from(path));
    }
    if let Some(path) = env.raw("CODEX_HOME") {
        return Ok(PathBuf::from(path));
    }
    // XDG: relative paths are invalid and ignored.
    let data = env
        .raw("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(Path::new(env.raw("HOME")?).join(".local/share")));
    data.map(|data| data.join("codex-server")).ok_or_else(|| {
        let message = "no place to keep data: neither CODEX_HOME nor HOME is set. Name a directory of the server's own with --home DIR, such as --home /var/lib/codex-server";
        ConfigError::one(None, message.to_owned())
    })
}

/// Refuses a data directory that `CODEX_HOME` names and another program fills:
/// OpenAI's Codex CLI keeps its own state in a directory of that variable. A
/// directory named by flag was meant.
fn refuse_foreign(flags: &Flags, env: &Env, home: &Path) -> Result<(), ConfigError> {
    const THEIRS: [&str; 2] = ["auth.json", "config.toml"];
    const OURS: [&str; 3] = ["state.db", "server.lock", "codex.toml"];
    let holds = |name: &&&str| home.join(name).exists();
    if flags.0.contains_key("home") || OURS.iter().any(|name| holds(&name)) {
        return Ok(());
    }
    let Some(found) = THEIRS.iter().find(holds) else {
        return Ok(());
    };
    let Some(named) = env.raw("CODEX_HOME") else {
        return Ok(());
    };
    let message = format!(
        "{} holds {found} and no state.db: it looks like the home of OpenAI's Codex CLI, which uses this variable too. Name a directory of the server's own with --home DIR, or unset CODEX_HOME to use the default one",
        Path::new(named).display()
    );
    Err(ConfigError::one(
        Some(Source::Env("CODEX_HOME".to_owned())),
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&'static str, &str)]) -> Flags {
        let given = |(name, value): &(&'static str, &str)| (*name, vec![(*value).to_owned()]);
        Flags(pairs.iter().map(given).collect())
    }

    #[test]
    fn data_directory() {
        let check =
            |given: &[(&'static str, &str)], env: &[(&str, &str)], expected: Option<&str>| {
                let found = directory(&flags(given), &env.iter().copied().collect());
                assert_eq!(found.ok(), expected.map(PathBuf::from), "{given:?} {env:?}");
            };
        check(&[], &[], None);
        check(&[], &[("HOME", "")], None);
        check(&[], &[("HOME", "/h")], Some("/h/.local/share/codex-server"));
        check(
            &[],
            &[("HOME", "/h"), ("XDG_DATA_HOME", "/x")],
            Some("/x/codex-server"),
        );
        check(
            &[],
            &[("HOME", "/h"), ("XDG_DATA_HOME", "x")],
            Some("/h/.local/share/codex-server"),
        );
        check(&[], &[("CODEX_HOME", "/c"), ("HOME", "/h")], Some("/c"));
        check(&[("home", "/f")], &[("CODEX_HOME", "/c")], Some("/f"));
        check(&[("home", "")], &[("CODEX_HOME", "/c")], None);
    }

    #[test]
    fn another_program_s_home_is_refused() {
        let check = |files: &[&str], by_flag: bool, refused: bool| {
            let home = tempfile::tempdir().unwrap();
            for file in files {
                std::fs::write(home.path().join(file), "").unwrap();
            }
            let env: Env = [("CODEX_HOME", home.path())].into_iter().collect();
            let flags = match home.path().to_str().filter(|_| by_flag) {
                Some(path) => flags(&[("home", path)]),
                None => Flags::default(),
            };
            let found = refuse_foreign(&flags, &env, home.path());
            assert_eq!(found.is_err(), refused, "{files:?}: {found:?}");
            if let Err(error) = found {
                let told = error.to_string();
                assert!(
                    told.starts_with("CODEX_HOME: ") && told.contains("--home"),
                    "{told}"
                );
            }
        };
        check(&[], false, false);
        check(&["config.toml"], false, true);
        check(&["auth.json", "history.jsonl"], false, true);
        check(&["auth.json"], true, false);
        check(&["auth.json", "state.db"], false, false);
        check(&["config.toml", "codex.toml"], false, false);
        check(&["notes.txt"], false, false);
    }
}
