//! Keeps the files of a run and makes links to them. A file that cannot be
//! kept costs a warning, never the answer.

use engine::Outcome;

use super::Caller;
use crate::api::Link;
use crate::app::App;
use crate::artifact::{self, KeepError};
use crate::config::Access;
use crate::telemetry::chain;

/// Keeps the files of a run for its caller. Returns one entry for each file,
/// in their order, and adds a warning to the run for those that were not kept.
pub(super) async fn offer(app: &App, caller: &Caller, outcome: &mut Outcome) -> Vec<Option<Link>> {
    if outcome.files.is_empty() {
        return Vec::new();
    }
    let owner = caller.principal.id.clone();
    if let Some(reason) = token_obstacle(app, caller).await {
        let count = outcome.files.len();
        outcome.warnings.push(format!(
            "files not offered for download: {count} ({reason})"
        ));
        return Vec::new();
    }
    let artifacts = app.artifacts.clone();
    let files = std::mem::take(&mut outcome.files);
    let keeping = tokio::task::spawn_blocking(move || {
        let kept: Vec<_> = files
            .iter()
            .map(|file| artifacts.keep(owner.as_str(), &file.path, &file.content))
            .collect();
        // Where little is kept, the last may have driven the first out.
        let still = |kept: artifact::Kept| match artifacts.find(kept.id, &kept.name) {
            Some(kept) => Ok((artifacts.link(&kept), kept.id.to_string(), kept.expires)),
            None => Err(KeepError::TooLarge),
        };
        let kept: Vec<Offered> = kept.into_iter().map(|kept| kept.and_then(still)).collect();
        (files, kept)
    });
    let (files, kept) = match keeping.await {
        Ok(done) => done,
        Err(error) => {
            // Only a bug of ours gets here, and the files are lost with it.
            tracing::error!(%error, "failed to keep the files of a run");
            let lost = "files are missing: the server failed while it kept them";
            outcome.warnings.push(lost.to_owned());
            return Vec::new();
        }
    };
    outcome.files = files;
    let failed = kept.iter().filter_map(|kept| kept.as_ref().err());
    let failed: Vec<&KeepError> = failed.collect();
    outcome.warnings.extend(warning(&failed));
    kept.into_iter()
        .map(|kept| {
            let (path, id, expires) = kept.ok()?;
            Some(Link {
                id,
                url: format!("{}{path}", caller.base_url),
                expires,
            })
        })
        .collect()
}

/// Returns why the caller's token offers no files, if so: it may have been
/// revoked while the program ran, and a link would outlive it.
async fn token_obstacle(app: &App, caller: &Caller) -> Option<&'static str> {
    if app.config.access == Access::Open {
        return None;
    }
    match app.store.is_live(caller.principal.key()).await {
        Ok(true) => None,
        Ok(false) => Some("the token was revoked"),
        Err(error) => {
            tracing::error!(error = %chain(&error), "failed to look whether a token was revoked");
            Some("the server failed to check the token")
        }
    }
}

/// Path and query of a link, the file's id, and its end.
type Offered = Result<(String, String, u64), KeepError>;

/// One warning for all files that were not kept, with the first reason. What
/// the disk said is the operator's to know; that it is full, everybody's.
fn warning(failed: &[&KeepError]) -> Option<String> {
    let first = failed.first()?;
    let reason = match first {
        // The operator's choice, and no news to anybody.
        KeepError::Off => return None,
        KeepError::TooLarge => "more than the server keeps in all".to_owned(),
        KeepError::Crowded => "no room beside the files of other tokens".to_owned(),
        KeepError::Full => {
            tracing::warn!(error = %first, files = failed.len(), "failed to keep files of a run; make room on the disk of the data directory, or lower max_artifacts_bytes");
            let reserve = artifact::RESERVE >> 20;
            format!("the server's disk is full: its last {reserve} MiB are not for files")
        }
        KeepError::Io { source, .. } => {
            tracing::warn!(error = %chain(first), files = failed.len(), "failed to keep files of a run; make room on the disk of the data directory, or lower max_artifacts_bytes");
            match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    "the server's disk is full".to_owned()
                }
                _ => "the server failed to write them".to_owned(),
            }
        }
    };
    Some(format!(
        "files not offered for download: {} ({reason})",
        failed.len()
    ))
}
