//! A small keep-alive HTTP/1.1 client for loopback: enough to time our own
//! server without the weight, or the noise, of a real client.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Longest wait for a byte; above every timeout of the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Largest head and body that we read, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
const BODY_BYTES: usize = 64 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Header names in lower case, with their values.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, whole.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!(
                "status {} came with a body that is not JSON: {:?}",
                self.status,
                self.text()
            )
        })
    }

    /// The start of the body, for messages.
    pub(crate) fn text(&self) -> String {
        let end = self.body.len().min(400);
        String::from_utf8_lossy(&self.body[..end]).into_owned()
    }

    /// Returns a header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// One connection, opened when needed and kept.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    token: Option<String>,
    patience: Duration,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Will send `token`, when there is one, as a bearer token.
    pub(crate) fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self {
            address,
            token: token.map(str::to_owned),
            patience: PATIENCE,
            connection: None,
        }
    }

    /// Waits so long for an answer.
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Connects now, and from here on speaks over that connection.
    pub(crate) fn connect(&mut self) -> Result<()> {
        let stream = TcpStream::connect(self.address)
            .with_context(|| format!("failed to connect to {}", self.address))?;
        stream
            .set_nodelay(true)
            .context("failed to set TCP_NODELAY")?;
        stream
            .set_read_timeout(Some(self.patience))
            .context("failed to set a read timeout")?;
        self.connection = Some(BufReader::new(stream));
        Ok(())
    }

    /// Runs code and gives back status and body.
    pub(crate) fn execute(&mut self, language: &str, code: &str) -> Result<Response> {
        self.post("/execute", &json!({"code": code, "language": language}))
    }

    /// Sends JSON.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Response> {
        self.post_with(path, &[], body)
    }

    /// Sends JSON with more headers, by names in lower case. Without an `accept` of
    /// their own JSON is accepted.
    pub(crate) fn post_with(
        &mut self,
        path: &str,
        headers: &[(&str, String)],
        body: &Value,
    ) -> Result<Response> {
        self.request("POST", path, headers, body.to_string().as_bytes())
    }

    /// Sends what claims to be JSON.
    pub(crate) fn post_text(&mut self, path: &str, body: &str) -> Result<Response> {
        self.request("POST", path, &[], body.as_bytes())
    }

    /// Asks for a page.
    pub(crate) fn get(&mut self, path: &str) -> Result<Response> {
        self.request("GET", path, &[], b"")
    }

    /// Has something deleted.
    pub(crate) fn delete(&mut self, path: &str) -> Result<Response> {
        self.request("DELETE", path, &[], b"")
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Response> {
        let message = self.message(method, path, headers, body);
        let reused = self.connection.is_some();
        if !reused {
            self.connect()?;
        }
        match self.exchange(&message) {
            // A kept connection may have been closed between two requests.
            Err(error) if reused && was_closed(&error) => {
                self.connect()?;
                self.exchange(&message)
            }
            other => other,
        }
        .with_context(|| format!("{method} {path} failed"))
    }

    fn message(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if headers.iter().all(|(name, _)| *name != "accept") {
            head.push_str("accept: application/json\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        if method != "GET" {
            head.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            ));
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        message
    }

    fn exchange(&mut self, message: &[u8]) -> Result<Response> {
        let connection = self.connection.as_mut().context("there is no connection")?;
        let outcome = connection
            .get_mut()
            .write_all(message)
            .map_err(anyhow::Error::from)
            .and_then(|()| read_response(connection));
        let keep = outcome.as_ref().is_ok_and(|response| {
            response
                .header("connection")
                .is_none_or(|value| !value.eq_ignore_ascii_case("close"))
        });
        if !keep {
            self.connection = None;
        }
        outcome
    }
}

fn was_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::BrokenPipe
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
        )
    })
}

fn read_response(reader: &mut impl BufRead) -> Result<Response> {
    let mut left = HEAD_BYTES;
    let first = read_line(reader, &mut left)?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("not an HTTP answer: {first:?}"))?;
    let mut response = Response {
        status,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let line = read_line(reader, &mut left)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("not a header: {line:?}"))?;
        response
            .headers
            .push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    response.body = read_body(reader, &response)?;
    Ok(response)
}

fn read_body(reader: &mut impl BufRead, response: &Response) -> Result<Vec<u8>> {
    if response.header("transfer-encoding") == Some("chunked") {
        return read_chunks(reader);
    }
    let length = response
        .header("content-length")
        .map_or(Ok(0), str::parse)
        .context("content-length is not a number")?;
    read_exactly(reader, length)
}

fn read_chunks(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader, &mut HEAD_BYTES.clone())?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16)
            .with_context(|| format!("not a chunk size: {line:?}"))?;
        ensure!(body.len() + size <= BODY_BYTES, "the body is too large");
        body.extend(read_exactly(reader, size)?);
        let end = read_line(reader, &mut HEAD_BYTES.clone())?;
        ensure!(end.is_empty(), "a chunk is longer than it said");
        if size == 0 {
            return Ok(body);
        }
    }
}

fn read_exactly(reader: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    ensure!(length <= BODY_BYTES, "the body is too large");
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// One line without its end; `left` is how much of the head may still come.
fn read_line(reader: &mut impl BufRead, left: &mut usize) -> Result<String> {
    let mut line = Vec::new();
    let limit = u64::try_from(*left).context("the head is too large")?;
    let read = reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
    *left -= read;
    if read == 0 {
        if limit == 0 {
            bail!("the head is too large");
        }
        return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
    }
    let line = String::from_utf8(line).context("the head is not UTF-8")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn read(text: &str) -> Result<Response> {
        read_response(&mut text.as_bytes())
    }

    #[test]
    fn bodies_are_read_by_length_and_by_chunks() {
        let check = |text: &str, status: u16, body: &str| {
            let response = read(text).expect("it is sound");
            assert_eq!((response.status, response.text().as_str()), (status, body));
        };
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyrest",
            200,
            "body",
        );
        check("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
        check(
            "HTTP/1.1 429 Too Many\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n1;x=y\r\ny\r\n0\r\n\r\n",
            429,
            "body",
        );
    }

    #[test]
    fn broken_answers_are_errors() {
        let check = |text: &str| assert!(read(text).is_err(), "{text:?} was read");
        check("");
        check("SSH-2.0-OpenSSH\r\n\r\n");
        check("HTTP/1.1 200 OK\r\nno colon\r\n\r\n");
        check("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort");
        check("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n");
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
        check(&format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
            "a".repeat(HEAD_BYTES)
        ));
    }

    #[test]
    fn a_closed_connection_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback works");
        let address = listener.local_addr().expect("it has one");
        let server = thread::spawn(move || {
            // One request for each connection, without a word about closing.
            for _ in 0..2 {
                let (stream, _) = listener.accept().expect("a client comes");
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).expect("a line comes");
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                reader.get_mut().write_all(answer).expect("it is read");
            }
        });
        let mut client = Client::new(address, Some("codex_x"));
        for _ in 0..2 {
            assert_eq!(client.get("/health").expect("it answers").status, 200);
        }
        server.join().expect("the server did not panic");
    }
}
