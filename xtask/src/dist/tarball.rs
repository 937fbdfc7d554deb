//! A tarball that depends on nothing but its content, and its checksum.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::installer;
use crate::process;

/// Packs the folder `tree` under its own name into `output`.
pub(super) fn pack(tree: &Path, output: &Path) -> Result<PathBuf> {
    let parent = tree.parent().context("the tree has a parent")?;
    let name = tree.file_name().context("the tree has a name")?;
    fs::create_dir_all(output).with_context(|| format!("failed to make {}", output.display()))?;
    modes(tree)?;
    let tarball = output.join(format!("{}.tar.gz", name.to_string_lossy()));
    let mut tar = process::command("tar");
    tar.args(["--sort=name", "--format=ustar", "--owner=0", "--group=0"]);
    tar.args(["--numeric-owner", &format!("--mtime=@{}", time()?)]);
    // No name and no time in gzip's header either.
    tar.args(["--use-compress-program", "gzip -9n", "--create", "--file"]);
    tar.arg(&tarball).arg("--directory").arg(parent).arg(name);
    process::run("pack the tarball", &mut tar)?;
    Ok(tarball)
}

/// Everybody reads; the server alone is executable. Not what umask says.
fn modes(path: &Path) -> Result<()> {
    let told = || format!("failed to look at {}", path.display());
    let kind = fs::symlink_metadata(path).with_context(told)?;
    let mode = if kind.is_dir() || path.ends_with("codex-server") && executable(path)? {
        0o755
    } else {
        0o644
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(told)?;
    if kind.is_dir() {
        for entry in fs::read_dir(path).with_context(told)? {
            modes(&entry.with_context(told)?.path())?;
        }
    }
    Ok(())
}

fn executable(path: &Path) -> Result<bool> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(bytes.starts_with(b"\x7fELF"))
}

/// When the source was made, in seconds: `SOURCE_DATE_EPOCH`, else the last
/// commit's time, else the beginning of time.
fn time() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given
            .parse()
            .context("SOURCE_DATE_EPOCH is not a number of seconds");
    }
    let mut git = process::command("git");
    git.args(["log", "-1", "--format=%ct"]);
    let said = process::capture("ask git for the time of the last commit", &mut git);
    Ok(said
        .ok()
        .and_then(|time| time.trim().parse().ok())
        .unwrap_or(0))
}

/// Writes `SHA256SUMS` over every tarball and bundle in `output`, and the
/// installer, for `sha256sum -c`.
pub(super) fn sums(output: &Path) -> Result<()> {
    let list = fs::read_dir(output).context("failed to list the tarballs")?;
    let mut names: Vec<String> = list
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            name.ends_with(".tar.gz") || name.ends_with(".mcpb") || name == installer::NAME
        })
        .collect();
    names.sort();
    let mut sum = process::command("sha256sum");
    sum.current_dir(output).args(names);
    let sums = process::capture("sum the tarballs up", &mut sum)?;
    print!("{sums}");
    fs::write(output.join("SHA256SUMS"), sums).context("failed to write SHA256SUMS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let made = |names: [&str; 2], mode: u32| {
            let scratch = tempfile::tempdir().expect("a directory");
            let tree = scratch.path().join("codex-server-1-linux");
            fs::create_dir(&tree).expect("made");
            // In another order, with another mode, at another time.
            for name in names {
                fs::write(tree.join(name), name).expect("written");
            }
            fs::write(tree.join("codex-server"), b"\x7fELF").expect("written");
            let binary = fs::Permissions::from_mode(mode);
            fs::set_permissions(tree.join("codex-server"), binary).expect("set");
            let tarball = pack(&tree, &scratch.path().join("out")).expect("packed");
            sums(&scratch.path().join("out")).expect("summed");
            let sums = fs::read_to_string(scratch.path().join("out/SHA256SUMS")).expect("there");
            assert!(sums.ends_with("  codex-server-1-linux.tar.gz\n"), "{sums}");
            let mut list = process::command("tar");
            let listed = process::capture("list", list.arg("-tvzf").arg(&tarball)).expect("lists");
            assert!(listed.contains("-rwxr-xr-x 0/0"), "{listed}");
            fs::read(tarball).expect("readable")
        };
        assert_eq!(made(["a", "b"], 0o700), made(["b", "a"], 0o644));
    }
}
