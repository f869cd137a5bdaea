//! Rows of all replicas and the list of message files, in redb on our [`Disk`]. Every commit is one transaction, with quick
//! repair, so that reopening after a crash takes no time (F11).
//!
//! ```text
//!  rows      replica u64 BE, table u8, key  → value
//!  replicas  replica u64                    → meta and its message files, oldest first
//!  store     "format"                       → version
//! ```

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use wk_proto::{GroupId, LogIndex, ReplicaId, Term};

use crate::checkpoint::{IoBudget, ReplicaMeta};
use crate::{Disk, Error, File, Result, Table};

const FILE: &str = "rows.redb";
/// Where a database is made: it gets its name when it is complete.
const NEW_FILE: &str = "rows.new";
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const REPLICAS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("replicas");
const STORE: TableDefinition<'_, &str, u64> = TableDefinition::new("store");
/// Layout of the three tables; others are refused.
const FORMAT: u64 = 1;
/// Layout of a value in `replicas`.
const REPLICA_VERSION: u8 = 1;

/// Pages redb keeps in memory. At most half of it is written at once by the commit itself, beyond the budget's reach; pages
/// beyond that half are written, and paid for, while rows are put in.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// redb's page: the smallest step of its file's length.
const PAGE_BYTES: u64 = 4096;
/// Bytes after which write-back is started and, between rows, the budget is asked (F3).
const STEP_BYTES: u64 = 1024 * 1024;

/// One message file of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileRef {
    pub(crate) id: u64,
    /// 0 = flushed; one more per merge (H41).
    pub(crate) tier: u8,
}

/// What the database knows of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaRow {
    pub(crate) meta: ReplicaMeta,
    /// Oldest first.
    pub(crate) files: Vec<FileRef>,
}

impl ReplicaRow {
    fn encode(&self) -> Vec<u8> {
        let meta = &self.meta;
        let mut out = vec![REPLICA_VERSION];
        out.extend_from_slice(&meta.group.to_u32().to_le_bytes());
        out.extend_from_slice(&meta.applied.0.to_le_bytes());
        out.extend_from_slice(&meta.applied_term.0.to_le_bytes());
        out.extend_from_slice(&(meta.membership.len() as u32).to_le_bytes());
        out.extend_from_slice(&meta.membership);
        for file in &self.files {
            out.extend_from_slice(&file.id.to_le_bytes());
            out.push(file.tier);
        }
        out
    }

    fn decode(replica: ReplicaId, bytes: &[u8]) -> Result<Self> {
        if let Some(&version) = bytes.first()
            && version > REPLICA_VERSION
        {
            return Err(Error::Invalid(format!(
                "replica {replica} has format {version}, this build knows {REPLICA_VERSION}: start the version that wrote it"
            )));
        }
        Self::decode_v1(replica, bytes).ok_or_else(|| Error::Corrupt {
            what: format!("{FILE}, replica {replica}"),
            why: "its entry cannot be read".into(),
        })
    }

    fn decode_v1(replica: ReplicaId, bytes: &[u8]) -> Option<Self> {
        let array8 = |at: usize| {
            bytes
                .get(at..at + 8)?
                .try_into()
                .ok()
                .map(u64::from_le_bytes)
        };
        let array4 = |at: usize| {
            bytes
                .get(at..at + 4)?
                .try_into()
                .ok()
                .map(u32::from_le_bytes)
        };
        let membership_end = 25usize.checked_add(array4(21)? as usize)?;
        let membership = bytes.get(25..membership_end)?;
        let files = bytes[membership_end..].chunks(9).map(|file| {
            let (id, tier) = file.split_at_checked(8)?;
            Some(FileRef {
                id: u64::from_le_bytes(id.try_into().ok()?),
                tier: *tier.first()?,
            })
        });
        Some(Self {
            meta: ReplicaMeta {
                replica,
                group: GroupId::from_u32(array4(1)?)?,
                membership: Bytes::copy_from_slice(membership),
                applied: LogIndex(array8(5)?),
                applied_term: Term(array8(13)?),
            },
            files: files.collect::<Option<_>>()?,
        })
    }
}

/// redb's storage on a [`Disk`].
#[derive(Clone)]
struct Backend(Arc<BackendState>);

struct BackendState {
    file: Arc<dyn File>,
    /// Bytes written and not yet paid for.
    owed: AtomicU64,
    /// Bytes written since write-back was last started, and where.
    unflushed: AtomicU64,
    sync_failed: AtomicBool,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.0.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let result = self.0.file.sync();
        if result.is_err() {
            self.0.sync_failed.store(true, Ordering::Release);
        }
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let state = &self.0;
        state.file.write_at(offset, data)?;
        state.owed.fetch_add(data.len() as u64, Ordering::Relaxed);
        let unflushed = state
            .unflushed
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        if unflushed + data.len() as u64 >= STEP_BYTES {
            state.unflushed.store(0, Ordering::Relaxed);
            // Pages lie anywhere in the file.
            state.file.flush_range(0, state.file.len()?)?;
        }
        Ok(())
    }
}

/// The open database.
pub(crate) struct Rows {
    db: redb::Database,
    backend: Backend,
}

/// One picture of the database. Keeps old pages from being reused: hold only the newest one for long.
pub(crate) struct Snapshot {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// The database must outlive its readers: a closed one answers no reads.
    _db: Arc<Rows>,
}

/// Keeps what the system said: the caller tells a full disk from a broken one.
/// A crash while the file grows may keep any part of the growth, and redb refuses a length that is not one of its own. What is
/// added lies beyond all that was ever committed.
fn whole_pages(file: &dyn File) -> Result<()> {
    let len = io(file.len(), "measure")?;
    let whole = len.next_multiple_of(PAGE_BYTES);
    if len == whole {
        return Ok(());
    }
    io(file.set_len(whole), "complete the last page of")
}

fn rows_error(e: impl Into<redb::Error>) -> Error {
    match e.into() {
        redb::Error::Io(source) => Error::Io {
            what: format!("use {FILE}"),
            source,
        },
        other => Error::Rows(other.to_string()),
    }
}

impl Rows {
    /// Whether there is a database.
    pub(crate) fn exists(disk: &dyn Disk) -> Result<bool> {
        let names = io(disk.list(""), "list")?;
        Ok(names.iter().any(|n| n == FILE))
    }

    /// Opens or creates `rows.redb`.
    pub(crate) fn open(disk: &dyn Disk) -> Result<Self> {
        let names = io(disk.list(""), "list")?;
        if !names.iter().any(|n| n == FILE) {
            Self::create(disk, &names)?;
        }
        let file = io(disk.open(FILE, false), "open")?;
        whole_pages(&*file)?;
        let rows = Self::open_file(file)?;
        rows.check_format()?;
        Ok(rows)
    }

    fn create(disk: &dyn Disk, names: &[String]) -> Result<()> {
        if names.iter().any(|n| n == NEW_FILE) {
            io(disk.remove(NEW_FILE), "remove an unfinished")?;
        }
        let rows = Self::open_file(io(disk.open(NEW_FILE, true), "create")?)?;
        let tx = rows.begin()?;
        tx.open_table(ROWS).map_err(rows_error)?;
        tx.open_table(REPLICAS).map_err(rows_error)?;
        tx.open_table(STORE)
            .map_err(rows_error)?
            .insert("format", FORMAT)
            .map_err(rows_error)?;
        tx.commit().map_err(rows_error)?;
        rows.db.close().map_err(rows_error)?;
        io(disk.rename(NEW_FILE, FILE), "name")?;
        io(disk.sync_dir(""), "sync the folder of")
    }

    fn open_file(file: Arc<dyn File>) -> Result<Self> {
        let backend = Backend(Arc::new(BackendState {
            file,
            owed: AtomicU64::new(0),
            unflushed: AtomicU64::new(0),
            sync_failed: AtomicBool::new(false),
        }));
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend.clone())
            .map_err(rows_error)?;
        Ok(Self { db, backend })
    }

    fn check_format(&self) -> Result<()> {
        let tx = self.db.begin_read().map_err(rows_error)?;
        let store = tx.open_table(STORE).map_err(rows_error)?;
        let format = store.get("format").map_err(rows_error)?;
        match format.map(|f| f.value()) {
            Some(FORMAT) => Ok(()),
            other => Err(Error::Invalid(format!(
                "{FILE} has format {}, this build knows {FORMAT}: start the version that wrote it",
                other.unwrap_or(0)
            ))),
        }
    }

    fn begin(&self) -> Result<redb::WriteTransaction> {
        let mut tx = self.db.begin_write().map_err(rows_error)?;
        tx.set_quick_repair(true);
        Ok(tx)
    }

    /// An fsync failed: nothing is known of what is on disk.
    pub(crate) fn sync_failed(&self) -> bool {
        self.backend.0.sync_failed.load(Ordering::Acquire)
    }

    /// Whether it still takes writes: redb stops at the first I/O error.
    pub(crate) fn is_usable(&self) -> bool {
        self.begin().is_ok_and(|tx| tx.abort().is_ok())
    }

    /// All replicas, by id.
    pub(crate) fn replicas(&self) -> Result<Vec<ReplicaRow>> {
        let tx = self.db.begin_read().map_err(rows_error)?;
        let table = tx.open_table(REPLICAS).map_err(rows_error)?;
        let mut out = Vec::new();
        for entry in table.iter().map_err(rows_error)? {
            let (replica, row) = entry.map_err(rows_error)?;
            out.push(ReplicaRow::decode(ReplicaId(replica.value()), row.value())?);
        }
        Ok(out)
    }

    /// The newest picture.
    pub(crate) fn snapshot(self: &Arc<Self>) -> Result<Snapshot> {
        let tx = self.db.begin_read().map_err(rows_error)?;
        Ok(Snapshot {
            rows: tx.open_table(ROWS).map_err(rows_error)?,
            _db: Arc::clone(self),
        })
    }

    /// Runs `change` in one durable transaction. On an error nothing is known about whether it happened.
    pub(crate) fn commit(
        &self,
        budget: &mut dyn IoBudget,
        change: impl FnOnce(&mut Change<'_>) -> Result<()>,
    ) -> Result<()> {
        let tx = self.begin()?;
        let mut step = Change {
            rows: tx.open_table(ROWS).map_err(rows_error)?,
            replicas: tx.open_table(REPLICAS).map_err(rows_error)?,
            backend: &self.backend,
            budget,
            key: Vec::new(),
        };
        change(&mut step)?;
        drop(step);
        tx.commit().map_err(rows_error)
    }

    /// Pays for what the last commit wrote.
    pub(crate) fn settle(&self, budget: &mut dyn IoBudget) {
        self.backend.settle(budget, 1);
    }
}

impl Backend {
    fn settle(&self, budget: &mut dyn IoBudget, least: u64) {
        let owed = &self.0.owed;
        if owed.load(Ordering::Relaxed) < least {
            return;
        }
        let mut bytes = owed.swap(0, Ordering::Relaxed);
        while bytes > 0 {
            let step = bytes.min(STEP_BYTES);
            budget.take(step as usize);
            bytes -= step;
        }
    }
}

/// An open transaction.
pub(crate) struct Change<'t> {
    rows: redb::Table<'t, &'static [u8], &'static [u8]>,
    replicas: redb::Table<'t, u64, &'static [u8]>,
    backend: &'t Backend,
    budget: &'t mut dyn IoBudget,
    key: Vec<u8>,
}

impl Change<'_> {
    /// Inserts, replaces or removes a row.
    pub(crate) fn row(
        &mut self,
        replica: ReplicaId,
        table: Table,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        row_key(&mut self.key, replica, table, key);
        match value {
            Some(value) => self.rows.insert(&self.key[..], value).map(drop),
            None => self.rows.remove(&self.key[..]).map(drop),
        }
        .map_err(rows_error)?;
        self.backend.settle(self.budget, STEP_BYTES);
        Ok(())
    }

    /// Replaces what is known of a replica.
    pub(crate) fn replica(&mut self, row: &ReplicaRow) -> Result<()> {
        let bytes = row.encode();
        self.replicas
            .insert(row.meta.replica.0, &bytes[..])
            .map(drop)
            .map_err(rows_error)
    }
}

fn row_key(out: &mut Vec<u8>, replica: ReplicaId, table: Table, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&replica.0.to_be_bytes());
    out.push(table.0);
    out.extend_from_slice(key);
}

/// Length of what stands before a row's own key.
const KEY_HEADER: usize = 9;

impl Snapshot {
    /// One row.
    pub(crate) fn get(
        &self,
        replica: ReplicaId,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Bytes>> {
        let mut full = Vec::with_capacity(KEY_HEADER + key.len());
        row_key(&mut full, replica, table, key);
        let found = self.rows.get(&full[..]).map_err(rows_error)?;
        Ok(found.map(|v| Bytes::copy_from_slice(v.value())))
    }

    /// Rows with a prefix, in key order, from `from` on.
    pub(crate) fn scan(
        &self,
        replica: ReplicaId,
        table: Table,
        prefix: &[u8],
        from: Bound<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes)>> + use<>> {
        let full = |key: &[u8]| {
            let mut out = Vec::with_capacity(KEY_HEADER + key.len());
            row_key(&mut out, replica, table, key);
            out
        };
        let from = from.map(full);
        let prefix = full(prefix);
        let start = from.as_ref().map(|key| &key[..]);
        let range = self
            .rows
            .range::<&[u8]>((start, Bound::Unbounded))
            .map_err(rows_error)?;
        let rows = range.map(move |entry| {
            let (key, value) = entry.map_err(rows_error)?;
            if !key.value().starts_with(&prefix) {
                return Ok(None);
            }
            let key = Bytes::copy_from_slice(&key.value()[KEY_HEADER..]);
            Ok(Some((key, Bytes::copy_from_slice(value.value()))))
        });
        Ok(rows.map_while(Result::transpose))
    }
}

fn io<T>(result: std::io::Result<T>, doing: &str) -> Result<T> {
    result.map_err(|source| Error::Io {
        what: format!("{doing} {FILE}"),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_reads_back_and_every_truncation_is_refused_or_shorter() {
        let row = ReplicaRow {
            meta: ReplicaMeta {
                replica: ReplicaId(7),
                group: GroupId::Slot(wk_proto::SlotId(3)),
                membership: Bytes::from_static(b"members"),
                applied: LogIndex(12),
                applied_term: Term(4),
            },
            files: vec![FileRef { id: 1, tier: 0 }, FileRef { id: 9, tier: 2 }],
        };
        let bytes = row.encode();
        assert_eq!(ReplicaRow::decode(ReplicaId(7), &bytes).unwrap(), row);
        for n in 0..bytes.len() {
            if let Ok(shorter) = ReplicaRow::decode(ReplicaId(7), &bytes[..n]) {
                assert!(shorter.files.len() < row.files.len(), "{n} bytes");
            }
        }
        let mut newer = bytes;
        newer[0] = REPLICA_VERSION + 1;
        let refused = ReplicaRow::decode(ReplicaId(7), &newer);
        assert!(matches!(refused, Err(Error::Invalid(_))));
    }
}
