//! `node.json`: read, checked, replaced as a whole.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{HomeError, Owner, io_error};
use crate::{Disk, wal};

const FILE: &str = "node.json";
const TEMP: &str = "node.json.new";

/// Largest `node.json` we read: ours has less than 500 bytes. A longer one is damaged.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Format of the directory as a whole: this file, names and folders.
const FORMAT: u32 = 1;

/// Names whose presence means that the directory was in use.
const DATA: [&str; 1] = ["rows.redb"];
const DATA_FOLDERS: [&str; 2] = ["wal", "messages"];

/// Format number of each part of the directory. A part changes its number when older versions cannot read it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Components {
    /// The write-ahead log.
    pub wal: u32,
    /// The metadata rows.
    pub rows: u32,
    /// The message files.
    pub messages: u32,
}

impl Components {
    /// What this version writes, and the newest it reads.
    pub const CURRENT: Self = Self {
        wal: wal::FORMAT,
        rows: 1,
        messages: 1,
    };
}

/// What happened to a v2 server's data beside ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum V2Data {
    /// There was none.
    #[default]
    None,
    /// The operator started beside it on purpose.
    Ignored,
    /// An import was begun.
    Importing,
    /// It was imported.
    Imported,
}

/// What the directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the directory.
    pub format: u32,
    /// The cluster it is a part of; `None` until the node has formed or joined one.
    #[serde(with = "hex_option", default)]
    pub cluster_id: Option<u128>,
    /// The node it belongs to.
    pub node_id: u32,
    /// Which directory this is: a new one of the same node has another (H45).
    #[serde(with = "hex")]
    pub disk_uuid: u128,
    /// When it was created, ms since 1970.
    pub created_ms: u64,
    /// Formats of its parts.
    pub components: Components,
    /// What happened to v2 data beside it.
    #[serde(default)]
    pub v2_data: V2Data,
}

impl Identity {
    pub(super) fn new(owner: &Owner) -> Self {
        Self {
            format: FORMAT,
            cluster_id: None,
            node_id: owner.node.0,
            disk_uuid: owner.disk_uuid,
            created_ms: owner.now.0,
            components: Components::CURRENT,
            v2_data: V2Data::None,
        }
    }

    fn check_formats(&self, path: &Path) -> Result<(), HomeError> {
        let (found, known) = (self.components, Components::CURRENT);
        for (component, found, known) in [
            ("wal", found.wal, known.wal),
            ("rows", found.rows, known.rows),
            ("messages", found.messages, known.messages),
        ] {
            check_format(path, component, found, known)?;
        }
        Ok(())
    }
}

/// The part of the file every version must be able to read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The identity, or `None` in a folder that was never in use.
pub(super) fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, HomeError> {
    let names = disk.list("").map_err(|e| io_error(path, e))?;
    if !names.iter().any(|name| name == FILE) {
        return check_unused(disk, path, &names).map(|()| None);
    }
    let bytes = read(disk, path)?;
    let damaged = |why: String| HomeError::Damaged {
        path: path.to_owned(),
        why: format!("{FILE}: {why}"),
    };
    let format: Format = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    check_format(path, "directory", format.format, FORMAT)?;
    let identity: Identity = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    identity.check_formats(path)?;
    Ok(Some(identity))
}

/// Replaces the file: after a crash it is the old or the new one.
pub(super) fn save(disk: &dyn Disk, path: &Path, identity: &Identity) -> Result<(), HomeError> {
    let mut bytes = serde_json::to_vec_pretty(identity).map_err(|e| HomeError::Io {
        what: path.join(FILE).display().to_string(),
        source: e.into(),
    })?;
    bytes.push(b'\n');
    let replace = || {
        let file = disk.open(TEMP, true)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.rename(TEMP, FILE)?;
        disk.sync_dir("")
    };
    replace().map_err(|e| io_error(&path.join(FILE), e))
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, HomeError> {
    let read = || {
        let file = disk.open(FILE, false)?;
        let mut bytes = vec![0; file.len()?.min(FILE_BYTES_MAX) as usize];
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| io_error(&path.join(FILE), e))
}

/// `node.json` is written before anything else: data without it is data that lost its identity.
fn check_unused(disk: &dyn Disk, path: &Path, names: &[String]) -> Result<(), HomeError> {
    let mut found = names
        .iter()
        .find(|name| DATA.contains(&name.as_str()))
        .cloned();
    for folder in DATA_FOLDERS {
        let inside = disk.list(folder).map_err(|e| io_error(path, e))?;
        found = found.or_else(|| inside.first().map(|name| format!("{folder}/{name}")));
    }
    match found {
        None => Ok(()),
        Some(name) => Err(HomeError::Damaged {
            path: path.to_owned(),
            why: format!("it holds {name} but no {FILE}"),
        }),
    }
}

fn check_format(
    path: &Path,
    component: &'static str,
    found: u32,
    known: u32,
) -> Result<(), HomeError> {
    if found <= known {
        return Ok(());
    }
    Err(HomeError::Newer {
        path: path.to_owned(),
        component,
        found,
        known,
    })
}

/// 128 bits as 32 hexadecimal digits: JSON numbers are not that exact.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{id:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_hex(&text)
            .ok_or_else(|| D::Error::custom("an id of 32 hexadecimal digits is expected"))
    }
}

mod hex_option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &Option<u128>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => super::hex::serialize(id, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u128>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parse = |text: String| {
            super::parse_hex(&text)
                .ok_or_else(|| D::Error::custom("an id of 32 hexadecimal digits is expected"))
        };
        text.map(parse).transpose()
    }
}

fn parse_hex(text: &str) -> Option<u128> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimDisk;
    use crate::disk::Faults;
    use wk_proto::{NodeId, WallMs};

    fn identity(disk_uuid: u128) -> Identity {
        Identity::new(&Owner {
            node: NodeId(7),
            disk_uuid,
            now: WallMs(1),
            on_v2_data: super::super::OnV2Data::Refuse,
        })
    }

    #[test]
    fn a_crash_while_saving_leaves_the_old_or_the_new_one() {
        let path = Path::new("here");
        for first in [true, false] {
            for at in 1..20 {
                for seed in 0..20 {
                    let disk = SimDisk::new();
                    if !first {
                        save(&disk, path, &identity(1)).expect("old");
                    }
                    let old = load(&disk, path).expect("load");
                    disk.set_faults(Faults {
                        power_loss_at: Some(disk.operations() + at),
                        ..Faults::default()
                    });
                    let saved = save(&disk, path, &identity(2));
                    let found = load(&disk.crash(seed), path).expect("readable");
                    let new = Some(identity(2));
                    assert!(
                        found == new || (found == old && saved.is_err()),
                        "{found:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn data_without_identity_is_damage() {
        let disk = SimDisk::new();
        disk.open(TEMP, true).expect("left over");
        assert_eq!(load(&disk, Path::new("")).expect("unused"), None);
        disk.sync_dir("wal").expect("folder");
        assert_eq!(load(&disk, Path::new("")).expect("unused"), None);
        disk.open("wal/0000000001.seg", true).expect("segment");
        assert!(matches!(
            load(&disk, Path::new("")),
            Err(HomeError::Damaged { .. })
        ));
    }

    #[test]
    fn other_texts_are_damage_or_newer() {
        let load = |text: &str| {
            let disk = SimDisk::new();
            let file = disk.open(FILE, true).expect("open");
            file.write_at(0, text.as_bytes()).expect("write");
            load(&disk, Path::new("x"))
        };
        let good = serde_json::to_string(&identity(0xabc)).expect("json");
        assert_eq!(load(&good).expect("good"), Some(identity(0xabc)));
        for text in [
            "",
            "{",
            "[]",
            "{\"format\":1}",
            &good.replace("abc\"", "ab\""),
        ] {
            assert!(
                matches!(load(text), Err(HomeError::Damaged { .. })),
                "{text}"
            );
        }
        let newer = "{\"format\":2,\"entirely\":\"different\"}";
        assert!(matches!(
            load(newer),
            Err(HomeError::Newer {
                component: "directory",
                found: 2,
                ..
            })
        ));
        for component in ["wal", "rows", "messages"] {
            let text = good.replace(&format!("\"{component}\":1"), &format!("\"{component}\":9"));
            match load(&text) {
                Err(HomeError::Newer {
                    component: c,
                    found: 9,
                    known: 1,
                    ..
                }) => assert_eq!(c, component),
                other => panic!("{other:?}"),
            }
        }
    }
}
