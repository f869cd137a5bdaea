//! One function per route: decode, call the use case, encode.

pub(super) mod channels;
pub(super) mod conversations;
pub(super) mod messages;
pub(super) mod system;
pub(super) mod users;
