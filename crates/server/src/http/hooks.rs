//! `POST /hooks/run`: a run for no-code tools, such as Zapier and Make.
//!
//! Flat fields come in as JSON or as a form, and a flat answer goes out before
//! such a tool gives up. The token may be one of the fields, so this handler asks
//! for it, always; a stranger's body is bounded and read before that is known.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use engine::Owner;

use super::byte_shares::ByteShare;
use super::connection::Connection;
use super::context::Context;
use super::route::Counted;
use super::state::Shared;
use super::unread::Slot;
use super::{body, content_type, gate, limits};
use crate::api::{Code, Problem};
use crate::auth::Scope;
use crate::hooks::{Encoding, Fields, HookRequest, HookResponse};
use crate::runs::{self, ClientLimits, Deadline};

/// Time in which an answer is due: Zapier gives a step up after 30 s.
const LIMIT: Duration = Duration::from_secs(25);
/// Bytes of a body: more than the longest program that a run takes, as a form.
const BODY: usize = 4 * 1024 * 1024;
/// Whose bytes they are until a token is known.
const STRANGERS: &str = "strangers' hooks";

/// Execute code for a no-code tool
///
/// Runs a program like `/execute`, for Zapier, Make and others: flat fields in, as JSON or as a form, and an answer of text, numbers and booleans alone, within 25 s. The token may be the field `token` where no header can be set; one is needed always.
#[utoipa::path(
    post,
    path = "/hooks/run",
    operation_id = "runHook",
    request_body(content(
        (HookRequest = "application/json"),
        (HookRequest = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "The code ran, to whatever end", body = HookResponse)),
)]
pub(super) async fn run(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let call = match Call::read(&shared, request).await {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    let key = call.context.caller(ClientLimits::default()).principal.id;
    limits::within(&shared, key.as_str(), async {
        let answer = call.answer(&shared).await;
        answer.unwrap_or_else(Problem::into_response)
    })
    .await
}

/// A call whose caller is known.
struct Call {
    context: Context,
    fields: Fields,
    /// The right to hold its bytes.
    room: ByteShare,
}

impl Call {
    /// Reads a call and finds out whose it is.
    ///
    /// # Errors
    /// The answer to a body that can't be read, and to a token that is missing,
    /// wrong, or may not run anything.
    async fn read(shared: &Arc<Shared>, request: Request) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Some(&ConnectInfo(connection)) = parts.extensions.get::<ConnectInfo<Connection>>()
        else {
            tracing::error!("a hook reached its handler without its connection");
            return Err(Problem::internal().into_response());
        };
        let encoding = encoding(&parts.headers).map_err(Problem::into_response)?;
        // A wrong one in the header is told before anything is read.
        let shown = match gate::bearer(&parts.headers) {
            None => None,
            shown => Some(
                gate::identify(shared, connection, &parts.headers, shown, Scope::Execute).await?,
            ),
        };
        let owner = shown.as_ref().map(|principal| principal.id.clone());
        let owner = owner.unwrap_or_else(|| Owner::new(STRANGERS));
        let limit = shared.app.config.body_limit.min(BODY);
        let patience = shared.app.config.client_timeout;
        let shares = (&shared.requests, &owner);
        let (bytes, room) = body::read(&parts.headers, body, shares, limit, patience)
            .await
            .map_err(Problem::into_response)?;
        let fields = Fields::read(&bytes, encoding).map_err(Problem::into_response)?;
        let (principal, room) = match (shown, &fields.token) {
            (Some(principal), _) => (principal, room),
            (None, None) => return Err(missing().into_response()),
            (None, Some(token)) => {
                let token = Some(token.as_str());
                let principal =
                    gate::identify(shared, connection, &parts.headers, token, Scope::Execute)
                        .await?;
                let own = body::share(&shared.requests, &principal.id, &bytes);
                (principal, own.map_err(Problem::into_response)?)
            }
        };
        gate::welcome(shared, &mut parts.extensions, principal, Counted::Run);
        let context = Context::from_request_parts(&mut parts, shared).await;
        Ok(Self {
            context: context.map_err(Problem::into_response)?,
            fields,
            room,
        })
    }

    /// Runs what the call asks for.
    async fn answer(self, shared: &Shared) -> Result<Response, Problem> {
        let context = self.context;
        let caller = context.caller(ClientLimits {
            deadline: Some(Deadline {
                at: (context.arrived + LIMIT).into(),
                limit: LIMIT,
                whose: "a no-code tool",
            }),
            ..ClientLimits::default()
        });
        let order = self.fields.order()?;
        let prepared = runs::prepare(&shared.app, &caller, order).await?;
        let answer = runs::execute(&shared.app, &caller, prepared, None).await?;
        drop(self.room);
        context.note_run(&answer.status);
        let answer = serde_json::to_vec(&HookResponse::from(answer)).map_err(|error| {
            tracing::error!(%error, "failed to write the answer of a hook");
            Problem::internal()
        })?;
        let key = caller.principal.id.as_str();
        let held = shared.unread.hold(key, Slot::default(), answer, 0);
        let mut response = Response::new(Body::new(held));
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

fn missing() -> Problem {
    Problem::new(
        Code::Unauthorized,
        "A token is missing. Send it in the header 'Authorization: Bearer YOUR_TOKEN' or, where no header can be set, in the field `token`.",
    )
}

/// Returns how the fields are written down, by the content type.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    match content_type::is_form(headers) {
        true => Ok(Encoding::Form),
        false => content_type::require_json(headers).map(|()| Encoding::Json),
    }
}
