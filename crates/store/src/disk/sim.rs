//! Memory that behaves as badly as a disk may: a crash keeps what was synced and an arbitrary, seeded part of the rest.
//!
//! * A file's unsynced 512-byte sectors survive or not, each for itself (so a write may be torn, and later writes may outlive
//!   earlier ones); its unsynced length ends up anywhere between the old and the new one.
//! * Creates, renames, links and removes since the folder's last [`Disk::sync_dir`] survive in part: a prefix, or any subset.
//! * After a failed sync the bytes are still readable and a second sync succeeds, but they are never durable: what Linux does.
//! * A single sector is written whole or not at all; no file system protects rewritten bytes without this.
//!
//! Deterministic: the same calls and seed give the same bytes. No clock, no randomness of its own.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, File, split};
use content::Content;

/// Bytes in total unless [`Faults::capacity`] says otherwise.
const CAPACITY_BYTES: u64 = 1 << 40;

/// What is going to go wrong. Operations are everything that changes something: creating, writing, cutting, syncing, renaming,
/// linking, removing; they count from 1 over the life of the disk ([`SimDisk::operations`]).
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The power fails during this operation: it may or may not have happened, and nothing works until [`SimDisk::crash`].
    pub power_loss_at: Option<u64>,
    /// This write (counted among writes alone) fails with EIO and changes nothing.
    pub fail_write_at: Option<u64>,
    /// This file sync (counted among file syncs alone) fails with EIO; what it should have kept can no longer be kept.
    pub fail_sync_at: Option<u64>,
    /// Bytes all files together may have; beyond it a write fails with ENOSPC.
    pub capacity: Option<u64>,
    /// Files whose reads fail with EIO.
    pub unreadable: BTreeSet<String>,
}

/// A disk in memory. Clones are the same disk; [`SimDisk::crash`] makes a new one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    off: bool,
    operations: u64,
    writes: u64,
    syncs: u64,
    /// Bytes of all files that have a name.
    used: u64,
    folders: BTreeSet<String>,
    names: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    /// Changes of names since the last sync of their folder, oldest first.
    pending: Vec<Change>,
}

type Inode = Arc<Mutex<Content>>;

/// One change of a name. A rename is one change, so that it happens as a whole or not at all.
#[derive(Clone, Debug)]
enum Change {
    Set {
        path: String,
        inode: Inode,
    },
    Remove {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        inode: Inode,
    },
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Self::Set { path, inode } => {
                names.insert(path.clone(), inode.clone());
            }
            Self::Remove { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), inode.clone());
            }
        }
    }

    /// Whether syncing `dir` makes this change durable.
    fn is_in(&self, dir: &str) -> bool {
        let path = match self {
            Self::Set { path, .. } | Self::Remove { path } => path,
            Self::Rename { to, .. } => to,
        };
        folder_of(path) == dir
    }
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the fault plan.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Changing operations so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// File syncs so far, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }

    /// Inverts one bit of a file, in memory and on the medium. `bit` counts from the start of the file.
    pub fn flip_bit(&self, path: &str, bit: u64) -> io::Result<()> {
        let state = self.state.lock();
        let inode = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        inode.lock().flip_bit(bit)
    }

    /// Cuts the power, now if it is still on, and returns the disk as the next start finds it: everything synced, and of the rest
    /// what `seed` picks. This disk stays off.
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.state.lock();
        state.off = true;
        let mut dice = Dice(seed);
        let names = state.surviving_names(&mut dice);
        let mut fresh = State {
            folders: state.folders.clone(),
            ..State::default()
        };
        // Names of one file stay names of one file. By address: only looked up, so its arbitrary order is never seen.
        let mut survivors: BTreeMap<*const Mutex<Content>, Inode> = BTreeMap::new();
        for (path, inode) in names {
            let survivor = survivors
                .entry(Arc::as_ptr(&inode))
                .or_insert_with(|| Arc::new(Mutex::new(inode.lock().survivor(&mut dice))));
            fresh.durable.insert(path, survivor.clone());
        }
        fresh.names = fresh.durable.clone();
        fresh.used = survivors.values().map(|inode| inode.lock().len()).sum();
        Self {
            state: Arc::new(Mutex::new(fresh)),
        }
    }
}

impl State {
    /// Counts a changing operation. `Ok(true)` = the power fails during it: let it happen, unsynced, then report the failure.
    fn begin(&mut self) -> io::Result<bool> {
        self.check_power()?;
        self.operations += 1;
        self.off = self.faults.power_loss_at == Some(self.operations);
        Ok(self.off)
    }

    fn check_power(&self) -> io::Result<()> {
        if self.off { Err(power_lost()) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let lost = self.begin()?;
        change.apply(&mut self.names);
        self.pending.push(change);
        if lost { Err(power_lost()) } else { Ok(()) }
    }

    fn find(&self, path: &str) -> io::Result<Inode> {
        self.check_power()?;
        split(path)?;
        let inode = self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(inode.clone())
    }

    /// Accounts for a change of a file's length, or refuses it.
    fn charge(&mut self, old: u64, new: u64) -> io::Result<()> {
        let used = self.used.saturating_sub(old).saturating_add(new);
        if new > old && used > self.faults.capacity.unwrap_or(CAPACITY_BYTES) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used = used;
        Ok(())
    }

    fn surviving_names(&self, dice: &mut Dice) -> BTreeMap<String, Inode> {
        let mut names = self.durable.clone();
        let subset = dice.one_in(2);
        let chance = dice.chance();
        let prefix = dice.below(self.pending.len() as u64 + 1) as usize;
        for (n, change) in self.pending.iter().enumerate() {
            let survives = if subset { dice.hit(chance) } else { n < prefix };
            if survives {
                change.apply(&mut names);
            }
        }
        names
    }

    fn sync_dir(&mut self, dir: &str) {
        let (now, later): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|change| change.is_in(dir));
        self.pending = later;
        for change in now {
            change.apply(&mut self.durable);
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>> {
        let (dir, _) = split(path)?;
        let mut state = self.state.lock();
        state.check_power()?;
        let inode = match state.names.get(path) {
            Some(inode) => inode.clone(),
            None if !create || !(dir.is_empty() || state.folders.contains(dir)) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            None => {
                let inode = Inode::default();
                state.change(Change::Set {
                    path: path.to_owned(),
                    inode: inode.clone(),
                })?;
                inode
            }
        };
        Ok(Arc::new(SimFile {
            path: path.to_owned(),
            inode,
            state: self.state.clone(),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        split(to)?;
        let mut state = self.state.lock();
        let inode = state.find(from)?;
        let replaced = match state.names.get(to) {
            Some(old) if !Arc::ptr_eq(old, &inode) => old.lock().len(),
            _ => 0,
        };
        state.charge(replaced, 0)?;
        state.change(Change::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            inode,
        })
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        split(to)?;
        let mut state = self.state.lock();
        let inode = state.find(from)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let path = to.to_owned();
        state.change(Change::Set { path, inode })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.find(path)?;
        let linked = state.names.values().filter(|i| Arc::ptr_eq(i, &inode));
        if linked.count() == 1 {
            let len = inode.lock().len();
            state.charge(len, 0)?;
        }
        state.change(Change::Remove {
            path: path.to_owned(),
        })
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.check_power()?;
        let inside = state.names.keys().filter(|path| folder_of(path) == dir);
        let name = |path: &String| path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(inside.map(name).collect())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let lost = state.begin()?;
        if !dir.is_empty() {
            state.folders.insert(dir.to_owned());
        }
        if lost {
            return Err(power_lost());
        }
        state.sync_dir(dir);
        Ok(())
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        let state = self.state.lock();
        state.check_power()?;
        let total = state.faults.capacity.unwrap_or(CAPACITY_BYTES);
        Ok((total.saturating_sub(state.used), total))
    }
}

struct SimFile {
    /// As opened; names faults only.
    path: String,
    inode: Inode,
    state: Arc<Mutex<State>>,
}

impl File for SimFile {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        state.check_power()?;
        if state.faults.unreadable.contains(&self.path) {
            return Err(eio());
        }
        self.inode.lock().read(at, buf)
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let lost = state.begin()?;
        state.writes += 1;
        if state.faults.fail_write_at == Some(state.writes) {
            return Err(eio());
        }
        let end = at
            .checked_add(buf.len() as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut content = self.inode.lock();
        let len = content.len();
        state.charge(len, len.max(end))?;
        content.write(at, buf);
        if lost { Err(power_lost()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        self.state.lock().check_power()?;
        Ok(self.inode.lock().len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let lost = state.begin()?;
        let mut content = self.inode.lock();
        state.charge(content.len(), len)?;
        content.set_len(len);
        if lost { Err(power_lost()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let lost = state.begin()?;
        state.syncs += 1;
        if lost {
            return Err(power_lost());
        }
        if state.faults.fail_sync_at == Some(state.syncs) {
            self.inode.lock().sync_failed();
            return Err(eio());
        }
        self.inode.lock().sync();
        Ok(())
    }

    fn flush_range(&self, _at: u64, _len: u64) -> io::Result<()> {
        self.state.lock().check_power()
    }
}

/// A small seeded generator (splitmix64): simulation must not depend on a library's choice of algorithm.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..`n`, for n > 0.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A chance out of 256 to use for a run of [`Self::hit`]s. The ends matter most: all lost, all kept, one sector missing.
    fn chance(&mut self) -> u64 {
        [0, 16, 128, 240, 256][self.below(5) as usize]
    }

    fn hit(&mut self, chance: u64) -> bool {
        self.below(256) < chance
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn power_lost() -> io::Error {
    io::Error::other("simulated power loss")
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

#[cfg(test)]
mod tests;
