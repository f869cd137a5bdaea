//! Tokens, admission, system accounts. Spec: messaging 1.3, 1.4, N1–N4; wire-protocol 11.2; http-api 2.

use std::sync::Arc;

use wk_proto::channel::{SYSTEM_DEVICE, SYSTEM_UID};
use wk_proto::{Reason, Uid};
use wk_store::Result;

use crate::command::Effect;
use crate::lists::own_row;
use crate::policy::Policy;
use crate::request::{AdmitRequest, DeviceLevel, Grant, Reply};
use crate::rows::{self, Channel, Device, Rows};
use crate::step::Step;
use crate::tables;

/// Text of the DISCONNECT after a master logged in elsewhere; clients show it.
pub const KICK_TEXT: &str = "账号在其他设备上登录";
/// From that DISCONNECT to the close, ms.
const TOKEN_KICK_DELAY_MS: u64 = 10_000;
/// The same for `device_quit`, ms.
const QUIT_KICK_DELAY_MS: u64 = 2_000;
/// Listed system accounts. A write that would pass it is refused with `RateLimit`: every node holds them in memory.
const SYSTEM_UIDS_MAX: usize = 10_000;

/// What slot(uid) knows about a user who connects.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdmitFacts {
    ban: bool,
    send_ban: bool,
    device: Option<Device>,
}

impl AdmitFacts {
    pub(crate) fn fetch(rows: &impl Rows, uid: &Uid, device_flag: u8) -> Result<Self> {
        let flags = Channel::read(rows, &own_row(uid))?.flags();
        Ok(Self {
            ban: flags.ban,
            send_ban: flags.send_ban,
            device: rows.find(tables::DEVICES, &tables::device(uid, device_flag))?,
        })
    }
}

/// Whether a CONNECT is admitted. Checks in wire-protocol 11.2's order, rows 2–6; the uid's form was checked when it was parsed.
pub(crate) fn admit(
    policy: &Policy,
    facts: &AdmitFacts,
    request: &AdmitRequest,
) -> Result<Grant, Reason> {
    if request.uid.as_str() == SYSTEM_UID || &*request.device_id == SYSTEM_DEVICE {
        return Err(Reason::AuthFail);
    }
    let level = authenticate(policy, facts, request).ok_or(Reason::AuthFail)?;
    if facts.ban {
        return Err(Reason::Ban);
    }
    Ok(Grant {
        level,
        send_ban: facts.send_ban,
    })
}

fn authenticate(
    policy: &Policy,
    facts: &AdmitFacts,
    request: &AdmitRequest,
) -> Option<DeviceLevel> {
    if request.uid == policy.manager_uid
        && let Some(expected) = &policy.manager_token
    {
        return same_secret(&request.token, expected).then_some(DeviceLevel::Slave);
    }
    if !policy.token_auth || policy.is_visitor(&request.uid) {
        return Some(DeviceLevel::Slave);
    }
    let device = facts.device.as_ref()?;
    same_secret(&request.token, &device.token).then_some(if device.master {
        DeviceLevel::Master
    } else {
        DeviceLevel::Slave
    })
}

/// Equal and not empty, in a time that depends on the lengths alone.
fn same_secret(given: &str, expected: &str) -> bool {
    let (given, expected) = (given.as_bytes(), expected.as_bytes());
    if expected.is_empty() || given.len() != expected.len() {
        return false;
    }
    let difference = given
        .iter()
        .zip(expected)
        .fold(0u8, |acc, (a, b)| std::hint::black_box(acc | (a ^ b)));
    difference == 0
}

/// Stores a token; a master's sends the flag's sessions away, also when nothing changed ("last login wins").
pub(crate) fn set_token(
    step: &mut Step<'_, '_>,
    uid: Uid,
    device_flag: u8,
    level: DeviceLevel,
    token: &str,
) -> Result<Reply> {
    let flags = Channel::read(step.tx, &own_row(&uid))?.flags();
    if flags.ban {
        return Ok(Reply::Refused(Reason::Ban));
    }
    if flags.disband {
        return Ok(Reply::Refused(Reason::Disband));
    }
    let master = level == DeviceLevel::Master;
    let device = Device {
        token: token.to_owned(),
        master,
    };
    let key = tables::device(&uid, device_flag);
    rows::put(step.tx, tables::DEVICES, &key, &device);
    if master {
        step.effect(Effect::Kick {
            uid,
            device_flag: Some(device_flag),
            text: KICK_TEXT,
            delay_ms: TOKEN_KICK_DELAY_MS,
        });
    }
    Ok(Reply::Done)
}

/// Empties tokens. Sessions are sent away whether there were rows or not.
pub(crate) fn quit_devices(
    step: &mut Step<'_, '_>,
    uid: Uid,
    device_flag: Option<u8>,
) -> Result<Reply> {
    let quit = Device {
        token: String::new(),
        master: true,
    };
    let mut flags = Vec::new();
    for (key, _) in devices(step, &uid)? {
        let Some(flag) = tables::device_flag(&key) else {
            continue;
        };
        if device_flag.is_none_or(|wanted| wanted == flag) {
            rows::put(step.tx, tables::DEVICES, &key, &quit);
            flags.push(flag);
        }
    }
    step.effect(Effect::Kick {
        uid,
        device_flag,
        text: "",
        delay_ms: QUIT_KICK_DELAY_MS,
    });
    Ok(Reply::Flags(flags))
}

/// At most 256 rows: a flag is one byte.
fn devices(step: &Step<'_, '_>, uid: &Uid) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>> {
    step.tx
        .rows(tables::DEVICES, &tables::devices_of(uid), None, 256)
}

/// Adds or removes system accounts; every node then gets the whole list.
pub(crate) fn change_system_uids(
    step: &mut Step<'_, '_>,
    uids: &[Uid],
    add: bool,
) -> Result<Reply> {
    if add && system_uids(step.tx)?.len() + uids.len() > SYSTEM_UIDS_MAX {
        return Ok(Reply::Refused(Reason::RateLimit));
    }
    for uid in uids {
        let key = tables::user(uid);
        if add {
            step.tx.put(tables::SYSTEM_UIDS, &key, bytes::Bytes::new());
        } else {
            step.tx.delete(tables::SYSTEM_UIDS, &key);
        }
    }
    let all: Arc<[Uid]> = system_uids(step.tx)?.into();
    step.effect(Effect::SystemUids(all));
    Ok(Reply::Done)
}

/// All listed system accounts, in key order.
pub(crate) fn system_uids(rows: &impl Rows) -> Result<Vec<Uid>> {
    let mut out = Vec::new();
    rows::each_row(rows, tables::SYSTEM_UIDS, &[], None, |key, _| {
        out.extend(tables::text_after(&key, &[]).map(Uid::trusted));
        Ok(true)
    })?;
    Ok(out)
}
