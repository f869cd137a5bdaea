//! Messages of the server and of back-ends (http-api 4.1, 4.2). An answer is given after the message is committed (H37).

use std::sync::Arc;

use bytes::Bytes;
use wk_chat::query::{Answer, Query};
use wk_chat::request::{Origin, Reply, Request, SendRequest, SendResult};
use wk_proto::limits::{PAYLOAD_BYTES_MAX, STR_BYTES_MAX};
use wk_proto::record::setting;
use wk_proto::{ChannelKey, ChannelType, Flags, Reason, Uid};

use super::error::{Error, Result, ensure};
use super::fanout::all;
use super::{Service, ids, mismatch};

/// Recipients one request may name; more are refused.
const RECIPIENTS_MAX: usize = 10_000;

/// `POST /message/send`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct SendMessage {
    pub flags: Flags,
    /// Empty = generated.
    pub client_msg_no: String,
    pub is_stream: bool,
    /// Blank = the server.
    pub from_uid: String,
    pub channel_id: String,
    pub channel_type: u8,
    /// Seconds; 0 = for ever.
    pub expire: u32,
    /// Explicit recipients of a command, instead of a channel.
    pub subscribers: Vec<String>,
    pub payload: Bytes,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// As given, or generated.
    pub client_msg_no: Arc<str>,
    /// Id, seq and reason; a refusal is a result, too.
    pub result: SendResult,
}

/// `POST /message/sendbatch`: one payload to many users, one person message each.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct Broadcast {
    pub flags: Flags,
    pub from_uid: String,
    pub subscribers: Vec<String>,
    pub payload: Bytes,
}

/// Who did not get a broadcast, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broadcasted {
    /// (uid, text), in order of the request.
    pub failed: Vec<(String, String)>,
}

impl Service {
    /// Sends one message to a channel, or one command to explicit recipients. The sender's rights are not checked, ban and disband are.
    pub async fn send(&self, request: SendMessage) -> Result<Sent> {
        ensure(!request.payload.is_empty(), "payload不能为空！")?;
        let to_channel = !ids::blank(&request.channel_id);
        let to_list = !request.subscribers.is_empty();
        let command = request.flags.has(Flags::SYNC_ONCE);
        let possible = to_channel != to_list && (to_channel || command);
        ensure(possible, "无法处理发送消息请求！")?;
        check_size(&request.payload)?;
        ensure(
            request.client_msg_no.len() <= STR_BYTES_MAX,
            "client_msg_no过长！",
        )?;
        let from = ids::sender(&request.from_uid)?;
        let (channel, recipients) = if to_channel {
            (self.command_or_plain(&request, &from)?, None)
        } else {
            self.list_target(&request).await?
        };
        self.send_one(Message::new(&request, channel, from, recipients))
            .await
    }

    /// Sends one payload to many users. A failure of one does not stop the others.
    pub async fn broadcast(&self, request: Broadcast) -> Result<Broadcasted> {
        ensure(!ids::blank(&request.from_uid), "from_uid不能为空！")?;
        ensure(!request.subscribers.is_empty(), "subscribers不能为空！")?;
        ensure(!request.payload.is_empty(), "payload不能为空！")?;
        ensure(
            request.subscribers.len() <= RECIPIENTS_MAX,
            "subscribers数量过多！",
        )?;
        check_size(&request.payload)?;
        let from = ids::sender(&request.from_uid)?;
        let sends = request
            .subscribers
            .iter()
            .map(|to| self.send_to(&request, from.clone(), to))
            .collect();
        let results = all(sends).await;
        let failed = request.subscribers.iter().zip(results);
        Ok(Broadcasted {
            failed: failed
                .filter_map(|(to, result)| Some((to.clone(), result.err()?.to_string())))
                .collect(),
        })
    }

    async fn send_to(&self, request: &Broadcast, from: Uid, to: &str) -> Result<()> {
        let single = SendMessage {
            flags: request.flags,
            channel_id: to.to_owned(),
            channel_type: ChannelType::PERSON.0,
            payload: request.payload.clone(),
            ..SendMessage::default()
        };
        let channel = self.command_or_plain(&single, &from)?;
        let sent = self
            .send_one(Message::new(&single, channel, from, None))
            .await?;
        match sent.result.reason {
            Reason::Success => Ok(()),
            refused => Err(Error::Refused(refused)),
        }
    }

    /// The channel of a message; commands go to the twin, except where recipients are explicit anyway.
    fn command_or_plain(&self, request: &SendMessage, from: &Uid) -> Result<ChannelKey> {
        let channel = ids::target(from, &request.channel_id, request.channel_type)?;
        let explicit = channel.kind == ChannelType::TEMP
            || *channel.base.as_str() == *self.config.online_command_channel;
        if request.flags.has(Flags::SYNC_ONCE) && !explicit {
            return Ok(channel.command());
        }
        Ok(channel)
    }

    /// Where a command to explicit recipients goes. Online only: the list travels with it. Stored: the list becomes the members of a
    /// temporary channel.
    async fn list_target(&self, request: &SendMessage) -> Result<(ChannelKey, Option<Arc<[Uid]>>)> {
        let count = request.subscribers.len();
        ensure(count <= RECIPIENTS_MAX, "subscribers数量过多！")?;
        let recipients = ids::uids(&request.subscribers)?;
        ensure(!recipients.is_empty(), "无法处理发送消息请求！")?;
        if request.flags.has(Flags::NO_PERSIST) {
            let channel = ids::online_target(&self.config.online_command_channel);
            return Ok((channel, Some(recipients.into())));
        }
        let channel = ids::temporary_channel(&recipients);
        self.ensure_members(&channel, recipients).await?;
        Ok((channel.command(), None))
    }

    /// Makes `recipients` the members of a temporary channel, if they are not yet: the same list is often used again, and two lists may
    /// share a hash (H9).
    async fn ensure_members(&self, channel: &ChannelKey, recipients: Vec<Uid>) -> Result<()> {
        let answer = self
            .query(Query::Members {
                channel: channel.clone(),
                after: None,
                limit: recipients.len() + 1,
            })
            .await?;
        let Answer::Uids(mut known, _) = answer else {
            return Err(mismatch(&answer));
        };
        let mut wanted = recipients.clone();
        known.sort_unstable();
        wanted.sort_unstable();
        if known == wanted {
            return Ok(());
        }
        self.replace_members(channel.clone(), recipients).await
    }

    async fn send_one(&self, message: Message) -> Result<Sent> {
        let client_msg_no = message.0.client_msg_no.clone();
        let request = Request::Send(Arc::new(message.0));
        match self.backend.call(request).await? {
            Reply::Sent(result) if result.reason == Reason::SystemError => {
                Err(Error::refusal(result.reason))
            }
            Reply::Sent(result) => Ok(Sent {
                client_msg_no,
                result,
            }),
            other => Err(mismatch(&other)),
        }
    }
}

/// A checked message on its way.
struct Message(SendRequest);

impl Message {
    fn new(
        request: &SendMessage,
        channel: ChannelKey,
        from: Uid,
        recipients: Option<Arc<[Uid]>>,
    ) -> Self {
        let client_msg_no: Arc<str> = match request.client_msg_no.as_str() {
            "" => generated_number().into(),
            given => given.into(),
        };
        Self(SendRequest {
            channel,
            from,
            origin: Origin::Server,
            flags: request.flags,
            setting: if request.is_stream {
                setting::STREAM
            } else {
                0
            },
            expire: request.expire,
            client_msg_no,
            topic: "".into(),
            stream_no: "".into(),
            payload: request.payload.clone(),
            recipients,
            receiver_allows_strangers: None,
        })
    }
}

fn check_size(payload: &Bytes) -> Result<()> {
    if payload.len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "payload must be at most {PAYLOAD_BYTES_MAX} bytes"
    )))
}

/// v2's form: 32 hex digits and a 0. The router may retry the message, so it always has a number (H32).
fn generated_number() -> String {
    format!("{:032x}0", rand::random::<u128>())
}
