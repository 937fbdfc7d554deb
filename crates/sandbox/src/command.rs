//! A program to run in a box: everything here is the user's.
//!
//! It travels from the server to the box's init in a sealed memory file and is
//! first read after lock-down. The warden never sees it.

use crate::error::{At, Error, Step};
use crate::protocol::{Reader, Writer};
use crate::sys;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

/// A program, its arguments and the files it finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Absolute path of the executable and its arguments, `argv[0]` first.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` entries, all of them: nothing is inherited.
    pub env: Vec<Vec<u8>>,
    /// Files to write below the workspace first, in order.
    pub files: Vec<File>,
    /// Standard input; empty means `/dev/null`.
    pub stdin: Vec<u8>,
}

/// An input file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Path below the workspace: relative, without `..`.
    pub path: Vec<u8>,
    /// Contents.
    pub content: Vec<u8>,
}

/// Largest encoded command, in bytes: a backstop above all of the engine's bounds.
const MAX_ENCODED: u64 = 256 * 1024 * 1024;

impl Command {
    /// The command as a sealed memory file.
    pub(crate) fn seal(&self) -> Result<OwnedFd, Error> {
        let mut out = Writer::default();
        self.encode(&mut out);
        sys::sealed_memory(c"command", &out.finish()).at(Step::Seal)
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.list(&self.argv);
        out.list(&self.env);
        out.u32(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        for file in &self.files {
            out.bytes(&file.path);
            out.bytes(&file.content);
        }
    }

    /// Standard input as a sealed memory file; `None` when there is none.
    pub(crate) fn seal_stdin(&self) -> Result<Option<OwnedFd>, Error> {
        if self.stdin.is_empty() {
            return Ok(None);
        }
        sys::sealed_memory(c"stdin", &self.stdin)
            .map(Some)
            .at(Step::Seal)
    }

    /// Reads a command back. Standard input stays in its own file.
    pub(crate) fn unseal(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let bytes = sys::read_whole(fd, MAX_ENCODED).at(Step::Command)?;
        Self::decode(&bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(bytes);
        let argv = input.list()?;
        let env = input.list()?;
        let count = input.u32()?;
        let mut files = Vec::new();
        for _ in 0..count {
            files.push(File {
                path: input.bytes()?.to_vec(),
                content: input.bytes()?.to_vec(),
            });
        }
        input.end()?;
        Ok(Self {
            argv,
            env,
            files,
            stdin: Vec::new(),
        })
    }
}

/// The standard input of a program that is started before what it will read is known:
/// a file in memory that holds nothing until it is filled.
#[derive(Debug)]
pub struct LateInput(OwnedFd);

impl LateInput {
    /// Makes one.
    ///
    /// # Errors
    /// [`Step::Seal`].
    pub fn new() -> Result<Self, Error> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        rustix::fs::memfd_create(c"stdin", flags)
            .map(Self)
            .at(Step::Seal)
    }

    /// Puts in what the program will read, once; nobody can change it afterwards.
    ///
    /// # Errors
    /// [`Step::Seal`].
    pub fn fill(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut done = 0;
        while done < bytes.len() {
            // By place, so that whoever reads begins at the start.
            done += rustix::io::pwrite(&self.0, &bytes[done..], done as u64).at(Step::Seal)?;
        }
        rustix::fs::fcntl_add_seals(
            &self.0,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )
        .at(Step::Seal)
    }
}

impl AsFd for LateInput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_command_survives_the_wire(
            argv: Vec<Vec<u8>>, env: Vec<Vec<u8>>, files: Vec<(Vec<u8>, Vec<u8>)>
        ) {
            let command = Command {
                argv, env, stdin: Vec::new(),
                files: files.into_iter().map(|(path, content)| File { path, content }).collect(),
            };
            let fd = command.seal().unwrap();
            prop_assert_eq!(Command::unseal(fd.as_fd()).unwrap(), command);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            drop(Command::decode(&bytes));
        }
    }
}
