//! Reads just enough of a binary to know that it is static and for which
//! machine: what a tarball promises must not rest on a linker's flag.

use anyhow::{Context, Result, bail, ensure};

/// A segment that names a dynamic linker, and the machines, in ELF's numbers.
const PT_INTERP: u32 = 3;
const MACHINES: [(&str, u16); 2] = [("x86_64", 62), ("aarch64", 183)];

/// The binary is a 64-bit ELF file for `arch` that needs no dynamic linker.
pub(super) fn check(bytes: &[u8], arch: &str) -> Result<()> {
    ensure!(
        bytes.starts_with(b"\x7fELF\x02\x01"),
        "the binary is no 64-bit little-endian ELF file"
    );
    let machine = half(bytes, 18)?;
    let known = MACHINES.iter().find(|(name, _)| *name == arch);
    if known.is_none_or(|(_, number)| *number != machine) {
        bail!("the binary is for machine {machine} of ELF's list, not for {arch}");
    }
    let table = usize::try_from(long(bytes, 32)?).context("the binary is crooked")?;
    let (size, count) = (usize::from(half(bytes, 54)?), half(bytes, 56)?);
    for index in 0..usize::from(count) {
        let at = table.saturating_add(index * size);
        ensure!(
            u32::from_le_bytes(take(bytes, at)?) != PT_INTERP,
            "the binary is not static: it names a dynamic linker"
        );
    }
    Ok(())
}

fn half(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(take(bytes, at)?))
}

fn long(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(take(bytes, at)?))
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .context("the binary ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with one segment of the given kind.
    fn sample(machine: u16, kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn only_static_binaries_of_the_architecture_pass() {
        let check =
            |bytes: &[u8], arch: &str, refusal: Option<&str>| match (check(bytes, arch), refusal) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, _) => panic!("{result:?} instead of {refusal:?}"),
            };
        check(&sample(62, 1), "x86_64", None);
        check(&sample(183, 1), "aarch64", None);
        check(&sample(62, 1), "aarch64", Some("machine 62"));
        check(&sample(62, PT_INTERP), "x86_64", Some("not static"));
        check(&sample(62, 1)[..66], "x86_64", Some("too early"));
        check(b"#!/bin/sh", "x86_64", Some("no 64-bit"));
    }

    #[test]
    fn this_test_is_not_static() {
        let own = std::env::current_exe().expect("known");
        let bytes = std::fs::read(own).expect("readable");
        let error = check(&bytes, std::env::consts::ARCH).expect_err("linked with glibc");
        assert!(error.to_string().contains("not static"), "{error}");
    }
}
