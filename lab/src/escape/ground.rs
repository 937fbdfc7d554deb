//! What attacks on a server are after: a secret in its environment and one
//! among its files, another tenant's run, and listeners where nobody may get.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::live::{Home, Server};

/// In every secret.
pub(super) const CANARY: &str = "CANARY-";
/// Ports where the other tenant listens, and where it calls.
const TENANT_PORTS: [u16; 2] = [4567, 4999];
/// How long a new address may take to be good.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything planted beside the server.
#[derive(Debug)]
pub(super) struct Ground {
    state: PathBuf,
    secret: String,
    tcp: Vec<TcpListener>,
    unix: UnixListener,
}

impl Ground {
    /// Plants it; where the server keeps its state.
    pub(super) fn plant(home: &Home) -> Result<Self> {
        let nonce = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let secret = format!("{CANARY}{}", nonce.trim());
        let state = home.data();
        fs::write(state.join("canary"), &secret).context("failed to plant a file")?;
        let unix = UnixListener::bind(state.join("stream")).context("failed to bind")?;
        unix.set_nonblocking(true)?;
        // Open to everybody: only the sandbox stands in the way.
        for (path, mode) in [(home.path().to_owned(), 0o755), (state.clone(), 0o755)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        for name in ["canary", "stream"] {
            fs::set_permissions(state.join(name), fs::Permissions::from_mode(0o666))?;
        }
        let metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
        let addresses: [SocketAddr; 4] = [
            ([127, 0, 0, 1], 0).into(),
            (Ipv6Addr::LOCALHOST, 0).into(),
            ([169, 254, 169, 254], 80).into(),
            (metadata, 80).into(),
        ];
        let tcp = addresses.into_iter().map(listen).collect::<Result<_>>()?;
        Ok(Self {
            state,
            secret,
            tcp,
            unix,
        })
    }

    /// The secret in the server's environment.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// What programs are told of all this, as JSON.
    pub(super) fn told(&self, rung: &str, long: bool, server: &Server, warden: u32) -> String {
        json!({
            "rung": rung,
            "long": u8::from(long),
            "file": self.state.join("canary"),
            "state": self.state,
            "stream": self.state.join("stream"),
            "datagrams": self.state.join("stream"),
            "abstract": "codex-escape-nobody",
            "port": server.address.port(),
            "server": server.pid(),
            "warden": warden,
            "tenant": "/nowhere",
            "tenant_port": TENANT_PORTS[0],
            "called_port": TENANT_PORTS[1],
        })
        .to_string()
    }

    /// What was reached or changed.
    pub(super) fn disturbed(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .tcp
            .iter()
            .filter(|listener| listener.accept().is_ok())
            .map(|listener| format!("somebody reached {:?}", listener.local_addr()))
            .collect();
        if self.unix.accept().is_ok() {
            found.push("somebody reached the unix socket".to_owned());
        }
        let text = fs::read_to_string(self.state.join("canary")).unwrap_or_default();
        if text != self.secret {
            found.push("the canary file was changed".to_owned());
        }
        found
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let since = Instant::now();
    let listener = loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == ErrorKind::AddrNotAvailable && since.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            other => break other.with_context(|| format!("failed to listen on {address}"))?,
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Another tenant's program, which says at its end what happened to it.
const TENANT: &str = r#"
import os, socket, time
open("secret", "w").write("CANARY-of-a-tenant")
listeners = []
for family, address in [(socket.AF_INET, ("127.0.0.1", LISTEN)), (socket.AF_UNIX, "\0tenant")]:
    try:
        s = socket.socket(family); s.bind(address); s.listen(); s.setblocking(False); listeners.append(s)
    except OSError: pass
said, until = [], time.monotonic() + 8
while time.monotonic() < until:
    for s in listeners:
        try: s.accept(); said.append("somebody came in")
        except OSError: pass
    for family, address in [(socket.AF_INET, ("127.0.0.1", CALL)), (socket.AF_UNIX, "\0called")]:
        try:
            with socket.socket(family) as s: s.connect(address); said.append("somebody answered")
        except OSError: pass
    time.sleep(0.05)
if open("secret").read() != "CANARY-of-a-tenant": said.append("the file was changed")
os.unlink("secret")
print(said or "untouched")
"#;

/// Another tenant, with a token of its own, who runs something all the time.
#[derive(Debug)]
pub(super) struct Tenant {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<u32>>,
}

impl Tenant {
    /// Moves in.
    pub(super) fn new(server: &Server, token: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = crate::http::Client::new(server.address, Some(token));
        let code = TENANT
            .replace("LISTEN", &TENANT_PORTS[0].to_string())
            .replace("CALL", &TENANT_PORTS[1].to_string());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut runs = 0;
            while !stopped.load(Ordering::Relaxed) {
                let body = json!({"code": code, "timeout": 20});
                let answer: Value = client.post("/execute", &body)?.json()?;
                if answer["output"] != "untouched\n" {
                    return Err(anyhow!("another tenant's run was disturbed: {answer}"));
                }
                runs += 1;
            }
            Ok(runs)
        });
        Self { stop, thread }
    }

    /// Moves out. An error when it was disturbed.
    pub(super) fn leave(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the tenant panicked")?
    }
}
