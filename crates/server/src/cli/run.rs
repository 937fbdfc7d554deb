//! `run`: one program through the engine, without a server. The program's
//! output passes through untouched, while it runs; what we have to say goes to standard
//! error, and our own failures exit with a code no program is likely to use.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use engine::{Bounds, Call, Draft, Engine, Language, Outcome, Reply, Status};

use super::{EngineFlags, Failure, serve, settings};
use crate::api::ExecuteResponse;
use crate::config::{Env, value};
use crate::exit_code::Exit;
use crate::{output, telemetry};

mod live;

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("program").required(true).args(["file", "code"]),
    after_help = "The exit code is the program's own: 124 after a timeout, 128 + N after signal N,\n125 when it could not be run at all.\n\nExamples:\n  codex-server run hello.py\n  codex-server run -c 'console.log(2+2)' --language javascript\n  codex-server run sum.py --stdin numbers.txt -- --verbose\n  echo 'print(1)' | codex-server run -"
)]
pub(super) struct RunArgs {
    /// The program's file, or - for standard input
    file: Option<PathBuf>,
    /// The program itself
    #[arg(
        short = 'c',
        long = "code",
        value_name = "CODE",
        allow_hyphen_values = true
    )]
    code: Option<String>,
    /// Its language; else told by the file's ending, else the default one
    #[arg(short, long)]
    language: Option<String>,
    /// How long it may take, such as 5 or 500ms
    #[arg(short, long, value_name = "TIME", value_parser = value::duration)]
    timeout: Option<Duration>,
    /// How much memory it may use, such as 256MiB
    #[arg(long, value_name = "SIZE", value_parser = value::bytes)]
    memory: Option<u64>,
    /// A file to give it as standard input, or - to pass ours on
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// A directory to put the files into that it leaves
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Print what POST /execute would answer, and exit with 0 however the program ended
    #[arg(long)]
    json: bool,
    /// Arguments for the program
    #[arg(last = true)]
    args: Vec<String>,
    #[command(flatten)]
    flags: EngineFlags,
}

pub(super) fn run(args: RunArgs, env: &Env) -> Result<Exit, Failure> {
    // Whatever of ours fails, the caller must be able to tell it from the program.
    start(args, env).map_err(|failure| Failure {
        exit: Exit::NotRun,
        ..failure
    })
}

fn start(args: RunArgs, env: &Env) -> Result<Exit, Failure> {
    let mut settings = settings(&args.flags, env)?;
    if !settings.sources.contains_key("log_level") {
        "warn".clone_into(&mut settings.log_level);
    }
    telemetry::start(&settings).map_err(|message| Failure::text(Exit::Config, message))?;
    // Bad files are told before a sandbox is set up for them.
    let mut draft = draft(&args, &settings.config.bounds)?;
    crate::store::make_home(&settings.config.home)?;
    let engine = serve::start_engine(&settings)?;
    draft.language = match (&args.language, &args.file) {
        (Some(language), _) => Some(language.clone()),
        (None, Some(file)) if file.as_os_str() != "-" => {
            Some(language_of(file, &engine.languages())?)
        }
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let called = runtime.block_on(call(&engine, draft, !args.json));
    // Printing may still wait for whoever reads us; nobody waits for that.
    runtime.shutdown_background();
    let Some(outcome) = called? else {
        output::note("interrupted");
        return Ok(Exit::Interrupted);
    };
    if let Some(directory) = &args.save {
        save(&outcome, directory)?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(&ExecuteResponse::from(outcome))
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        output::text(&text)?;
        return Ok(Exit::Success);
    }
    for remark in remarks(&outcome, args.save.as_deref()) {
        output::note(&format!("codex-server: {remark}"));
    }
    if outcome.status == Status::Cancelled {
        output::note("interrupted");
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Program(exit_code(&outcome)))
}

/// Runs the draft to its end, or to Ctrl-C: then the outcome is what there was
/// until then. `None` when there was nothing yet, or nobody waits any longer.
/// Where wanted, output is printed while the program runs.
async fn call(engine: &Engine, draft: Draft, print: bool) -> Result<Option<Outcome>, Failure> {
    let job = engine.accept(draft).map_err(|invalid| {
        let flag = match invalid.field.as_str() {
            "timeout" => " --max-timeout moves the limit.",
            "memory_mb" => " --max-memory moves the limit.",
            _ => "",
        };
        Failure::text(Exit::Usage, format!("{invalid}{flag}"))
    })?;
    let call = Call::Execute(Box::new(job));
    let (sink, printed) = if print {
        let live::Printing { sink, ended } = live::start(tokio::runtime::Handle::current())?;
        (Some(sink), Some(ended))
    } else {
        (None, None)
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
        Err(engine::Error::Draining) => Ok(None),
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

fn draft(args: &RunArgs, bounds: &Bounds) -> Result<Draft, Failure> {
    let code_from_stdin = args.file.as_deref().is_some_and(is_dash);
    if code_from_stdin && args.stdin.as_deref().is_some_and(is_dash) {
        return Err(Failure::text(
            Exit::Usage,
            "standard input cannot be both the program and its input; give the program as a file",
        ));
    }
    let code = match (&args.code, &args.file) {
        (Some(code), _) => code.clone().into_bytes(),
        (None, Some(file)) => read(file, bounds.code)?,
        (None, None) => return Err(Failure::text(Exit::Usage, "give a file, - or -c CODE")),
    };
    let code = String::from_utf8(code).map_err(|_| {
        Failure::text(
            Exit::Usage,
            "the program is not UTF-8 text; save it as UTF-8",
        )
    })?;
    let stdin = args
        .stdin
        .as_deref()
        .map(|file| read(file, bounds.stdin))
        .transpose()?;
    Ok(Draft {
        code,
        stdin: stdin.unwrap_or_default(),
        args: args.args.clone(),
        wall_time: args.timeout,
        memory: args.memory,
        ..Draft::default()
    })
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads one byte more than fits, so that the engine can say it is too much.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut content = Vec::new();
    let read = if is_dash(path) {
        io::stdin().lock().take(limit).read_to_end(&mut content)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut content))
    };
    match read {
        Ok(_) => Ok(content),
        Err(error) => Err(Failure::text(
            Exit::Usage,
            format!("failed to read {}: {error}", path.display()),
        )),
    }
}

/// The language that a file's ending names.
fn language_of(file: &Path, languages: &[Language]) -> Result<String, Failure> {
    let ending = file
        .extension()
        .and_then(|ending| ending.to_str())
        .map(str::to_ascii_lowercase);
    let named = |language: &&Language| {
        ending
            .as_ref()
            .is_some_and(|ending| language.extensions.contains(ending))
    };
    languages
        .iter()
        .find(named)
        .map(|language| language.name.clone())
        .ok_or_else(|| {
            let names: Vec<&str> = languages
                .iter()
                .map(|language| language.name.as_str())
                .collect();
            Failure::text(
                Exit::Usage,
                format!(
                    "the ending of {} names no language; give --language: {}",
                    file.display(),
                    names.join(", ")
                ),
            )
        })
}

/// Puts the files that the program left into a directory, over older ones.
fn save(outcome: &Outcome, directory: &Path) -> Result<(), Failure> {
    for file in &outcome.files {
        let path = Path::new(&file.path);
        // The engine promises this; writing outside the directory would be too bad to rely on it.
        if !path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(Failure::text(
                Exit::Failed,
                format!("not saved, for its odd path: {path:?}"),
            ));
        }
        let path = directory.join(path);
        let folder = path.parent().unwrap_or(directory);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, &file.content))
            .map_err(|error| {
                Failure::text(
                    Exit::Failed,
                    format!("failed to save {}: {error}", path.display()),
                )
            })?;
    }
    Ok(())
}

/// What a person would otherwise wonder about.
fn remarks(outcome: &Outcome, saved: Option<&Path>) -> Vec<String> {
    let wall = outcome.usage.wall_time.as_secs_f64();
    let mut remarks = Vec::new();
    match outcome.status {
        Status::Success | Status::Error | Status::Signalled | Status::Cancelled => {}
        Status::Timeout => remarks.push(format!(
            "stopped after {wall:.1} s; --timeout gives it more time"
        )),
        Status::MemoryLimit => {
            remarks.push("stopped for want of memory; --memory gives it more".to_owned())
        }
        Status::ProcessLimit => remarks.push("it was refused another process or thread".to_owned()),
    }
    if let Some(signal) = outcome.last().signal
        && outcome.status == Status::Signalled
    {
        remarks.push(format!("ended by signal {signal}"));
    }
    if !outcome.files.is_empty() {
        let files: Vec<String> = outcome
            .files
            .iter()
            .map(|file| format!("{} ({} bytes)", file.path, file.size))
            .collect();
        let files = files.join(", ");
        remarks.push(match saved {
            Some(directory) => format!("files put into {}: {files}", directory.display()),
            None => format!("it left files, which --save DIR keeps: {files}"),
        });
    }
    remarks.extend(outcome.warnings.iter().cloned());
    remarks
}

fn exit_code(outcome: &Outcome) -> u8 {
    // The shell's convention: the low byte, as wait gives it.
    u8::try_from(outcome.last().exit_code & 0xff).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_languages() {
        let language = |name: &str, extensions: &[&str]| Language {
            name: name.to_owned(),
            title: name.to_owned(),
            aliases: vec!["alias".to_owned()],
            extensions: extensions
                .iter()
                .map(|ending| (*ending).to_owned())
                .collect(),
            version: String::new(),
            available: true,
            cure: None,
        };
        let languages = [
            language("python", &["py"]),
            language("javascript", &["js", "mjs", "cjs"]),
        ];
        let check = |file: &str, expected: Option<&str>| {
            let found = language_of(Path::new(file), &languages).ok();
            assert_eq!(found.as_deref(), expected, "{file}");
        };
        check("a.py", Some("python"));
        check("/x/a.b.PY", Some("python"));
        check("a.mjs", Some("javascript"));
        check("a", None);
        check("a.txt", None);
        check("a.alias", None);
        check("a.python", None);
        check(".py", None);
    }

    fn outcome(files: &[(&str, &[u8])]) -> Outcome {
        let stage = engine::StageOutcome {
            name: "run".to_owned(),
            status: Status::Timeout,
            exit_code: 124,
            signal: None,
            stdout: engine::Output {
                bytes: b"a".to_vec(),
                total: 9,
                truncated: true,
            },
            stderr: engine::Output::default(),
            usage: engine::Usage::default(),
        };
        let file = |(path, content): &(&str, &[u8])| engine::OutputFile {
            path: (*path).to_owned(),
            size: content.len() as u64,
            content: content.to_vec(),
        };
        Outcome {
            id: "1".to_owned(),
            status: Status::Timeout,
            stages: vec![stage],
            files: files.iter().map(file).collect(),
            usage: engine::Usage::default(),
            language: "python".to_owned(),
            version: "3.11.2".to_owned(),
            isolation: engine::Isolation::Full,
            warnings: vec!["a child was killed".to_owned()],
            started: std::time::UNIX_EPOCH,
        }
    }

    #[test]
    fn files_are_saved_below_the_directory_only() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("new");
        save(&outcome(&[("a/plot.png", b"png"), ("b", b"")]), &directory).unwrap();
        assert_eq!(fs::read(directory.join("a/plot.png")).unwrap(), b"png");
        assert_eq!(fs::read(directory.join("b")).unwrap(), b"");
        for odd in ["../x", "/tmp/x", "a/../../x", "."] {
            assert!(save(&outcome(&[(odd, b"x")]), &directory).is_err(), "{odd}");
        }
        assert!(!scratch.path().join("x").exists());
    }

    #[test]
    fn people_are_told_what_they_would_wonder_about() {
        let outcome = outcome(&[("plot.png", b"png")]);
        assert_eq!(exit_code(&outcome), 124);
        let expected = [
            "stopped after 0.0 s; --timeout gives it more time",
            "it left files, which --save DIR keeps: plot.png (3 bytes)",
            "a child was killed",
        ];
        assert_eq!(remarks(&outcome, None), expected);
        assert!(
            remarks(&outcome, Some(Path::new("out")))[1]
                .starts_with("files put into out: plot.png")
        );
    }
}
