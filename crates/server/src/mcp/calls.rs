//! The requests that are in flight, by session and id: rmcp would give the answer
//! of one to another that has the same id, and never answer the other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// A session, and the JSON of an id, which tells `1` from `"1"`.
type Key = (String, String);

/// The requests that are in flight. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Mutex<HashSet<Key>>>);

/// A request that is in flight until this is dropped.
#[derive(Debug)]
pub(super) struct Call {
    calls: Calls,
    key: Key,
}

impl Calls {
    /// Notes that a request is in flight; `None` when one with its id is already.
    pub(super) fn begin(&self, session: &str, id: &Value) -> Option<Call> {
        let key = (session.to_owned(), id.to_string());
        let is_new = self.lock().insert(key.clone());
        is_new.then(|| Call {
            calls: self.clone(),
            key,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_in_flight_once_in_a_session() {
        let calls = Calls::default();
        let first = calls.begin("a", &json!(1)).expect("the first");
        assert!(calls.begin("a", &json!(1)).is_none());
        for (session, id) in [("b", json!(1)), ("a", json!("1")), ("a", json!(2))] {
            assert!(calls.begin(session, &id).is_some(), "{session} {id}");
        }
        drop(first);
        assert!(calls.begin("a", &json!(1)).is_some());
    }
}
