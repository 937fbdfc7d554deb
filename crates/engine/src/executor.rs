//! Runs a plan in a box: `Plan → Command → Exit → Outcome`.
//!
//! Dropping the future kills the box; the run's place is free again only when the
//! box is dead.

pub(crate) mod ended;
mod stage;

use std::os::fd::OwnedFd;

use sandbox::{Command, File, Limits, Mount, Spec};
use tokio_util::sync::CancellationToken;

use crate::boxes::{Boxes, Kept, LiveBox, STEP_TIMEOUT};
use crate::captures::Captures;
use crate::config::Bounds;
use crate::error::Error;
use crate::events::{Sink, Started};
use crate::metrics::Measured;
use crate::outcome::{Isolation, Outcome, StageOutcome, Status, Usage};
use crate::pace::Pace;
use crate::plan::{Plan, PlanFile, Stage};
use crate::ready::{Blank, Pool};
use crate::shown::Shown;
use stage::{Clock, QUICK_COPY, Stages};

/// Who follows a run while it goes on.
#[derive(Debug)]
pub(crate) struct Followers<'a> {
    /// Gets the output as it comes, where somebody asked for that.
    pub(crate) sink: Option<Sink>,
    pub(crate) measured: &'a mut Measured,
}

/// Runs `plan` in a box that keeps `kept`, and tells what became of it, also when
/// `kill` ended it. The box is one of the `pool` where one suits.
///
/// # Errors
/// Only our own failures; what the program did is in the outcome.
pub(crate) async fn run(
    boxes: &Boxes,
    pool: &Pool,
    mut plan: Plan,
    kept: Kept,
    kill: &CancellationToken,
    followers: Followers<'_>,
) -> Result<Outcome, Error> {
    let bounds = &boxes.bounds;
    let mut inputs = files(std::mem::take(&mut plan.files));
    let spec = spec(&plan, bounds);
    let Place {
        home,
        mut begun,
        used: mut before,
        start,
    } = find_place(boxes, pool, &plan, &spec, kept, &mut inputs).await?;
    let stages_here = Stages { home: &home };
    let Followers { sink, measured } = followers;
    measured.placed(start);
    measured.step("prepare");
    if let Some(sink) = &sink {
        sink.started(started(&plan, boxes.isolation));
    }
    let pace = Pace::new(bounds.output_rate);
    let mut clock = Clock::new(plan.wall_time);
    let mut stages = Vec::new();
    let mut warnings = Vec::new();
    for stage in plan.stages {
        let name = stage.name.clone();
        // Later stages find the files where the first one got them.
        let files = if stages.is_empty() {
            std::mem::take(&mut inputs)
        } else {
            Vec::new()
        };
        let command = command(stage, files);
        let captures = Captures::new(bounds.output, sink.clone(), pace.clone());
        let (command, ended) = stages_here
            .run(command, begun.take(), &mut clock, captures, before, kill)
            .await?;
        if stages.is_empty() {
            inputs = command.files;
        }
        before = ended.account;
        let (outcome, warned) = ended.outcome(name);
        warnings.extend(warned);
        let go_on = outcome.status == Status::Success;
        stages.push(outcome);
        if !go_on {
            break;
        }
    }
    measured.step("run");
    let collected = home.collect(inputs, plan.ignored, *bounds).await?;
    measured.step("collect");
    warnings.extend(collected.warnings);
    let mut shown = Shown::new(sink);
    shown.read(&collected.results);
    warnings.extend(shown.warnings());
    let denied_calls = home.denials()?.map(|denials| {
        warnings.extend(denials.gap);
        denials.calls
    });
    // The answer need not wait for the kernel to take the box apart.
    drop(home);
    Ok(Outcome {
        id: plan.id,
        status: stages.last().map_or(Status::Error, |stage| stage.status),
        usage: total(&stages),
        stages,
        files: collected.files,
        language: plan.language,
        version: plan.version,
        isolation: boxes.isolation,
        warnings,
        denied_calls,
        started: plan.started,
        results: shown.results(),
        cell: None,
    })
}

/// Whether a program's files and input are handed over at once, without another thread:
/// a box that waits saves little time where they are large.
fn is_small(inputs: &[File], plan: &Plan) -> bool {
    let files = inputs.iter().map(|file| file.content.len());
    let stdin = plan.stages.iter().map(|stage| stage.stdin.len());
    files.chain(stdin).sum::<usize>() <= QUICK_COPY
}

fn files(files: Vec<PlanFile>) -> Vec<File> {
    let files = files.into_iter().map(|file| File {
        path: file.path.into_bytes(),
        content: file.content,
    });
    files.collect()
}

/// A box for a plan, whose program may have begun.
struct Place {
    home: LiveBox,
    /// Read ends of standard output and standard error of a program that has begun.
    begun: Option<[OwnedFd; 2]>,
    /// What the box had used before.
    used: sandbox::Usage,
    /// How the program begins, as a label of a metric.
    start: &'static str,
}

/// Has a waiting interpreter, or one that is forked now, begin with a plan's program.
/// Where there is none, or it can't, the program begins in a box of its own.
async fn find_place(
    boxes: &Boxes,
    pool: &Pool,
    plan: &Plan,
    spec: &Spec,
    kept: Kept,
    inputs: &mut Vec<File>,
) -> Result<Place, Error> {
    let blank = blank(plan, spec, &kept).filter(|_| is_small(inputs, plan));
    let found = match &blank {
        Some(blank) => pool.begin(boxes, blank).await,
        None => None,
    };
    let kept = match found {
        Some((ready, start)) => {
            let given = Command {
                files: std::mem::take(inputs),
                stdin: plan
                    .stages
                    .first()
                    .map(|stage| stage.stdin.clone())
                    .unwrap_or_default(),
                ..Command::default()
            };
            let begun = ready.begin(&given, spec.lifetime, kept).await;
            *inputs = given.files;
            match begun {
                Ok(begun) => {
                    return Ok(Place {
                        home: begun.home,
                        begun: Some(begun.outputs),
                        used: begun.used,
                        start,
                    });
                }
                Err((error, kept)) => {
                    tracing::debug!(%error, "a waiting interpreter did not take its program");
                    kept
                }
            }
        }
        None => kept,
    };
    Ok(Place {
        home: boxes.make(spec, plan.explain, kept).await?,
        begun: None,
        used: sandbox::Usage::default(),
        start: "fresh",
    })
}

/// What a ready box would be for a plan; `None` where its program can't wait.
pub(crate) fn blank(plan: &Plan, spec: &Spec, kept: &Kept) -> Option<Blank> {
    let stage = plan.stages.first().filter(|_| plan.waits)?;
    Some(Blank {
        language: plan.language.clone(),
        spec: spec.clone(),
        argv: stage.argv.clone(),
        env: stage.env.clone(),
        packages: kept._packages.first().cloned(),
        profile: plan.profile.clone(),
        zygote: None,
    })
}

fn started(plan: &Plan, isolation: Isolation) -> Started {
    Started {
        id: plan.id.clone(),
        language: plan.language.clone(),
        version: plan.version.clone(),
        isolation,
    }
}

/// The box for a plan: the largest of what its stages may use.
pub(crate) fn spec(plan: &Plan, bounds: &Bounds) -> Spec {
    let most = |of: fn(&Stage) -> u64| plan.stages.iter().map(of).max().unwrap_or_default();
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let (support, inside) = &plan.support;
    let lent = plan
        .mounts
        .iter()
        .chain(plan.links.iter().map(|(link, _)| link));
    Spec {
        mounts: lent
            .map(Mount::same)
            .chain(
                [(support, inside)]
                    .into_iter()
                    .chain(plan.packages.as_ref().map(|(tree, at)| (tree, at)))
                    .map(|(source, target)| Mount {
                        source: source.clone(),
                        target: target.clone(),
                    }),
            )
            .collect(),
        limits: Limits {
            memory: most(|stage| stage.memory),
            processes: narrow(most(|stage| u64::from(stage.processes))),
            cpu_millis: narrow(most(|stage| u64::from(stage.cpu_millis))),
            workspace: bounds.workspace,
            inodes: bounds.inodes,
            shm: bounds.shm,
            open_files: Bounds::OPEN_FILES,
        },
        lifetime: Some(plan.wall_time + bounds.collect_time + 4 * STEP_TIMEOUT),
        adopts: false,
    }
}

fn command(stage: Stage, files: Vec<File>) -> Command {
    Command {
        argv: stage.argv.into_iter().map(String::into_bytes).collect(),
        env: stage
            .env
            .into_iter()
            .map(|(name, value)| format!("{name}={value}").into_bytes())
            .collect(),
        files,
        stdin: stage.stdin,
    }
}

fn total(stages: &[StageOutcome]) -> Usage {
    Usage {
        wall_time: stages.iter().map(|stage| stage.usage.wall_time).sum(),
        cpu_time: stages.iter().map(|stage| stage.usage.cpu_time).sum(),
        memory_peak: stages
            .iter()
            .filter_map(|stage| stage.usage.memory_peak)
            .max(),
    }
}
