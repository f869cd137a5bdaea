use super::*;
use proptest::prelude::*;

fn status() -> Status {
    Status {
        node: NodeId(1_001),
        uuid: 0xabc,
        incarnation: 3,
        list_hash: ListHash(7),
        stage: Stage::Promised,
    }
}

fn all() -> Vec<Message> {
    let answer = |result| Message::BindAnswer {
        cluster_id: 9,
        node: NodeId(3),
        result,
    };
    vec![
        Message::Probe(status()),
        Message::Promise(Status {
            stage: Stage::Voting,
            ..status()
        }),
        Message::Formed(Box::new(Formed {
            status: Status {
                stage: Stage::Formed,
                ..status()
            },
            cluster_id: u128::MAX,
            pledge: Pledge {
                nodes: vec![NodeId(1), NodeId(2)],
                slot_count: 64,
                slot_replicas: 3,
                channel_replicas: 3,
            },
            members: vec![(NodeId(1), Some(5)), (NodeId(2), None)],
        })),
        Message::BindRequest(Status {
            stage: Stage::Fresh,
            ..status()
        }),
        answer(BindResult::Bound),
        answer(BindResult::OtherDisk(4)),
        answer(BindResult::NotMember),
        answer(BindResult::NotFormed),
        Message::Refuse {
            refusal: Refusal::ForeignCluster,
            text: "no".to_owned(),
        },
    ]
}

/// A change means that nodes of different builds no longer understand each other.
#[test]
fn the_bytes_of_messages_never_change() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let lines: Vec<_> = all().iter().map(|m| hex(&m.encode())).collect();
    let golden = include_str!("golden.txt");
    assert_eq!(
        lines,
        golden.lines().collect::<Vec<_>>(),
        "\n{}",
        lines.join("\n")
    );
}

#[test]
fn messages_read_back_and_cut_ones_do_not_panic() {
    for message in all() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message));
        for len in 0..bytes.len() {
            let _ = Message::decode(&bytes[..len]);
        }
    }
    assert!(Message::decode(&[]).is_err());
    assert!(Message::decode(&vec![0; MESSAGE_BYTES_MAX + 1]).is_err());
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let refuse = |text: String| Message::Refuse {
        refusal: Refusal::IdConflict,
        text,
    };
    let long = refuse(format!("x{}", "ä".repeat(1_000)));
    let Ok(Message::Refuse { text, .. }) = Message::decode(&long.encode()) else {
        panic!("not a refusal");
    };
    assert_eq!(text.len(), 1_023);
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..9usize, n in any::<proptest::sample::Index>(), b in any::<u8>()) {
        let _ = Message::decode(&bytes);
        let mut bytes = all()[at].encode().to_vec();
        let n = n.index(bytes.len());
        bytes[n] = b;
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }
}
