//! `session repl`: cells typed at a terminal, or piped. In a session of a server
//! where one is named or runs, else in a server of this process. A session that
//! was made for it ends with it.

use std::time::Duration;

use clap::{Args, ValueHint};
use reqwest::Method;
use serde_json::Value;

use super::cell::{Cell, INTERRUPTED};
use super::life::{contexts, make, text};
use super::link::{Ask, Link, find};
use super::own::Own;
use super::shown::Shower;
use super::{Showing, Wanted};
use crate::cli::peer::refusal::Busy;
use crate::cli::run::printer::{Printing, remark};
use crate::cli::run::remote::{Answer, Named};
use crate::cli::run::runtime;
use crate::cli::{EngineFlags, Failure, settings};
use crate::config::keys::{self, Reach};
use crate::config::{Env, value};
use crate::exit_code::Exit;
use crate::output;

mod commands;
mod input;
mod whole;

use commands::Then;
use input::{Input, Source};
use whole::Syntax;

const AFTER_HELP: &str = "\
It runs in a session of the server that --url or CODEX_URL names, else of the one that
runs with this data directory if CODEX_TOKEN has a token for it (or none is asked for),
else in an engine of its own, as do --local and settings of an engine.

In it, .help lists what there is; Ctrl-C stops the cell, Ctrl-D leaves. Input from a pipe
works too: each whole input is a cell, and the exit code is 1 when one failed.

Examples:
  codex-server session repl
  codex-server session repl --language javascript
  echo '2+2' | codex-server session repl
  codex-server session repl ses_5f0c… --url https://code.example.com";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ReplArgs {
    /// The session to go on in; else one is made, and ended at the end
    #[arg(conflicts_with_all = ["name", "memory", "ttl", "idle_timeout", "env"])]
    id: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
    /// The interpreter to begin in
    #[arg(long, value_name = "NAME", requires = "id")]
    context: Option<String>,
    /// How long each cell may take, such as 5 or 2m
    #[arg(short, long, value_name = "TIME", value_parser = value::duration)]
    timeout: Option<Duration>,
    /// Keep the session that was made
    #[arg(long, conflicts_with_all = ["id", "local"])]
    keep: bool,
    /// Run an engine in this process, whatever server there is
    #[arg(long, conflicts_with_all = ["id", "url", "token"])]
    local: bool,
    #[command(flatten)]
    showing: Showing,
    /// The server at this address [env: CODEX_URL]
    #[arg(long, value_name = "URL", help_heading = "Server", value_hint = ValueHint::Url)]
    url: Option<String>,
    /// Token for that server; CODEX_TOKEN keeps it out of the process list
    #[arg(long, value_name = "TOKEN", help_heading = "Server")]
    token: Option<String>,
    #[command(flatten)]
    flags: EngineFlags,
}

/// How long a cell waits in all for a server that takes no more calls for now.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest wait between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// A REPL and where it is.
struct Repl {
    link: Link,
    /// The session's id.
    id: String,
    /// The language that cells are sent with until their context is known.
    language: Option<String>,
    /// The interpreter that cells run in, once it is known.
    context: Option<String>,
    syntax: Syntax,
    /// The number of the next cell.
    number: u64,
    /// What the next cell reads.
    stdin: Option<String>,
    timeout: Option<Duration>,
    shower: Shower,
    printing: Printing,
    /// A cell or a command failed.
    failed: bool,
}

pub(super) fn repl(args: &ReplArgs, env: &Env) -> Result<Exit, Failure> {
    let (own, link) = match found(args, env)? {
        Some(link) => (None, link),
        None => {
            let (own, link) = Own::start(settings(&args.flags, env)?)?;
            (Some(own), link)
        }
    };
    let opened = match &args.id {
        Some(id) => link.call(Method::GET, &["sessions", id], Ask::default()),
        None => make(&link, &args.wanted, env),
    };
    let session = match opened {
        Ok(session) => session,
        Err(failure) => {
            if let Some(own) = own {
                own.end(link);
            }
            return Err(failure);
        }
    };
    let mut repl = Repl::new(args, env, link, &session);
    let ended = repl.all(env, own.is_some());
    match own {
        Some(own) => own.end(repl.link),
        None if args.keep => remark(&format!("kept: codex-server session repl {}", repl.id)),
        None if args.id.is_none() => {
            let path = ["sessions", repl.id.as_str()];
            if let Err(failure) = repl.link.call(Method::DELETE, &path, Ask::default())
                && ended.is_ok()
            {
                remark(&format!("{} was not deleted: {}", repl.id, failure.error));
            }
        }
        None => {}
    }
    ended
}

/// The way to the server to use; `None` for one of our own.
fn found(args: &ReplArgs, env: &Env) -> Result<Option<Link>, Failure> {
    let named = Named {
        url: args.url.as_deref(),
        token: args.token.as_deref(),
        flags: &args.flags.0,
    };
    // A session outlives its REPL on a server alone.
    if args.id.is_some() || args.keep {
        return Link::to_found(named, env).map(Some);
    }
    let is_named = named.url.is_some() || named.token.is_some() || env.get("CODEX_URL").is_some();
    let of_engine =
        |key: &keys::Key| key.reach == Reach::Engine && named.flags.0.contains_key(key.name);
    if args.local || (!is_named && keys::all().any(of_engine)) {
        return Ok(None);
    }
    match find(named, env)? {
        Some(found) if found.lacks_token => {
            remark(&format!(
                "the server at {} asks for a token, and CODEX_TOKEN has none; this runs in a process of its own",
                found.server.url
            ));
            Ok(None)
        }
        Some(found) => Link::new(found.server, runtime()?).map(Some),
        None => Ok(None),
    }
}

impl Repl {
    /// Begins in a session: in the context that is asked for, or the first one that fits.
    fn new(args: &ReplArgs, env: &Env, link: Link, session: &Value) -> Self {
        let language = args.wanted.language.clone();
        let mut repl = Repl {
            id: text(session, "id"),
            syntax: Syntax::of(language.as_deref().unwrap_or("python")),
            language,
            context: args.context.clone(),
            number: 1,
            stdin: None,
            timeout: args.timeout,
            shower: Shower::new(&args.showing, env),
            printing: if args.showing.raw {
                Printing::Raw
            } else {
                Printing::RedErrors
            },
            failed: false,
            link,
        };
        let wanted = contexts(session).find(|context| match (&repl.context, &repl.language) {
            (Some(name), _) => text(context, "name") == *name,
            (None, Some(language)) => text(context, "language") == *language,
            (None, None) => true,
        });
        if let Some(name) = wanted.map(|context| text(context, "name")) {
            repl.enter(session, &name);
        }
        repl
    }

    /// Goes on in a context of the session.
    fn enter(&mut self, session: &Value, name: &str) {
        let context = contexts(session).find(|context| text(context, "name") == name);
        self.context = Some(name.to_owned());
        self.language = None;
        if let Some(context) = context {
            self.syntax = Syntax::of(&text(context, "language"));
            let cells = context.get("cells").and_then(Value::as_u64);
            self.number = cells.unwrap_or_default().saturating_add(1);
        }
    }

    /// Reads and runs until there is no more.
    fn all(&mut self, env: &Env, is_own: bool) -> Result<Exit, Failure> {
        let mut source = Source::new(env)?;
        if source.is_person() {
            let place = if is_own {
                "a process of its own"
            } else {
                &self.link.server.url
            };
            output::note(&format!(
                "session {} in {place}; .help says what there is, Ctrl-D ends",
                self.id
            ));
        }
        let _signals = self.link.runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            // Heard from here on: neither Ctrl-C nor a terminal that closes ends us
            // before the session is ended.
            Ok::<_, std::io::Error>([
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ])
        })?;
        loop {
            let prompt = format!("[{}]: ", self.number);
            let code = match source.next(&self.link.runtime, &prompt, self.syntax)? {
                Input::Code(code) => code,
                Input::Interrupt if source.is_person() => continue,
                Input::Interrupt => {
                    output::note("interrupted");
                    return Ok(Exit::Interrupted);
                }
                Input::End => break,
            };
            if code.trim().is_empty() {
                continue;
            }
            if commands::is_command(&code) {
                match commands::carry_out(self, &code) {
                    Ok(Then::GoOn) => {}
                    Ok(Then::Leave) => break,
                    Err(failure) => self.told(&failure),
                }
            } else if self.cell(code)? && !source.is_person() {
                output::note("interrupted");
                return Ok(Exit::Interrupted);
            }
        }
        // What failed at a terminal was seen there.
        Ok(if self.failed && !source.is_person() {
            Exit::Failed
        } else {
            Exit::Success
        })
    }

    /// Runs a cell, and waits where the server takes no more calls for now: what is
    /// piped calls faster than a person does.
    async fn patiently(&self, cell: &Cell) -> Result<Option<Answer>, Failure> {
        let far = self.link.far(false, self.printing);
        let mut left = PATIENCE;
        loop {
            let failure = match cell.run(&self.link, &far).await {
                Err(failure) => failure,
                ran => return ran,
            };
            let wait = failure.error.downcast_ref::<Busy>().map(|busy| busy.wait);
            let Some(wait) = wait.filter(|wait| *wait <= left) else {
                return Err(failure);
            };
            let wait = wait.max(PAUSE);
            left = left.saturating_sub(wait);
            let seconds = wait.as_secs();
            remark(&format!(
                "the server takes no more calls for now (429); tried again in {seconds} s"
            ));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                pressed = tokio::signal::ctrl_c() => {
                    pressed?;
                    return Err(failure);
                }
            }
        }
    }

    fn told(&mut self, failure: &Failure) {
        self.failed = true;
        output::note(&format!("error: {}", failure.error));
    }

    /// Runs a cell and shows what came of it; says whether it was interrupted.
    fn cell(&mut self, code: String) -> Result<bool, Failure> {
        let cell = Cell {
            session: self.id.clone(),
            code: code.trim_end().to_owned(),
            language: self.language.clone(),
            context: self.context.clone(),
            stdin: self.stdin.take(),
            timeout: self.timeout,
        };
        let answer = match self.link.runtime.block_on(self.patiently(&cell)) {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                remark("no longer waited for; the cell may go on");
                return Ok(true);
            }
            Err(failure) => {
                // A session that is gone ends the REPL; anything else is one cell's.
                self.told(&failure);
                let path = ["sessions", self.id.as_str()];
                return self
                    .link
                    .call(Method::GET, &path, Ask::default())
                    .map(|_| false);
            }
        };
        self.shower.show(&answer)?;
        self.failed |= answer.status != "success";
        let about = answer.value.get("cell").unwrap_or(&Value::Null);
        if let Some(number) = about.get("number").and_then(Value::as_u64) {
            self.number = number.saturating_add(1);
            self.context = Some(text(about, "context"));
            self.language = None;
            self.syntax = Syntax::of(&text(&answer.value, "language"));
        }
        Ok(answer.status == INTERRUPTED)
    }
}
