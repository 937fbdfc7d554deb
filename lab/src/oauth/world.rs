//! The small internet: one namespace with clients and the hosts of others, one with
//! the proxy, one with the server. Its addresses look public and lead nowhere else,
//! since no namespace has a way out.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::script_at;
use super::serving::{Serving, Site};
use crate::live::CLEAN_PATH;
use crate::npm::Packages;
use xtask::process;

/// The first address of clients; more follow.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(52, 0, 0, 100);
const CLIENTS: u8 = 40;

/// The proxy, as the world and as the server see it, and the server.
const PROXY: Ipv4Addr = Ipv4Addr::new(52, 0, 0, 2);
pub(super) const PROXY_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Hosts of the internet with their addresses. The documents of the last ones are
/// good, but where they are nobody may be sent: the trap waits there.
const HOSTS: [(&str, &str); 14] = [
    ("chatgpt.com", "52.0.0.10"),
    ("claude.ai", "52.0.0.11"),
    ("claude.com", "52.0.0.12"),
    ("app.stranger.example", "52.0.0.13"),
    ("other.stranger.example", "52.0.0.14"),
    ("private.stranger.example", "10.99.0.1"),
    ("carrier.stranger.example", "100.64.0.1"),
    ("loopback.stranger.example", "127.0.0.1"),
    ("metadata.stranger.example", "169.254.169.254"),
    ("itself.stranger.example", "10.77.0.2"),
    ("loopback6.stranger.example", "::1"),
    ("local6.stranger.example", "fd00::1"),
    ("mapped.stranger.example", "::ffff:10.99.0.1"),
    ("translated.stranger.example", "64:ff9b::a63:1"),
];

/// Names that a name server answers for, each time otherwise.
const FICKLE: [&str; 2] = ["rebound.stranger.example", "mixed.stranger.example"];

/// Where that name server is, while a script plays it.
pub(super) const NAME_SERVER: &str = "52.0.0.10";

/// Addresses that the server's namespace has besides its own.
const TRAPS: [&str; 5] = [
    "10.99.0.1/32",
    "100.64.0.1/32",
    "169.254.169.254/32",
    "fd00::1/128",
    "64:ff9b::a63:1/128",
];

/// How long a helper may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespaces with their cables, names and certificates.
#[derive(Debug)]
pub(super) struct World {
    directory: PathBuf,
    proxy: Namespace,
    server: Namespace,
    helpers: Vec<Running>,
}

/// A network namespace, for as long as its holder lives.
#[derive(Debug)]
struct Namespace {
    holder: Running,
}

/// A process that ends with us.
#[derive(Debug)]
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.kill().is_ok() && self.0.wait().is_err() {
            eprintln!("warning: process {} could not be reaped", self.0.id());
        }
    }
}

impl Running {
    /// Starts a program that is then left alone.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(
            child.with_context(|| format!("failed to start {program}"))?,
        ))
    }

    /// Returns its child.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Namespace {
    fn new() -> Result<Self> {
        let mut unshare = process::command("unshare");
        unshare.args(["--net", "sleep", "infinity"]);
        let holder = Running::start(&mut unshare)?;
        let namespace = Self { holder };
        let ours = fs::read_link("/proc/self/ns/net").context("failed to read our namespace")?;
        let deadline = Instant::now() + PATIENCE;
        while fs::read_link(namespace.path())
            .ok()
            .is_none_or(|one| one == ours)
        {
            ensure!(
                Instant::now() < deadline,
                "a network namespace was not made"
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(namespace)
    }

    fn pid(&self) -> u32 {
        self.holder.0.id()
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// Returns a command that does in it what another does here, with nothing in its
    /// environment but what that one is given.
    fn carry(&self, command: &Command) -> Command {
        let mut carried = self.command(command.get_program());
        carried.args(command.get_args());
        carried.env_clear().env("PATH", CLEAN_PATH);
        if let Some(directory) = command.get_current_dir() {
            carried.current_dir(directory);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => carried.env(name, value),
                None => carried.env_remove(name),
            };
        }
        carried
    }

    /// Returns a command that runs in it.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut nsenter = process::command("nsenter");
        nsenter.arg(format!("--net={}", self.path())).arg(program);
        nsenter
    }

    /// Runs `ip` in it with lines of its commands.
    fn ip(&self, lines: &[String]) -> Result<()> {
        ip(self.command("ip"), lines)
    }
}

/// Runs `ip` with lines of its commands.
fn ip(mut command: Command, lines: &[String]) -> Result<()> {
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().context("failed to start ip")?;
    let mut input = child.stdin.take().context("ip has no input")?;
    input
        .write_all(lines.join("\n").as_bytes())
        .context("failed to tell ip what to do")?;
    drop(input);
    let status = child.wait().context("failed to wait for ip")?;
    ensure!(
        status.success(),
        "failed to lay the network: ip ended with {status}"
    );
    Ok(())
}

/// Returns the hosts with their addresses.
pub(super) fn hosts() -> impl Iterator<Item = (&'static str, &'static str)> {
    HOSTS.into_iter()
}

impl World {
    /// Makes it, with its files in a directory.
    ///
    /// # Errors
    /// With the step that failed.
    pub(super) fn new(directory: &Path, packages: &Packages) -> Result<Self> {
        let (proxy, server) = (Namespace::new()?, Namespace::new()?);
        connect(&proxy, &server)?;
        name(directory)?;
        certify(directory)?;
        let mut world = Self {
            directory: directory.to_owned(),
            proxy,
            server,
            helpers: Vec::new(),
        };
        let mut trap = packages.node();
        trap.arg(script_at("trap.mjs"));
        trap.args([world.certificate(), world.key(), world.trapped()]);
        let trap = world.server.carry(&trap);
        world.help(trap, "trap")?;
        Ok(world)
    }

    /// Starts the proxy before servers: names with the ports that they lead to.
    ///
    /// # Errors
    /// When it does not listen.
    pub(super) fn start_proxy(&mut self, packages: &Packages, servers: &[&Serving]) -> Result<()> {
        let mut node = packages.node();
        node.arg(script_at("proxy.mjs"));
        node.args([self.certificate(), self.key()]);
        node.arg(SERVER.to_string());
        for server in servers {
            node.args([server.site.host, &server.site.port.to_string()]);
        }
        let proxy = self.proxy.carry(&node);
        self.help(proxy, "proxy")
    }

    /// Starts a program that lasts, and waits for its word that it is ready.
    fn help(&mut self, mut command: Command, name: &str) -> Result<()> {
        let log = self.directory.join(name).with_extension("log");
        let file =
            fs::File::create(&log).with_context(|| format!("failed to make {name}'s log"))?;
        let mut helper = Running::start(command.stdout(file))?;
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(&log).is_ok_and(|said| said.contains("ready")) {
            let ended = helper
                .child()
                .try_wait()
                .context("failed to ask for a helper's end")?;
            ensure!(ended.is_none(), "the {name} ended before it listened");
            ensure!(Instant::now() < deadline, "the {name} does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        self.helpers.push(helper);
        Ok(())
    }

    /// Returns a command that does on the server's machine what another does here.
    pub(super) fn beside_server(&self, command: &Command) -> Command {
        self.server.carry(command)
    }

    /// Returns the file of the certificate that all trust.
    pub(super) fn authority(&self) -> PathBuf {
        self.directory.join("authority.pem")
    }

    /// Returns the file of every host's certificate, with the authority's behind it.
    pub(super) fn certificate(&self) -> PathBuf {
        self.directory.join("hosts.pem")
    }

    /// Returns the file of every host's key.
    pub(super) fn key(&self) -> PathBuf {
        self.directory.join("hosts.key")
    }

    /// Returns the file to which the trap writes who came.
    pub(super) fn trapped(&self) -> PathBuf {
        self.directory.join("trapped")
    }

    /// Returns the file of the secrets that were handed out, one a line.
    pub(super) fn secrets(&self) -> PathBuf {
        self.directory.join("secrets")
    }
}

/// Lays the cables: clients and hosts, proxy, server, in this order.
fn connect(proxy: &Namespace, server: &Namespace) -> Result<()> {
    let mut outside: Vec<String> = vec![
        "link set lo up".to_owned(),
        format!(
            "link add world type veth peer name world netns {}",
            proxy.pid()
        ),
        "link set world up".to_owned(),
    ];
    // The first of them is where clients come from that do not say.
    let clients = (0..CLIENTS).map(|at| Ipv4Addr::from(u32::from(CLIENT) + u32::from(at)));
    outside.extend(clients.map(|one| format!("addr add {one}/24 dev world")));
    let mut public: Vec<&str> = HOSTS.map(|(_, address)| address).to_vec();
    public.sort_unstable();
    public.dedup();
    let public = public.iter().filter(|address| address.starts_with("52."));
    outside.extend(public.map(|address| format!("addr add {address}/24 dev world")));
    outside.push(format!("route add 10.77.0.0/24 via {PROXY}"));
    ip(process::command("ip"), &outside)?;
    proxy.ip(&[
        "link set lo up".to_owned(),
        format!("addr add {PROXY}/24 dev world"),
        "link set world up".to_owned(),
        format!(
            "link add inner type veth peer name inner netns {}",
            server.pid()
        ),
        format!("addr add {PROXY_INSIDE}/24 dev inner"),
        "link set inner up".to_owned(),
    ])?;
    let mut forward = proxy.command("sh");
    forward.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    process::run("let the proxy's machine forward", &mut forward)?;
    let mut inside = vec![
        "link set lo up".to_owned(),
        format!("addr add {SERVER}/24 dev inner"),
        "link set inner up".to_owned(),
        format!("route add default via {PROXY_INSIDE}"),
    ];
    inside.extend(TRAPS.map(|address| format!("addr add {address} dev lo")));
    server.ip(&inside)
}

/// Gives the names: in here, for all.
fn name(directory: &Path) -> Result<()> {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for site in Site::ALL {
        text.push_str(&format!("{PROXY} {}\n", site.host));
    }
    for (name, address) in HOSTS {
        text.push_str(&format!("{address} {name}\n"));
    }
    let servers = format!("nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n");
    for (name, text) in [("hosts", text), ("resolv.conf", servers)] {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("failed to write {name}"))?;
        let mut mount = process::command("mount");
        mount
            .arg("--bind")
            .arg(&file)
            .arg(Path::new("/etc").join(name));
        process::run("give the names of hosts", &mut mount)?;
    }
    Ok(())
}

/// Makes an authority, and a certificate of it for every host.
fn certify(directory: &Path) -> Result<()> {
    let mut names: Vec<&str> = HOSTS.map(|(name, _)| name).to_vec();
    names.extend(Site::ALL.map(|site| site.host));
    names.extend(FICKLE);
    names.sort_unstable();
    names.dedup();
    let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let openssl = |line: &str, more: &[&str]| {
        let mut openssl = process::command("openssl");
        openssl.current_dir(directory);
        openssl.args(line.split_whitespace()).args(more);
        process::capture("make certificates", &mut openssl).map(drop)
    };
    openssl(
        &format!(
            "req -x509 {key} -days 2 -keyout authority.key -out authority.pem -subj /CN=check"
        ),
        &[],
    )?;
    openssl(
        &format!("req {key} -keyout hosts.key -out hosts.csr -subj /CN=hosts -addext"),
        &[&names],
    )?;
    openssl(
        "x509 -req -in hosts.csr -CA authority.pem -CAkey authority.key -days 2 -copy_extensions copy -out host.pem",
        &[],
    )?;
    let read =
        |name| fs::read(directory.join(name)).with_context(|| format!("failed to read {name}"));
    let chain = [read("host.pem")?, read("authority.pem")?].concat();
    fs::write(directory.join("hosts.pem"), chain).context("failed to write the certificates")
}
