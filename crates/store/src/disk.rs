//! The only door to files. Paths are relative to one directory and use `/`; there is one level of folders.
//!
//! What a crash keeps is exactly: bytes covered by a completed [`File::sync`], and names covered by a completed
//! [`Disk::sync_dir`]. Anything else may be there, be missing, or be there in part.
//!
//! [`RealDisk`] is a directory of the operating system. [`SimDisk`] is memory with faults: the same promises and nothing more,
//! so what passes on it with every crash and every fault cannot depend on a kindness of one file system.

mod real;
mod sim;

use std::io;
use std::sync::Arc;

pub use real::RealDisk;
pub use sim::{Faults, SimDisk};

/// A directory tree.
pub trait Disk: Send + Sync + 'static {
    /// Opens for reading and writing; creates if `create`. Never truncates.
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>>;
    /// Renames, replacing `to`. Durable after [`Self::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Hard link where the system has it, else a copy. Durable after [`Self::sync_dir`].
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// File names in a folder (`""` = the root), sorted. A folder that is not there is empty.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes the folder and its entry durable; creates it if it is not there.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Bytes free for us, and bytes in total.
    fn space(&self) -> io::Result<(u64, u64)>;
}

/// One open file. Positions are bytes. All methods may be called from any thread.
pub trait File: Send + Sync + 'static {
    /// Fills `buf` from `at`; an error if the file is shorter.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `buf` at `at`, growing the file as needed.
    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or grows (with zeros).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Everything written so far is durable when this returns (fdatasync). After an error, nothing about unsynced bytes is
    /// known: do not call again, do not reuse the file.
    fn sync(&self) -> io::Result<()>;
    /// Starts or waits for write-back of a range, without promising durability: keeps a later [`Self::sync`] short (F3).
    fn flush_range(&self, at: u64, len: u64) -> io::Result<()>;
    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Splits a path into folder and name, refusing whatever could leave the root or go deeper than one folder.
fn split(path: &str) -> io::Result<(&str, &str)> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let plain = |part: &str| part != "." && part != ".." && !part.contains(['/', '\\', '\0']);
    if name.is_empty() || path.starts_with('/') || !plain(name) || !plain(dir) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path:?} is not a path of one folder and a name"),
        ));
    }
    Ok((dir, name))
}
