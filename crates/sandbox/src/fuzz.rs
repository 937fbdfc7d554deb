//! What a fuzzer calls: one function for each parser that faces another
//! process, from any bytes, with what must hold of the result.
//!
//! Exists for tests and under `cfg(fuzzing)` alone, so that no parser has to be
//! public for its fuzzer. Must never touch the kernel.

use crate::command::Command;
use crate::protocol::{Frame, Writer};

/// A name and what it calls; its seeds are in `fuzz/seeds/<name>`.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("frames", frames), ("commands", commands)];

/// Most bytes that a decoded thing may take for each byte of its frame: the
/// largest field of a list over the fewest bytes that can stand for it.
const GROWTH: usize = 16;

/// What a box's init, or whoever has taken its place, sends to the server.
fn frames(bytes: &[u8]) {
    let Ok(frame) = Frame::decode(bytes) else {
        return;
    };
    let again = frame.encode();
    assert_eq!(
        Frame::decode(&again).expect("what was encoded decodes"),
        frame
    );
    // Text that was not UTF-8 grows by its replacement characters, by no more.
    assert!(again.len() <= bytes.len() * 3, "a frame grew");
    if let Frame::SelfTested(findings) = &frame {
        assert!(
            findings.len() <= bytes.len() / GROWTH,
            "findings of no bytes"
        );
    }
    if let Frame::Create(spec, _) | Frame::CreateZygote(spec) = &frame {
        assert!(
            spec.mounts.len() <= bytes.len() / GROWTH,
            "mounts of no bytes"
        );
    }
}

/// What the server hands to an init, which may not trust its length fields.
fn commands(bytes: &[u8]) {
    let Ok(command) = Command::decode(bytes) else {
        return;
    };
    let mut out = Writer::default();
    command.encode(&mut out);
    assert_eq!(out.finish(), bytes, "a command has one spelling");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, How};
    use std::path::Path;
    use std::time::Duration;

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

    /// The checks above can fail.
    #[test]
    fn a_seed_is_a_frame() {
        let exit = Exit {
            how: How::Exited(3),
            wall_time: Duration::from_secs(1),
            cpu_time: Duration::ZERO,
            memory_peak: 1,
            over_memory: false,
            over_disk: false,
        };
        let bytes = Frame::Exited(exit).encode();
        frames(&bytes);
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/frames");
        let kinds: std::collections::BTreeSet<u8> = std::fs::read_dir(seeds)
            .unwrap()
            .filter_map(|seed| {
                let bytes = std::fs::read(seed.unwrap().path()).unwrap();
                Frame::decode(&bytes).ok().map(|_| bytes[0])
            })
            .collect();
        assert_eq!(kinds, (0..=30).collect(), "a whole frame of each kind");
    }
}
