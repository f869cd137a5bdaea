//! `cluster.initNodes`: from text to a list, and what of it the founders promise each other.

use std::collections::BTreeMap;
use std::fmt;

use wk_chat::control::{FOUNDERS_MAX, SLOTS_MAX};
use wk_proto::NodeId;
use xxhash_rust::xxh3::xxh3_64;

/// Port of an entry without one: that of the default `cluster.addr`.
pub const DEFAULT_PORT: u16 = 11_110;

/// The founding nodes, where each is to be found, and who is who. Never empty; holds this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeList {
    /// `host:port` by node. Addresses are where to dial, never who answers: the driver resolves names again at each attempt.
    pub nodes: BTreeMap<NodeId, String>,
    /// What was odd but not wrong, for the report.
    pub warnings: Vec<String>,
}

/// Why `cluster.initNodes` cannot be used (exit 78). Texts name the entry and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not `id@host` or `id@host:port`.
    #[error("cluster.initNodes: {entry:?} is not id@host:port: {why}")]
    Malformed {
        /// As configured.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One node, two places.
    #[error(
        "cluster.initNodes: node {node} is listed as {first} and as {second}; each id may be listed once"
    )]
    Contradiction {
        /// Which.
        node: NodeId,
        /// One place.
        first: String,
        /// The other.
        second: String,
    },
    /// One place, two nodes.
    #[error(
        "cluster.initNodes: nodes {first} and {second} are both at {addr}; each node needs its own address"
    )]
    SameAddress {
        /// One node.
        first: NodeId,
        /// The other.
        second: NodeId,
        /// The place.
        addr: String,
    },
    /// More than [`FOUNDERS_MAX`].
    #[error("cluster.initNodes lists {0} nodes; at most {FOUNDERS_MAX} found a cluster")]
    TooMany(usize),
    /// Replica or slot counts nobody can have.
    #[error("{key} is {value}; it must be 1 to {max}")]
    Count {
        /// Which key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// Largest.
        max: u64,
    },
}

impl NodeList {
    /// The list of a node that was told of no others: a cluster of one.
    pub fn alone(node: NodeId, addr: &str) -> Self {
        Self {
            nodes: BTreeMap::from([(node, addr.to_owned())]),
            warnings: Vec::new(),
        }
    }

    /// Reads `cluster.initNodes`. `addr` is where this node is reached (`host:port`): its entry if the list lacks it, and what its
    /// entry's port is compared with. An empty list is [`Self::alone`].
    pub fn parse<S: AsRef<str>>(
        entries: &[S],
        node: NodeId,
        addr: &str,
    ) -> Result<Self, ListError> {
        let mut list = Self {
            nodes: BTreeMap::new(),
            warnings: Vec::new(),
        };
        for entry in entries {
            list.add(entry.as_ref())?;
        }
        list.add_self(node, addr);
        list.check()?;
        Ok(list)
    }

    fn add(&mut self, entry: &str) -> Result<(), ListError> {
        let (node, addr) = parse_entry(entry).map_err(|why| ListError::Malformed {
            entry: entry.to_owned(),
            why,
        })?;
        match self.nodes.get(&node) {
            Some(first) if *first != addr => Err(ListError::Contradiction {
                node,
                first: first.clone(),
                second: addr,
            }),
            Some(_) => {
                let text = format!("cluster.initNodes lists node {node} twice");
                self.warnings.push(text);
                Ok(())
            }
            None => {
                self.nodes.insert(node, addr);
                Ok(())
            }
        }
    }

    fn add_self(&mut self, node: NodeId, addr: &str) {
        let port = |addr: &str| addr.rsplit_once(':').map(|(_, port)| port.to_owned());
        if self.nodes.is_empty() {
            self.nodes.insert(node, addr.to_owned());
        } else if let Some(listed) = self.nodes.get(&node) {
            if port(listed) != port(addr) {
                self.warnings.push(format!(
                    "cluster.initNodes has this node (id {node}) at {listed}, but it listens at {addr}: others will dial {listed}"
                ));
            }
        } else {
            self.warnings.push(format!(
                "cluster.initNodes lacks this node (id {node}): added as {addr}; every node must have the same list, or none forms"
            ));
            self.nodes.insert(node, addr.to_owned());
        }
    }

    fn check(&self) -> Result<(), ListError> {
        if self.nodes.len() > FOUNDERS_MAX {
            return Err(ListError::TooMany(self.nodes.len()));
        }
        let mut at = BTreeMap::new();
        for (node, addr) in &self.nodes {
            if let Some(first) = at.insert(addr, *node) {
                return Err(ListError::SameAddress {
                    first,
                    second: *node,
                    addr: addr.clone(),
                });
            }
        }
        Ok(())
    }
}

/// `id@host[:port]`, with v2's `tcp://` in front of the host if one likes; hosts are compared in lower case.
fn parse_entry(entry: &str) -> Result<(NodeId, String), &'static str> {
    let (id, place) = entry.trim().split_once('@').ok_or("there is no @")?;
    let id: u32 = id.trim().parse().map_err(|_| "the id is not a number")?;
    if id == 0 {
        return Err("ids start at 1");
    }
    let place = place.trim();
    let place = place.strip_prefix("tcp://").unwrap_or(place);
    let (host, port) = split_port(place)?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
        return Err("the host is not a name or an address");
    }
    Ok((NodeId(id), format!("{}:{port}", host.to_ascii_lowercase())))
}

fn split_port(place: &str) -> Result<(&str, u16), &'static str> {
    let port_starts = if place.starts_with('[') {
        let end = place.find(']').ok_or("a [ without ]")?;
        if end == 1 {
            return Err("the host is empty");
        }
        end + 1
    } else {
        if place.matches(':').count() > 1 {
            return Err("an IPv6 address goes into [ ]");
        }
        place.find(':').unwrap_or(place.len())
    };
    let (host, port) = place.split_at(port_starts);
    if port.is_empty() {
        return Ok((host, DEFAULT_PORT));
    }
    let port = port.strip_prefix(':').and_then(|p| p.parse().ok());
    match port {
        Some(port) if port > 0 => Ok((host, port)),
        _ => Err("the port is not 1 to 65535"),
    }
}

/// Hash of a [`Pledge`]: what promises are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListHash(pub u64);

impl fmt::Display for ListHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What founders promise each other to found, and nothing else for the life of their directories (H52). Two are the same cluster if
/// their hashes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pledge {
    /// Ascending, each once. Addresses are no part of it: they may change.
    pub nodes: Vec<NodeId>,
    /// `cluster.slotCount`.
    pub slot_count: u16,
    /// `cluster.slotReplicaCount`: replicas of a slot, fewer if there are fewer nodes.
    pub slot_replicas: u16,
    /// `cluster.channelReplicaCount`; nothing depends on it but that founders agree.
    pub channel_replicas: u16,
}

impl Pledge {
    /// Of a list and the counts that are fixed when a cluster is founded.
    pub fn new(
        list: &NodeList,
        slot_count: u16,
        slot_replicas: u16,
        channel_replicas: u16,
    ) -> Result<Self, ListError> {
        let counts = [
            ("cluster.slotCount", slot_count, SLOTS_MAX as u64),
            (
                "cluster.slotReplicaCount",
                slot_replicas,
                FOUNDERS_MAX as u64,
            ),
            (
                "cluster.channelReplicaCount",
                channel_replicas,
                FOUNDERS_MAX as u64,
            ),
        ];
        for (key, value, max) in counts {
            let value = u64::from(value);
            if !(1..=max).contains(&value) {
                return Err(ListError::Count { key, value, max });
            }
        }
        Ok(Self {
            nodes: list.nodes.keys().copied().collect(),
            slot_count,
            slot_replicas,
            channel_replicas,
        })
    }

    /// Its hash. Stable for ever: nodes of different builds compare it.
    pub fn hash(&self) -> ListHash {
        let mut bytes = Vec::with_capacity(6 + 4 * self.nodes.len());
        for count in [self.slot_count, self.slot_replicas, self.channel_replicas] {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        for node in &self.nodes {
            bytes.extend_from_slice(&node.0.to_le_bytes());
        }
        ListHash(xxh3_64(&bytes))
    }

    /// How many of its nodes must agree.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }
}

impl fmt::Display for Pledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nodes ")?;
        for (n, node) in self.nodes.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{node}")?;
        }
        write!(
            f,
            " with {} slots, {} replicas a slot, {} a channel",
            self.slot_count, self.slot_replicas, self.channel_replicas
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
