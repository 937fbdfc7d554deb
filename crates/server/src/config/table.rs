//! The settings table of `docs/configuration.md`, out of the list of
//! settings; a test keeps the page in step.

use std::fmt::Write as _;

use engine::Bounds;

use crate::config::keys::{GROUPS, Key, Kind, Reach};
use crate::file_url::AT_ONCE;

/// The settings as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::new();
    for (title, keys) in GROUPS {
        page.push_str(&format!("\n### {title}\n\n"));
        page.push_str("| in the file | flag | variable | default | range | what it does |\n");
        page.push_str("|---|---|---|---|---|---|\n");
        for key in *keys {
            let line = row(key);
            writeln!(page, "{line}").expect("writing to a String cannot fail");
        }
    }
    page.push_str("\n### Fixed bounds\n\n| bound | value |\n|---|---|\n");
    for (what, value) in fixed() {
        writeln!(page, "| {what} | {value} |").expect("writing to a String cannot fail");
    }
    page
}

/// What no setting moves.
fn fixed() -> [(&'static str, u64); 7] {
    let wide = |value: usize| value as u64;
    [
        ("open files of one process", Bounds::OPEN_FILES),
        (
            "folders below each other, of files sent and given back",
            wide(Bounds::PATH_DEPTH),
        ),
        (
            "bytes of the name of a file or folder",
            wide(Bounds::NAME_BYTES),
        ),
        ("bytes of the path of a file sent", wide(Bounds::PATH_BYTES)),
        (
            "bytes of one argument, or of one variable with its name and `=` (the kernel's bound)",
            wide(Bounds::ARG_BYTES),
        ),
        (
            "requests at once that hold files fetched by URL",
            wide(AT_ONCE),
        ),
        (
            "names in the workspace looked at for files to give back",
            wide(Bounds::COLLECT_ENTRIES),
        ),
    ]
}

fn row(key: &Key) -> String {
    let file = if key.in_file {
        format!("`{}`", key.name)
    } else {
        "–".to_owned()
    };
    let flag = match key.reach {
        Reach::NoFlag => "–".to_owned(),
        _ => format!("`--{}`", key.flag()),
    };
    let several = if matches!(key.kind, Kind::List(..)) {
        "; several are allowed"
    } else {
        ""
    };
    format!(
        "| {file} | {flag} | `{}` | {} | {}{several} | {} |",
        key.env(),
        key.default,
        key.range(),
        key.about
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_in_step() {
        const BEGIN: &str = "<!-- settings: generated, do not edit -->\n";
        const END: &str = "<!-- end of settings -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (found, after) = rest.split_once(END).unwrap();
        let wanted = format!("{}\n", markdown());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
            return;
        }
        assert!(
            found == wanted,
            "docs/configuration.md is out of step; run: UPDATE_DOCS=1 cargo test -p codex-server --lib table"
        );
    }
}
