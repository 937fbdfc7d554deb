//! `openapi`: prints a document. Starts nothing and opens nothing.

use super::Failure;
use crate::config::Settings;
use crate::exit_code::Exit;
use crate::http::description;
use crate::http::openapi::{Server, to_yaml};
use crate::{output, public_url};

pub(super) fn openapi(settings: &Settings, actions: bool, yaml: bool) -> Result<Exit, Failure> {
    let config = &settings.config;
    let base = config
        .public_url
        .clone()
        .unwrap_or_else(|| public_url::local(config));
    if actions && config.public_url.is_none() {
        output::note(&format!(
            "note: the document says {base}, which ChatGPT cannot reach; name the address that it can: --public-url https://…"
        ));
    }
    let server = Server {
        bounds: config.bounds,
        ..Server::unseen(base, config.access)
    };
    let document = if actions {
        description().actions_document(&server)
    } else {
        description().document(&server)
    };
    let text = if yaml {
        to_yaml(&document)
    } else {
        serde_json::to_string_pretty(&document)
            .map_err(|error| Failure::new(Exit::Failed, error))?
    };
    output::text(&text)?;
    Ok(Exit::Success)
}
