//! What the server counts, in Prometheus' text form.
//!
//! A label is never a caller's own text: routes are templates, methods and
//! statuses those we know. So the number of series is bounded.

use axum::http::Method;
use engine::{Engine, Stream};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::unread::Unread;
use crate::api::Code;
use crate::tunnel;

pub(super) mod process;

/// Why making a metric cannot fail.
const FIXED: &str = "names and labels are fixed, well formed and unique";

/// The route of a request that matched none.
const NOWHERE: &str = "unmatched";

/// All metrics of a server. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    problems: IntCounterVec,
    streams: IntGauge,
    dropped: IntCounterVec,
    unread: IntGauge,
    cut_off: IntCounter,
    live: IntGauge,
    capacity: IntGauge,
    waiting: IntGauge,
    queue: IntGauge,
    request_bytes: IntGauge,
    ready: IntGaugeVec,
    zygotes: IntGaugeVec,
    healthy: IntGauge,
}

/// A stream that is open until this is dropped.
#[derive(Debug)]
pub(super) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Those of a server with this engine, and this tunnel where it has one.
    pub(super) fn of(engine: &Engine, tunnel: Option<&tunnel::Status>) -> Self {
        let metrics = Self::new();
        let registry = &metrics.registry;
        engine.metrics().register(registry).expect(FIXED);
        if let Some(tunnel) = tunnel {
            tunnel.register(registry).expect(FIXED);
        }
        for stream in Stream::ALL {
            // What is counted from nought shows its first rise too.
            metrics.dropped(stream, 0);
        }
        let info = |name, help, label, value: &str| {
            let info = gauges(registry, name, help, &[label]);
            info.with_label_values(&[value]).set(1);
        };
        info(
            "codex_build_info",
            "The version that runs; always 1.",
            "version",
            env!("CARGO_PKG_VERSION"),
        );
        info(
            "codex_isolation_info",
            "The isolation that every run gets; always 1.",
            "isolation",
            engine.isolation().as_str(),
        );
        metrics
    }

    /// Those of HTTP alone.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help).expect(FIXED);
            registry.register(Box::new(gauge.clone())).expect(FIXED);
            gauge
        };
        let cut_off = IntCounter::new(
            "codex_answers_cut_off_total",
            "Finished answers that were cut off because their readers were slow and others needed the room.",
        );
        let cut_off = cut_off.expect(FIXED);
        registry.register(Box::new(cut_off.clone())).expect(FIXED);
        Self {
            requests: counters(
                &registry,
                "codex_http_requests_total",
                "Requests by route, method and status; 499 is a client that went away.",
                &["route", "method", "status"],
            ),
            seconds: seconds(&registry),
            problems: counters(
                &registry,
                "codex_http_problems_total",
                "Refused and failed requests by kind of problem, the last word of its `type`.",
                &["problem"],
            ),
            streams: gauge("codex_streams_open", "Runs whose output is being streamed."),
            dropped: counters(
                &registry,
                "codex_stream_dropped_bytes_total",
                "Bytes of output left out of streams whose readers were too slow.",
                &["stream"],
            ),
            unread: gauge(
                "codex_answers_unread_bytes",
                "Finished answers that wait in memory to be read, but small ones.",
            ),
            cut_off,
            live: gauge("codex_runs_live", "Runs in progress."),
            capacity: gauge("codex_runs_capacity", "Runs possible at once."),
            waiting: gauge("codex_queue_length", "Jobs that wait for a place."),
            queue: gauge("codex_queue_capacity", "Jobs that may wait for a place."),
            request_bytes: gauge(
                "codex_request_bytes",
                "Bytes of the requests in hand, from the body to the end of the run.",
            ),
            ready: gauges(
                &registry,
                "codex_ready_boxes",
                "Boxes that wait for a program, made ahead.",
                &["language", "profile"],
            ),
            zygotes: gauges(
                &registry,
                "codex_zygote_serves",
                "Whether programs can be forked from an interpreter that has started: 1, or 0 while they start by themselves.",
                &["language", "profile"],
            ),
            healthy: gauge(
                "codex_sandbox_healthy",
                "Whether boxes can be made: 1, or 0 once the sandbox broke down.",
            ),
            registry,
        }
    }

    /// A request was answered, or its client went away.
    pub(super) fn request(&self, method: &Method, route: Option<&str>, status: u16, took: f64) {
        let (method, route) = (known(method), route.unwrap_or(NOWHERE));
        let labels = [route, method, &status.to_string()];
        self.requests.with_label_values(&labels).inc();
        let labels = [route, method];
        self.seconds.with_label_values(&labels).observe(took);
    }

    /// A request was refused, or failed.
    pub(super) fn problem(&self, code: Code) {
        self.problems.with_label_values(&[code.slug()]).inc();
    }

    /// A stream is opened.
    pub(super) fn stream(&self) -> Open {
        self.streams.inc();
        Open(self.streams.clone())
    }

    /// Where answers wait, at most `bound` bytes of them, counted here.
    pub(super) fn unread(&self, bound: u64) -> Unread {
        Unread::new(bound, self.unread.clone(), self.cut_off.clone())
    }

    /// Bytes were left out of a stream.
    pub(super) fn dropped(&self, stream: Stream, bytes: u64) {
        let labels = [stream.as_str()];
        self.dropped.with_label_values(&labels).inc_by(bytes);
    }

    /// All of it as text, with the engine's load of this moment.
    pub(super) fn text(
        &self,
        engine: &Engine,
        request_bytes: u64,
    ) -> Result<String, prometheus::Error> {
        let load = engine.load();
        let wide = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.live.set(wide(load.running));
        self.capacity.set(wide(load.capacity));
        self.waiting.set(wide(load.waiting));
        self.queue.set(wide(engine.bounds().queue));
        let request_bytes = i64::try_from(request_bytes).unwrap_or(i64::MAX);
        self.request_bytes.set(request_bytes);
        for stock in engine.ready() {
            let labels = [stock.language.as_str(), stock.profile.as_str()];
            let ready = self.ready.with_label_values(&labels);
            ready.set(wide(stock.boxes));
            if !stock.profile.is_empty() {
                let serves = self.zygotes.with_label_values(&labels);
                serves.set(stock.warm.into());
            }
        }
        self.healthy.set(i64::from(engine.healthy()));
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A method's name, where it is one that clients have any business with.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(FIXED);
    registry.register(Box::new(counters.clone())).expect(FIXED);
    counters
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(FIXED);
    registry.register(Box::new(gauges.clone())).expect(FIXED);
    gauges
}

fn seconds(registry: &Registry) -> HistogramVec {
    let options = HistogramOpts::new(
        "codex_http_request_seconds",
        "Time from a request's headers to the end of its answer, by route and method.",
    );
    let options = options.buckets(engine::SECONDS.to_vec());
    let seconds = HistogramVec::new(options, &["route", "method"]).expect(FIXED);
    registry.register(Box::new(seconds.clone())).expect(FIXED);
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_a_caller_s_invention_share_a_label() {
        let metrics = Metrics::new();
        for name in ["GET", "BREW", "PROPFIND", "X"] {
            let method = Method::from_bytes(name.as_bytes()).expect("a method");
            metrics.request(&method, None, 404, 0.001);
        }
        let text = TextEncoder::new()
            .encode_to_string(&metrics.registry.gather())
            .expect("text");
        for (method, count) in [("GET", 1), ("other", 3)] {
            let line = format!(
                "codex_http_requests_total{{method=\"{method}\",route=\"unmatched\",status=\"404\"}} {count}\n"
            );
            assert!(text.contains(&line), "{text}");
        }
        assert!(!text.contains("BREW"));
    }
}
