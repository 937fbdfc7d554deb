//! Landlock: what the mount namespace shows is also all that may be opened,
//! by rules that hold even if a mount were wrong.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use crate::error::{Error, Step};
use crate::mount::Source;
use crate::omit::{Omit, omitted};
use crate::spec::WORKSPACE;
use crate::support::Isolation;

/// The newest kernel interface these rules know.
const NEWEST: ABI = ABI::V6;

/// Devices that every program may use.
const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

type Rights = BitFlags<AccessFs>;

/// Rights over what is only lent.
fn lent() -> Rights {
    AccessFs::from_read(NEWEST)
}

/// Rights over the box's own directories.
fn own() -> Rights {
    AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock)
}

/// Rights over a device. A shared mapping of `/dev/zero` is memory of nobody's
/// once a program lets go of its pages, and needs the right to write: only
/// where a cgroup counts it.
fn device(path: &str, isolation: Isolation) -> Rights {
    if path == "/dev/zero" && isolation != Isolation::Full {
        return AccessFs::ReadFile.into();
    }
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev
}

/// What [`enforce`] allows, by path in the box's root. Nothing in `/proc` is
/// written: a program could undo its own `oom_score_adj` there.
fn box_rules(isolation: Isolation) -> Vec<(&'static str, Rights)> {
    let mut rules = vec![
        ("/", lent()),
        (WORKSPACE, own()),
        ("/tmp", own()),
        ("/dev/shm", own()),
    ];
    rules.extend(DEVICES.map(|path| (path, device(path, isolation))));
    rules
}

/// Makes the box's rules, which its init enforces on itself and all that it forks, and a
/// program that a zygote forks into the box on itself.
///
/// Called inside the box's root. What is lent has rules of its own besides the root's: a
/// forked program has its executable mapped from the zygote's root.
///
/// The file rules of the first interface are required; later ones, and the scoping of
/// abstract sockets, are taken where the kernel has them, because the mount and network
/// namespaces hold those already.
///
/// Signals are not scoped: the pid namespace does that, and init has to reach every
/// process of it. A program that was adopted has a domain of its own beside init's, so
/// a scope of init's would spare it, in silence.
///
/// # Errors
/// [`Step::Landlock`] when the kernel does not enforce the file rules (before
/// 5.13, or not enabled at boot).
pub(crate) fn of_box(isolation: Isolation, sources: &[Source]) -> Result<OwnedFd, Error> {
    let mut rules = Vec::new();
    for (path, rights) in box_rules(isolation) {
        rules.push((PathFd::new(path).map_err(failed)?, rights));
    }
    for source in sources {
        if let Source::Directory(target, _) = source {
            rules.push((PathFd::new(target).map_err(failed)?, lent()));
        }
    }
    let rules = made(&rules, Scope::AbstractUnixSocket.into())?;
    Option::<OwnedFd>::from(rules).ok_or_else(not_enforced)
}

/// Keeps this thread, and all that it forks, from signalling others, where the kernel
/// knows that; no rule for files. For a zygote that shares the server's user: its copies
/// cannot signal the other programs of their boxes.
///
/// # Errors
/// [`Step::Landlock`].
pub(crate) fn scope_signals() -> Result<(), Error> {
    let made = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(NEWEST))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    made.restrict_self().map_err(failed).map(drop)
}

/// Enforces the rules of a box without a root of its own: of all that the
/// machine has it may open what is lent to it and its own directories.
///
/// # Errors
/// As [`enforce`].
pub(crate) fn enforce_in_place(
    isolation: Isolation,
    sources: &[OwnedFd],
    writable: impl Iterator<Item = PathBuf>,
) -> Result<(), Error> {
    if omitted(Omit::Landlock) {
        return Ok(());
    }
    let file = AccessFs::from_file(NEWEST);
    // Borrowed: the limit on open files holds already, and two for each source
    // would leave no room for an interpreter that lies in many places.
    let mut rules = Vec::new();
    for source in sources {
        let found = rustix::fs::fstat(source)
            .map_err(|errno| Error::new(Step::Landlock, io::Error::from(errno)))?;
        let directory = rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir();
        let rights = if directory { lent() } else { lent() & file };
        rules.push((source.as_fd(), rights));
    }
    let mut opened = Vec::new();
    let by_path = writable.map(|path| (path, own()));
    let devices = DEVICES.map(|path| (PathBuf::from(path), device(path, isolation)));
    for (path, rights) in by_path.chain(devices) {
        let fd = rustix::fs::open(
            &path,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(|errno| Error::new(Step::Landlock, io::Error::from(errno)))
        .map_err(|error| error.with(path.display().to_string()))?;
        opened.push((fd, rights));
    }
    rules.extend(opened.iter().map(|(fd, rights)| (fd.as_fd(), *rights)));
    enforce_rules(&rules, Scope::from_all(NEWEST))
}

fn made(rules: &[(impl AsFd, Rights)], scopes: BitFlags<Scope>) -> Result<RulesetCreated, Error> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(failed)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.scope(scopes))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for (path, rights) in rules {
        ruleset = ruleset
            .add_rule(PathBeneath::new(path, *rights))
            .map_err(failed)?;
    }
    Ok(ruleset)
}

fn enforce_rules(rules: &[(impl AsFd, Rights)], scopes: BitFlags<Scope>) -> Result<(), Error> {
    let status = made(rules, scopes)?.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(not_enforced());
    }
    Ok(())
}

fn not_enforced() -> Error {
    Error::new(Step::Landlock, io::Error::from_raw_os_error(libc::ENOSYS))
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
            let rules = [(PathFd::new(&within).unwrap(), all)];
            enforce_rules(&rules, Scope::from_all(NEWEST)).unwrap();
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
