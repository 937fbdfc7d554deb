//! Fair shares: one caller, however much it asks for, keeps no other from
//! being served.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::server::wait_until;
use crate::support::TestServer;

/// Ends the flood when the test does, whichever way.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_token_that_floods_starves_no_other() {
    let server = TestServer::with(&[
        ("CODEX_CONCURRENCY", "2"),
        ("CODEX_QUEUE", "6"),
        ("CODEX_RATE_LIMIT", "6000/minute"),
    ]);
    let other = format!("Authorization: Bearer {}", server.another_token("other"));
    let (over, busy) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _over = Over(&over);
        let flood = || {
            while !over.load(Ordering::Relaxed) {
                let reply = server.execute(r#"{"code": "import time; time.sleep(2)"}"#);
                match reply.status {
                    200 => {}
                    503 => {
                        busy.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                    status => panic!("{status}: {}", reply.text()),
                }
            }
        };
        for _ in 0..12 {
            scope.spawn(flood);
        }
        wait_until("a full queue", || busy.load(Ordering::Relaxed) > 0);
        for _ in 0..5 {
            let headers = [other.as_str(), "Content-Type: application/json"];
            let reply = server.request("POST", "/execute", &headers, br#"{"code": "print(1)"}"#);
            assert_eq!(reply.status, 200, "{}", reply.text());
            let health = server.get("/health").json();
            assert!(health["load"]["waiting"].as_u64() > Some(0), "{health}");
        }
    });
}
