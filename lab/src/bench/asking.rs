//! Those that ask: a client of a server, by the way that the row names, or what starts
//! an interpreter without one. Every answer is checked; never decides when to ask.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::bare::Bare;
use super::contenders::Contender;
use super::rows::{Check, Door};
use super::sessions::Session;
use crate::http::Client;
use crate::tool::{self, Era, Told, Tool};

/// The number of each call of a tool: one is answered before the next one.
const CALL: u32 = 1;

/// One of those that take turns, with so many that ask it.
#[derive(Debug)]
pub(super) struct Side<'a> {
    pub(super) name: &'static str,
    pub(super) asking: Vec<Asking<'a>>,
}

/// One that asks.
#[derive(Debug)]
pub(super) enum Asking<'a> {
    /// By `POST /execute`.
    Server(Client),
    /// In a session that is there.
    Session(Session),
    /// By the tool of MCP.
    Tool(Tool),
    /// Without a server.
    Bare(&'a mut Bare),
}

impl Asking<'_> {
    /// Returns one that asks a server by this door, or by `POST /execute` where the
    /// server has no other one.
    fn new(server: &Contender, door: Door) -> Result<Self> {
        let client = server.client();
        Ok(match door {
            Door::Session if server.is_ours() => Self::Session(Session::open(server, &json!({}))?),
            Door::Mcp if server.is_ours() => Self::Tool(Tool::new(client, Era::Stateless)?),
            _ => Self::Server(client),
        })
    }

    /// Asks once, checks the answer, and returns how long it took to come.
    pub(super) fn ask(&mut self, check: &Check) -> Result<Duration> {
        let body = check.next_request();
        let started = Instant::now();
        match self {
            Self::Server(client) => {
                let response = client.post("/execute", &body)?;
                let time = started.elapsed();
                check.pass(&response)?;
                Ok(time)
            }
            Self::Session(session) => {
                let response = session.post(body)?;
                let time = started.elapsed();
                check.pass(&response)?;
                Ok(time)
            }
            Self::Tool(tool) => {
                let response = tool.call(CALL, &body)?;
                let time = started.elapsed();
                match tool::told(CALL, &response)? {
                    Told::Ran(answer) => check.pass_answer(&answer)?,
                    Told::Refused(words) => bail!("a call was refused: {words}"),
                }
                Ok(time)
            }
            Self::Bare(bare) => {
                let answer = bare.ask(&body)?;
                let time = started.elapsed();
                let answer = serde_json::from_str(&answer).context("an answer is no JSON")?;
                check
                    .pass_answer(&answer)
                    .with_context(|| format!("the answer was {answer}"))?;
                Ok(time)
            }
        }
    }
}

/// Returns a side for each server, with so many that ask by this door.
pub(super) fn sides(
    servers: &[&Contender],
    door: Door,
    clients: usize,
) -> Result<Vec<Side<'static>>> {
    let side = |server: &&Contender| {
        let asking = (0..clients).map(|_| Asking::new(server, door));
        Ok(Side {
            name: server.name,
            asking: asking.collect::<Result<_>>()?,
        })
    };
    servers.iter().map(side).collect()
}
