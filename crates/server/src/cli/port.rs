//! Listening, and saying who sits on the port when that fails. Looks at
//! other processes, never touches them.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Failure;
use crate::config::Settings;
use crate::exit_code::Exit;

/// How long the one on the port may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most of its answer that is read.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Listens where the settings say.
pub(super) fn listen(settings: &mut Settings) -> Result<TcpListener, Failure> {
    let (host, port) = (settings.config.host, settings.config.port);
    let mut bound = TcpListener::bind((host, port));
    // Nobody asked for IPv6, so its absence is no error.
    if host.is_ipv6() && settings.host_is_default && bound.as_ref().is_err_and(no_ipv6) {
        settings.config.host = Ipv4Addr::UNSPECIFIED.into();
        bound = TcpListener::bind((settings.config.host, port));
    }
    let host = settings.config.host;
    let listener =
        bound.map_err(|error| Failure::text(Exit::Address, refusal(host, port, &error)))?;
    listener.set_nonblocking(true)?;
    settings.bound_to(listener.local_addr()?.port());
    Ok(listener)
}

fn no_ipv6(error: &io::Error) -> bool {
    /// EAFNOSUPPORT, for which `ErrorKind` has no name.
    const NO_FAMILY: i32 = 97;
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_FAMILY)
}

fn refusal(host: IpAddr, port: u16, error: &io::Error) -> String {
    let at = SocketAddr::new(host, port);
    match error.kind() {
        ErrorKind::AddrInUse => match holder(port) {
            Holder::Server {
                version,
                started,
                pid,
            } => {
                let pid =
                    pid.map_or_else(String::new, |pid| format!(" or stop it with: kill {pid}"));
                let since =
                    started.map_or_else(String::new, |started| format!(", started {started}"));
                format!(
                    "port {port} is taken by another codex-server (version {version}{since}), which uses another data directory. Choose another port with --port{pid}"
                )
            }
            Holder::Process { pid, name } => {
                format!(
                    "port {port} is taken by {name} (process {pid}). Choose another port with --port, or stop it with: kill {pid}"
                )
            }
            Holder::Unknown => format!(
                "port {port} is taken by another program. Choose another port with --port; as root, `ss -ltnp` tells whose it is"
            ),
        },
        ErrorKind::PermissionDenied => format!(
            "not allowed to listen on {at}: ports below 1024 are for root. Choose another with --port, and let a proxy forward {port} to it"
        ),
        ErrorKind::AddrNotAvailable => format!(
            "{host} is no address of this machine. Give --host one that is: 127.0.0.1 for this machine alone, 0.0.0.0 for all interfaces"
        ),
        _ => format!("failed to listen on {at}: {error}"),
    }
}

/// Who sits on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// One of us.
    Server {
        /// Its version.
        version: String,
        /// Since when it runs, if it says.
        started: Option<String>,
        /// Its process, if that can be told.
        pid: Option<u32>,
    },
    /// Another program.
    Process {
        /// Its process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It cannot be told.
    Unknown,
}

/// Finds out who sits on `port` of this machine.
pub(super) fn holder(port: u16) -> Holder {
    let process = process_on(port);
    if let Some(health) = health(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        && let Some(version) = super::doctor::our_version(&health)
    {
        let started = health
            .get("started")
            .and_then(Value::as_str)
            .map(str::to_owned);
        return Holder::Server {
            version,
            started,
            pid: process.map(|(pid, _)| pid),
        };
    }
    process.map_or(Holder::Unknown, |(pid, name)| Holder::Process { pid, name })
}

/// `GET /health` in the smallest HTTP there is: no runtime exists yet.
pub(super) fn health(address: SocketAddr) -> Option<Value> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let request =
        format!("GET /health HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // What came before a timeout still counts.
    let read = stream.take(ANSWER_LIMIT).read_to_end(&mut answer);
    drop(read);
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body.trim()).ok()
}

/// The process that listens on `port`, where /proc lets us see it.
fn process_on(port: u16) -> Option<(u32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables
        .iter()
        .find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.to_str() == Some(&wanted))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
            return Some((pid, name));
        }
    }
    None
}

/// The inode of the socket that listens on `port`, out of `/proc/net/tcp`.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let matches = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        matches.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn settings(host: &str, port: u16) -> Settings {
        let mut settings = Settings::defaults(PathBuf::from("/data"));
        settings.config.host = host.parse().unwrap();
        settings.config.port = port;
        settings
    }

    /// A server that answers each connection with `answer`.
    fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).unwrap();
                assert!(read > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        port
    }

    #[test]
    fn port_zero_becomes_a_real_one() {
        let mut settings = settings("127.0.0.1", 0);
        let listener = listen(&mut settings).unwrap();
        assert_eq!(settings.config.port, listener.local_addr().unwrap().port());
        assert_ne!(settings.config.port, 0);
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let check = |answer: &'static str, expected: &str| {
            let port = serve(answer);
            let failure = listen(&mut settings("127.0.0.1", port)).unwrap_err();
            let message = failure.error.to_string();
            assert_eq!(failure.exit, Exit::Address);
            assert!(
                message.contains(expected) && message.contains("--port"),
                "{message}"
            );
        };
        check(
            "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"healthy\",\"service\":\"codex-server\",\"version\":\"9.9.9\",\"started\":\"2026-01-01T00:00:00Z\",\"isolation\":\"full\"}",
            "is taken by another codex-server (version 9.9.9, started 2026-01-01T00:00:00Z)",
        );
        let me = format!("(process {})", std::process::id());
        check("HTTP/1.1 200 OK\r\n\r\nhello", &me);
        check("SSH-2.0-x\r\n", &me);
    }

    #[test]
    fn a_foreign_address_is_told() {
        let failure = listen(&mut settings("192.0.2.1", 0)).unwrap_err();
        assert!(
            failure
                .error
                .to_string()
                .contains("no address of this machine"),
            "{failure:?}"
        );
    }

    #[test]
    fn the_table_of_sockets() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x 100 0 0 10 0\n   1: 0100007F:1F41 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x 20 4 30 10 -1\n";
        assert_eq!(listening_inode(table, 8000), Some(4711));
        assert_eq!(listening_inode(table, 8001), None);
        assert_eq!(listening_inode("", 8000), None);
        assert_eq!(listening_inode("x\ny z\n", 8000), None);
    }
}
