//! `run`: one program, in a sandbox of this machine or on a server. Its output
//! passes through while it runs; what we have to say goes to standard error,
//! and our own failures exit with a code no program is likely to use.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueHint};

use super::{EngineFlags, Failure};
use crate::config::{Env, value};
use crate::exit_code::Exit;
use crate::output;
use crate::output::terminal::{Tamer, printable};

pub(in crate::cli) mod files;
pub(in crate::cli) mod images;
mod local;
pub(in crate::cli) mod printer;
pub(in crate::cli) mod program;
pub(crate) mod remote;
mod stdin;

use files::{Made, Saved, Target, media_type};
use images::Images;
use printer::remark;

/// Where files go that the program leaves, unless told otherwise.
pub(super) const OUT: &str = "codex-output";
/// Images that are shown of one run.
pub(super) const SHOWN: usize = 8;

const AFTER_HELP: &str = "\
The exit code is the program's own: 124 after a timeout, 128 + N after signal N,
125 when it could not be run at all.

Standard input that is piped to us, or comes from a file, goes to the program,
unless it is the program (-). It is read to its end before the program starts;
`< /dev/null` gives none, and neither does a terminal.

Examples:
  codex-server run hello.py
  codex-server run -c 'console.log(2+2)' --language javascript
  codex-server run sum.py --stdin numbers.txt -- --verbose
  sort numbers.txt | codex-server run sum.py
  codex-server run plot.py --file data.csv --out plots
  echo 'print(1)' | codex-server run -
  CODEX_TOKEN=… codex-server run hello.py --url https://code.example.com";

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("program").required(true).args(["file", "code"]),
    after_help = AFTER_HELP
)]
pub(super) struct RunArgs {
    /// The program's file, or - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
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
    /// A file to give it as standard input, or - for ours; left out, what is piped to us
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    stdin: Option<PathBuf>,
    /// A file to put into its working directory; NAME=PATH gives it another name
    #[arg(long = "file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    files: Vec<String>,
    /// A variable of its environment; NAME alone passes ours on
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The directory for the files that it leaves [default: codex-output]
    #[arg(long, value_name = "DIR", alias = "save", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Only name the files that it leaves
    #[arg(long, conflicts_with = "out")]
    no_out: bool,
    /// Replace files that are in that directory already
    #[arg(long, conflicts_with = "no_out")]
    force: bool,
    /// Show images in the terminal
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value_t,
        hide_default_value = true
    )]
    images: Images,
    /// Send a terminal every byte that the program prints, which it may obey
    #[arg(long)]
    raw: bool,
    /// Name the system calls that the sandbox denied, and why
    #[arg(long)]
    explain: bool,
    /// Print what POST /execute would answer, and exit with 0 however the program ended
    #[arg(long)]
    json: bool,
    /// Run it on the server at this address [env: CODEX_URL]
    #[arg(long, value_name = "URL", help_heading = "Server", value_hint = ValueHint::Url)]
    url: Option<String>,
    /// Token for that server; CODEX_TOKEN keeps it out of the process list
    #[arg(long, value_name = "TOKEN", help_heading = "Server")]
    token: Option<String>,
    /// Arguments for the program
    #[arg(last = true)]
    args: Vec<String>,
    #[command(flatten)]
    flags: EngineFlags,
}

/// How a program ended, wherever it ran.
#[derive(Debug, Clone, PartialEq)]
struct Ended {
    /// A word such as `success`, `error` or `timeout`.
    status: String,
    /// We stopped it because somebody asked for that.
    interrupted: bool,
    exit_code: i32,
    signal: Option<i32>,
    /// Wall time.
    seconds: f64,
    files: Vec<Made>,
    warnings: Vec<String>,
    /// With `--explain`, the system calls that were denied, a line each.
    denied: Option<Vec<String>>,
    /// With `--json`, the whole answer.
    answer: Option<String>,
}

pub(super) fn run(args: &RunArgs, env: &Env) -> Result<Exit, Failure> {
    // Whatever of ours fails, the caller must be able to tell it from the program.
    start(args, env).map_err(|failure| Failure {
        exit: Exit::NotRun,
        ..failure
    })
}

fn start(args: &RunArgs, env: &Env) -> Result<Exit, Failure> {
    let server = remote::Named {
        url: args.url.as_deref(),
        token: args.token.as_deref(),
        flags: &args.flags.0,
    };
    let ended = match remote::named(server, env, "codex-server-run")? {
        Some(server) => remote::run(&server, args, env)?,
        None => local::run(args, env)?,
    };
    let Some(ended) = ended else {
        output::note("interrupted");
        return Ok(Exit::Interrupted);
    };
    if let Some(answer) = &ended.answer {
        print_answer(answer)?;
    }
    let saved = target(args).map(|target| keep(&target, &ended, args, env));
    if ended.answer.is_none() {
        remarks(&ended).iter().for_each(|text| remark(text));
        if saved.is_none() {
            ended.files.iter().for_each(|made| remark(&named(made)));
        }
    }
    if let (Some(Err(failure)), Some(_)) = (saved, &args.out) {
        return Err(failure);
    }
    if ended.answer.is_some() {
        return Ok(Exit::Success);
    }
    if ended.interrupted {
        output::note("interrupted");
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Program(exit_code(ended.exit_code)))
}

/// A runtime beside which this thread may block.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

pub(super) fn print_answer(answer: &str) -> Result<(), Failure> {
    if !output::is_terminal() {
        return Ok(output::text(answer)?);
    }
    // JSON escapes most of what a terminal obeys, but not all.
    let tame = Tamer::default().push(answer.as_bytes());
    Ok(output::text(&String::from_utf8_lossy(&tame))?)
}

/// Where files go; with `--json` they are in the answer unless a place is named.
fn target(args: &RunArgs) -> Option<Target> {
    let directory = match &args.out {
        Some(directory) => directory.clone(),
        None if args.no_out || args.json => return None,
        None => OUT.into(),
    };
    Some(Target {
        directory,
        force: args.force,
        through_link: args.out.is_some(),
    })
}

/// Saves, names and shows the files; fails when one could not be saved.
fn keep(target: &Target, ended: &Ended, args: &RunArgs, env: &Env) -> Result<(), Failure> {
    let images = if args.json {
        Images::Never
    } else {
        args.images.resolve(env)
    };
    let (mut lost, mut shown) = (0_usize, 0_usize);
    for made in &ended.files {
        let saved = target.save(made);
        if matches!(saved, Saved::Not(_)) {
            lost += 1;
        }
        if !args.json || matches!(saved, Saved::Not(_)) {
            remark(&told(target, made, &saved));
        }
        let image = made
            .content
            .as_ref()
            .ok()
            .and_then(|bytes| images.show(bytes));
        if let Some(image) = image
            && shown < SHOWN
        {
            shown += 1;
            output::error_bytes(image.as_bytes())?;
        }
    }
    match lost {
        0 => Ok(()),
        lost => Err(Failure::text(
            Exit::Failed,
            format!("not saved as asked: {lost} of {} files", ended.files.len()),
        )),
    }
}

/// A file in a few words.
pub(super) fn named(made: &Made) -> String {
    let size = about(made.size);
    match &made.content {
        Ok(content) => format!(
            "{} ({}, {size})",
            made.name,
            media_type(&made.name, content)
        ),
        Err(_) => format!("{} ({size})", made.name),
    }
}

pub(super) fn told(target: &Target, made: &Made, saved: &Saved) -> String {
    let place = |path: &str| target.directory.join(path).display().to_string();
    let (name, file) = (printable(&made.name), named(made));
    let about = file.strip_prefix(&made.name).unwrap_or(&file);
    match saved {
        Saved::As(path) if *path == made.name => format!("saved {}{about}", place(path)),
        Saved::As(path) => format!("saved {} as {}{about}", name, place(path)),
        Saved::There(path) => format!("the same is there already: {}{about}", place(path)),
        Saved::Not(why) => format!("not saved: {name}{about}: {why}"),
    }
}

/// A size as people say it.
pub(super) fn about(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let tenths = |unit: u32| bytes.saturating_mul(10) >> (10 * unit);
    let unit = (1..3).find(|unit| tenths(*unit) < 10_240).unwrap_or(3);
    let size = tenths(unit);
    format!("{}.{} {}", size / 10, size % 10, UNITS[unit as usize - 1])
}

/// What a person would otherwise wonder about.
fn remarks(ended: &Ended) -> Vec<String> {
    let mut remarks = Vec::new();
    match ended.status.as_str() {
        "timeout" => remarks.push(format!(
            "stopped after {:.1} s; --timeout gives it more time",
            ended.seconds
        )),
        "memory_limit" => {
            remarks.push("stopped for want of memory; --memory gives it more".to_owned())
        }
        "process_limit" => remarks.push("it was refused another process or thread".to_owned()),
        "signalled" => remarks.extend(
            ended
                .signal
                .map(|signal| format!("ended by signal {signal}")),
        ),
        _ => {}
    }
    remarks.extend(ended.warnings.iter().cloned());
    match &ended.denied {
        Some(denied) if denied.is_empty() => {
            remarks.push("no system call was denied".to_owned());
        }
        denied => remarks.extend(denied.iter().flatten().cloned()),
    }
    remarks
}

/// A denied call as a person reads it.
fn denied(name: &str, count: u64, errno: &str, reason: &str) -> String {
    let times = if count == 1 {
        "once"
    } else {
        &format!("{count} times")
    };
    format!("denied {name} {times} ({errno}): {reason}")
}

pub(super) fn exit_code(code: i32) -> u8 {
    // The shell's convention: the low byte, as wait gives it.
    u8::try_from(code & 0xff).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, content: &[u8]) -> Made {
        Made {
            name: name.to_owned(),
            size: content.len() as u64,
            content: Ok(content.to_vec()),
        }
    }

    #[test]
    fn people_are_told_what_they_would_wonder_about() {
        let ended = |status: &str, signal: Option<i32>| Ended {
            status: status.to_owned(),
            interrupted: false,
            exit_code: 0,
            signal,
            seconds: 1.04,
            files: Vec::new(),
            warnings: vec!["a child was killed".to_owned()],
            denied: None,
            answer: None,
        };
        let check = |status: &str, signal: Option<i32>, expected: &[&str]| {
            let mut expected = expected.to_vec();
            expected.push("a child was killed");
            assert_eq!(remarks(&ended(status, signal)), expected);
        };
        check("success", None, &[]);
        check(
            "timeout",
            Some(9),
            &["stopped after 1.0 s; --timeout gives it more time"],
        );
        check("signalled", Some(15), &["ended by signal 15"]);
        check("a word of later versions", None, &[]);
    }

    #[test]
    fn files_are_named_with_type_and_size() {
        let target = Target {
            directory: "out".into(),
            force: false,
            through_link: true,
        };
        let png = made("plot.png", b"\x89PNG\r\n\x1a\n");
        let check = |made: &Made, saved: Saved, expected: &str| {
            assert_eq!(told(&target, made, &saved), expected);
        };
        check(
            &png,
            Saved::As("plot.png".to_owned()),
            "saved out/plot.png (image/png, 8 bytes)",
        );
        check(
            &png,
            Saved::As("plot-2.png".to_owned()),
            "saved plot.png as out/plot-2.png (image/png, 8 bytes)",
        );
        check(
            &png,
            Saved::There("plot.png".to_owned()),
            "the same is there already: out/plot.png (image/png, 8 bytes)",
        );
        check(
            &made("../a\x1b", b"x"),
            Saved::Not("why".to_owned()),
            "not saved: ../a\\u{1b} (text/plain, 1 bytes): why",
        );
    }

    #[test]
    fn sizes_are_rounded() {
        let check = |bytes: u64, expected: &str| assert_eq!(about(bytes), expected);
        check(0, "0 bytes");
        check(1023, "1023 bytes");
        check(1024, "1.0 KiB");
        check(12_700, "12.4 KiB");
        check(1024 * 1024 - 1, "1023.9 KiB");
        check(10 << 20, "10.0 MiB");
        check(u64::MAX, "1717986918.3 GiB");
    }

    #[test]
    fn exit_codes_are_bytes() {
        for (code, expected) in [(0, 0), (3, 3), (124, 124), (256, 0), (-1, 255)] {
            assert_eq!(exit_code(code), expected);
        }
    }
}
