//! What a plane knows: queued commands, commands that wait for their answers,
//! faults to come, and a record of all that the client did. It must never await
//! while it holds the lock.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Door, Fault, Poll, Post};

/// The final answer to a command.
#[derive(Debug)]
pub(crate) struct Final {
    /// As it came, to know a repetition by.
    pub(crate) bytes: Vec<u8>,
    /// The whole body.
    pub(crate) body: Value,
}

/// A command that the plane can match answers with.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) command: Value,
    /// When a poll got it.
    pub(crate) handed_out: Option<Instant>,
    /// Whole bodies of the notifications so far.
    pub(crate) notifications: Vec<Value>,
    pub(crate) finished: Option<Final>,
}

/// All that changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// What is handed out together is one entry.
    pub(crate) queue: VecDeque<Vec<Value>>,
    /// By request id.
    pub(crate) pending: HashMap<String, Pending>,
    pub(crate) faults: Vec<(Door, Fault)>,
    pub(crate) posts: Vec<Post>,
    pub(crate) polls: Vec<Poll>,
    pub(crate) records: usize,
    pub(crate) violations: Vec<String>,
}

impl State {
    /// Makes the command's answers acceptable, if it has what they are matched by.
    pub(crate) fn know(&mut self, command: &Value) {
        let id = text(command, "request_id");
        if id.is_empty() || text(command, "shard_token").is_empty() {
            return;
        }
        let pending = Pending {
            command: command.clone(),
            handed_out: None,
            notifications: Vec::new(),
            finished: None,
        };
        self.pending.insert(id.to_owned(), pending);
    }

    /// Queues commands that are handed out together.
    pub(crate) fn push(&mut self, commands: Vec<Value>) {
        for command in &commands {
            self.know(command);
        }
        self.queue.push_back(commands);
    }

    /// Removes and returns the commands for one poll: the first entry of the
    /// queue, and as many more as the limit allows. No channels means all.
    pub(crate) fn take(&mut self, limit: usize, channels: &[String]) -> Vec<Value> {
        let (mut taken, mut left) = (Vec::new(), VecDeque::new());
        let mut full = false;
        for entry in self.queue.drain(..) {
            let (wanted, other): (Vec<Value>, Vec<Value>) = entry
                .into_iter()
                .partition(|one| channels.is_empty() || channels.contains(&channel(one)));
            full |= !taken.is_empty() && taken.len() + wanted.len() > limit;
            let stays = if full {
                wanted.into_iter().chain(other).collect()
            } else {
                taken.extend(wanted);
                other
            };
            if !stays.is_empty() {
                left.push_back(stays);
            }
        }
        self.queue = left;
        let now = Instant::now();
        for command in &taken {
            if let Some(pending) = self.pending.get_mut(text(command, "request_id")) {
                pending.handed_out = Some(now);
            }
        }
        taken
    }

    /// Removes and returns the next fault of a door.
    pub(crate) fn fault(&mut self, door: Door) -> Option<Fault> {
        let at = self.faults.iter().position(|(of, _)| *of == door)?;
        Some(self.faults.remove(at).1)
    }
}

/// What all requests of a plane share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: String,
    pub(crate) key: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new() -> Shared {
        Shared {
            id: format!("tunnel_{}", random()),
            key: format!("sk-plane-{}", random()),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Returns what `act` makes of the state, and wakes whoever waits for a
    /// change of the lists that it may have changed.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (made, changed) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = marks(&state);
            let made = act(&mut state);
            (made, before != marks(&state))
        };
        if changed {
            self.changed.send_replace(());
        }
        made
    }

    /// Returns news of changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits for `look` to find something, and returns it; none at the deadline.
    pub(crate) async fn wait<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes();
        loop {
            if let Some(found) = self.with(&mut look) {
                return Some(found);
            }
            let changed = tokio::time::timeout_at(deadline.into(), changes.changed()).await;
            if changed.is_err() {
                return None;
            }
        }
    }
}

/// Numbers of which one differs after each change that somebody may wait for.
fn marks(state: &State) -> [usize; 8] {
    let pending = || state.pending.values();
    [
        state.queue.len(),
        state.faults.len(),
        state.posts.len(),
        state.polls.len(),
        state.records,
        state.violations.len(),
        pending().map(|one| one.notifications.len()).sum(),
        pending().filter(|one| one.finished.is_some()).count(),
    ]
}

/// Returns a command with fresh ids on the channel `main`.
pub(crate) fn command(kind: &str, headers: &[(&str, &str)], timeout: &str) -> Value {
    let mut map = serde_json::Map::new();
    for (name, value) in headers {
        let values = map.entry(*name).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(json!(value));
        }
    }
    json!({
        "request_id": format!("req_{}", random()),
        "shard_token": format!("shard_{}", random()),
        "command_type": kind,
        "channel": "main",
        "created_at": jiff::Timestamp::now().to_string(),
        "response_timeout": timeout,
        "headers": map,
    })
}

/// Returns a string field, empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Returns a command's channel as the service normalises it.
pub(crate) fn channel(command: &Value) -> String {
    let name = command["channel"].as_str().unwrap_or("main");
    name.trim().to_lowercase()
}

/// Returns the time that a command leaves for its answer; none where it says
/// none, or says it in a form that counts as none.
pub(crate) fn timeout(command: &Value) -> Option<Duration> {
    let text = command["response_timeout"].as_str()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let amount: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ns" => Some(Duration::from_nanos(amount)),
        "us" => Some(Duration::from_micros(amount)),
        "ms" => Some(Duration::from_millis(amount)),
        "s" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_secs(amount.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(amount.checked_mul(3600)?)),
        _ => None,
    }
}

/// Returns 32 hexadecimal digits that no other call returned.
fn random() -> String {
    let half = || RandomState::new().hash_one(Instant::now());
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_one_integer_and_one_unit() {
        let check = |said: Value, expected: Option<Duration>| {
            let command = json!({ "response_timeout": said });
            assert_eq!(timeout(&command), expected, "{command}");
        };
        check(json!("30s"), Some(Duration::from_secs(30)));
        check(json!("4500ms"), Some(Duration::from_millis(4500)));
        check(json!("2h"), Some(Duration::from_secs(7200)));
        check(json!("0s"), Some(Duration::ZERO));
        for said in [
            json!(null),
            json!(30),
            json!("4.5s"),
            json!("-1s"),
            json!(" 1s"),
            json!("s"),
            json!("1"),
            json!("1d"),
            json!("999999999999999999999999h"),
        ] {
            check(said, None);
        }
    }
}
