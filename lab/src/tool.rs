//! The tool `run_code`, called over MCP on a kept connection, in both eras of the
//! protocol: enough to time and to attack our own server. Stock clients are tried
//! by [`mcp`](crate::mcp). Never hides a refusal.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::{Client, Response};

/// Where the protocol is served.
const PATH: &str = "/mcp";

/// What the protocol asks every client to take.
const ACCEPT: &str = "application/json, text/event-stream";

/// The header that names a session.
const SESSION: &str = "mcp-session-id";

/// A kind of the protocol's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// Each message says all about its client.
    Stateless,
    /// A session that begins with `initialize`.
    Sessions,
}

impl Era {
    /// Returns the newest version of this era.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Stateless => "2026-07-28",
            Self::Sessions => "2025-11-25",
        }
    }
}

/// What a call of the tool was answered with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// A program ran: the structured content.
    Ran(Value),
    /// Nothing ran: why, in words for a model.
    Refused(String),
}

/// A client of the tool.
#[derive(Debug)]
pub(crate) struct Tool {
    client: Client,
    headers: Vec<(&'static str, String)>,
    era: Era,
}

impl Tool {
    /// Returns a client of this era, with a session of its own where there are some.
    ///
    /// # Errors
    /// When the server opens no session.
    pub(crate) fn new(client: Client, era: Era) -> Result<Self> {
        let mut headers = vec![
            ("accept", ACCEPT.to_owned()),
            ("mcp-protocol-version", era.version().to_owned()),
        ];
        let mut client = client;
        match era {
            Era::Stateless => headers.extend([
                ("mcp-method", "tools/call".to_owned()),
                ("mcp-name", "run_code".to_owned()),
            ]),
            Era::Sessions => headers.push((SESSION, open(&mut client)?)),
        }
        Ok(Self {
            client,
            headers,
            era,
        })
    }

    /// Returns another client of the same session, or of none, on a connection of
    /// its own.
    pub(crate) fn beside(&self, client: Client) -> Self {
        Self {
            client,
            headers: self.headers.clone(),
            era: self.era,
        }
    }

    /// Connects now, and from here on speaks over that connection.
    ///
    /// # Errors
    /// When the server takes no connection.
    pub(crate) fn connect(&mut self) -> Result<()> {
        self.client.connect()
    }

    /// Calls the tool with arguments, which are those of `POST /execute`; [`told`]
    /// reads the answer.
    ///
    /// # Errors
    /// When no answer came.
    pub(crate) fn call(&mut self, id: u32, arguments: &Value) -> Result<Response> {
        let mut params = json!({"name": "run_code", "arguments": arguments});
        if self.era == Era::Stateless {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": self.era.version(),
                "io.modelcontextprotocol/clientInfo": {"name": "lab", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        self.client.post_with(PATH, &self.headers, &message)
    }
}

/// Opens a session and returns its id.
fn open(client: &mut Client) -> Result<String> {
    let accept = ("accept", ACCEPT.to_owned());
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": Era::Sessions.version(),
        "capabilities": {},
        "clientInfo": {"name": "lab", "version": "1"},
    }});
    let response = client.post_with(PATH, std::slice::from_ref(&accept), &initialize)?;
    let id = response
        .header(SESSION)
        .with_context(|| format!("no session was opened: {}", response.text()))?
        .to_owned();
    let version = ("mcp-protocol-version", Era::Sessions.version().to_owned());
    let headers = [accept, version, (SESSION, id.clone())];
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let response = client.post_with(PATH, &headers, &initialized)?;
    ensure!(
        response.status == 202,
        "a notification got status {}: {}",
        response.status,
        response.text()
    );
    Ok(id)
}

/// Reads the answer to the call with this id.
///
/// # Errors
/// When it is no result of the tool, or the answer to another call.
pub(crate) fn told(id: u32, response: &Response) -> Result<Told> {
    ensure!(
        response.status == 200,
        "a call got status {}: {}",
        response.status,
        response.text()
    );
    let body = std::str::from_utf8(&response.body).context("the answer is no text")?;
    // JSON alone, or the last event of a stream.
    let event = body
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .rfind(|data| !data.trim().is_empty());
    let message: Value = serde_json::from_str(event.unwrap_or(body))
        .with_context(|| format!("the answer is no JSON: {}", response.text()))?;
    ensure!(message["id"] == id, "call {id} got the answer {message}");
    let result = &message["result"];
    let words = || result["content"][0]["text"].as_str();
    match (result["isError"].as_bool(), &result["structuredContent"]) {
        (Some(false), content) if content.is_object() => Ok(Told::Ran(content.clone())),
        (Some(true), _) => {
            let words = words().context("a refusal came without words")?;
            Ok(Told::Refused(words.to_owned()))
        }
        _ => bail!("the answer is no result of the tool: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_from_refusals_and_from_neither() {
        let check = |status: u16, body: &str, expected: Option<Told>| {
            let response = Response {
                status,
                headers: Vec::new(),
                body: body.as_bytes().to_vec(),
            };
            assert_eq!(told(7, &response).ok(), expected, "{body}");
        };
        let ran = r#"{"id":7,"result":{"isError":false,"structuredContent":{"output":"4\n"}}}"#;
        let content = json!({"output": "4\n"});
        check(200, ran, Some(Told::Ran(content.clone())));
        let stream = format!("data:\nid: 0\n\ndata: {{\"method\":\"x\"}}\n\ndata: {ran}\n\n");
        check(200, &stream, Some(Told::Ran(content)));
        check(
            200,
            r#"{"id":7,"result":{"isError":true,"content":[{"text":"full"}]}}"#,
            Some(Told::Refused("full".to_owned())),
        );
        check(503, ran, None);
        check(200, &ran.replace('7', "8"), None);
        check(200, r#"{"id":7,"result":{"isError":true}}"#, None);
        check(200, r#"{"id":7,"result":{"isError":false}}"#, None);
        check(200, r#"{"id":7,"error":{"code":-32602}}"#, None);
        check(200, "", None);
    }
}
