//! A kernel of Jupyter's Kernel Gateway: made over HTTP, asked over its WebSocket in
//! Jupyter's messaging protocol, deleted when dropped.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::cells::Answer;
use crate::bench::contenders::{Contender, KERNEL};
use crate::http::Client;

/// The version of the protocol whose messages are sent.
const PROTOCOL: &str = "5.3";

/// Longest time for a cell, and longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kernel and a channel to it.
#[derive(Debug)]
pub(super) struct Kernel {
    client: Client,
    address: SocketAddr,
    id: String,
    channel: Option<WebSocket<TcpStream>>,
    /// Cells that it was sent.
    sent: u32,
}

impl Kernel {
    /// Has one started over this connection, and opens the channel.
    pub(super) fn start_over(mut client: Client, server: &Contender) -> Result<Self> {
        let response = client.post("/api/kernels", &json!({"name": KERNEL}))?;
        ensure!(
            response.status == 201,
            "POST /api/kernels got status {}: {}",
            response.status,
            response.text()
        );
        let kernel = response.json()?;
        let id = kernel["id"].as_str().context("a kernel has no id")?;
        let mut kernel = Self {
            client,
            address: server.address(),
            id: id.to_owned(),
            channel: None,
            sent: 0,
        };
        kernel.channel = Some(kernel.open()?);
        Ok(kernel)
    }

    /// The same over a connection of its own.
    pub(super) fn start(server: &Contender) -> Result<Self> {
        let mut client = server.client();
        client.connect()?;
        Self::start_over(client, server)
    }

    /// Closes the channel until the next cell: nobody looks at the kernel.
    pub(super) fn leave(&mut self) {
        self.channel = None;
    }

    fn open(&self) -> Result<WebSocket<TcpStream>> {
        let stream = TcpStream::connect(self.address).context("failed to connect")?;
        stream
            .set_nodelay(true)
            .context("failed to set TCP_NODELAY")?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .context("failed to set a read timeout")?;
        let url = format!("ws://{}/api/kernels/{}/channels", self.address, self.id);
        // The error holds the stream, which is of no use.
        let (channel, _) = tungstenite::client(url, stream)
            .map_err(|error| anyhow!("the channel was refused: {error}"))?;
        Ok(channel)
    }

    /// Runs a cell, and returns when the kernel has replied and is idle again.
    pub(super) fn run(&mut self, code: &str) -> Result<Answer> {
        let mut channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.open()?,
        };
        self.sent += 1;
        let id = format!("{}-{}", self.id, self.sent);
        let text = request(&id, &self.id, code).to_string();
        channel
            .send(Message::text(text))
            .context("failed to send a cell")?;
        let mut reading = Reading::default();
        let started = Instant::now();
        while !reading.is_complete() {
            ensure!(started.elapsed() < PATIENCE, "a cell took too long");
            match channel.read().context("failed to read from the channel")? {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).context("no JSON came")?;
                    reading.take(&id, &message);
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("the kernel sent {other:?}"),
            }
        }
        self.channel = Some(channel);
        Ok(reading.answer)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.leave();
        match self.client.delete(&format!("/api/kernels/{}", self.id)) {
            Ok(response) if response.status == 204 => {}
            Ok(response) => eprintln!("warning: a kernel's end got status {}", response.status),
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
}

/// Returns the message that asks for a cell.
fn request(id: &str, session: &str, code: &str) -> Value {
    json!({
        "channel": "shell",
        "header": {
            "msg_id": id,
            "msg_type": "execute_request",
            "session": session,
            "username": "lab",
            "version": PROTOCOL,
        },
        "parent_header": {},
        "metadata": {},
        "content": {
            "code": code,
            "silent": false,
            "store_history": true,
            "user_expressions": {},
            "allow_stdin": false,
            "stop_on_error": true,
        },
        "buffers": [],
    })
}

/// What has come of a cell so far.
#[derive(Debug, Default)]
struct Reading {
    answer: Answer,
    is_replied: bool,
    is_idle: bool,
}

impl Reading {
    fn is_complete(&self) -> bool {
        self.is_replied && self.is_idle
    }

    /// Takes in a message, if it is about the cell of this id.
    fn take(&mut self, id: &str, message: &Value) {
        if message["parent_header"]["msg_id"] != id {
            return;
        }
        let content = &message["content"];
        match message["header"]["msg_type"].as_str() {
            Some("execute_reply") => {
                self.is_replied = true;
                self.answer.is_well = content["status"] == "ok";
            }
            Some("status") => self.is_idle |= content["execution_state"] == "idle",
            Some("stream") => self
                .answer
                .output
                .push_str(content["text"].as_str().unwrap_or_default()),
            Some("execute_result" | "display_data") => {
                if let Some(data) = content["data"].as_object() {
                    self.answer.show(data);
                }
            }
            Some("error") => self.answer.words = content.to_string(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_until_reply_and_idle() {
        let message = |parent: &str, kind: &str, content: Value| json!({"parent_header": {"msg_id": parent}, "header": {"msg_type": kind}, "content": content});
        let mut reading = Reading::default();
        let mut take = |parent, kind, content| {
            reading.take("b", &message(parent, kind, content));
            reading.is_complete()
        };
        assert!(!take("b", "status", json!({"execution_state": "busy"})));
        assert!(!take("b", "stream", json!({"text": "on"})));
        assert!(!take("b", "stream", json!({"text": "e\n"})));
        assert!(!take(
            "b",
            "execute_result",
            json!({"data": {"text/plain": "4"}})
        ));
        assert!(!take("b", "execute_reply", json!({"status": "ok"})));
        assert!(!take("a", "status", json!({"execution_state": "idle"})));
        assert!(take("b", "status", json!({"execution_state": "idle"})));
        assert!(reading.answer.is_well);
        assert_eq!(reading.answer.output, "one\n");
        assert_eq!(reading.answer.shown["text/plain"], "4");
    }

    #[test]
    fn a_cell_that_raised_is_not_well() {
        let mut reading = Reading::default();
        let reply = json!({"parent_header": {"msg_id": "a"}, "header": {"msg_type": "execute_reply"}, "content": {"status": "error"}});
        reading.take("a", &reply);
        assert!(reading.is_replied && !reading.answer.is_well);
    }
}
