//! A client against a session, whatever the network does to the bytes and the slots to the order of results.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::world::{delivery, result, sent};
use common::{Client, World, config};
use proptest::collection::vec;
use proptest::prelude::*;
use wk_proto::frame::{Frame, Recvack, Send, Sendack};
use wk_proto::record::Body;
use wk_proto::{Fence, Flags, MessageId, Reason, Ticket};
use wk_session::{Effect, Event, SendPacket, Transport};

fn logged_in(version: u8) -> (World, Client) {
    let mut world = World::new(config(), Transport::Tcp);
    let mut client = Client::new(version);
    let connect = client.encode(&Frame::Connect(client.connect("alice")));
    let answer = world.log_in(&connect);
    assert!(matches!(client.receive(&answer)[..], [Frame::Connack(_)]));
    (world, client)
}

/// A SEND to one of a few channels; some of them are refused by the session.
#[derive(Clone, Debug)]
struct Plan {
    channel: u8,
    bad_key: bool,
    payload: Vec<u8>,
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        0u8..4,
        proptest::bool::weighted(0.2),
        vec(any::<u8>(), 0..60),
    )
        .prop_map(|(channel, bad_key, payload)| Plan {
            channel,
            bad_key,
            payload,
        })
}

impl Plan {
    fn frame(&self, client: &Client, seq: u32) -> Bytes {
        let mut send = client.seal(Send {
            flags: Flags(seq as u8 & 15),
            client_seq: seq,
            client_msg_no: format!("m{seq}").into(),
            channel_id: format!("c{}", self.channel).into(),
            channel_type: 2,
            payload: self.payload.clone().into(),
            ..Send::default()
        });
        if self.bad_key {
            send.msg_key = Bytes::from_static(b"wrong");
        }
        client.encode(&Frame::Send(send))
    }
}

/// Feeds `stream` in pieces cut at `cuts`.
fn feed(world: &mut World, stream: &[u8], cuts: &[prop::sample::Index], out: &mut Vec<Effect>) {
    let mut at: Vec<_> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    for pair in at.windows(2) {
        let piece = Bytes::copy_from_slice(&stream[pair[0]..pair[1]]);
        world.event_into(Event::Bytes(piece), out);
    }
}

fn calls(effects: &[Effect]) -> Vec<(Ticket, SendPacket)> {
    let calls = effects.iter().filter_map(|effect| match effect {
        Effect::Call(ticket, packet) => Some((*ticket, packet.clone())),
        _ => None,
    });
    calls.collect()
}

fn acks(client: &mut Client, effects: &[Effect]) -> Vec<Sendack> {
    let frames = client.receive(&sent(effects));
    let acks = frames.into_iter().map(|frame| match frame {
        Frame::Sendack(ack) => ack,
        other => panic!("unexpected {other:?}"),
    });
    acks.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn every_send_has_one_ack_in_the_order_of_its_channel(
        plans in vec(plan(), 1..40),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
        order in vec(any::<prop::sample::Index>(), 40),
    ) {
        let (mut world, mut client) = logged_in(5);
        let stream: Vec<u8> = (0..).zip(&plans).flat_map(|(seq, plan)| plan.frame(&client, seq)).collect();
        let mut effects = Vec::new();
        feed(&mut world, &stream, &cuts, &mut effects);

        let mut open = calls(&effects);
        let asked: Vec<_> = open.iter().map(|(_, p)| p.payload.to_vec()).collect();
        let good: Vec<_> = plans.iter().filter(|p| !p.bad_key).map(|p| p.payload.clone()).collect();
        prop_assert_eq!(asked, good);
        for pick in &order {
            if !open.is_empty() {
                let (ticket, _) = open.remove(pick.index(open.len()));
                world.event_into(Event::Done(ticket, result(ticket.0 as i64, 1)), &mut effects);
            }
        }
        prop_assert!(world.session.wants_bytes());

        let acks = acks(&mut client, &effects);
        prop_assert_eq!(acks.len(), plans.len());
        for channel in 0..4 {
            let sent: Vec<u32> = (0..).zip(&plans).filter(|(_, p)| p.channel == channel).map(|(s, _)| s).collect();
            let acked: Vec<u32> = acks.iter().map(|a| a.client_seq).filter(|s| sent.contains(s)).collect();
            prop_assert_eq!(acked, sent);
        }
        for ack in acks {
            let plan = &plans[ack.client_seq as usize];
            prop_assert_eq!(ack.reason_code, if plan.bad_key { 9 } else { 1 });
            prop_assert_eq!(ack.flags, Flags(ack.client_seq as u8 & 15));
            prop_assert!(ack.message_id != 0);
        }
    }

    #[test]
    fn what_arrives_is_what_was_sent_to_every_version(
        version in 0u8..=6,
        payload in vec(any::<u8>(), 0..3000),
        setting in any::<u8>(),
        flags in 0u8..16,
    ) {
        let (mut world, mut client) = logged_in(version);
        let body = Body {
            flags: Flags(flags),
            setting,
            expire: 9,
            message_id: MessageId(77),
            from_uid: "bob",
            client_msg_no: "m",
            topic: "t",
            stream_no: "s",
            payload: &payload,
            ..Body::default()
        };
        let effects = world.event(Event::Deliver(delivery("1:alice,bob", Some(3), &body)));
        let frames = client.receive(&sent(&effects));
        let [Frame::Recv(recv)] = &frames[..] else { panic!("{frames:?}") };
        prop_assert_eq!(&recv.payload, &payload);
        prop_assert_eq!((recv.setting, recv.flags), (setting, Flags(flags & 7)));
        prop_assert_eq!((recv.message_id, recv.message_seq), (77, 3));
        prop_assert_eq!(&recv.channel_id[..], b"bob");
        prop_assert_eq!(recv.expire, if version >= 3 { 9 } else { 0 });
        let stream = (2..5).contains(&version) && setting & 2 != 0;
        prop_assert_eq!((&recv.stream_no[..], recv.stream_id), if stream { (&b"s"[..], 77) } else { (&b""[..], 0) });
    }

    #[test]
    fn nothing_a_stranger_sends_hurts(pieces in vec(hostile(), 0..12), transport in transport()) {
        let mut world = World::new(config(), transport);
        for piece in pieces {
            world.bytes(&piece);
        }
        world.pass(60_000);
        prop_assert!(world.is_closed(), "strangers do not stay");
    }

    #[test]
    fn nothing_a_client_sends_hurts(
        pieces in vec(hostile(), 0..12),
        json in any::<bool>(),
        transport in transport(),
        kick in any::<bool>(),
    ) {
        let mut world = World::new(config(), transport);
        let client = Client::new(5);
        let connect = client.encode(&Frame::Connect(client.connect("alice")));
        world.log_in(if json { JSON_CONNECT.as_bytes() } else { &connect });
        for piece in pieces {
            let mut effects = world.bytes(&piece);
            for (ticket, packet) in calls(&effects) {
                assert!(!packet.channel.base.as_str().is_empty());
                world.event_into(Event::Done(ticket, result(1, 1)), &mut effects);
            }
        }
        if kick {
            world.event(Event::Kick { notice: Some("x"), delay_ms: 10 });
        }
        world.bytes(b"\x70");
        world.pass(1_000_000);
        prop_assert!(world.is_closed());
    }

    #[test]
    fn events_that_do_not_fit_are_ignored(steps in vec((0u8..13, hostile()), 0..30)) {
        let mut world = World::new(config(), Transport::Tcp);
        for (step, piece) in steps {
            let event = match step {
                0..=2 => Event::Bytes(piece.into()),
                3 => Event::Visible,
                4 => Event::Unavailable,
                5 => Event::Refused(Reason::Ban),
                6 => Event::Done(Ticket(piece.len() as u64), result(1, 1)),
                7 => Event::SendBan(piece.is_empty()),
                8 => Event::Timeout,
                9 => Event::Drain,
                10 => Event::Deliver(delivery("2:g", Some(1), &Body { message_id: MessageId(1), ..Body::default() })),
                11 => Event::PushEvent(Arc::default()),
                _ => Event::Admitted { master: true, send_ban: false, fence: Fence::default() },
            };
            world.event(event);
        }
        world.pass(1_000_000);
        prop_assert!(world.is_closed());
    }
}

const JSON_CONNECT: &str = r#"{"method":"connect","id":"1","params":{"uid":"alice"}}"#;

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Tcp), Just(Transport::WebSocket)]
}

/// Noise, and frames with a byte or two wrong.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let client = Client::new(5);
    let frames = [
        Frame::Connect(client.connect("alice")),
        Frame::Send(Send {
            channel_id: "g".into(),
            channel_type: 2,
            ..Send::default()
        }),
        Frame::Recvack(Recvack {
            message_id: -1,
            ..Recvack::default()
        }),
        Frame::Ping,
    ];
    let mut whole: Vec<Vec<u8>> = frames.iter().map(|f| client.encode(f).to_vec()).collect();
    whole.extend(
        [
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
            JSON_CONNECT,
            "{\"method\":\"send\",\"id\":\"1\",\"params\":{\"channelId\":\"b\"}}",
            "{\"a\":[\"\\u00",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
        ]
        .map(|text| text.as_bytes().to_vec()),
    );
    let bent = (
        prop::sample::select(whole),
        vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(mut bytes, changes, cut)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            // Mostly whole.
            let keep = cut.index(bytes.len() * 4).min(bytes.len());
            bytes.truncate(keep);
            bytes
        });
    prop_oneof![bent, vec(any::<u8>(), 0..200)]
}

#[test]
fn a_conversation_cut_at_every_byte_is_the_same() {
    let play = |cut: Option<usize>| {
        let (mut world, mut client) = logged_in(5);
        let plans = [b"one".to_vec(), Vec::new(), vec![7; 300]].map(|payload| Plan {
            channel: 1,
            bad_key: false,
            payload,
        });
        let mut stream: Vec<u8> = (0..)
            .zip(&plans)
            .flat_map(|(seq, plan)| plan.frame(&client, seq))
            .collect();
        stream.extend(client.encode(&Frame::Ping));
        let (first, second) = stream.split_at(cut.unwrap_or(0));
        let mut effects = world.bytes(first);
        effects.extend(world.bytes(second));
        let calls = calls(&effects);
        (calls, client.receive(&sent(&effects)), stream.len())
    };
    let (calls, frames, len) = play(None);
    assert_eq!((calls.len(), &frames[..]), (3, &[Frame::Pong][..]));
    for cut in 1..len {
        let again = play(Some(cut));
        assert_eq!((&again.0, &again.1), (&calls, &frames), "cut at {cut}");
    }
}

#[test]
fn a_handshake_cut_at_every_byte_succeeds() {
    let proxied = b"PROXY TCP4 203.0.113.9 10.0.0.1 4321 5100\r\n";
    let connect = Client::new(5).encode(&Frame::Connect(Client::new(5).connect("alice")));
    for hello in [&connect[..], JSON_CONNECT.as_bytes()] {
        let stream = [proxied, hello].concat();
        for cut in 0..stream.len() {
            let mut world = World::new(config(), Transport::Tcp);
            let mut effects = world.bytes(&stream[..cut]);
            effects.extend(world.bytes(&stream[cut..]));
            assert!(
                matches!(effects[..], [Effect::PeerAddress(_), Effect::Admit(_)]),
                "cut at {cut}: {effects:?}"
            );
        }
    }
}
