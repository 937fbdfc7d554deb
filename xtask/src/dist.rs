//! `cargo xtask dist`: the server as one static file in a tarball, so that
//! nobody needs Rust to use it, with `install.sh` beside it, and in a bundle that
//! desktop clients of MCP install.
//!
//! Linked with musl, it needs no C library of the machine it runs on. The same
//! commit gives the same bytes: paths of this machine, times and owners stay
//! out. Never publishes anything.

mod elf;
mod installer;
mod licences;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Need, Probe};
use crate::build;
use crate::lab;
use crate::process;

/// The architectures that there is a policy of system calls for.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

const COMPILER: Need = Need {
    probe: Probe::Program(&["musl-gcc"]),
    packages: &["musl-tools"],
    reason: "to compile the built-in SQLite for a static binary",
    required: true,
};

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architecture to build for; another than this machine's needs a C
    /// compiler for it in `CC_<arch>_unknown_linux_musl`.
    #[arg(long, default_value = std::env::consts::ARCH, value_parser = ARCHITECTURES)]
    arch: String,
    /// Where the tarball, install.sh, the bundle and SHA256SUMS go; `target/dist`
    /// when left out.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Where the release will be fetched from, for install.sh: it puts its version
    /// in the place of {version}, and asks for an address where none is given.
    #[arg(long, default_value = "")]
    address: String,
    /// Then install it in fresh Debian systems by install.sh, and run and serve there.
    #[arg(long = "try")]
    tried: bool,
    /// In the dev profile, in a fraction of the time: for trying this command.
    #[arg(long)]
    dev: bool,
}

/// Builds, packs and, if asked to, tries the tarball.
pub fn dist(arguments: &Arguments) -> Result<()> {
    let target = format!("{}-unknown-linux-musl", arguments.arch);
    let binary = compile(arguments, &target)?;
    let bytes = fs::read(&binary).context("failed to read the binary")?;
    elf::check(&bytes, &arguments.arch)?;
    let output = match &arguments.output {
        Some(output) => std::path::absolute(output).context("failed to resolve --output")?,
        None => build::target_directory().join("dist"),
    };
    let name = format!(
        "codex-server-{}-{}-linux",
        env!("CARGO_PKG_VERSION"),
        arguments.arch
    );
    let native = arguments.arch == std::env::consts::ARCH;
    let scratch = tempfile::tempdir().context("failed to make a directory for the tarball")?;
    let tree = scratch.path().join(&name);
    gather(&binary, &target, &tree, native)?;
    let tarball = tarball::pack(&tree, &output)?;
    let bundle = output.join(format!("{name}.mcpb"));
    let packed = [
        "pack-bundle".as_ref(),
        binary.as_os_str(),
        bundle.as_os_str(),
    ];
    lab::check(&packed)?;
    installer::write(&output, env!("CARGO_PKG_VERSION"), &arguments.address)?;
    tarball::sums(&output)?;
    println!("{}", tarball.display());
    if arguments.tried {
        ensure!(
            native,
            "a tarball for {} can't be tried on this {} machine",
            arguments.arch,
            std::env::consts::ARCH
        );
        let tried = ["try-release".as_ref(), output.as_os_str()];
        lab::check(&tried)?;
    }
    Ok(())
}

/// Makes a tarball of the dev profile, in a place of its own, and tries it.
pub fn tried() -> Result<()> {
    let scratch = tempfile::tempdir().context("failed to make a directory for the tarball")?;
    dist(&Arguments {
        arch: std::env::consts::ARCH.to_owned(),
        output: Some(scratch.path().to_owned()),
        address: String::new(),
        tried: true,
        dev: true,
    })
}

/// A static binary of this machine's architecture, quickly made, for checks in
/// systems with another C library.
pub fn static_dev_binary() -> Result<PathBuf> {
    let arguments = Arguments {
        arch: std::env::consts::ARCH.to_owned(),
        output: None,
        address: String::new(),
        tried: false,
        dev: true,
    };
    compile(
        &arguments,
        &format!("{}-unknown-linux-musl", arguments.arch),
    )
}

/// The static binary.
fn compile(arguments: &Arguments, target: &str) -> Result<PathBuf> {
    let variable = format!("CC_{}", target.replace('-', "_"));
    let compiler = std::env::var_os(&variable);
    if compiler.is_none() {
        if arguments.arch != std::env::consts::ARCH {
            bail!(
                "no C compiler for {target}: run this on such a machine, or name one in {variable}"
            );
        }
        apt::ensure(&[COMPILER])?;
    }
    standard_library(target)?;
    let mut cargo = process::cargo();
    cargo.env(&variable, compiler.unwrap_or_else(|| "musl-gcc".into()));
    // Neither in panics nor in C's assertions may a path of this machine stand.
    let maps = [
        (process::root().to_owned(), "/codex-server"),
        (cargo_home()?, "/cargo"),
    ];
    let map = |flag: &str, joint: &str| {
        let flags = maps
            .iter()
            .map(|(from, to)| format!("{flag}={}={to}", from.display()));
        flags.collect::<Vec<_>>().join(joint)
    };
    cargo.env(
        "CARGO_ENCODED_RUSTFLAGS",
        map("--remap-path-prefix", "\u{1f}"),
    );
    cargo.env(
        format!("CFLAGS_{}", target.replace('-', "_")),
        map("-ffile-prefix-map", " "),
    );
    build::server_for(cargo, target, !arguments.dev)
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    match (std::env::var_os("CARGO_HOME"), std::env::var_os("HOME")) {
        (Some(home), _) => Ok(home.into()),
        (None, Some(home)) => Ok(Path::new(&home).join(".cargo")),
        (None, None) => bail!("neither CARGO_HOME nor HOME is set"),
    }
}

/// Rust's own library for the target, from rustup where it is missing.
fn standard_library(target: &str) -> Result<()> {
    let mut rustc = process::command("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let directory = process::capture("ask rustc where its libraries are", &mut rustc)?;
    if Path::new(directory.trim()).is_dir() {
        return Ok(());
    }
    let mut rustup = process::command("rustup");
    rustup.args(["target", "add", target]);
    process::run("install Rust's library", &mut rustup).with_context(|| {
        format!(
            "install Rust's library for {target} (`rustup target add {target}`), then try again"
        )
    })
}

/// Files of the repository that go along, with their place in the tarball.
const FILES: [(&str, &str); 8] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("SECURITY.md", "SECURITY.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    (
        "packaging/codex-server.service",
        "systemd/codex-server.service",
    ),
    ("packaging/apparmor.profile", "apparmor/codex-server"),
    ("packaging/debian-packages.txt", "debian-packages.txt"),
];

/// What the binary prints for shells: the shell and the file.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "completions/codex-server.bash"),
    ("zsh", "completions/_codex-server"),
    ("fish", "completions/codex-server.fish"),
];

/// Where the pages of the manual go: a directory as `man -M man` takes it.
const MANUAL: &str = "man/man1";

/// Puts everything together below `tree`.
fn gather(binary: &Path, target: &str, tree: &Path, native: bool) -> Result<()> {
    fs::create_dir_all(tree).context("failed to make the tarball's tree")?;
    let place = |path: &str| -> Result<PathBuf> {
        let to = tree.join(path);
        let parent = to.parent().context("a file has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("failed to make {path}'s folder"))?;
        Ok(to)
    };
    let copy = |from: &Path, path: &str| -> Result<()> {
        fs::copy(from, place(path)?)
            .map(drop)
            .with_context(|| format!("failed to copy {}", from.display()))
    };
    copy(binary, "codex-server")?;
    for (from, path) in FILES {
        copy(&process::root().join(from), path)?;
    }
    for entry in fs::read_dir(process::root().join("docs")).context("failed to list docs/")? {
        let path = entry.context("failed to list docs/")?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            copy(&path, &format!("docs/{name}"))?;
        }
    }
    let third = licences::collect(target)?;
    fs::write(place("THIRD-PARTY-LICENSES.txt")?, third).context("failed to write licences")?;
    if native {
        let ask = |arguments: &[&str]| {
            process::capture("run the binary", process::command(binary).args(arguments))
        };
        ensure!(
            ask(&["--version"])?.trim() == format!("codex-server {}", env!("CARGO_PKG_VERSION")),
            "the binary calls itself something else"
        );
        for (shell, path) in COMPLETIONS {
            fs::write(place(path)?, ask(&["completions", shell])?)
                .with_context(|| format!("failed to write {path}"))?;
        }
        let pages = tree.join(MANUAL);
        ask(&["man", "--out", &pages.to_string_lossy()])?;
        let own = pages.join("codex-server.1");
        ensure!(own.is_file(), "the binary wrote no {}", own.display());
    }
    Ok(())
}
