//! A reader of server-sent events, as the HTML standard has it.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::Reply;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// An answer in progress: its head was read, its events are iterated over.
pub(crate) struct Stream {
    pub(crate) reply: Reply,
    /// Comments between the events so far.
    pub(crate) comments: Vec<String>,
    lines: Box<dyn BufRead>,
    connection: Option<TcpStream>,
}

impl Stream {
    /// Reads the head of an answer.
    pub(crate) fn open(connection: TcpStream) -> Self {
        let mut reader = BufReader::new(connection.try_clone().expect("clone"));
        let reply = Reply::read(&mut reader, false);
        Self {
            reply,
            comments: Vec::new(),
            lines: Box::new(BufReader::new(Chunked::new(reader))),
            connection: Some(connection),
        }
    }

    /// An answer that was read before.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut reader = Cursor::new(bytes.to_vec());
        let reply = Reply::read(&mut reader, false);
        Self {
            reply,
            comments: Vec::new(),
            lines: Box::new(BufReader::new(Chunked::new(reader))),
            connection: None,
        }
    }

    pub(crate) fn connection(&mut self) -> &mut TcpStream {
        self.connection.as_mut().expect("it was opened")
    }
}

impl Iterator for Stream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (mut id, mut name, mut data) = (String::new(), String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("read") == 0 {
                assert!(data.is_empty(), "no event is cut off: {data}");
                return None;
            }
            let line = line.strip_suffix('\n').expect("a whole line");
            if line.is_empty() {
                if data.is_empty() {
                    continue;
                }
                let data = serde_json::from_str(&data).expect("JSON");
                return Some(Event { id, name, data });
            }
            let (field, value) = line.split_once(": ").expect("a field");
            match field {
                "id" => value.clone_into(&mut id),
                "event" => value.clone_into(&mut name),
                "data" => data.push_str(value),
                "" => self.comments.push(value.to_owned()),
                field => panic!("a field {field:?}"),
            }
        }
    }
}

/// The content of a chunked body.
struct Chunked<R> {
    inner: R,
    /// Bytes left of this chunk.
    left: usize,
    ended: bool,
}

impl<R: BufRead> Chunked<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            ended: false,
        }
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            self.inner.read_line(&mut line)?;
            let size = line.trim_end();
            self.left = usize::from_str_radix(size, 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.left);
        let count = self.inner.read(&mut buffer[..count])?;
        self.left -= count;
        if self.left == 0 {
            self.inner.read_line(&mut String::new())?;
        }
        Ok(count)
    }
}
