//! The control plane as an HTTP client sees it: asks for commands, and posts
//! what became of them. The key goes to its address and to no other: redirects
//! are not followed.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Response, Url, redirect};
use serde_json::Value;

use super::key::Key;
use super::patience::retry_after;
use super::status::Outcome;
use crate::telemetry::chain;

/// Commands that a poll may ask for.
const COMMANDS: usize = 25;

/// How long the control plane may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// What an answer may take beyond the time that a poll is held open.
const GUARD: Duration = Duration::from_secs(5);

/// Bytes of the commands of a poll, and of an error.
const COMMANDS_BYTES: usize = 32 * 1024 * 1024;
const ERROR_BYTES: usize = 64 * 1024;

/// The header that gives a command's token back.
const SHARD: HeaderName = HeaderName::from_static("x-tunnel-shard-token");

/// What this client tells of itself: sessions live in this very process.
const SERVER_INFO: &str = r#"{"version":1,"channels":[{"name":"main","proc_affinity":true}]}"#;

/// Why the control plane did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// It says no, with its code: asking again at once changes nothing.
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Its word for the reason, if it gave one.
        code: String,
    },
    /// It may do it later.
    Later {
        /// How long it asks to wait.
        after: Option<Duration>,
        /// For the log.
        why: String,
    },
}

impl Failed {
    /// Returns how it is counted.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Refused { .. } => Outcome::Refused,
            Self::Later { .. } => Outcome::Later,
        }
    }
}

/// The control plane of one tunnel.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    client: Client,
    /// Where the paths of this tunnel begin.
    base: String,
    headers: HeaderMap,
}

impl Plane {
    /// Makes a client for a tunnel at a control plane.
    ///
    /// # Errors
    /// When TLS cannot be prepared.
    pub(super) fn new(
        url: &Url,
        id: &str,
        organization: Option<&str>,
        key: &Key,
    ) -> Result<Self, String> {
        // A second installation changes nothing, which is fine.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .tcp_keepalive(Duration::from_secs(30))
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("codex-server/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            // Loopback; no proxy has any business with it.
            builder = builder.no_proxy();
        } else {
            builder = builder.https_only(true);
        }
        let client = builder.build().map_err(|error| {
            format!("failed to prepare TLS for the tunnel: {}; is the package ca-certificates installed?", chain(&error))
        })?;
        let mut headers = HeaderMap::new();
        let authorization = key.header().ok_or("the tunnel's key fits no header")?;
        headers.insert(header::AUTHORIZATION, authorization);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let named = |text: &'static str| HeaderValue::from_static(text);
        headers.insert("x-tunnel-client-name", named("codex-server"));
        headers.insert("x-tunnel-client-version", named(env!("CARGO_PKG_VERSION")));
        headers.insert("x-tunnel-mcp-server-info", named(SERVER_INFO));
        let mut instance = [0; 16];
        getrandom::fill(&mut instance).map_err(|error| error.to_string())?;
        let instance = format!("{:032x}", u128::from_be_bytes(instance));
        let instance = HeaderValue::try_from(instance).map_err(|error| error.to_string())?;
        headers.insert("x-tunnel-client-instance-id", instance);
        if let Some(organization) = organization {
            let value = HeaderValue::try_from(organization).map_err(|error| error.to_string())?;
            headers.insert("openai-organization", value);
        }
        let base = format!("{}/v1/tunnels/{id}", url.as_str().trim_end_matches('/'));
        Ok(Self {
            client,
            base,
            headers,
        })
    }

    /// Returns the tunnel's name, which shows that the key opens it.
    pub(super) async fn record(&self) -> Result<String, Failed> {
        let request = self.client.get(&self.base).timeout(ANSWER);
        let response = self.send(request).await?;
        let body = read(response, ERROR_BYTES).await?;
        let record: Value =
            serde_json::from_slice(&body).map_err(|_| later("it answered no JSON"))?;
        let name = record.get("name").and_then(Value::as_str);
        Ok(engine::quote(name.unwrap_or_default()).to_string())
    }

    /// Asks for as many commands as there is room for, and waits as long as the
    /// poll is `held` open; returns none when there were none in that time. With
    /// them comes the moment from which their time counts.
    pub(super) async fn poll(
        &self,
        room: usize,
        held: Duration,
    ) -> Result<(Vec<Value>, tokio::time::Instant), Failed> {
        let url = format!(
            "{}/poll?limit={}&timeout_ms={}",
            self.base,
            room.clamp(1, COMMANDS),
            held.as_millis()
        );
        let request = self.client.get(url).timeout(held + GUARD);
        let response = self.send(request).await?;
        let received = tokio::time::Instant::now();
        if response.status() == StatusCode::NO_CONTENT {
            return Ok((Vec::new(), received));
        }
        let body = read(response, COMMANDS_BYTES).await?;
        let body: Value =
            serde_json::from_slice(&body).map_err(|_| later("it answered no JSON"))?;
        match body {
            Value::Object(mut members) => match members.remove("commands") {
                Some(Value::Array(commands)) => Ok((commands, received)),
                _ => Err(later("it answered no commands")),
            },
            _ => Err(later("it answered no object")),
        }
    }

    /// Posts a part of a command's answer.
    pub(super) async fn post(&self, shard_token: &str, body: Bytes) -> Result<(), Failed> {
        let shard = HeaderValue::try_from(shard_token)
            .map_err(|_| later("its shard token fits no header"))?;
        let request = self
            .client
            .post(format!("{}/response", self.base))
            .timeout(ANSWER)
            .header(SHARD, shard)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        self.send(request).await.map(drop)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failed> {
        let sent = request.headers(self.headers.clone()).send().await;
        // The error's own text has the address, which is no secret; the key is not in it.
        let response = sent.map_err(|error| later(&chain(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = retry_after(response.headers(), Timestamp::now());
        let trace = response.headers().get("x-request-id").cloned();
        let body = read(response, ERROR_BYTES).await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let code = body.pointer("/error/code").and_then(Value::as_str);
        let code = engine::quote(code.unwrap_or_default()).to_string();
        tracing::debug!(%status, code, request_id = ?trace, "the control plane refused");
        let again = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        if again {
            let why = format!("it answered {} {code}", status.as_u16());
            return Err(Failed::Later { after, why });
        }
        Err(Failed::Refused { status, code })
    }
}

fn later(why: &str) -> Failed {
    Failed::Later {
        after: None,
        why: why.to_owned(),
    }
}

async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| later(&chain(&error)))?
    {
        if body.len() + chunk.len() > most {
            return Err(later("its answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
