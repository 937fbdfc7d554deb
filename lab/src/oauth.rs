//! `cargo xtask oauth`: OAuth as ChatGPT, Claude, Claude Code and plain clients go
//! through it, with people's consent in a real browser, in a small internet of
//! network namespaces. Reaches no network but that one, and leaves nothing of it:
//! the namespaces end with the process that holds them.

mod leaks;
mod serving;
mod world;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::live::{CLEAN_PATH, Home};
use crate::npm::Packages;
use crate::{browser, venv};
use serving::{Serving, Site};
use world::World;
use xtask::apt::{self, Need, Probe};
use xtask::tally::Counts;
use xtask::{build, process};

/// What this check cannot do without, besides a browser and Node.
pub(crate) const NEEDS: [Need; 3] = [
    Need {
        probe: Probe::Program(&["ip"]),
        packages: &["iproute2"],
        reason: "to lay the network between clients, a proxy and the server",
        required: true,
    },
    Need {
        probe: Probe::Program(&["unshare"]),
        packages: &["util-linux"],
        reason: "to make network namespaces",
        required: true,
    },
    Need {
        probe: Probe::Program(&["openssl"]),
        packages: &["openssl"],
        reason: "to make certificates for hosts that are played",
        required: true,
    },
];

/// Seconds that one program of these may take.
const PATIENCE: &str = "120";

/// What is played, in this order.
pub(crate) const ACTS: [&str; 8] = [
    "clients",
    "forwarded",
    "attacks",
    "keys",
    "local",
    "sdk",
    "client",
    "python",
];

/// How a check's line begins, by what came of it.
const PASSED: &str = "ok      ";
const FAILED: &str = "FAILED  ";

/// The line with which a program says that it left out none of its checks.
const END: &str = "end of checks";

/// Makes the namespaces and plays everything in them, or the acts that are named.
///
/// # Errors
/// When namespaces cannot be made.
pub(crate) fn oauth(binary: &Path, acts: &[String]) -> Result<ExitCode> {
    // While there is still a network to fetch them from.
    apt::ensure(&NEEDS)?;
    Packages::ready()?;
    venv::bin()?;
    let mut unshare = unshare();
    probe(&unshare)?;
    unshare.arg(env::current_exe().context("failed to find this program's own file")?);
    unshare.args(["oauth", "--inside", "--binary"]).arg(binary);
    unshare.args(acts);
    let status = unshare.status().context("failed to start unshare")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Returns the command that makes a network, a mount table and a list of processes
/// of their own for what follows it; all of it ends with the command. An ordinary
/// user is root in there.
fn unshare() -> Command {
    let mut unshare = process::command("unshare");
    if !process::is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "--mount", "--pid", "--mount-proc"]);
    unshare.args(["--fork", "--kill-child"]);
    unshare
}

/// Tries it, so that the cure is named where the machine forbids it.
fn probe(unshare: &Command) -> Result<()> {
    let mut trial = process::command(unshare.get_program());
    trial.args(unshare.get_args()).arg("true");
    if process::succeeds(&mut trial) {
        return Ok(());
    }
    if process::is_root() {
        bail!(
            "this root may make no namespaces (`unshare --net --mount --pid`): run it on the machine itself, or in a container with --privileged"
        );
    }
    bail!(
        "ordinary users may make no namespaces here: run it as root, or allow them with `sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`"
    )
}

/// Plays everything, in namespaces that were made before.
///
/// # Errors
/// When the world cannot be made or a server does not start.
pub(crate) fn inside(binary: &Path, acts: &[String]) -> Result<Counts> {
    let home = Home::new()?;
    let packages = Packages::ready()?;
    let mut world = World::new(home.path(), &packages)?;
    let named = Serving::start(binary, &world, &Site::NAMED)?;
    let bare = Serving::start(binary, &world, &Site::BARE)?;
    let keyed = Serving::start(binary, &world, &Site::KEYED)?;
    world.start_proxy(&packages, &[&named, &bare, &keyed])?;
    let play = Play {
        packages,
        python: venv::bin()?.join("python"),
        browser: browser::find()?,
        home: &home,
        world: &world,
        servers: [&named, &bare, &keyed],
    };
    let mut counts = Counts::default();
    let is_whole = acts.is_empty();
    for act in ACTS
        .iter()
        .filter(|act| is_whole || acts.iter().any(|one| one == *act))
    {
        play.act(&mut counts, act)?;
    }
    drop(play);
    let places = [named.stop()?, bare.stop()?, keyed.stop()?];
    // Parts of the play hand out too few secrets for a search to mean anything.
    if is_whole {
        let found = leaks::search(&world.secrets(), &places)?;
        tell(&mut counts, "no secret is in a file or a log", &found);
    }
    Ok(counts)
}

/// Counts a check of our own; `wrong` is what was seen, empty where it held.
fn tell(counts: &mut Counts, name: &str, wrong: &str) {
    if wrong.is_empty() {
        println!("{PASSED}{name}");
        counts.passed += 1;
    } else {
        println!("{FAILED}{name}: {wrong}");
        counts.failed += 1;
    }
}

/// What the programs need that play clients and people.
struct Play<'a> {
    packages: Packages,
    python: PathBuf,
    browser: PathBuf,
    home: &'a Home,
    world: &'a World,
    servers: [&'a Serving; 3],
}

impl Play<'_> {
    /// Plays an act of [`ACTS`].
    fn act(&self, counts: &mut Counts, act: &str) -> Result<()> {
        let mut program = match act {
            "python" => process::command(&self.python),
            _ => self.packages.node(),
        };
        program.arg(script_at(match act {
            "sdk" | "client" => "stock.mjs",
            "python" => "stock.py",
            _ => "main.mjs",
        }));
        program.arg(act);
        self.run(counts, act, &program, act == "local")
    }

    /// Runs a program to its end, and counts the checks that it prints.
    fn run(&self, counts: &mut Counts, name: &str, program: &Command, beside: bool) -> Result<()> {
        let mut command = process::command("timeout");
        command
            .arg(PATIENCE)
            .arg(program.get_program())
            .args(program.get_args())
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .env("HOME", self.home.path())
            .env("TMPDIR", self.home.tmp())
            .env("PLAY", self.setting()?);
        for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
            command.env(name, self.world.authority());
        }
        if let Some(directory) = program.get_current_dir() {
            command.current_dir(directory);
        }
        if beside {
            command = self.world.beside_server(&command);
        }
        let (status, output) = process::tee("run the checks of OAuth", &mut command)?;
        let begin = |mark| output.lines().filter(|line| line.starts_with(mark)).count();
        counts.passed += u32::try_from(begin(PASSED))?;
        counts.failed += u32::try_from(begin(FAILED))?;
        let ended = status.success() && output.lines().any(|line| line == END);
        if !ended {
            tell(
                counts,
                name,
                &format!("it ended with {status}, and too early"),
            );
        }
        Ok(())
    }

    /// What the scripts are told of the world, as JSON.
    fn setting(&self) -> Result<String> {
        let pictures = build::target_directory().join("xtask/oauth");
        fs::create_dir_all(&pictures)
            .with_context(|| format!("failed to make {}", pictures.display()))?;
        let [named, bare, keyed] = self.servers.map(Serving::told);
        let told = serde_json::json!({
            "chromium": self.browser,
            "pictures": pictures,
            "secrets": self.world.secrets(),
            "trap": self.world.trapped(),
            "certificate": self.world.certificate(),
            "key": self.world.key(),
            "authority": self.world.authority(),
            "clients": world::CLIENT,
            "server": world::SERVER,
            "name_server": world::NAME_SERVER,
            "hosts": world::hosts().collect::<Vec<_>>(),
            "named": named,
            "bare": bare,
            "keyed": keyed,
        });
        Ok(told.to_string())
    }
}

/// A file of `lab/oauth`.
fn script_at(name: &str) -> OsString {
    process::root().join("lab/oauth").join(name).into()
}
