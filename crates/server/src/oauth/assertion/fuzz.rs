//! Assertions and key sets as strangers write them, from any bytes.

use super::{Assertion, BYTES};
use crate::oauth::keys::{Algorithm, read_set};

/// An assertion on the first line, and the key set of its client behind it.
pub(crate) fn assertions(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (signed, set) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(assertion) = Assertion::read(signed) else {
        return;
    };
    assert!(signed.len() <= BYTES && signed.matches('.').count() == 2);
    let client = "https://x.example/client.json";
    if let Ok(id) = assertion.check(client, &["https://s.example"], 0) {
        assert_eq!(assertion.subject(), Some(client));
        assert!(!id.is_empty());
    }
    let set = serde_json::from_str(set).unwrap_or_default();
    for algorithm in Algorithm::ALL {
        for key in read_set(&set, algorithm).unwrap_or_default() {
            if assertion.verify(algorithm, &key).is_ok() {
                let other = Assertion {
                    message: "",
                    ..assertion.clone()
                };
                assert!(other.verify(algorithm, &key).is_err(), "it signs anything");
            }
        }
    }
}
