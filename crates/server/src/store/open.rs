//! Opening `state.db`: the one place that knows it is SQLite. Each way in
//! which that can fail has its own message and cure; nothing is ever deleted.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::data_dir::{self, Hold};
use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::known::Known;
use super::{Store, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Name of the database in the data directory.
const DATABASE: &str = "state.db";
/// Held while migrating, because SQLite's migrations do not lock each other out.
const MIGRATION_LOCK: &str = "state.lock";
/// How long a writer waits for another process.
const BUSY: Duration = Duration::from_secs(5);
/// Connections, each with a thread of its own.
const CONNECTIONS: u32 = 4;

/// Why the store could not be opened, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be made or written.
    #[error(
        "failed to {step} {}: {source}. Make it writable for this user, or name another directory with --home DIR or CODEX_HOME", path.display()
    )]
    Directory {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others may write the data directory.
    #[error("{problem}, and what they put there would be taken for the server's own: {cure}")]
    Theirs {
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        cure: String,
    },
    /// A newer version was here before.
    #[error(
        "{} was written by a newer codex-server (its migration {migration} is unknown here). Upgrade this one, or give it a directory of its own with --home DIR or CODEX_HOME", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The migration that this version does not know.
        migration: i64,
    },
    /// The file is not a whole database.
    #[error(
        "{} is damaged or not a database: {reason}. Restore it from a backup, or move it away (mv {} {}.damaged) to begin anew: all tokens must then be made again", path.display(), path.display(), path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The database's reason.
        reason: String,
    },
    /// The file or its directory cannot be written.
    #[error(
        "{} cannot be written: {reason}. Make the file and its directory writable for this user (chown, or a writable volume), or name another directory with --home DIR or CODEX_HOME", path.display()
    )]
    ReadOnly {
        /// The database.
        path: PathBuf,
        /// The database's reason.
        reason: String,
    },
    /// No room is left.
    #[error("{} cannot grow: {reason}. Make room on its disk", path.display())]
    Full {
        /// The database.
        path: PathBuf,
        /// The database's reason.
        reason: String,
    },
    /// The file system cannot share files between processes as SQLite needs.
    #[error(
        "{} cannot be shared between processes: {reason}. Network and some virtual file systems cannot do it; name a directory on a local disk with --home DIR or CODEX_HOME", path.display()
    )]
    FileSystem {
        /// The database.
        path: PathBuf,
        /// The database's reason.
        reason: String,
    },
    /// Anything else.
    #[error("failed to {step} {}: {source}", path.display())]
    Database {
        /// What was being done.
        step: &'static str,
        /// The database.
        path: PathBuf,
        /// The database's reason.
        source: sqlx::Error,
    },
}

impl Store {
    /// Opens the store in the data directory `home`, making and migrating
    /// what is missing. Several processes may do so at once.
    ///
    /// # Errors
    /// See [`OpenError`]; each names the cure.
    pub async fn open(home: &Path) -> Result<Self, OpenError> {
        make_home(home)?;
        let path = home.join(DATABASE);
        make_private_files(&path)?;
        let lock = migration_lock(home)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL this loses at most the last commits on power loss, never consistency.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(BUSY)
            // SQLite rolls back by itself when the disk is full, but sqlx still believes
            // the transaction open: such a connection refuses every later BEGIN.
            .before_acquire(|connection, _| {
                Box::pin(async move { Ok(!connection.is_in_transaction()) })
            })
            .connect_with(options)
            .await
            .map_err(|error| sorted(&path, "open", error))?;
        MIGRATIONS.run(&pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(migration) => OpenError::Newer {
                path: path.clone(),
                migration,
            },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                sorted(&path, "migrate", error)
            }
            other => sorted(&path, "migrate", sqlx::Error::Migrate(Box::new(other))),
        })?;
        drop(lock);
        let known = Arc::new(Known::new(&path));
        Ok(Self { pool, known })
    }

    /// Opens a store in memory, which is gone with this process: for keys that
    /// nobody else shall ever have.
    ///
    /// # Errors
    /// When memory is short, or we have made a mistake.
    pub async fn in_memory() -> Result<Self, OpenError> {
        let path = Path::new(":memory:");
        // Each connection would have a database of its own.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(SqliteConnectOptions::new().in_memory(true))
            .await
            .map_err(|error| sorted(path, "open", error))?;
        let migrated = MIGRATIONS.run(&pool).await;
        migrated.map_err(|error| sorted(path, "migrate", sqlx::Error::Migrate(Box::new(error))))?;
        // Of no file, so no key is remembered.
        let known = Arc::new(Known::new(Path::new("")));
        Ok(Self { pool, known })
    }
}

impl Store {
    /// Begins to write: no other process writes until this ends. Dropped, it
    /// leaves everything as it was.
    pub(super) async fn write(
        &self,
        step: &'static str,
    ) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, StoreError> {
        let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(StoreError::at(step))
    }
}

/// Makes the data directory with mode 0700. One that exists is left as it
/// is: it may be the operator's, or a volume of another owner.
///
/// # Errors
/// When it cannot be made, or others may write it.
pub(crate) fn make_home(home: &Path) -> Result<(), OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)
        .map_err(|source| OpenError::Directory {
            step: "make the data directory",
            path: home.to_owned(),
            source,
        })?;
    let found = home.metadata().map_err(|source| OpenError::Directory {
        step: "look at the data directory",
        path: home.to_owned(),
        source,
    })?;
    match Hold::of(&found) {
        Some(hold @ Hold::Writable) => Err(OpenError::Theirs {
            problem: hold.problem(home),
            cure: hold.cure(home),
        }),
        _ => Ok(()),
    }
}

/// Makes the database with mode 0600 before SQLite can make it with the
/// umask's; its -wal and -shm files take over the mode. `SQLite` would follow
/// links, so none of the three may be one. None that exists is opened here:
/// closing it would drop the locks that `SQLite` holds in this process.
fn make_private_files(database: &Path) -> Result<(), OpenError> {
    for ending in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(ending);
        let path = PathBuf::from(path);
        let looked = data_dir::look(&path).and_then(|found| match found {
            None if ending.is_empty() => {
                data_dir::open(&path, OpenOptions::new().write(true).create_new(true)).map(drop)
            }
            Some(found) if found.mode() & 0o077 != 0 => {
                let private = Permissions::from_mode(0o600);
                if let Err(error) = std::fs::set_permissions(&path, private) {
                    tracing::warn!(path = %path.display(), %error, "the database can be read by others");
                }
                Ok(())
            }
            _ => Ok(()),
        });
        match looked {
            // Another process was faster, and made it as we would have.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            looked => looked.map_err(|source| OpenError::Directory {
                step: "open",
                path,
                source,
            })?,
        }
    }
    Ok(())
}

fn migration_lock(home: &Path) -> Result<File, OpenError> {
    let path = home.join(MIGRATION_LOCK);
    let mut options = OpenOptions::new();
    let opened = data_dir::open(&path, options.write(true).create(true).truncate(false));
    opened
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|source| OpenError::Directory {
            step: "lock",
            path,
            source,
        })
}

/// Whether the disk of the database has no room even for SQLite's small files.
fn is_full(path: &Path) -> bool {
    const SMALL: u64 = 256 * 1024;
    let disk = rustix::fs::statvfs(path);
    disk.is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < SMALL)
}

/// SQLite's result code without its details, which are above the low byte.
fn code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<u32>().ok()? & 0xff)
}

impl StoreError {
    /// Returns what to do where it is for want of room on the disk of the data
    /// directory `home`; `None` where it is not.
    #[must_use]
    pub fn cure(&self, home: &Path) -> Option<String> {
        let full = match code(&self.source) {
            Some(13) => true,
            Some(10 | 15 | 22) => is_full(home),
            _ => false,
        };
        let home = home.display();
        full.then(|| {
            format!(
                "Make room on the disk of {home} and try again; what runs have left lies in {home}/artifacts and may be removed"
            )
        })
    }
}

/// Sorts SQLite's result codes into what an operator can do about them.
fn sorted(path: &Path, step: &'static str, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    let code = code(&error);
    let reason = error
        .as_database_error()
        .map(|error| error.message().to_owned())
        .unwrap_or_default();
    match code {
        Some(8 | 14 | 3 | 23) => OpenError::ReadOnly { path, reason },
        // Where there is no room for the shared -shm file, SQLite says only that.
        Some(10 | 15 | 22) if !is_full(&path) => OpenError::FileSystem { path, reason },
        Some(10 | 15 | 22 | 13) => OpenError::Full { path, reason },
        Some(11 | 26) => OpenError::Damaged { path, reason },
        _ => OpenError::Database {
            step,
            path,
            source: error,
        },
    }
}
