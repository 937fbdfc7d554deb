//! Landlock: what the mount namespace shows is also all that may be opened,
//! by rules that hold even if a mount were wrong.

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use crate::error::{Error, Step};
use crate::spec::WORKSPACE;

/// The newest kernel interface these rules know.
const NEWEST: ABI = ABI::V6;

/// What [`enforce`] allows, by path in the box's root. Nothing in `/proc` is
/// written: a program could undo its own `oom_score_adj` there.
fn box_rules() -> [(&'static str, BitFlags<AccessFs>); 9] {
    let read = AccessFs::from_read(NEWEST);
    let scratch = AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let device: BitFlags<AccessFs> =
        AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    [
        ("/", read),
        (WORKSPACE, scratch),
        ("/tmp", scratch),
        ("/dev/shm", scratch),
        ("/dev/null", device),
        ("/dev/zero", device),
        ("/dev/full", device),
        ("/dev/random", device),
        ("/dev/urandom", device),
    ]
}

/// Enforces the box's rules on this thread and all that it forks.
///
/// Called inside the box's root. The file rules of the first interface are
/// required; later ones, and the scoping of signals and abstract sockets, are
/// taken where the kernel has them, because the mount, pid and network
/// namespaces hold those already.
///
/// # Errors
/// [`Step::Landlock`] when the kernel does not enforce the file rules (before
/// 5.13, or not enabled at boot).
pub(crate) fn enforce() -> Result<(), Error> {
    enforce_rules(&box_rules())
}

fn enforce_rules(rules: &[(&str, BitFlags<AccessFs>)]) -> Result<(), Error> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(failed)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for (path, access) in rules {
        let path = PathFd::new(path).map_err(failed)?;
        ruleset = ruleset
            .add_rule(PathBeneath::new(path, *access))
            .map_err(failed)?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(Error::new(
            Step::Landlock,
            io::Error::from_raw_os_error(libc::ENOSYS),
        ));
    }
    Ok(())
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Step::Landlock, io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// On a thread of its own: rules bind the thread that makes them.
    #[test]
    fn what_no_rule_allows_is_refused() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("old"), "x").unwrap();
        let (inside, outside) = (inside.keep(), outside.keep());
        let (within, without) = (inside.clone(), outside.clone());
        let thread = std::thread::spawn(move || {
            let all = AccessFs::from_all(NEWEST);
            let text = within.to_str().unwrap();
            enforce_rules(&[(text, all)]).unwrap();
            let refused = |result: io::Result<()>| {
                let error = result.expect_err("outside the rules");
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
            };
            fs::write(within.join("new"), "x").unwrap();
            refused(fs::write(without.join("new"), "x"));
            refused(fs::read(without.join("old")).map(drop));
            refused(fs::remove_file(without.join("old")));
            refused(fs::read_dir(&without).map(drop));
        });
        let ended = thread.join();
        fs::remove_dir_all(inside).unwrap();
        fs::remove_dir_all(outside).unwrap();
        ended.unwrap();
    }
}
