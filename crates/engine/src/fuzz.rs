//! What a fuzzer calls: one function for each reader of what a client, a
//! program or an operator wrote, from any bytes, with what must hold of the
//! result.
//!
//! Exists for tests and under `cfg(fuzzing)` alone, so that nothing has to be
//! public for its fuzzer; the feature `hooks` lends it to integration tests.
//! Must never start a process.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use crate::accept::accept;
use crate::config::Bounds;
use crate::job::{Draft, DraftFile, Invalid, Job};
use crate::outcome::OutputFile;
use crate::runtime::manifest::{Manifest, System, Version};
use crate::runtime::{Places, Registry};
use crate::session::frames::{self, Said};
use crate::workspace::collect;

/// A name and what it calls; its seeds are in `fuzz/seeds/<name>`.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    ("manifests", manifests),
    ("drafts", drafts),
    ("captures", crate::capture::fuzz::captures),
    ("collections", crate::workspace::fuzz::collections),
    ("cells", cells),
];

/// What a session's interpreter says, as a stream of frames.
fn cells(bytes: &[u8]) {
    let mut left = bytes;
    while let Ok(Some((frame, length))) = frames::parse(left) {
        assert!(
            length > 0 && length <= left.len(),
            "it is a part of what there was"
        );
        if let Said::Result(result) = &frame.said {
            let bytes: usize = result.forms.iter().map(|form| form.content.len()).sum();
            // What is no UTF-8 takes three times its bytes at most.
            assert!(bytes <= 3 * length, "it holds no more than was sent");
            assert!(
                result
                    .forms
                    .iter()
                    .all(|form| form.media_type.contains('/'))
            );
        }
        left = &left[length..];
    }
}

/// What every language shares, as shipped.
const SYSTEM: &str = include_str!("../../../runtimes/system.toml");

/// A language's `runtime.toml`, and versions and words against it.
fn manifests(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // After a line of its own: a version, and a word that a client sent.
    let (manifest, words) = text
        .split_once("\n---\n")
        .unwrap_or((&text, "3.11\npython"));
    let (version, word) = words.split_once('\n').unwrap_or((words, ""));
    let version = Version::parse(version);
    if System::parse(manifest).is_ok() {
        return;
    }
    let system = System::parse(SYSTEM).expect("it is shipped so");
    let folder = manifest
        .lines()
        .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .unwrap_or("python");
    let Ok(mut manifest) = Manifest::parse(folder, manifest, &system) else {
        return;
    };
    assert_eq!(manifest.folder, folder, "a folder is named as its language");
    assert!(manifest.answers_to(&manifest.name));
    let named = manifest.detect.versions.as_ref();
    if let Some(asked) = named.and_then(|versions| versions.asked_for(word)) {
        let filled = named.map(|versions| versions.name.fill(&asked));
        assert!(filled.is_some_and(|name| !name.is_empty()));
    }
    if let Some(version) = version {
        manifest.name_version(&version);
        if let Some(other) = manifest.of_version(&version) {
            assert!(!other.default && other.packages.is_none());
        }
    }
}

/// A draft of the fields in `bytes`, which NULs part.
fn drafts(bytes: &[u8]) {
    let texts: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    let text = |at: usize| texts.get(at).cloned().unwrap_or_default();
    let draft = Draft {
        code: text(0),
        language: texts.get(1).filter(|word| !word.is_empty()).cloned(),
        args: vec![text(2)],
        env: vec![(text(3), text(4)), (text(5), text(6))],
        files: texts
            .iter()
            .skip(7)
            .map(|path| DraftFile {
                path: path.clone(),
                content: Vec::new(),
            })
            .collect(),
        ..Draft::default()
    };
    let paths: Vec<String> = draft.files.iter().map(|file| file.path.clone()).collect();
    match accepted(draft) {
        Ok(_) => paths.iter().for_each(|path| assert_inside(path)),
        Err(invalid) => assert_said_well(&invalid),
    }
}

/// That a path leads below the directory it starts in, by its own words.
fn assert_inside(path: &str) {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    assert!(path.split('/').all(plain), "{path:?} was accepted");
    assert!(path.len() <= Bounds::PATH_BYTES);
}

/// That a refusal is one plain line, short enough for a log.
fn assert_said_well(invalid: &Invalid) {
    let said = invalid.to_string();
    assert!(!said.contains(char::is_control), "{said:?}");
    assert!(said.len() < 2000, "{} bytes", said.len());
}

/// Checks a draft as [`Engine::accept`](crate::Engine::accept) does, with the
/// default bounds and no interpreter.
///
/// # Errors
/// [`Invalid`] for the first field that is wrong.
///
/// # Panics
/// When the shipped languages cannot be read.
pub fn accepted(draft: Draft) -> Result<Job, Invalid> {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        // Nothing but copies of support files: of the same content each time.
        let data = std::env::temp_dir().join(format!("codex-fuzz-{}", std::process::id()));
        let registry = Registry::load(&data, Places::default(), None);
        drop(std::fs::remove_dir_all(&data));
        registry.expect("the shipped languages load")
    });
    accept(draft, &Bounds::default(), registry)
}

/// Collects new files as after a run, with the default bounds: the files, and
/// what was left out and why.
#[must_use]
pub fn collected(root: BorrowedFd<'_>) -> (Vec<OutputFile>, Vec<String>) {
    let collected = collect(
        root,
        &[],
        &[],
        &Bounds::default(),
        &CancellationToken::new(),
    );
    (collected.files, collected.warnings)
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::path::Path;

    /// Every seed, and every input that once broke something.
    #[test]
    fn seeds_are_borne() {
        for (name, run) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/seeds")
                .join(name);
            let seeds =
                std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut count = 0;
            for seed in seeds {
                run(&std::fs::read(seed.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
        }
    }
}
