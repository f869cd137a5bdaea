//! From the channel a SEND names to the channel it is stored in. Spec: wire-protocol 9, messaging 2.2–2.3.

use wk_proto::limits::ID_BYTES_MAX;
use wk_proto::{ChannelId, ChannelKey, ChannelType, IdError, Reason, Uid};

/// The stored channel of a SEND by `me`, or the reason of its refusal: 23 for an unknown type, 16 for an id that names no channel.
pub(crate) fn stored_channel(me: &Uid, id: &[u8], kind: u8) -> Result<ChannelKey, Reason> {
    let kind = ChannelType(kind);
    if !kind.is_known() {
        return Err(Reason::NotSupportChannelType);
    }
    let id = std::str::from_utf8(id).map_err(|_| Reason::ChannelIdError)?;
    match kind {
        ChannelType::PERSON => Ok(ChannelKey::person(me, &peer(me, id)?)),
        ChannelType::AGENT => {
            let agent = Uid::parse(id).map_err(|_| Reason::ChannelIdError)?;
            let pair = ChannelId::trusted(&format!("{me}@{agent}"));
            Ok(ChannelKey::new(pair, kind))
        }
        // Ids the application composes: `visitor|anything` and `community@topic`.
        ChannelType::CUSTOMER_SERVICE | ChannelType::COMMUNITY_TOPIC => {
            channel(id, ChannelId::parse_generated, kind)
        }
        _ => channel(id, ChannelId::parse, kind),
    }
}

fn channel(
    id: &str,
    parse: fn(&str) -> Result<ChannelId, IdError>,
    kind: ChannelType,
) -> Result<ChannelKey, Reason> {
    if id.len() > ID_BYTES_MAX {
        return Err(Reason::ChannelIdError);
    }
    parse(id)
        .map(|id| ChannelKey::new(id, kind))
        .map_err(|_| Reason::ChannelIdError)
}

/// A peer's uid, or the pair `x@y` in either order if one of the two is the sender.
fn peer(me: &Uid, id: &str) -> Result<Uid, Reason> {
    let peer = match id.split_once('@') {
        None => id,
        Some((peer, other)) if other == me.as_str() => peer,
        Some((first, peer)) if first == me.as_str() => peer,
        Some(_) => return Err(Reason::ChannelIdError),
    };
    Uid::parse(peer).map_err(|_| Reason::ChannelIdError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str, kind: u8) -> Result<String, Reason> {
        let me = Uid::parse("u1").unwrap();
        stored_channel(&me, id.as_bytes(), kind).map(|key| key.stored_id())
    }

    #[test]
    fn persons_and_agents_get_pair_ids() {
        // The pair of the recorded person channel.
        assert_eq!(stored("u2", 1).unwrap(), "u2@u1");
        assert_eq!(stored("u1@u2", 1).unwrap(), "u2@u1");
        assert_eq!(stored("u2@u1", 1).unwrap(), "u2@u1");
        assert_eq!(stored("u1", 1).unwrap(), "u1@u1");
        assert_eq!(stored("bot", 11).unwrap(), "u1@bot");
    }

    #[test]
    fn composed_ids_pass_where_applications_compose_them() {
        assert_eq!(stored("v1|svc", 3).unwrap(), "v1|svc");
        assert_eq!(stored("c@t", 5).unwrap(), "c@t");
        assert_eq!(stored("g", 2).unwrap(), "g");
    }

    #[test]
    fn ids_that_name_no_channel_are_refused() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        for (id, kind) in [
            ("", 1),
            ("", 2),
            (" ", 2),
            ("x@y", 1),
            ("x@y@u1", 1),
            ("@u1", 1),
            ("u1@", 1),
            ("a#b", 1),
            ("a@b", 2),
            ("a&b", 2),
            ("a\0b", 2),
            ("a\0b", 3),
            ("g____cmd", 2),
            ("c@t____cmd", 5),
            ("a@b", 11),
            (&long, 1),
            (&long, 2),
            (&long, 3),
        ] {
            assert_eq!(
                stored(id, kind),
                Err(Reason::ChannelIdError),
                "{id:?} {kind}"
            );
        }
        let me = Uid::parse("u1").unwrap();
        assert_eq!(stored_channel(&me, b"\xff", 2), Err(Reason::ChannelIdError));
    }

    #[test]
    fn unknown_types_come_before_bad_ids() {
        for kind in [0, 13, 255] {
            assert_eq!(stored("", kind), Err(Reason::NotSupportChannelType));
        }
    }
}
