//! Who may know whom: server → engine → sandbox, and of the sandbox the
//! server knows two functions.

use super::rust;
use super::{File, Finding};

/// Names that the sources of a crate may not speak of, and what of them they may.
struct Edge {
    /// Sources below this folder.
    from: &'static str,
    /// The crate or module path.
    to: &'static str,
    /// The only items of it that may be used.
    except: &'static [&'static str],
}

const CRATES: [Edge; 17] = [
    edge("crates/sandbox/", "engine", &[]),
    edge("crates/sandbox/", "codex_server", &[]),
    edge("crates/sandbox/", "tokio", &[]),
    edge("crates/sandbox/", "axum", &[]),
    edge("crates/engine/", "codex_server", &[]),
    edge("crates/engine/", "axum", &[]),
    edge("crates/engine/", "hyper", &[]),
    edge("crates/engine/", "clap", &[]),
    edge("crates/engine/", "sqlx", &[]),
    edge("crates/server/src/", "sandbox", &["enter", "probe"]),
    edge("crates/server/src/", "landlock", &[]),
    edge("crates/server/src/", "plane", &[]),
    edge("crates/plane/", "sandbox", &[]),
    edge("crates/plane/", "engine", &[]),
    edge("crates/plane/", "codex_server", &[]),
    edge("lab/", "sandbox", &[]),
    edge("xtask/", "sandbox", &[]),
];

/// Front doors inside the server never go through one another.
const MODULES: [Edge; 7] = [
    edge("crates/server/src/mcp", "crate::http", &[]),
    edge("crates/server/src/hooks", "crate::http", &[]),
    edge("crates/server/src/compat", "crate::http", &[]),
    edge("crates/server/src/mcp", "crate::hooks", &[]),
    edge("crates/server/src/hooks", "crate::mcp", &[]),
    edge("crates/server/src/compat", "crate::mcp", &[]),
    edge("crates/server/src/api", "crate::http", &[]),
];

/// What a crate may not depend on outside its tests.
const MANIFESTS: [(&str, &[&str]); 3] = [
    (
        "crates/sandbox/Cargo.toml",
        &[
            "engine",
            "codex-server",
            "tokio",
            "axum",
            "serde",
            "serde_json",
            "clap",
            "sqlx",
        ],
    ),
    (
        "crates/engine/Cargo.toml",
        &[
            "codex-server",
            "axum",
            "hyper",
            "clap",
            "sqlx",
            "serde_json",
            "libc",
            "landlock",
        ],
    ),
    (
        "crates/server/Cargo.toml",
        &["libc", "landlock", "syscalls", "plane"],
    ),
];

const fn edge(from: &'static str, to: &'static str, except: &'static [&'static str]) -> Edge {
    Edge { from, to, except }
}

/// No source speaks of a crate that it may not know.
pub(super) fn crates(files: &[File]) -> Vec<Finding> {
    crossings(files, &CRATES)
}

/// No front door speaks of another.
pub(super) fn modules(files: &[File]) -> Vec<Finding> {
    crossings(files, &MODULES)
}

/// No manifest depends on what its crate may not know.
pub(super) fn manifests(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, forbidden) in MANIFESTS {
        for file in files.iter().filter(|file| file.path == path) {
            let Ok(table) = toml::from_str::<toml::Table>(&file.text) else {
                findings.push(Finding::new(file, 0, "is not valid TOML"));
                continue;
            };
            let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
            for name in dependencies.into_iter().flat_map(toml::Table::keys) {
                if forbidden.contains(&name.as_str()) {
                    findings.push(Finding::new(file, 0, format!("may not depend on `{name}`")));
                }
            }
        }
    }
    findings
}

fn crossings(files: &[File], edges: &[Edge]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = rust::blank(&file.text);
        for edge in edges.iter().filter(|edge| file.path.starts_with(edge.from)) {
            for at in uses(&code, edge.to) {
                let items = items(&code[at + edge.to.len()..]);
                for item in items
                    .iter()
                    .filter(|item| !edge.except.contains(&item.as_str()))
                {
                    let line = code[..at].matches('\n').count() + 1;
                    findings.push(Finding::new(
                        file,
                        line,
                        format!("may not use `{}::{item}`", edge.to),
                    ));
                }
            }
        }
    }
    findings
}

/// Where a path starts with `name`, or an import takes the whole of it.
fn uses(code: &str, name: &str) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name)
        .map(|(at, _)| at)
        .filter(|&at| {
            let (before, after) = (&code[..at], &code[at + name.len()..]);
            // `x::sandbox::…` is another module of that name.
            let nested = before
                .strip_suffix("::")
                .is_some_and(|path| path.ends_with(is_name));
            let is_path = after.starts_with("::");
            let imported =
                before.trim_end().ends_with("use") || before.trim_end().ends_with("extern crate");
            let whole_name = !before.ends_with(is_name) && !after.starts_with(is_name);
            whole_name && !nested && (is_path || imported)
        })
        .collect()
}

/// The items named after a path: one, or several in braces; `self` for the
/// path as a whole.
fn items(after: &str) -> Vec<String> {
    let Some(rest) = after.strip_prefix("::") else {
        return vec!["self".to_owned()];
    };
    let first = |text: &str| -> String {
        text.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '*'))
            .collect()
    };
    match rest.strip_prefix('{') {
        Some(list) => {
            let list = list.split('}').next().unwrap_or_default();
            list.split(',')
                .map(first)
                .filter(|item| !item.is_empty())
                .collect()
        }
        None => vec![first(rest)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tells_apart;
    use super::*;

    #[test]
    fn forbidden_crates_are_found() {
        let server = "crates/server/src/main.rs";
        let good = [
            (
                server,
                "fn main() { sandbox::enter(); let s = sandbox::probe(); }",
            ),
            (
                server,
                "use sandbox::{enter, probe};\nuse engine::sandbox::X;\n// sandbox::Spec\nlet sandbox = 1;",
            ),
            ("crates/engine/src/a.rs", "use sandbox::Spec;"),
        ];
        for bad in [
            (server, "use sandbox::Spec;"),
            (server, "use sandbox::{enter, Spec};"),
            (server, "use sandbox::*;"),
            (server, "use sandbox as box_;"),
            (server, "let x = ::sandbox::spawn();"),
            ("crates/engine/src/a.rs", "fn f() -> axum::Router {}"),
            ("crates/sandbox/src/a.rs", "use engine::Job;"),
            ("crates/sandbox/src/a.rs", "use tokio::net;"),
            ("crates/plane/src/a.rs", "use codex_server::tunnel;"),
            (server, "use plane::Plane;"),
        ] {
            tells_apart(crates, &good, &[bad]);
        }
    }

    #[test]
    fn doors_through_doors_are_found() {
        tells_apart(
            modules,
            &[
                ("crates/server/src/mcp/a.rs", "use crate::api::X;"),
                ("crates/server/src/http/a.rs", "use crate::http::X;"),
            ],
            &[("crates/server/src/mcp/a.rs", "use crate::http::X;")],
        );
    }

    #[test]
    fn forbidden_dependencies_are_found() {
        let path = "crates/sandbox/Cargo.toml";
        tells_apart(
            manifests,
            &[(
                path,
                "[dependencies]\nlibc.workspace = true\n[build-dependencies]\nserde = \"1\"\n",
            )],
            &[(path, "[dependencies]\nserde.workspace = true\n")],
        );
        tells_apart(manifests, &[], &[(path, "not = = toml")]);
        let path = "crates/server/Cargo.toml";
        tells_apart(
            manifests,
            &[(path, "[dev-dependencies]\nplane.workspace = true\n")],
            &[(path, "[dependencies]\nplane.workspace = true\n")],
        );
    }
}
