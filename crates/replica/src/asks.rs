//! Messages that wait for a fact of another group, and those that must not overtake them.
//!
//! A message whose receiver has to be asked comes back into the queue when the answer is here. Until then later messages of its
//! sender to the same channel wait behind it, whatever they need themselves: their order is the sender's (I-3).

use std::collections::BTreeMap;

use wk_chat::Request;
use wk_proto::{ChannelKey, Mono, Ticket, Uid};

use crate::limits::ASKS_MAX;

/// A call that waits.
pub(crate) type Call = (Ticket, Request);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    open: BTreeMap<Ticket, Ask>,
    /// Whose question is open.
    keys: BTreeMap<Key, Ticket>,
    /// Calls in `open`.
    calls: usize,
}

type Key = (ChannelKey, Uid);

#[derive(Debug)]
struct Ask {
    request: Request,
    until: Mono,
    behind: Vec<Call>,
}

/// What became of a call that may have to wait.
#[derive(Debug, PartialEq)]
pub(crate) enum Wait {
    /// It waits for an answer: ask.
    Ask,
    /// It waits behind another one.
    Behind,
    /// Nothing holds it up.
    No(Call),
    /// There is no room.
    Full(Ticket),
}

impl Asks {
    /// A call is to be decided: whether an earlier one of its sender holds it up.
    pub(crate) fn join(&mut self, call: Call) -> Wait {
        let key = key(&call.1);
        let ahead = key.and_then(|key| self.keys.get(&key));
        let Some(ahead) = ahead.and_then(|ticket| self.open.get_mut(ticket)) else {
            return Wait::No(call);
        };
        if self.calls >= ASKS_MAX {
            return Wait::Full(call.0);
        }
        self.calls += 1;
        ahead.behind.push(call);
        Wait::Behind
    }

    /// A call needs an answer, until then; or waits behind one that does.
    pub(crate) fn ask(&mut self, call: Call, until: Mono) -> Wait {
        let (ticket, request) = match self.join(call) {
            Wait::No(call) => call,
            other => return other,
        };
        if self.calls >= ASKS_MAX {
            return Wait::Full(ticket);
        }
        self.calls += 1;
        if let Some(key) = key(&request) {
            self.keys.insert(key, ticket);
        }
        let behind = Vec::new();
        self.open.insert(
            ticket,
            Ask {
                request,
                until,
                behind,
            },
        );
        Wait::Ask
    }

    /// The answer is here, or there will be none: the call, and those behind it, in order.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<(Request, Vec<Call>)> {
        let ask = self.open.remove(&ticket)?;
        self.calls -= 1 + ask.behind.len();
        if let Some(key) = key(&ask.request) {
            self.keys.remove(&key);
        }
        Some((ask.request, ask.behind))
    }

    /// Whether this call waits for an answer.
    pub(crate) fn contains(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// Calls that have waited too long, and those behind them: were those let through, they would overtake when the others come
    /// again.
    pub(crate) fn expire(&mut self, now: Mono) -> Vec<Ticket> {
        let late = self.open.iter().filter(|(_, ask)| ask.until <= now);
        let late: Vec<Ticket> = late.map(|(ticket, _)| *ticket).collect();
        late.into_iter().flat_map(|t| self.end(t)).collect()
    }

    /// All of them.
    pub(crate) fn take_all(&mut self) -> Vec<Ticket> {
        self.expire(Mono(u64::MAX))
    }

    /// A call ends without an answer, and so do those behind it.
    pub(crate) fn end(&mut self, ticket: Ticket) -> Vec<Ticket> {
        let Some((_, behind)) = self.take(ticket) else {
            return Vec::new();
        };
        let behind = behind.into_iter().map(|(ticket, _)| ticket);
        std::iter::once(ticket).chain(behind).collect()
    }
}

/// Only messages have an order.
fn key(request: &Request) -> Option<Key> {
    match request {
        Request::Send(send) => Some((send.channel.clone(), send.from.clone())),
        _ => None,
    }
}
