//! Small Debian systems under `target/`, made once, for checks that need
//! another system than this one. Nothing in them is ever installed here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use xtask::apt::{self, Need, Probe};
use xtask::build;
use xtask::process;

const DEBOOTSTRAP: Need = Need {
    probe: Probe::Program(&["debootstrap"]),
    packages: &["debootstrap"],
    reason: "to make a small Debian system for checks",
    required: true,
};

/// The list that the image and its check share.
const IMAGE_PACKAGES: &str = "packaging/debian-packages.txt";

/// The smallest Debian of `suite` with `packages`; made anew when they change.
pub(crate) fn root(name: &str, suite: &str, packages: &[&str]) -> Result<PathBuf> {
    ensure!(
        process::is_root(),
        "making a Debian system takes root: run this as root"
    );
    apt::ensure(&[DEBOOTSTRAP])?;
    let directory = build::target_directory().join("xtask/debian");
    let root = directory.join(name);
    // Written last, so that one that was cut off is made again.
    let stamp = directory.join(format!("{name}.made"));
    let wanted = format!("{suite} {}", packages.join(","));
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(root);
    }
    if root.exists() {
        fs::remove_dir_all(&root)
            .with_context(|| format!("failed to remove {}", root.display()))?;
    }
    fs::create_dir_all(&root).with_context(|| format!("failed to make {}", root.display()))?;
    println!(
        "making a Debian {suite} system in {} (a minute or two, once)",
        root.display()
    );
    let mut debootstrap = process::command("debootstrap");
    debootstrap.arg("--variant=minbase").arg(suite).arg(&root);
    process::capture("make a Debian system", &mut debootstrap)?;
    // Names are resolved as here, and no service is started.
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))
        .context("failed to copy /etc/resolv.conf")?;
    install(
        &root,
        "usr/sbin/policy-rc.d",
        b"#!/bin/sh\nexit 101\n",
        0o755,
    )?;
    let apt = |arguments: &[&str]| {
        let mut chroot = process::command("chroot");
        chroot
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        chroot.arg(&root).args(["apt-get", "-qq"]).args(arguments);
        process::capture("install packages into a Debian system", &mut chroot)
    };
    apt(&["update"])?;
    // By apt itself, as in the Dockerfile: debootstrap can't order all of them.
    apt(&[&["install", "-y", "--no-install-recommends"], packages].concat())?;
    fs::write(&stamp, wanted).context("failed to note that the system is made")?;
    Ok(root)
}

/// What the image has beside the server.
pub(crate) fn image_packages() -> Result<Vec<String>> {
    let list = process::root().join(IMAGE_PACKAGES);
    let text =
        fs::read_to_string(&list).with_context(|| format!("failed to read {}", list.display()))?;
    Ok(names(&text))
}

/// The packages in a list with comments.
fn names(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.trim().to_owned())
        .collect()
}

/// Puts a file into a root, executable by all or by none, and makes its folder.
pub(crate) fn install(root: &Path, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let to = root.join(path);
    let told = || format!("failed to install {}", to.display());
    fs::create_dir_all(to.parent().context("a file has a folder")?).with_context(told)?;
    // Not over one that may be running.
    if to.exists() {
        fs::remove_file(&to).with_context(told)?;
    }
    fs::write(&to, bytes).with_context(told)?;
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).with_context(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_packages() {
        assert_eq!(
            names("# python3 node\n\npython3\n nodejs \n"),
            ["python3", "nodejs"]
        );
    }

    #[test]
    fn the_image_has_both_interpreters() {
        let packages = image_packages().expect("the list is there");
        for needed in ["python3", "nodejs"] {
            assert!(packages.iter().any(|name| name == needed), "{packages:?}");
        }
    }
}
