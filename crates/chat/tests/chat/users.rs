//! Tokens, admission, send bans, system accounts.

use wk_chat::request::{ChannelFlags, DeviceLevel, Grant};
use wk_chat::{Answer, Effect, KICK_TEXT, Query, Reply, Write};
use wk_proto::{Fence, Reason, Term};

use crate::world::{World, own, person, uid, uids};

const AUTH_FAIL: Reply = Reply::Refused(Reason::AuthFail);

fn with_tokens() -> World {
    let mut w = World::new();
    w.policy.token_auth = true;
    w.done(token("u1", 0, DeviceLevel::Master, "t0"));
    w.done(token("u1", 1, DeviceLevel::Slave, "t1"));
    w.take_effects();
    w
}

fn token(user: &str, device_flag: u8, level: DeviceLevel, token: &str) -> Write {
    Write::SetToken {
        uid: uid(user),
        device_flag,
        level,
        token: token.into(),
    }
}

fn flags(user: &str, flags: ChannelFlags) -> Write {
    Write::SetChannel {
        channel: own(user),
        flags,
        create_only: false,
    }
}

fn level(reply: &Reply) -> Option<DeviceLevel> {
    match reply {
        Reply::Admitted(grant, _) => Some(grant.level),
        _ => None,
    }
}

#[test]
fn the_token_of_the_flag_admits_with_its_level() {
    let mut w = with_tokens();
    assert_eq!(
        level(&w.admit("u1", "t0", 0, "d")),
        Some(DeviceLevel::Master)
    );
    assert_eq!(
        level(&w.admit("u1", "t1", 1, "d")),
        Some(DeviceLevel::Slave)
    );
}

#[test]
fn wrong_empty_missing_and_other_flags_tokens_fail() {
    let mut w = with_tokens();
    for (user, token, flag) in [
        ("u1", "wrong", 0),
        ("u1", "", 0),
        ("u1", "t0 ", 0),
        ("u1", "t0", 1),
        ("u1", "t0", 7),
        ("u9", "t0", 0),
    ] {
        assert_eq!(
            w.admit(user, token, flag, "d"),
            AUTH_FAIL,
            "{user} {token} {flag}"
        );
    }
}

#[test]
fn without_token_auth_everybody_is_a_slave() {
    let mut w = with_tokens();
    w.policy.token_auth = false;
    assert_eq!(
        level(&w.admit("u1", "t0", 0, "d")),
        Some(DeviceLevel::Slave)
    );
    assert_eq!(level(&w.admit("u9", "", 0, "d")), Some(DeviceLevel::Slave));
}

#[test]
fn the_servers_own_names_are_refused() {
    let mut w = World::new();
    assert_eq!(w.admit("____system", "", 0, "d"), AUTH_FAIL);
    assert_eq!(w.admit("u1", "", 0, "____device"), AUTH_FAIL);
}

#[test]
fn the_manager_needs_the_configured_token() {
    let mut w = World::new();
    w.policy.manager_token = Some("secret".into());
    assert_eq!(w.admit("____manager", "", 0, "d"), AUTH_FAIL);
    assert_eq!(w.admit("____manager", "Secret", 0, "d"), AUTH_FAIL);
    assert_eq!(
        level(&w.admit("____manager", "secret", 0, "d")),
        Some(DeviceLevel::Slave)
    );
}

#[test]
fn the_manager_without_a_configured_token_is_any_uid() {
    let mut w = with_tokens();
    assert_eq!(w.admit("____manager", "", 0, "d"), AUTH_FAIL);
    w.policy.manager_token = Some("".into());
    assert_eq!(w.admit("____manager", "", 0, "d"), AUTH_FAIL);
}

#[test]
fn visitors_pass_only_where_visitors_are_on() {
    let mut w = with_tokens();
    assert_eq!(w.admit("x___vstr", "", 0, "d"), AUTH_FAIL);
    w.policy.visitor_suffix = Some("___vstr".into());
    assert_eq!(
        level(&w.admit("x___vstr", "", 0, "d")),
        Some(DeviceLevel::Slave)
    );
    w.policy.visitor_suffix = Some("".into());
    assert_eq!(w.admit("u9", "", 0, "d"), AUTH_FAIL);
}

#[test]
fn a_banned_user_is_refused_after_the_token_and_gets_no_token() {
    let mut w = with_tokens();
    let ban = ChannelFlags {
        ban: true,
        disband: true,
        ..ChannelFlags::default()
    };
    w.done(flags("u1", ban));
    assert_eq!(w.admit("u1", "t0", 0, "d"), Reply::Refused(Reason::Ban));
    assert_eq!(w.admit("u1", "wrong", 0, "d"), AUTH_FAIL);
    let set = token("u1", 0, DeviceLevel::Master, "new");
    assert_eq!(w.write(set.clone()), Reply::Refused(Reason::Ban));
    w.done(flags("u1", ChannelFlags { ban: false, ..ban }));
    assert_eq!(w.write(set), Reply::Refused(Reason::Disband));
    assert_eq!(
        level(&w.admit("u1", "t0", 0, "d")),
        Some(DeviceLevel::Master)
    );
    assert_eq!(w.take_effects(), vec![]);
}

#[test]
fn fences_grow_within_a_term() {
    let mut w = World::new();
    let fence = |reply| match reply {
        Reply::Admitted(_, fence) => fence,
        other => panic!("{other:?}"),
    };
    let first = fence(w.admit("u1", "", 0, "d"));
    let second = fence(w.admit("u1", "", 0, "e"));
    assert_eq!(
        first,
        Fence {
            term: Term(1),
            n: 1
        }
    );
    assert!(second > first);
}

#[test]
fn a_master_token_sends_the_flags_sessions_away_and_a_slave_token_does_not() {
    let mut w = World::new();
    w.done(token("u1", 3, DeviceLevel::Slave, "t"));
    assert_eq!(w.take_effects(), vec![]);
    for _ in 0..2 {
        // Also when the same token is stored again.
        w.done(token("u1", 3, DeviceLevel::Master, "t"));
        let kick = Effect::Kick {
            uid: uid("u1"),
            device_flag: Some(3),
            text: KICK_TEXT,
            delay_ms: 10_000,
        };
        assert_eq!(w.take_effects(), vec![kick]);
    }
}

#[test]
fn quitting_empties_tokens_and_kicks_with_or_without_rows() {
    let mut w = with_tokens();
    let quit = |user: &str, device_flag| Write::QuitDevices {
        uid: uid(user),
        device_flag,
    };
    assert_eq!(w.write(quit("u1", Some(1))), Reply::Flags(vec![1]));
    assert_eq!(w.admit("u1", "t1", 1, "d"), AUTH_FAIL);
    assert_eq!(w.admit("u1", "", 1, "d"), AUTH_FAIL);
    assert_eq!(
        level(&w.admit("u1", "t0", 0, "d")),
        Some(DeviceLevel::Master)
    );
    assert_eq!(w.write(quit("u1", None)), Reply::Flags(vec![0, 1]));
    assert_eq!(w.admit("u1", "t0", 0, "d"), AUTH_FAIL);
    w.take_effects();
    assert_eq!(w.write(quit("u9", None)), Reply::Flags(vec![]));
    let kick = Effect::Kick {
        uid: uid("u9"),
        device_flag: None,
        text: "",
        delay_ms: 2_000,
    };
    assert_eq!(w.take_effects(), vec![kick]);
}

#[test]
fn a_send_ban_is_in_the_grant_and_told_when_it_changes() {
    let mut w = World::new();
    let ban = ChannelFlags {
        send_ban: true,
        ..ChannelFlags::default()
    };
    let told = |on| vec![Effect::SendBan { uid: uid("u1"), on }];
    w.done(flags("u1", ban));
    assert_eq!(w.take_effects(), told(true));
    w.done(flags("u1", ban));
    assert_eq!(w.take_effects(), vec![]);
    let Reply::Admitted(grant, _) = w.admit("u1", "", 0, "d") else {
        panic!("refused");
    };
    assert_eq!(
        grant,
        Grant {
            level: DeviceLevel::Slave,
            send_ban: true
        }
    );
    w.done(flags("u1", ChannelFlags::default()));
    assert_eq!(w.take_effects(), told(false));
}

#[test]
fn system_accounts_are_told_as_a_whole() {
    let mut w = World::new();
    let change = |list: &[&str], add| Write::SystemUids {
        uids: uids(list),
        add,
    };
    w.done(change(&["s2", "s1", "s1"], true));
    w.done(change(&["s2", "nobody"], false));
    let effects = w.take_effects();
    assert_eq!(effects[0], Effect::SystemUids(uids(&["s1", "s2"]).into()));
    assert_eq!(effects[1], Effect::SystemUids(uids(&["s1"]).into()));
    assert_eq!(
        w.query(Query::SystemUids),
        Answer::SystemUids(uids(&["s1"]))
    );
}

#[test]
fn a_user_row_and_his_pairs_are_different_rows() {
    let mut w = World::new();
    let ban = ChannelFlags {
        ban: true,
        ..ChannelFlags::default()
    };
    w.done(flags("u2", ban));
    // A user's ban stops his logins, not messages to him (messaging 3.2).
    assert_eq!(w.reason(&person("u1", "u2"), "u1"), Reason::Success);
}
