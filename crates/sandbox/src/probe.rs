//! Which rung of the ladder holds here: tried by making a real box and
//! attacking it from inside, strongest rung first.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::time::Timespec;

use crate::cure;
use crate::error::{At as _, Error, Step};
use crate::event::Event;
use crate::launcher::Launcher;
use crate::limits::Limits;
use crate::protocol::Targets;
use crate::spec::{Mount, Spec};
use crate::support::{Isolation, Layer, Support};

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a warden on the strongest of `rungs` that holds, weakest and
/// strongest included.
///
/// Must be called before this process has threads.
///
/// # Errors
/// A [`Refusal`] when none of them holds.
pub fn launch(rungs: RangeInclusive<Isolation>) -> Result<(Launcher, Support), Refusal> {
    let (launcher, support) = choose(*rungs.end());
    let found = support.isolation;
    match launcher {
        Some(launcher) if found >= Some(*rungs.start()) => Ok((launcher, support)),
        _ => Err(Refusal {
            least: *rungs.start(),
            support,
        }),
    }
}

/// No isolation holds here that would do. Its text says what failed, layer by
/// layer, and the cure for this host.
#[derive(Debug)]
pub struct Refusal {
    /// The least that would have done.
    pub least: Isolation,
    /// What was found.
    pub support: Support,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.support.isolation {
            Some(found) => write!(
                f,
                "isolation {} was asked for (--min-isolation), but only {found} holds here",
                self.least
            )?,
            None => {
                f.write_str("no sound sandbox can be set up here, and without one nothing is run")?
            }
        }
        if let Some(found) = self.support.isolation {
            write!(
                f,
                "\n  to accept that, at your own risk: --min-isolation {found}"
            )?;
        }
        for layer in self.support.layers.iter().filter(|layer| !layer.holds) {
            write!(f, "\n  {}: {}", layer.name, layer.detail)?;
            if !layer.cure.is_empty() {
                write!(f, "\n    cure: {}", layer.cure)?;
            }
        }
        Ok(())
    }
}

/// What holds here. Starts and ends wardens of its own.
#[must_use]
pub fn probe() -> Support {
    choose(Isolation::Full).1
}

fn choose(strongest: Isolation) -> (Option<Launcher>, Support) {
    let mut layers: Vec<Layer> = Vec::new();
    for rung in Isolation::LADDER
        .into_iter()
        .filter(|rung| *rung <= strongest)
    {
        match attempt(rung) {
            Ok((launcher, found)) if found.iter().all(|layer| layer.holds) => {
                layers.retain(|layer| !layer.holds);
                layers.extend(found);
                let support = Support {
                    isolation: Some(rung),
                    layers,
                };
                return (Some(launcher), support);
            }
            Ok((_, found)) => merge(&mut layers, found),
            Err(error) => merge(&mut layers, vec![failed(&error)]),
        }
    }
    let support = Support {
        isolation: None,
        layers,
    };
    (None, support)
}

/// A lower rung often fails where a higher one did: once is enough to say.
fn merge(layers: &mut Vec<Layer>, found: Vec<Layer>) {
    for layer in found {
        if !layers
            .iter()
            .any(|known| known.name == layer.name && known.holds == layer.holds)
        {
            layers.push(layer);
        }
    }
}

fn failed(error: &Error) -> Layer {
    let detail = if error.detail.is_empty() {
        format!("failed to {}: {}", error.step.as_str(), error.source)
    } else {
        format!(
            "failed to {}: {} ({})",
            error.step.as_str(),
            error.source,
            error.detail
        )
    };
    Layer {
        name: cure::layer(error.step).to_owned(),
        holds: false,
        detail,
        cure: cure::of(error.step, error.errno(), &cure::Host::detect()),
    }
}

fn attempt(rung: Isolation) -> Result<(Launcher, Vec<Layer>), Error> {
    let launcher = Launcher::start(rung)?;
    let findings = attacked(&launcher)?;
    let mut layers = vec![Layer {
        name: "uid".to_owned(),
        holds: true,
        detail: match rung {
            _ if launcher.own_uids() => "each box has a host uid of its own",
            _ => "boxes share the server's uid, apart by user namespace",
        }
        .to_owned(),
        cure: String::new(),
    }];
    if rung == Isolation::Full {
        layers.push(Layer {
            name: "cgroup".to_owned(),
            holds: true,
            detail: launcher.cgroup().to_owned(),
            cure: String::new(),
        });
    }
    layers.extend(findings.into_iter().map(|(name, holds, detail)| Layer {
        cure: if holds {
            String::new()
        } else {
            cure::report(&name)
        },
        name,
        holds,
        detail,
    }));
    Ok((launcher, layers))
}

/// Makes a box and attacks it.
fn attacked(launcher: &Launcher) -> Result<Vec<(String, bool, String)>, Error> {
    let bait = Bait::laid().at(Step::SelfTest)?;
    let spec = Spec {
        mounts: Path::new("/usr")
            .is_dir()
            .then(|| Mount::same("/usr"))
            .into_iter()
            .collect(),
        limits: Limits {
            memory: 64 * 1024 * 1024,
            processes: 8,
            cpu_millis: 1000,
            workspace: 1024 * 1024,
            inodes: 64,
            shm: 1024 * 1024,
            open_files: 64,
        },
        lifetime: Some(TIMEOUT),
        adopts: false,
    };
    let sandbox = launcher.create(&spec)?;
    let until = Instant::now() + TIMEOUT;
    loop {
        wait_for(&[sandbox.events(), sandbox.reports()], until)?;
        // The warden's word first: it knows why init is gone.
        sandbox.report()?;
        match sandbox.event() {
            Ok(Some(Event::Ready { workspace, .. })) => {
                can_collect(&workspace)?;
                sandbox.self_test(bait.targets(launcher))?;
            }
            Ok(Some(Event::SelfTested(mut findings))) => {
                findings.push(bait.untouched());
                return Ok(findings);
            }
            Ok(_) => {}
            // Init is gone: the warden's word on it follows.
            Err(error) if error.step == Step::Init => {
                wait_for(&[sandbox.reports()], until)?;
                return Err(sandbox.report().err().unwrap_or(error));
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the attacks of a probe aim at: it is the server's, and everybody of
/// this machine may read or call it. What comes of an attack is seen from here,
/// too, not only by the attacker.
#[derive(Debug)]
struct Bait {
    canary: PathBuf,
    port: TcpListener,
    socket: UnixListener,
    name: String,
}

/// Where the canary may be: the first place that can be written to.
const PLACES: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
const SONG: &[u8] = b"canary";

impl Bait {
    fn laid() -> std::io::Result<Self> {
        static LAID: AtomicU32 = AtomicU32::new(0);
        let number = LAID.fetch_add(1, Ordering::Relaxed);
        let name = format!("codex-server-canary-{}-{number}", std::process::id());
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        port.set_nonblocking(true)?;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
        let socket = UnixListener::bind_addr(&address)?;
        socket.set_nonblocking(true)?;
        let place = |place: &str| {
            let path = Path::new(place).join(&name);
            let mut file = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o666)
                .open(&path)
                .ok()?;
            file.write_all(SONG).ok()?;
            Some(path)
        };
        let canary = PLACES.into_iter().find_map(place).unwrap_or_default();
        Ok(Self {
            canary,
            port,
            socket,
            name,
        })
    }

    fn targets(&self, launcher: &Launcher) -> Targets {
        let port = self.port.local_addr().map_or(0, |address| address.port());
        Targets {
            server: std::process::id(),
            warden: launcher.warden_id(),
            canary: self.canary.clone(),
            port: u32::from(port),
            name: self.name.clone(),
        }
    }

    /// Whether nobody called, and the canary is as it was.
    fn untouched(&self) -> (String, bool, String) {
        let called = self.port.accept().is_ok() || self.socket.accept().is_ok();
        let sings = self.canary.as_os_str().is_empty()
            || fs::read(&self.canary).is_ok_and(|song| song == SONG);
        let met = match (called, sings) {
            (true, _) => "somebody in the box reached a listener of the host",
            (_, false) => "somebody in the box changed a file of the host",
            _ => "no listener was reached, no file changed",
        };
        ("host".to_owned(), !called && sings, met.to_owned())
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        // Empty when there was no place for one.
        fs::remove_file(&self.canary).ok();
    }
}

/// Files are collected by a call that some service managers' filters refuse.
fn can_collect(workspace: &OwnedFd) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(workspace, ".", flags, Mode::empty(), resolve)
        .map(drop)
        .at(Step::Workspace)
        .map_err(|error| error.with("openat2 is refused to the server itself: in a systemd unit, leave RestrictSUIDSGID out"))
}

fn wait_for(any: &[BorrowedFd<'_>], until: Instant) -> Result<(), Error> {
    let mut fds: Vec<_> = any
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).ok();
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(0) => Err(Error::new(
            Step::SelfTest,
            std::io::Error::from(std::io::ErrorKind::TimedOut),
        )),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::new(Step::SelfTest, errno)),
    }
}
