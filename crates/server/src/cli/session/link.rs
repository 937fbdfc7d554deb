//! The way to the server that has the sessions: which it is, and calls to it.
//!
//! The server is believed no more than for [`run`](crate::cli::run): what it
//! sends is bounded, what it says is tamed before it is shown, and the token
//! goes nowhere else.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use reqwest::{Client, Method, Response, Url};
use serde_json::{Map, Value};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Runtime;

use crate::cli::peer::{ANSWER, Server};
use crate::cli::run::printer::Printing;
use crate::cli::run::remote::{self, Far, Named};
use crate::cli::{Failure, instance, run};
use crate::config::{Env, home_directory};
use crate::exit_code::Exit;

/// What we are called in a server's log.
const NAME: &str = "codex-server-session";
/// Bytes of a file that are read at once.
const PIECE: usize = 64 * 1024;

/// A server that was found, and whether it can be called as things are.
pub(super) struct Found {
    pub(super) server: Server,
    /// It asks for a token, as its own note says, and none was given.
    pub(super) lacks_token: bool,
}

/// Finds the server that flag or environment name; else the one that runs with
/// the data directory.
///
/// # Errors
/// When an address or a token is none.
pub(super) fn find(named: Named<'_>, env: &Env) -> Result<Option<Found>, Failure> {
    if named.url.is_none() && env.get("CODEX_URL").is_none() {
        let home = home_directory(named.flags, env)?;
        if let Some(running) = instance::running(&home).filter(|found| !found.url.is_empty()) {
            let token = named.token.or_else(|| env.get("CODEX_TOKEN"));
            return Ok(Some(Found {
                lacks_token: token.is_none() && !running.open,
                server: Server::new(running.url, token, NAME)?,
            }));
        }
    }
    let found = remote::named(named, env, NAME)?;
    Ok(found.map(|server| Found {
        server,
        lacks_token: false,
    }))
}

/// A server, and all it takes to call it.
pub(super) struct Link {
    pub(super) server: Server,
    client: Client,
    pub(super) runtime: Runtime,
}

/// What is asked of a server besides its path.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    /// Parameters of the query.
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<Value>,
}

impl Link {
    /// Makes one to the server that is found.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn to_found(named: Named<'_>, env: &Env) -> Result<Self, Failure> {
        let found = find(named, env)?.ok_or_else(|| {
            Failure::text(
                Exit::Failed,
                "no server is found to ask: none runs with this data directory. Start one (codex-server up), name one with --url or CODEX_URL, or its data directory with --home; `session repl` needs none",
            )
        })?;
        if found.lacks_token {
            return Err(Failure::text(
                Exit::Failed,
                format!(
                    "the server at {} asks for a token: give one in CODEX_TOKEN; codex-server token create NAME makes one",
                    found.server.url
                ),
            ));
        }
        Self::new(found.server, run::runtime()?)
    }

    /// Makes one to a server.
    ///
    /// # Errors
    /// When TLS cannot be prepared.
    pub(super) fn new(server: Server, runtime: Runtime) -> Result<Self, Failure> {
        remote::warn_of_plain_http(&server);
        Ok(Self {
            client: server.client()?,
            server,
            runtime,
        })
    }

    /// Returns how code is sent to run; with `json` nothing is printed meanwhile.
    pub(super) fn far(&self, json: bool, printing: Printing) -> Far<'_> {
        Far {
            server: &self.server,
            client: self.client.clone(),
            json,
            printing,
            fetch: false,
        }
    }

    /// Calls the server and returns what it answers as JSON; null where it
    /// answers nothing.
    ///
    /// # Errors
    /// When it cannot be called, or refuses.
    pub(super) fn call(
        &self,
        method: Method,
        path: &[&str],
        ask: Ask<'_>,
    ) -> Result<Value, Failure> {
        self.runtime.block_on(self.ask(method, path, ask))
    }

    /// [`Link::call`] for those who wait already.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        ask: Ask<'_>,
    ) -> Result<Value, Failure> {
        let mut request = self.client.request(method, self.address(path, ask.query)?);
        if let Some(body) = &ask.body {
            request = request.json(body);
        }
        let response = self.send(request).await?;
        let far = self.far(true, Printing::Tame);
        let bytes = far.read(response, ANSWER, |_| true).await;
        let bytes = bytes.map_err(|why| Failure::text(Exit::Failed, why))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        remote::parse(&bytes).ok_or_else(|| far.foreign())
    }

    /// Asks for a file; the answer's body is its content.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub(super) async fn open(&self, id: &str, path: &str) -> Result<Response, Failure> {
        let address = self.address(&file_path(id, path), &[])?;
        self.send(self.client.get(address)).await
    }

    /// Sends a file, of a length that may be known.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub(super) async fn put(&self, id: &str, path: &str, content: Source) -> Result<(), Failure> {
        let address = self.address(&file_path(id, path), &[])?;
        let request = self.client.put(address).body(reqwest::Body::wrap(content));
        self.send(request).await.map(drop)
    }

    /// Sends a request and returns its answer where it is a good one.
    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        if let Some(token) = &self.server.token {
            request = request.bearer_auth(token);
        }
        let far = self.far(true, Printing::Tame);
        let response = far.patient(request.send()).await?;
        let response = response.map_err(|error| self.server.failed(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(far.refused(response).await)
    }

    /// The address of a path below the server's.
    fn address(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Failure> {
        let usage = |message: String| Failure::text(Exit::Usage, message);
        // What URLs drop silently would lead elsewhere.
        if let Some(odd) = path.iter().find(|part| matches!(**part, "" | "." | "..")) {
            return Err(usage(format!(
                "{odd:?} can be no id and no part of a path below the working directory"
            )));
        }
        let mut url = Url::parse(&self.server.url)
            .map_err(|error| usage(format!("{}: {error}", self.server.url)))?;
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }
}

/// The parts of a file's address.
fn file_path<'a>(id: &'a str, path: &'a str) -> Vec<&'a str> {
    let mut parts = vec!["sessions", id, "files"];
    let path = path.strip_prefix("./").unwrap_or(path);
    parts.extend(path.split('/'));
    parts
}

/// An object of the members that are given.
pub(super) fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let given = members.into_iter();
    let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}

/// A file on its way to a server, in pieces.
pub(super) struct Source {
    reader: Pin<Box<dyn AsyncRead + Send + Sync>>,
    size: Option<u64>,
}

impl Source {
    /// What a file holds now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn file(path: &std::path::Path) -> std::io::Result<Self> {
        let file = File::open(path).await?;
        let about = file.metadata().await?;
        if about.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        Ok(Self {
            size: about.is_file().then_some(about.len()),
            reader: Box::pin(file),
        })
    }

    /// Our own standard input.
    pub(super) fn stdin() -> Self {
        Self {
            reader: Box::pin(tokio::io::stdin()),
            size: None,
        }
    }
}

impl HttpBody for Source {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let mut piece = vec![0; PIECE];
        let mut buf = ReadBuf::new(&mut piece);
        ready!(self.reader.as_mut().poll_read(cx, &mut buf))?;
        let count = buf.filled().len();
        piece.truncate(count);
        Poll::Ready((count > 0).then(|| Ok(Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
