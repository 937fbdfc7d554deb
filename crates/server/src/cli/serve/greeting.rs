//! What a starting server says, on standard output: what holds, how to call
//! it, how to connect ChatGPT, and last where it listens. The first token is
//! shown here, once, and nowhere else; it never goes through the log.

use std::fmt;

use engine::{Language, Support};

use super::curl_line;
use crate::auth::Token;
use crate::config::{Settings, Source, value};
use crate::public_url::Platform;

/// The tokens there are.
#[derive(Debug)]
pub(super) enum Keys {
    /// None is needed.
    Open,
    /// The first one, just made.
    First(Token),
    /// The names of those made before and not revoked.
    Known(Vec<String>),
}

/// Everything that the greeting is made of.
pub(super) struct Greeting<'a> {
    pub(super) settings: &'a Settings,
    pub(super) support: &'a Support,
    pub(super) languages: Vec<Language>,
    pub(super) keys: Keys,
    /// The address that this machine can use.
    pub(super) url: &'a str,
}

impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "codex-server {}", env!("CARGO_PKG_VERSION"))?;
        self.isolation(f)?;
        self.languages(f)?;
        self.places(f)?;
        writeln!(f)?;
        self.keys(f)?;
        self.chatgpt(f)?;
        // Last and alone on its line: scripts wait for it.
        write!(f, "listening on {}", self.url)
    }
}

impl Greeting<'_> {
    fn isolation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rung = self
            .support
            .isolation
            .map_or("none", engine::Isolation::as_str);
        writeln!(f, "  isolation   {rung}")?;
        for layer in self.support.layers.iter().filter(|layer| !layer.holds) {
            let cure = if layer.cure.is_empty() {
                String::new()
            } else {
                format!(". Cure: {}", layer.cure)
            };
            writeln!(
                f,
                "              without {}: {}{cure}",
                layer.name, layer.detail
            )?;
        }
        Ok(())
    }

    fn languages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available = || self.languages.iter().filter(|language| language.available);
        let found: Vec<String> = available()
            .filter(|language| language.version_of.is_none())
            .map(|language| format!("{} {}", language.title, language.version))
            .collect();
        let found = if found.is_empty() {
            "none found".to_owned()
        } else {
            found.join(", ")
        };
        writeln!(f, "  languages   {found}")?;
        // Their titles have the version.
        let others: Vec<&str> = available()
            .filter(|language| language.version_of.is_some())
            .map(|language| language.title.as_str())
            .collect();
        if !others.is_empty() {
            writeln!(f, "              and {}", others.join(", "))?;
        }
        for language in self.languages.iter().filter(|language| !language.available) {
            let cure = language
                .cure
                .as_deref()
                .unwrap_or("its interpreter was not found");
            writeln!(f, "              without {}: {cure}", language.title)?;
        }
        Ok(())
    }

    fn places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.settings.config;
        writeln!(f, "  state       {}", config.home.display())?;
        if let Some(file) = &self.settings.file {
            writeln!(f, "  settings    {}", file.display())?;
        }
        if let (Some(url), Some(source)) = (&config.public_url, &config.public_url_source) {
            writeln!(f, "  public URL  {url} (from {source})")?;
        }
        if let Some(limit) = config.idle_shutdown {
            let limit = value::show_duration(limit);
            writeln!(f, "  idle stop   after {limit} without use")?;
        }
        if config.host.to_canonical().is_loopback() {
            return Ok(());
        }
        let because = match (self.settings.sources.get("host"), &self.settings.platform) {
            (Some(source), _) => source.to_string(),
            (None, Some(platform)) => platform.name().to_owned(),
            (None, None) => Source::Env("PORT".to_owned()).to_string(),
        };
        let host = if config.host.is_unspecified() {
            "all interfaces".to_owned()
        } else {
            config.host.to_string()
        };
        writeln!(f, "  reachable   on {host} (because of {because})")
    }

    fn keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.curl_url();
        let create = self.settings.command("token create NAME");
        let when = self.when();
        match &self.keys {
            Keys::Open => {
                writeln!(
                    f,
                    "WARNING: open mode. Whoever reaches this server may run code on it, without a token."
                )?;
                if !self.settings.config.host.to_canonical().is_loopback() {
                    writeln!(
                        f,
                        "WARNING: and it can be reached from other machines. Leave out --open unless a firewall stands before it."
                    )?;
                } else if self.settings.platform.is_some() {
                    writeln!(
                        f,
                        "WARNING: listening on loopback alone, which is all that open mode does unasked; --host 0.0.0.0 says otherwise."
                    )?;
                }
                writeln!(f, "\nTry it{when}:\n\n  {}\n", curl_line(url, None, false))
            }
            Keys::First(token) => {
                writeln!(
                    f,
                    "Your token, named \"default\", shown this once:\n\n  {}\n",
                    token.reveal()
                )?;
                writeln!(
                    f,
                    "Try it{when}:\n\n  {}\n",
                    curl_line(url, Some(token), true)
                )
            }
            Keys::Known(names) if names.is_empty() => {
                writeln!(
                    f,
                    "All tokens are revoked, so nobody can call. Make one with: {create}\n"
                )
            }
            Keys::Known(names) => {
                writeln!(
                    f,
                    "Tokens: {}. Each was shown when it was made and cannot be shown again;",
                    names.join(", ")
                )?;
                writeln!(f, "lost one? Make another with: {create}")?;
                writeln!(f, "\nTry it{when}:\n\n  {}\n", curl_line(url, None, true))
            }
        }
    }

    /// The curl line is in the first language, which may be missing.
    fn when(&self) -> String {
        match self.languages.first() {
            Some(first) if !first.available => format!(", once there is {}", first.title),
            _ => String::new(),
        }
    }

    fn chatgpt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.settings.config;
        let steps = self.settings.command("connect chatgpt");
        match &config.tunnel.id {
            Some(id) => writeln!(
                f,
                "ChatGPT reaches this server by {id}. To check it, and for the steps in ChatGPT:\n\n  {steps}\n"
            )?,
            None => writeln!(
                f,
                "Connect ChatGPT, by OpenAI's tunnel and without a public port:\n\n  {steps}\n"
            )?,
        }
        let public = config.public_url.as_deref();
        if let Some(public) = public.filter(|url| url.starts_with("https://")) {
            if let Some(Platform::Codespaces { name, .. }) = &self.settings.platform {
                let port = config.port;
                writeln!(
                    f,
                    "To be reached at {public} the port must be public:\n\n  gh codespace ports visibility {port}:public -c {name}\n"
                )?;
            }
            writeln!(
                f,
                "A GPT's Action (legacy) imports {public}/actions/openapi.json: {steps} --by action\n"
            )?;
        }
        writeln!(
            f,
            "Connect Claude Code, Codex, Cursor, VS Code: {}\n",
            self.settings.command("connect")
        )
    }

    /// Where a person at this machine's terminal should call: on a hosting
    /// service the terminal is elsewhere.
    fn curl_url(&self) -> &str {
        let elsewhere = matches!(
            self.settings.platform,
            Some(Platform::Railway { .. } | Platform::Render { .. } | Platform::Fly { .. })
        );
        match &self.settings.config.public_url {
            Some(public) if elsewhere => public,
            _ => self.url,
        }
    }
}
