//! The sandbox on a real kernel. A missing kernel ability fails these tests.
//!
//! This binary owns `main`, because the warden is a re-execution of it. Run as
//! root, it tests the rung `full` and then runs itself again: at `uids`, and as
//! an ordinary user, who gets `namespaces`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adoption;
mod attacks;
mod explained;
mod in_place;
mod lifecycle;
mod limits;
mod probe;
mod side_by_side;
mod support;

use libtest_mimic::{Arguments, Trial};
use sandbox::{Isolation, Launcher};

/// Names the rung to test, where it is not to be the strongest that holds.
pub(crate) const RUNG: &str = "SANDBOX_TEST_RUNG";

/// Everything a test gets.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(crate) launcher: Launcher,
    pub(crate) isolation: Isolation,
}

/// The rungs that are tested.
pub(crate) fn rungs() -> std::ops::RangeInclusive<Isolation> {
    match std::env::var(RUNG) {
        Ok(rung) => {
            let rung = rung.parse().unwrap();
            rung..=rung
        }
        Err(_) if rustix::process::geteuid().is_root() => Isolation::Full..=Isolation::Full,
        Err(_) => Isolation::Namespaces..=Isolation::Full,
    }
}

/// Starts the warden of the rung that is tested.
pub(crate) fn launch() -> (Launcher, sandbox::Support) {
    sandbox::launch(rungs()).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn main() {
    sandbox::enter();
    let arguments = Arguments::from_args();
    probe::omit();
    if std::env::var_os(lifecycle::VICTIM).is_some() {
        lifecycle::be_a_victim();
    }
    let (launcher, support) = launch();
    let isolation = support.isolation.expect("launched");
    let here = Here {
        launcher,
        isolation,
    };
    let root = rustix::process::geteuid().is_root();
    let first = root && std::env::var_os(RUNG).is_none();
    // Else somebody delegated a cgroup to this user and says so.
    let strongest = first || std::env::var(RUNG).is_ok_and(|rung| rung == "full");
    assert_eq!(isolation == Isolation::Full, strongest, "{support:#?}");
    let mut tests = [
        explained::EVERYWHERE,
        lifecycle::EVERYWHERE,
        limits::EVERYWHERE,
        probe::EVERYWHERE,
        side_by_side::EVERYWHERE,
    ]
    .concat();
    tests.extend(match isolation {
        Isolation::Full | Isolation::Namespaces => [
            adoption::IN_NAMESPACES,
            attacks::IN_NAMESPACES,
            lifecycle::IN_NAMESPACES,
            limits::IN_NAMESPACES,
        ]
        .concat(),
        Isolation::Uids => in_place::TESTS.to_vec(),
    });
    if isolation == Isolation::Full {
        tests.extend(limits::WITH_CGROUP);
    }
    let mut trials: Vec<Trial> = tests
        .into_iter()
        .map(|(name, test)| trial(name, &here, test))
        .collect();
    if first {
        trials.push(Trial::test("everything_at_uids", || {
            support::again_at(Isolation::Uids);
            Ok(())
        }));
        trials.push(Trial::test("everything_as_an_ordinary_user", || {
            support::again_as_an_ordinary_user();
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

pub(crate) type Test = (&'static str, fn(&Here));

fn trial(name: &str, here: &Here, test: fn(&Here)) -> Trial {
    let here = here.clone();
    Trial::test(name, move || {
        test(&here);
        Ok(())
    })
}
