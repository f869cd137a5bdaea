//! The task of a client: moves bytes between [`Core`] and a socket, dials again, times.
//!
//! `select!` only picks; what was picked is done after it, so a lost race never cancels half-done work.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wk_proto::{Mono, WallMs};

use crate::client::{Call, Ending, Reply};
use crate::core::{Core, Fault, Output, Rejected};
use crate::error::{Error, SendError};
use crate::limits::{
    CALLS_MAX, CLOSE_MS, OUT_BYTES_MAX, READ_BYTES, RECONNECT_FIRST_MS, RECONNECT_LAST_MS,
};
use crate::message::Event;
use crate::options::Options;
use crate::socket::{Address, Socket, dial};

pub(crate) struct Driver {
    address: Address,
    reconnect: bool,
    give_up_after: Duration,
    core: Core<Reply>,
    calls: mpsc::Receiver<Call>,
    inbox: mpsc::Sender<Event>,
    /// Not yet in `inbox`: at most what one read yields, since the socket is not read meanwhile.
    undelivered: VecDeque<Event>,
    /// Answered at the first login.
    ready: Option<oneshot::Sender<()>>,
    epoch: Instant,
    buffer: Box<[u8; READ_BYTES]>,
}

/// Why a conversation or an attempt to start one is over.
enum Over {
    Lost(String),
    End(Error),
    Close(oneshot::Sender<()>),
}

/// The end of the client: why, and who asked for it.
type Ended = (Error, Option<oneshot::Sender<()>>);

impl Over {
    /// Why the connection was lost, unless this is the end.
    fn lost(self) -> Result<String, Ended> {
        match self {
            Self::Lost(why) => Ok(why),
            Self::End(error) => Err((error, None)),
            Self::Close(done) => Err((Error::Closed, Some(done))),
        }
    }
}

impl From<Fault> for Over {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Terminal(error) => Self::End(error),
            Fault::Lost(why) => Self::Lost(why.to_owned()),
        }
    }
}

impl From<std::io::Error> for Over {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Self::Lost("the server closed the connection".to_owned())
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// What happened first.
enum Pick {
    Writable(std::io::Result<()>),
    Readable(std::io::Result<()>),
    Room(bool),
    Call(Option<Call>),
    Timeout,
}

/// Runs until the client ends; the reason is in `ending` before anybody notices.
pub(crate) async fn run(mut driver: Driver, ending: Ending) {
    let Err((error, closing)) = driver.live().await;
    // Set once, here.
    let _ = ending.set(error);
    driver.deliver_rest();
    drop(driver);
    if let Some(done) = closing {
        // Who closes may have stopped waiting.
        let _ = done.send(());
    }
}

impl Driver {
    pub(crate) fn new(
        address: Address,
        options: Options,
        calls: mpsc::Receiver<Call>,
        inbox: mpsc::Sender<Event>,
        ready: oneshot::Sender<()>,
    ) -> Self {
        Self {
            address,
            reconnect: options.reconnect,
            give_up_after: options.give_up_after,
            core: Core::new(options),
            calls,
            inbox,
            undelivered: VecDeque::new(),
            ready: Some(ready),
            epoch: Instant::now(),
            buffer: Box::new([0; READ_BYTES]),
        }
    }

    /// Dials and converses until the end.
    async fn live(&mut self) -> Result<Infallible, Ended> {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let over = match self.while_calls(dial(self.address.clone())).await {
                Ok(Ok(socket)) => self.converse(socket).await,
                Ok(Err(e)) => e.into(),
                Err(over) => over,
            };
            let was_open = self.core.is_open();
            self.core.lost();
            let why = over.lost()?;
            if was_open {
                self.tell(Event::Disconnected(why.clone()));
                backoff.reset(begun.elapsed());
            }
            let gave_up = backoff.since.elapsed() >= self.give_up_after;
            if self.ready.is_some() || !self.reconnect || gave_up {
                return Err((Error::Disconnected(why), None));
            }
            if let Err(over) = self.while_calls(sleep(backoff.next())).await {
                over.lost()?;
            }
        }
    }

    /// Runs `future` while accepting calls as far as there is room.
    async fn while_calls<F: Future>(&mut self, future: F) -> Result<F::Output, Over> {
        tokio::pin!(future);
        loop {
            let call = tokio::select! {
                biased;
                result = &mut future => return Ok(result),
                call = self.calls.recv(), if self.core.has_room() => call,
            };
            self.call(call)?;
        }
    }

    /// One connection from CONNECT to its end.
    async fn converse(&mut self, mut socket: Socket) -> Over {
        if let Err(e) = self.core.start(self.now(), wall(), rand::random()) {
            return Over::End(e);
        }
        loop {
            self.poll();
            socket.queue(self.core.wire());
            if let Err(e) = socket.try_flush() {
                return e.into();
            }
            let pick = self.pick(&socket).await;
            if let Err(over) = self.handle(pick, &mut socket) {
                self.poll();
                return self.part(over, socket).await;
            }
        }
    }

    /// Write before taking new work; room in the inbox before reading more; the timer last.
    async fn pick(&mut self, socket: &Socket) -> Pick {
        let due = self.core.next_timeout().map(|at| self.instant(at));
        let timer = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let reading = self.undelivered.is_empty();
        let answering = socket.queued() < OUT_BYTES_MAX;
        tokio::select! {
            biased;
            ready = socket.writable(), if socket.queued() > 0 => Pick::Writable(ready),
            permit = self.inbox.reserve(), if !reading => Pick::Room(permit.is_ok()),
            call = self.calls.recv(), if self.core.has_room() => Pick::Call(call),
            ready = socket.readable(), if reading && answering => Pick::Readable(ready),
            () = timer, if reading => Pick::Timeout,
        }
    }

    fn handle(&mut self, pick: Pick, socket: &mut Socket) -> Result<(), Over> {
        match pick {
            Pick::Writable(ready) => Ok(ready?),
            Pick::Room(open) => {
                self.deliver(open);
                Ok(())
            }
            Pick::Call(call) => self.calls(call),
            Pick::Readable(ready) => {
                ready?;
                let (now, core) = (self.now(), &mut self.core);
                socket.try_read(&mut self.buffer, |bytes| core.receive(now, bytes))??;
                Ok(())
            }
            Pick::Timeout => Ok(self.core.handle_timeout(self.now())?),
        }
    }

    /// This call and those that wait behind it: they are written together.
    fn calls(&mut self, first: Option<Call>) -> Result<(), Over> {
        self.call(first)?;
        for _ in 1..CALLS_MAX {
            if !self.core.has_room() {
                break;
            }
            match self.calls.try_recv() {
                Ok(call) => self.call(Some(call))?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn call(&mut self, call: Option<Call>) -> Result<(), Over> {
        match call {
            Some(Call::Send(plain, reply)) => {
                match self.core.send(self.now(), *plain, reply) {
                    Ok(()) => {}
                    Err(Rejected::TooLong(reply)) => answer(reply, Err(SendError::TooLong)),
                    Err(Rejected::Full(_)) => unreachable!("calls are taken while there is room"),
                }
                Ok(())
            }
            Some(Call::Close(done)) => Err(Over::Close(done)),
            // The last handle is gone.
            None => Err(Over::End(Error::Closed)),
        }
    }

    /// Takes the core's outputs.
    fn poll(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Acked(reply, fate) => answer(reply, fate.map_err(SendError::from)),
                Output::Event(event) => self.tell(event),
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if let Event::Connected { .. } = event
            && let Some(ready) = self.ready.take()
        {
            // Who connects may have stopped waiting; then the handles are gone and the next call says so.
            let _ = ready.send(());
        }
        self.undelivered.push_back(event);
        self.deliver_rest();
    }

    fn deliver(&mut self, open: bool) {
        if open {
            self.deliver_rest();
        } else {
            self.undelivered.clear();
        }
        if self.undelivered.is_empty() {
            self.core.resume(self.now());
        }
    }

    /// As much as the inbox takes.
    fn deliver_rest(&mut self) {
        while let Some(event) = self.undelivered.pop_front() {
            match self.inbox.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.undelivered.push_front(event);
                    break;
                }
            }
        }
    }

    /// Says goodbye where there is somebody to say it to.
    async fn part(&mut self, over: Over, mut socket: Socket) -> Over {
        if let Over::Close(_) | Over::End(Error::Closed) = over {
            self.core.close();
            socket.queue(self.core.wire());
            // At the bound the rest is not written.
            let _ = timeout(Duration::from_millis(CLOSE_MS), socket.finish()).await;
        }
        over
    }

    fn now(&self) -> Mono {
        Mono(0) + self.epoch.elapsed()
    }

    fn instant(&self, at: Mono) -> Instant {
        self.epoch + (at - Mono(0))
    }
}

fn answer(reply: Reply, result: Result<crate::SendAck, SendError>) {
    // Who sent may not care for the answer.
    let _ = reply.send(result);
}

fn wall() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    WallMs(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

/// Doubling pauses, cut by a random half so that many clients of a restarted server do not come back as one.
struct Backoff {
    since: Instant,
    ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            ms: RECONNECT_FIRST_MS,
        }
    }
}

impl Backoff {
    /// After a login that lasted so long: a server that accepts and drops at once is not dialled more often for it.
    fn reset(&mut self, lasted: Duration) {
        self.since = Instant::now();
        if lasted >= Duration::from_millis(RECONNECT_LAST_MS) {
            self.ms = RECONNECT_FIRST_MS;
        }
    }

    fn next(&mut self) -> Duration {
        let ms = self.ms;
        self.ms = (ms * 2).min(RECONNECT_LAST_MS);
        Duration::from_millis(rand::random_range(ms / 2..=ms))
    }
}
