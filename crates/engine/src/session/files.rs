//! Files of a session while code may run in it: those that a call puts in, and those
//! that a cell left.

use std::sync::{Arc, PoisonError};

use sandbox::File;
use tokio_util::sync::CancellationToken;

use super::live::Session;
use crate::boxes::{broken, broken_io};
use crate::error::Error;
use crate::workspace::{self, Collected};

/// Puts files into the workspace; they are nothing that a cell leaves.
pub(super) async fn write(session: &Session, files: Vec<File>) -> Result<(), Error> {
    let paths: Vec<String> = files
        .iter()
        .map(|file| String::from_utf8_lossy(&file.path).into_owned())
        .collect();
    session.write(files).await?;
    let directory = session.home.workspace()?;
    let directory = directory.try_clone().map_err(broken_io("note files"))?;
    let seen = Arc::clone(&session.seen);
    let noted = tokio::task::spawn_blocking(move || {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        workspace::note(&directory, &paths, &mut seen);
    });
    noted.await.map_err(|error| broken("note files", error))
}

/// Returns the files that are new or changed since the last call, as a run gives them.
pub(super) async fn changed(session: &Session, language: &str) -> Result<Collected, Error> {
    let step = "collect files";
    let directory = session.home.workspace()?;
    let directory = directory.try_clone().map_err(broken_io(step))?;
    let of_language = session.terms.languages.get(language);
    let ignored = of_language.map_or_else(Vec::new, |language| language.ignored.clone());
    let bounds = session.terms.bounds;
    let seen = Arc::clone(&session.seen);
    let kept = session.home.kept();
    let cancel = CancellationToken::new();
    let _dropped = cancel.clone().drop_guard();
    tokio::task::spawn_blocking(move || {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let collected = workspace::changed(&directory, &mut seen, &ignored, &bounds, &cancel);
        drop((seen, directory, kept));
        collected
    })
    .await
    .map_err(|error| broken(step, error))
}
