//! Row by row: messaging 3.2 and 3.3. Each row is shown to match, and where it stands: facts of later rows are set against it.

use std::sync::Arc;

use super::*;
use wk_proto::{ChannelId, ConnId, NodeId, SessionRef};

const CLIENT: Origin = Origin::Client(SessionRef {
    node: NodeId(1),
    conn: ConnId(1),
});

/// Everything that can refuse, except ban and disband.
fn hostile() -> SenderFacts {
    SenderFacts {
        flags: ChannelFlags {
            send_ban: true,
            ..ChannelFlags::default()
        },
        denied: true,
        member: false,
        allow_list: true,
        allowed: false,
    }
}

/// Nothing against the sender.
fn friendly() -> SenderFacts {
    SenderFacts {
        member: true,
        ..SenderFacts::default()
    }
}

fn flags(ban: bool, disband: bool) -> ChannelFlags {
    ChannelFlags {
        ban,
        disband,
        ..ChannelFlags::default()
    }
}

struct Case {
    policy: Policy,
    channel: ChannelKey,
    from: Uid,
    origin: Origin,
    facts: SenderFacts,
    stranger: Option<bool>,
}

impl Case {
    fn new(kind: u8, base: &str, from: &str, facts: SenderFacts) -> Self {
        Self {
            policy: Policy {
                system_uids: Arc::new([Uid::trusted("sys")].into()),
                ..Policy::new()
            },
            channel: ChannelKey::new(ChannelId::trusted(base), ChannelType(kind)),
            from: Uid::trusted(from),
            origin: CLIENT,
            facts,
            stranger: None,
        }
    }
    fn person(from: &str, to: &str, facts: SenderFacts) -> Self {
        let pair = ChannelKey::person(&Uid::trusted(from), &Uid::trusted(to));
        Self::new(1, pair.base.as_str(), from, facts)
    }
    /// With person allow lists enforced.
    fn enforced(mut self) -> Self {
        self.policy.whitelist_off_of_person = false;
        self
    }
    fn server(mut self) -> Self {
        self.origin = Origin::Server;
        self
    }
    fn twin(mut self) -> Self {
        self.channel.twin = true;
        self
    }
    fn stranger(mut self, allowed: bool) -> Self {
        self.stranger = Some(allowed);
        self
    }
    fn ruling(&self) -> Ruling {
        judge(&Question {
            policy: &self.policy,
            channel: &self.channel,
            from: &self.from,
            origin: self.origin,
            facts: self.facts,
            receiver_allows_strangers: self.stranger,
        })
    }
    fn passes(&self) {
        assert_eq!(self.ruling(), Ruling::Pass, "{:?}", self.channel);
    }
    fn refuses(&self, reason: Reason) {
        assert_eq!(self.ruling(), Ruling::Refuse(reason), "{:?}", self.channel);
    }
}

#[test]
fn undefined_types_are_refused_for_everybody() {
    for kind in [0, 13, 99, 255] {
        let case = Case::new(kind, "c", "u1", friendly());
        case.refuses(Reason::NotSupportChannelType);
        case.server().refuses(Reason::NotSupportChannelType);
    }
}

#[test]
fn ban_before_disband_before_the_sender_and_for_everybody() {
    for kind in [2, 4, 5, 7, 8, 9, 12] {
        for from in ["u1", "sys", "____system"] {
            let case = |ban, disband| {
                let facts = SenderFacts {
                    flags: flags(ban, disband),
                    ..hostile()
                };
                Case::new(kind, "c", from, facts)
            };
            case(true, true).refuses(Reason::Ban);
            case(true, false).refuses(Reason::Ban);
            case(false, true).refuses(Reason::Disband);
            case(true, false).server().refuses(Reason::Ban);
            case(false, true).server().twin().refuses(Reason::Disband);
        }
    }
}

#[test]
fn a_pairs_own_row_can_be_banned() {
    let facts = SenderFacts {
        flags: flags(true, false),
        ..friendly()
    };
    Case::person("u1", "u2", facts).refuses(Reason::Ban);
    Case::person("u1", "sys", facts)
        .server()
        .refuses(Reason::Ban);
}

#[test]
fn four_types_skip_ban_and_disband() {
    let facts = SenderFacts {
        flags: flags(true, true),
        ..friendly()
    };
    for (kind, base) in [(3, "v|x"), (6, "i"), (10, "v"), (11, "u1@bot")] {
        Case::new(kind, base, "u1", facts).passes();
    }
}

#[test]
fn visitors_stay_in_their_channels_where_visitors_are_on() {
    let visitor = |kind, base: &str| Case::new(kind, base, "v___vstr", friendly());
    visitor(2, "g").passes();
    for (kind, base) in [(2, "g"), (6, "i"), (11, "v___vstr@bot")] {
        let mut case = visitor(kind, base);
        case.policy.visitor_suffix = Some("___vstr".into());
        case.refuses(Reason::NotAllowSend);
        case.server().passes();
    }
    for (kind, base) in [(3, "v___vstr|x"), (10, "v___vstr"), (10, "other")] {
        let mut case = visitor(kind, base);
        case.policy.visitor_suffix = Some("___vstr".into());
        case.passes();
    }
}

#[test]
fn row_1_info_and_customer_service_are_open() {
    Case::new(6, "i", "stranger", hostile()).passes();
    Case::new(3, "v|x", "stranger", hostile()).passes();
}

#[test]
fn row_2_agents_pair_passes_and_others_fall_through() {
    Case::new(11, "u1@bot", "u1", hostile()).passes();
    Case::new(11, "u1@bot", "bot", hostile()).passes();
    let outsider = SenderFacts::default();
    Case::new(11, "u1@bot", "u2", outsider).refuses(Reason::SubscriberNotExist);
}

#[test]
fn row_3_the_visitor_passes_and_others_are_judged_as_members() {
    Case::new(10, "v1", "v1", hostile()).passes();
    let outsider = SenderFacts::default();
    Case::new(10, "v1", "u2", outsider).refuses(Reason::SubscriberNotExist);
    Case::new(10, "v1", "u2", friendly()).passes();
}

#[test]
fn row_4_the_server_is_not_judged_as_a_sender() {
    Case::new(2, "g", "u1", hostile()).server().passes();
    Case::new(2, "g", "u1", hostile()).server().twin().passes();
    Case::new(8, "t", "u1", hostile()).server().passes();
    let person = Case::person("u1", "u2", hostile()).enforced();
    person.server().passes();
}

#[test]
fn row_5_system_accounts_may_send_anywhere() {
    for from in ["sys", "____system"] {
        Case::new(2, "g", from, hostile()).passes();
        Case::person(from, "u2", hostile()).enforced().passes();
    }
}

#[test]
fn row_6_anybody_may_message_a_system_account() {
    for to in ["sys", "____system"] {
        Case::person("u1", to, hostile()).enforced().passes();
    }
}

#[test]
fn row_7_the_denied_are_refused_before_strangers_are_allowed() {
    let facts = SenderFacts {
        denied: true,
        allowed: true,
        ..friendly()
    };
    Case::person("u1", "u2", facts).refuses(Reason::InBlacklist);
    let enforced = Case::person("u1", "u2", facts).enforced();
    enforced.stranger(true).refuses(Reason::InBlacklist);
}

#[test]
fn row_8_strangers_pass_where_the_receiver_wants_them() {
    let case = || Case::person("u1", "u2", SenderFacts::default()).enforced();
    case().stranger(true).passes();
    case().twin().stranger(true).passes();
}

#[test]
fn row_9_the_allow_list_is_asked_when_it_is_enforced() {
    let case = || Case::person("u1", "u2", SenderFacts::default());
    case()
        .enforced()
        .stranger(false)
        .refuses(Reason::NotInWhitelist);
    let mut allowed = case().enforced();
    allowed.facts.allowed = true;
    allowed.passes();
    assert_eq!(case().enforced().ruling(), Ruling::AskReceiver);
}

#[test]
fn row_10_persons_pass_otherwise() {
    // A channel's send_ban or membership means nothing between persons.
    let facts = SenderFacts {
        denied: false,
        ..hostile()
    };
    Case::person("u1", "u2", facts).passes();
    Case::person("u1", "u1", facts).passes();
}

#[test]
fn nobody_sends_in_other_peoples_pairs() {
    let pair = Case::person("u2", "u3", friendly()).channel;
    let case = Case::new(1, pair.base.as_str(), "u1", friendly());
    case.refuses(Reason::ChannelIdError);
}

#[test]
fn row_11_a_muted_channel_is_refused_before_the_lists() {
    Case::new(2, "g", "u1", hostile()).refuses(Reason::SendBan);
    Case::new(2, "g", "u1", hostile())
        .twin()
        .refuses(Reason::SendBan);
}

#[test]
fn row_12_the_denied_are_refused_before_membership() {
    let facts = SenderFacts {
        flags: ChannelFlags::default(),
        ..hostile()
    };
    Case::new(2, "g", "u1", facts).refuses(Reason::InBlacklist);
}

#[test]
fn row_13_strangers_are_refused_before_the_allow_list() {
    let facts = SenderFacts {
        allow_list: true,
        ..SenderFacts::default()
    };
    for kind in [2, 4, 5, 7, 8, 9, 12] {
        Case::new(kind, "c", "u1", facts).refuses(Reason::SubscriberNotExist);
    }
}

#[test]
fn row_14_a_non_empty_allow_list_binds_members_whatever_the_option() {
    let facts = SenderFacts {
        allow_list: true,
        ..friendly()
    };
    Case::new(2, "g", "u1", facts).refuses(Reason::NotInWhitelist);
    Case::new(2, "g", "u1", facts)
        .enforced()
        .refuses(Reason::NotInWhitelist);
    let allowed = SenderFacts {
        allowed: true,
        ..facts
    };
    Case::new(2, "g", "u1", allowed).passes();
}

#[test]
fn row_15_members_pass_otherwise() {
    for kind in [2, 4, 5, 7, 8, 9, 12] {
        Case::new(kind, "c", "u1", friendly()).passes();
        Case::new(kind, "c", "u1", friendly()).twin().passes();
    }
}
