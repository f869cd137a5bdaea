//! The application's handles.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wk_proto::{ChannelType, frame};

use crate::driver::{self, Driver};
use crate::error::{Error, Refusal, SendError};
use crate::limits::{CALLS_MAX, INBOX_MAX};
use crate::message::{Event, SendAck, SendOptions};
use crate::options::Options;
use crate::socket::Address;

/// Why a client ended, once it has.
pub(crate) type Ending = Arc<OnceLock<Error>>;

/// What a message waits for; dropped unanswered when the client ends.
pub(crate) type Reply = oneshot::Sender<Result<SendAck, SendError>>;

/// What handles ask of the task, in one queue, because order exists only within one.
pub(crate) enum Call {
    Send(Box<frame::Send>, Reply),
    Close(oneshot::Sender<()>),
}

/// A logged-in client. Clones share the connection, which ends when all of them are gone (or with [`Client::close`]).
#[derive(Clone)]
pub struct Client {
    calls: mpsc::Sender<Call>,
    ending: Ending,
    numbers: Arc<Numbers>,
}

/// Makes `client_msg_no`s nobody else makes.
struct Numbers {
    prefix: u128,
    next: AtomicU64,
}

impl Numbers {
    fn next(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:032x}-{n:x}", self.prefix)
    }
}

/// What the server pushes to this client. Take events without long pauses: see [`INBOX_MAX`]. Dropping it means that
/// nobody cares: messages are then acknowledged and forgotten.
pub struct Inbox {
    events: mpsc::Receiver<Event>,
    ending: Ending,
}

/// A message on its way; resolves when the server has answered. Dropping it does not stop the message.
#[derive(Debug)]
#[must_use = "whether the server took the message is only known when this resolves"]
pub struct PendingAck {
    answer: oneshot::Receiver<Result<SendAck, SendError>>,
    ending: Ending,
}

impl Client {
    /// Connects and logs in. `address`: `host:port`, `tcp://host:port` or `ws://host:port/path`.
    ///
    /// Returns when the server has accepted; afterwards broken connections are dialled again in the background. Must be
    /// called within a tokio runtime, on which the client's task then lives.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Kicked`], [`Error::NotEncrypted`] from the server; [`Error::Disconnected`] if it cannot be
    /// reached or does not answer in [`crate::limits::CONNECT_MS`]; [`Error::Address`] and [`Error::Options`] for what cannot work.
    pub async fn connect(address: &str, options: Options) -> Result<(Self, Inbox), Error> {
        let address = Address::parse(address)?;
        let (calls, call_queue) = mpsc::channel(CALLS_MAX);
        let (event_queue, events) = mpsc::channel(INBOX_MAX);
        let (ready, is_ready) = oneshot::channel();
        let ending = Ending::default();
        let driver = Driver::new(address, options, call_queue, event_queue, ready);
        tokio::spawn(driver::run(driver, ending.clone()));
        if is_ready.await.is_err() {
            return Err(why(&ending));
        }
        let client = Self {
            calls,
            ending: ending.clone(),
            numbers: Arc::new(Numbers {
                prefix: rand::random(),
                next: AtomicU64::new(0),
            }),
        };
        Ok((client, Inbox { events, ending }))
    }

    /// Sends a message and waits until the server has it.
    ///
    /// For a person `channel_id` is the other's uid. While there is no connection the message waits for the next one.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        channel_id: &str,
        kind: ChannelType,
        payload: impl Into<Bytes>,
        options: SendOptions,
    ) -> Result<SendAck, SendError> {
        self.submit(channel_id, kind, payload, options).await?.await
    }

    /// Sends a message without waiting for its acknowledgement: it resolves when the message has its place behind all
    /// earlier ones, which takes time only at the bounds of [`crate::limits`]. Cancelling it before that sends nothing.
    ///
    /// # Errors
    /// [`SendError::Ended`] if the client has.
    pub async fn submit(
        &self,
        channel_id: &str,
        kind: ChannelType,
        payload: impl Into<Bytes>,
        mut options: SendOptions,
    ) -> Result<PendingAck, SendError> {
        let number = options.client_msg_no.take();
        let number = number.unwrap_or_else(|| self.numbers.next());
        let plain = options.frame(channel_id, kind.0, number, payload.into());
        let (reply, answer) = oneshot::channel();
        if self
            .calls
            .send(Call::Send(Box::new(plain), reply))
            .await
            .is_err()
        {
            return Err(why(&self.ending).into());
        }
        Ok(PendingAck {
            answer,
            ending: self.ending.clone(),
        })
    }

    /// Says goodbye and ends the client. What is not acknowledged by then resolves with [`Error::Closed`]: wait for what
    /// matters first.
    pub async fn close(&self) {
        let (done, is_done) = oneshot::channel();
        if self.calls.send(Call::Close(done)).await.is_ok() {
            // Dropped or answered, it is over.
            let _ = is_done.await;
        }
    }
}

impl Inbox {
    /// The next event, in the order of arrival. Cancel-safe.
    ///
    /// # Errors
    /// Why the client has ended, once everything before was taken; then again and again.
    pub async fn next(&mut self) -> Result<Event, Error> {
        self.events.recv().await.ok_or_else(|| why(&self.ending))
    }
}

impl Future for PendingAck {
    type Output = Result<SendAck, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(answer.unwrap_or_else(|_| Err(why(&self.ending).into())))
    }
}

fn why(ending: &Ending) -> Error {
    ending.get().cloned().unwrap_or(Error::Closed)
}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
