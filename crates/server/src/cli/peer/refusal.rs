//! What a server's refusal, or its silence, means to who called it. Pure.
//! The server's own words are quoted only when short and tamed.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use serde_json::Value;

use super::Server;
use crate::cli::Failure;
use crate::exit_code::Exit;
use crate::output::terminal::printable;

/// Characters of the server's words that are quoted.
const QUOTED: usize = 500;

/// An answer that is not the one that was asked for.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) status: u16,
    /// Seconds, or a date, as the server said it.
    pub(in crate::cli) retry_after: Option<String>,
    pub(in crate::cli) location: Option<String>,
    pub(in crate::cli) content_type: String,
    pub(in crate::cli) body: String,
}

/// A refusal for now, which who has time can wait out.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub(in crate::cli) struct Busy {
    told: String,
    /// When the server says to try again.
    pub(in crate::cli) wait: Duration,
}

impl Refusal {
    /// Makes a failure of it, in whose chain is a [`Busy`] where waiting helps.
    pub(in crate::cli) fn failure(&self, server: &Server) -> Failure {
        let told = self.told(server);
        let wait = self.retry_after.as_ref().and_then(|wait| wait.parse().ok());
        match wait.filter(|_| self.status == 429) {
            Some(seconds) => {
                let wait = Duration::from_secs(seconds);
                Failure::new(Exit::Failed, Busy { told, wait })
            }
            None => Failure::text(Exit::Failed, told),
        }
    }

    /// Makes one of an answer's head; its body is still to be read.
    pub(in crate::cli) fn of(response: &Response) -> Self {
        let header = |name: &HeaderName| {
            let value = response.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        Self {
            status: response.status().as_u16(),
            retry_after: header(&RETRY_AFTER),
            location: header(&LOCATION),
            content_type: header(&CONTENT_TYPE).unwrap_or_default(),
            body: String::new(),
        }
    }

    /// The server's own words, where it is one of ours.
    fn detail(&self) -> Option<String> {
        let problem: Value = serde_json::from_str(&self.body).ok()?;
        let detail = problem.get("detail").and_then(Value::as_str)?;
        Some(quoted(detail))
    }

    fn wait(&self) -> String {
        match &self.retry_after {
            Some(wait) if !wait.is_empty() && wait.bytes().all(|b| b.is_ascii_digit()) => {
                format!("wait {} s and try again", quoted(wait))
            }
            Some(date) => format!("try again after {}", quoted(date)),
            None => "wait a little and try again".to_owned(),
        }
    }

    /// What happened and what to do about it.
    pub(in crate::cli) fn told(&self, server: &Server) -> String {
        let url = &server.url;
        let status = self.status;
        let detail = self.detail();
        let said = detail
            .as_ref()
            .map_or_else(String::new, |detail| format!(": {detail}"));
        match (status, &detail) {
            (401, _) if server.token.is_none() => format!(
                "{url} asks for a token ({status}). Give one in CODEX_TOKEN (`run` takes it with --token as well); on the server, codex-server token create NAME makes one"
            ),
            (401, _) => format!(
                "{url} refuses the token ({status}): it is wrong, revoked, or another server's. On the server, codex-server token list names the valid ones"
            ),
            (300..=399, _) => format!(
                "{url} redirects ({status}) to {}; give the address that answers itself. A sign-in page there means that the port or site is private",
                quoted(self.location.as_deref().unwrap_or("nowhere"))
            ),
            (429, _) => format!(
                "{url} takes no more calls for now ({status}){said}; {}",
                self.wait()
            ),
            (503, Some(_)) => format!("{url} cannot run it now ({status}){said}; {}", self.wait()),
            (_, Some(detail)) => format!("{url} refuses it ({status}): {detail}"),
            (403, None) => format!(
                "something before the server refuses the call ({status}): sign-in, a private port, or a firewall"
            ),
            (404 | 405, None) => format!(
                "no codex-server answers at {url} ({status} from {}); check the address and its path",
                self.kind()
            ),
            (500..=599, None) => format!(
                "what stands before the server at {url} cannot reach it ({status}); is the server running?"
            ),
            _ => format!(
                "no codex-server answers at {url} (status {status}, {}); check the address",
                self.kind()
            ),
        }
    }

    fn kind(&self) -> String {
        match self.content_type.as_str() {
            "" => "an answer without a type".to_owned(),
            kind => quoted(kind),
        }
    }
}

/// Somebody's words, short and tamed.
pub(in crate::cli) fn quoted(text: &str) -> String {
    let short: String = text.trim().chars().take(QUOTED).collect();
    printable(&short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_cause_and_cure() {
        let check =
            |status: u16, body: &str, retry: Option<&str>, token: Option<&str>, words: &[&str]| {
                let url = "https://x.example".to_owned();
                let server = Server::new(url, token, "test").unwrap();
                let refusal = Refusal {
                    status,
                    retry_after: retry.map(str::to_owned),
                    location: (status == 302).then(|| "https://y.example/login".to_owned()),
                    content_type: "text/html".to_owned(),
                    body: body.to_owned(),
                };
                let told = refusal.told(&server);
                for word in words {
                    assert!(told.contains(word), "lacks {word:?}: {told}");
                }
                assert!(
                    !told.contains(char::is_control) && told.len() < 1000,
                    "{told:?}"
                );
                assert!(!told.contains("codex_secret"), "{told}");
            };
        let problem = r#"{"title": "x", "detail": "because \u001b[2J"}"#;
        let secret = Some("codex_secret");
        check(
            401,
            problem,
            None,
            None,
            &["asks for a token", "CODEX_TOKEN"],
        );
        check(
            401,
            problem,
            None,
            secret,
            &["refuses the token", "token list"],
        );
        check(400, problem, None, secret, &["because \\u{1b}[2J"]);
        check(403, problem, None, secret, &["refuses it (403): because"]);
        check(403, "<html>", None, secret, &["private port"]);
        check(429, problem, Some("7"), secret, &["wait 7 s"]);
        check(429, "", Some("Mon, 1 Jan"), secret, &["after Mon, 1 Jan"]);
        check(
            503,
            problem,
            Some("5"),
            secret,
            &["cannot run it now", "wait 5 s"],
        );
        check(
            503,
            "<html>",
            None,
            secret,
            &["cannot reach it", "running?"],
        );
        check(
            302,
            "",
            None,
            secret,
            &["redirects (302) to https://y.example/login"],
        );
        check(404, "<html>", None, secret, &["no codex-server answers"]);
        check(
            200,
            "<html>",
            None,
            secret,
            &["no codex-server answers", "text/html"],
        );
        check(400, &"x".repeat(5000), None, secret, &["no codex-server"]);
    }
}
