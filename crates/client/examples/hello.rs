//! Two users on one server: `cargo run -p wk-client --example hello [-- 127.0.0.1:5100]`.

use wk_client::{ChannelType, Client, Event, Options, SendOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:5100");
    let (alice, _) = Client::connect(address, Options::new("alice")).await?;
    let (bob, mut inbox) = Client::connect(address, Options::new("bob")).await?;

    let ack = alice
        .send(
            "bob",
            ChannelType::PERSON,
            "hello, bob",
            SendOptions::default(),
        )
        .await?;
    println!("alice: the server stored it as message {}", ack.message_seq);

    loop {
        if let Event::Message(message) = inbox.next().await? {
            let text = String::from_utf8_lossy(&message.payload);
            println!("bob: {:?} wrote {text:?}", message.from_uid);
            break;
        }
    }
    alice.close().await;
    bob.close().await;
    Ok(())
}
