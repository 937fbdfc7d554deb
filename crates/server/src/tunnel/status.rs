//! How the tunnel is and what it did: for `/health`, the metrics and people.
//! Only keeps and counts; opens nothing, and never holds the key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Why making a metric cannot fail.
const FIXED: &str = "names and labels are fixed, well formed and unique";

/// One word for how a tunnel is, with the operator's next step where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing has been answered yet.
    Connecting,
    /// Commands come.
    Ready,
    /// The control plane cannot be reached, and is asked again.
    Unreachable(String),
    /// The control plane says no, and why; only the operator can change that.
    Refused(String),
    /// The operator revoked its token.
    Revoked,
}

impl Condition {
    /// Returns its word in `/health`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Revoked => "revoked",
        }
    }

    /// Returns what is wrong and what to do, for the operator; `None` when
    /// nothing is.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Connecting | Self::Ready => None,
            Self::Unreachable(why) | Self::Refused(why) => Some(why),
            Self::Revoked => Some(
                "its token was revoked, so the tunnel is closed; start the server again to open it anew",
            ),
        }
    }
}

/// The end of a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum CommandEnd {
    /// Its answer was taken, or had been before.
    Answered,
    /// Its time was over.
    Expired,
    /// It could not be read, so nobody could be answered.
    Unreadable,
    /// Its answer was not taken.
    Undelivered,
}

impl CommandEnd {
    const ALL: [Self; 4] = [
        Self::Answered,
        Self::Expired,
        Self::Unreadable,
        Self::Undelivered,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Expired => "expired",
            Self::Unreadable => "unreadable",
            Self::Undelivered => "undelivered",
        }
    }
}

/// The outcome of a request to the control plane.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// It did what was asked.
    Good,
    /// It may do it later, or could not be reached.
    Later,
    /// It said no.
    Refused,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Good, Self::Later, Self::Refused];

    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Later => "later",
            Self::Refused => "refused",
        }
    }
}

/// The state of a tunnel, shared by all who tell of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Status {
    id: Arc<str>,
    condition: Arc<Mutex<Condition>>,
    ready: IntGauge,
    polls: IntCounterVec,
    commands: IntCounterVec,
    posts: IntCounterVec,
    retries: IntCounter,
    wait: Histogram,
}

impl Status {
    /// Returns the state of a tunnel that nobody has asked for commands yet.
    ///
    /// # Panics
    /// Never: the metrics' names are fixed.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let counters =
            |name, help, label| IntCounterVec::new(Opts::new(name, help), &[label]).expect(FIXED);
        let wait = HistogramOpts::new(
            "codex_tunnel_wait_seconds",
            "Time from the receipt of a tunnel's command to its begin.",
        );
        let status = Self {
            id: id.into(),
            condition: Arc::new(Mutex::new(Condition::Connecting)),
            ready: IntGauge::new(
                "codex_tunnel_ready",
                "Whether the tunnel's control plane hands out commands: 1, or 0.",
            )
            .expect(FIXED),
            polls: counters(
                "codex_tunnel_polls_total",
                "Requests for commands by outcome.",
                "outcome",
            ),
            commands: counters(
                "codex_tunnel_commands_total",
                "Commands of the tunnel by how they ended.",
                "outcome",
            ),
            posts: counters(
                "codex_tunnel_posts_total",
                "Answers and notifications posted to the tunnel's control plane by outcome.",
                "outcome",
            ),
            retries: IntCounter::new(
                "codex_tunnel_retries_total",
                "Answers that were posted again.",
            )
            .expect(FIXED),
            wait: Histogram::with_opts(wait.buckets(engine::SECONDS.to_vec())).expect(FIXED),
        };
        // What is counted from nought shows its first rise too.
        for outcome in Outcome::ALL {
            for counters in [&status.polls, &status.posts] {
                counters.with_label_values(&[outcome.as_str()]);
            }
        }
        for ended in CommandEnd::ALL {
            status.commands.with_label_values(&[ended.as_str()]);
        }
        status
    }

    /// Adds what is counted to the server's metrics.
    ///
    /// # Errors
    /// When another tunnel's metrics are there already.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), Error> {
        registry.register(Box::new(self.ready.clone()))?;
        registry.register(Box::new(self.retries.clone()))?;
        registry.register(Box::new(self.wait.clone()))?;
        for counters in [&self.polls, &self.commands, &self.posts] {
            registry.register(Box::new(counters.clone()))?;
        }
        Ok(())
    }

    /// Returns the tunnel's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns how the tunnel is.
    #[must_use]
    pub fn get(&self) -> Condition {
        self.condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes how it is; returns whether that is news.
    pub(super) fn set(&self, condition: Condition) -> bool {
        self.ready.set(i64::from(condition == Condition::Ready));
        let mut now = self
            .condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let news = now.as_str() != condition.as_str()
            || matches!(condition, Condition::Refused(_)) && *now != condition;
        *now = condition;
        news
    }

    /// Counts a request for commands.
    pub(super) fn polled(&self, outcome: Outcome) {
        self.polls.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a post.
    pub(super) fn posted(&self, outcome: Outcome) {
        self.posts.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a post that is tried again.
    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    /// Counts a command that ended.
    pub(super) fn ended(&self, ended: CommandEnd) {
        self.commands.with_label_values(&[ended.as_str()]).inc();
    }

    /// Notes how long a command waited for its begin.
    pub(super) fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_told_once() {
        let status = Status::new("tunnel_x");
        let why = |text: &str| Condition::Unreachable(text.to_owned());
        let no = |text: &str| Condition::Refused(text.to_owned());
        for (condition, news) in [
            (why("dns"), true),
            // Another reason of the same is no news, and is kept.
            (why("refused"), false),
            (no("role"), true),
            (no("role"), false),
            (no("organization"), true),
            (Condition::Ready, true),
            (Condition::Ready, false),
            (Condition::Revoked, true),
        ] {
            assert_eq!(status.set(condition.clone()), news, "{condition:?}");
            assert_eq!(status.get(), condition);
            assert_eq!(status.ready.get() == 1, condition == Condition::Ready);
        }
        assert!(
            status
                .get()
                .detail()
                .is_some_and(|text| text.contains("start the server again"))
        );
    }

    #[test]
    fn all_is_counted_from_nought() {
        let registry = Registry::new();
        Status::new("tunnel_x").register(&registry).expect("new");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        let text = text.expect("text");
        for line in [
            "codex_tunnel_ready 0",
            "codex_tunnel_polls_total{outcome=\"later\"} 0",
            "codex_tunnel_posts_total{outcome=\"refused\"} 0",
            "codex_tunnel_commands_total{outcome=\"expired\"} 0",
            "codex_tunnel_retries_total 0",
            "codex_tunnel_wait_seconds_count 0",
        ] {
            assert!(text.contains(line), "lacks {line}: {text}");
        }
        assert!(!text.contains("tunnel_x"), "the id is the operator's");
    }
}
