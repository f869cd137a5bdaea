//! One delivery thread: resolves recipients and fills mailboxes, a batch at a time.
//!
//! Failure policy: a channel whose members cannot be read gets no push for that batch (logged, counted); its clients still pull.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use wk_chat::{Answer, Query, Reply, Request};
use wk_proto::{ChannelKey, MessageSeq, SessionRef, Uid};
use wk_store::{Dir, View};

use super::plan::{self, Plans};
use super::queue::{Queue, Work};
use super::{Job, Outgoing, Sender, is_pair};
use crate::hub::Wakes;
use crate::limits::PLAN_UIDS_MAX;
use crate::peer::Remote;
use crate::route::Route;

/// See the module.
pub(crate) struct Worker {
    pub(crate) queue: Arc<Queue>,
    pub(crate) sender: Sender,
    pub(crate) route: Arc<Route>,
    /// To wait for a read from this thread.
    pub(crate) runtime: tokio::runtime::Handle,
}

/// Messages of one channel that can go out together.
struct Run {
    channel: ChannelKey,
    messages: Vec<Outgoing>,
    recipients: Option<Arc<[Uid]>>,
    view: View,
}

impl Worker {
    pub(crate) fn run(self) {
        let mut plans = Plans::new(PLAN_UIDS_MAX);
        while let Some(work) = self.queue.take() {
            match work {
                Work::Jobs(jobs) => self.jobs(jobs, &mut plans),
                Work::ReadBack(channel, first, origins) => {
                    self.read_back(channel, first, &origins, &mut plans);
                }
            }
        }
    }

    /// Joins what belongs to one channel, so that each recipient is looked up and woken once per batch.
    fn jobs(&self, jobs: VecDeque<Job>, plans: &mut Plans) {
        let mut runs: Vec<Run> = Vec::new();
        let mut open: HashMap<ChannelKey, usize> = HashMap::new();
        for job in jobs {
            match job {
                Job::Push {
                    channel,
                    messages,
                    view,
                } => match open.get(&channel) {
                    Some(at) => runs[*at].messages.extend(messages),
                    None => {
                        open.insert(channel.clone(), runs.len());
                        runs.push(Run {
                            channel,
                            messages,
                            recipients: None,
                            view,
                        });
                    }
                },
                Job::Transient {
                    channel,
                    message,
                    recipients,
                    view,
                } => {
                    open.remove(&channel);
                    runs.push(Run {
                        channel,
                        messages: vec![message],
                        recipients,
                        view,
                    });
                }
                Job::Forget(channel) => {
                    // What came before the change goes out with the old plan.
                    self.push_all(std::mem::take(&mut runs), plans);
                    open.clear();
                    plans.forget(&channel);
                }
            }
        }
        self.push_all(runs, plans);
    }

    fn push_all(&self, runs: Vec<Run>, plans: &mut Plans) {
        for run in runs {
            let recipients = match &run.recipients {
                Some(explicit) => Ok(plan::explicit(explicit).into()),
                None => plans.of(&run.channel, |owner| plan::load(&run.view, owner)),
            };
            self.push(&run.channel, recipients, &run.messages);
        }
    }

    fn push(
        &self,
        channel: &ChannelKey,
        recipients: wk_store::Result<Arc<[Uid]>>,
        messages: &[Outgoing],
    ) {
        let recipients = match recipients {
            Ok(recipients) => recipients,
            Err(error) => {
                tracing::error!(%error, ?channel, "recipients cannot be read");
                self.sender.totals.undelivered.add(messages.len() as u64);
                return;
            }
        };
        // In slices: a connect must not wait for a whole large group.
        for slice in recipients.chunks(RECIPIENTS_PER_LOCK) {
            let mut wakes = Wakes::default();
            let mut remote = Remote::new();
            let directory = self.sender.presence.directory();
            for uid in slice {
                self.sender
                    .to_user(&directory, uid, messages, &mut wakes, &mut remote);
            }
            drop(directory);
            self.sender.to_nodes(remote, messages);
            self.sender.hub.wake(wakes);
        }
    }

    fn read_back(
        &self,
        channel: ChannelKey,
        first: MessageSeq,
        origins: &[Option<SessionRef>],
        plans: &mut Plans,
    ) {
        let last = MessageSeq(first.0 + origins.len() as u64 - 1);
        let Some(messages) = self.read(&channel, first, last) else {
            self.sender.totals.undelivered.add(origins.len() as u64);
            return;
        };
        let outgoing = messages.into_iter().map(|stored| {
            let origin = origins.get((stored.seq.0 - first.0) as usize);
            let origin = origin.copied().flatten();
            Outgoing::new(channel.clone(), Some(stored.seq), stored.record, origin)
        });
        let outgoing: Vec<_> = outgoing.collect();
        let recipients = self.recipients(&channel, plans);
        self.push(&channel, recipients, &outgoing);
    }

    fn read(
        &self,
        channel: &ChannelKey,
        first: MessageSeq,
        last: MessageSeq,
    ) -> Option<Vec<wk_store::Stored>> {
        let query = Query::Messages {
            channel: channel.clone(),
            first,
            last,
            dir: Dir::Up,
            limit: (last.0 - first.0 + 1) as usize,
        };
        match self.ask(query)? {
            Answer::Messages(messages) => Some(messages),
            _ => None,
        }
    }

    /// As from a view, but through a call: this channel's messages come without one.
    fn recipients(&self, channel: &ChannelKey, plans: &mut Plans) -> wk_store::Result<Arc<[Uid]>> {
        if is_pair(channel) {
            return Ok(wk_chat::implicit_recipients(channel).into());
        }
        plans.of(channel, |owner| {
            plan::collect(owner, |query| {
                let answer = self.ask(query);
                answer.ok_or_else(|| wk_store::Error::Invalid("members: no answer".into()))
            })
        })
    }

    fn ask(&self, query: Query) -> Option<Answer> {
        let request = Request::Query(Box::new(query));
        match self.runtime.block_on(self.route.call(request)) {
            Ok(Reply::Answer(answer)) => Some(*answer),
            other => {
                tracing::warn!(?other, "a lagging channel cannot be read back");
                None
            }
        }
    }
}

/// Recipients looked up under one lock of the directory.
const RECIPIENTS_PER_LOCK: usize = 1_024;
