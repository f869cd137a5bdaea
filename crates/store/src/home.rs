//! The data directory: whose it is, that nobody else uses it, and that we can read it (H45, H51).
//!
//! ```text
//! <dataDir>/                 may also hold a v2 server's `db/`, `cluster/` …: never touched
//! └── wukongim/              0700
//!     ├── lock               held (flock) by the running process; its text is the process id
//!     ├── node.json          who this directory belongs to; replaced as a whole
//!     ├── rows.redb, messages/, wal/
//! ```
//!
//! A directory that is refused is not changed. Identities and times are arguments: nothing here is random or reads a clock.

mod identity;

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wk_proto::{NodeId, WallMs};

use crate::{Disk, RealDisk};

pub use identity::{Components, Identity, V2Data};

/// Our folder inside the data directory.
pub const FOLDER: &str = "wukongim";

const LOCK: &str = "lock";

/// What a v2.2.5 server leaves in its data directory (spec: operations 1.3, cluster 5.1).
const V2_MARKERS: [&str; 3] = ["db/wukongimdb", "cluster/logdb", "cluster/config"];

/// Why a data directory cannot be used. The text says what is wrong and what to do, in one sentence each, and names paths.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process uses it.
    #[error(
        "{} is in use by {}; stop that process, or give this node another dataDir", path.display(), holder(*pid)
    )]
    InUse {
        /// Our folder.
        path: PathBuf,
        /// Who says to hold it, if that can be read.
        pid: Option<u32>,
    },
    /// It belongs to another node.
    #[error(
        "{} belongs to node {found}, this node is {wanted}; set cluster.nodeId to {found}, or give this node another dataDir",
        path.display()
    )]
    ForeignNode {
        /// Our folder.
        path: PathBuf,
        /// The node it belongs to.
        found: u32,
        /// The configured node.
        wanted: u32,
    },
    /// It belongs to another cluster.
    #[error("{} belongs to cluster {found:032x}, not {wanted:032x}; give this node another dataDir", path.display())]
    ForeignCluster {
        /// Our folder.
        path: PathBuf,
        /// The cluster it belongs to.
        found: u128,
        /// The cluster it was to be bound to.
        wanted: u128,
    },
    /// A newer version of the server wrote it.
    #[error(
        "{} was written by a newer version: {component} has format {found}, this version reads up to {known}; \
         start that version again", path.display()
    )]
    Newer {
        /// Our folder.
        path: PathBuf,
        /// `directory`, `wal`, `rows` or `messages`.
        component: &'static str,
        /// Its format number.
        found: u32,
        /// The largest we know.
        known: u32,
    },
    /// A v2 server's data is here and was neither imported nor declared superfluous.
    #[error(
        "{} holds data of WuKongIM v2 ({marker}), which this version does not read: starting beside it would look like the loss of \
         all messages; import it with `wukongim import`, or give this node another dataDir{}", path.display(), run_again(*interrupted)
    )]
    V2Data {
        /// The data directory.
        path: PathBuf,
        /// Which folder tells.
        marker: &'static str,
        /// An import was begun and not finished.
        interrupted: bool,
    },
    /// We may not write here.
    #[error("{} cannot be written ({source}); give the server's user write permission, or set another dataDir", path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// `node.json` is missing beside data, or is not what we wrote.
    #[error("{} is damaged: {why}; restore it from a backup, or remove the folder and let the cluster replace this node", path.display())]
    Damaged {
        /// Our folder.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The operating system failed otherwise.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

fn run_again(is_interrupted: bool) -> &'static str {
    if is_interrupted {
        " (an earlier import was interrupted: run it again)"
    } else {
        ""
    }
}

/// What to do about a v2 server's data in the same directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnV2Data {
    /// Refuse to start, unless it was imported or ignored before.
    Refuse,
    /// The operator said to start beside it.
    Ignore,
    /// This process is the importer; [`Home::finish_import`] ends it.
    Import,
}

/// Who wants to use the directory.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The configured node.
    pub node: NodeId,
    /// A random number: becomes the directory's identity if it is new, else it is not used.
    pub disk_uuid: u128,
    /// Now; the time of creation if it is new.
    pub now: WallMs,
    /// What to do about v2 data.
    pub on_v2_data: OnV2Data,
}

/// An open data directory. The lock is held until this is dropped.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    disk: Arc<RealDisk>,
    identity: Identity,
    is_new: bool,
    /// Closing it gives up the lock, at the latest when the process ends, however it ends.
    _lock: fs::File,
}

impl Home {
    /// Opens `<data_dir>/wukongim/`, and creates both if they are not there (H51).
    pub fn open(data_dir: &Path, owner: &Owner) -> Result<Self, HomeError> {
        let path = data_dir.join(FOLDER);
        let v2 = V2_MARKERS
            .into_iter()
            .find(|marker| data_dir.join(marker).exists());
        if !path.exists() {
            check_v2(data_dir, v2, V2Data::None, owner.on_v2_data)?;
            create_folder(&path)?;
        }
        let mut lock = lock(&path)?;
        let disk = RealDisk::new(&path).map_err(|e| io_error(&path, e))?;
        let found = identity::load(&disk, &path)?;
        if let Some(found) = &found {
            check_owner(found, &path, owner)?;
        }
        let known = found.as_ref().map_or(V2Data::None, |found| found.v2_data);
        check_v2(data_dir, v2, known, owner.on_v2_data)?;
        sign(&mut lock, &path)?;
        let is_new = found.is_none();
        let mut identity = found.unwrap_or_else(|| Identity::new(owner));
        let v2_data = v2_data_now(identity.v2_data, v2.is_some(), owner.on_v2_data);
        if is_new || v2_data != identity.v2_data {
            identity.v2_data = v2_data;
            identity::save(&disk, &path, &identity)?;
        }
        Ok(Self {
            path,
            disk: Arc::new(disk),
            identity,
            is_new,
            _lock: lock,
        })
    }

    /// The files of our folder.
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// Our folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the directory says of itself.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether this open created it: the node has no past here.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Binds the directory to a cluster, for ever; durable on return. Once bound, only the same id is accepted.
    pub fn bind_cluster(&mut self, cluster: u128) -> Result<(), HomeError> {
        match self.identity.cluster_id {
            Some(found) if found == cluster => Ok(()),
            Some(found) => Err(HomeError::ForeignCluster {
                path: self.path.clone(),
                found,
                wanted: cluster,
            }),
            None => {
                let mut bound = self.identity.clone();
                bound.cluster_id = Some(cluster);
                self.save(bound)
            }
        }
    }

    /// The import of v2 data is complete and durable: from now on the server starts here.
    pub fn finish_import(&mut self) -> Result<(), HomeError> {
        let mut done = self.identity.clone();
        done.v2_data = V2Data::Imported;
        self.save(done)
    }

    fn save(&mut self, identity: Identity) -> Result<(), HomeError> {
        identity::save(self.disk.as_ref(), &self.path, &identity)?;
        self.identity = identity;
        Ok(())
    }
}

fn check_owner(found: &Identity, path: &Path, owner: &Owner) -> Result<(), HomeError> {
    if found.node_id != owner.node.0 {
        return Err(HomeError::ForeignNode {
            path: path.to_owned(),
            found: found.node_id,
            wanted: owner.node.0,
        });
    }
    Ok(())
}

fn check_v2(
    data_dir: &Path,
    marker: Option<&'static str>,
    known: V2Data,
    policy: OnV2Data,
) -> Result<(), HomeError> {
    let interrupted = known == V2Data::Importing;
    let is_settled = matches!(known, V2Data::Imported | V2Data::Ignored);
    // An interrupted import is refused even when the v2 folders are gone: what we hold is incomplete.
    let is_open = interrupted || (marker.is_some() && !is_settled);
    if !is_open || policy != OnV2Data::Refuse {
        return Ok(());
    }
    Err(HomeError::V2Data {
        path: data_dir.to_owned(),
        marker: marker.unwrap_or("an unfinished import"),
        interrupted,
    })
}

fn v2_data_now(known: V2Data, is_present: bool, policy: OnV2Data) -> V2Data {
    match policy {
        OnV2Data::Import if known != V2Data::Imported => V2Data::Importing,
        OnV2Data::Ignore if is_present && known == V2Data::None => V2Data::Ignored,
        _ => known,
    }
}

/// Creates our folder and what is missing above it, durably.
fn create_folder(path: &Path) -> Result<(), HomeError> {
    let missing = path
        .ancestors()
        .take_while(|folder| !or_here(folder).exists());
    // Each new entry is in the folder above.
    let changed: Vec<&Path> = missing.filter_map(Path::parent).map(or_here).collect();
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(|e| io_error(path, e))?;
    for folder in changed {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| io_error(folder, e))?;
    }
    Ok(())
}

/// The folder above a relative path of one part is the working directory.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    }
}

/// Takes the lock; [`sign`] it once the directory is known to be ours.
fn lock(folder: &Path) -> Result<fs::File, HomeError> {
    let path = folder.join(LOCK);
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(&path).map_err(|e| io_error(&path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(HomeError::InUse {
                path: folder.to_owned(),
                pid: read_pid(&mut file),
            });
        }
        Err(fs::TryLockError::Error(e)) => return Err(io_error(&path, e)),
    }
    Ok(file)
}

/// Leaves our process id in the lock file, for the text of [`HomeError::InUse`].
fn sign(lock: &mut fs::File, folder: &Path) -> Result<(), HomeError> {
    let text = format!("{}\n", std::process::id());
    let written = lock
        .set_len(0)
        .and_then(|()| lock.write_all(text.as_bytes()));
    written.map_err(|e| io_error(&folder.join(LOCK), e))
}

fn read_pid(file: &mut fs::File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn io_error(path: &Path, source: io::Error) -> HomeError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            HomeError::ReadOnly { path, source }
        }
        _ => HomeError::Io {
            what: path.display().to_string(),
            source,
        },
    }
}

#[cfg(test)]
mod tests;
