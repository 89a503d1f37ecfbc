//! Connections: their number, their patience and their end; and what is done to
//! every request on them.

use std::convert::Infallible;
use std::future::pending;
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
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tracing::{debug, info, warn};

use crate::api;
use crate::limits::{CLOSE_TIMEOUT, CONNECTION_AGE, HEAD_TIMEOUT, MAX_HEAD};
use crate::metrics::Route;
use crate::note::Note;
use crate::problem::Problem;
use crate::shared::Shared;

/// How long no connection is accepted after the system had no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Connections to the metrics at once.
const METRICS_CONNECTIONS: usize = 16;

/// Serves so many connections at once until `stop` is done; then accepts nothing more, lets open requests
/// end, and cuts what is left after `drain`.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    limit: usize,
    drain: Duration,
    stop: impl Future<Output = ()>,
) {
    let router = api::router(shared.clone());
    let room = Arc::new(Semaphore::new(limit));
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                shared.appraiser.metrics.connection_begins();
                let (shared, router) = (shared.clone(), router.clone());
                let appraiser = shared.appraiser.clone();
                let respond =
                    move |request| respond(shared.clone(), router.clone(), peer.ip(), request);
                let connection = serve_connection(stream, respond, ending.clone());
                connections.spawn(async move {
                    connection.await;
                    appraiser.metrics.connection_ends();
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
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
    let room = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    // Held open: these connections end with the service.
    let (_end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _, permit)) => {
                let router = router.clone();
                let respond = move |request| call(router.clone(), request);
                let connection = serve_connection(stream, respond, ending.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "a connection for metrics could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for room, then for a connection.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let Ok(permit) = room.clone().acquire_owned().await else {
        // The semaphore is never closed.
        return pending().await;
    };
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

async fn serve_connection<R>(
    stream: TcpStream,
    respond: impl Fn(Request<Incoming>) -> R,
    mut ending: watch::Receiver<bool>,
) where
    R: Future<Output = Response>,
{
    let respond = service_fn(move |request| {
        let response = respond(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
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
        // The sender's end, an error, ends the waiting as well.
        _ = ending.wait_for(|end| *end) => None,
        () = sleep(CONNECTION_AGE) => Some(CLOSE_TIMEOUT),
    };
    connection.as_mut().graceful_shutdown();
    match close_timeout {
        Some(limit) => {
            if let Ok(result) = timeout(limit, connection).await {
                ended(result);
            }
        }
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

/// Answers a request, within its client's rate, and tells the log and the metrics.
async fn respond(
    shared: Arc<Shared>,
    router: Router,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Response {
    let start = Instant::now();
    let client = if shared.behind_proxy {
        forwarded_for(&request).unwrap_or(peer)
    } else {
        peer
    };
    let method = request.method().clone();
    let route = Route::of(request.uri().path());
    let limited = !matches!(route, Route::Healthz | Route::Readyz);
    let response = match limited.then(|| shared.limiter.take(client)) {
        Some(Err(wait)) => Problem::RateLimited(wait).into_response(),
        _ => call(router, request).await,
    };
    let taken = start.elapsed();
    let status = response.status().as_u16();
    let metrics = &shared.appraiser.metrics;
    metrics.request(route, status, taken);
    let taken_us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
    let path = route.path();
    match response.extensions().get::<Note>() {
        None => info!(%client, %method, path, status, taken_us, "request"),
        Some(Note::Problem(problem)) => {
            metrics.problem(problem);
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

async fn call(mut router: Router, request: Request<Incoming>) -> Response {
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The address that the nearest proxy saw: those before it are what the client
/// says.
fn forwarded_for(request: &Request<Incoming>) -> Option<IpAddr> {
    let last = request
        .headers()
        .get_all("x-forwarded-for")
        .iter()
        .next_back()?;
    let last = last.to_str().ok()?.rsplit(',').next()?;
    last.trim().parse().ok()
}
