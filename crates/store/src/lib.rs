//! Everything durable on one node: the write-ahead log, the message files, the metadata rows, and the one checkpoint that
//! joins them (decisions H39–H46). No threads: drivers call in, the simulator too.
//!
//! ```text
//!            Wal (fsync)                      Store::checkpoint: files synced, then ONE redb commit
//!  entry ───────▶ durable ──▶ apply: Tx ──▶ dirty rows + message memtable ──▶ frozen ──▶ redb rows + message files
//!                                             └────────── View reads dirty → frozen → disk ──────────┘
//! ```
//!
//! * [`disk`]: the only door to files: real, in-memory, faulty;
//! * [`wal`]: one log for all groups of the node;
//! * [`home`]: the data directory: lock, identity, format versions;
//! * [`slot`]: one replica's state: [`SlotStore`], its [`Tx`] and its [`View`];
//! * [`checkpoint`]: [`Store`], the node's files and rows, and how they advance.
//!
//! Behind these: `memtable` (what is not on disk yet), `messages` (message files), `rows` (redb), `base` (what the last commit put
//! on disk, pinned), `layers` (a picture across all of them), `merge` (fewer, larger message files).

mod base;
pub mod checkpoint;
pub mod disk;
mod hash;
pub mod home;
mod layer;
mod layers;
mod memtable;
mod merge;
mod messages;
mod rows;
pub mod slot;
pub mod wal;

pub use checkpoint::{Checkpointed, Frozen, IoBudget, ReplicaMeta, Store};
pub use disk::{Disk, File, RealDisk, SimDisk};
pub use home::Home;
pub use slot::{Dir, Head, Limit, SlotStore, Stored, Table, Tx, View};
pub use wal::{Recovered, Wal, WalOptions, WalRecord};

/// Why the store cannot do it. After any variant but `Invalid`, the caller treats the state as unknown: the group (a read) or
/// the whole store (a write) stops; nothing is retried on the same file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's name.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("{what} is damaged: {why}")]
    Corrupt {
        /// Which file and position.
        what: String,
        /// Which check failed.
        why: String,
    },
    /// The directory belongs to something else; the text says what to do.
    #[error("{0}")]
    Invalid(String),
    /// The metadata database failed.
    #[error("rows: {0}")]
    Rows(String),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
