//! The Model Context Protocol: this server's tools for models.
//!
//! Translates tool calls to [`runs`](crate::runs) and resources to kept files;
//! the protocol itself is rmcp's. Authenticates nobody: who calls is said by
//! the door that mounts it. Never uses `http`.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, DiscoverResult,
    ErrorCode, Extensions, Implementation, InitializeRequestParams, InitializeResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use crate::app::App;
use crate::runs::Caller;
use crate::telemetry;

mod call;
mod calls;
mod endpoint;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod message;
pub(crate) mod pipes;
mod session_tools;
mod sessions;
mod stdio;
mod tools;
mod view;

pub(crate) use endpoint::Endpoint;
#[cfg(test)]
pub(crate) use sessions::EACH as SESSIONS_EACH;
pub(crate) use stdio::serve;

/// Answers the messages of all clients. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    app: Arc<App>,
    callers: Callers,
    /// They change with settings alone, and each call asks for one.
    tools: Arc<[Tool]>,
}

/// Where the caller of a message comes from.
#[derive(Debug, Clone)]
enum Callers {
    /// The door put it into the extensions of the request's HTTP parts.
    Parts,
    /// All messages are of one caller, who started this process.
    One(Caller),
}

impl Handler {
    /// Returns the handler of a server's messages.
    fn new(app: &Arc<App>, callers: Callers) -> Self {
        Self {
            app: Arc::clone(app),
            callers,
            tools: tools::all(app).into(),
        }
    }

    /// Returns the caller of a message.
    fn caller(&self, extensions: &Extensions) -> Result<Caller, ErrorData> {
        if let Callers::One(caller) = &self.callers {
            return Ok(caller.clone());
        }
        let parts = extensions.get::<axum::http::request::Parts>();
        let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
        caller.cloned().ok_or_else(|| {
            tracing::error!("an MCP message came without its caller");
            internal()
        })
    }
}

/// We failed; the log says how.
fn internal() -> ErrorData {
    ErrorData::internal_error("the server failed to answer; its log says why", None)
}

/// Does a handler's work, so that a panic is answered. No task of its own: each
/// costs a call the time in which another thread wakes up, there and back.
async fn guarded<T>(work: impl Future<Output = Result<T, ErrorData>>) -> Result<T, ErrorData> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| {
            let words = telemetry::panic_words(&*panic);
            tracing::error!(error = words, "an MCP handler panicked");
            Poll::Ready(Err(internal()))
        })
    })
    .await
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
            .enable_extensions_with(view::capability())
            .build();
        let name = Implementation::new("codex-server", env!("CARGO_PKG_VERSION"));
        // Without instructions: rmcp asks for each call, and they take reading files.
        ServerConfig::new(capabilities).with_server_info(name)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        let mut result = self.negotiate_initialize(&request)?;
        result.instructions = Some(tools::instructions(&self.app));
        Ok(result)
    }

    async fn discover(&self, _: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let told = tools::instructions(&self.app);
        Ok(DiscoverResult::from_server_info(
            self.supported_protocol_versions().into_owned(),
            self.get_info().with_instructions(told),
        ))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = self.caller(&context.extensions)?;
        let app = Arc::clone(&self.app);
        guarded(async move {
            let arguments = request.arguments.unwrap_or_default();
            match request.name.as_ref() {
                tools::RUN_CODE => Ok(call::run_code(&app, caller, arguments, &context).await),
                tools::LIST_LANGUAGES => Ok(call::list_languages(&app)),
                name => session_tools::call(&app, &caller, name, arguments)
                    .await
                    .ok_or_else(|| ErrorData::invalid_params("tool not found", None)),
            }
        })
        .await
        .map(CallToolResponse::from)
    }

    /// Files are not listed: each result names its own.
    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![view::resource()]))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(
            files::templates(),
        ))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = self.caller(&context.extensions)?;
        if request.uri == view::URI {
            return Ok(view::read().into());
        }
        let app = Arc::clone(&self.app);
        guarded(async move { files::read(&app, &caller, &request.uri).await })
            .await
            .map(ReadResourceResponse::from)
    }

    /// Answers what rmcp could not read as a method that it knows: parameters
    /// of the wrong shape, or a method that there is not.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        // Of the era without sessions alone: `initialize` is no method there.
        const KNOWN: [&str; 3] = ["tools/call", "tools/list", "resources/read"];
        if KNOWN.contains(&request.method.as_str()) {
            let told = format!("the params of {} have the wrong shape", request.method);
            return Err(ErrorData::invalid_params(told, None));
        }
        let told = engine::quote(&request.method);
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, told, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered() {
        let answered = guarded::<()>(async { panic!("secret words") }).await;
        let error = answered.expect_err("an error");
        assert_eq!(error.code, ErrorCode::INTERNAL_ERROR);
        assert!(!error.message.contains("secret"), "{error:?}");
        assert_eq!(guarded(async { Ok(4) }).await, Ok(4));
    }

    #[tokio::test]
    async fn work_ends_with_its_request() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let work = guarded::<()>(async move {
            let _held = sender;
            std::future::pending().await
        });
        let dropped = tokio::time::timeout(std::time::Duration::from_millis(50), work).await;
        assert!(dropped.is_err(), "it never ends by itself");
        assert!(receiver.await.is_err(), "what it held was dropped");
    }
}
