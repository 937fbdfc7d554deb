//! How the server is, for load balancers and people. Tells no secret: it is
//! open to everybody.

use engine::{Engine, Load};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::tunnel;

/// How busy the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Load)]
pub struct LoadOut {
    /// Runs in progress.
    pub running: usize,
    /// Runs that wait for a place.
    pub waiting: usize,
    /// Runs possible at once.
    pub capacity: usize,
}

impl From<Load> for LoadOut {
    fn from(load: Load) -> Self {
        Self {
            running: load.running,
            waiting: load.waiting,
            capacity: load.capacity,
        }
    }
}

/// One word for how the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Code can be run.
    Healthy,
    /// The sandbox broke down.
    Unhealthy,
}

/// How the tunnel is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Tunnel)]
pub struct TunnelHealth {
    /// `connecting`, `ready`, `unreachable`, `refused` or `revoked`.
    #[schema(example = "ready")]
    pub state: String,
    /// The tunnel's id; told only to a token with the scope `admin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is wrong and what to do; told only to a token with the scope `admin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl TunnelHealth {
    /// Returns how the tunnel is, and all that its `operator` may know.
    fn of(status: &tunnel::Status, operator: bool) -> Self {
        let condition = status.get();
        Self {
            state: condition.as_str().to_owned(),
            id: operator.then(|| status.id().to_owned()),
            detail: condition.detail().filter(|_| operator).map(str::to_owned),
        }
    }
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Health {
    /// `unhealthy`, with the HTTP status 503, when no code can be run any more; such a server ends itself.
    pub status: HealthStatus,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    pub version: String,
    /// The isolation that every run gets here.
    #[schema(schema_with = super::response::isolation_schema)]
    pub isolation: String,
    /// When the server started, RFC 3339 in UTC.
    #[schema(format = "date-time", example = "2026-01-02T03:04:05Z")]
    pub started: String,
    /// How busy the server is.
    pub load: LoadOut,
    /// The tunnel by which ChatGPT reaches the server, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelHealth>,
    /// Names of the languages that can run now.
    #[schema(example = json!(["python", "bash", "javascript"]))]
    pub languages: Vec<String>,
}

/// RFC 3339 in UTC without a fraction: when a server started needs none.
#[must_use]
pub fn whole_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Health {
    /// Asks the engine of a server that started then, and its tunnel. The
    /// `operator` is told more of that than others.
    #[must_use]
    pub fn of(
        engine: &Engine,
        started: Timestamp,
        tunnel: Option<&tunnel::Status>,
        operator: bool,
    ) -> Self {
        let languages = engine.languages().into_iter();
        Self {
            status: if engine.healthy() {
                HealthStatus::Healthy
            } else {
                HealthStatus::Unhealthy
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            isolation: engine.isolation().to_string(),
            started: whole_seconds(started),
            load: LoadOut::from(engine.load()),
            tunnel: tunnel.map(|status| TunnelHealth::of(status, operator)),
            languages: languages
                .filter(|language| language.available)
                .map(|language| language.name)
                .collect(),
        }
    }
}
