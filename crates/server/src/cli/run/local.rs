//! A run on this machine: in the engine, without a server.

use std::time::Duration;

use engine::{Call, Draft, Engine, Outcome, Reply, Status};

use super::files::Made;
use super::printer::{self, Printer, Printing};
use super::{Ended, RunArgs, denied, program};
use crate::api::ExecuteResponse;
use crate::cli::{Failure, serve, settings};
use crate::config::Env;
use crate::exit_code::Exit;
use crate::telemetry;

/// Runs the program to its end; `None` when it was interrupted before there
/// was anything to tell.
pub(super) fn run(args: &RunArgs, env: &Env) -> Result<Option<Ended>, Failure> {
    let mut settings = settings(&args.flags, env)?;
    if !settings.sources.contains_key("log_level") {
        "warn".clone_into(&mut settings.log_level);
    }
    telemetry::start(&settings).map_err(|message| Failure::text(Exit::Config, message))?;
    // Bad files are told before a sandbox is set up for them.
    let draft = program::draft(args, env, program::Limits::near(&settings.config.bounds))?;
    crate::store::make_home(&settings.config.home)?;
    let engine = serve::start_engine(&settings)?;
    let runtime = super::runtime()?;
    let printer = (!args.json).then(|| Printer::new(Printing::of(args.raw)));
    let called = runtime.block_on(call(&engine, draft, printer));
    // Printing may still wait for whoever reads us; nobody waits for that.
    runtime.shutdown_background();
    called?.map(|outcome| ended(outcome, args.json)).transpose()
}

/// Runs the draft to its end, or to Ctrl-C: then the outcome is what there was
/// until then. `None` when there was nothing yet, or nobody waits any longer.
/// Where wanted, output is printed while the program runs.
async fn call(
    engine: &Engine,
    draft: Draft,
    printer: Option<Printer>,
) -> Result<Option<Outcome>, Failure> {
    let job = engine.accept(draft).map_err(|error| {
        let engine::Error::Invalid(invalid) = error else {
            return Failure::new(Exit::Failed, error);
        };
        let flag = match invalid.field.as_str() {
            "timeout" => " --max-timeout moves the limit.",
            "memory_mb" => " --max-memory moves the limit.",
            _ => "",
        };
        Failure::text(Exit::Usage, format!("{invalid}{flag}"))
    })?;
    let call = Call::Execute(Box::new(job));
    let (sink, printed) = match printer {
        Some(printer) => {
            let (sink, printed) = printer::near(tokio::runtime::Handle::current(), printer)?;
            (Some(sink), Some(printed))
        }
        None => (None, None),
    };
    let mut call = std::pin::pin!(async {
        match sink {
            Some(sink) => engine.call_streaming(call, sink).await,
            None => engine.call(call).await,
        }
    });
    let replied = tokio::select! {
        reply = &mut call => reply,
        _ = tokio::signal::ctrl_c() => tokio::select! {
            (reply, ()) = async { tokio::join!(&mut call, engine.drain(Duration::ZERO)) } => reply,
            // Asked twice: dropping the call kills the run.
            _ = tokio::signal::ctrl_c() => return Ok(None),
        },
    };
    if let Some(printed) = printed {
        tokio::select! {
            // A thread that panicked has said so.
            printed = printed => printed.unwrap_or(Ok(()))?,
            _ = tokio::signal::ctrl_c() => return Ok(None),
        }
    }
    match replied {
        Ok(Reply::Outcome(outcome)) => Ok(Some(*outcome)),
        Ok(_) => Ok(None),
        Err(engine::Error::Draining) => Ok(None),
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

fn ended(outcome: Outcome, json: bool) -> Result<Ended, Failure> {
    let made = |file: &engine::OutputFile| Made {
        name: file.path.clone(),
        size: file.size,
        content: Ok(file.content.clone()),
    };
    let last = outcome.last();
    let mut ended = Ended {
        status: outcome.status.as_str().to_owned(),
        interrupted: outcome.status == Status::Cancelled,
        exit_code: last.exit_code,
        signal: last.signal,
        seconds: outcome.usage.wall_time.as_secs_f64(),
        files: outcome.files.iter().map(made).collect(),
        warnings: outcome.warnings.clone(),
        denied: outcome.denied_calls.as_ref().map(|calls| {
            let line = |call: &engine::DeniedCall| {
                denied(call.name, call.count.into(), call.errno, call.reason)
            };
            calls.iter().map(line).collect()
        }),
        answer: None,
    };
    if json {
        let answer = serde_json::to_string_pretty(&ExecuteResponse::from(outcome));
        ended.answer = Some(answer.map_err(|error| Failure::new(Exit::Failed, error))?);
    }
    Ok(ended)
}
