//! `/user/*`.

use crate::http::answer::{Answer, json, ok};
use crate::http::decode::{self, Fields};
use crate::http::server::Call;
use crate::service::SetToken;

pub(crate) async fn token(call: Call) -> Answer {
    let request = decode::object(&call.body, "UpdateTokenReq", |f| SetToken {
        uid: f.text("uid"),
        token: f.text("token"),
        device_flag: f.u8_named("device_flag", "wkproto.DeviceFlag"),
        device_level: f.u8_named("device_level", "wkproto.DeviceLevel"),
    })?;
    call.app.service.set_token(request).await?;
    Ok(ok())
}

pub(crate) async fn device_quit(call: Call) -> Answer {
    let (uid, flag) = decode::object(&call.body, "", |f| (f.text("uid"), f.int("device_flag")))?;
    call.app.service.quit_devices(&uid, flag).await?;
    Ok(ok())
}

pub(crate) async fn online_status(call: Call) -> Answer {
    let uids = decode::texts(&call.body)?.unwrap_or_default();
    if uids.is_empty() {
        return Ok(ok());
    }
    let online = call.app.service.online(&uids)?;
    Ok(json(|json| {
        json.array(|list| {
            for session in &online {
                list.object(|o| {
                    o.key("uid").text(session.uid.as_str());
                    o.key("device_flag").int(session.device_flag);
                    o.key("online").int(1);
                });
            }
        });
    }))
}

pub(crate) async fn system_uids(call: Call) -> Answer {
    let uids = call.app.service.system_uids().await?;
    Ok(json(|json| {
        json.texts(uids.iter().map(|uid| uid.as_str()));
    }))
}

pub(crate) async fn system_uids_add(call: Call) -> Answer {
    let uids = decode::object(&call.body, "", uids)?;
    call.app.service.change_system_uids(&uids, true).await?;
    Ok(ok())
}

pub(crate) async fn system_uids_remove(call: Call) -> Answer {
    let uids = decode::object(&call.body, "", uids)?;
    call.app.service.change_system_uids(&uids, false).await?;
    Ok(ok())
}

/// v2's nodes told each other with this; ours learn it from the log. Accepted, without effect.
pub(crate) async fn system_uids_cache(call: Call) -> Answer {
    decode::object(&call.body, "", uids)?;
    Ok(ok())
}

fn uids(fields: &mut Fields<'_, '_>) -> Vec<String> {
    fields.texts("uids")
}
