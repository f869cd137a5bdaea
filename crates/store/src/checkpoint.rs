//! The node's rows and message files, and the only way they advance (H40): freeze, write and sync the message files, then one
//! redb transaction with the changed rows, the list of message files and the applied indexes. That commit is the only switch;
//! recovery is "open redb, replay the WAL from the applied indexes".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use wk_proto::{GroupId, LogIndex, ReplicaId};

use crate::base::Base;
use crate::memtable::Mem;
use crate::merge;
use crate::messages::{self, FileWriter, MessageFile};
use crate::rows::{FileRef, ReplicaRow, Rows};
use crate::{Disk, Error, Result, SlotStore};

/// What must be known of a replica before its log is read. Kept in redb; changed only by a durable commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMeta {
    /// The raft id of this member.
    pub replica: ReplicaId,
    /// Which group it is a member of.
    pub group: GroupId,
    /// Membership as of `applied`, encoded by the replica layer.
    pub membership: bytes::Bytes,
    /// Log index the rows and message files stand at.
    pub applied: LogIndex,
    /// Term of that entry.
    pub applied_term: wk_proto::Term,
}

/// Pace of background writes (H21). Called before each step of at most 1 MiB; may block the calling (background) thread.
pub trait IoBudget: Send {
    /// Takes `bytes` from the budget.
    fn take(&mut self, bytes: usize);
}

/// All replicas' rows and message files on this node. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Locks, in the order they are taken: `checkpointing` or `merging`, `rows`, `base`, `trash`.
struct Inner {
    disk: Arc<dyn Disk>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    /// One merge at a time.
    merging: Mutex<()>,
    /// Held through a commit. `None` = failed beyond repair: only a new process may look at the disk again.
    rows: Mutex<Option<Arc<Rows>>>,
    base: RwLock<Arc<Base>>,
    next_file: AtomicU64,
    trash: Mutex<Trash>,
}

/// What nobody needs any more once the last view is gone; freed by background calls, never on a shard's thread.
#[derive(Default)]
struct Trash {
    files: Vec<Arc<MessageFile>>,
    memtables: Vec<Arc<Mem>>,
}

/// The dirty part of one replica, immutable, on its way to disk.
pub struct Frozen {
    replica: ReplicaId,
    applied: LogIndex,
    term: wk_proto::Term,
    membership: bytes::Bytes,
    mem: Arc<Mem>,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen")
            .field("replica", &self.replica)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl Frozen {
    /// Whose.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Log index it stands at.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }
}

/// Proof that a set of [`Frozen`] is on disk: hand it back to each [`SlotStore`].
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// New flushed index per replica.
    pub flushed: Vec<(ReplicaId, LogIndex)>,
}

impl Store {
    /// Opens or creates the rows (`rows.redb`) and message files (`messages/`) of a data directory. Removes message files no
    /// commit lists: a crash came before theirs.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self> {
        io(disk.sync_dir(messages::DIR), "create folder", messages::DIR)?;
        let names = io(disk.list(messages::DIR), "list", messages::DIR)?;
        let on_disk: Vec<u64> = names.iter().filter_map(|n| messages::id_of(n)).collect();
        if !on_disk.is_empty() && !Rows::exists(&*disk)? {
            return Err(Error::Invalid(
                "there are message files but no rows.redb: restore it beside them, or start on an empty directory".into(),
            ));
        }
        let rows = Arc::new(Rows::open(&*disk)?);
        let base = Base::load(&*disk, &rows)?;
        let listed = base.files();
        for id in on_disk.iter().filter(|id| !listed.contains_key(id)) {
            let path = messages::path(*id);
            io(disk.remove(&path), "remove unfinished", &path)?;
        }
        let last = on_disk.iter().chain(listed.keys()).max();
        Ok(Self {
            inner: Arc::new(Inner {
                disk,
                checkpointing: Mutex::default(),
                merging: Mutex::default(),
                next_file: AtomicU64::new(last.map_or(1, |last| last + 1)),
                rows: Mutex::new(Some(rows)),
                base: RwLock::new(Arc::new(base)),
                trash: Mutex::default(),
            }),
        })
    }

    /// Replicas on disk, by id.
    pub fn replicas(&self) -> Result<Vec<ReplicaMeta>> {
        let base = self.base();
        Ok(base.replicas().map(|r| r.row.meta.clone()).collect())
    }

    /// Makes new empty replicas durable in one commit. [`Error::Invalid`] if one exists.
    pub fn create(&self, replicas: &[ReplicaMeta]) -> Result<()> {
        let new = |base: &Base| {
            if let Some(old) = replicas.iter().find(|m| base.find(m.replica).is_some()) {
                return Err(Error::Invalid(format!("replica {} exists", old.replica)));
            }
            let row = |meta: &ReplicaMeta| ReplicaRow {
                meta: meta.clone(),
                files: Vec::new(),
            };
            Ok(replicas.iter().map(row).collect())
        };
        self.inner
            .commit(&mut Unpaced, &[], None, new)
            .map_err(CommitError::into_error)
    }

    /// The single writer of a replica, standing at its last checkpoint. Ask once per process: a second writer would write over
    /// the first.
    pub fn slot(&self, replica: ReplicaId) -> Result<SlotStore> {
        let base = self.base();
        let known = base
            .find(replica)
            .ok_or_else(|| Error::Invalid(format!("there is no replica {replica}")))?;
        let applied = known.row.meta.applied;
        Ok(SlotStore {
            store: self.clone(),
            replica,
            applied,
            flushed: applied,
            last_id: known.last_id(),
            active: Arc::default(),
            frozen: None,
            viewed: AtomicU64::new(0),
        })
    }

    /// Writes frozen parts of any set of replicas. Blocking; one at a time. On an error nothing has switched: the old checkpoint
    /// stands, and the same frozen parts may be tried again (ENOSPC) on new files. After a failed fsync every further try fails.
    pub fn checkpoint(&self, frozen: &[Frozen], budget: &mut dyn IoBudget) -> Result<Checkpointed> {
        let _one = self.inner.checkpointing.lock();
        self.inner.sweep();
        let parts = by_replica(frozen, &self.base())?;
        if !parts.is_empty() {
            let file = self.inner.write_messages(&parts, budget)?;
            let result = self.inner.commit(budget, &parts, file.as_ref(), |base| {
                advance(base, &parts, file.as_ref())
            });
            self.inner.drop_unlisted(result, file)?;
        }
        let flushed = frozen.iter().map(|f| (f.replica, f.applied)).collect();
        Ok(Checkpointed { flushed })
    }

    /// Merges message files if worthwhile (H41); one bounded step. `false` = nothing to do. Also frees what released
    /// checkpoints left: call it after them.
    pub fn merge_step(&self, budget: &mut dyn IoBudget) -> Result<bool> {
        let _one = self.inner.merging.lock();
        self.inner.sweep();
        let base = self.base();
        let Some((replica, inputs)) = base.replicas().find_map(|r| Some((r, merge::choose(r)?)))
        else {
            return Ok(false);
        };
        let file = self.inner.write_file(budget, |writer| {
            merge::write(replica, inputs.clone(), writer)
        })?;
        let result = self.inner.commit(budget, &[], Some(&file), |base| {
            Ok(vec![merge::replace(
                base,
                replica,
                inputs.clone(),
                file.id(),
            )?])
        });
        self.inner.drop_unlisted(result, Some(file))?;
        Ok(true)
    }

    pub(crate) fn base(&self) -> Arc<Base> {
        Arc::clone(&self.inner.base.read())
    }
}

/// The parts that are not on disk yet, by replica.
fn by_replica<'f>(frozen: &'f [Frozen], base: &Base) -> Result<Vec<&'f Frozen>> {
    let mut parts = BTreeMap::new();
    for part in frozen {
        let Some(known) = base.find(part.replica) else {
            return Err(Error::Invalid(format!(
                "there is no replica {}",
                part.replica
            )));
        };
        if known.row.meta.applied < part.applied && parts.insert(part.replica, part).is_some() {
            return Err(Error::Invalid(format!(
                "two frozen parts of replica {} in one checkpoint",
                part.replica
            )));
        }
    }
    Ok(parts.into_values().collect())
}

/// The replicas as of the new checkpoint.
fn advance(
    base: &Base,
    parts: &[&Frozen],
    file: Option<&Arc<MessageFile>>,
) -> Result<Vec<ReplicaRow>> {
    let next = |part: &&Frozen| {
        let mut row = base.replica(part.replica).row.clone();
        row.meta.applied = part.applied;
        row.meta.applied_term = part.term;
        row.meta.membership = part.membership.clone();
        if let Some(file) = file.filter(|_| part.mem.messages() > 0) {
            row.files.push(FileRef {
                id: file.id(),
                tier: 0,
            });
        }
        row
    };
    Ok(parts.iter().map(next).collect())
}

/// Why a commit failed, and what is known of the disk.
enum CommitError {
    /// It did not happen: what was written for it may be removed.
    Not(Error),
    /// It may have happened: nothing is touched until a new process looks.
    Unknown(Error),
}

impl CommitError {
    fn into_error(self) -> Error {
        match self {
            Self::Not(error) | Self::Unknown(error) => error,
        }
    }
}

/// For commits in the foreground.
struct Unpaced;

impl IoBudget for Unpaced {
    fn take(&mut self, _: usize) {}
}

impl Inner {
    /// One file with all messages of the parts; `None` if there are none.
    fn write_messages(
        &self,
        parts: &[&Frozen],
        budget: &mut dyn IoBudget,
    ) -> Result<Option<Arc<MessageFile>>> {
        if parts.iter().all(|part| part.mem.messages() == 0) {
            return Ok(None);
        }
        let file = self.write_file(budget, |writer| {
            for part in parts {
                writer.begin(part.replica);
                part.mem
                    .for_each_message(|key, seq, record| writer.add(key, seq, record))?;
                writer.end()?;
            }
            Ok(())
        })?;
        Ok(Some(file))
    }

    /// Writes a message file and makes it durable, name included. What an error leaves is removed, now or at the next open.
    fn write_file(
        &self,
        budget: &mut dyn IoBudget,
        fill: impl FnOnce(&mut FileWriter<'_>) -> Result<()>,
    ) -> Result<Arc<MessageFile>> {
        let id = self.next_file.fetch_add(1, Ordering::Relaxed);
        let path = messages::path(id);
        let write = || {
            let mut writer = FileWriter::create(&*self.disk, &path, budget)?;
            fill(&mut writer)?;
            writer.finish()?;
            io(self.disk.sync_dir(messages::DIR), "sync", messages::DIR)?;
            MessageFile::open(&*self.disk, id)
        };
        let written = write();
        if written.is_err() {
            // Best effort: the next open removes it otherwise.
            let _ = self.disk.remove(&path);
        }
        Ok(Arc::new(written?))
    }

    /// One transaction: rows of `parts`, and the replicas that `changed` derives from the newest commit.
    fn commit(
        &self,
        budget: &mut dyn IoBudget,
        parts: &[&Frozen],
        file: Option<&Arc<MessageFile>>,
        changed: impl FnOnce(&Base) -> Result<Vec<ReplicaRow>>,
    ) -> Result<(), CommitError> {
        let mut current = self.rows.lock();
        let Some(rows) = current.clone() else {
            return Err(CommitError::Unknown(Error::Rows(
                "a write failed earlier; nothing is written until a restart".into(),
            )));
        };
        let changed = changed(&self.base.read()).map_err(CommitError::Not)?;
        let written = rows.commit(budget, |change| {
            for part in parts {
                part.mem.for_each_row(|table, key, value| {
                    change.row(part.replica, table, key, value.map(|v| &v[..]))
                })?;
            }
            changed.iter().try_for_each(|row| change.replica(row))
        });
        rows.settle(budget);
        match written {
            Ok(()) => self.publish(&rows, changed, file),
            Err(error) => self.after_failure(&mut current, rows, error, changed, file),
        }
    }

    /// Shows the new commit to everybody who asks from now on.
    fn publish(
        &self,
        rows: &Arc<Rows>,
        changed: Vec<ReplicaRow>,
        file: Option<&Arc<MessageFile>>,
    ) -> Result<(), CommitError> {
        let old = Arc::clone(&self.base.read());
        let new = old
            .after(rows, changed, file)
            .map_err(CommitError::Unknown)?;
        let listed = new.files();
        let unlisted = old
            .files()
            .into_values()
            .filter(|f| !listed.contains_key(&f.id()));
        self.trash.lock().files.extend(unlisted);
        *self.base.write() = Arc::new(new);
        Ok(())
    }

    /// redb answers nothing after an I/O error until it is opened again; that also tells whether the commit happened.
    fn after_failure(
        &self,
        current: &mut Option<Arc<Rows>>,
        failed: Arc<Rows>,
        error: Error,
        changed: Vec<ReplicaRow>,
        file: Option<&Arc<MessageFile>>,
    ) -> Result<(), CommitError> {
        if failed.sync_failed() {
            *current = None;
            return Err(CommitError::Unknown(error));
        }
        if failed.is_usable() {
            return Err(CommitError::Not(error));
        }
        *current = None;
        drop(failed);
        let reopened = Rows::open(&*self.disk).map(Arc::new);
        let reopened = reopened.map_err(CommitError::Unknown)?;
        let known = reopened.replicas().map_err(CommitError::Unknown)?;
        let happened = changed.iter().all(|row| known.contains(row));
        *current = Some(Arc::clone(&reopened));
        if happened {
            return self.publish(&reopened, changed, file);
        }
        self.publish(&reopened, Vec::new(), None)?;
        Err(CommitError::Not(error))
    }

    /// A file whose commit did not happen is garbage.
    fn drop_unlisted(
        &self,
        result: Result<(), CommitError>,
        file: Option<Arc<MessageFile>>,
    ) -> Result<()> {
        if let Err(CommitError::Not(_)) = &result {
            self.trash.lock().files.extend(file);
        }
        result.map_err(CommitError::into_error)
    }

    /// Frees memtables, and removes files that no view holds any more.
    fn sweep(&self) {
        let mut trash = self.trash.lock();
        let memtables = std::mem::take(&mut trash.memtables);
        let files = std::mem::take(&mut trash.files);
        let (free, held) = files.into_iter().partition(|f| Arc::strong_count(f) == 1);
        trash.files = held;
        drop(trash);
        drop(memtables);
        let free: Vec<Arc<MessageFile>> = free;
        for file in free {
            // Best effort: the next open removes it otherwise.
            let _ = self.disk.remove(file.path());
        }
    }
}

fn io<T>(result: std::io::Result<T>, doing: &str, path: &str) -> Result<T> {
    result.map_err(|source| Error::Io {
        what: format!("{doing} {path}"),
        source,
    })
}

impl SlotStore {
    /// What was applied since the last freeze, or `None`. At most one frozen part is outstanding: `None` until released.
    /// `membership` and `term` are those of [`Self::applied`].
    pub fn freeze(&mut self, membership: bytes::Bytes, term: wk_proto::Term) -> Option<Frozen> {
        if self.frozen.is_some() || self.applied == self.flushed {
            return None;
        }
        let mem = std::mem::take(&mut self.active);
        self.frozen = Some((self.applied, Arc::clone(&mem)));
        Some(Frozen {
            replica: self.replica,
            applied: self.applied,
            term,
            membership,
            mem,
        })
    }

    /// The frozen part is on disk: forget it.
    pub fn release(&mut self, done: &Checkpointed) {
        let mine = done
            .flushed
            .iter()
            .find(|(replica, _)| *replica == self.replica);
        let (Some((_, flushed)), Some((at, _))) = (mine, &self.frozen) else {
            return;
        };
        if flushed < at {
            return;
        }
        self.flushed = *flushed;
        // Freeing a full memtable takes milliseconds: not here.
        let memtable = self.frozen.take().map(|(_, mem)| mem);
        self.store.inner.trash.lock().memtables.extend(memtable);
    }

    /// Rows, and bytes of rows and messages, not yet frozen; what triggers a checkpoint. Bytes include what memory needs beside
    /// them.
    pub fn dirty(&self) -> (usize, usize) {
        self.active.size()
    }
}
