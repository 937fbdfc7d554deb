//! What attacks are after, planted around them: a file of the host's, a secret
//! in the server's environment, a descriptor that the server left open, another
//! tenant, and listeners where a program must not get.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use sandbox::{File, Launcher};

use crate::attack::Bounds;
use crate::run::{Running, limits, python};

/// In every secret; no program has it.
pub(crate) const CANARY: &str = "CANARY-";
/// Holds a secret in the server's environment.
pub(crate) const SECRET: &str = "CODEX_ESCAPE_SECRET";
/// Ports where the other tenant listens, and where it calls.
const TENANT_PORTS: [u16; 2] = [4567, 4999];
/// How long the other tenant may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// The addresses of listeners: loopback, and where clouds keep credentials.
fn addresses() -> [SocketAddr; 4] {
    let metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    [
        ([127, 0, 0, 1], 0).into(),
        (Ipv6Addr::LOCALHOST, 0).into(),
        ([169, 254, 169, 254], 80).into(),
        (metadata, 80).into(),
    ]
}

/// Everything planted.
#[derive(Debug)]
pub(crate) struct Ground {
    directory: tempfile::TempDir,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    unix: Vec<UnixListener>,
    datagrams: UnixDatagram,
    before: (u32, u32, u32, i64),
    content: String,
    /// Never read: it is what must not be inherited.
    _descriptor: OwnedFd,
}

impl Ground {
    /// Plants all but the other tenant. Before the warden starts, so that it
    /// could inherit what it should not.
    pub(crate) fn plant() -> Self {
        let secret = std::env::var(SECRET).expect("started by the conductor");
        assert!(secret.starts_with(CANARY));
        let directory = tempfile::Builder::new()
            .prefix("codex-escape-")
            .tempdir()
            .unwrap();
        let mode = |path: PathBuf, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let at = |name: &str| directory.path().join(name);
        let content = format!("{secret}-file");
        fs::write(at("canary"), &content).unwrap();
        let unix = vec![
            UnixListener::bind(at("stream")).unwrap(),
            UnixListener::bind_addr(&abstract_name("stream")).unwrap(),
        ];
        let datagrams = UnixDatagram::bind(at("datagrams")).unwrap();
        // Open to everybody: only the sandbox stands in the way.
        mode(directory.path().to_owned(), 0o777);
        for name in ["canary", "stream", "datagrams"] {
            mode(at(name), 0o666);
        }
        let tcp: Vec<_> = addresses().into_iter().map(listen).collect();
        let udp = addresses()
            .into_iter()
            .map(|address| UdpSocket::bind(SocketAddr::new(address.ip(), port(&tcp[0]))).unwrap())
            .collect::<Vec<_>>();
        tcp.iter().for_each(|it| it.set_nonblocking(true).unwrap());
        udp.iter().for_each(|it| it.set_nonblocking(true).unwrap());
        unix.iter().for_each(|it| it.set_nonblocking(true).unwrap());
        datagrams.set_nonblocking(true).unwrap();
        let descriptor = rustix::fs::memfd_create("not-for-boxes", MemfdFlags::empty()).unwrap();
        let mut file = fs::File::from(descriptor);
        file.write_all(format!("{secret}-descriptor").as_bytes())
            .unwrap();
        let before = identity(&at("canary"));
        Self {
            directory,
            tcp,
            udp,
            unix,
            datagrams,
            before,
            content,
            _descriptor: file.into(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What programs are told of all this, as JSON.
    pub(crate) fn told(&self, rung: &str, launcher: &Launcher, tenant: &Tenant) -> String {
        let long = if crate::long() { "1" } else { "0" };
        format!(
            "{{\"rung\": {rung:?}, \"long\": {long}, \"file\": {:?}, \"state\": {:?}, \"stream\": {:?}, \
             \"datagrams\": {:?}, \"abstract\": {:?}, \"port\": {}, \"server\": {}, \"warden\": {}, \
             \"tenant\": {:?}, \"tenant_port\": {}, \"called_port\": {}}}",
            self.at("canary"),
            self.directory.path(),
            self.at("stream"),
            self.at("datagrams"),
            abstract_text("stream"),
            port(&self.tcp[0]),
            std::process::id(),
            launcher.warden_id(),
            tenant.directory,
            TENANT_PORTS[0],
            TENANT_PORTS[1],
        )
    }

    /// What was reached or changed.
    pub(crate) fn disturbed(&self) -> Vec<String> {
        let mut found = Vec::new();
        for listener in &self.tcp {
            if listener.accept().is_ok() {
                found.push(format!("somebody reached {:?}", listener.local_addr()));
            }
        }
        for socket in &self.udp {
            if socket.recv(&mut [0; 64]).is_ok() {
                found.push(format!("a datagram came to {:?}", socket.local_addr()));
            }
        }
        for listener in &self.unix {
            if listener.accept().is_ok() {
                found.push(format!("somebody reached {:?}", listener.local_addr()));
            }
        }
        if self.datagrams.recv(&mut [0; 64]).is_ok() {
            found.push("a datagram came to the unix socket".to_owned());
        }
        let text = fs::read_to_string(self.at("canary")).unwrap_or_default();
        if text != self.content || identity(&self.at("canary")) != self.before {
            found.push("the canary file was changed".to_owned());
        }
        let names = fs::read_dir(self.directory.path()).unwrap().count();
        if names != 3 {
            found.push(format!("{names} names beside the canary, not 3"));
        }
        found
    }
}

/// A fresh address of the sixth version takes a moment before it is good.
fn listen(address: SocketAddr) -> TcpListener {
    let since = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == ErrorKind::AddrNotAvailable && since.elapsed() < SILENCE =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.unwrap_or_else(|error| panic!("{address}: {error}")),
        }
    }
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

fn abstract_text(name: &str) -> String {
    format!("codex-escape-{name}-{}", std::process::id())
}

fn abstract_name(name: &str) -> UnixAddress {
    UnixAddress::from_abstract_name(abstract_text(name)).unwrap()
}

/// Owner, group, mode and time of change of content.
fn identity(path: &std::path::Path) -> (u32, u32, u32, i64) {
    let found = fs::symlink_metadata(path).unwrap();
    (
        found.st_uid(),
        found.st_gid(),
        found.st_mode(),
        found.st_mtime(),
    )
}

/// Another tenant, alive all the time. Where it can be reached it says so.
const TENANT: &str = r#"
import fcntl, os, socket, sys, time
print(os.getcwd(), flush=True)
os.chmod("secret", 0o666)
for place in (".", "/tmp", os.environ.get("TMPDIR", "/tmp"), "/dev/shm"):
    try: open(place + "/tenants-secret", "w").write(open("secret").read())
    except OSError: pass
lock = open(os.path.realpath("/usr/bin/python3"))
listeners = []
for family, address in [(socket.AF_INET, ("127.0.0.1", LISTEN)), (socket.AF_UNIX, "\0tenant"), (socket.AF_UNIX, "/tmp/tenant.sock")]:
    try:
        s = socket.socket(family); s.bind(address); s.listen(); s.setblocking(False); listeners.append(s)
    except OSError: pass
beats = 0
while True:
    # Another run of these tests may have it, which is as well until that ends.
    try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: pass
    for s in listeners:
        try: s.accept(); open("reached", "w").write("somebody came in")
        except OSError: pass
    for family, address in [(socket.AF_INET, ("127.0.0.1", CALL)), (socket.AF_UNIX, "\0called")]:
        try:
            with socket.socket(family) as s: s.connect(address); open("reached", "w").write("somebody answered")
        except OSError: pass
    beats += 1
    with open("beat", "w") as f: f.write(str(beats))
    time.sleep(0.05)
"#;

/// The other tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    running: Running,
    /// Its workspace, as it sees it.
    pub(crate) directory: String,
    secret: String,
    _streams: [OwnedFd; 2],
}

impl Tenant {
    /// Moves in.
    pub(crate) fn new(launcher: &Launcher) -> Result<Self, String> {
        let secret = format!("{}-tenant", std::env::var(SECRET).unwrap());
        let running = Running::new(launcher, limits(&Bounds::default()))?;
        let text = TENANT
            .replace("LISTEN", &TENANT_PORTS[0].to_string())
            .replace("CALL", &TENANT_PORTS[1].to_string());
        let file = File {
            path: b"secret".to_vec(),
            content: secret.clone().into_bytes(),
        };
        let mut command = python(&text, "tenant", vec![file]);
        command.env.push(format!("SECRET={secret}").into_bytes());
        let streams = running.start(&command)?;
        let mut said = [0u8; 256];
        let got = rustix::io::read(&streams[0], &mut said).map_err(|error| error.to_string())?;
        let directory = String::from_utf8_lossy(&said[..got]).trim().to_owned();
        let tenant = Self {
            running,
            directory,
            secret,
            _streams: streams,
        };
        match tenant.disturbed().first() {
            Some(found) => Err(format!("the other tenant never was well: {found}")),
            None => Ok(tenant),
        }
    }

    fn read(&self, name: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.running.workspace, name, flags, Mode::empty()).ok()?;
        let mut text = String::new();
        fs::File::from(fd).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// What was done to it.
    pub(crate) fn disturbed(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(how) = self.read("reached") {
            found.push(format!("the other tenant was reached: {how}"));
        }
        if self.read("secret").as_deref() != Some(self.secret.as_str()) {
            found.push("the other tenant's file was changed".to_owned());
        }
        let beats = || self.read("beat").and_then(|text| text.parse::<u64>().ok());
        let (before, since) = (beats(), Instant::now());
        while beats() <= before {
            if since.elapsed() > SILENCE {
                found.push("the other tenant is dead".to_owned());
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        found
    }
}
