//! How the file descriptors of the process are shared out, so that clients cannot take those the store and the API need.
//!
//! A node that cannot open its next log segment stops serving; a crowd of clients must not be able to cause that.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Of the limit: for logs, message files, threads, the console. More than a checkpoint and a full set of message files take.
const FILES_PART: u64 = 8;
const FILES_MIN: u64 = 64;
const FILES_MAX: u64 = 4_096;

/// Of the limit: for connections to the HTTP API.
const API_PART: u64 = 16;
const API_MIN: u64 = 16;
const API_MAX: u64 = 10_000;

/// Clients one process of this design holds (H18); also what an unlimited process gets.
const CLIENTS_MAX: u64 = 1_000_000;

/// Clients below which an operator should hear why there will not be more.
const CLIENTS_FEW: u64 = 8_000;

/// Who may have how many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// What the system allows the process in all; `None` = any number.
    limit: Option<u64>,
    /// Client connections.
    pub clients: usize,
    /// HTTP connections.
    pub api: usize,
}

impl Shares {
    /// Raises the process's limit as far as it may and shares it out.
    pub fn claim() -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        let granted = limit.current;
        limit.current = limit.maximum;
        let limit = match setrlimit(Resource::Nofile, limit) {
            Ok(()) => limit.current,
            // Not allowed: the old limit stands.
            Err(_) => granted,
        };
        Self::of(limit)
    }

    fn of(limit: Option<u64>) -> Self {
        let all = limit.unwrap_or(u64::MAX);
        let files = (all / FILES_PART).clamp(FILES_MIN, FILES_MAX);
        let api = (all / API_PART).clamp(API_MIN, API_MAX);
        let clients = all.saturating_sub(files + api).clamp(1, CLIENTS_MAX);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            limit,
            clients: count(clients),
            api: count(api),
        }
    }

    /// What an operator should hear; `wanted` = the configured number of clients, 0 = as many as possible.
    pub fn notice(&self, wanted: usize) -> Option<String> {
        let limit = self.limit?;
        let few = wanted == 0 && (self.clients as u64) < CLIENTS_FEW;
        (few || wanted > self.clients).then(|| {
            format!(
                "this process may open {limit} files, which is enough for {} clients; raise the limit (ulimit -n, LimitNOFILE=) for more",
                self.clients
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_the_limit() {
        for limit in [256, 300, 1_024, 4_096, 20_000, 65_536, 1 << 20] {
            let Shares { clients, api, .. } = Shares::of(Some(limit));
            let rest = limit - clients as u64 - api as u64;
            assert!(
                rest >= FILES_MIN && rest.min(FILES_MAX) >= limit.min(16_384) / FILES_PART,
                "{limit}: {rest}"
            );
            assert!(clients as u64 >= limit / 2, "{limit}: {clients}");
        }
        assert_eq!(Shares::of(None).clients as u64, CLIENTS_MAX);
    }

    #[test]
    fn an_operator_hears_of_limits_that_matter() {
        let small = Shares::of(Some(1_024));
        assert!(
            small
                .notice(0)
                .is_some_and(|text| text.contains("1024") && text.contains("832"))
        );
        assert_eq!(small.notice(500), None);
        assert!(small.notice(5_000).is_some());
        assert_eq!(Shares::of(Some(65_536)).notice(0), None);
        assert_eq!(Shares::of(None).notice(0), None);
    }
}
