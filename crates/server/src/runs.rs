//! The use case "run code for a caller", told once for every front door.
//!
//! From a caller's order to the answer: fetch its files, fit it into the
//! caller's time, run it, keep the files it left, and shape the answer to what
//! the caller's client takes. Knows nothing of HTTP, and runs nothing itself.

use std::time::Duration;

use engine::{Call, Job, Outcome, Reply, Sink};
use tokio::time::Instant;

use crate::api::{Code, ExecuteResponse, Order, Problem, fit};
use crate::app::App;
use crate::auth::Principal;
use crate::file_url::Fetched;
use crate::telemetry::chain;

mod deadline;
mod files;
mod offer;

pub(crate) use deadline::Deadline;

/// Identity and limits of whoever asked for a run.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who it is.
    pub(crate) principal: Principal,
    /// Where links to this server begin, without a slash at the end.
    pub(crate) base_url: String,
    /// Limits of its client.
    pub(crate) client: ClientLimits,
}

/// Limits of a client that are tighter than the API's.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientLimits {
    /// When its answer is due.
    pub(crate) deadline: Option<Deadline>,
    /// Characters (UTF-16 units) of JSON that it takes; a longer answer is cut.
    pub(crate) max_chars: Option<usize>,
    /// Whether files are also offered in the two ways that ChatGPT knows.
    pub(crate) chatgpt_files: bool,
}

/// An order that is ready to run: its files are fetched, its time is fitted,
/// and the engine has accepted it.
#[derive(Debug)]
pub(crate) struct Prepared {
    job: Job,
    /// The right to hold what was fetched.
    fetched: Option<Fetched>,
    warnings: Vec<String>,
}

/// Prepares an order to be run.
///
/// # Errors
/// Whatever is wrong with the order or its files.
pub(crate) async fn prepare(app: &App, caller: &Caller, order: Order) -> Result<Prepared, Problem> {
    let Order {
        mut draft,
        file_refs,
        mut warnings,
    } = order;
    draft.owner = caller.principal.id.clone();
    let deadline = caller.client.deadline;
    let fetched = files::fetch(app, deadline, &file_refs, &mut draft, &mut warnings).await?;
    if let Some(deadline) = deadline {
        let left = deadline.at.saturating_duration_since(Instant::now());
        warnings.extend(deadline.fit(&mut draft, app.engine.bounds(), left));
    }
    Ok(Prepared {
        job: app.engine.accept(draft).map_err(|error| failed(&error))?,
        fetched,
        warnings,
    })
}

/// Runs what was prepared and returns the whole answer. With a sink, the run
/// can be followed while it goes on. Dropping the future kills the run.
///
/// # Errors
/// A busy server, a deadline that passed, and our own failures, which are
/// logged here.
pub(crate) async fn execute(
    app: &App,
    caller: &Caller,
    prepared: Prepared,
    follow: Option<Sink>,
) -> Result<ExecuteResponse, Problem> {
    let Prepared {
        job,
        fetched,
        warnings,
    } = prepared;
    let outcome = run(app, caller.client.deadline, job, follow).await;
    // Others may fetch now, however long the answer takes.
    drop(fetched);
    let mut outcome = outcome?;
    let links = offer::offer(app, caller, &mut outcome).await;
    let mut response = ExecuteResponse::from(outcome);
    response.link(links);
    response.warn_first(warnings);
    Ok(caller.client.shape(response))
}

/// Runs a job to its end, within the deadline where there is one.
async fn run(
    app: &App,
    deadline: Option<Deadline>,
    job: Job,
    follow: Option<Sink>,
) -> Result<Outcome, Problem> {
    let engine = &app.engine;
    let call = Call::Execute(Box::new(job));
    let answered = async {
        match follow {
            Some(sink) => engine.call_streaming(call, sink).await,
            None => engine.call(call).await,
        }
    };
    let replied = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.at, answered)
            .await
            .map_err(|_| too_late(&deadline))?,
        None => answered.await,
    };
    match replied.map_err(|error| failed(&error))? {
        Reply::Outcome(outcome) => Ok(*outcome),
        _ => Err(Problem::internal()),
    }
}

impl ClientLimits {
    /// Fits an answer to what the client takes.
    fn shape(&self, mut response: ExecuteResponse) -> ExecuteResponse {
        if self.chatgpt_files {
            response.offer_to_chatgpt();
        }
        match self.max_chars {
            Some(max_chars) => fit(response, max_chars),
            None => response,
        }
    }
}

/// Returns what the caller may know of a failure, and logs the rest.
pub(crate) fn failed(error: &engine::Error) -> Problem {
    let problem = Problem::from(error);
    if problem.code == Code::Internal {
        tracing::error!(error = %chain(error), "failed to run a job");
    } else {
        tracing::debug!(error = %chain(error), "refused a job");
    }
    problem
}

/// Returns the problem of a run whose deadline passed while it waited or ran:
/// a last resort, since queue and program together were given less.
fn too_late(deadline: &Deadline) -> Problem {
    Problem::new(
        Code::Unavailable,
        format!(
            "The server is too busy to finish this within the {} s that {} may take; the run was stopped. Try again, with a shorter `timeout` if the program allows it.",
            deadline.limit.as_secs(),
            deadline.whose,
        ),
    )
    .retry_after(Duration::from_secs(5))
}
