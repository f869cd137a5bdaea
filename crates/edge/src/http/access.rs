//! Who may use the API (http-api 1.2, H54): a token if one is configured, else only local requests.

use std::net::{IpAddr, Ipv4Addr};

use hyper::HeaderMap;

/// Headers by which a proxy says that the peer is not the caller.
const PROXY_HEADERS: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// How many lines of the routing table are looked at; a default route further down is not found.
const ROUTES_MAX: usize = 4_096;

/// What is asked of a request before it is handled.
#[derive(Clone, Debug)]
pub(super) struct Access {
    token: Option<Vec<u8>>,
    /// Lets a request in that is not local.
    api_token: Option<Vec<u8>>,
    open: bool,
    /// Gateways of default routes: behind Docker's proxy the whole Internet comes from this address.
    gateways: Vec<IpAddr>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The token is missing or wrong.
    Token,
    /// There is no token to ask for, and the request is not local.
    NotLocal,
}

impl Access {
    /// `token`: `managerToken`, blank = none. Without it: `api_token` opens to requests that are not local, `open` to everybody.
    pub(super) fn new(token: &str, api_token: &str, open: bool) -> Self {
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let given = |text: &str| (!text.trim().is_empty()).then(|| text.as_bytes().to_vec());
        Self {
            token: given(token),
            api_token: given(api_token),
            open,
            gateways: default_gateways(&routes),
        }
    }

    /// Whether a request from `peer` may be handled.
    pub(super) fn check(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Denied> {
        let given = headers.get("token").map_or(&b""[..], |v| v.as_bytes());
        match (&self.token, &self.api_token) {
            (Some(token), _) if same(token, given) => Ok(()),
            (Some(_), _) => Err(Denied::Token),
            (None, _) if self.open || self.is_local(peer, headers) => Ok(()),
            (None, Some(token)) if same(token, given) => Ok(()),
            (None, _) => Err(Denied::NotLocal),
        }
    }

    fn is_local(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let peer = peer.to_canonical();
        is_private(peer)
            && !self.gateways.contains(&peer)
            && !PROXY_HEADERS.iter().any(|name| headers.contains_key(*name))
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

/// Gateways of the default routes in the format of `/proc/net/route`: hexadecimal, little-endian.
fn default_gateways(table: &str) -> Vec<IpAddr> {
    let rows = table.lines().skip(1).take(ROUTES_MAX);
    let gateway = |row: &str| {
        let mut columns = row.split_ascii_whitespace().skip(1);
        let (destination, gateway) = (columns.next()?, columns.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        let is_default = destination == "00000000" && gateway != 0;
        is_default.then(|| IpAddr::V4(Ipv4Addr::from(gateway.swap_bytes())))
    };
    rows.filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
        eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\n\
        eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\n";

    fn access(token: &str, open: bool) -> Access {
        Access {
            gateways: default_gateways(TABLE),
            ..Access::new(token, "", open)
        }
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn gateways_of_default_routes() {
        assert_eq!(
            default_gateways(TABLE),
            ["172.17.0.1".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn without_a_token_only_local_requests_pass() {
        let access = access("", false);
        let check = |peer: &str, list: &[(&'static str, &'static str)]| {
            access.check(peer.parse().unwrap(), &headers(list))
        };
        for peer in [
            "127.0.0.1",
            "10.1.2.3",
            "172.17.0.9",
            "::1",
            "::ffff:192.168.0.4",
            "fd00::1",
        ] {
            assert_eq!(check(peer, &[]), Ok(()), "{peer}");
        }
        for peer in [
            "8.8.8.8",
            "172.32.0.1",
            "172.17.0.1",
            "::ffff:172.17.0.1",
            "2001:db8::1",
        ] {
            assert_eq!(check(peer, &[]), Err(Denied::NotLocal), "{peer}");
        }
        for name in PROXY_HEADERS {
            let list = [(name, "1.2.3.4")];
            assert_eq!(check("127.0.0.1", &list), Err(Denied::NotLocal));
        }
    }

    #[test]
    fn the_api_token_opens_to_requests_that_are_not_local() {
        let access = Access::new("", "installed", false);
        let check = |peer: &str, list: &[(&'static str, &'static str)]| {
            access.check(peer.parse().unwrap(), &headers(list))
        };
        assert_eq!(check("127.0.0.1", &[]), Ok(()));
        assert_eq!(check("8.8.8.8", &[("token", "installed")]), Ok(()));
        for list in [&[][..], &[("token", "wrong")]] {
            assert_eq!(check("8.8.8.8", list), Err(Denied::NotLocal));
        }
    }

    #[test]
    fn an_open_api_answers_everybody() {
        let peer = "8.8.8.8".parse().unwrap();
        assert_eq!(access("", true).check(peer, &headers(&[])), Ok(()));
    }

    #[test]
    fn a_token_is_asked_of_everybody() {
        for open in [false, true] {
            let access = access("secret", open);
            let check = |list| access.check("127.0.0.1".parse().unwrap(), &headers(list));
            assert_eq!(check(&[("token", "secret")]), Ok(()));
            for list in [
                &[][..],
                &[("token", "secre")],
                &[("token", "secret2")],
                &[("token", "Secret")],
            ] {
                assert_eq!(check(list), Err(Denied::Token));
            }
        }
    }
}
