//! The settings of OpenAI's tunnel. Its key is none of them: it comes from a
//! file, or from the variable `CODEX_TUNNEL_KEY`.

use std::path::PathBuf;

use super::{Key, Kind, Reach, form, key};
use crate::tunnel;

pub(super) const TUNNEL: &[Key] = &[
    key(
        "tunnel",
        Reach::Serve,
        "none",
        Kind::Text(form("ID", "tunnel_ and 32 letters and digits"), |s, v| {
            s.config.tunnel.id = Some(tunnel::id(v)?);
            Ok(())
        }),
        "The tunnel of OpenAI's by which ChatGPT reaches this server without a public port; its key comes from CODEX_TUNNEL_KEY, or from tunnel_key_file",
    ),
    key(
        "tunnel_url",
        Reach::Serve,
        tunnel::DEFAULT_URL,
        Kind::Text(form("URL", "https, or http to this machine"), |s, v| {
            s.config.tunnel.url = Some(tunnel::control_plane(v)?);
            Ok(())
        }),
        "The tunnel's control plane, to which its key is shown",
    ),
    key(
        "tunnel_key_file",
        Reach::NoFlag,
        "tunnel.key in home",
        Kind::Text(
            form("FILE", "a file that only this user may read"),
            |s, v| {
                s.config.tunnel.key_file = Some(PathBuf::from(v));
                Ok(())
            },
        ),
        "The file with the tunnel's key, where CODEX_TUNNEL_KEY is not set",
    ),
    key(
        "tunnel_organization",
        Reach::NoFlag,
        "none",
        Kind::Text(form("ID", "org-…"), |s, v| {
            if !v
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            {
                return Err("is no organization's id".to_owned());
            }
            s.config.tunnel.organization = Some(v.to_owned());
            Ok(())
        }),
        "The organization that the tunnel belongs to, where its key has several",
    ),
];
