//! Fetches the files that a request names by URL and puts them among its
//! input files, under names that cannot clash.

use std::collections::BTreeSet;

use engine::{Draft, DraftFile};
use tokio::time::Instant;

use super::Deadline;
use crate::api::{Code, FileRef, Problem};
use crate::app::App;
use crate::file_url::{Fetched, Refused};
use crate::media::tidy_name;

/// Fetches `refs` into `draft`. Returns the right to hold them in memory, to
/// be dropped after the run. Says in `warnings` what got another name.
pub(super) async fn fetch(
    app: &App,
    deadline: Option<Deadline>,
    refs: &[FileRef],
    draft: &mut Draft,
    warnings: &mut Vec<String>,
) -> Result<Option<Fetched>, Problem> {
    if refs.is_empty() {
        return Ok(None);
    }
    let (engine, fetcher) = (&app.engine, &app.fetcher);
    let own = Instant::now() + fetcher.bounds().time;
    let deadline = deadline.map_or(own, |deadline| deadline.last_fetch().min(own));
    let sent: usize = draft.files.iter().map(|file| file.content.len()).sum();
    let room = engine.bounds().files_in_bytes.saturating_sub(sent as u64);
    let urls: Vec<&str> = refs.iter().map(|one| one.download_link.as_str()).collect();
    let fetched = fetcher.fetch_all(&draft.owner, &urls, room, deadline).await;
    let mut fetched = fetched.map_err(|(at, refused)| {
        let field = refs.get(at).map_or("", |one| one.field.as_str());
        problem(field, &refused)
    })?;
    let mut taken: BTreeSet<String> = draft.files.iter().map(top).collect();
    for (one, content) in refs.iter().zip(fetched.files.drain(..)) {
        let path = free_name(&tidy_name(&one.name), |name| {
            engine.is_reserved(name) || taken.contains(name)
        });
        if path != one.name {
            warnings.push(format!(
                "file \"{}\" is called \"{path}\" here",
                crate::api::error::quote(&one.name)
            ));
        }
        taken.insert(path.clone());
        draft.files.push(DraftFile { path, content });
    }
    Ok(Some(fetched))
}

/// What an input file takes of the working directory: itself or its first folder.
fn top(file: &DraftFile) -> String {
    let (first, _) = file.path.split_once('/').unwrap_or((&file.path, ""));
    first.to_owned()
}

/// The name itself, or with a number before its ending.
fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let (stem, ending) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    let numbered = (2..).map(|number: u32| format!("{stem}-{number}{ending}"));
    std::iter::once(name.to_owned())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .expect("only finitely many names are taken")
}

fn problem(field: &str, refused: &Refused) -> Problem {
    let cure = match refused {
        Refused::Busy => {
            return Problem::new(
                Code::Unavailable,
                "The server is fetching too many other files. Try again in 5 s.",
            )
            .retry_after(std::time::Duration::from_secs(5));
        }
        Refused::Host => {
            "Attach the file in ChatGPT; other hosts must be listed by the operator in the setting file_url_host."
        }
        Refused::Address => {
            "Use a public address; for hosts in a network of their own the operator has the setting file_url_network."
        }
        Refused::Url(_) => "Send the https link as ChatGPT gives it.",
        Refused::TooLarge(_) => "Use smaller or fewer files.",
        Refused::Late => "Use smaller or fewer files, or try again.",
        Refused::Status(_) | Refused::Redirects | Refused::Broken => {
            "Links of ChatGPT live for five minutes: attach the file again."
        }
    };
    Problem::field(field, &refused.to_string(), cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_way() {
        let taken = ["main.py", "a.csv", "a-2.csv", "noending"];
        for (name, expected) in [
            ("data.csv", "data.csv"),
            ("main.py", "main-2.py"),
            ("a.csv", "a-3.csv"),
            ("noending", "noending-2"),
        ] {
            assert_eq!(free_name(name, |name| taken.contains(&name)), expected);
        }
    }

    #[test]
    fn each_refusal_names_field_and_cure() {
        for (refused, words) in [
            (Refused::Host, "file_url_host"),
            (Refused::Address, "file_url_network"),
            (Refused::Url("is not an https URL"), "is not an https URL"),
            (Refused::Redirects, "redirects more than 3 times"),
            (Refused::Status(403), "status 403"),
            (Refused::TooLarge(5), "holds more than 5 bytes"),
            (Refused::Late, "did not arrive in time"),
            (Refused::Broken, "could not be fetched"),
        ] {
            let problem = problem("openaiFileIdRefs[1].download_link", &refused);
            assert_eq!(problem.code, Code::InvalidRequest);
            assert!(
                problem
                    .detail
                    .starts_with("`openaiFileIdRefs[1].download_link` ")
            );
            assert!(problem.detail.contains(words), "{}", problem.detail);
        }
        assert_eq!(problem("", &Refused::Busy).code, Code::Unavailable);
    }
}
