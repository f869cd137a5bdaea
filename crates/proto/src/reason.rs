//! The registry of reason codes. Spec: wire-protocol 7, messaging 0.3.

/// A code in CONNACK, SENDACK, DISCONNECT and JSON-RPC results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the registry's")]
pub enum Reason {
    Unknown = 0,
    Success = 1,
    AuthFail = 2,
    SubscriberNotExist = 3,
    InBlacklist = 4,
    ChannelNotExist = 5,
    UserNotOnNode = 6,
    SenderOffline = 7,
    MsgKeyError = 8,
    PayloadDecodeError = 9,
    ForwardSendPacketError = 10,
    NotAllowSend = 11,
    ConnectKick = 12,
    NotInWhitelist = 13,
    QueryTokenError = 14,
    SystemError = 15,
    ChannelIdError = 16,
    NodeMatchError = 17,
    NodeNotMatch = 18,
    Ban = 19,
    NotSupportHeader = 20,
    ClientKeyIsEmpty = 21,
    RateLimit = 22,
    NotSupportChannelType = 23,
    Disband = 24,
    SendBan = 25,
    ChannelDeleting = 26,
    ProtocolUpgradeRequired = 27,
    IdempotencyConflict = 28,
    MessageSeqExhausted = 29,
}

impl Reason {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Inverse of [`Self::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        use Reason::*;
        const ALL: [Reason; 30] = [
            Unknown,
            Success,
            AuthFail,
            SubscriberNotExist,
            InBlacklist,
            ChannelNotExist,
            UserNotOnNode,
            SenderOffline,
            MsgKeyError,
            PayloadDecodeError,
            ForwardSendPacketError,
            NotAllowSend,
            ConnectKick,
            NotInWhitelist,
            QueryTokenError,
            SystemError,
            ChannelIdError,
            NodeMatchError,
            NodeNotMatch,
            Ban,
            NotSupportHeader,
            ClientKeyIsEmpty,
            RateLimit,
            NotSupportChannelType,
            Disband,
            SendBan,
            ChannelDeleting,
            ProtocolUpgradeRequired,
            IdempotencyConflict,
            MessageSeqExhausted,
        ];
        ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_are_their_positions() {
        for code in 0..=29 {
            assert_eq!(Reason::from_code(code).unwrap().code(), code);
        }
        assert_eq!(Reason::from_code(30), None);
    }
}
