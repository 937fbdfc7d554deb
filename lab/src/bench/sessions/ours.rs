//! A session of our server, over HTTP on a kept connection; deleted when dropped.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cells::{Answer, Cell};
use crate::bench::contenders::Contender;
use crate::http::{Client, Response};

/// Seconds that a cell may take: the most that the server allows by itself.
const TIMEOUT: u32 = 30;

/// A session.
#[derive(Debug)]
pub(in crate::bench) struct Session {
    client: Client,
    id: String,
}

impl Session {
    /// Has one made as `asked`.
    pub(in crate::bench) fn open(server: &Contender, asked: &Value) -> Result<Self> {
        let mut client = server.client();
        client.connect()?;
        Self::open_over(client, asked)
    }

    /// The same over a connection that is there.
    pub(super) fn open_over(mut client: Client, asked: &Value) -> Result<Self> {
        let response = client.post("/sessions", asked)?;
        let session = expected(&response, 201, "POST /sessions")?.json()?;
        let id = session["id"].as_str().context("a session has no id")?;
        Ok(Self {
            client,
            id: id.to_owned(),
        })
    }

    /// Runs a cell in a language's own context.
    pub(super) fn run(&mut self, language: &str, code: &str) -> Result<Answer> {
        self.ask(
            &json!({"session_id": self.id, "language": language, "code": code, "timeout": TIMEOUT}),
        )
    }

    /// Runs a cell in this context.
    pub(super) fn run_in(&mut self, context: &str, code: &str) -> Result<Answer> {
        self.ask(
            &json!({"session_id": self.id, "context": context, "code": code, "timeout": TIMEOUT}),
        )
    }

    /// Sends the body of a run as a cell, and returns the answer as it came.
    pub(in crate::bench) fn post(&mut self, mut request: Value) -> Result<Response> {
        request["session_id"] = json!(self.id);
        self.client.post("/execute", &request)
    }

    fn ask(&mut self, request: &Value) -> Result<Answer> {
        read(&self.client.post("/execute", request)?)
    }

    /// Makes a context that begins as the first one is now, and returns its name.
    ///
    /// # Errors
    /// When the server has no such thing, in plain words.
    pub(super) fn fork(&mut self) -> Result<String> {
        let response = self
            .client
            .post(&format!("/sessions/{}/fork", self.id), &json!({}))?;
        ensure!(
            ![404, 405].contains(&response.status),
            "this build has no POST /sessions/{{id}}/fork: status {}: {}",
            response.status,
            response.text()
        );
        let session = expected(&response, 201, "the fork")?.json()?;
        let name = session["forked"].as_str();
        let name = name.context("the answer to a fork names no context as \"forked\"")?;
        Ok(name.to_owned())
    }

    /// Ends a context.
    pub(super) fn end_context(&mut self, name: &str) -> Result<()> {
        let path = format!("/sessions/{}/contexts/{name}", self.id);
        expected(&self.client.delete(&path)?, 200, "the end of a context").map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let outcome = self
            .client
            .delete(&format!("/sessions/{}", self.id))
            .and_then(|response| expected(&response, 204, "the end of a session").map(drop));
        if let Err(error) = outcome {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Runs a program without a session, and in no box that was made ahead: none of those
/// suits a program with arguments.
pub(super) fn run_cold(client: &mut Client, cell: &Cell) -> Result<Answer> {
    let request = json!({
        "language": cell.language, "code": cell.code, "timeout": TIMEOUT, "args": ["fresh"],
    });
    read(&client.post("/execute", &request)?)
}

fn expected<'a>(response: &'a Response, status: u16, what: &str) -> Result<&'a Response> {
    ensure!(
        response.status == status,
        "{what} got status {}: {}",
        response.status,
        response.text()
    );
    Ok(response)
}

fn read(response: &Response) -> Result<Answer> {
    let told = expected(response, 200, "a cell")?.json()?;
    let mut answer = Answer {
        is_well: told["exit_code"] == 0,
        output: told["output"].as_str().unwrap_or_default().to_owned(),
        words: response.text(),
        ..Answer::default()
    };
    for result in told["results"].as_array().into_iter().flatten() {
        if let Some(data) = result["data"].as_object() {
            answer.show(data);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let body = json!({
            "exit_code": 0, "output": "one\n", "results": [
                {"data": {"text/plain": "4"}}, {"data": {"application/json": [1]}},
            ],
        });
        let response = |status| Response {
            status,
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        };
        let answer = read(&response(200)).expect("it is an answer");
        assert!(answer.is_well);
        assert_eq!(answer.output, "one\n");
        assert_eq!(answer.shown["text/plain"], "4");
        assert_eq!(answer.shown["application/json"], "[1]");
        assert!(read(&response(410)).is_err());
    }
}
