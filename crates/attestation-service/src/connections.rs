//! Connections: their number, their patience and their end; and what is done to
//! every request on them.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tracing::{debug, info, warn};

use crate::api;
use crate::clients::Client;
use crate::crowd::{Crowd, Held, Place};
use crate::limits::{CLOSE_TIMEOUT, CONNECTION_AGE, HEAD_TIMEOUT, MAX_HEAD};
use crate::metrics::Route;
use crate::note::Note;
use crate::problem::Problem;
use crate::shared::Shared;
use crate::stream::Stream;

/// How long no connection is accepted after the system had no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Connections to the metrics at once.
const METRICS_CONNECTIONS: usize = 16;

/// Serves the connections of a crowd until `stop` is done; then accepts nothing more,
/// lets open requests end, and cuts what is left after `drain`.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    crowd: Arc<Crowd>,
    drain: Duration,
    stop: impl Future<Output = ()>,
) {
    let router = api::router(shared.clone());
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((tcp, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let metrics = &shared.appraiser.metrics;
        let Some((held, eviction)) = crowd.enter(Client::of(peer.ip())) else {
            metrics.connection_refused();
            refuse(&tcp);
            continue;
        };
        metrics.connection_begins();
        if let Some(eviction) = eviction {
            metrics.connection_evicted(eviction);
        }
        let (shared, router) = (shared.clone(), router.clone());
        let appraiser = shared.appraiser.clone();
        let place = held.place().clone();
        let respond = move |request| {
            let (shared, router, place) = (shared.clone(), router.clone(), place.clone());
            respond(shared, router, peer.ip(), place, request)
        };
        let connection = serve_connection(tcp, held, respond, ending.clone());
        connections.spawn(async move {
            connection.await;
            appraiser.metrics.connection_ends();
        });
        // Before the next is taken, this one may say what it wants: with many at once,
        // it could otherwise have to make room before it was ever asked.
        yield_now().await;
    }
    shared.draining.store(true, Ordering::Relaxed);
    drop(listener);
    end.send_replace(true);
    let open = connections.len();
    info!(open, "stopping: open requests may end");
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(drain, drained).await.is_err() {
        warn!(open = connections.len(), "open connections were cut");
    }
}

/// Serves metrics until it is dropped.
pub(crate) async fn serve_metrics(listener: TcpListener, router: Router) {
    let crowd = Crowd::new(METRICS_CONNECTIONS, None);
    // Held open: these connections end with the service.
    let (_end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((tcp, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some((held, _)) = crowd.enter(Client::of(peer.ip())) else {
            refuse(&tcp);
            continue;
        };
        let (router, place) = (router.clone(), held.place().clone());
        let respond = move |request| {
            let (router, place) = (router.clone(), place.clone());
            async move {
                let response = call(router, request).await;
                place.waits();
                response
            }
        };
        connections.spawn(serve_connection(tcp, held, respond, ending.clone()));
    }
}

/// The next connection; none after a failure, which is logged.
async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    let accepted: io::Result<_> = async {
        let (tcp, peer) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        Ok((tcp, peer))
    }
    .await;
    accepted
        .inspect_err(|error| warn!(%error, "a connection could not be accepted"))
        .ok()
}

/// Ends a connection at once, of which the kernel need keep nothing.
fn refuse(tcp: &TcpStream) {
    // It ends either way.
    let _ = tcp.set_zero_linger();
}

async fn serve_connection<R>(
    tcp: TcpStream,
    held: Held,
    respond: impl Fn(Request<Incoming>) -> R,
    mut ending: watch::Receiver<bool>,
) where
    R: Future<Output = Response>,
{
    let respond = service_fn(move |request| {
        let response = respond(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let stream = Stream::new(tcp, held.place().clone());
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), respond)
    );
    let close_timeout = tokio::select! {
        result = connection.as_mut() => return ended(result),
        () = held.place().eviction() => return,
        // The sender's end, an error, ends the waiting as well.
        _ = ending.wait_for(|end| *end) => None,
        () = sleep(CONNECTION_AGE) => Some(CLOSE_TIMEOUT),
    };
    connection.as_mut().graceful_shutdown();
    match close_timeout {
        Some(limit) => tokio::select! {
            result = connection => ended(result),
            () = held.place().eviction() => {}
            () = sleep(limit) => {}
        },
        // Whoever drains sets the limit.
        None => ended(connection.await),
    }
}

/// A client that breaks off harms nobody but itself.
fn ended(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        debug!(%error, "a connection broke off");
    }
}

/// Answers a request, within its client's limits, and tells the log and the metrics.
async fn respond(
    shared: Arc<Shared>,
    router: Router,
    peer: IpAddr,
    place: Arc<Place>,
    mut request: Request<Incoming>,
) -> Response {
    // The head is there; a body may follow.
    place.waits();
    let start = Instant::now();
    let client = shared
        .behind_proxy
        .and_then(|header| header.client(request.headers()))
        .unwrap_or(peer);
    let method = request.method().clone();
    let route = Route::of(request.uri().path());
    request.extensions_mut().insert(place.clone());
    let Answer { response, limited } =
        answer(&shared, router, client, &place, route, request).await;
    place.waits();
    let taken = start.elapsed();
    let status = response.status().as_u16();
    let metrics = &shared.appraiser.metrics;
    metrics.request(route, status, taken);
    let note = response.extensions().get::<Note>();
    if let Some(Note::Problem(problem)) = note {
        metrics.problem(problem);
    }
    if !limited && !shared.access_log.has_line(Client::of(client), status) {
        return response;
    }
    let taken_us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
    let path = route.path();
    match note {
        None => info!(%client, %method, path, status, taken_us, "request"),
        Some(Note::Problem(problem)) => {
            info!(%client, %method, path, status, taken_us, problem, "request");
        }
        Some(Note::Verified {
            policy,
            rejected_by,
        }) => info!(
            %client,
            %method,
            path,
            status,
            taken_us,
            policy,
            accepted = rejected_by.is_none(),
            rejected_by,
            "request"
        ),
    }
    response
}

/// What a client is answered.
struct Answer {
    response: Response,
    /// Whether the rate limit bounds how many such answers a client gets.
    limited: bool,
}

impl Answer {
    fn unlimited(response: Response) -> Self {
        Self {
            response,
            limited: false,
        }
    }
}

/// The answer to a request, if its client may ask.
async fn answer(
    shared: &Shared,
    router: Router,
    client: IpAddr,
    place: &Place,
    route: Route,
    request: Request<Incoming>,
) -> Answer {
    if matches!(route, Route::Healthz | Route::Readyz) {
        return Answer::unlimited(call(router, request).await);
    }
    if place.is_reserve() {
        let mut response = Problem::Overloaded.into_response();
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        return Answer::unlimited(response);
    }
    let client = Client::of(client);
    if let Err(wait) = shared.limiter.take(client) {
        return Answer::unlimited(Problem::RateLimited(wait).into_response());
    }
    // Without a proxy the number of a client's connections is limited, and each has
    // one request at a time.
    let open = shared
        .behind_proxy
        .map(|_| shared.open_requests.enter(client));
    if matches!(open, Some(None)) {
        let wait = Duration::from_secs(1);
        return Answer::unlimited(Problem::RateLimited(wait).into_response());
    }
    Answer {
        response: call(router, request).await,
        limited: true,
    }
}

async fn call(mut router: Router, request: Request<Incoming>) -> Response {
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
