//! Fan-out is the hot path: a delivery must not allocate, apart from the output buffer and the growth of the RECVACK window.

#![allow(
    unsafe_code,
    reason = "a global allocator cannot be written without it"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bytes::BytesMut;
use common::world::delivery;
use common::{Client, World, config};
use wk_proto::frame::Frame;
use wk_proto::record::Body;
use wk_proto::{MessageId, Mono, WallMs};
use wk_session::{Delivery, Effect, Event, Transport};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract, it is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn messages(ids: std::ops::Range<i64>) -> Vec<Arc<Delivery>> {
    let message = |id| {
        let body = Body {
            message_id: MessageId(id),
            from_uid: "bob",
            client_msg_no: "0123456789abcdef0123456789abcdef",
            payload: &[7; 200],
            ..Body::default()
        };
        let delivery = delivery("1:alice,bob", Some(id as u64), &body);
        // The first slice of a record makes it shareable: once for a message, not for a delivery.
        drop(delivery.record.payload());
        delivery
    };
    ids.map(message).collect()
}

fn allocations(encryption: bool) -> usize {
    let mut config = config();
    config.encryption = encryption;
    let mut world = World::new(config, Transport::Tcp);
    let client = Client::new(5);
    world.log_in(&client.encode(&Frame::Connect(client.connect("alice"))));
    let mut out = vec![Effect::Transmit {
        bytes: BytesMut::with_capacity(1024 * 1024),
        text: false,
    }];
    // The window has its final size after these.
    for message in messages(1..1_030) {
        world.event_into(Event::Deliver(message), &mut Vec::new());
    }
    let batch = messages(2_000..2_400);
    let before = COUNT.get();
    for message in batch {
        let event = Event::Deliver(message);
        world
            .session
            .handle(Mono(2_000_000), WallMs(0), event, &mut out);
    }
    let allocated = COUNT.get() - before;
    assert!(matches!(&out[..], [Effect::Transmit { bytes, .. }] if bytes.len() > 400 * 200));
    allocated
}

#[test]
fn a_delivery_does_not_allocate() {
    assert_eq!(allocations(false), 0);
    assert_eq!(allocations(true), 0);
}
