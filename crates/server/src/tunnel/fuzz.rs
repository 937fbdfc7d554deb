//! What a tunnel's control plane hands out, from any bytes.

use serde_json::Value;

use super::command::{self, Task};

/// One command: read, it says how it is answered; else it is dropped.
pub(crate) fn tunnel_commands(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let Ok(command) = command::read(value) else {
        return;
    };
    assert!(!command.request_id.is_empty() && !command.shard_token.is_empty());
    for (name, _) in &command.headers {
        // Who calls, and at which host, is never a command's to say.
        assert!(
            name.starts_with("mcp-") || name == "last-event-id",
            "{name}"
        );
    }
    if command.task == Task::EndSession {
        assert!(
            command
                .headers
                .iter()
                .any(|(name, _)| name == "mcp-session-id")
        );
    }
    drop(super::work::request(&command));
}
