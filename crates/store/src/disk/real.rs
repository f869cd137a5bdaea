//! A directory of the operating system.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, File, split};

/// Only the server's user reads messages and secrets.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Files below one existing directory. Spec: cluster 7.6.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// Folders whose own entry is known durable; at most the handful of folders the store has.
    folders: Mutex<BTreeSet<String>>,
}

impl RealDisk {
    /// Uses `root`, which must exist.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("{} is not a directory", root.display()),
            ));
        }
        Ok(Self {
            root,
            folders: Mutex::default(),
        })
    }

    fn path(&self, path: &str) -> io::Result<PathBuf> {
        split(path)?;
        Ok(self.root.join(path))
    }

    fn folder(&self, dir: &str) -> io::Result<PathBuf> {
        if dir.is_empty() {
            return Ok(self.root.clone());
        }
        if dir.contains('/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.path(dir)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(FILE_MODE)
            .open(self.path(path)?)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        match fs::hard_link(&from, &to) {
            Err(e) if cannot_link(&e) => copy(&from, &to),
            other => other,
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.folder(dir)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.folder(dir)?;
        if dir.is_empty() {
            return sync_folder(&path);
        }
        match fs::DirBuilder::new().mode(DIR_MODE).create(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        sync_folder(&path)?;
        // Another process may have made the folder and died before its entry was durable: sync the root once per life.
        let mut folders = self.folders.lock();
        if !folders.contains(dir) {
            sync_folder(&self.root)?;
            folders.insert(dir.to_owned());
        }
        Ok(())
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        statvfs(&self.root)
    }
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
}

impl File for RealFile {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, at)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn flush_range(&self, at: u64, len: u64) -> io::Result<()> {
        flush_range(&self.file, at, len)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// File systems without hard links (some network and FUSE mounts) say so in one of these ways.
fn cannot_link(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks
    )
}

/// The stand-in for a link: its bytes must be as durable as the original's when the folder is synced.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::copy(from, to)?;
    fs::File::open(to)?.sync_all()
}

/// Waits for write-back of the range, so that the pages are gone before the log's next fdatasync queues behind them (F3).
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn flush_range(file: &fs::File, at: u64, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn flush_range(file: &fs::File, _at: u64, _len: u64) -> io::Result<()> {
    file.sync_data()
}

#[allow(unsafe_code)]
fn statvfs(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `stat` is large enough for the one struct the call fills.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned 0, so it has filled the struct.
    let stat = unsafe { stat.assume_init() };
    // The field types differ between platforms.
    #[allow(clippy::unnecessary_cast)]
    let (unit, free, total) = (
        stat.f_frsize as u64,
        stat.f_bavail as u64,
        stat.f_blocks as u64,
    );
    Ok((free.saturating_mul(unit), total.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let dir = tempfile::tempdir().expect("temp dir");
        let disk = RealDisk::new(dir.path()).expect("disk");
        (dir, disk)
    }

    #[test]
    fn files_read_back_what_was_written() {
        let (_dir, disk) = disk();
        assert_eq!(
            disk.open("wal/x", true).err().map(|e| e.kind()),
            Some(io::ErrorKind::NotFound),
            "folders appear by sync_dir only"
        );
        disk.sync_dir("wal").expect("folder");
        let file = disk.open("wal/x", true).expect("open");
        file.write_at(10, b"hello").expect("write");
        file.flush_range(0, 15).expect("flush");
        file.sync().expect("sync");
        assert_eq!(file.len().expect("len"), 15);
        let mut buf = [1; 5];
        file.read_at(8, &mut buf).expect("read");
        assert_eq!(&buf, b"\0\0hel");
        assert!(file.read_at(11, &mut buf).is_err(), "shorter than asked");
        file.set_len(3).expect("cut");
        assert_eq!(file.len().expect("len"), 3);
    }

    #[test]
    fn names_move_link_and_go() {
        let (_dir, disk) = disk();
        assert!(disk.list("wal").expect("missing folder").is_empty());
        disk.sync_dir("wal").expect("folder");
        disk.open("wal/b", true).expect("open");
        disk.open("a", true).expect("open");
        disk.rename("a", "c").expect("rename");
        disk.link("c", "wal/a").expect("link");
        assert_eq!(disk.list("").expect("list"), ["c"]);
        assert_eq!(disk.list("wal").expect("list"), ["a", "b"]);
        disk.remove("wal/b").expect("remove");
        assert_eq!(disk.list("wal").expect("list"), ["a"]);
        let (free, total) = disk.space().expect("space");
        assert!(free > 0 && free <= total);
    }

    #[test]
    fn paths_cannot_leave_the_root() {
        let (_dir, disk) = disk();
        for path in ["../x", "/etc/passwd", "a/b/c", "", "a/", "..", "a/.."] {
            assert!(disk.open(path, true).is_err(), "{path}");
        }
        assert!(disk.sync_dir("..").is_err());
        assert!(disk.list("../..").is_err());
    }
}
