//! What the last commit put on disk, pinned: rows at that commit and the message files it lists.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use wk_proto::{MessageId, ReplicaId};

use crate::messages::{MessageFile, SectionLayer};
use crate::rows::{ReplicaRow, Rows, Snapshot};
use crate::{Disk, Error, Result};

/// Everything on disk as of one commit. Immutable; replaced by the next commit.
pub(crate) struct Base {
    pub(crate) rows: Snapshot,
    replicas: BTreeMap<ReplicaId, Arc<ReplicaBase>>,
}

/// One replica's part.
pub(crate) struct ReplicaBase {
    pub(crate) row: ReplicaRow,
    /// One per file of the row, oldest first.
    pub(crate) sections: Vec<SectionLayer>,
}

/// Message files by id.
pub(crate) type Files = BTreeMap<u64, Arc<MessageFile>>;

impl ReplicaBase {
    fn new(row: ReplicaRow, files: &Files) -> Result<Self> {
        let section = |id: &u64| {
            let file = files.get(id).cloned();
            file.and_then(|file| SectionLayer::new(file, row.meta.replica))
        };
        let sections = row.files.iter().map(|f| {
            section(&f.id).ok_or_else(|| Error::Corrupt {
                what: crate::messages::path(f.id),
                why: format!("it holds nothing of replica {}", row.meta.replica),
            })
        });
        Ok(Self {
            sections: sections.collect::<Result<_>>()?,
            row,
        })
    }

    /// Largest message id on disk.
    pub(crate) fn last_id(&self) -> MessageId {
        let newest = self.sections.last();
        newest.map_or(MessageId(0), SectionLayer::last_id)
    }
}

impl Base {
    /// Reads the list and opens all files of it.
    pub(crate) fn load(disk: &dyn Disk, rows: &Arc<Rows>) -> Result<Self> {
        let listed = rows.replicas()?;
        let mut files = Files::new();
        for file in listed.iter().flat_map(|row| &row.files) {
            if let Entry::Vacant(unopened) = files.entry(file.id) {
                unopened.insert(Arc::new(MessageFile::open(disk, file.id)?));
            }
        }
        let replicas = listed.into_iter().map(|row| {
            let replica = ReplicaBase::new(row, &files)?;
            Ok((replica.row.meta.replica, Arc::new(replica)))
        });
        Ok(Self {
            replicas: replicas.collect::<Result<_>>()?,
            rows: rows.snapshot()?,
        })
    }

    /// The same after a commit that changed some replicas and may list a new file.
    pub(crate) fn after(
        &self,
        rows: &Arc<Rows>,
        changed: Vec<ReplicaRow>,
        new_file: Option<&Arc<MessageFile>>,
    ) -> Result<Self> {
        let mut files = self.files();
        files.extend(new_file.map(|file| (file.id(), Arc::clone(file))));
        let mut replicas = self.replicas.clone();
        for row in changed {
            let replica = ReplicaBase::new(row, &files)?;
            replicas.insert(replica.row.meta.replica, Arc::new(replica));
        }
        Ok(Self {
            replicas,
            rows: rows.snapshot()?,
        })
    }

    /// All files in use.
    pub(crate) fn files(&self) -> Files {
        let sections = self.replicas.values().flat_map(|r| &r.sections);
        sections
            .map(|s| (s.file().id(), Arc::clone(s.file())))
            .collect()
    }

    /// All replicas, by id.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Arc<ReplicaBase>> {
        self.replicas.values()
    }

    /// `None` if there is none.
    pub(crate) fn find(&self, replica: ReplicaId) -> Option<&Arc<ReplicaBase>> {
        self.replicas.get(&replica)
    }

    /// A replica that is known to exist: its writer was given out.
    pub(crate) fn replica(&self, replica: ReplicaId) -> Arc<ReplicaBase> {
        let found = self.find(replica);
        Arc::clone(found.expect("replicas are never removed while the store is open"))
    }
}
