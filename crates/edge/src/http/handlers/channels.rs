//! `/channel/*` and `/tmpchannel/*`, except for messages.

use wk_chat::request::{ChannelFlags, List};

use crate::http::answer::{Answer, Wording as _, json, ok};
use crate::http::decode::{self, Fields};
use crate::http::query;
use crate::http::server::Call;
use crate::http::text::rfc3339;
use crate::service::{ChangeMembers, ChannelInfo, CreateChannel, ListChange};

pub(crate) async fn create(call: Call) -> Answer {
    let request = decode::object(&call.body, "ChannelCreateReq", |f| CreateChannel {
        info: info_of(f),
        reset: f.flag("reset"),
        subscribers: f.texts("subscribers"),
    })
    .prefixed_text()?;
    call.app.service.create_channel(request).await?;
    Ok(ok())
}

pub(crate) async fn info(call: Call) -> Answer {
    let info = decode::object(&call.body, "ChannelInfoReq", info_of).fixed_text()?;
    call.app.service.set_channel_info(info).await?;
    Ok(ok())
}

pub(crate) async fn delete(call: Call) -> Answer {
    let (id, kind) = decode::object(&call.body, "ChannelDeleteReq", channel).prefixed_text()?;
    call.app.service.delete_channel(&id, kind).await?;
    Ok(ok())
}

pub(crate) async fn subscriber_add(call: Call) -> Answer {
    let (change, reset, temporary) = decode::object(&call.body, "subscriberAddReq", |f| {
        (members(f), f.flag("reset"), f.flag("temp_subscriber"))
    })
    .prefixed_text()?;
    let service = &call.app.service;
    service.add_subscribers(change, reset, temporary).await?;
    Ok(ok())
}

pub(crate) async fn subscriber_remove(call: Call) -> Answer {
    let change = decode::object(&call.body, "subscriberRemoveReq", members).prefixed_text()?;
    call.app.service.remove_subscribers(change).await?;
    Ok(ok())
}

pub(crate) async fn subscriber_remove_all(call: Call) -> Answer {
    let (id, kind) = decode::object(&call.body, "", channel).prefixed_text()?;
    call.app.service.remove_all_subscribers(&id, kind).await?;
    Ok(ok())
}

pub(crate) async fn temporary_set(call: Call) -> Answer {
    let (id, uids) = decode::object(&call.body, "", |f| (f.text("channel_id"), f.texts("uids")))
        .prefixed_text()?;
    call.app.service.set_temporary_members(&id, &uids).await?;
    Ok(ok())
}

pub(crate) async fn blacklist_add(call: Call) -> Answer {
    list_add(call, List::Deny).await
}

pub(crate) async fn blacklist_set(call: Call) -> Answer {
    list_set(call, List::Deny).await
}

pub(crate) async fn blacklist_remove(call: Call) -> Answer {
    list_remove(call, List::Deny).await
}

pub(crate) async fn blacklist_remove_all(call: Call) -> Answer {
    list_clear(call, List::Deny).await
}

pub(crate) async fn whitelist_add(call: Call) -> Answer {
    list_add(call, List::Allow).await
}

pub(crate) async fn whitelist_set(call: Call) -> Answer {
    list_set(call, List::Allow).await
}

pub(crate) async fn whitelist_remove(call: Call) -> Answer {
    list_remove(call, List::Allow).await
}

pub(crate) async fn whitelist_remove_all(call: Call) -> Answer {
    list_clear(call, List::Allow).await
}

pub(crate) async fn whitelist(call: Call) -> Answer {
    let (id, kind) = (call.query.text("channel_id"), call.query.u8("channel_type"));
    let entries = call.app.service.list(List::Allow, id, kind).await?;
    Ok(json(|json| {
        json.array(|list| {
            for entry in &entries {
                list.object(|o| {
                    o.key("id").int(entry.id);
                    o.key("uid").text(entry.uid.as_str());
                    o.key("created_at").text(&rfc3339(entry.created));
                    o.key("updated_at").text(&rfc3339(entry.updated));
                });
            }
        });
    }))
}

/// `/cluster/channels/{id}/{type}/subscribers`.
pub(crate) async fn cluster_subscribers(call: Call) -> Answer {
    let (id, kind) = channel_of_path(&call.path);
    let uids = call.app.service.subscribers(&id, kind).await?;
    Ok(json(|json| {
        json.texts(uids.iter().map(|uid| uid.as_str()));
    }))
}

/// `/cluster/channels/{id}/{type}/denylist`.
pub(crate) async fn cluster_denylist(call: Call) -> Answer {
    cluster_list(call, List::Deny).await
}

/// `/cluster/channels/{id}/{type}/allowlist`.
pub(crate) async fn cluster_allowlist(call: Call) -> Answer {
    cluster_list(call, List::Allow).await
}

async fn cluster_list(call: Call, list: List) -> Answer {
    let (id, kind) = channel_of_path(&call.path);
    let entries = call.app.service.list(list, &id, kind).await?;
    Ok(json(|json| {
        json.texts(entries.iter().map(|entry| entry.uid.as_str()));
    }))
}

async fn list_add(call: Call, list: List) -> Answer {
    let change = decode::object(&call.body, "", list_change)?;
    call.app.service.add_to_list(list, change).await?;
    Ok(ok())
}

async fn list_set(call: Call, list: List) -> Answer {
    let change = decode::object(&call.body, "", list_change)?;
    call.app.service.set_list(list, change).await?;
    Ok(ok())
}

async fn list_remove(call: Call, list: List) -> Answer {
    let change = decode::object(&call.body, "", list_change)?;
    call.app.service.remove_from_list(list, change).await?;
    Ok(ok())
}

async fn list_clear(call: Call, list: List) -> Answer {
    let (id, kind) = decode::object(&call.body, "", channel)?;
    call.app.service.clear_list(list, &id, kind).await?;
    Ok(ok())
}

fn info_of(f: &mut Fields<'_, '_>) -> ChannelInfo {
    let (channel_id, channel_type) = channel(f);
    ChannelInfo {
        channel_id,
        channel_type,
        flags: ChannelFlags {
            ban: f.flag("ban"),
            disband: f.flag("disband"),
            send_ban: f.flag("send_ban"),
            allow_stranger: f.flag("allow_stranger"),
            large: f.flag("large"),
        },
    }
}

fn members(f: &mut Fields<'_, '_>) -> ChangeMembers {
    let (channel_id, channel_type) = channel(f);
    ChangeMembers {
        channel_id,
        channel_type,
        subscribers: f.texts("subscribers"),
    }
}

fn list_change(f: &mut Fields<'_, '_>) -> ListChange {
    let (channel_id, channel_type) = channel(f);
    ListChange {
        channel_id,
        channel_type,
        uids: f.texts("uids"),
    }
}

fn channel(f: &mut Fields<'_, '_>) -> (String, u8) {
    (f.text("channel_id"), f.u8("channel_type"))
}

/// The fourth and fifth part of `/cluster/channels/{id}/{type}/…`.
fn channel_of_path(path: &str) -> (String, u8) {
    let mut parts = path.split('/').skip(3);
    let id = query::path_part(parts.next().unwrap_or_default());
    let kind = parts.next().and_then(|n| n.parse().ok());
    (id.into_owned(), kind.unwrap_or(0))
}
