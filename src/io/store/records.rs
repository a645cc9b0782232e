//! The file with the records: a redb database with the table of bindings (name → expiry and record)
//! and the version of its form. What is damaged is set aside under another name, never overwritten;
//! what another process has open is left alone. Absent on purpose: who calls when.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageError, TableDefinition, TableError,
};

use super::batch::{Batch, Write};
use super::folder_of;
use super::tally::{Tally, unix_ms};
use crate::base::limits::{STORE_CACHE_BYTES, STORE_COMPACT_BYTES};
use crate::base::time::Time;

const BINDINGS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bindings");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// The key of the version in [`ABOUT`].
const FORM: &str = "form";
/// The version that this program reads and writes.
const FORM_KNOWN: u64 = 1;
/// Bytes of the expiry before a record.
const EXPIRY_BYTES: usize = 8;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} the store {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Others may read it.
    #[error("the store {path} has mode {mode:04o}: others can read it; chmod 600 it")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no file.
    #[error("the store {path} is not a regular file")]
    Shape {
        /// What.
        path: PathBuf,
    },
    /// It is in use.
    #[error("the store {path} is open in another process; each process needs a store of its own")]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// A later version of this program wrote it.
    #[error(
        "the store {path} has form {form}, this version knows {FORM_KNOWN}: use the newer version \
         or another file"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its form.
        form: u64,
    },
    /// Anything else that the database says.
    #[error("the store {path} cannot be opened: {why}")]
    Engine {
        /// Which file.
        path: PathBuf,
        /// The database's words.
        why: String,
    },
}

/// Why records could not be written or read.
#[derive(Debug)]
pub struct RecordsError(String);

impl fmt::Display for RecordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<StoreError> for RecordsError {
    fn from(error: StoreError) -> RecordsError {
        RecordsError(error.to_string())
    }
}

/// Makes a database of an open file. A parameter, so that a test can put another disk below it.
pub type Opener = Box<dyn Fn(&Builder, File) -> Result<Database, DatabaseError> + Send>;

/// The open file.
pub struct Records {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failure, until it is opened again.
    database: Option<Database>,
}

/// Whether the file at `path`, if there is one, may be a store. Nothing is made or opened.
pub fn inspect(path: &Path) -> Result<(), StoreError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path, error)),
    };
    if !metadata.is_file() {
        return Err(StoreError::Shape { path: path.to_owned() });
    }
    match metadata.mode() & 0o7777 {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => Err(StoreError::Exposed { path: path.to_owned(), mode }),
    }
}

impl Records {
    /// Opens the file and checks all of it; makes it when there is none. A damaged one is set aside
    /// with a word in the log, and an empty one takes its place.
    pub fn open(path: &Path, tally: &Tally) -> Result<Records, StoreError> {
        let opener: Opener = Box::new(|builder, file| {
            let backend = FileBackend::new(file)?;
            builder.create_with_backend(backend)
        });
        Records::open_with(path, tally, opener)
    }

    /// The same on a disk of the caller's.
    pub(super) fn open_with(
        path: &Path,
        tally: &Tally,
        opener: Opener,
    ) -> Result<Records, StoreError> {
        let mut records = Records { path: path.to_owned(), opener, database: None };
        records.reopen(tally)?;
        Ok(records)
    }

    /// Opens the file again after a failure.
    pub fn reopen(&mut self, tally: &Tally) -> Result<(), StoreError> {
        // Its lock goes with it.
        self.database = None;
        let opened = match self.try_open() {
            Ok(opened) => opened,
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Damaged(why)) => {
                tally.on_set_aside();
                let aside = set_aside(&self.path)?;
                let (path, aside) = (self.path.display(), aside.display());
                tracing::error!(%path, %aside, %why, "the store is damaged: set aside, starting empty");
                self.try_open().map_err(|failure| failure.into_error(&self.path))?
            }
        };
        let (database, count) = opened;
        tally.on_records(count);
        self.database = Some(database);
        Ok(())
    }

    fn try_open(&self) -> Result<(Database, u64), Failure> {
        inspect(&self.path)?;
        if !self.path.exists() {
            self.create()?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.map_err(|error| failed("open", &self.path, error))?;
        let metadata = file.metadata().map_err(|error| failed("look at", &self.path, error))?;
        if metadata.len() == 0 {
            return Err(Failure::Damaged("it is empty".to_owned()));
        }
        // A database that was tampered with may make its reader panic.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut database = self.open_database(file, true)?;
            let count = self.judge(&database)?;
            compact(&mut database, metadata.len());
            Ok((database, count))
        }));
        opened.unwrap_or_else(|_| Err(Failure::Damaged("its pages contradict each other".into())))
    }

    /// Written whole under another name first: a file under its own name is never half a database.
    fn create(&self) -> Result<(), Failure> {
        let path = &self.path;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let temporary = path.with_file_name(name);
        // One under our process id is a dead process's.
        let _ = std::fs::remove_file(&temporary);
        let made = self.create_as(&temporary).and_then(|()| {
            match std::fs::hard_link(&temporary, path) {
                // Another process was quicker: its file will do.
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    Err(failed("make", path, error).into())
                }
                _ => Ok(()),
            }
        });
        // Nothing to tidy when the file could not even be made.
        let _ = std::fs::remove_file(&temporary);
        made?;
        let folder = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
        folder.map_err(|error| failed("make", path, error).into())
    }

    fn create_as(&self, path: &Path) -> Result<(), Failure> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| failed("make", &self.path, error))?;
        let database = self.open_database(file, false)?;
        let made = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(ABOUT)?.insert(FORM, FORM_KNOWN)?;
            transaction.open_table(BINDINGS)?;
            Ok(transaction.commit()?)
        };
        made().map_err(|error| Failure::Fatal(self.engine(&error)))
    }

    fn open_database(&self, file: File, checks: bool) -> Result<Database, Failure> {
        let mut builder = Builder::new();
        builder.set_cache_size(STORE_CACHE_BYTES).set_check_integrity_on_open(checks);
        (self.opener)(&builder, file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                Failure::Fatal(StoreError::Busy { path: self.path.clone() })
            }
            DatabaseError::Storage(error) => self.judge_storage(error),
            error => Failure::Fatal(self.engine(&error)),
        })
    }

    /// Whether it is a store, and how many records it has.
    fn judge(&self, database: &Database) -> Result<u64, Failure> {
        let read = database.begin_read().map_err(|error| Failure::Fatal(self.engine(&error)))?;
        let foreign = || Failure::Damaged("it is a database of something else".to_owned());
        let table = |error| match error {
            TableError::Storage(error) => self.judge_storage(error),
            _ => foreign(),
        };
        let about = read.open_table(ABOUT).map_err(table)?;
        let form = about.get(FORM).map_err(|error| self.judge_storage(error))?;
        match form.map(|form| form.value()) {
            Some(FORM_KNOWN) => {}
            Some(form) if form > FORM_KNOWN => {
                return Err(Failure::Fatal(StoreError::Newer { path: self.path.clone(), form }));
            }
            _ => return Err(foreign()),
        }
        let bindings = read.open_table(BINDINGS).map_err(table)?;
        bindings.len().map_err(|error| self.judge_storage(error))
    }

    fn judge_storage(&self, error: StorageError) -> Failure {
        match error {
            StorageError::Corrupted(why) => Failure::Damaged(why),
            StorageError::Io(error)
                if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Failure::Damaged(error.to_string())
            }
            StorageError::Io(error) => Failure::Fatal(failed("read", &self.path, error)),
            error => Failure::Fatal(self.engine(&error)),
        }
    }

    fn engine(&self, why: &dyn fmt::Display) -> StoreError {
        StoreError::Engine { path: self.path.clone(), why: why.to_string() }
    }

    /// Writes the batches, all or none; returns when they are durable, and how many records there
    /// are. After a failure the file has to be opened again.
    pub fn commit<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a Batch>,
        to_wall_ms: impl Fn(Time) -> u64,
    ) -> Result<u64, RecordsError> {
        let Some(database) = self.database.take() else {
            return Err(RecordsError("it is not open".to_owned()));
        };
        let work = || -> Result<u64, redb::Error> {
            let transaction = database.begin_write()?;
            let mut table = transaction.open_table(BINDINGS)?;
            let mut value = Vec::new();
            for (id, write) in batches.flat_map(Batch::writes) {
                match write {
                    Write::Put(expires_at, record) => {
                        value.clear();
                        value.extend_from_slice(&to_wall_ms(expires_at).to_le_bytes());
                        value.extend_from_slice(record);
                        table.insert(id, value.as_slice())?;
                    }
                    Write::Remove => drop(table.remove(id)?),
                }
            }
            let count = table.len()?;
            drop(table);
            transaction.commit()?;
            Ok(count)
        };
        let count = guarded(work)?;
        self.database = Some(database);
        Ok(count)
    }

    /// Shows every record with its name and its expiry by the wall clock, in milliseconds since the
    /// epoch.
    pub fn read(&self, mut each: impl FnMut(u64, u64, &[u8])) -> Result<(), RecordsError> {
        let Some(database) = &self.database else {
            return Err(RecordsError("it is not open".to_owned()));
        };
        guarded(|| {
            let table = database.begin_read()?.open_table(BINDINGS)?;
            for entry in table.iter()? {
                let (id, value) = entry?;
                let value = value.value();
                // Nothing that we wrote is shorter; it is shown as a record that nobody knows.
                let (expiry, record) =
                    value.split_first_chunk::<EXPIRY_BYTES>().unwrap_or((&[0; 8], &[]));
                each(id.value(), u64::from_le_bytes(*expiry), record);
            }
            Ok(())
        })
    }
}

/// Does what the database may panic about when its file was changed under it.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, RecordsError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| RecordsError(error.to_string())),
        Err(_) => Err(RecordsError("its file was changed by somebody else".to_owned())),
    }
}

/// Why a file cannot be opened.
enum Failure {
    /// It is not what we wrote.
    Damaged(String),
    /// It may be, but not for us, or not now.
    Fatal(StoreError),
}

impl Failure {
    fn into_error(self, path: &Path) -> StoreError {
        match self {
            Failure::Fatal(error) => error,
            Failure::Damaged(why) => StoreError::Engine { path: path.to_owned(), why },
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Fatal(error)
    }
}

/// Makes a large file that is mostly empty smaller. Not worth a word when it does not work.
fn compact(database: &mut Database, bytes: u64) {
    if bytes < STORE_COMPACT_BYTES {
        return;
    }
    let stored = database.begin_write().ok().and_then(|transaction| {
        let stats = transaction.stats().ok();
        let _ = transaction.abort();
        stats.map(|stats| stats.stored_bytes() + stats.metadata_bytes())
    });
    if stored.is_some_and(|stored| stored < bytes / 4) {
        let _ = database.compact();
    }
}

/// Gives a damaged file another name that nobody has: its own and the time.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let stamp = unix_ms() / 1000;
    let name = |suffix: String| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    };
    let mut aside = name(format!(".damaged-{stamp}"));
    let mut again = 1;
    while aside.exists() {
        again += 1;
        aside = name(format!(".damaged-{stamp}-{again}"));
    }
    std::fs::rename(path, &aside).map_err(|error| failed("set aside", path, error))?;
    Ok(aside)
}

fn failed(action: &'static str, path: &Path, error: io::Error) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), error }
}
