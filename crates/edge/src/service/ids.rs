//! Ids as callers give them, to ids as stored (http-api 1.5). The only place that knows about `@`, the command suffix and list hashes.

use wk_proto::channel::{COMMAND_SUFFIX, SYSTEM_UID};
use wk_proto::{ChannelId, ChannelKey, ChannelType, IdError, Uid};

use super::error::{Error, Result, ensure};

/// Blank, as v2 tests it.
pub(super) fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// `@`, `#` and `&` have a meaning inside the server.
pub(super) fn has_special(text: &str) -> bool {
    text.contains(['@', '#', '&'])
}

/// A uid; `empty` and `special` are the texts of the route.
pub(super) fn uid(text: &str, empty: &'static str, special: &'static str) -> Result<Uid> {
    Uid::parse(text).map_err(|error| match error {
        IdError::Blank => Error::invalid(empty),
        IdError::Forbidden | IdError::Reserved => Error::invalid(special),
        IdError::TooLong => Error::invalid(format!("uid {error}")),
    })
}

/// Members of a list. Blank ones are dropped, duplicates too; order is kept.
pub(super) fn uids(list: &[String]) -> Result<Vec<Uid>> {
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    let mut out = Vec::with_capacity(list.len());
    for text in list {
        if blank(text) || !seen.insert(text.as_str()) {
            continue;
        }
        out.push(uid(text, "uid不能为空！", "uid不能包含特殊字符！")?);
    }
    Ok(out)
}

/// Sender of an API message; blank = the server itself.
pub(super) fn sender(text: &str) -> Result<Uid> {
    if blank(text) {
        return Ok(Uid::trusted(SYSTEM_UID));
    }
    uid(text, "from_uid不能为空！", "from_uid不能包含特殊字符！")
}

/// A channel by its stored id, possibly a twin's. `None`: no channel can have this id.
pub(super) fn stored(id: &str, kind: u8) -> Option<ChannelKey> {
    let (base, twin) = match id.strip_suffix(COMMAND_SUFFIX) {
        Some(base) => (base, true),
        None => (id, false),
    };
    let base = ChannelId::parse_generated(base).ok()?;
    let key = ChannelKey::new(base, ChannelType(kind));
    Some(if twin { key.command() } else { key })
}

/// A channel whose row, members or lists are changed. For persons the id is the user's own uid.
pub(super) fn owned(id: &str, kind: u8) -> Result<ChannelKey> {
    let pair = ChannelType(kind) == ChannelType::PERSON && has_special(id);
    stored(id, kind)
        .filter(|key| !key.twin && !pair)
        .ok_or_else(|| Error::invalid("频道ID不合法！"))
}

/// A channel as one of its users names it: for persons the peer's uid. `None`: no channel can have this id.
pub(super) fn seen_by(login: &str, id: &str, kind: u8) -> Option<ChannelKey> {
    if ChannelType(kind) != ChannelType::PERSON {
        return stored(id, kind);
    }
    let (id, twin) = match id.strip_suffix(COMMAND_SUFFIX) {
        Some(base) => (base, true),
        None => (id, false),
    };
    let key = ChannelKey::person(&Uid::parse(login).ok()?, &Uid::parse(id).ok()?);
    Some(if twin { key.command() } else { key })
}

/// Where a message of `from` to `id` goes.
pub(super) fn target(from: &Uid, id: &str, kind: u8) -> Result<ChannelKey> {
    let invalid = || Error::invalid("频道ID不合法！");
    ensure(!has_special(id), "频道ID不合法！")?;
    ensure(ChannelType(kind).is_known(), "频道类型错误！")?;
    match ChannelType(kind) {
        ChannelType::PERSON => {
            let peer = Uid::parse(id).map_err(|_| invalid())?;
            Ok(ChannelKey::person(from, &peer))
        }
        ChannelType::AGENT => {
            let id = ChannelId::parse_generated(&format!("{from}@{id}")).map_err(|_| invalid())?;
            Ok(ChannelKey::new(id, ChannelType::AGENT))
        }
        // A temporary channel may be named with its suffix, as v2 shows it.
        ChannelType::TEMP => stored(id, kind).ok_or_else(invalid),
        other => {
            let id = ChannelId::parse(id).map_err(|_| invalid())?;
            Ok(ChannelKey::new(id, other))
        }
    }
}

/// The temporary channel of a list of recipients: FNV-1a of the uids joined by commas. Its commands are on the twin.
pub fn temporary_channel(recipients: &[Uid]) -> ChannelKey {
    let mut hash = Fnv::new();
    for (n, uid) in recipients.iter().enumerate() {
        if n > 0 {
            hash.write(b",");
        }
        hash.write(uid.as_str().as_bytes());
    }
    ChannelKey::new(ChannelId::trusted(&hash.0.to_string()), ChannelType::TEMP)
}

/// The channel of commands that are only delivered to who is online now.
pub fn online_target(id: &str) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(id), ChannelType::TEMP)
}

/// FNV-1a of 64 bits: v2's id of a list entry.
pub(super) fn fnv1a64(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::new();
    hash.write(bytes);
    hash.0
}

struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<Uid> {
        names.iter().map(|n| Uid::parse(n).unwrap()).collect()
    }

    #[test]
    fn temporary_channels_are_named_by_their_list() {
        let id = |names: &[&str]| temporary_channel(&list(names)).command().stored_id();
        assert_eq!(id(&["alice", "bob"]), "5412798438395137264____cmd");
        assert_eq!(id(&["u1", "u2"]), "17922244540036557902____cmd");
        assert_eq!(id(&["u2", "u1"]), "5981087602159037568____cmd");
        assert_eq!(fnv1a64(b"u1"), 631_765_120_777_144_307);
    }

    #[test]
    fn targets() {
        let from = Uid::parse("alice").unwrap();
        let id = |id: &str, kind| target(&from, id, kind).map(|k| k.stored_id());
        assert_eq!(id("bob", 1).unwrap(), "bob@alice");
        assert_eq!(id("ai", 11).unwrap(), "alice@ai");
        assert_eq!(id("g1", 2).unwrap(), "g1");
        assert_eq!(id("5____cmd", 8).unwrap(), "5____cmd");
        assert_eq!(id("a@b", 2), Err(Error::invalid("频道ID不合法！")));
        assert_eq!(id("g____cmd", 2), Err(Error::invalid("频道ID不合法！")));
        assert_eq!(id("g1", 0), Err(Error::invalid("频道类型错误！")));
    }

    #[test]
    fn only_channels_of_their_own_have_rows() {
        assert_eq!(owned("u1", 1).unwrap().stored_id(), "u1");
        assert_eq!(owned("p@topic", 5).unwrap().stored_id(), "p@topic");
        for (id, kind) in [("a@b", 1), ("g____cmd", 2), (" ", 2)] {
            assert_eq!(
                owned(id, kind),
                Err(Error::invalid("频道ID不合法！")),
                "{id}"
            );
        }
    }

    #[test]
    fn channels_as_their_users_name_them() {
        assert_eq!(seen_by("alice", "bob", 1).unwrap().stored_id(), "bob@alice");
        assert!(seen_by("alice", "bob____cmd", 1).unwrap().twin);
        assert_eq!(seen_by("", "bob", 1), None);
        assert_eq!(seen_by("alice", "a@b", 1), None);
        assert_eq!(seen_by("", "u@ai", 11).unwrap().stored_id(), "u@ai");
    }

    #[test]
    fn lists_drop_blanks_and_duplicates() {
        let list = ["b", " ", "a", "b", ""].map(str::to_owned);
        let uids = uids(&list).unwrap();
        assert_eq!(uids.iter().map(Uid::as_str).collect::<Vec<_>>(), ["b", "a"]);
        assert!(super::uids(&["a@b".to_owned()]).is_err());
    }
}
