//! One process's door to its node's disk.
//!
//! A killed process runs no destructors. The simulator drops values instead, and some (the database) would write on the way out:
//! so the door is shut first. What was written before stays, as in a page cache; only [`SimDisk::crash`] takes that away.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wk_store::{Disk, File, SimDisk};

/// A door; clones are the same door.
#[derive(Clone)]
pub(crate) struct Door {
    disk: SimDisk,
    shared: Arc<Shared>,
}

struct Shared {
    shut: AtomicBool,
    /// Of everything that was changed through this door.
    hash: AtomicU64,
    /// Planted bug: syncs of message files do nothing.
    skip_message_sync: bool,
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        if self.shut.load(Ordering::Relaxed) {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(())
    }

    fn note(&self, what: &str, path: &str, at: u64, bytes: &[u8]) {
        let mut sum = crc32c::crc32c(what.as_bytes());
        sum = crc32c::crc32c_append(sum, path.as_bytes());
        sum = crc32c::crc32c_append(sum, &at.to_le_bytes());
        sum = crc32c::crc32c_append(sum, bytes);
        let hash = self.hash.load(Ordering::Relaxed).rotate_left(7) ^ u64::from(sum);
        let hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash.store(hash, Ordering::Relaxed);
    }
}

impl Door {
    pub(crate) fn new(disk: SimDisk, skip_message_sync: bool) -> Self {
        let shared = Shared {
            shut: AtomicBool::new(false),
            hash: AtomicU64::new(0),
            skip_message_sync,
        };
        Self {
            disk,
            shared: Arc::new(shared),
        }
    }

    /// Nothing gets through any more.
    pub(crate) fn shut(&self) {
        self.shared.shut.store(true, Ordering::Relaxed);
    }

    /// Hash of all changes so far.
    pub(crate) fn hash(&self) -> u64 {
        self.shared.hash.load(Ordering::Relaxed)
    }
}

impl Disk for Door {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>> {
        self.shared.check()?;
        let file = self.disk.open(path, create)?;
        self.shared.note("open", path, 0, &[]);
        Ok(Arc::new(DoorFile {
            file,
            path: path.to_owned(),
            shared: Arc::clone(&self.shared),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.shared.check()?;
        self.shared.note("rename", from, 0, to.as_bytes());
        self.disk.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.shared.check()?;
        self.shared.note("link", from, 0, to.as_bytes());
        self.disk.link(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.shared.check()?;
        self.shared.note("remove", path, 0, &[]);
        self.disk.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.shared.check()?;
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.shared.check()?;
        self.shared.note("sync_dir", dir, 0, &[]);
        self.disk.sync_dir(dir)
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        self.shared.check()?;
        self.disk.space()
    }
}

struct DoorFile {
    file: Arc<dyn File>,
    path: String,
    shared: Arc<Shared>,
}

impl File for DoorFile {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.shared.check()?;
        self.file.read_at(at, buf)
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<()> {
        self.shared.check()?;
        self.shared.note("write", &self.path, at, buf);
        self.file.write_at(at, buf)
    }

    fn len(&self) -> io::Result<u64> {
        self.shared.check()?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.check()?;
        self.shared.note("set_len", &self.path, len, &[]);
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.check()?;
        self.shared.note("sync", &self.path, 0, &[]);
        if self.shared.skip_message_sync && self.path.starts_with("messages/") {
            return Ok(());
        }
        self.file.sync()
    }

    fn flush_range(&self, at: u64, len: u64) -> io::Result<()> {
        self.shared.check()?;
        self.file.flush_range(at, len)
    }
}
