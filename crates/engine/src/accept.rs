//! From a [`Draft`] to a [`Job`]: the one place where requests are checked.
//!
//! Every refusal names the field in the wire's words and the cure. A job that
//! leaves here never needs a second check. Never looks at the file system.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

use crate::config::Bounds;
use crate::job::{Desk, Draft, DraftFile, Invalid, Job};
use crate::quote::quote;
use crate::runtime::manifest::is_environment_name;
use crate::runtime::{Manifest, Registry};
use crate::session::CommandDraft;

const MIB: u64 = 1024 * 1024;
/// The shortest wall time that may be asked for.
pub(crate) const WALL_TIME_MIN: Duration = Duration::from_secs(1);
/// The least memory that may be asked for, in bytes; no interpreter starts with less.
const MEMORY_MIN: u64 = 16 * MIB;
/// Files and folders of a workspace that are there before any input: its root,
/// `/workspace`, `/tmp` and the program text, and as many again to begin with.
const INODES_TAKEN: u64 = 8;

/// Checks a draft and fills in the defaults.
///
/// # Errors
/// [`Invalid`] for the first field that is wrong.
pub(crate) fn accept(draft: Draft, bounds: &Bounds, registry: &Registry) -> Result<Job, Invalid> {
    let manifest = language(draft.language.as_deref(), registry)?;
    code(&draft.code, bounds)?;
    stdin(&draft.stdin, bounds)?;
    arguments(&draft.args, bounds)?;
    environment(&draft.env, bounds)?;
    files(&draft.files, &manifest.reserved, bounds)?;
    fits(&draft, bounds)?;
    Ok(Job {
        id: uuid::Uuid::now_v7().to_string(),
        language: manifest.name.clone(),
        wall_time: wall_time(draft.wall_time, bounds)?,
        memory: memory(draft.memory, bounds)?,
        processes: bounds
            .processes
            .or(manifest.processes)
            .unwrap_or(Bounds::PROCESSES),
        queue_wait: queue_wait(&draft, bounds),
        started: SystemTime::now(),
        cell: None,
        draft,
    })
}

/// Checks a draft that is to run as a cell of a session, but for the session.
///
/// # Errors
/// [`Invalid`] for the first field that is wrong.
pub(crate) fn cell(draft: &Draft, bounds: &Bounds) -> Result<(), Invalid> {
    code(&draft.code, bounds)?;
    stdin(&draft.stdin, bounds)?;
    environment(&draft.env, bounds)?;
    files(&draft.files, &[], bounds)?;
    let of_runs = [
        ("args", !draft.args.is_empty()),
        ("memory_mb", draft.memory.is_some()),
        ("explain", draft.explain),
    ];
    if let Some((field, _)) = of_runs.into_iter().find(|(_, given)| *given) {
        return Err(invalid(
            field,
            "is for a run of its own, not for a cell of a session",
            "Leave it out, or leave out session_id.",
        ));
    }
    Ok(())
}

/// Checks a command of a session.
///
/// # Errors
/// [`Invalid`] for the first field that is wrong.
pub(crate) fn command(draft: &CommandDraft, bounds: &Bounds) -> Result<(), Invalid> {
    if draft.command.trim().is_empty() || draft.command.contains('\0') {
        return Err(invalid(
            "command",
            "is empty, or holds a NUL character",
            "Send a command as a shell takes it, such as \"ls -l\".",
        ));
    }
    let most = Bounds::COMMAND_BYTES;
    let cure = "Put a long script into a file and run that.";
    at_most("command", draft.command.len(), most, bytes_long, cure)?;
    if let Some(stdin) = &draft.stdin {
        self::stdin(stdin, bounds)?;
    }
    environment(&draft.env, bounds)?;
    if let Some(directory) = &draft.directory {
        path("directory", directory)?;
    }
    if let Some(given) = draft.wall_time
        && !draft.background
    {
        wall_time(Some(given), bounds)?;
    }
    Ok(())
}

/// Makes the job of a checked cell.
///
/// # Errors
/// [`Invalid`] for a wall time that is none.
pub(crate) fn cell_job(
    draft: Draft,
    language: String,
    bounds: &Bounds,
    desk: Desk,
) -> Result<Job, Invalid> {
    Ok(Job {
        id: uuid::Uuid::now_v7().to_string(),
        language,
        wall_time: wall_time(draft.wall_time, bounds)?,
        memory: bounds.memory,
        processes: Bounds::PROCESSES,
        queue_wait: queue_wait(&draft, bounds),
        started: SystemTime::now(),
        cell: Some(desk),
        draft,
    })
}

/// How long a draft may wait for a place.
fn queue_wait(draft: &Draft, bounds: &Bounds) -> Duration {
    let asked = draft.queue_wait;
    asked.map_or(bounds.queue_wait, |wait| wait.min(bounds.queue_wait))
}

fn invalid(
    field: impl Into<String>,
    problem: impl Into<String>,
    cure: impl Into<String>,
) -> Invalid {
    Invalid {
        field: field.into(),
        problem: problem.into(),
        cure: cure.into(),
    }
}

/// Refuses a field of which there is more than a limit. The problem says how
/// much there is, such as `holds 9 files`.
fn at_most<T: PartialOrd + Display>(
    field: impl Into<String>,
    amount: T,
    limit: T,
    problem: impl FnOnce(T) -> String,
    cure: &str,
) -> Result<(), Invalid> {
    if amount <= limit {
        return Ok(());
    }
    let problem = format!("{}, over the limit of {limit}", problem(amount));
    Err(invalid(field, problem, cure))
}

fn language<'a>(word: Option<&str>, registry: &'a Registry) -> Result<&'a Manifest, Invalid> {
    let Some(word) = word else {
        return Ok(&registry.default_runtime().manifest);
    };
    registry
        .find(word)
        .map(|runtime| &runtime.manifest)
        .ok_or_else(|| {
            let known: Vec<String> = registry
                .languages()
                .into_iter()
                .map(|language| language.name)
                .collect();
            let problem = match registry.missing_version(word) {
                Some(version) => format!("{version} is not on this server"),
                None => format!("\"{}\" is not a known language", quote(word)),
            };
            invalid(
                "language",
                problem,
                format!("Send one of: {}.", known.join(", ")),
            )
        })
}

fn code(code: &str, bounds: &Bounds) -> Result<(), Invalid> {
    if code.trim().is_empty() {
        return Err(invalid("code", "is empty", "Send the program text to run."));
    }
    if let Some(at) = code.find('\0') {
        return Err(invalid(
            "code",
            format!("holds a NUL character at byte {at}"),
            "Remove it; write it as an escape of the language where the program needs one.",
        ));
    }
    at_most(
        "code",
        code.len(),
        bounds.code,
        bytes_long,
        "Send less code; put data into files or stdin.",
    )
}

fn bytes_long(bytes: usize) -> String {
    format!("is {bytes} bytes long")
}

fn stdin(stdin: &[u8], bounds: &Bounds) -> Result<(), Invalid> {
    let cure = "Send less input.";
    at_most("stdin", stdin.len(), bounds.stdin, bytes_long, cure)
}

fn arguments(args: &[String], bounds: &Bounds) -> Result<(), Invalid> {
    at_most(
        "args",
        args.len(),
        bounds.args,
        |count| format!("holds {count} arguments"),
        "Send fewer; put long lists into stdin or a file.",
    )?;
    if let Some(number) = args.iter().position(|arg| arg.contains('\0')) {
        return Err(invalid(
            format!("args[{number}]"),
            "holds a NUL character",
            "Remove it; no program can be given such an argument.",
        ));
    }
    if let Some(number) = args.iter().position(|arg| arg.len() > Bounds::ARG_BYTES) {
        return Err(invalid(
            format!("args[{number}]"),
            format!(
                "is {} bytes long, over the kernel's limit of {}",
                args[number].len(),
                Bounds::ARG_BYTES
            ),
            "Put long texts into stdin or a file.",
        ));
    }
    // The kernel counts the NUL that ends each.
    let bytes: usize = args.iter().map(|arg| arg.len() + 1).sum();
    at_most(
        "args",
        bytes,
        bounds.args_bytes,
        |bytes| format!("are {bytes} bytes in all"),
        "Send less; put long texts into stdin or a file.",
    )
}

pub(crate) fn environment(env: &[(String, String)], bounds: &Bounds) -> Result<(), Invalid> {
    at_most(
        "env",
        env.len(),
        bounds.env,
        |count| format!("holds {count} variables"),
        "Send fewer; put settings into a file.",
    )?;
    let mut seen = BTreeSet::new();
    for (name, value) in env {
        let field = || format!("env.{}", quote(name));
        if !is_environment_name(name) {
            return Err(invalid(
                field(),
                "is not a variable's name",
                "Use letters, digits and underscores, and no digit first.",
            ));
        }
        if value.contains('\0') {
            return Err(invalid(
                field(),
                "holds a NUL character",
                "Remove it from the value.",
            ));
        }
        if !seen.insert(name) {
            return Err(invalid(
                field(),
                "is given twice",
                "Give each variable once.",
            ));
        }
    }
    let entry = |(name, value): &(String, String)| name.len() + 1 + value.len();
    if let Some(long) = env.iter().find(|pair| entry(pair) > Bounds::ARG_BYTES) {
        return Err(invalid(
            format!("env.{}", quote(&long.0)),
            format!(
                "is {} bytes long with its name, over the kernel's limit of {}",
                entry(long),
                Bounds::ARG_BYTES
            ),
            "Put long texts into a file.",
        ));
    }
    // The kernel counts the NUL that ends each.
    let bytes: usize = env.iter().map(|pair| entry(pair) + 1).sum();
    at_most(
        "env",
        bytes,
        bounds.args_bytes,
        |bytes| format!("is {bytes} bytes in all"),
        "Send less; put long texts into a file.",
    )
}

fn files(files: &[DraftFile], reserved: &[String], bounds: &Bounds) -> Result<(), Invalid> {
    at_most(
        "files",
        files.len(),
        bounds.files_in,
        |count| format!("holds {count} files"),
        "Send fewer files, or one archive that the program unpacks.",
    )?;
    at_most(
        "files",
        files.iter().map(|file| file.content.len() as u64).sum(),
        bounds.files_in_bytes,
        |bytes| format!("are {bytes} bytes in all"),
        "Send less data.",
    )?;
    let mut taken: BTreeSet<&str> = reserved.iter().map(String::as_str).collect();
    let mut directories = BTreeSet::new();
    for (number, DraftFile { path, .. }) in files.iter().enumerate() {
        let field = || format!("files[{number}].path");
        check_path(path).map_err(|(problem, cure)| invalid(field(), problem, cure))?;
        if reserved.contains(path) {
            return Err(invalid(
                field(),
                format!("\"{path}\" is the name of the program's own file"),
                "Choose another name; the program text goes into code.",
            ));
        }
        if !taken.insert(path) {
            return Err(invalid(
                field(),
                format!("\"{}\" is given twice", quote(path)),
                "Give each file once.",
            ));
        }
        directories.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
        // Either order of the two is a clash.
        if let Some(clash) = taken.intersection(&directories).next() {
            return Err(invalid(
                field(),
                format!("\"{}\" would be a file and a directory", quote(clash)),
                "Rename one of the two.",
            ));
        }
    }
    Ok(())
}

/// Whether the workspace can hold what is put into it: pages for contents, an
/// inode for each file and each folder on its way. What is accepted here always
/// fits, so a full workspace before the program runs is our own failure.
fn fits(draft: &Draft, bounds: &Bounds) -> Result<(), Invalid> {
    let page = rustix::param::page_size() as u64;
    let pages = |length: usize| (length as u64).next_multiple_of(page);
    let mut inodes = INODES_TAKEN;
    let mut bytes = pages(draft.code.len());
    let mut folders = BTreeSet::new();
    for file in &draft.files {
        bytes += pages(file.content.len());
        inodes += 1;
        folders.extend(
            file.path
                .match_indices('/')
                .map(|(end, _)| &file.path[..end]),
        );
    }
    inodes += folders.len() as u64;
    let field = if draft.files.is_empty() {
        "code"
    } else {
        "files"
    };
    if bytes > bounds.workspace {
        return Err(invalid(
            field,
            format!(
                "needs {bytes} bytes of the workspace with the program text, which has {}",
                bounds.workspace
            ),
            "Send less data.",
        ));
    }
    if inodes > bounds.inodes {
        return Err(invalid(
            field,
            format!(
                "needs {inodes} files and folders of the workspace, which has {}",
                bounds.inodes
            ),
            "Send fewer files in fewer folders, or one archive that the program unpacks.",
        ));
    }
    Ok(())
}

/// Whether a path is relative, stays below the workspace, and can be made.
/// Checks a path below a workspace.
///
/// # Errors
/// [`Invalid`] names `field`.
pub(crate) fn path(field: &str, path: &str) -> Result<(), Invalid> {
    check_path(path).map_err(|(problem, cure)| invalid(field, problem, cure))
}

fn check_path(path: &str) -> Result<(), (String, &'static str)> {
    const RELATIVE: &str = "Give a path relative to the working directory, such as data/input.csv.";
    if path.is_empty() {
        return Err(("is empty".to_owned(), RELATIVE));
    }
    if path.len() > Bounds::PATH_BYTES {
        let problem = format!(
            "is {} bytes long, over the limit of {}",
            path.len(),
            Bounds::PATH_BYTES
        );
        return Err((problem, "Use a shorter path."));
    }
    if path.starts_with('/') {
        return Err((format!("\"{}\" is an absolute path", quote(path)), RELATIVE));
    }
    if path.chars().any(char::is_control) {
        return Err((
            format!("\"{}\" holds a control character", quote(path)),
            "Remove it.",
        ));
    }
    let depth = path.matches('/').count();
    if depth > Bounds::PATH_DEPTH {
        let problem = format!(
            "is {depth} folders deep, over the limit of {}",
            Bounds::PATH_DEPTH
        );
        return Err((problem, "Use fewer folders below each other."));
    }
    for name in path.split('/') {
        if matches!(name, "" | "." | "..") {
            return Err((
                format!("\"{}\" holds an empty, . or .. component", quote(path)),
                RELATIVE,
            ));
        }
        if name.len() > Bounds::NAME_BYTES {
            let problem = format!(
                "holds a name of {} bytes, over the limit of {}",
                name.len(),
                Bounds::NAME_BYTES
            );
            return Err((problem, "Use shorter names."));
        }
    }
    Ok(())
}

fn wall_time(asked: Option<Duration>, bounds: &Bounds) -> Result<Duration, Invalid> {
    let wall_time = asked.unwrap_or(bounds.wall_time);
    if wall_time < WALL_TIME_MIN.min(bounds.wall_time_max) || wall_time > bounds.wall_time_max {
        return Err(invalid(
            "timeout",
            format!("{} s is out of range", wall_time.as_secs_f64()),
            format!(
                "Send a number of seconds from {} to {}.",
                WALL_TIME_MIN.min(bounds.wall_time_max).as_secs_f64(),
                bounds.wall_time_max.as_secs_f64()
            ),
        ));
    }
    Ok(wall_time)
}

pub(crate) fn memory(asked: Option<u64>, bounds: &Bounds) -> Result<u64, Invalid> {
    let memory = asked.unwrap_or(bounds.memory);
    if memory < MEMORY_MIN.min(bounds.memory_max) || memory > bounds.memory_max {
        return Err(invalid(
            "memory_mb",
            format!("{} MiB is out of range", memory / MIB),
            format!(
                "Send a number of MiB from {} to {}.",
                MEMORY_MIN.min(bounds.memory_max) / MIB,
                bounds.memory_max / MIB
            ),
        ));
    }
    Ok(memory)
}

#[cfg(test)]
mod tests;
