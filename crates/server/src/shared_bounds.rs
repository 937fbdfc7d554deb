//! A test that SECURITY.md says of every bound how callers share it.

use crate::config::keys::{self, Kind};
use crate::{artifact, file_url, http, mcp, tunnel};

/// Settings with a number that bound nothing a caller could use up.
const NO_BOUNDS: [&str; 3] = ["port", "idle_shutdown", "drain_grace"];

/// The chapter on fair shares: the table, and the text after it.
fn chapter() -> (String, String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../SECURITY.md");
    let text = std::fs::read_to_string(path).expect("SECURITY.md");
    let (_, rest) = text.split_once("\n## Fair shares\n").expect("the chapter");
    let chapter = rest.split("\n## ").next().expect("its text");
    let (table, single) = chapter
        .split_once("\nThese bound one request or one run")
        .expect("table and text");
    (table.to_owned(), single.to_owned())
}

#[test]
fn every_bound_is_shared_or_of_one_request() {
    let (table, single) = chapter();
    for key in keys::all() {
        let is_number = matches!(key.kind, Kind::Count(..) | Kind::Bytes(..) | Kind::Time(..));
        let name = format!("`{}`", key.name);
        let told = usize::from(table.contains(&name)) + usize::from(single.contains(&name));
        let expected = usize::from(is_number && !NO_BOUNDS.contains(&key.name));
        let expected = if key.name == "rate_limit" {
            1
        } else {
            expected
        };
        assert_eq!(told, expected, "{name} in SECURITY.md, fair shares");
    }
}

#[test]
fn the_figures_are_those_of_the_code() {
    let (table, _) = chapter();
    let figures = [
        format!(
            "| {}, and {} that wait |",
            file_url::AT_ONCE,
            file_url::WAITING
        ),
        format!("| {} MiB |", http::REQUEST_BYTES >> 20),
        format!("{} s for the first header", http::FIRST_HEADER.as_secs()),
        format!("{} a minute", http::REFUSALS),
        format!("{} MiB are left free", artifact::RESERVE >> 20),
        format!("| {} for a token,", mcp::SESSIONS_EACH),
        format!(
            "| {} at once, {} that are held |",
            tunnel::AT_ONCE,
            tunnel::HELD
        ),
        format!(
            "| {} a minute for a grant |",
            crate::store::oauth::EACH_MINUTE
        ),
        format!(
            "| {} a day from a token |",
            crate::store::oauth::GRANTS_EACH
        ),
        format!(
            "| {} a minute from an address, {} in all |",
            http::CLIENTS_EACH,
            http::CLIENTS_ALL
        ),
    ];
    for figure in figures {
        assert!(table.contains(&figure), "{figure:?} is not in SECURITY.md");
    }
}
