//! Writes the two OpenAPI documents anew, from the code.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build;
use crate::process;

/// The address in the committed documents: of no server in particular.
const PUBLIC_URL: [&str; 2] = ["--public-url", "https://codex.example.com"];

/// Each document with the arguments that print it.
const DOCUMENTS: [(&str, &[&str]); 2] = [
    ("openapi.json", &["openapi"]),
    ("openapi-actions.json", &["openapi", "--actions"]),
];

/// Writes both documents into the repository's root.
///
/// # Errors
/// When the server can't be built or a document can't be printed or written.
pub fn regenerate() -> Result<()> {
    let binary = build::debug()?;
    for (name, text) in print(&binary)? {
        let path = process::root().join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {name}"))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// Prints both documents and returns the name and text of each.
///
/// # Errors
/// When the binary can't print one, or prints something else.
pub fn print(binary: &Path) -> Result<Vec<(&'static str, String)>> {
    let home = tempfile::tempdir().context("failed to make a data directory")?;
    let mut documents = Vec::new();
    for (name, arguments) in DOCUMENTS {
        let mut command = process::command(binary);
        command
            .env_clear()
            .env("CODEX_HOME", home.path())
            .args(arguments)
            .args(PUBLIC_URL)
            .stdin(Stdio::null());
        let text = process::capture("print an OpenAPI document", &mut command)?;
        check(name, &text)?;
        documents.push((name, text));
    }
    Ok(documents)
}

/// Guards against writing an error message over a document.
fn check(name: &str, text: &str) -> Result<()> {
    let document: Value =
        serde_json::from_str(text).with_context(|| format!("the printed {name} is not JSON"))?;
    ensure!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1")),
        "the printed {name} is no OpenAPI 3.1 document"
    );
    ensure!(
        document["paths"]
            .as_object()
            .is_some_and(|paths| !paths.is_empty()),
        "the printed {name} has no paths"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_are_written() {
        let sound = |text: &str| check("openapi.json", text).is_ok();
        assert!(sound(r#"{"openapi":"3.1.0","paths":{"/health":{}}}"#));
        assert!(!sound(r#"{"openapi":"3.0.3","paths":{"/health":{}}}"#));
        assert!(!sound(r#"{"openapi":"3.1.0","paths":{}}"#));
        assert!(!sound("error: no such command"));
    }
}
