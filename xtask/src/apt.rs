//! Debian packages: finds what is missing and installs it as root, or prints
//! the one line to paste. Never touches a system without `apt-get`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// How to see that something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// A program of one of these names is in `PATH`.
    Program(&'static [&'static str]),
    /// A file exists.
    File(&'static str),
    /// A font is there whose file's name has one of these words in it.
    Font(&'static [&'static str]),
    /// This Python can make a venv with pip in it.
    Ensurepip(&'static str),
}

impl Probe {
    fn holds(self) -> bool {
        match self {
            Self::Program(names) => names.iter().any(|name| process::find(name).is_some()),
            Self::File(path) => Path::new(path).is_file(),
            Self::Font(words) => FONTS.iter().any(|top| has_font(Path::new(top), words)),
            Self::Ensurepip(python) => {
                process::succeeds(process::command(python).args(["-c", "import ensurepip, venv"]))
            }
        }
    }
}

/// Where a machine's fonts are.
const FONTS: [&str; 2] = ["/usr/share/fonts", "/usr/local/share/fonts"];

/// Whether a file below `directory` has one of the words in its name.
fn has_font(directory: &Path, words: &[&str]) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found = entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => has_font(&entry.path(), words),
            _ => words.iter().any(|word| name.contains(word)),
        }
    });
    found.any(|found| found)
}

/// Something that has to be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// How to see that it is there.
    pub probe: Probe,
    /// The packages that bring it.
    pub packages: &'static [&'static str],
    /// What it is for, to end the sentence "… is missing: needed …".
    pub reason: &'static str,
    /// Whether we can't go on without it.
    pub required: bool,
}

/// Installs the missing ones as root; without root, or without `apt-get`,
/// says how. Fails only when something required is still missing.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = absent(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = packages(&missing);
    for need in &missing {
        println!("missing: {} ({})", need.packages.join(" "), need.reason);
    }
    let outcome = if process::find("apt-get").is_none() {
        Err(anyhow::anyhow!(
            "this system has no apt-get; install the equivalents of: {}",
            packages.join(" ")
        ))
    } else if process::is_root() {
        install(&packages)
    } else {
        Err(anyhow::anyhow!(
            "paste this line and try again:\n\n    {}\n",
            line_to_paste(&packages)
        ))
    };
    let still = absent(&missing);
    if still.iter().any(|need| need.required) {
        outcome?;
        bail!(
            "apt-get installed {} but they can't be found; look at PATH",
            packages.join(" ")
        );
    }
    if let Err(error) = outcome {
        eprintln!(
            "going on without {}: {error:#}",
            self::packages(&still).join(" ")
        );
    }
    Ok(())
}

fn absent(needs: &[Need]) -> Vec<Need> {
    needs
        .iter()
        .filter(|need| !need.probe.holds())
        .copied()
        .collect()
}

fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut names: Vec<&str> = needs
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn line_to_paste(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install -y {}",
        packages.join(" ")
    )
}

fn install(packages: &[&str]) -> Result<()> {
    println!("installing {} with apt-get", packages.join(" "));
    // A failed update is no reason to stop: the old lists may do.
    let updated = apt_get(&["update"]);
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    match (apt_get(&arguments), updated) {
        (Ok(()), _) => Ok(()),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

/// Downloads a package into an empty directory, without installing it.
pub fn download(package: &str, directory: &Path) -> Result<()> {
    if process::find("apt-get").is_none() {
        bail!("this system has no apt-get; install what Debian calls {package}");
    }
    let again = || apt_get_in(directory, &["download", package]);
    // Lists that are old, or not there at all, are made anew by root alone.
    match again() {
        Err(_) if process::is_root() => apt_get(&["update"]).and_then(|()| again()),
        result => result,
    }
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    apt_get_in(process::root(), arguments)
}

fn apt_get_in(directory: &Path, arguments: &[&str]) -> Result<()> {
    let mut command: Command = process::command("apt-get");
    command
        .current_dir(directory)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .args([
            "-q",
            "-o",
            "DPkg::Lock::Timeout=60",
            "-o",
            "APT::Update::Error-Mode=any",
        ])
        .args(arguments);
    let (status, output) = process::tee("run apt-get", &mut command)?;
    if !status.success() {
        bail!("apt-get {} failed: {}", arguments[0], cure(&output));
    }
    Ok(())
}

/// What to do about a failure, from what `apt-get` printed in the C locale.
fn cure(output: &str) -> String {
    const CURES: [(&[&str], &str); 6] = [
        (
            &[
                "Could not get lock",
                "Unable to acquire the dpkg",
                "Unable to lock",
            ],
            "another package installation is running; wait until it ends, then try again",
        ),
        (
            &["No space left on device", "enough free space"],
            "the disk is full; free some space (`apt-get clean`, `df -h`), then try again",
        ),
        (
            &["dpkg was interrupted"],
            "an earlier installation was cut off; run `dpkg --configure -a`, then try again",
        ),
        (
            &[
                "Temporary failure resolving",
                "Could not resolve",
                "Could not connect",
                "Unable to connect",
                "Network is unreachable",
            ],
            "no network; check the connection and any proxy settings of apt, then try again",
        ),
        (
            &["Unable to locate package", "has no installation candidate"],
            "this release does not have the package; enable the main (Ubuntu: universe) component, or install the program by hand",
        ),
        (
            &["Read-only file system"],
            "the system is mounted read-only; install the packages into its image",
        ),
    ];
    CURES
        .iter()
        .find(|(signs, _)| signs.iter().any(|sign| output.contains(sign)))
        .map_or_else(
            || "see the lines above".to_owned(),
            |(_, cure)| (*cure).to_owned(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Need = Need {
        probe: Probe::File("/no/such/file"),
        packages: &["zeta", "alpha"],
        reason: "for the test",
        required: false,
    };

    #[test]
    fn packages_are_sorted_and_named_once() {
        assert_eq!(packages(&[NOTHING, NOTHING]), ["alpha", "zeta"]);
    }

    #[test]
    fn probes_tell_there_from_not_there() {
        assert!(Probe::Program(&["no-such-program", "sh"]).holds());
        assert!(!Probe::Program(&["no-such-program"]).holds());
        assert!(Probe::File("/proc/self/status").holds());
        assert!(!NOTHING.probe.holds());
        assert!(!Probe::Ensurepip("/no/such/python").holds());
        let fonts = tempfile::tempdir().unwrap();
        std::fs::create_dir(fonts.path().join("wqy")).unwrap();
        assert!(!has_font(fonts.path(), &["wqy"]));
        std::fs::write(fonts.path().join("wqy/WQY-x.ttc"), "").unwrap();
        assert!(has_font(fonts.path(), &["wqy"]));
        assert!(!has_font(fonts.path(), &["cjk"]));
    }

    #[test]
    fn each_failure_has_its_own_cure() {
        let check = |output: &str, expected: &str| {
            let cure = cure(output);
            assert!(cure.contains(expected), "{output:?} gave {cure:?}");
        };
        check(
            "E: Could not get lock /var/lib/dpkg/lock-frontend.",
            "another package installation",
        );
        check("write error (28: No space left on device)", "disk is full");
        check(
            "E: You don't have enough free space in /var/cache/apt/",
            "disk is full",
        );
        check(
            "Err: Temporary failure resolving 'example.org'",
            "no network",
        );
        check("E: Unable to locate package runc", "universe");
        check(
            "E: dpkg was interrupted, you must manually run",
            "dpkg --configure -a",
        );
        check("something new", "lines above");
    }

    #[test]
    fn the_line_to_paste_is_one_line() {
        assert_eq!(
            line_to_paste(&["nodejs", "python3"]),
            "sudo apt-get update && sudo apt-get install -y nodejs python3"
        );
    }

    #[test]
    fn what_is_there_needs_nothing() {
        let there = Need {
            probe: Probe::Program(&["sh"]),
            ..NOTHING
        };
        ensure(&[there]).expect("sh is there");
    }
}
