//! The same program in the interpreter alone, outside of any box: what this server
//! adds to a language must not change what the language says of a program.
//!
//! Compared are standard output, the exit code and the report of an error, in which
//! paths and frames differ by nature.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use engine::{Draft, Outcome};
use regex::Regex;

/// A report of an error from the place in the program to the first frame.
static REPORT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?s)main\.js:\d+\n[^\n]*\n.*?Error: .*?(?:\n    at |\z)").expect("a pattern")
});

/// Runs the draft's program under a file name by the interpreter alone, and returns
/// in what it differs from the outcome, a line each.
pub(crate) fn differences(
    interpreter: &Path,
    name: &str,
    draft: &Draft,
    outcome: &Outcome,
) -> Vec<String> {
    let run = outcome.last();
    let inside = [
        as_anywhere(&run.stdout.bytes, "/workspace"),
        report(&as_anywhere(&run.stderr.bytes, "/workspace")),
        run.exit_code.to_string(),
    ];
    match outside(interpreter, name, draft) {
        Ok(outside) => std::iter::zip(["stdout", "report", "exit code"], inside)
            .zip(outside)
            .filter(|((_, inside), outside)| inside != outside)
            .map(|((what, inside), outside)| {
                format!("{what} is {inside:?}, and {outside:?} without a box")
            })
            .collect(),
        Err(error) => vec![format!("{} {name}: {error}", interpreter.display())],
    }
}

/// Standard output, the report and the exit code.
#[expect(clippy::disallowed_methods, reason = "tests start processes")]
fn outside(interpreter: &Path, name: &str, draft: &Draft) -> std::io::Result<[String; 3]> {
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().join("workspace");
    fs::create_dir(&directory)?;
    fs::write(directory.join(name), &draft.code)?;
    for file in &draft.files {
        let path = directory.join(&file.path);
        fs::create_dir_all(path.parent().expect("it is in the directory"))?;
        fs::write(path, &file.content)?;
    }
    let stdin = scratch.path().join("stdin");
    fs::write(&stdin, &draft.stdin)?;
    let output = Command::new(interpreter)
        .arg(name)
        .args(&draft.args)
        .current_dir(&directory)
        .env_clear()
        .envs(draft.env.iter().cloned())
        .stdin(File::open(stdin)?)
        .output()?;
    let directory = directory.to_string_lossy();
    Ok([
        as_anywhere(&output.stdout, &directory),
        report(&as_anywhere(&output.stderr, &directory)),
        output.status.code().unwrap_or(-1).to_string(),
    ])
}

/// Text without the directory that it was printed in, and with one name of the file.
fn as_anywhere(text: &[u8], directory: &str) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.replace(&format!("file://{directory}/"), "");
    text.replace(&format!("{directory}/"), "")
        .replace("main.mjs", "main.js")
}

fn report(text: &str) -> String {
    let found = REPORT.find(text);
    found.map_or("", |found| found.as_str()).to_owned()
}
