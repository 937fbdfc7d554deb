//! Heads of kept files and queries of links to them, from any bytes.

use super::Signature;
use super::link::{BadLink, SigningKey};
use super::record::Record;

/// A kept file's head, which disks and people may have changed.
pub(crate) fn records(bytes: &[u8]) {
    let mut rest = bytes;
    let Some((record, length)) = Record::read(&mut rest) else {
        return;
    };
    assert_eq!(rest.len() as u64 + length, bytes.len() as u64);
    let mut again = Vec::new();
    if record.write(&mut again).is_ok() {
        let read = Record::read(&mut again.as_slice()).map(|(record, _)| record);
        assert_eq!(read, Some(record));
    }
}

/// A link's query: read or not, it opens nothing.
pub(crate) fn queries(query: &str) {
    let key = SigningKey::fixed();
    if let Some(signature) = Signature::parse(query) {
        let id = super::Id([1; 16]);
        let checked = key.check(id, "a", &signature, 0);
        assert_eq!(checked, Err(BadLink::Forged), "{query:?}");
    }
}
