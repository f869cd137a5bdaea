//! Health, totals, sockets, addresses, documentation.

use axum::body::Body;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use wk_proto::WallMs;
use wk_server::node::ConnectionInfo;

use crate::http::answer::{Answer, Wording as _, empty, json, json_with, ok, page};
use crate::http::decode;
use crate::http::docs;
use crate::http::json::Json;
use crate::http::process;
use crate::http::server::{App, Call};
use crate::http::text::{duration, rfc3339};

/// Connections listed if the caller does not say, and at most.
const CONNECTIONS_DEFAULT: usize = 20;
const CONNECTIONS_MAX: usize = 10_000;

pub(crate) async fn health(call: Call) -> Answer {
    Ok(match call.app.service.health() {
        Ok(()) => alive(),
        Err(error) => json_with(StatusCode::INTERNAL_SERVER_ERROR, |json| {
            json.object(|o| {
                o.key("message").text(&error.to_string());
                o.key("status").text("error");
            });
        }),
    })
}

/// The process runs; nothing else is promised.
pub(crate) async fn healthz(_: Call) -> Answer {
    Ok(alive())
}

fn alive() -> Response<Body> {
    json(|json| {
        json.object(|o| {
            o.key("status").text("ok");
        });
    })
}

/// Requests are served; if not, why not.
pub(crate) async fn readyz(call: Call) -> Answer {
    let readiness = call.app.service.readiness();
    let code = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(json_with(code, |json| {
        json.object(|o| {
            o.key("groups").int(readiness.groups);
            o.key("groups_led").int(readiness.groups_led);
            o.key("ready").bool(readiness.ready);
            o.key("waiting_for")
                .texts(readiness.waiting_for.iter().map(String::as_str));
        });
    }))
}

pub(crate) async fn route(call: Call) -> Answer {
    let intranet = call.query.text("intranet") == "1";
    Ok(json(|json| {
        json.object(|o| write_addresses(o, &call.app, intranet));
    }))
}

pub(crate) async fn route_batch(call: Call) -> Answer {
    let uids = decode::texts(&call.body).fixed_text()?;
    let intranet = call.query.text("intranet") == "1";
    Ok(json(|json| {
        json.array(|list| {
            list.object(|o| {
                write_addresses(o, &call.app, intranet);
                match &uids {
                    Some(uids) => o.key("uids").texts(uids.iter().map(String::as_str)),
                    None => o.key("uids").null(),
                };
            });
        });
    }))
}

fn write_addresses(o: &mut Json, app: &App, intranet: bool) {
    let addresses = &app.config.addresses;
    let [tcp, ws, wss] = match intranet {
        true => [addresses.intranet_tcp.as_str(), "", ""],
        false => [
            addresses.tcp.as_str(),
            addresses.ws.as_str(),
            addresses.wss.as_str(),
        ],
    };
    o.key("tcp_addr").text(tcp);
    o.key("ws_addr").text(ws);
    o.key("wss_addr").text(wss);
}

pub(crate) async fn varz(call: Call) -> Answer {
    let app = &call.app;
    app.service
        .check_here(call.query.u64("node_id"), "node not found")?;
    let mut conns = Vec::new();
    if call.query.text("show") == "conn" {
        conns = app.service.connections();
        conns.retain(|c| c.uid.is_some());
        sort(&mut conns, "inMsgDesc");
        conns.truncate(limit(call.query.int("conn_limit")));
    }
    Ok(json(|json| {
        json.object(|o| write_varz(o, app, &conns));
    }))
}

fn write_varz(o: &mut Json, app: &App, conns: &[ConnectionInfo]) {
    let (service, config) = (&app.service, &app.config);
    let counters = service.counters();
    let users: std::collections::BTreeSet<_> = service
        .connections()
        .into_iter()
        .filter_map(|c| c.uid)
        .collect();
    let uptime_ms = app.started.elapsed().as_millis() as u64;
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let token_on = u8::from(!config.manager_token.trim().is_empty());
    o.key("server_id").int_text(service.node_id());
    o.key("server_name").text("WuKongIM");
    o.key("version").text(config.build.version);
    o.key("connections").int(counters.connections);
    o.key("user_handler_count").int(users.len());
    o.key("user_handler_conn_count").int(counters.connections);
    o.key("uptime").text(&duration(uptime_ms));
    o.key("goroutine").int(tasks);
    o.key("mem").int(process::resident_bytes());
    o.key("cpu").float(process::cpu_percent(app.started));
    o.key("in_msgs").int(counters.in_msgs);
    o.key("out_msgs").int(counters.out_msgs);
    o.key("in_bytes").int(counters.in_bytes);
    o.key("out_bytes").int(counters.out_bytes);
    o.key("slow_clients").int(counters.slow_clients);
    o.key("retry_queue").int(0);
    o.key("tcp_addr").text(&config.addresses.tcp);
    o.key("ws_addr").text(&config.addresses.ws);
    o.key("wss_addr").text(&config.addresses.wss);
    o.key("manager_addr").text(&config.addresses.manager);
    o.key("manager_on").int(u8::from(config.manager_on));
    o.key("commit").text(config.build.commit);
    o.key("commit_date").text(config.build.commit_date);
    o.key("tree_state").text(config.build.tree_state);
    o.key("api_url").text(&config.addresses.api);
    o.key("manager_uid").text(service.manager_uid().as_str());
    o.key("manager_token_on").int(token_on);
    if !conns.is_empty() {
        let now = WallMs(now_ms());
        o.key("conns").array(|list| {
            for connection in conns {
                write_connection(list, connection, service.node_id(), now);
            }
        });
    }
    o.key("conversation_cache_count").int(0);
    // Ours: the health of the write path.
    o.key("undelivered").int(counters.undelivered);
    o.key("fsyncs").int(counters.fsyncs);
    o.key("shard_turn_us_max").int(counters.shard_turn_us_max);
    o.key("shard_turn_us_p999").int(counters.shard_turn_us_p999);
    o.key("shard_turn_cpu_us_max")
        .int(counters.shard_turn_cpu_us_max);
    o.key("shard_turn_cpu_us_p999")
        .int(counters.shard_turn_cpu_us_p999);
    o.key("kv_rows_per_message")
        .float(counters.kv_rows_per_message);
}

pub(crate) async fn varz_setting(_: Call) -> Answer {
    Ok(json(|json| {
        json.object(|o| {
            o.key("logger").object(|l| {
                l.key("trace_on").int(0).key("loki_on").int(0);
            });
            o.key("prometheus_on").int(0).key("stress_on").int(0);
        });
    }))
}

pub(crate) async fn connz(call: Call) -> Answer {
    let (app, query) = (&call.app, &call.query);
    app.service
        .check_here(query.u64("node_id"), "节点不存在！")?;
    let mut conns = app.service.connections();
    let total = conns.len();
    let filter = query.text("uid");
    if !filter.is_empty() {
        conns.retain(|c| c.uid.as_ref().is_some_and(|u| u.as_str().contains(filter)));
    }
    sort(&mut conns, query.text("sort"));
    let offset = usize::try_from(query.int("offset")).unwrap_or(0);
    let limit = limit(query.int("limit"));
    let now = WallMs(now_ms());
    Ok(json(|json| {
        json.object(|o| {
            o.key("connections").array(|list| {
                for connection in conns.iter().skip(offset).take(limit) {
                    write_connection(list, connection, app.service.node_id(), now);
                }
            });
            o.key("now").text(&rfc3339(now));
            o.key("total").int(total);
            o.key("offset").int(offset);
            o.key("limit").int(limit);
        });
    }))
}

fn limit(asked: i64) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => CONNECTIONS_DEFAULT,
        Ok(n) => n.min(CONNECTIONS_MAX),
    }
}

/// Sorts by one of v2's names, by id if there is no such name.
fn sort(conns: &mut [ConnectionInfo], name: &str) {
    let (field, descending) = match name.strip_suffix("Desc") {
        Some(field) => (field, true),
        None => (name, false),
    };
    let key = |c: &ConnectionInfo| match field {
        "inMsg" => c.in_msgs,
        "outMsg" => c.out_msgs,
        "inMsgBytes" => c.in_msg_bytes,
        "outMsgBytes" => c.out_msg_bytes,
        "inPacket" => c.in_packets,
        "outPacket" => c.out_packets,
        "inPacketBytes" => c.in_packet_bytes,
        "outPacketBytes" => c.out_packet_bytes,
        // The longest is the earliest.
        "uptime" => u64::MAX - c.connected.0,
        "idle" => u64::MAX - c.last_activity.0,
        "protoVersion" => u64::from(c.version),
        _ => c.id.0,
    };
    conns.sort_by_key(|c| (key(c), c.id));
    if descending {
        conns.reverse();
    }
}

fn write_connection(json: &mut Json, c: &ConnectionInfo, node: u64, now: WallMs) {
    let device = match c.device_flag {
        0 => "App",
        1 => "Web",
        2 => "PC",
        _ => "未知",
    };
    let level = if c.master { "主" } else { "从" };
    json.object(|o| {
        o.key("id").int(c.id.0);
        o.key("uid")
            .text(c.uid.as_ref().map_or("", |uid| uid.as_str()));
        o.key("ip").text(&c.peer.ip().to_canonical().to_string());
        o.key("port").int(c.peer.port());
        o.key("last_activity").text(&rfc3339(c.last_activity));
        o.key("uptime")
            .text(&duration(now.0.saturating_sub(c.connected.0)));
        o.key("idle")
            .text(&duration(now.0.saturating_sub(c.last_activity.0)));
        o.key("pending_bytes").int(0);
        o.key("in_msgs").int(c.in_msgs);
        o.key("out_msgs").int(c.out_msgs);
        o.key("in_msg_bytes").int(c.in_msg_bytes);
        o.key("out_msg_bytes").int(c.out_msg_bytes);
        o.key("in_packets").int(c.in_packets);
        o.key("out_packets").int(c.out_packets);
        o.key("in_packet_bytes").int(c.in_packet_bytes);
        o.key("out_packet_bytes").int(c.out_packet_bytes);
        o.key("device").text(&format!("{device}({level})"));
        o.key("device_id").text(&c.device_id);
        o.key("version").int(c.version);
        o.key("proxy_type_format").text("本地连接");
        o.key("leader_id").int(node);
        o.key("node_id").int(node);
    });
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

pub(crate) async fn conn_kick(call: Call) -> Answer {
    close(&call, true)
}

pub(crate) async fn conn_remove(call: Call) -> Answer {
    close(&call, false)
}

fn close(call: &Call, kick: bool) -> Answer {
    let (uid, conn, node, operator) = decode::object(&call.body, "", |f| {
        let (uid, conn) = (f.text("uid"), f.int64("conn_id"));
        (uid, conn, f.u64("node_id"), f.u64("op_node_id"))
    })?;
    let service = &call.app.service;
    service.check_here(operator, "node not found")?;
    // A connection of another node is unknown here.
    let here = service.check_here(node, "").is_ok();
    service.close_connection(if here { &uid } else { "" }, conn, kick)?;
    Ok(ok())
}

/// There is never a migration from version 1 under way: import is a command of its own.
pub(crate) async fn migration(_: Call) -> Answer {
    Ok(json(|json| {
        json.object(|o| {
            o.key("status").text("running").key("step").text("");
            o.key("last_err").null().key("try_count").int(0);
        });
    }))
}

pub(crate) async fn docs_page(call: Call) -> Answer {
    if call.app.config.is_release() {
        return Ok(docs_off());
    }
    let html = "text/html; charset=utf-8";
    Ok(page(StatusCode::OK, html, docs::page()))
}

pub(crate) async fn docs_slash(call: Call) -> Answer {
    if call.app.config.is_release() {
        return Ok(docs_off());
    }
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    let docs = HeaderValue::from_static("/docs");
    response.headers_mut().insert(LOCATION, docs);
    Ok(response)
}

pub(crate) async fn docs_openapi(call: Call) -> Answer {
    if call.app.config.is_release() {
        return Ok(docs_off());
    }
    let version = call.app.config.build.version;
    Ok(json(|json| docs::openapi(json, version)))
}

pub(crate) async fn docs_health(call: Call) -> Answer {
    let release = call.app.config.is_release();
    Ok(json(|json| {
        json.object(|o| {
            if release {
                o.key("description")
                    .text("Documentation service is disabled in release mode");
                o.key("mode").text("release");
                o.key("service").text("docs").key("status").text("disabled");
                return;
            }
            o.key("description").text("API documentation");
            o.key("endpoints").object(|e| {
                e.key("openapi").text("/docs/openapi.json");
                e.key("ui").text("/docs");
            });
            o.key("service").text("docs").key("status").text("ok");
        });
    }))
}

fn docs_off() -> Response<Body> {
    json_with(StatusCode::FORBIDDEN, |json| {
        json.object(|o| {
            o.key("error")
                .text("Documentation endpoints are disabled in release mode");
            o.key("message")
                .text("API documentation is only available in development mode for security reasons");
            o.key("mode").text("release");
            o.key("suggestion")
                .text("To access documentation, run the server in debug mode or check the static documentation files");
        });
    })
}
