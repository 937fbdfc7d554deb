//! Keeps the files of a run and makes links to them. A file that cannot be
//! kept costs a warning, never the answer.

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use engine::Outcome;

use super::super::serve::Connection;
use super::super::{Shared, chain};
use crate::api::Link;
use crate::artifact::{self, KeepError};
use crate::auth::Principal;
use crate::public_url::of_request;

/// Keeps what a run left for whoever sent this request. Gives one entry for
/// each file, in their order, and adds to the run's warnings what was not kept.
pub(in super::super) async fn offer(
    shared: &Shared,
    parts: &Parts,
    outcome: &mut Outcome,
) -> Vec<Option<Link>> {
    if outcome.files.is_empty() {
        return Vec::new();
    }
    let principal = parts.extensions.get::<Principal>();
    let owner = principal.map_or_else(String::new, |one| one.key.clone());
    let artifacts = shared.app.artifacts.clone();
    let files = std::mem::take(&mut outcome.files);
    let keeping = tokio::task::spawn_blocking(move || {
        let kept: Vec<_> = files
            .iter()
            .map(|file| artifacts.keep(&owner, &file.path, &file.content))
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
    let connection = parts.extensions.get::<ConnectInfo<Connection>>();
    let peer = connection.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |connection| {
        connection.0.peer.ip()
    });
    let base = of_request(&shared.app.config, peer, &parts.headers);
    let failed = kept.iter().filter_map(|kept| kept.as_ref().err());
    let failed: Vec<&KeepError> = failed.collect();
    outcome.warnings.extend(warning(&failed));
    kept.into_iter()
        .map(|kept| {
            let (path, id, expires) = kept.ok()?;
            Some(Link {
                id,
                url: format!("{base}{path}"),
                expires,
            })
        })
        .collect()
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
