//! `token create|list|revoke|clean`: keys in the store, whether a server runs or
//! not. Standard output carries the token alone, so that scripts can take it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::{EveryFlags, Failure};
use crate::artifact::OwnedFiles;
use crate::auth::Scope;
use crate::config::{Env, home_directory, load};
use crate::exit_code::Exit;
use crate::output;
use crate::store::oauth::Grant;
use crate::store::{CreateError, Key, Store, StoreError};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, this once; a running server takes it at once
    #[command(after_help = "Example:\n  TOKEN=$(codex-server token create laptop)")]
    Create {
        /// Name for lists and logs: letters, digits, dots, hyphens, underscores
        name: String,
        /// What it may do, and nothing else; all but admin when left out
        #[arg(
            long = "scope",
            value_name = "SCOPE",
            value_delimiter = ',',
            value_parser = scopes()
        )]
        scopes: Vec<Scope>,
        #[command(flatten)]
        flags: EveryFlags,
    },
    /// List the tokens: names and first characters, never the tokens
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: EveryFlags,
    },
    /// Revoke a token; a running server refuses it at once
    Revoke {
        /// The token's name
        name: String,
        /// Delete the files that its runs left, whose links work on otherwise
        #[arg(long)]
        files: bool,
        #[command(flatten)]
        flags: EveryFlags,
    },
    /// Delete the files that runs of revoked tokens of a name left
    Clean {
        /// The token's name; a live token of that name is not touched
        name: String,
        #[command(flatten)]
        flags: EveryFlags,
    },
}

pub(super) fn token(args: TokenArgs, env: &Env) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (flags, action) = match args.command {
        TokenCommand::Create {
            name,
            scopes,
            flags,
        } => (flags, Action::Create(name, scopes)),
        TokenCommand::List { json, flags } => (flags, Action::List { json }),
        TokenCommand::Revoke { name, files, flags } => (flags, Action::Revoke { name, files }),
        TokenCommand::Clean { name, flags } => (flags, Action::Clean(name)),
    };
    runtime.block_on(async {
        let home = home(&flags, env)?;
        let store = Store::open(&home).await?;
        let done = match action {
            Action::Create(name, scopes) => create(&store, &home, &name, scopes).await,
            Action::List { json } => list(&store, json).await,
            Action::Revoke { name, files } => revoke(&store, &home, &name, files).await,
            Action::Clean(name) => match store.keys().await {
                Ok(keys) => clean(&keys, &home, &name),
                Err(error) => Err(error.into()),
            },
        };
        store.close().await;
        done
    })
}

/// A command without its settings.
enum Action {
    Create(String, Vec<Scope>),
    List { json: bool },
    Revoke { name: String, files: bool },
    Clean(String),
}

/// Only the data directory matters here: a wrong port in the file must not
/// keep anybody from revoking a token.
fn home(flags: &EveryFlags, env: &Env) -> Result<PathBuf, Failure> {
    match load(&flags.0, env) {
        Ok(settings) => Ok(settings.config.home),
        Err(_) => Ok(home_directory(&flags.0, env)?),
    }
}

/// A change that the database refused, with the cure where it is a full disk.
fn refused(error: StoreError, home: &Path) -> Failure {
    match error.cure(home) {
        Some(cure) => {
            let chain = anyhow::Error::new(error);
            Failure::text(Exit::State, format!("{chain:#}. {cure}"))
        }
        None => error.into(),
    }
}

async fn create(
    store: &Store,
    home: &Path,
    name: &str,
    mut scopes: Vec<Scope>,
) -> Result<Exit, Failure> {
    if scopes.is_empty() {
        scopes.extend(Scope::DEFAULT);
    }
    scopes.sort_unstable();
    scopes.dedup();
    let made = store.create_key(name, &scopes).await;
    let token = made.map_err(|error| match error {
        CreateError::Name(_) => Failure::new(Exit::Usage, error),
        CreateError::Taken(_) | CreateError::Random(_) => Failure::new(Exit::Failed, error),
        CreateError::Store(error) => refused(error, home),
    })?;
    output::text(token.reveal())?;
    output::note(
        "Keep it: it is not shown again. Callers send the header: Authorization: Bearer TOKEN",
    );
    Ok(Exit::Success)
}

async fn revoke(store: &Store, home: &Path, name: &str, files: bool) -> Result<Exit, Failure> {
    let revoked = store.revoke_key(name).await;
    let Some(id) = revoked.map_err(|error| refused(error, home))? else {
        let ended = store
            .end_grant(name, Timestamp::now().as_millisecond())
            .await;
        if ended.map_err(|error| refused(error, home))? {
            output::note("ended the grant: its client is refused from now on");
            return Ok(Exit::Success);
        }
        return Err(no_live(&store.keys().await?, name));
    };
    output::note(&format!(
        "revoked {name}: callers with this token are refused from now on"
    ));
    if files {
        return clean(&store.keys().await?, home, name);
    }
    let left = OwnedFiles::find(home, &[id]).map_err(|error| Failure::new(Exit::State, error))?;
    if left.count() > 0 {
        let ends = time(i64::try_from(left.last_ends()).unwrap_or(i64::MAX));
        output::note(&format!(
            "files that its runs left: {}; their links work until {ends} at the latest. End them now with: codex-server token clean {name}",
            left.count()
        ));
    }
    Ok(Exit::Success)
}

/// Deletes the files that runs of revoked tokens of a name left. A live token
/// of that name, and its files, are not touched.
fn clean(keys: &[Key], home: &Path, name: &str) -> Result<Exit, Failure> {
    let revoked = keys
        .iter()
        .filter(|key| key.name == name && key.revoked_at.is_some());
    let ids: Vec<String> = revoked.map(|key| key.id.clone()).collect();
    if ids.is_empty() {
        let problem = if keys.iter().any(|key| key.name == name) {
            format!(
                "the token named {name:?} is not revoked; its files end with it: codex-server token revoke {name} --files"
            )
        } else {
            format!("there is no token named {name:?}")
        };
        return Err(Failure::text(Exit::Failed, problem));
    }
    let left = OwnedFiles::find(home, &ids).map_err(|error| Failure::new(Exit::State, error))?;
    let count = left.count();
    left.remove()
        .map_err(|error| Failure::new(Exit::State, error))?;
    output::note(&format!(
        "files that runs of {name} had left: {count}, deleted"
    ));
    Ok(Exit::Success)
}

/// Says that there is no live token of a name, and which there are.
fn no_live(keys: &[Key], name: &str) -> Failure {
    let live: Vec<&str> = keys
        .iter()
        .filter(|key| key.revoked_at.is_none())
        .map(|key| key.name.as_str())
        .collect();
    let problem = if keys.iter().any(|key| key.name == name) {
        format!("the token named {name:?} is revoked already")
    } else if live.is_empty() {
        format!("there is no token named {name:?}, nor any other")
    } else {
        format!(
            "there is no token named {name:?}; there is: {}",
            live.join(", ")
        )
    };
    Failure::text(Exit::Failed, problem)
}

async fn list(store: &Store, json: bool) -> Result<Exit, Failure> {
    let keys = store.keys().await?;
    let grants = store.grants(Timestamp::now().as_millisecond()).await?;
    if json {
        let keys: Vec<_> = keys
            .iter()
            .map(as_json)
            .chain(grants.iter().map(grant_as_json))
            .collect();
        let text = serde_json::to_string_pretty(&keys)
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        output::text(&text)?;
    } else if keys.is_empty() {
        output::note("no tokens yet; make one with: codex-server token create NAME");
    } else {
        output::text(&table(&keys))?;
        if !grants.is_empty() {
            output::text(&format!("\n{}", grant_table(&grants)))?;
        }
    }
    Ok(Exit::Success)
}

/// Returns a grant beside the tokens: what it has that a token has not is its
/// client's host.
fn grant_as_json(grant: &Grant) -> serde_json::Value {
    let scopes: Vec<_> = grant.scopes.iter().map(|scope| scope.as_str()).collect();
    json!({
        "grant": grant.id,
        "host": grant.host,
        "token": grant.key,
        "scopes": scopes,
        "created_at": time(grant.made_at / 1000),
        "last_used_at": grant.used_at.map(|at| time(at / 1000)),
        "ends_at": time(grant.ends_at / 1000),
    })
}

/// Returns the grants by which clients come in somebody's name.
fn grant_table(grants: &[Grant]) -> String {
    let mut rows = vec![
        [
            "GRANT",
            "CLIENT AT",
            "FROM TOKEN",
            "SCOPES",
            "LAST USED",
            "ENDS",
        ]
        .map(str::to_owned),
    ];
    rows.extend(grants.iter().map(|grant| {
        [
            grant.id.clone(),
            engine::quote(&grant.host).to_string(),
            grant.key.clone(),
            scope_words(&grant.scopes),
            day(grant.used_at.map(|at| at / 1000)),
            day(Some(grant.ends_at / 1000)),
        ]
    }));
    aligned(&rows)
}

/// A time in a table.
fn day(seconds: Option<i64>) -> String {
    seconds.map_or_else(
        || "-".to_owned(),
        |s| time(s).replace('T', " ").replace('Z', ""),
    )
}

/// Returns rows with their columns in line.
fn aligned(rows: &[[String; 6]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn as_json(key: &Key) -> serde_json::Value {
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    json!({
        "name": key.name,
        "prefix": key.prefix,
        "scopes": scopes,
        "created_at": time(key.created_at),
        "last_used_at": key.last_used_at.map(time),
        "revoked_at": key.revoked_at.map(time),
    })
}

/// Returns the scopes in few words.
fn scope_words(scopes: &[Scope]) -> String {
    match scopes {
        all if *all == Scope::ALL => "all".to_owned(),
        usual if *usual == Scope::DEFAULT => "all but admin".to_owned(),
        some => {
            let words: Vec<_> = some.iter().map(|scope| scope.as_str()).collect();
            words.join(",")
        }
    }
}

/// Returns what reads a scope from the command line, and lists all in the help.
fn scopes() -> impl clap::builder::TypedValueParser<Value = Scope> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(Scope::ALL.map(Scope::as_str))
        .map(|word| word.parse().expect("a word of the list"))
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn table(keys: &[Key]) -> String {
    let mut rows = vec![
        [
            "NAME",
            "TOKEN",
            "SCOPES",
            "CREATED (UTC)",
            "LAST USED",
            "REVOKED",
        ]
        .map(str::to_owned),
    ];
    rows.extend(keys.iter().map(|key| {
        [
            key.name.clone(),
            format!("{}…", key.prefix),
            scope_words(&key.scopes),
            day(Some(key.created_at)),
            day(key.last_used_at),
            day(key.revoked_at),
        ]
    }));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let key = |name: &str, used: Option<i64>| Key {
            id: "1".to_owned(),
            name: name.to_owned(),
            prefix: "codex_AbCd".to_owned(),
            scopes: vec![Scope::Execute, Scope::Files],
            created_at: 0,
            last_used_at: used,
            revoked_at: None,
        };
        let expected = "\
NAME     TOKEN        SCOPES         CREATED (UTC)        LAST USED            REVOKED
default  codex_AbCd…  execute,files  1970-01-01 00:00:00  -                    -
a        codex_AbCd…  execute,files  1970-01-01 00:00:00  1970-01-01 00:01:00  -";
        assert_eq!(table(&[key("default", None), key("a", Some(60))]), expected);
        assert_eq!(scope_words(&Scope::DEFAULT), "all but admin");
        assert_eq!(scope_words(&Scope::ALL), "all");
    }
}
