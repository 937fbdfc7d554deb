//! How an artifact lies on the disk: one file with a small head of ours
//! before the content, so that no crash can part the two.
//!
//! The head is a mark, the length of a JSON text, and that text. Contents are
//! user code's and never looked at; heads are checked when they are read
//! back, since disks fail and people edit.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// What each file begins with; the digit is the version of the format.
const MARK: &[u8; 8] = b"codexA1\n";

/// Most bytes of the JSON text.
const HEAD_BYTES: u32 = 4096;

/// What is known of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The name it is served under.
    pub(super) name: String,
    /// The id of the key whose run made it.
    pub(super) owner: String,
    /// Bytes of the content.
    pub(super) size: u64,
    /// When it was kept, in microseconds since 1970.
    pub(super) made: u64,
    /// When it ends, in seconds since 1970.
    pub(super) expires: u64,
}

impl Record {
    /// Writes the head; gives its length in bytes.
    pub(super) fn write(&self, file: &mut impl Write) -> io::Result<u64> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        if length > HEAD_BYTES {
            return Err(io::Error::other("the name of the file is too long"));
        }
        file.write_all(MARK)?;
        file.write_all(&length.to_be_bytes())?;
        file.write_all(&json)?;
        Ok(head_bytes(length))
    }

    /// Reads a head back; `None` when this is no whole one. Gives the record
    /// and the length of the head in bytes.
    pub(super) fn read(file: &mut impl Read) -> Option<(Self, u64)> {
        let mut mark = [0; MARK.len()];
        let mut length = [0; 4];
        file.read_exact(&mut mark).ok()?;
        file.read_exact(&mut length).ok()?;
        let length = u32::from_be_bytes(length);
        if mark != *MARK || length > HEAD_BYTES {
            return None;
        }
        let mut json = vec![0; usize::try_from(length).ok()?];
        file.read_exact(&mut json).ok()?;
        let record = serde_json::from_slice(&json).ok()?;
        Some((record, head_bytes(length)))
    }
}

fn head_bytes(json: u32) -> u64 {
    MARK.len() as u64 + 4 + u64::from(json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(name: &str) -> Record {
        Record {
            name: name.to_owned(),
            owner: "test".to_owned(),
            size: 3,
            made: 1,
            expires: 2,
        }
    }

    #[test]
    fn a_head_comes_back_and_the_content_follows() {
        let mut bytes = Vec::new();
        let length = record("é.png").write(&mut bytes).expect("written");
        assert_eq!(bytes.len() as u64, length);
        bytes.extend(b"abc");
        let mut rest = bytes.as_slice();
        assert_eq!(Record::read(&mut rest), Some((record("é.png"), length)));
        assert_eq!(rest, b"abc");
        for cut in 0..usize::try_from(length).expect("small") {
            assert_eq!(Record::read(&mut &bytes[..cut]), None, "{cut}");
        }
        let long = record(&"x".repeat(5_000));
        assert!(long.write(&mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(Record::read(&mut bytes.as_slice()));
            bytes.splice(0..0, *MARK);
            drop(Record::read(&mut bytes.as_slice()));
        }
    }
}
