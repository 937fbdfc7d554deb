//! `health`: whether the server of this data directory answers and can run
//! code, as an exit code, for container health checks and scripts. Starts
//! nothing, and asks nobody but a server of ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::{EveryFlags, Failure, instance, port};
use crate::config::{Env, load};
use crate::exit_code::Exit;
use crate::output;

pub(super) fn health(flags: &EveryFlags, env: &Env) -> Result<Exit, Failure> {
    let settings = load(&flags.0, env)?;
    let home = settings.config.home.display();
    let running = instance::running(&settings.config.home)
        .ok_or_else(|| failed(format!("no server runs with the data directory {home}")))?;
    let address = address(&running.url)
        .ok_or_else(|| failed(format!("the server of {home} is still starting")))?;
    let answer = port::health(address)
        .ok_or_else(|| failed(format!("the server at {address} does not answer")))?;
    let isolation = verdict(&answer).map_err(failed)?;
    output::text(&format!("healthy: {isolation}, at {}", running.url))?;
    Ok(Exit::Success)
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::text(Exit::Failed, message)
}

/// Where to call the server whose note says `url`; none while it starts.
pub(super) fn address(url: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = url.strip_prefix("http://")?.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::from(Ipv4Addr::LOCALHOST));
    }
    Some(address)
}

/// The isolation of a healthy server, else what is wrong.
fn verdict(health: &Value) -> Result<String, String> {
    let text = |name: &str| health.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("status") {
        "healthy" => Ok(text("isolation").to_owned()),
        "unhealthy" => Err("the server is unhealthy: its sandbox broke down".to_owned()),
        _ => Err("what answers there is no codex-server".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_tells_where_to_call() {
        let check = |url: &str, expected: Option<&str>| {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(address(url), expected, "{url}");
        };
        check("http://127.0.0.1:8000", Some("127.0.0.1:8000"));
        check("http://0.0.0.0:9", Some("127.0.0.1:9"));
        check("http://[::]:9", Some("127.0.0.1:9"));
        check("http://[::1]:9", Some("[::1]:9"));
        check("", None);
        check("https://example.com", None);
    }

    #[test]
    fn only_a_healthy_server_of_ours_passes() {
        let check = |health: &str, expected: Result<&str, &str>| {
            let found = verdict(&serde_json::from_str(health).unwrap());
            match expected {
                Ok(isolation) => assert_eq!(found.as_deref(), Ok(isolation)),
                Err(part) => assert!(found.unwrap_err().contains(part), "{health}"),
            }
        };
        check(r#"{"status":"healthy","isolation":"uids"}"#, Ok("uids"));
        check(r#"{"status":"unhealthy"}"#, Err("broke down"));
        check(r#"{"status":"UP"}"#, Err("no codex-server"));
        check("[]", Err("no codex-server"));
    }
}
