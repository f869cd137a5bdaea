//! `/message*`, `/messages` and the routes under `/channel` that return messages.

use axum::body::Body;
use hyper::Response;
use wk_proto::{ChannelKey, Flags};
use wk_store::Stored;

use crate::http::answer::{Answer, Wording as _, data, json, ok, sized_json};
use crate::http::decode::{self, Fields};
use crate::http::json::Json;
use crate::http::message;
use crate::http::server::Call;
use crate::service::{Broadcast, History, HistoryWindow, Page, PullMode, SendMessage, Sent};

pub(crate) async fn send(call: Call) -> Answer {
    let request = decode::object(&call.body, "MessageSendReq", |f| SendMessage {
        flags: header(f),
        client_msg_no: f.text("client_msg_no"),
        is_stream: f.flag("is_stream"),
        from_uid: f.text("from_uid"),
        channel_id: f.text("channel_id"),
        channel_type: f.u8("channel_type"),
        expire: f.u32("expire"),
        subscribers: f.texts("subscribers"),
        payload: f.bytes("payload"),
    })?;
    let sent = call.app.service.send(request).await?;
    Ok(sent_answer(&sent))
}

fn sent_answer(sent: &Sent) -> Response<Body> {
    data(|json| {
        json.object(|o| {
            o.key("client_msg_no").text(&sent.client_msg_no);
            o.key("message_id").int(sent.result.message_id.0);
            o.key("message_seq").int(sent.result.message_seq.0);
            o.key("reason").int(sent.result.reason.code());
        });
    })
}

pub(crate) async fn send_batch(call: Call) -> Answer {
    let request = decode::object(&call.body, "", |f| Broadcast {
        flags: header(f),
        from_uid: f.text("from_uid"),
        subscribers: f.texts("subscribers"),
        payload: f.bytes("payload"),
    })?;
    let result = call.app.service.broadcast(request).await?;
    Ok(json(|json| {
        json.object(|o| {
            let failed = &result.failed;
            o.key("fail_uids")
                .texts(failed.iter().map(|(uid, _)| uid.as_str()));
            o.key("reason")
                .texts(failed.iter().map(|(_, text)| text.as_str()));
        });
    }))
}

fn header(f: &mut Fields<'_, '_>) -> Flags {
    f.object("header", "MessageHeader", "header.", |h| {
        Flags::default()
            .with(Flags::NO_PERSIST, h.flag("no_persist"))
            .with(Flags::RED_DOT, h.flag("red_dot"))
            .with(Flags::SYNC_ONCE, h.flag("sync_once"))
    })
}

pub(crate) async fn commands(call: Call) -> Answer {
    let service = &call.app.service;
    // v2 does not read the body then.
    let (uid, limit) = match call.app.config.service.command_sync_off {
        true => (String::new(), 0),
        false => decode::object(&call.body, "syncReq", |f| {
            f.u64("message_seq");
            (f.text("uid"), f.int("limit"))
        })?,
    };
    let commands = service.commands(&uid, limit).await?;
    let bytes = commands
        .iter()
        .map(|(_, m)| message::size_hint(std::slice::from_ref(m)))
        .sum();
    Ok(sized_json(bytes, |json| {
        json.array(|list| {
            for (channel, stored) in &commands {
                message::write(list, channel, stored);
            }
        });
    }))
}

pub(crate) async fn acknowledge_commands(call: Call) -> Answer {
    if call.app.config.service.command_sync_off {
        return Ok(ok());
    }
    let (uid, seq) = decode::object(&call.body, "syncackReq", |f| {
        (f.text("uid"), f.u64("last_message_seq"))
    })?;
    call.app.service.acknowledge_commands(&uid, seq).await?;
    Ok(ok())
}

pub(crate) async fn history(call: Call) -> Answer {
    let request = decode::object(&call.body, "", |f| History {
        login_uid: f.text("login_uid"),
        channel_id: f.text("channel_id"),
        channel_type: f.u8("channel_type"),
        window: HistoryWindow {
            start: f.u64("start_message_seq"),
            end: f.u64("end_message_seq"),
            limit: f.int("limit"),
            mode: match f.int("pull_mode") {
                1 => PullMode::Up,
                _ => PullMode::Down,
            },
        },
    })?;
    let HistoryWindow { start, end, .. } = request.window;
    let page = call.app.service.history(request).await?;
    Ok(page_answer(start, end, page.as_ref()))
}

pub(crate) async fn pick(call: Call) -> Answer {
    let (login, id, kind, seqs, ids, numbers) = decode::object(&call.body, "", |f| {
        (
            f.text("login_uid"),
            f.text("channel_id"),
            f.u8("channel_type"),
            f.u64s("message_seqs", "uint32"),
            f.int64s("message_ids"),
            f.texts("client_msg_nos"),
        )
    })
    .fixed_text()?;
    let service = &call.app.service;
    let page = service
        .pick(&login, (&id, kind), seqs, ids, numbers)
        .await?;
    Ok(page_answer(0, 0, page.as_ref()))
}

pub(crate) async fn single(call: Call) -> Answer {
    let (login, id, kind, message_id, number) = decode::object(&call.body, "", |f| {
        (
            f.text("login_uid"),
            f.text("channel_id"),
            f.u8("channel_type"),
            f.int64("message_id"),
            f.text("client_msg_no"),
        )
    })
    .fixed_text()?;
    let service = &call.app.service;
    let page = service
        .message(&login, (&id, kind), message_id, number)
        .await?;
    Ok(first_answer(&page))
}

pub(crate) async fn by_number(call: Call) -> Answer {
    let query = &call.query;
    let (id, kind) = (query.text("channel_id"), query.u8("channel_type"));
    let number = query.text("client_msg_no").to_owned();
    let page = call.app.service.message_by_number(id, kind, number).await?;
    Ok(first_answer(&page))
}

pub(crate) async fn max_seq(call: Call) -> Answer {
    let (login, id, kind) = channel_of_query(&call);
    let seq = call.app.service.last_seq(login, id, kind).await?;
    Ok(json(|json| {
        json.object(|o| {
            o.key("message_seq").int(seq.0);
        });
    }))
}

pub(crate) async fn last(call: Call) -> Answer {
    let (login, id, kind) = channel_of_query(&call);
    let page = call.app.service.last_message(login, id, kind).await?;
    Ok(first_answer(&page))
}

fn channel_of_query(call: &Call) -> (&str, &str, u8) {
    let query = &call.query;
    let (login, id) = (query.text("login_uid"), query.text("channel_id"));
    (login, id, query.u8("channel_type"))
}

/// The object of `/channel/messagesync` and `/messages`. No page = no messages.
fn page_answer(start: u64, end: u64, page: Option<&Page>) -> Response<Body> {
    let messages = page.map_or(&[][..], |page| &page.messages);
    let more = page.is_some_and(|page| page.more);
    sized_json(message::size_hint(messages) + 128, |json| {
        json.object(|o| {
            o.key("start_message_seq").int(start);
            o.key("end_message_seq").int(end);
            o.key("more").int(u8::from(more));
            o.key("messages").array(|list| {
                if let Some(page) = page {
                    write_all(list, &page.channel, messages);
                }
            });
        });
    })
}

/// The first message of a page that has one.
fn first_answer(page: &Page) -> Response<Body> {
    sized_json(message::size_hint(&page.messages), |json| {
        let first = page.messages.get(..1).unwrap_or_default();
        write_all(json, &page.channel, first);
    })
}

pub(crate) fn write_all(json: &mut Json, channel: &ChannelKey, messages: &[Stored]) {
    for stored in messages {
        message::write(json, channel, stored);
    }
}
