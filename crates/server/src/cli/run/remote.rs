//! A run on a server: the same program, sent by HTTP, its output told while
//! it is printed. The connection is the run: when it ends, so does the run.
//!
//! The server is believed no more than its program: what it sends is bounded
//! and tamed, and no address but the one that was given is ever called.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::Draft;
use reqwest::header::ACCEPT;
use reqwest::{Client, Response};
use serde_json::{Map, Value, json};

use super::printer::{self, Feed, Printer, Printing};
use super::{Ended, RunArgs, program};
use crate::cli::Failure;
use crate::cli::peer::events::{Event, Reader};
use crate::cli::peer::refusal::{Refusal, quoted};
use crate::cli::peer::{self, ANSWER, REFUSAL, SILENCE, Server, innermost};
use crate::config::{Env, Flags};
use crate::exit_code::Exit;

mod answer;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

pub(in crate::cli) use answer::{Answer, parse};

/// Bytes of all files together that are fetched for an answer.
const FILES: usize = 256 * 1024 * 1024;
/// A whole MiB, the unit in which servers are asked for memory.
const MIB: u64 = 1024 * 1024;

/// Returns the server that flag or environment name, if they do.
pub(in crate::cli) fn named(
    named: Named<'_>,
    env: &Env,
    name: &'static str,
) -> Result<Option<Server>, Failure> {
    let usage = |message: &str| Failure::text(Exit::Usage, message);
    let (source, url) = match (named.url, env.get("CODEX_URL")) {
        (Some(url), _) => ("--url", url),
        (None, Some(url)) => ("CODEX_URL", url),
        (None, None) if named.token.is_some() => {
            return Err(usage("--token is for a server: name it with --url"));
        }
        (None, None) => return Ok(None),
    };
    let url = peer::address(source, url)?;
    peer::refuse_settings(named.flags, &url)?;
    let token = named.token.or_else(|| token_for(&url, env));
    Server::new(url, token, name).map(Some)
}

/// What a command line says of a server.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Named<'a> {
    pub(in crate::cli) url: Option<&'a str>,
    pub(in crate::cli) token: Option<&'a str>,
    /// Settings of this machine, which no server elsewhere takes.
    pub(in crate::cli) flags: &'a Flags,
}

impl Server {
    /// The address of a file: of a signed address only path and query count,
    /// which are called where everything else is.
    fn place(&self, address: &str) -> Option<String> {
        let sane = |text: &str| text.len() <= 4096 && text.bytes().all(|b| b.is_ascii_graphic());
        if !sane(address) || address.contains('\\') {
            return None;
        }
        if address
            .strip_prefix(self.url.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
        {
            return Some(address.to_owned());
        }
        let (origin, path) = match address.split_once("://") {
            Some((_, rest)) => (true, &rest[rest.find('/')?..]),
            None => (false, address),
        };
        if !path.starts_with('/') || path.starts_with("//") {
            return None;
        }
        let scheme = self.url.find("://")? + 3;
        let host = self.url[scheme..]
            .find('/')
            .map_or(self.url.len(), |end| scheme + end);
        // A path without a host is below the address that was given.
        Some(format!(
            "{}{path}",
            if origin { &self.url[..host] } else { &self.url }
        ))
    }
}

/// The token of the environment, which goes to the server of the environment
/// only: another one that is named by flag shall not learn it.
fn token_for<'a>(url: &str, env: &'a Env) -> Option<&'a str> {
    let token = env.get("CODEX_TOKEN")?;
    let is_its_own = peer::owns_token(url, env);
    if !is_its_own {
        printer::remark(&format!(
            "CODEX_TOKEN is that of CODEX_URL and is not sent to {url}; --token gives another"
        ));
    }
    is_its_own.then_some(token)
}

/// Says so where somebody on the way could read the token.
pub(in crate::cli) fn warn_of_plain_http(server: &Server) {
    if server.token.is_some() && server.is_unprotected() {
        printer::remark(&format!(
            "{} is plain http: anybody on the way can read the token",
            server.url
        ));
    }
}

/// Runs the program there; `None` when it was interrupted.
pub(super) fn run(server: &Server, args: &RunArgs, env: &Env) -> Result<Option<Ended>, Failure> {
    let draft = program::draft(args, env, program::Limits::far())?;
    let body = body(draft)?;
    warn_of_plain_http(server);
    let client = server.client()?;
    let runtime = super::runtime()?;
    let far = Far {
        server,
        client,
        json: args.json,
        printing: Printing::of(args.raw),
        fetch: !args.no_out && (!args.json || args.out.is_some()),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = far.run(&body) => ended.map(Some),
            // Dropping the call closes the connection, which ends the run.
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    });
    runtime.shutdown_background();
    ended
}

/// The request, as JSON.
fn body(draft: Draft) -> Result<Value, Failure> {
    let usage = |message: String| Failure::text(Exit::Usage, message);
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("code", draft.code.into());
    if let Some(language) = draft.language {
        put("language", language.into());
    }
    if let Some(time) = draft.wall_time {
        put("timeout", time.as_secs_f64().into());
    }
    if let Some(memory) = draft.memory {
        if !memory.is_multiple_of(MIB) || memory == 0 {
            return Err(usage(
                "--memory: a server is asked for whole MiB, such as 256MiB".to_owned(),
            ));
        }
        put("memory_mb", (memory / MIB).into());
    }
    if draft.explain {
        put("explain", true.into());
    }
    if !draft.stdin.is_empty() {
        let text = String::from_utf8(draft.stdin).map_err(|_| {
            usage(
                "standard input is not UTF-8, and a server takes text only; send it with --file"
                    .to_owned(),
            )
        })?;
        put("stdin", text.into());
    }
    if !draft.args.is_empty() {
        put("args", draft.args.into());
    }
    if !draft.env.is_empty() {
        put(
            "env",
            draft
                .env
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)))
                .collect(),
        );
    }
    if !draft.files.is_empty() {
        let file = |file: engine::DraftFile| match String::from_utf8(file.content) {
            Ok(text) => json!({"path": file.path, "content": text}),
            Err(bytes) => {
                json!({"path": file.path, "content": BASE64.encode(bytes.as_bytes()), "encoding": "base64"})
            }
        };
        put("files", draft.files.into_iter().map(file).collect());
    }
    Ok(Value::Object(body))
}

/// A run on a server, in progress.
pub(in crate::cli) struct Far<'a> {
    pub(in crate::cli) server: &'a Server,
    pub(in crate::cli) client: Client,
    /// Whether nothing is printed, since the whole answer will be.
    pub(in crate::cli) json: bool,
    pub(in crate::cli) printing: Printing,
    /// Whether files that the answer only names are fetched.
    pub(in crate::cli) fetch: bool,
}

impl Far<'_> {
    async fn run(&self, body: &Value) -> Result<Ended, Failure> {
        let answer = self.answer(body).await?;
        let mut budget = FILES;
        let mut files = Vec::new();
        for file in &answer.files {
            files.push(match (&file.content, &file.url) {
                (Err(_), Some(address)) if self.fetch => {
                    file.made(self.fetch(address, file.size, &mut budget).await)
                }
                (content, _) => file.made(content.clone()),
            });
        }
        Ok(answer.ended(files, self.json))
    }

    /// Sends the request, prints output as it comes, and gives the answer at the end.
    pub(in crate::cli) async fn answer(&self, body: &Value) -> Result<Answer, Failure> {
        let accept = if self.json {
            "application/json"
        } else {
            "text/event-stream, application/json;q=0.5"
        };
        let mut request = self
            .client
            .post(format!("{}/execute", self.server.url))
            .header(ACCEPT, accept)
            .json(body);
        if let Some(token) = &self.server.token {
            request = request.bearer_auth(token);
        }
        let response = self
            .patient(request.send())
            .await?
            .map_err(|error| self.server.failed(&error))?;
        let kind = peer::media_type(&response);
        match (response.status().as_u16(), kind.as_str()) {
            (200, "text/event-stream") => self.stream(response).await,
            (200, "application/json") => self.whole(response).await,
            _ => Err(self.refused(response).await),
        }
    }

    /// Waits for the server, but not for ever.
    pub(in crate::cli) async fn patient<T>(
        &self,
        what: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(SILENCE, what).await.map_err(|_| {
            Failure::text(
                Exit::Failed,
                format!(
                    "{} said nothing for {} s; given up",
                    self.server.url,
                    SILENCE.as_secs()
                ),
            )
        })
    }

    /// An answer of a server that does not stream, or was not asked to.
    async fn whole(&self, response: Response) -> Result<Answer, Failure> {
        let mut begun = false;
        // Junk is not waited for: the first byte says whether this is an object.
        let opens_object = |piece: &[u8]| {
            let first = piece.iter().find(|byte| !byte.is_ascii_whitespace());
            let good = begun || first.is_none_or(|byte| *byte == b'{');
            begun |= first.is_some();
            good
        };
        let bytes = self
            .read(response, ANSWER, opens_object)
            .await
            .map_err(|why| Failure::text(Exit::Failed, why))?;
        let answer = answer::parse(&bytes).and_then(Answer::of);
        let answer = answer.ok_or_else(|| self.foreign())?;
        if !self.json {
            let (feed, printed) = printer::far(Printer::new(self.printing))?;
            feed.output(engine::Stream::Stdout, answer.output.clone())
                .await;
            feed.output(engine::Stream::Stderr, answer.error.clone())
                .await;
            drop(feed);
            printed.await.unwrap_or(Ok(()))?;
        }
        Ok(answer)
    }

    pub(in crate::cli) fn foreign(&self) -> Failure {
        Failure::text(
            Exit::Failed,
            format!(
                "{} answered, but not as a codex-server does; check the address",
                self.server.url
            ),
        )
    }

    async fn stream(&self, mut response: Response) -> Result<Answer, Failure> {
        let (feed, printed) = printer::far(Printer::new(self.printing))?;
        let mut reader = Reader::default();
        let mut begun = false;
        let ended = 'read: loop {
            let bytes = match self.patient(response.chunk()).await? {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break Err(self.cut(begun, "it closed the connection")),
                Err(error) => break Err(self.cut(begun, &innermost(&error))),
            };
            let events = match reader.push(&bytes) {
                Ok(events) => events,
                Err(error) => {
                    break Err(Failure::text(
                        Exit::Failed,
                        format!("{}: {error}", self.server.url),
                    ));
                }
            };
            for event in events {
                begun |= event.name == "start";
                if let Some(ended) = self.take(event, &feed).await {
                    break 'read ended;
                }
            }
        };
        // What came before the end is printed, whatever the end was.
        drop(feed);
        printed.await.unwrap_or(Ok(()))?;
        ended
    }

    /// Takes an event; gives the end of the run, or why there is none.
    async fn take(&self, event: Event, feed: &Feed) -> Option<Result<Answer, Failure>> {
        let stream = match event.name.as_str() {
            "stdout" => engine::Stream::Stdout,
            "stderr" => engine::Stream::Stderr,
            "queued" | "dropped" | "truncated" | "end" | "error" => {
                return self.take_other(&event, feed).await;
            }
            // `start`, and what later versions may add.
            _ => return None,
        };
        let data = answer::parse(event.data.as_bytes())?;
        let text = data.get("text").and_then(Value::as_str)?;
        feed.output(stream, text.to_owned()).await;
        None
    }

    async fn take_other(&self, event: &Event, feed: &Feed) -> Option<Result<Answer, Failure>> {
        let data = answer::parse(event.data.as_bytes()).unwrap_or_default();
        let number = |name: &str| data.get(name).and_then(Value::as_u64).unwrap_or_default();
        match event.name.as_str() {
            "queued" => {
                let others = number("waiting").saturating_sub(1);
                let text =
                    format!("all places of the server are taken; waiting with {others} others");
                feed.remark(text).await;
            }
            "dropped" => {
                let stream = data
                    .get("stream")
                    .and_then(Value::as_str)
                    .unwrap_or("output");
                let text = printer::missing(&quoted(stream), number("bytes"));
                feed.remark(text).await;
            }
            "truncated" => {
                let limit = number("limit");
                let text = format!(
                    "the server sends no more than {limit} bytes of output; what follows is missing"
                );
                feed.remark(text).await;
            }
            "end" => return Some(Answer::of(data).ok_or_else(|| self.foreign())),
            _ => {
                let refusal = Refusal {
                    status: u16::try_from(number("status")).unwrap_or(500),
                    body: event.data.clone(),
                    ..Refusal::default()
                };
                return Some(Err(Failure::text(Exit::Failed, refusal.told(self.server))));
            }
        }
        None
    }

    fn cut(&self, begun: bool, why: &str) -> Failure {
        let state = if begun {
            "before the program had ended: the run is lost"
        } else {
            "before the program started"
        };
        Failure::text(
            Exit::Failed,
            format!(
                "the connection to {} was cut {state} ({}). A proxy that buffers or limits streams, or a server that stopped, does that; --json asks without a stream",
                self.server.url,
                quoted(why)
            ),
        )
    }

    pub(in crate::cli) async fn refused(&self, response: Response) -> Failure {
        let mut refusal = Refusal::of(&response);
        // Without its words the refusal still has its status.
        if let Ok(body) = self.read(response, REFUSAL, |_| true).await {
            refusal.body = String::from_utf8_lossy(&body).into_owned();
        }
        refusal.failure(self.server)
    }

    /// Fetches a file that the answer names, without the token: its address is signed.
    async fn fetch(&self, address: &str, size: u64, budget: &mut usize) -> Result<Vec<u8>, String> {
        let place = self
            .server
            .place(address)
            .ok_or("its address is not the server's")?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > *budget {
            return Err(format!(
                "the files are more than {} MiB together",
                FILES >> 20
            ));
        }
        let response = self
            .patient(self.client.get(place).send())
            .await
            .map_err(|failure| failure.error.to_string())?;
        let response = response.map_err(|error| self.server.failed(&error).error.to_string())?;
        if response.status() != 200 {
            return Err(format!(
                "the server no longer gives it ({})",
                response.status().as_u16()
            ));
        }
        let content = self.read(response, size, |_| true).await?;
        if content.len() != size {
            return Err("the server gives it with another size".to_owned());
        }
        *budget -= size;
        Ok(content)
    }

    /// Reads a body of at most `limit` bytes, for as long as its pieces are `good`.
    pub(in crate::cli) async fn read(
        &self,
        mut response: Response,
        limit: usize,
        mut good: impl FnMut(&[u8]) -> bool,
    ) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let chunk = self
                .patient(response.chunk())
                .await
                .map_err(|failure| failure.error.to_string())?;
            match chunk {
                Ok(Some(chunk)) if !good(&chunk) => return Err(self.foreign().error.to_string()),
                Ok(Some(chunk)) if body.len() + chunk.len() <= limit => {
                    body.extend_from_slice(&chunk)
                }
                Ok(Some(_)) => {
                    return Err(format!(
                        "{} sends more than it said, or than {} MiB",
                        self.server.url,
                        ANSWER >> 20
                    ));
                }
                Ok(None) => return Ok(body),
                Err(error) => {
                    return Err(format!(
                        "the connection to {} was cut in the middle of its answer ({})",
                        self.server.url,
                        quoted(&innermost(&error))
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
