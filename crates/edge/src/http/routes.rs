//! The table of routes: the router and the OpenAPI document are made from it, so that they cannot disagree.

use std::future::Future;
use std::pin::Pin;

use axum::routing::MethodFilter;
use hyper::Method;

use super::answer::Answer;
use super::handlers::{channels, conversations, messages, system, users};
use super::server::Call;

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// Part of the documentation it belongs to.
    pub(super) tag: &'static str,
    /// One line for the documentation.
    pub(super) summary: &'static str,
    /// Members of the body or query parameters: `name:type`, separated by spaces. A POST whose input is `[type]` takes an array.
    pub(super) input: &'static str,
    pub(super) handler: fn(Call) -> Answering,
}

impl Route {
    pub(super) fn filter(&self) -> MethodFilter {
        if self.method == Method::GET {
            MethodFilter::GET
        } else {
            MethodFilter::POST
        }
    }
}

macro_rules! routes {
    ($($tag:literal { $($method:ident $path:literal $handler:path, $summary:literal, $input:literal;)* })*) => {
        &[$($(Route {
            method: Method::$method,
            path: $path,
            tag: $tag,
            summary: $summary,
            input: $input,
            handler: |call| Box::pin($handler(call)),
        },)*)*]
    };
}

/// Every route of the API.
pub(super) const ROUTES: &[Route] = routes! {
    "user" {
        POST "/user/token" users::token, "Register a user and set the token of a device", "uid:string token:string device_flag:integer device_level:integer";
        POST "/user/device_quit" users::device_quit, "Log devices out; device_flag -1 = all", "uid:string device_flag:integer";
        POST "/user/onlinestatus" users::online_status, "Live sessions of users", "[string]";
        GET "/user/systemuids" users::system_uids, "System accounts", "";
        POST "/user/systemuids_add" users::system_uids_add, "Add system accounts", "uids:string[]";
        POST "/user/systemuids_remove" users::system_uids_remove, "Remove system accounts", "uids:string[]";
        POST "/user/systemuids_add_to_cache" users::system_uids_cache, "Accepted for compatibility; without effect", "uids:string[]";
        POST "/user/systemuids_remove_from_cache" users::system_uids_cache, "Accepted for compatibility; without effect", "uids:string[]";
    }
    "channel" {
        POST "/channel" channels::create, "Create or overwrite a channel and add subscribers", "channel_id:string channel_type:integer large:integer ban:integer disband:integer send_ban:integer allow_stranger:integer reset:integer subscribers:string[]";
        POST "/channel/info" channels::info, "Overwrite a channel's flags", "channel_id:string channel_type:integer large:integer ban:integer disband:integer send_ban:integer allow_stranger:integer";
        POST "/channel/delete" channels::delete, "Disband a channel", "channel_id:string channel_type:integer";
        POST "/channel/subscriber_add" channels::subscriber_add, "Add subscribers", "channel_id:string channel_type:integer reset:integer subscribers:string[]";
        POST "/channel/subscriber_remove" channels::subscriber_remove, "Remove subscribers", "channel_id:string channel_type:integer subscribers:string[]";
        POST "/channel/subscriber_remove_all" channels::subscriber_remove_all, "Remove all subscribers", "channel_id:string channel_type:integer";
        POST "/tmpchannel/subscriber_set" channels::temporary_set, "Set the recipients of a temporary channel", "channel_id:string uids:string[]";
        POST "/channel/blacklist_add" channels::blacklist_add, "Add to the blacklist", "channel_id:string channel_type:integer uids:string[]";
        POST "/channel/blacklist_set" channels::blacklist_set, "Replace the blacklist", "channel_id:string channel_type:integer uids:string[]";
        POST "/channel/blacklist_remove" channels::blacklist_remove, "Remove from the blacklist", "channel_id:string channel_type:integer uids:string[]";
        POST "/channel/blacklist_remove_all" channels::blacklist_remove_all, "Clear the blacklist", "channel_id:string channel_type:integer";
        POST "/channel/whitelist_add" channels::whitelist_add, "Add to the whitelist", "channel_id:string channel_type:integer uids:string[]";
        POST "/channel/whitelist_set" channels::whitelist_set, "Replace the whitelist", "channel_id:string channel_type:integer uids:string[]";
        POST "/channel/whitelist_remove" channels::whitelist_remove, "Remove from the whitelist", "channel_id:string channel_type:integer uids:string[]";
        POST "/channel/whitelist_remove_all" channels::whitelist_remove_all, "Clear the whitelist", "channel_id:string channel_type:integer";
        GET "/channel/whitelist" channels::whitelist, "The whitelist", "channel_id:string channel_type:integer";
    }
    "message" {
        POST "/message/send" messages::send, "Send a message, or a command to explicit subscribers", "header:object client_msg_no:string is_stream:integer from_uid:string channel_id:string channel_type:integer expire:integer subscribers:string[] payload:bytes";
        POST "/message/sendbatch" messages::send_batch, "Send one payload to many users", "header:object from_uid:string subscribers:string[] payload:bytes";
        POST "/message/sync" messages::commands, "Commands the user has not acknowledged", "uid:string message_seq:integer limit:integer";
        POST "/message/syncack" messages::acknowledge_commands, "Acknowledge the commands handed out", "uid:string last_message_seq:integer";
        POST "/channel/messagesync" messages::history, "A page of a channel's history", "login_uid:string channel_id:string channel_type:integer start_message_seq:integer end_message_seq:integer limit:integer pull_mode:integer";
        GET "/channel/max_message_seq" messages::max_seq, "Seq of the newest message", "login_uid:string channel_id:string channel_type:integer";
        GET "/channel/last_message" messages::last, "The newest message", "login_uid:string channel_id:string channel_type:integer";
        POST "/messages" messages::pick, "Messages by seq, id or client_msg_no", "login_uid:string channel_id:string channel_type:integer message_seqs:integer[] message_ids:integer[] client_msg_nos:string[]";
        POST "/message" messages::single, "One message by id or client_msg_no", "login_uid:string channel_id:string channel_type:integer message_id:integer client_msg_no:string";
        GET "/message/byclientmsgno" messages::by_number, "One message by client_msg_no; the channel by its stored id", "channel_id:string channel_type:integer client_msg_no:string";
    }
    "conversation" {
        POST "/conversation/sync" conversations::sync, "A user's conversations with recent messages", "uid:string version:integer last_msg_seqs:string msg_count:integer only_unread:integer exclude_channel_types:integer[] page:integer page_size:integer";
        POST "/conversation/syncByChannels" conversations::by_channels, "Conversations of named channels", "uid:string channels:object[] msg_count:integer";
        POST "/conversation/syncMessages" conversations::messages, "Messages of channels named by their stored ids", "uid:string channels:object[] msg_count:integer order_by_last:integer";
        POST "/conversation/channels" conversations::channels, "Stored ids of a user's conversations", "uid:string";
        POST "/conversations/clearUnread" conversations::clear_unread, "Mark a conversation read", "uid:string channel_id:string channel_type:integer";
        POST "/conversations/setUnread" conversations::set_unread, "Set the unread count", "uid:string channel_id:string channel_type:integer unread:integer";
        POST "/conversations/delete" conversations::delete, "Hide a conversation up to now", "uid:string channel_id:string channel_type:integer";
    }
    "route" {
        GET "/route" system::route, "Addresses for a client", "uid:string intranet:integer";
        POST "/route/batch" system::route_batch, "Addresses for clients", "[string]";
    }
    "node" {
        GET "/health" system::health, "Whether requests are served", "";
        GET "/healthz" system::healthz, "Whether the process runs", "";
        GET "/readyz" system::readyz, "Whether requests are served, and what is waited for", "";
        GET "/varz" system::varz, "Totals of this node", "show:string conn_limit:integer node_id:integer";
        GET "/varz/setting" system::varz_setting, "Which tools are on", "";
        GET "/connz" system::connz, "Sockets of this node", "sort:string offset:integer limit:integer uid:string node_id:integer";
        POST "/conn/kick" system::conn_kick, "Tell a client to go, then close its connection", "uid:string conn_id:integer node_id:integer op_node_id:integer";
        POST "/conn/remove" system::conn_remove, "Close a connection", "uid:string conn_id:integer node_id:integer op_node_id:integer";
        GET "/migrate/result" system::migration, "State of an import from version 1", "";
        GET "/cluster/channels/{id}/{type}/subscribers" channels::cluster_subscribers, "Subscribers of a channel", "";
        GET "/cluster/channels/{id}/{type}/denylist" channels::cluster_denylist, "The blacklist as uids", "";
        GET "/cluster/channels/{id}/{type}/allowlist" channels::cluster_allowlist, "The whitelist as uids", "";
    }
    "docs" {
        GET "/docs" system::docs_page, "This documentation", "";
        GET "/docs/" system::docs_slash, "Redirect to /docs", "";
        GET "/docs/openapi.json" system::docs_openapi, "This documentation as OpenAPI", "";
        GET "/docs/health" system::docs_health, "Whether the documentation is served", "";
    }
};
