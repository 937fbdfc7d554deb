//! What the engine counts and measures of its runs, whichever door they came
//! through. Labels are words of ours or names from the manifests, never of a
//! caller's choosing, so the number of series is bounded.

use std::time::Duration;

use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
};
use tokio::time::Instant;

use crate::error::Error;
use crate::events::Stream;
use crate::outcome::{Isolation, Outcome, Status};

/// Upper bounds of durations in seconds, from one millisecond to five minutes,
/// the longest that a run may be allowed.
pub const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Upper bounds of memory in bytes, from 8 MiB to 16 GiB.
const BYTES: &[f64] = &[
    8_388_608.0,
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
    134_217_728.0,
    268_435_456.0,
    536_870_912.0,
    1_073_741_824.0,
    2_147_483_648.0,
    4_294_967_296.0,
    17_179_869_184.0,
];

/// The `status` of a run that the server failed to carry out.
const FAILED: &str = "failed";

/// Why a run may not be begun: all places are taken and the queue is full, or
/// the wait for a place was too long; the server is shutting down; there is no
/// interpreter; the server failed.
const REASONS: [&str; 5] = [
    "queue_full",
    "queue_wait",
    "draining",
    "language_unavailable",
    FAILED,
];

/// The engine's metrics. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    runs: IntCounterVec,
    refused: IntCounterVec,
    queue: Histogram,
    steps: HistogramVec,
    cpu: CounterVec,
    memory: HistogramVec,
    output: IntCounterVec,
    starts: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self::empty();
        // What is counted from nought shows its first rise too.
        for reason in REASONS {
            metrics.refused.with_label_values(&[reason]);
        }
        for stream in Stream::ALL {
            metrics.output.with_label_values(&[stream.as_str()]);
        }
        metrics
    }

    fn empty() -> Self {
        Self {
            runs: counters(
                "codex_runs_total",
                "Runs that have ended, by status; `cancelled` when the client went away or the server stopped, `failed` when the server failed.",
                &["language", "status", "isolation"],
            ),
            refused: counters(
                "codex_runs_refused_total",
                "Runs that were not begun, by reason.",
                &["reason"],
            ),
            queue: histogram(
                "codex_queue_wait_seconds",
                "Time from a job's acceptance to its place, of the jobs that got one.",
            ),
            steps: histograms(
                "codex_run_step_seconds",
                "Time of each step of a run: `prepare` makes the box, `run` is the program from hand-over to end, `collect` looks for files.",
                SECONDS,
                &["language", "step"],
            ),
            cpu: CounterVec::new(
                Opts::new(
                    "codex_run_cpu_seconds_total",
                    "Processor time of programs, where it was measured.",
                ),
                &["language"],
            )
            .expect(FIXED),
            memory: histograms(
                "codex_run_memory_peak_bytes",
                "Highest memory use of each run, where it was measured.",
                BYTES,
                &["language"],
            ),
            output: counters(
                "codex_run_output_bytes_total",
                "Bytes that programs wrote, kept or not.",
                &["stream"],
            ),
            starts: counters(
                "codex_run_starts_total",
                "Runs by how they began: `ready` in a box that was made ahead, `forked` from a zygote into a box that was made for them, `fresh` by a start of the interpreter in such a box.",
                &["language", "box"],
            ),
        }
    }

    /// Lets a registry show them.
    ///
    /// # Errors
    /// When it has metrics of these names already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.runs.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(self.queue.clone()))?;
        registry.register(Box::new(self.steps.clone()))?;
        registry.register(Box::new(self.cpu.clone()))?;
        registry.register(Box::new(self.memory.clone()))?;
        registry.register(Box::new(self.output.clone()))?;
        registry.register(Box::new(self.starts.clone()))
    }

    /// Begins to measure a run that has got its place.
    pub(crate) fn begin(&self, language: &str, isolation: Isolation) -> Measured {
        Measured {
            metrics: self.clone(),
            language: language.to_owned(),
            isolation,
            status: Status::Cancelled.as_str(),
            since: Instant::now(),
        }
    }

    /// A job got a place after that long.
    pub(crate) fn queued(&self, waited: Duration) {
        self.queue.observe(waited.as_secs_f64());
    }

    /// A job was not begun.
    pub(crate) fn refused(&self, error: &Error) {
        let reason = match error {
            Error::Overloaded {
                queue_full: true, ..
            } => REASONS[0],
            Error::Overloaded { .. } => REASONS[1],
            Error::Draining => REASONS[2],
            Error::Unavailable { .. } => REASONS[3],
            Error::ContextBusy { .. } => REASONS[0],
            Error::Sandbox(_) | Error::Io { .. } => REASONS[4],
            // The caller's to mend, and no sign of how the server does.
            Error::NoSession { .. }
            | Error::NoContext { .. }
            | Error::TooManySessions { .. }
            | Error::NotWritten { .. }
            | Error::NoFile { .. }
            | Error::NoCommand { .. }
            | Error::NoRoom { .. }
            | Error::NotForked { .. }
            | Error::Invalid(_) => return,
        };
        self.refused.with_label_values(&[reason]).inc();
    }
}

/// A run that is being measured. Dropped before its end it counts as cancelled:
/// nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Measured {
    metrics: Metrics,
    language: String,
    isolation: Isolation,
    status: &'static str,
    since: Instant,
}

impl Measured {
    /// A step has ended; the next one begins.
    pub(crate) fn step(&mut self, step: &str) {
        let now = Instant::now();
        let labels = [self.language.as_str(), step];
        let took = now.duration_since(self.since).as_secs_f64();
        self.metrics.steps.with_label_values(&labels).observe(took);
        self.since = now;
    }

    /// The run has its box. `start` says how it begins there: a label of the metric.
    pub(crate) fn placed(&mut self, start: &str) {
        let labels = [self.language.as_str(), start];
        self.metrics.starts.with_label_values(&labels).inc();
    }

    /// The run has ended.
    pub(crate) fn ended(mut self, ended: &Result<Outcome, Error>) {
        let Ok(outcome) = ended else {
            self.status = FAILED;
            return;
        };
        self.status = outcome.status.as_str();
        let language = [self.language.as_str()];
        let Metrics {
            cpu,
            memory,
            output,
            ..
        } = &self.metrics;
        if let Some(time) = outcome.usage.cpu_time {
            cpu.with_label_values(&language).inc_by(time.as_secs_f64());
        }
        if let Some(peak) = outcome.usage.memory_peak {
            memory.with_label_values(&language).observe(float(peak));
        }
        for stage in &outcome.stages {
            let written = [stage.stdout.total, stage.stderr.total];
            for (stream, bytes) in Stream::ALL.into_iter().zip(written) {
                output.with_label_values(&[stream.as_str()]).inc_by(bytes);
            }
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let labels = [&self.language, self.status, self.isolation.as_str()];
        self.metrics.runs.with_label_values(&labels).inc();
    }
}

/// Why making a metric cannot fail.
const FIXED: &str = "names and labels are fixed and well formed";

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(FIXED)
}

fn histogram(name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    Histogram::with_opts(options).expect(FIXED)
}

fn histograms(name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    HistogramVec::new(options, labels).expect(FIXED)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric of so many bytes is no more precise than a double"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    fn shown(metrics: &Metrics) -> String {
        let registry = Registry::new();
        metrics.register(&registry).unwrap();
        TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    #[test]
    fn a_run_that_nobody_waits_for_is_cancelled() {
        let metrics = Metrics::new();
        let mut run = metrics.begin("python", Isolation::Full);
        run.step("prepare");
        drop(run);
        let failed = Err(Error::Draining);
        metrics.begin("python", Isolation::Full).ended(&failed);
        let text = shown(&metrics);
        for (status, count) in [("cancelled", 1), ("failed", 1)] {
            let line = format!(
                "codex_runs_total{{isolation=\"full\",language=\"python\",status=\"{status}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{text}");
        }
        assert!(
            text.contains("codex_run_step_seconds_count{language=\"python\",step=\"prepare\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn refusals_have_their_reasons() {
        let busy = |queue_full| Error::Overloaded {
            running: 1,
            waiting: 1,
            own_waiting: 1,
            queue_full,
            retry_after: Duration::ZERO,
        };
        let metrics = Metrics::new();
        metrics.refused(&busy(true));
        metrics.refused(&busy(false));
        metrics.refused(&Error::Draining);
        let text = shown(&metrics);
        for reason in ["queue_full", "queue_wait", "draining"] {
            let line = format!("codex_runs_refused_total{{reason=\"{reason}\"}} 1\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
