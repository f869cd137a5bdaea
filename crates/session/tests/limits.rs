//! Bounds: what happens at each of them.

mod common;

use bytes::{Bytes, BytesMut};
use common::world::{delivery, result, sent};
use common::{Client, World, config};
use wk_proto::frame::{Frame, Recvack, Send};
use wk_proto::limits::{JSON_BYTES_MAX, PREAUTH_BYTES_MAX};
use wk_proto::record::Body;
use wk_proto::{MessageId, Ticket};
use wk_session::{CloseKind, Effect, Event, Session, Transport};

const SENDS_MAX: usize = 1_024;
const UNACKED_MAX: i64 = 1_024;

fn logged_in(transport: Transport) -> (World, Client) {
    let mut world = World::new(config(), transport);
    let mut client = Client::new(5);
    let connect = client.encode(&Frame::Connect(client.connect("alice")));
    let answer = world.log_in(&connect);
    client.receive(&answer);
    (world, client)
}

fn send(client: &Client, seq: u32, payload: Vec<u8>) -> Bytes {
    client.encode(&Frame::Send(client.seal(Send {
        client_seq: seq,
        channel_id: "g".into(),
        channel_type: 2,
        payload: payload.into(),
        ..Send::default()
    })))
}

fn calls(effects: &[Effect]) -> usize {
    let calls = effects.iter().filter(|e| matches!(e, Effect::Call(..)));
    calls.count()
}

fn message(id: i64) -> Event {
    let body = Body {
        message_id: MessageId(id),
        from_uid: "bob",
        payload: b"hello",
        ..Body::default()
    };
    Event::Deliver(delivery("2:g", Some(id as u64), &body))
}

#[test]
fn sends_in_flight_stop_the_reading_and_nothing_is_lost() {
    let (mut world, mut client) = logged_in(Transport::Tcp);
    let stream: Vec<u8> = (0..SENDS_MAX as u32 + 10)
        .flat_map(|seq| send(&client, seq, vec![1]))
        .collect();
    assert_eq!(calls(&world.bytes(&stream)), SENDS_MAX);
    assert!(!world.session.wants_bytes());

    let effects = world.event(Event::Done(Ticket(1), result(1, 1)));
    assert_eq!(calls(&effects), 1, "room for one, one is read");
    assert!(!world.session.wants_bytes());
    let mut acks = client.receive(&sent(&effects)).len();
    for ticket in 2..SENDS_MAX as u64 + 11 {
        let effects = world.event(Event::Done(Ticket(ticket), result(ticket as i64, 1)));
        acks += client.receive(&sent(&effects)).len();
    }
    assert_eq!(acks, SENDS_MAX + 10);
    assert!(world.session.wants_bytes());
}

#[test]
fn bytes_in_flight_stop_the_reading() {
    let (mut world, client) = logged_in(Transport::Tcp);
    let one = send(&client, 1, vec![1; 700 * 1024]);
    let sent_before = (1..10).find(|_| {
        assert_eq!(calls(&world.bytes(&one)), 1);
        !world.session.wants_bytes()
    });
    assert_eq!(sent_before, Some(6), "4 MiB of 700 KiB");
    world.event(Event::Done(Ticket(1), result(1, 1)));
    assert!(world.session.wants_bytes());
}

#[test]
fn a_payload_over_the_limit_is_refused() {
    let (mut world, mut client) = logged_in(Transport::Tcp);
    let effects = world.bytes(&send(&client, 1, vec![1; 700 * 1024 + 1]));
    match &client.receive(&sent(&effects))[..] {
        [Frame::Sendack(ack)] => assert_eq!(ack.reason_code, 9),
        other => panic!("{other:?}"),
    }
}

#[test]
fn strangers_get_no_memory() {
    let mut world = World::new(config(), Transport::Tcp);
    let blanks = vec![b' '; 64 * 1024];
    for _ in 0..PREAUTH_BYTES_MAX / blanks.len() {
        assert_eq!(world.bytes(&blanks), []);
    }
    assert_eq!(world.bytes(b" "), [Effect::Close(CloseKind::Silent)]);

    let mut world = World::new(config(), Transport::Tcp);
    world.bytes(b"{\"method\":\"");
    for _ in 0..PREAUTH_BYTES_MAX / blanks.len() {
        world.bytes(&blanks);
    }
    assert!(world.is_closed());
}

#[test]
fn what_is_pipelined_behind_connect_stops_the_reading() {
    let mut world = World::new(config(), Transport::Tcp);
    let client = Client::new(5);
    world.bytes(&client.encode(&Frame::Connect(client.connect("alice"))));
    assert!(world.session.wants_bytes());
    world.bytes(&vec![0x70; PREAUTH_BYTES_MAX]);
    assert!(!world.session.wants_bytes());
    world.admit(false, false);
    let effects = world.event(Event::Visible);
    assert!(world.session.wants_bytes());
    let pongs = sent(&effects).iter().filter(|b| **b == 0x80).count();
    assert!(pongs >= PREAUTH_BYTES_MAX, "every ping is answered");
}

#[test]
fn a_json_message_without_end_closes() {
    let mut world = World::new(config(), Transport::WebSocket);
    world.log_in(b"{\"method\":\"connect\",\"id\":\"1\",\"params\":{\"uid\":\"alice\"}}");
    world.bytes(b"{\"x\":\"");
    let piece = vec![b'x'; 256 * 1024];
    for _ in 0..JSON_BYTES_MAX / piece.len() {
        assert!(!world.is_closed());
        world.bytes(&piece);
    }
    assert!(world.is_closed());
}

#[test]
fn the_unacknowledged_are_bounded_and_the_oldest_go_first() {
    let (mut world, mut client) = logged_in(Transport::Tcp);
    let mut out = Vec::new();
    for id in 1..=UNACKED_MAX + 3 {
        world.event_into(message(id), &mut out);
    }
    assert_eq!(world.session.evicted(), 3);
    let received = client.receive(&sent(&out));
    assert_eq!(received.len() as i64, UNACKED_MAX + 3);

    let acks: Vec<u8> = received
        .iter()
        .skip(3)
        .flat_map(|frame| match frame {
            Frame::Recv(r) => client.encode(&Frame::Recvack(Recvack {
                message_id: r.message_id,
                message_seq: r.message_seq,
                ..Recvack::default()
            })),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(world.bytes(&acks), []);
    assert_eq!(world.pass(70_000), [], "nothing is sent again");
}

#[test]
fn frames_of_a_turn_share_a_buffer_on_tcp() {
    let (mut world, mut client) = logged_in(Transport::Tcp);
    let mut out = vec![Effect::Transmit {
        bytes: BytesMut::with_capacity(4096),
        text: false,
    }];
    for id in 1..=10 {
        world.event_into(message(id), &mut out);
    }
    world.event_into(Event::Bytes(Bytes::from_static(b"\x70")), &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(client.receive(&sent(&out)).len(), 11);
}

#[test]
fn a_websocket_message_is_one_frame() {
    let (mut world, mut client) = logged_in(Transport::WebSocket);
    let mut out = world.bytes(b"\x70\x70");
    for id in 1..=10 {
        world.event_into(message(id), &mut out);
    }
    assert_eq!(out.len(), 12);
    for effect in &out {
        assert_eq!(client.receive(&sent(std::slice::from_ref(effect))).len(), 1);
    }
}

#[test]
fn a_message_full_of_pings_closes_a_websocket() {
    let (mut world, _) = logged_in(Transport::WebSocket);
    let out = world.bytes(&vec![0x70; 1024 * 1024]);
    assert!(out.len() < 10_000, "{} effects", out.len());
    assert_eq!(out.last(), Some(&Effect::Close(CloseKind::Silent)));
}

#[test]
fn a_kicked_client_is_read_so_that_the_close_is_no_reset_and_a_drained_one_is_not() {
    let kick = Event::Kick {
        notice: Some("x"),
        delay_ms: 1_000,
    };
    for (event, reads) in [(kick, true), (Event::Drain, false)] {
        let (mut world, client) = logged_in(Transport::Tcp);
        world.bytes(&send(&client, 1, vec![1]));
        world.event(event);
        assert_eq!(world.session.wants_bytes(), reads);
        assert!(world.session.info().is_some());
        assert_eq!(world.bytes(&send(&client, 2, vec![1])), []);
    }
}

#[test]
fn a_long_burst_is_cut_into_buffers() {
    let (mut world, mut client) = logged_in(Transport::Tcp);
    let mut out = Vec::new();
    for id in 1..=5_000 {
        world.event_into(message(id), &mut out);
    }
    assert!((2..20).contains(&out.len()), "{} buffers", out.len());
    assert_eq!(client.receive(&sent(&out)).len(), 5_000);
}

#[test]
fn a_session_is_a_pointer_and_a_little() {
    assert!(size_of::<Session>() <= 40, "{}", size_of::<Session>());
}
