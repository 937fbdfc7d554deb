//! `cargo xtask image`: the image of the Dockerfile put together by hand, from
//! the same lists and settings, and started by runc as Docker would: each
//! variant with each documented set of flags has the rung that is promised.
//!
//! What it can't see is Docker itself: whether its builder takes the file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::container::attack::{self, Target};
use crate::container::bundle::Bundle;
use crate::container::spec::{Program, Security};
use crate::container::{self, RUNC};
use crate::debian;
use crate::http::Client;
use crate::live::{Home, Server};
use xtask::apt;
use xtask::dist;
use xtask::process;

/// How long a run takes that a stop has to wait for, and when the stop comes.
const RUN: &str = "import time; time.sleep(1.5); print('done')";
const STOP_AFTER: Duration = Duration::from_millis(700);

/// The users of both variants with the flags that documents name, and the rung
/// that they promise; none: the server refuses.
const PROMISES: [(Variant, Security, Option<&str>); 5] = [
    (Variant::Root, Security::Default, Some("uids")),
    (Variant::Root, Security::Cured, Some("namespaces")),
    (Variant::Root, Security::Writable, Some("full")),
    (Variant::Ordinary, Security::Default, None),
    (Variant::Ordinary, Security::Cured, Some("namespaces")),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Root,
    Ordinary,
}

/// All variants with all flags.
pub(crate) fn image(binary: Option<PathBuf>) -> Result<()> {
    apt::ensure(&[RUNC])?;
    let recipe = Recipe::read()?;
    let packages = debian::image_packages()?;
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    let root = debian::root("image", &recipe.suite, &packages)?;
    let binary = match binary {
        Some(binary) => binary,
        // Static, so that the C library of this machine does not matter.
        None => dist::static_dev_binary()?,
    };
    let bytes =
        fs::read(&binary).with_context(|| format!("failed to read {}", binary.display()))?;
    debian::install(&root, "usr/local/bin/codex-server", &bytes, 0o755)?;
    for (variant, security, promised) in PROMISES {
        let home = Home::new()?;
        let program = recipe.program(&home, &root, variant)?;
        let bundle = Bundle::new(&home, &program, security)?;
        let started = Server::spawn(&mut bundle.run()?, None);
        let told = match (started, promised) {
            (Err(error), None) => container::refused_with_cure(&format!("{error:#}")),
            (Err(error), Some(_)) => Err(error),
            (Ok(_), None) => Err(anyhow::anyhow!("the server serves, and should refuse")),
            (Ok(server), Some(rung)) => serves(server, &bundle, rung),
        };
        bundle.end()?;
        told.with_context(|| format!("the image as {variant:?} with flags {security:?}"))?;
        let rung = promised.unwrap_or("refused, with the cure");
        println!("image as {variant:?} with flags {security:?}: {rung}");
    }
    Ok(())
}

/// It is as isolated as promised, healthy by its own word, and ends in order.
fn serves(server: Server, bundle: &Bundle, promised: &'static str) -> Result<()> {
    let create = ["codex-server", "token", "create", "check"];
    let mut create = bundle.exec(&create)?;
    let token = crate::live::token_of(&process::capture("make a token", &mut create)?)?;
    let pid = bundle.state_pid()?;
    let address = server.address;
    let target = Target {
        address,
        token: token.clone(),
        state: "/data".into(),
    };
    let told = container::inside_network(pid, move || attack::all(&target, promised))?;
    ensure!(told == promised, "promised {promised}, and got {told}");
    let mut health = bundle.exec(&["codex-server", "health"])?;
    let said = process::capture("ask for its health", &mut health)?;
    ensure!(said.contains(promised), "`health` says {said:?}");
    // As process 1 of its container a stop reaches it and waits for its runs.
    let client = thread::spawn(move || {
        container::inside_network(pid, move || {
            Client::new(address, Some(&token))
                .execute("python", RUN)?
                .json()
        })
    });
    thread::sleep(STOP_AFTER);
    let status = server.stop()?;
    ensure!(
        status.success(),
        "the server ended with {status} after SIGTERM"
    );
    let answer = client.join().ok().context("the client panicked")??;
    ensure!(
        answer["output"] == "done\n",
        "a stop cut a run short: {answer}"
    );
    Ok(())
}

/// What the Dockerfile says of the images.
#[derive(Debug)]
struct Recipe {
    suite: String,
    arguments: Vec<String>,
    uid: u32,
}

impl Recipe {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(process::root().join("Dockerfile"))
            .context("failed to read the Dockerfile")?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let line = |start: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(start))
                .with_context(|| format!("the Dockerfile has no line `{start}…`"))
        };
        let list = |start: &str| -> Result<Vec<String>> {
            serde_json::from_str(line(start)?)
                .with_context(|| format!("`{start}…` in the Dockerfile is no JSON list"))
        };
        let uid = line("USER ")?.split(':').next().unwrap_or_default();
        Ok(Self {
            suite: line("ARG DEBIAN=")?.to_owned(),
            arguments: [list("ENTRYPOINT ")?, list("CMD ")?].concat(),
            uid: uid
                .parse()
                .context("`USER` in the Dockerfile is no number")?,
        })
    }

    /// What Docker would start, on a free port, with a volume of its own.
    fn program(&self, home: &Home, root: &Path, variant: Variant) -> Result<Program> {
        let (uid, mode) = match variant {
            Variant::Root => (0, 0o711),
            Variant::Ordinary => (self.uid, 0o700),
        };
        let data = home.data();
        chown(&data, Some(uid), Some(uid)).context("failed to give the volume away")?;
        fs::set_permissions(&data, fs::Permissions::from_mode(mode))
            .context("failed to set the volume's mode")?;
        let mut arguments = self.arguments.clone();
        arguments.extend(["--port".to_owned(), "0".to_owned()]);
        Ok(Program {
            root: root.to_owned(),
            host_usr: false,
            arguments,
            uid,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_is_understood() {
        let recipe = Recipe::read().expect("it is understood");
        assert_eq!(recipe.suite, "bookworm");
        assert_eq!(recipe.arguments[..2], ["codex-server", "serve"]);
        assert!(recipe.uid >= 10_000);
        assert!(Recipe::parse("FROM debian\n").is_err());
    }

    #[test]
    fn the_image_is_made_of_what_is_checked_here() {
        let text = fs::read_to_string(process::root().join("Dockerfile")).expect("there");
        for part in [
            "COPY packaging/debian-packages.txt",
            "COPY packaging/stub-crates.sh",
            "install -d -m 711 /data",
            "install -d -o codex -g codex -m 700 /data",
            "ENV CODEX_HOME=/data",
            "CMD [\"codex-server\", \"health\"]",
        ] {
            assert!(text.contains(part), "lacks {part:?}");
        }
        // Railway refuses both.
        assert!(!text.contains("\nVOLUME") && !text.contains("--mount=type=cache"));
    }

    /// A target that the stubs forget would fail the image's first step.
    #[test]
    fn stubs_are_enough_for_cargo() {
        let scratch = tempfile::tempdir().expect("a directory");
        let copy = |path: &str| {
            let to = scratch.path().join(path);
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            fs::copy(process::root().join(path), to).expect("copied");
        };
        let dockerfile = fs::read_to_string(process::root().join("Dockerfile")).expect("there");
        let stub = dockerfile.split("WORKDIR /src").next().expect("split");
        for line in stub.lines().filter_map(|line| line.strip_prefix("COPY ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for word in &words[..words.len() - 1] {
                copy(word);
            }
        }
        let mut shell = process::command("sh");
        shell
            .current_dir(scratch.path())
            .arg("packaging/stub-crates.sh");
        process::run("make stubs", &mut shell).expect("they are made");
        let mut cargo = process::cargo();
        cargo.current_dir(scratch.path());
        cargo.args([
            "metadata",
            "--offline",
            "--locked",
            "--format-version",
            "1",
            "--no-deps",
        ]);
        let said = process::capture("read the stubs", &mut cargo).expect("cargo reads them");
        assert!(said.contains("\"codex-server\""), "{said}");
    }
}
