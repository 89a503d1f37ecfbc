//! A stand-in for Step Functions and DynamoDB: it notes what it is asked, and
//! answers as it is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// How long a test waits for something that will happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) operation: String,
    pub(crate) body: Value,
}

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<Call>,
    /// Errors for the next calls of an operation.
    errors: VecDeque<(String, u16, String)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Workflow {
    inner: Arc<Mutex<Inner>>,
    pub(crate) endpoint: String,
}

impl Workflow {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let workflow = Self {
            inner: Arc::default(),
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
        };
        let inner = Arc::clone(&workflow.inner);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let inner = Arc::clone(&inner);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&inner), request));
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        workflow
    }

    /// Answers the next `times` calls of an operation with an error.
    pub(crate) fn fail(&self, operation: &str, status: u16, error: &str, times: usize) {
        let mut inner = self.inner.lock().unwrap();
        for _ in 0..times {
            inner
                .errors
                .push_back((operation.to_owned(), status, error.to_owned()));
        }
    }

    pub(crate) fn calls(&self, operation: &str) -> Vec<Call> {
        let inner = self.inner.lock().unwrap();
        inner
            .calls
            .iter()
            .filter(|call| call.operation == operation)
            .cloned()
            .collect()
    }

    /// The only call of an operation.
    pub(crate) fn only(&self, operation: &str) -> Value {
        let calls = self.calls(operation);
        assert_eq!(calls.len(), 1, "{operation}: {calls:?}");
        calls[0].body.clone()
    }

    /// Waits for a call that satisfies `holds`.
    pub(crate) async fn wait(&self, operation: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let found = self
                    .calls(operation)
                    .into_iter()
                    .find(|call| holds(&call.body));
                if let Some(call) = found {
                    return call.body;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, waiting).await.expect("the call never came")
    }
}

async fn answer(
    inner: Arc<Mutex<Inner>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers()["x-amz-target"]
        .to_str()
        .unwrap()
        .to_owned();
    let operation = target.rsplit('.').next().unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap();
    let mut inner = inner.lock().unwrap();
    let error = inner
        .errors
        .iter()
        .position(|(failing, ..)| *failing == operation)
        .and_then(|index| inner.errors.remove(index));
    inner.calls.push(Call { operation, body });
    let (status, answer) = match error {
        Some((_, status, name)) => (status, json!({"__type": name, "message": "as told"})),
        None => (200, json!({})),
    };
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Full::new(Bytes::from(answer.to_string())))
        .unwrap())
}
