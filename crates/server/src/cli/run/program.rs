//! What to run, out of the command line: the program, its input and its files.
//! Pure but for reading them; whether a sandbox takes it is said elsewhere.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use engine::{Bounds, Draft, DraftFile};

use super::{RunArgs, stdin};
use crate::cli::Failure;
use crate::config::Env;
use crate::exit_code::Exit;

/// Largest of each that is read for a server, whose own limits we do not know.
pub(in crate::cli) const FAR_LIMIT: usize = 256 * 1024 * 1024;

/// How much is read of each; one byte more, so that who runs it can say it is
/// too much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    code: usize,
    stdin: usize,
    files: usize,
}

impl Limits {
    /// For a run on this machine.
    pub(super) fn near(bounds: &Bounds) -> Self {
        Self {
            code: bounds.code,
            stdin: bounds.stdin,
            files: usize::try_from(bounds.files_in_bytes).unwrap_or(usize::MAX),
        }
    }

    /// For a run on a server.
    pub(super) fn far() -> Self {
        Self {
            code: FAR_LIMIT,
            stdin: FAR_LIMIT,
            files: FAR_LIMIT,
        }
    }
}

pub(super) fn draft(args: &RunArgs, env: &Env, limits: Limits) -> Result<Draft, Failure> {
    let code_from_stdin = args.file.as_deref().is_some_and(is_dash);
    if code_from_stdin && args.stdin.as_deref().is_some_and(is_dash) {
        return Err(usage(
            "standard input cannot be both the program and its input; give the program as a file",
        ));
    }
    let code = match (&args.code, &args.file) {
        (Some(code), _) => code.clone().into_bytes(),
        (None, Some(file)) => read(file, limits.code)?,
        (None, None) => return Err(usage("give a file, - or -c CODE")),
    };
    let code = String::from_utf8(code)
        .map_err(|_| usage("the program is not UTF-8 text; save it as UTF-8"))?;
    let stdin = match &args.stdin {
        Some(file) => read(file, limits.stdin)?,
        None if code_from_stdin || args.files.iter().any(|file| is_dash(&source(file).1)) => {
            Vec::new()
        }
        None => stdin::piped(with_one_more(limits.stdin))
            .map_err(|error| usage(format!("failed to read standard input: {error}")))?,
    };
    Ok(Draft {
        code,
        language: language(args)?,
        stdin,
        args: args.args.clone(),
        env: variables(&args.env, env)?,
        files: files(&args.files, limits.files)?,
        wall_time: args.timeout,
        memory: args.memory,
        explain: args.explain,
        ..Draft::default()
    })
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::text(Exit::Usage, message)
}

pub(in crate::cli) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns the bytes to read so that a breach of `limit` shows.
fn with_one_more(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)
}

pub(in crate::cli) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let limit = with_one_more(limit);
    let mut content = Vec::new();
    let read = if is_dash(path) {
        io::stdin().lock().take(limit).read_to_end(&mut content)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut content))
    };
    match read {
        Ok(_) => Ok(content),
        Err(error) => Err(usage(format!("failed to read {}: {error}", path.display()))),
    }
}

fn language(args: &RunArgs) -> Result<Option<String>, Failure> {
    match (&args.language, &args.file) {
        (Some(language), _) => Ok(Some(language.clone())),
        (None, Some(file)) if !is_dash(file) => {
            let endings = engine::endings().map_err(|error| Failure::new(Exit::Failed, error))?;
            language_of(file, &endings).map(Some)
        }
        _ => Ok(None),
    }
}

/// The language that a file's ending names.
pub(in crate::cli) fn language_of(
    file: &Path,
    endings: &[(String, Vec<String>)],
) -> Result<String, Failure> {
    let ending = file.extension().and_then(|ending| ending.to_str());
    let ending = ending.map(str::to_ascii_lowercase);
    let named = |(_, endings): &&(String, Vec<String>)| {
        ending
            .as_ref()
            .is_some_and(|ending| endings.contains(ending))
    };
    let found = endings.iter().find(named).map(|(name, _)| name.clone());
    found.ok_or_else(|| {
        let names: Vec<&str> = endings.iter().map(|(name, _)| name.as_str()).collect();
        usage(format!(
            "the ending of {} names no language; give --language: {}",
            file.display(),
            names.join(", ")
        ))
    })
}

/// `NAME=VALUE`, or `NAME` alone for the value that we were started with.
pub(in crate::cli) fn variables(
    given: &[String],
    env: &Env,
) -> Result<Vec<(String, String)>, Failure> {
    let variable = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => match env.raw(text).map(|value| value.to_str()) {
            Some(Some(value)) => Ok((text.clone(), value.to_owned())),
            Some(None) => Err(usage(format!("--env {text}: its value is not UTF-8"))),
            None => Err(usage(format!(
                "--env {text}: no such variable is set here; give {text}=VALUE"
            ))),
        },
    };
    given.iter().map(variable).collect()
}

/// `PATH`, or `NAME=PATH` where the program shall find it under another name.
fn files(given: &[String], limit: usize) -> Result<Vec<DraftFile>, Failure> {
    let mut room = limit;
    let mut files = Vec::new();
    for text in given {
        let (name, path) = source(text);
        let name = name.map_or_else(|| base_name(text), |name| Ok(name.to_owned()))?;
        let content = read(&path, room)?;
        room = room.saturating_sub(content.len());
        files.push(DraftFile {
            path: name,
            content,
        });
    }
    Ok(files)
}

/// The name that a file is given, if it is, and where it is read.
fn source(text: &str) -> (Option<&str>, PathBuf) {
    match text.split_once('=') {
        // A file may have the sign in its own name.
        Some((name, path)) if !Path::new(text).exists() => (Some(name), path.into()),
        _ => (None, text.into()),
    }
}

fn base_name(path: &str) -> Result<String, Failure> {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        usage(format!(
            "--file {path}: it has no name; give NAME=PATH, or a file"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_languages() {
        let endings = engine::endings().unwrap();
        let check = |file: &str, expected: Option<&str>| {
            let found = language_of(Path::new(file), &endings).ok();
            assert_eq!(found.as_deref(), expected, "{file}");
        };
        check("a.py", Some("python"));
        check("/x/a.b.PY", Some("python"));
        check("a.mjs", Some("javascript"));
        check("a.sh", Some("bash"));
        check("a", None);
        check("a.txt", None);
        check("a.node", None);
        check("a.python", None);
        check(".py", None);
    }

    #[test]
    fn variables_are_given_or_passed_on() {
        let env: Env = [("HERE", "1")].into_iter().collect();
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = variables(&[text.to_owned()], &env).ok();
            let expected = expected.map(|(name, value)| vec![(name.to_owned(), value.to_owned())]);
            assert_eq!(found, expected, "{text}");
        };
        check("A=b=c", Some(("A", "b=c")));
        check("A=", Some(("A", "")));
        check("HERE", Some(("HERE", "1")));
        check("THERE", None);
    }

    #[test]
    fn files_keep_their_name_or_get_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("a=b.csv"), "1").unwrap();
        std::fs::write(path("c.csv"), "2").unwrap();
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = files(&[text.to_owned()], 100).ok();
            let expected = expected.map(|(path, content)| {
                vec![DraftFile {
                    path: path.to_owned(),
                    content: content.as_bytes().to_vec(),
                }]
            });
            assert_eq!(found, expected, "{text}");
        };
        check(&path("a=b.csv"), Some(("a=b.csv", "1")));
        check(&path("c.csv"), Some(("c.csv", "2")));
        check(
            &format!("in/d.csv={}", path("c.csv")),
            Some(("in/d.csv", "2")),
        );
        check(&path("none.csv"), None);
        check(&format!("x={}", path("none.csv")), None);
        check("..", None);
    }
}
