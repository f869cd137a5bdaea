//! Sockets and the way of one request: preflight, access, route, CORS.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue, LOCATION,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tower_service::Service as _;
use wk_server::Node;

use super::access::{Access, Denied};
use super::answer::{self, Answer, Failure, finish};
use super::config::ApiConfig;
use super::query::Params;
use super::routes::{self, Route};
use crate::service::{Backend, Service};

/// How long the head of a connection's first request may take; then it is closed. Shorter than [`HEAD_TIMEOUT`]: whoever connects has
/// something to ask, and connections that never do must not keep the others out.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request's head may take, and an idle connection live. Longer than the 90 s client pools usually keep one, so that the
/// client closes first and never sends into a closing socket.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a request's body may take; after it the request is refused.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// KiB of all bodies under way; above it requests wait, as long as their body may take.
const BODIES_KIB_MAX: u32 = 256 * 1024;

/// Bytes of a request's head; above it hyper answers 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a stopping server waits for requests under way: the whole process has 5 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// Pause after a failed accept (usually: out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What handlers share.
pub(super) struct App {
    pub(super) service: Service,
    pub(super) config: ApiConfig,
    pub(super) started: Instant,
    access: Access,
    /// In KiB, see [`BODIES_KIB_MAX`].
    bodies: Semaphore,
}

/// One request for a handler.
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) body: axum::body::Bytes,
    pub(super) query: Params,
    pub(super) path: String,
}

/// A listening API.
#[derive(Debug)]
pub struct Serving {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Serving {
    /// The bound address, with its real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns when the server has stopped: at most 4 s after the shutdown signal.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the API's listener failed");
        }
    }
}

/// Binds the API and answers until `shutdown` completes; then requests under way are finished. Must be called inside a tokio runtime.
pub async fn serve(
    node: Node,
    config: ApiConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Serving> {
    serve_backend(Arc::new(node), config, shutdown).await
}

/// As [`serve`], over any backend.
pub async fn serve_backend(
    backend: Arc<dyn Backend>,
    config: ApiConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Serving> {
    let listener = TcpListener::bind(config.addr).await?;
    let addr = listener.local_addr()?;
    let app = Arc::new(App {
        service: Service::new(backend, config.service.clone()),
        access: Access::new(
            &config.manager_token,
            &config.api_token,
            config.open_to_network,
        ),
        bodies: Semaphore::new(BODIES_KIB_MAX as usize),
        started: Instant::now(),
        config,
    });
    warn_if_open(&app.config);
    let task = tokio::spawn(accept(listener, app, shutdown));
    Ok(Serving { addr, task })
}

fn warn_if_open(config: &ApiConfig) {
    if config.open_to_network && config.manager_token.trim().is_empty() {
        tracing::warn!(
            "the API asks nobody for a token: whoever reaches it rules this server; set managerToken"
        );
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let router = router(&app);
    let connections_max = u32::try_from(app.config.connections_max.max(1)).unwrap_or(u32::MAX);
    let connections = Arc::new(Semaphore::new(connections_max as usize));
    let (draining, drain) = watch::channel(false);
    tokio::pin!(shutdown);
    loop {
        let next = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection =
                    connection(stream, peer, app.clone(), router.clone(), drain.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    draining.send_replace(true);
    let all_closed = connections.acquire_many(connections_max);
    if tokio::time::timeout(DRAIN_TIMEOUT, all_closed)
        .await
        .is_err()
    {
        tracing::warn!("the API stops with requests under way");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Arc<App>,
    router: Router,
    mut drain: watch::Receiver<bool>,
) {
    // Without it small answers wait for the client's delayed ACK. A socket that refuses is gone anyway.
    let _ = stream.set_nodelay(true);
    let first = Notify::new();
    let service = service_fn(|request: Request<Incoming>| {
        let (app, router) = (app.clone(), router.clone());
        first.notify_one();
        async move { Ok::<_, Infallible>(handle(&app, router, peer.ip(), request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = overdue(&first) => return,
        () = drained(&mut drain) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an API connection ended");
    }
}

/// Returns when the first request is not there in time; else never.
async fn overdue(first: &Notify) {
    let arrived = tokio::time::timeout(FIRST_HEAD_TIMEOUT, first.notified()).await;
    if arrived.is_ok() {
        std::future::pending().await
    }
}

/// Returns when the server stops, or has stopped without a word.
async fn drained(drain: &mut watch::Receiver<bool>) {
    let _ = drain.wait_for(|draining| *draining).await;
}

/// The one middleware. Preflights and health probes pass without a token; v2's 401 has no CORS headers.
async fn handle(
    app: &App,
    mut router: Router,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.method() == Method::OPTIONS {
        return with_cors(answer::empty(StatusCode::NO_CONTENT));
    }
    if !is_probe(request.uri())
        && let Err(denied) = app.access.check(peer, request.headers())
    {
        return unauthorized(denied);
    }
    let Ok(response) = router.call(request.map(Body::new)).await;
    with_cors(response)
}

fn is_probe(uri: &Uri) -> bool {
    matches!(uri.path(), "/health" | "/healthz" | "/readyz")
}

fn unauthorized(denied: Denied) -> Response<Body> {
    match denied {
        Denied::Token => answer::empty(StatusCode::UNAUTHORIZED),
        Denied::NotLocal => answer::error(
            StatusCode::UNAUTHORIZED,
            "without a token this API answers local requests only: send the API token of this installation in the header `token`, set \
             managerToken (WK_MANAGERTOKEN) and send that, or open the API to the network in the configuration",
        ),
    }
}

fn with_cors(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Authorization, Content-Length, Accept-Encoding, X-CSRF-Token, token, accept, origin, Cache-Control, \
             X-Requested-With, appid, noncestr, sign, timestamp",
        ),
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "POST, OPTIONS, GET, PUT,DELETE,PATCH",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes::ROUTES {
        let app = app.clone();
        let handler = move |request: Request<Body>| run(app.clone(), route, request);
        router = router.route(route.path, axum::routing::on(route.filter(), handler));
    }
    router
        .method_not_allowed_fallback(unknown)
        .fallback(unknown)
}

async fn run(app: Arc<App>, route: &'static Route, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    // Held until the answer is made: the handler keeps the body.
    let room = app.bodies.acquire_many(kib(&body));
    let Ok(Ok(_room)) = tokio::time::timeout(BODY_TIMEOUT, room).await else {
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "busy");
    };
    let body = match read(body).await {
        Ok(body) => body,
        Err(failure) => return finish(Err(failure)),
    };
    let call = Call {
        app: app.clone(),
        body,
        query: Params::parse(parts.uri.query().unwrap_or_default()),
        path: parts.uri.path().to_owned(),
    };
    let answer: Answer = (route.handler)(call).await;
    finish(answer)
}

/// What a body counts in [`BODIES_KIB_MAX`]: as announced, or the most it may have.
fn kib(body: &Body) -> u32 {
    const MOST: u64 = wk_proto::limits::HTTP_BODY_BYTES_MAX as u64;
    let announced = body.size_hint().upper().unwrap_or(MOST);
    (announced.min(MOST) / 1_024) as u32 + 1
}

/// The whole body. Above its bound, or too slow, the request is refused. Compressed bodies are not undone, as in v2.
async fn read(body: Body) -> Result<axum::body::Bytes, Failure> {
    let body = axum::body::to_bytes(body, wk_proto::limits::HTTP_BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Failure::Undecodable(format!(
            "the body is broken or larger than {} bytes",
            wk_proto::limits::HTTP_BODY_BYTES_MAX
        ))),
        Err(_) => Err(Failure::Undecodable("the body came too slowly".to_owned())),
    }
}

/// What no route answers: a redirect if only a trailing slash is wrong, else v2's plain 404 (there is no 405).
async fn unknown(request: Request<Body>) -> Response<Body> {
    let path = request.uri().path();
    let other = path.strip_suffix('/').unwrap_or_default();
    let is_route = |route: &&Route| route.path == other && route.method == *request.method();
    let Some(route) = routes::ROUTES.iter().find(is_route) else {
        return answer::page(StatusCode::NOT_FOUND, "text/plain", "404 page not found");
    };
    redirect(route, request.uri().query())
}

fn redirect(route: &Route, query: Option<&str>) -> Response<Body> {
    let location = match query {
        Some(query) => format!("{}?{query}", route.path),
        None => route.path.to_owned(),
    };
    let mut response = if route.method == Method::GET {
        let body = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", route.path);
        answer::page(
            StatusCode::MOVED_PERMANENTLY,
            "text/html; charset=utf-8",
            body,
        )
    } else {
        answer::empty(StatusCode::TEMPORARY_REDIRECT)
    };
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
