//! One cell of a session: sent, printed while it runs, shown at its end. Ctrl-C
//! asks the server to interrupt it, so that the state stays.

use std::time::Duration;

use serde_json::{Value, json};

use super::CellArgs;
use super::command;
use super::life::on_context;
use super::link::{Link, object};
use super::shown::Shower;
use crate::cli::Failure;
use crate::cli::run::printer::{Printing, remark};
use crate::cli::run::remote::{Answer, Far};
use crate::cli::run::{exit_code, print_answer, program};
use crate::config::Env;
use crate::exit_code::Exit;
use crate::output;

/// How often Ctrl-C is passed on before the answer is no longer waited for.
const ASKED: usize = 3;
/// How a cell ends that was interrupted.
pub(super) const INTERRUPTED: &str = "interrupted";

/// What is sent as a cell.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) session: String,
    pub(super) code: String,
    pub(super) language: Option<String>,
    pub(super) context: Option<String>,
    pub(super) stdin: Option<String>,
    pub(super) timeout: Option<Duration>,
}

impl Cell {
    fn body(&self) -> Value {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        object([
            ("session_id", Some(self.session.clone().into())),
            ("code", Some(self.code.clone().into())),
            ("language", text(&self.language)),
            ("context", text(&self.context)),
            ("stdin", text(&self.stdin)),
            (
                "timeout",
                self.timeout.map(|time| json!(time.as_secs_f64())),
            ),
        ])
    }

    /// Runs it to its end, printing as `far` says. `None` when nobody waits any
    /// longer: Ctrl-C came again and again.
    pub(super) async fn run(&self, link: &Link, far: &Far<'_>) -> Result<Option<Answer>, Failure> {
        let body = self.body();
        let mut running = std::pin::pin!(far.answer(&body));
        for _ in 0..ASKED {
            tokio::select! {
                answer = &mut running => return answer.map(Some),
                pressed = tokio::signal::ctrl_c() => pressed?,
            }
            let interrupted = on_context(link, &self.session, "interrupt", self.context.as_deref());
            // Output goes on meanwhile.
            tokio::select! {
                answer = &mut running => return answer.map(Some),
                interrupted = interrupted => if let Err(failure) = interrupted {
                    remark(&format!("not interrupted: {}", failure.error));
                },
            }
        }
        tokio::select! {
            answer = running => answer.map(Some),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    }
}

pub(super) fn run(args: &CellArgs, env: &Env) -> Result<Exit, Failure> {
    let cell = cell(args)?;
    let link = args.at.link(env)?;
    let printing = if args.showing.raw {
        Printing::Raw
    } else {
        Printing::RedErrors
    };
    let far = link.far(args.json, printing);
    let answer = link.runtime.block_on(cell.run(&link, &far))?;
    let Some(answer) = answer else {
        output::note("interrupted; the code may go on");
        return Ok(Exit::Interrupted);
    };
    if args.json {
        print_answer(&format!("{:#}", answer.value))?;
        return Ok(Exit::Success);
    }
    Shower::new(&args.showing, env).show(&answer)?;
    if answer.status == INTERRUPTED {
        output::note("interrupted");
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Program(exit_code(answer.exit_code)))
}

fn cell(args: &CellArgs) -> Result<Cell, Failure> {
    let usage = |message: &str| Failure::text(Exit::Usage, message);
    let from_stdin = args.file.as_deref().is_some_and(program::is_dash);
    if from_stdin && args.stdin.as_deref().is_some_and(program::is_dash) {
        return Err(usage(
            "standard input cannot be both the code and its input; give the code as a file",
        ));
    }
    let code = match (&args.code, &args.file) {
        (Some(code), _) => code.clone(),
        (None, Some(file)) => String::from_utf8(program::read(file, program::FAR_LIMIT)?)
            .map_err(|_| usage("the code is not UTF-8 text; save it as UTF-8"))?,
        (None, None) => return Err(usage("give a file, - or -c CODE")),
    };
    let language = match (&args.language, &args.context, &args.file) {
        (None, None, Some(file)) if !from_stdin => {
            let endings = engine::endings().map_err(|error| Failure::new(Exit::Failed, error))?;
            Some(program::language_of(file, &endings)?)
        }
        (language, _, _) => language.clone(),
    };
    Ok(Cell {
        session: args.id.clone(),
        code,
        language,
        context: args.context.clone(),
        stdin: args.stdin.as_deref().map(command::read).transpose()?,
        timeout: args.timeout,
    })
}
