//! Ids, reasons, limits, the message [`Record`], and the two client codecs of a WuKongIM server.
//!
//! Layer 0: bytes in, values out. No I/O, no clock, no random source (keys and salts are arguments).
//!
//! * [`ids`], [`time`], [`channel`], [`reason`], [`limits`]: the vocabulary every other crate shares;
//! * [`record`]: the one encoding of a message body, made once and sliced everywhere after;
//! * [`frame`] and [`wire`]: WKProto 0–5, values and bytes;
//! * [`jsonrpc`]: the same conversation as JSON-RPC;
//! * [`crypto`]: key exchange, payload encryption, msgKey;
//! * [`proxy`]: the PROXY header a load balancer puts before either of them.

pub mod channel;
pub mod crypto;
pub mod frame;
pub mod ids;
pub mod jsonrpc;
pub mod limits;
pub mod proxy;
pub mod reason;
pub mod record;
pub mod time;
pub mod wire;

pub use channel::{ChannelKey, ChannelType};
pub use ids::{
    ChannelId, ConnId, Epoch, Fence, GroupId, IdError, LogIndex, MessageId, MessageSeq, NodeId,
    ReplicaId, SessionRef, SlotId, Term, Ticket, Uid,
};
pub use reason::Reason;
pub use record::{Flags, Record};
pub use time::{Mono, WallMs};
