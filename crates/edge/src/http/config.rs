//! Settings of the business API.

use std::net::SocketAddr;

/// Sockets at a time, unless the process cannot have so many.
const CONNECTIONS_MAX: usize = 10_000;

/// Settings of the business API. [`ApiConfig::new`] gives v2's defaults.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// `httpAddr`. Port 0 picks a free one.
    pub addr: SocketAddr,
    /// `managerToken`. Not blank: every request needs it in the header `token`. Blank: only local requests are answered,
    /// and those with [`Self::api_token`] (H54).
    pub manager_token: String,
    /// Without a `managerToken`: what requests from the network need in the header `token` (H54). Blank: they are refused.
    pub api_token: String,
    /// Without a token, answer requests from the network too.
    pub open_to_network: bool,
    /// Sockets at a time, at least 1; more wait in the kernel's queue.
    pub connections_max: usize,
    /// `mode`: with `release` the documentation is not served.
    pub mode: String,
    /// What `/route` and `/varz` tell.
    pub addresses: Addresses,
    /// `manager.on`, told by `/varz`.
    pub manager_on: bool,
    /// Which build this is, told by `/varz`.
    pub build: Build,
    /// Limits and switches of the use cases.
    pub service: crate::service::Config,
}

/// Addresses at which clients reach this node; empty = not offered.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the configuration's")]
pub struct Addresses {
    /// `external.tcpAddr`.
    pub tcp: String,
    /// `external.wsAddr`.
    pub ws: String,
    /// `external.wssAddr`.
    pub wss: String,
    /// `external.managerAddr`.
    pub manager: String,
    /// `external.apiUrl`.
    pub api: String,
    /// `intranet.tcpAddr`.
    pub intranet_tcp: String,
}

/// Which build of the server this is.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names are v2's")]
pub struct Build {
    pub version: &'static str,
    pub commit: &'static str,
    pub commit_date: &'static str,
    pub tree_state: &'static str,
}

impl ApiConfig {
    /// v2's defaults on `addr`.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            manager_token: String::new(),
            api_token: String::new(),
            open_to_network: false,
            connections_max: CONNECTIONS_MAX,
            mode: "release".to_owned(),
            addresses: Addresses::default(),
            manager_on: false,
            build: Build::default(),
            service: crate::service::Config::default(),
        }
    }

    pub(super) fn is_release(&self) -> bool {
        self.mode == "release"
    }
}
