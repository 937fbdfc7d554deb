//! The sandbox on a real kernel. A missing kernel ability fails these tests.
//!
//! This binary owns `main`, because the warden is a re-execution of it. Run as
//! root, it tests the rung `full` and then runs itself again as an ordinary
//! user, who gets `namespaces`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod lifecycle;
mod limits;
mod support;

use libtest_mimic::{Arguments, Trial};
use sandbox::{Isolation, Launcher};

/// Everything a test gets.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(crate) launcher: Launcher,
    pub(crate) isolation: Isolation,
}

fn main() {
    sandbox::enter();
    let arguments = Arguments::from_args();
    if std::env::var_os(lifecycle::VICTIM).is_some() {
        lifecycle::be_a_victim();
    }
    let least = Isolation::Namespaces;
    let (launcher, support) = sandbox::launch(least).expect("a sandbox can be set up here");
    let isolation = support.isolation.expect("launched");
    let here = Here {
        launcher,
        isolation,
    };
    let root = rustix::process::geteuid().is_root();
    assert_eq!(isolation == Isolation::Full, root, "{support:#?}");
    let mut tests = [attacks::TESTS, lifecycle::TESTS, limits::TESTS].concat();
    if isolation == Isolation::Full {
        tests.extend(limits::WITH_CGROUP);
    }
    let mut trials: Vec<Trial> = tests
        .into_iter()
        .map(|(name, test)| trial(name, &here, test))
        .collect();
    if root {
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
