//! Users: tokens, devices, presence, system accounts (http-api 2).

use wk_chat::query::{Answer, Query};
use wk_chat::request::{DeviceLevel, UIDS_PER_WRITE_MAX, Write};
use wk_proto::Uid;
use wk_proto::channel::SYSTEM_UID;

use super::error::{Result, ensure};
use super::{Service, ids, mismatch};

/// `POST /user/token`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct SetToken {
    pub uid: String,
    pub token: String,
    pub device_flag: u8,
    /// 1 = master.
    pub device_level: u8,
}

/// One live session of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Online {
    /// Whose.
    pub uid: Uid,
    /// Device class.
    pub device_flag: u8,
}

/// Uids one presence question may name; more are refused.
const PRESENCE_UIDS_MAX: usize = 100_000;

impl Service {
    /// Creates or replaces the token of (uid, device flag). A master's token kicks the live sessions of its flag. Refused with 19 or 24
    /// if the user is banned.
    pub async fn set_token(&self, request: SetToken) -> Result<()> {
        ensure(!request.uid.is_empty(), "uid不能为空！")?;
        ensure(!request.token.is_empty(), "token不能为空！")?;
        let uid = ids::uid(&request.uid, "uid不能为空！", "uid不能包含特殊字符！")?;
        ensure(uid.as_str() != SYSTEM_UID, "系统账号不允许更新token！")?;
        self.write(Write::SetToken {
            uid,
            device_flag: request.device_flag,
            level: match request.device_level {
                1 => DeviceLevel::Master,
                _ => DeviceLevel::Slave,
            },
            token: request.token.into(),
        })
        .await
    }

    /// Empties tokens and ends the sessions they belong to. `device_flag` −1 = all devices; other values count modulo 256, as in v2.
    pub async fn quit_devices(&self, uid: &str, device_flag: i64) -> Result<()> {
        let uid = ids::uid(uid, "uid不能为空！", "uid不能包含特殊字符！")?;
        let device_flag = match device_flag {
            -1 => None,
            flag => Some(flag.rem_euclid(256) as u8),
        };
        self.write(Write::QuitDevices { uid, device_flag }).await
    }

    /// The live sessions of `uids`, in their order; a uid named twice is answered twice, what cannot be a uid is nobody.
    pub fn online(&self, uids: &[String]) -> Result<Vec<Online>> {
        ensure(uids.len() <= PRESENCE_UIDS_MAX, "uids数量过多！")?;
        let known = uids.iter().filter_map(|text| Uid::parse(text).ok());
        let sessions = known.flat_map(|uid| {
            let entries = self.backend.sessions(&uid);
            entries.into_iter().map(move |entry| Online {
                uid: uid.clone(),
                device_flag: entry.device_flag,
            })
        });
        Ok(sessions.collect())
    }

    /// System accounts, in order of their uids.
    pub async fn system_uids(&self) -> Result<Vec<Uid>> {
        match self.query(Query::SystemUids).await? {
            Answer::SystemUids(uids) => Ok(uids),
            other => Err(mismatch(&other)),
        }
    }

    /// Adds or removes system accounts; visible to every node when it returns (D18).
    pub async fn change_system_uids(&self, list: &[String], add: bool) -> Result<()> {
        let uids = ids::uids(list)?;
        for chunk in uids.chunks(UIDS_PER_WRITE_MAX) {
            let uids = chunk.to_vec();
            self.write(Write::SystemUids { uids, add }).await?;
        }
        Ok(())
    }
}
