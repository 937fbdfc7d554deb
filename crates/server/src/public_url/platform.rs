//! The hosting services that say in the environment where the world finds us.

use crate::config::Env;

/// A hosting service, with what its environment told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platform {
    /// GitHub Codespaces: one host name a port.
    Codespaces {
        /// The codespace's name.
        name: String,
        /// Such as `app.github.dev`.
        domain: String,
    },
    /// Railway.
    Railway {
        /// The public domain, once one was made.
        domain: Option<String>,
    },
    /// Render.
    Render {
        /// The public URL.
        url: Option<String>,
    },
    /// Fly.
    Fly {
        /// The app's name.
        app: String,
    },
}

impl Platform {
    /// The service that this environment belongs to.
    #[must_use]
    pub fn detect(env: &Env) -> Option<Self> {
        let get = |name: &str| env.get(name).map(str::to_owned);
        if let (Some("true"), Some(name)) = (env.get("CODESPACES"), get("CODESPACE_NAME")) {
            let domain = get("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN")
                .unwrap_or_else(|| "app.github.dev".to_owned());
            return Some(Self::Codespaces { name, domain });
        }
        let railway = [
            "RAILWAY_PUBLIC_DOMAIN",
            "RAILWAY_ENVIRONMENT",
            "RAILWAY_PROJECT_ID",
        ];
        if railway.iter().any(|name| env.get(name).is_some()) {
            return Some(Self::Railway {
                domain: get("RAILWAY_PUBLIC_DOMAIN"),
            });
        }
        if env.get("RENDER").is_some() || env.get("RENDER_EXTERNAL_URL").is_some() {
            return Some(Self::Render {
                url: get("RENDER_EXTERNAL_URL"),
            });
        }
        get("FLY_APP_NAME").map(|app| Self::Fly { app })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Codespaces { .. } => "Codespaces",
            Self::Railway { .. } => "Railway",
            Self::Render { .. } => "Render",
            Self::Fly { .. } => "Fly",
        }
    }

    /// The URL at which it publishes `port`; `None` while that cannot be told.
    #[must_use]
    pub fn public_url(&self, port: u16) -> Option<String> {
        let url = match self {
            Self::Codespaces { .. } if port == 0 => return None,
            Self::Codespaces { name, domain } => format!("https://{name}-{port}.{domain}"),
            Self::Railway { domain } => format!("https://{}", domain.as_ref()?),
            Self::Render { url } => url.clone()?,
            Self::Fly { app } => format!("https://{app}.fly.dev"),
        };
        super::normalise(&url).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_gives_its_url() {
        let check = |pairs: &[(&str, &str)], expected: Option<(&str, Option<&str>)>| {
            let platform = Platform::detect(&pairs.iter().copied().collect());
            let found = platform.as_ref().map(|p| (p.name(), p.public_url(8000)));
            assert_eq!(
                found,
                expected.map(|(name, url)| (name, url.map(str::to_owned))),
                "{pairs:?}"
            );
        };
        check(&[], None);
        check(&[("CODESPACES", "true")], None);
        check(
            &[
                ("CODESPACES", "true"),
                ("CODESPACE_NAME", "super-duper-x5"),
                ("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN", "app.github.dev"),
            ],
            Some((
                "Codespaces",
                Some("https://super-duper-x5-8000.app.github.dev"),
            )),
        );
        check(
            &[("RAILWAY_PUBLIC_DOMAIN", "x.up.railway.app")],
            Some(("Railway", Some("https://x.up.railway.app"))),
        );
        check(
            &[("RAILWAY_ENVIRONMENT", "production")],
            Some(("Railway", None)),
        );
        check(
            &[("RENDER_EXTERNAL_URL", "https://x.onrender.com")],
            Some(("Render", Some("https://x.onrender.com"))),
        );
        check(&[("RENDER", "true")], Some(("Render", None)));
        check(
            &[("FLY_APP_NAME", "x")],
            Some(("Fly", Some("https://x.fly.dev"))),
        );
        check(&[("FLY_APP_NAME", "x\"><script>")], Some(("Fly", None)));
    }
}
