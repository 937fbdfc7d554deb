//! The session of the older protocol, which the server may forget when it is
//! started again: a new one is then begun as the client began the first.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::time::timeout;

use super::exchange::Answer;
use super::message::VERSION;
use super::relay::Relay;
use crate::mcp::pipes::remark;

/// The header that names a session.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// How long a server may take to begin a session.
const BEGIN: Duration = Duration::from_secs(30);
/// How long it may take to end one.
const END: Duration = Duration::from_secs(5);

/// What a client says once it is answered.
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A session that was agreed on.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// None where the server keeps no sessions.
    id: Option<HeaderValue>,
    version: HeaderValue,
    /// The `initialize` that began it, and its id.
    opening: (Bytes, Value),
}

impl Session {
    /// Returns the headers of a message that belongs to it.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(VERSION, self.version.clone());
        headers.extend(self.id.clone().map(|id| (SESSION, id)));
        headers
    }
}

/// Says whether headers name a session.
pub(super) fn is_named(headers: &HeaderMap) -> bool {
    headers.contains_key(SESSION)
}

impl Relay {
    /// Begins the session that the client asks for, and prints the answer.
    ///
    /// # Errors
    /// When there is no answer, in words.
    pub(super) async fn initialize(&self, body: &Bytes, id: &Value) -> Result<(), String> {
        let mut session = self.session.lock().await;
        let (answer, begun) = self.open(body, id).await?;
        let before = match begun {
            Some(begun) => session.replace(begun),
            None => None,
        };
        drop(session);
        self.say(answer.text).await;
        if let Some(before) = before {
            self.close(&before).await;
        }
        Ok(())
    }

    /// Begins a session in place of one that the server no longer knows, unless
    /// that was done meanwhile. The client hears nothing of it.
    ///
    /// # Errors
    /// When there is no new one, in words.
    pub(super) async fn renew(&self, forgotten: &HeaderMap) -> Result<(), String> {
        const CURE: &str = "the server no longer knows the session, as after a restart, and a new one could not be begun; start the client again";
        let mut session = self.session.lock().await;
        let Some(old) = session.as_ref() else {
            return Err(CURE.to_owned());
        };
        if old.headers() != *forgotten {
            return Ok(());
        }
        let (body, id) = &old.opening;
        let begun = self.open(body, id).await;
        let (_, begun) = begun.map_err(|why| format!("{CURE} ({why})"))?;
        let begun = begun.ok_or(CURE)?;
        if begun.version != old.version {
            return Err(format!(
                "{CURE} (it now speaks another version of the protocol)"
            ));
        }
        let initialized = Bytes::from_static(INITIALIZED);
        let told = timeout(BEGIN, self.post(initialized, begun.headers())).await;
        *session = Some(begun);
        drop(session);
        // It needs that no more than it needs ours: the repeated call tells.
        drop(told);
        remark("the server had forgotten the session; a new one was begun");
        Ok(())
    }

    /// Ends the session with the server, if there is one.
    pub(super) async fn end_session(&self) {
        let session = self.session.lock().await.take();
        if let Some(session) = session {
            self.close(&session).await;
        }
    }

    /// Sends an `initialize`; returns its answer, and the session that it began.
    async fn open(&self, body: &Bytes, id: &Value) -> Result<(Answer, Option<Session>), String> {
        let opened = async {
            let response = self.post(body.clone(), HeaderMap::new()).await?;
            let session = response.headers().get(SESSION).cloned();
            Ok::<_, String>((session, self.answer(response, id, false).await?))
        };
        let opened = timeout(BEGIN, opened).await;
        let (session, answer) = opened.unwrap_or_else(|_| {
            Err(format!(
                "{} did not begin a session within {} s; check that it is a codex-server",
                self.server.url,
                BEGIN.as_secs()
            ))
        })?;
        let told: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let version = told.pointer("/result/protocolVersion");
        let version = version.and_then(Value::as_str);
        let begun = version.and_then(|version| {
            Some(Session {
                id: session,
                version: HeaderValue::from_str(version).ok()?,
                opening: (body.clone(), id.clone()),
            })
        });
        Ok((answer, begun))
    }

    async fn close(&self, session: &Session) {
        if session.id.is_none() {
            return;
        }
        let request = self.request(reqwest::Method::DELETE, session.headers());
        // A server that cannot be told ends it when it was idle for a while.
        drop(timeout(END, request.send()).await);
    }
}
