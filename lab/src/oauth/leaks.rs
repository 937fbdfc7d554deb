//! Searches what servers left for the secrets that were handed out. Never prints
//! one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::serving::Place;

/// Fewer secrets than this mean that the play noted none.
const LEAST: usize = 20;

/// Searches every file of the data directories, and the logs, for secrets that a
/// file lists. Returns where one is, or nothing.
///
/// # Errors
/// When something cannot be read, or the list is too short to mean anything.
pub(super) fn search(list: &Path, places: &[Place]) -> Result<String> {
    let text = fs::read_to_string(list).context("failed to read the secrets")?;
    let mut secrets: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    secrets.sort_unstable();
    secrets.dedup();
    ensure!(
        secrets.len() >= LEAST,
        "only {} secrets were handed out",
        secrets.len()
    );
    let mut found = Vec::new();
    for place in places {
        let mut files = vec![place.log.clone()];
        below(&place.data, &mut files)?;
        for file in files {
            let bytes =
                fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
            let count = secrets.iter().filter(|one| holds(&bytes, one)).count();
            if count > 0 {
                found.push(format!("{count} in {}", file.display()));
            }
        }
    }
    println!("{} secrets were looked for", secrets.len());
    Ok(found.join(", "))
}

/// Adds the regular files below a directory.
fn below(directory: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    let failed = || format!("failed to list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let kind = entry.file_type().with_context(failed)?;
        if kind.is_dir() {
            below(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Says whether a text is somewhere in bytes.
fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_within_bytes() {
        let check = |bytes: &[u8], expected| assert_eq!(holds(bytes, "codex_x"), expected);
        check(b"\0\xffcodex_x\0", true);
        check(b"codex_", false);
        check(b"", false);
    }
}
