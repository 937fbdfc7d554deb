//! Calls the server through its own public URL and reports what is wrong.
//! Sends no code and no real token; follows no redirect.

use std::time::Duration;

use reqwest::{Client, Method, redirect};

use super::diagnose::{Probe, Reached, Reply, Target, diagnose, diagnose_url};
use super::report::{Check, Report, Section};
use crate::cli::{Failure, instance};
use crate::config::{Access, Settings};
use crate::exit_code::Exit;
use crate::public_url::{host_of, local};

/// How long each call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most of an answer that is read; a schema is below 1 MiB.
const BODY_LIMIT: usize = 2 * 1024 * 1024;
/// A token in shape, but nobody's.
const NO_TOKEN: &str = "codex_doctor_expects_this_token_to_be_refused____";
/// Makes dev tunnels leave out their warning page.
const SKIP_WARNING: (&str, &str) = ("X-Tunnel-Skip-AntiPhishing-Page", "true");

/// The settings as the running server has them, and where it can be called
/// from this machine.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Known {
    pub(in crate::cli) settings: Settings,
    /// Its address on this machine, such as `http://0.0.0.0:8000`.
    pub(in crate::cli) here: String,
}

/// Asks the server that runs with this data directory, if one does.
pub(in crate::cli) fn known(settings: &Settings) -> Known {
    let mut settings = settings.clone();
    let running =
        instance::running(&settings.config.home).filter(|running| !running.url.is_empty());
    let mut here = local(&settings.config);
    if let Some(running) = running {
        // The server knows better than our flags where it listens and what it is called.
        if let Some(port) = running
            .url
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
        {
            settings.bound_to(port);
        }
        if !settings.sources.contains_key("public_url") && running.public_url.is_some() {
            settings.config.public_url = running.public_url;
            settings.config.public_url_source = Some("the running server".to_owned());
        }
        settings.config.access = if running.open {
            Access::Open
        } else {
            Access::Token
        };
        here = running.url;
    }
    Known { settings, here }
}

/// Calls the server through its public URL, as ChatGPT would.
pub(in crate::cli) fn examine(known: &Known) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let checks = runtime.block_on(checks(&known.settings, &known.here))?;
    Ok(Report {
        sections: vec![Section::new("public URL", checks)],
    })
}

async fn checks(settings: &Settings, here: &str) -> Result<Vec<Check>, Failure> {
    let config = &settings.config;
    let Some(url) = &config.public_url else {
        let cure =
            "start the server with --public-url https://…, or put public_url into codex.toml";
        return Ok(vec![Check::bad(
            "address",
            "no public URL is known",
            cure,
            Exit::Public,
        )]);
    };
    let source = config
        .public_url_source
        .as_deref()
        .unwrap_or("configuration");
    let mut checks = vec![match diagnose_url(url) {
        None => Check::good("address", &format!("{url} (from {source})")),
        Some(found) => Check::bad(
            "address",
            &format!("{url} (from {source}): {}", found.problem),
            &found.cure,
            Exit::Public,
        ),
    }];
    let target = Target {
        url,
        platform: settings.platform.as_ref(),
        port: config.port,
        access: config.access,
    };
    // An open server has no OAuth, and by plain http there is none.
    let lacks_oauth = config.access == Access::Open || !url.starts_with("https://");
    for probe in Probe::ALL {
        if lacks_oauth && probe.is_of_oauth() {
            continue;
        }
        let base = if probe == Probe::Local { here } else { url };
        let reached = call(base, probe).await?;
        match diagnose(&target, probe, &reached) {
            None => checks.push(Check::good(probe.name(), "as it should be")),
            // The page before plain GETs is in nobody's way but a browser's.
            Some(found) if probe == Probe::HealthPlain => {
                checks.push(Check::warning(probe.name(), &found.problem, &found.cure))
            }
            Some(found) => {
                checks.push(Check::bad(
                    probe.name(),
                    &found.problem,
                    &found.cure,
                    Exit::Public,
                ));
                // Whatever comes after it would fail for the same reason.
                break;
            }
        }
    }
    Ok(checks)
}

async fn call(base: &str, probe: Probe) -> Result<Reached, Failure> {
    let client = client(base)?;
    let (method, path) = match probe {
        Probe::Local | Probe::Health | Probe::HealthPlain => (Method::GET, "/health"),
        Probe::Execute => (Method::POST, "/execute"),
        Probe::Actions => (Method::GET, "/actions/openapi.json"),
        Probe::Resource => (Method::GET, "/.well-known/oauth-protected-resource/mcp"),
        Probe::Authority => (Method::GET, "/.well-known/oauth-authorization-server"),
        Probe::Token => (Method::POST, "/oauth/token"),
        Probe::Mcp => (Method::POST, "/mcp"),
    };
    let mut request = client.request(method, format!("{base}{path}"));
    if !matches!(probe, Probe::Local | Probe::HealthPlain | Probe::Execute) {
        request = request.header(SKIP_WARNING.0, SKIP_WARNING.1);
    }
    if probe == Probe::Token {
        let form = "application/x-www-form-urlencoded";
        request = request.header("content-type", form).body("grant_type=none");
    }
    if probe == Probe::Mcp {
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        let accepts = "application/json, text/event-stream";
        request = request
            .header("accept", accepts)
            .bearer_auth(NO_TOKEN)
            .json(&body);
    }
    if probe == Probe::Execute {
        // No code: nothing would run even where no token is asked for.
        let body = serde_json::json!({"code": "", "language": "python"});
        request = request.bearer_auth(NO_TOKEN).json(&body);
    }
    Ok(match request.send().await {
        Ok(response) => read(response).await,
        Err(error) => sorted(&error),
    })
}

fn client(base: &str) -> Result<Client, Failure> {
    // A second installation changes nothing, which is fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(PATIENCE)
        .user_agent(concat!("codex-server-doctor/", env!("CARGO_PKG_VERSION")));
    if host_of(base).is_some_and(|host| {
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }) {
        builder = builder.no_proxy();
    }
    builder
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))
}

async fn read(mut response: reqwest::Response) -> Reached {
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let mut reply = Reply {
        status: response.status().as_u16(),
        location: header("location"),
        content_type: header("content-type").unwrap_or_default(),
        challenge: header("www-authenticate").unwrap_or_default(),
        body: String::new(),
    };
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_LIMIT => {
                body.extend_from_slice(&chunk)
            }
            Ok(_) => break,
            Err(error) => return sorted(&error),
        }
    }
    reply.body = String::from_utf8_lossy(&body).into_owned();
    Reached::Reply(reply)
}

/// What kind of failure a call met with.
pub(in crate::cli) fn sorted(error: &reqwest::Error) -> Reached {
    if error.is_timeout() {
        return Reached::Silent;
    }
    if error.is_dns() {
        return Reached::NoName;
    }
    let mut innermost = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Reached::Tls(tls.to_string());
        }
        if let Some(system) = inner.downcast_ref::<std::io::Error>() {
            if system.kind() == std::io::ErrorKind::ConnectionRefused {
                return Reached::Refused;
            }
            if let Some(tls) = tls_error(system) {
                return Reached::Tls(tls);
            }
        }
        innermost = inner.to_string();
        cause = inner.source();
    }
    Reached::Broken(innermost)
}

/// The TLS error in an `io::Error`, which wraps it, perhaps twice, without
/// naming it as its source.
fn tls_error(system: &std::io::Error) -> Option<String> {
    let inner = system.get_ref()?;
    if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
        return Some(tls.to_string());
    }
    tls_error(inner.downcast_ref::<std::io::Error>()?)
}

#[cfg(test)]
mod tests;
