//! The probe: a layer that is missing, or there without effect, is found, and
//! the rung is not claimed.

use std::process::Stdio;

use sandbox::Isolation;

use crate::{Here, Test};

/// Names a layer to leave out, in a process that then says what the probe found.
const OMIT: &str = "SANDBOX_TEST_OMIT";

pub(crate) const EVERYWHERE: &[Test] = &[("the_probe_finds_each_layer_that_is_left_out", gaps)];

/// Be such a process, if that is what this one was started as.
#[expect(
    clippy::exit,
    clippy::print_stdout,
    reason = "its whole life is one probe, told to whoever started it"
)]
pub(crate) fn omit() {
    let Ok(layer) = std::env::var(OMIT) else {
        return;
    };
    sandbox::omit(&layer);
    match sandbox::launch(crate::rungs()) {
        Ok((_, support)) => println!("claimed {:?}", support.isolation),
        Err(refusal) => println!("refused {refusal}"),
    }
    std::process::exit(0);
}

/// What is left out, and a part of what must then be said to be missing.
fn expected(at: Isolation) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("seccomp", "seccomp: "),
        ("memory", "memory limit: 128 MiB were held"),
        ("processes", "process limit: more than 8 processes"),
    ];
    // An ordinary user has one id to map, so nobody there could be anybody else.
    if at == Isolation::Full && rustix::process::geteuid().is_root() {
        all.push(("identity", "failed to make the workspace"));
    }
    all.extend(match at {
        Isolation::Full | Isolation::Namespaces => vec![
            ("landlock", "landlock: the attack succeeded"),
            ("network", "host: somebody in the box reached a listener"),
            ("network", "network: the attack succeeded"),
        ],
        Isolation::Uids => vec![
            ("landlock", "host files: the attack succeeded"),
            ("landlock", "listing the root: the attack succeeded"),
            ("uid", "signals to init: the attack succeeded"),
        ],
    });
    // At namespaces Landlock keeps programs from init as well, which has no rules there.
    if at == Isolation::Full {
        all.push(("private", "init's memory: the attack succeeded"));
    }
    all
}

fn gaps(here: &Here) {
    let told = probed("nothing");
    assert!(told.starts_with("claimed"), "{told}");
    for (layer, words) in expected(here.isolation) {
        let told = probed(layer);
        assert!(
            told.starts_with("refused") && told.contains(words),
            "without {layer} at {}: {told}",
            here.isolation
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start processes")]
fn probed(layer: &str) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .env(OMIT, layer)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
