//! The fuzzer's program: the target that `FUZZ_TARGET` names, driven by libFuzzer.
//!
//! One program for all targets, since each would link the whole server. What a
//! target does stands in the crate it belongs to, in `fuzz.rs`. Without a target
//! it prints their names and ends.
#![no_main]
#![expect(
    clippy::print_stdout,
    clippy::exit,
    reason = "it talks to `cargo xtask fuzz`"
)]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fn targets() -> impl Iterator<Item = &'static engine::fuzz::Target> {
    let crates = [
        sandbox::fuzz::TARGETS,
        engine::fuzz::TARGETS,
        codex_server::fuzz::TARGETS,
    ];
    crates.into_iter().flatten()
}

/// The function to call, found before the first input.
static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn choose() -> fn(&[u8]) {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if let Some((_, run)) = targets().find(|(name, _)| *name == wanted) {
        return *run;
    }
    for (name, _) in targets() {
        println!("{name}");
    }
    std::process::exit(i32::from(!wanted.is_empty()))
}

fuzz_target!(
    init: {
        TARGET.get_or_init(choose);
    },
    |input: &[u8]| {
        TARGET.get_or_init(choose)(input);
    }
);
