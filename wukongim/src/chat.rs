//! `wukongim chat`: two people and a terminal, to see a server work.
//!
//! Lines typed are sent, messages received are printed. Registers nothing; only `--group` creates and joins that group. Other
//! people's text is printed without its control characters, so that it cannot steer the terminal.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wk_client::{ChannelType, Client, Error, Event, Inbox, Message, Options, Reason, SendOptions};

use crate::http_client::Api;

/// Messages of the past shown at the start.
const HISTORY: usize = 10;
/// Typed lines not yet sent; at it typing waits.
const LINES_MAX: usize = 64;
/// Seconds to wait for acknowledgements when leaving.
const LEAVE_SECS: u64 = 20;

/// Chat in the terminal. `/quit` or end of input leaves.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Who you are
    #[arg(long)]
    uid: String,
    /// Whom to talk to
    #[arg(long, required_unless_present = "group", conflicts_with = "group")]
    to: Option<String>,
    /// Which group to talk in; created and joined if need be
    #[arg(long)]
    group: Option<String>,
    /// The server: host:port or ws://host:port
    #[arg(long, default_value = "127.0.0.1:5100")]
    server: String,
    /// Your token, if the server checks tokens
    #[arg(long, default_value = "")]
    token: String,
    /// The server's HTTP API: groups and history
    #[arg(long, default_value = "http://127.0.0.1:5001")]
    api: String,
    /// Token of the HTTP API: managerToken, or the one shown at the first start
    #[arg(long, default_value = "")]
    api_token: String,
}

/// Whom one talks to.
struct Room {
    uid: String,
    channel_id: String,
    kind: ChannelType,
}

/// Runs until the user leaves (0) or the server ends it (1).
pub async fn run(args: Args) -> Result<ExitCode> {
    let api = Api::new(&args.api, &args.api_token)?;
    let room = Room::of(&args);
    if room.kind == ChannelType::GROUP {
        join(&api, &room).await?;
    }
    let options = Options {
        token: args.token.clone(),
        ..Options::new(&args.uid)
    };
    let (client, inbox) = Client::connect(&args.server, options)
        .await
        .map_err(|e| explain(&args, e))?;
    print_history(&api, &room).await;
    println!("-- {} (times are UTC, /quit leaves)", room.title());
    let ended = talk(&client, inbox, &room).await;
    client.close().await;
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => {
            eprintln!("-- {}", explain(&args, e));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn explain(args: &Args, error: Error) -> anyhow::Error {
    let Args { server, uid, .. } = args;
    match error {
        Error::Disconnected(why) => {
            anyhow!("cannot reach the server at {server} ({why}). Is it running there?")
        }
        Error::Refused(code) => match code.reason() {
            Some(Reason::AuthFail) => {
                anyhow!("the server does not let {uid} in: the uid or its --token is not right")
            }
            Some(Reason::Ban) => anyhow!("the server does not let {uid} in: banned"),
            _ => anyhow!("the server does not let {uid} in: {code}"),
        },
        other => anyhow!("{other}"),
    }
}

impl Room {
    fn of(args: &Args) -> Self {
        let (channel_id, kind) = match (&args.to, &args.group) {
            (Some(to), _) => (to, ChannelType::PERSON),
            (None, Some(group)) => (group, ChannelType::GROUP),
            (None, None) => unreachable!("the command line requires one of them"),
        };
        Self {
            uid: args.uid.clone(),
            channel_id: channel_id.clone(),
            kind,
        }
    }

    fn title(&self) -> String {
        match self.kind {
            ChannelType::GROUP => format!("{} in group {}", self.uid, self.channel_id),
            _ => format!("{} with {}", self.uid, self.channel_id),
        }
    }
}

async fn join(api: &Api, room: &Room) -> Result<()> {
    let body = json!({
        "channel_id": room.channel_id, "channel_type": room.kind.0, "subscribers": [room.uid],
    });
    let joined = api.post("/channel/subscriber_add", &body).await;
    joined.with_context(|| format!("cannot join group {}", room.channel_id))?;
    Ok(())
}

/// Without an API there is no history, but there can be a conversation.
async fn print_history(api: &Api, room: &Room) {
    let body = json!({
        "login_uid": room.uid, "channel_id": room.channel_id, "channel_type": room.kind.0,
        "start_message_seq": 0, "end_message_seq": 0, "limit": HISTORY, "pull_mode": 0,
    });
    match api.post("/channel/messagesync", &body).await {
        Ok(answer) => {
            let messages = answer["messages"].as_array();
            for message in messages.into_iter().flatten() {
                println!("{}", history_line(message));
            }
        }
        Err(e) => eprintln!("-- no history: {e:#}"),
    }
}

fn history_line(message: &Value) -> String {
    use base64::Engine;
    let payload = message["payload"].as_str().unwrap_or_default();
    let payload = base64::engine::general_purpose::STANDARD.decode(payload);
    let text = content(&payload.unwrap_or_default());
    let from = message["from_uid"].as_str().unwrap_or_default();
    let time = message["timestamp"].as_i64().unwrap_or_default();
    line(time, from.as_bytes(), None, &text)
}

/// Until the user leaves, or with why the client ended.
async fn talk(client: &Client, mut inbox: Inbox, room: &Room) -> Result<(), Error> {
    let mut lines = read_lines();
    let mut sends = JoinSet::new();
    loop {
        // Answers are taken as they come, so that the set stays as small as what is unanswered.
        tokio::select! {
            event = inbox.next() => show(room, event?),
            Some(_) = sends.join_next() => {}
            typed = lines.recv() => match typed.as_deref().map(str::trim) {
                None | Some("/quit") => break,
                Some("") => {}
                Some(text) => {
                    let payload = json!({"type": 1, "content": text}).to_string();
                    let (id, options) = (&room.channel_id, SendOptions::default());
                    match client.submit(id, room.kind, payload, options).await {
                        Ok(pending) => { sends.spawn(report(pending)); }
                        Err(e) => eprintln!("-- not sent: {e}"),
                    }
                }
            },
        }
    }
    let all = async { while sends.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(LEAVE_SECS), all)
        .await
        .is_err()
    {
        eprintln!("-- left without the server's answer to the last messages");
    }
    Ok(())
}

async fn report(pending: wk_client::PendingAck) {
    if let Err(e) = pending.await {
        eprintln!("-- not sent: {e}");
    }
}

/// Standard input on a thread of its own: reading it blocks, and nothing may wait for that thread at the end.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn show(room: &Room, event: Event) {
    match event {
        Event::Message(message) => println!("{}", message_line(room, &message)),
        Event::Disconnected(why) => eprintln!("-- connection lost ({why}), trying again"),
        Event::Connected { .. } if std::io::stdout().is_terminal() => eprintln!("-- connected"),
        Event::Connected { .. } => {}
        Event::Corrupt { message_id } => {
            eprintln!("-- message {message_id} was changed on its way");
        }
        Event::Notice(notice) => eprintln!("-- event {}", printable(&notice.kind)),
    }
}

fn message_line(room: &Room, message: &Message) -> String {
    let here =
        message.channel_id == room.channel_id.as_bytes() && message.channel_type == room.kind.0;
    let elsewhere = (!here).then(|| {
        let id = printable(&message.channel_id);
        format!(" in {id} (type {})", message.channel_type)
    });
    let time = i64::from(message.timestamp);
    line(
        time,
        &message.from_uid,
        elsewhere,
        &content(&message.payload),
    )
}

fn line(time: i64, from: &[u8], elsewhere: Option<String>, text: &str) -> String {
    let from = if from.is_empty() {
        "(system)".to_owned()
    } else {
        printable(from)
    };
    format!(
        "{} {from}{}: {text}",
        clock(time),
        elsewhere.unwrap_or_default()
    )
}

/// Seconds since 1970 as a time of day, UTC.
fn clock(time: i64) -> String {
    let s = time.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// The text of a payload: `content` of a JSON object, or what it is instead.
fn content(payload: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(payload).ok();
    match value.as_ref().and_then(|v| v["content"].as_str()) {
        Some(text) => printable(text.as_bytes()),
        None if std::str::from_utf8(payload).is_ok() => printable(payload),
        None => format!("({} bytes)", payload.len()),
    }
}

fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.replace(|c: char| c.is_control(), "\u{FFFD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_and_cannot_steer_the_terminal() {
        assert_eq!(content(br#"{"type":1,"content":"hi"}"#), "hi");
        assert_eq!(content(b"plain"), "plain");
        assert_eq!(content(br#"{"type":2}"#), r#"{"type":2}"#);
        assert_eq!(content(b"\xff\xfe"), "(2 bytes)");
        assert_eq!(
            content(br#"{"content":"\u001b[2Jx\n"}"#),
            "\u{FFFD}[2Jx\u{FFFD}"
        );
    }

    #[test]
    fn history_looks_like_what_arrives() {
        let message = json!({
            "from_uid": "bob", "timestamp": 1_767_225_600 + 3_661, "payload": "eyJjb250ZW50IjoiaGkifQ==",
        });
        assert_eq!(history_line(&message), "01:01:01 bob: hi");
        assert_eq!(history_line(&json!({})), "00:00:00 (system): ");
    }

    #[test]
    fn the_command_line_wants_one_partner() {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let parse = |words: &str| Cli::try_parse_from(words.split(' ')).map(|cli| cli.args);
        assert!(parse("chat --uid a").is_err());
        assert!(parse("chat --uid a --to b --group g").is_err());
        let room = Room::of(&parse("chat --uid a --group g").unwrap());
        assert_eq!(
            (room.channel_id.as_str(), room.kind),
            ("g", ChannelType::GROUP)
        );
    }
}
