//! `/conversation/*` and `/conversations/*`.

use axum::body::Body;
use hyper::Response;

use super::messages::write_all;
use crate::http::answer::{Answer, Wording as _, json, ok, sized_json};
use crate::http::decode::{self, Fields};
use crate::http::json::Json;
use crate::http::message;
use crate::http::server::Call;
use crate::service::{ConversationView, MarkTarget, SyncConversations};

/// Bytes of a conversation object without its texts and messages.
const FIXED_BYTES: usize = 256;

/// Milliseconds to the nanoseconds of `version`. The last message's time counts in seconds there, as in v2.
const SECOND_NS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;

pub(crate) async fn sync(call: Call) -> Answer {
    let request = decode::object(&call.body, "", |f| SyncConversations {
        uid: f.text("uid"),
        version: f.int64("version"),
        last_msg_seqs: f.text("last_msg_seqs"),
        msg_count: f.int64("msg_count"),
        only_unread: f.u8("only_unread") == 1,
        exclude_channel_types: f.bytes("exclude_channel_types").to_vec(),
        page: f.int("page"),
        page_size: f.int("page_size"),
    })?;
    let views = call.app.service.conversations(request).await?;
    Ok(views_answer(&views))
}

pub(crate) async fn by_channels(call: Call) -> Answer {
    let (uid, channels, count) = decode::object(&call.body, "", |f| {
        let channels = f.objects("channels", "channels.", |c| {
            (c.text("channel_id"), c.u8("channel_type"))
        });
        (f.text("uid"), channels, f.int64("msg_count"))
    })?;
    let service = &call.app.service;
    let views = service.conversations_of(&uid, &channels, count).await?;
    Ok(views_answer(&views))
}

pub(crate) async fn messages(call: Call) -> Answer {
    let (uid, channels, count, newest_first) = decode::object(&call.body, "", |f| {
        let channels = f.objects("channels", "channels.", |c| {
            let id = c.text("channel_id");
            (id, c.u8("channel_type"), c.u64("last_msg_seq"))
        });
        let count = f.int64("msg_count");
        (f.text("uid"), channels, count, f.flag("order_by_last"))
    })
    .fixed_text()?;
    let service = &call.app.service;
    let parts = service
        .channel_messages(&uid, &channels, count, newest_first)
        .await?;
    let bytes = parts
        .iter()
        .map(|part| FIXED_BYTES + message::size_hint(&part.messages));
    Ok(sized_json(bytes.sum(), |json| {
        json.array(|list| {
            for part in &parts {
                list.object(|o| {
                    o.key("channel_id").text(&part.channel.stored_id());
                    o.key("channel_type").int(part.channel.kind.0);
                    o.key("messages")
                        .array(|list| write_all(list, &part.channel, &part.messages));
                    o.key("user_last_msg_seq").int(part.own_last.0);
                });
            }
        });
    }))
}

pub(crate) async fn channels(call: Call) -> Answer {
    let uid = decode::object(&call.body, "", |f| f.text("uid"))?;
    let channels = call.app.service.conversation_channels(&uid).await?;
    Ok(json(|json| {
        json.array(|list| {
            for channel in &channels {
                list.object(|o| {
                    o.key("channel_id").text(channel.base.as_str());
                    o.key("channel_type").int(channel.kind.0);
                });
            }
        });
    }))
}

pub(crate) async fn clear_unread(call: Call) -> Answer {
    let target = decode::object(&call.body, "", target)?;
    call.app.service.clear_unread(target).await?;
    Ok(ok())
}

pub(crate) async fn set_unread(call: Call) -> Answer {
    let (target, unread) = decode::object(&call.body, "", |f| (target(f), f.int("unread")))?;
    call.app.service.set_unread(target, unread).await?;
    Ok(ok())
}

pub(crate) async fn delete(call: Call) -> Answer {
    let target = decode::object(&call.body, "", target)?;
    call.app.service.delete_conversation(target).await?;
    Ok(ok())
}

fn target(f: &mut Fields<'_, '_>) -> MarkTarget {
    MarkTarget {
        uid: f.text("uid"),
        channel_id: f.text("channel_id"),
        channel_type: f.u8("channel_type"),
    }
}

fn views_answer(views: &[ConversationView]) -> Response<Body> {
    let bytes = views
        .iter()
        .map(|view| FIXED_BYTES + message::size_hint(&view.recents));
    sized_json(bytes.sum(), |json| {
        json.array(|list| {
            for view in views {
                write_view(list, view);
            }
        });
    })
}

fn write_view(json: &mut Json, view: &ConversationView) {
    let last = view.last.as_ref();
    let seconds = last.map_or(0, |last| last.record.time().0 / 1_000);
    let version = match last {
        Some(_) => seconds * SECOND_NS,
        None => view.updated.0 * MS_NS,
    };
    json.object(|o| {
        o.key("channel_id").text(&view.shown_id);
        o.key("channel_type").int(view.channel.kind.0);
        o.key("unread").int(view.unread);
        o.key("timestamp").int(seconds);
        o.key("last_msg_seq").int(last.map_or(0, |last| last.seq.0));
        o.key("last_client_msg_no")
            .text(last.map_or("", |last| last.record.client_msg_no()));
        o.key("offset_msg_seq").int(0);
        o.key("readed_to_msg_seq").int(view.read.0);
        o.key("version").int(version);
        o.key("recents")
            .array(|list| write_all(list, &view.channel, &view.recents));
    });
}
