//! An OCI registry on a loopback port, which may keep its blobs on another one. It
//! wants to be shown what it is told to want, and fails as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fake_aws::{Content, Fault};
use crate::fetching::sha256;

pub(crate) const MEDIA_TYPE: &str = "application/vnd.aws.nitro-enclaves.eif";
/// `name:password` in base64.
pub(crate) const KEY: &str = "bmFtZTpwYXNzd29yZA==";

/// What must be shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing.
    #[default]
    Nothing,
    /// [`KEY`].
    Key,
    /// A token, which anybody gets.
    Token,
    /// A token, which is for who has [`KEY`].
    TokenForKey,
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) manifests: BTreeMap<String, Bytes>,
    pub(crate) blobs: BTreeMap<String, Bytes>,
    pub(crate) wants: Wants,
    /// What becomes of the next requests for blobs; then nothing fails.
    pub(crate) faults: VecDeque<Fault>,
    /// Where blobs are instead of here.
    pub(crate) elsewhere: Option<String>,
    pub(crate) asked: Vec<Asked>,
    /// Tokens that were given: only the last one is worth something.
    pub(crate) tokens: usize,
}

pub(crate) struct FakeRegistry {
    state: Arc<Mutex<State>>,
    pub(crate) host: String,
    task: JoinHandle<()>,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeRegistry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::<Mutex<State>>::default();
        let (shared, own) = (Arc::clone(&state), host.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, host) = (Arc::clone(&shared), own.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(&request, &host, &mut state.lock().unwrap());
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { state, host, task }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Has the image under that tag; the answer is the manifest's digest.
    pub(crate) fn push(&self, tag: &str, image: &Bytes) -> String {
        let digest = sha256(image);
        let blob = format!("sha256:{digest}");
        self.state().blobs.insert(blob, image.clone());
        self.push_manifest(tag, &manifest(&digest, image.len()))
    }

    /// Has the manifest under that tag and its digest, which is the answer.
    pub(crate) fn push_manifest(&self, tag: &str, manifest: &Value) -> String {
        let bytes = Bytes::from(manifest.to_string());
        let digest = sha256(&bytes);
        let mut state = self.state();
        let versions = [tag.to_owned(), format!("sha256:{digest}")];
        for version in versions {
            state.manifests.insert(version, bytes.clone());
        }
        digest
    }

    /// The address of a tag or a digest, with the sign before it.
    pub(crate) fn source(&self, version: &str) -> String {
        format!("oci://{}/team/payments{version}", self.host)
    }

    /// The questions whose path has `part` in it.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = self.state().asked.clone();
        let asked = asked.into_iter();
        asked.filter(|asked| asked.path.contains(part)).collect()
    }
}

/// A manifest as `oras push` writes it.
pub(crate) fn manifest(digest: &str, size: usize) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": MEDIA_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [{ "mediaType": MEDIA_TYPE, "digest": format!("sha256:{digest}"), "size": size }],
    })
}

fn answer(request: &Request<Incoming>, host: &str, state: &mut State) -> Response<Content> {
    let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
    let uri = request.uri();
    let authorization = header("authorization");
    let range = header("range");
    state.asked.push(Asked {
        path: uri.to_string(),
        authorization: authorization.clone(),
        range: range.clone(),
    });
    if uri.path() == "/token" {
        return token(state, authorization.as_deref(), uri.query().unwrap());
    }
    if let Some(digest) = uri.path().strip_prefix("/store/") {
        return blob(state, digest, range.as_deref());
    }
    let wanted = match state.wants {
        Wants::Nothing => None,
        Wants::Key => Some(format!("Basic {KEY}")),
        Wants::Token | Wants::TokenForKey => Some(format!("Bearer token-{}", state.tokens)),
    };
    if wanted.is_some() && wanted != authorization {
        let challenge = match state.wants {
            Wants::Key => "Basic realm=\"here\"".to_owned(),
            _ => format!(
                "Bearer realm=\"http://{host}/token\",service=\"a registry\",scope=\"repository:team/payments:pull\""
            ),
        };
        return Response::builder()
            .status(401)
            .header("www-authenticate", challenge)
            .body(Content::from("{}"))
            .unwrap();
    }
    let path = uri.path().strip_prefix("/v2/team/payments/").unwrap();
    match path.split_once('/').unwrap() {
        ("manifests", version) => match state.manifests.get(version) {
            Some(manifest) => Response::new(Content::from(manifest.clone())),
            None => status(404),
        },
        ("blobs", digest) => match &state.elsewhere {
            Some(elsewhere) => Response::builder()
                .status(307)
                .header("location", format!("{elsewhere}{digest}"))
                .body(Content::from(""))
                .unwrap(),
            None => blob(state, digest, range.as_deref()),
        },
        other => panic!("{other:?}"),
    }
}

fn token(state: &mut State, authorization: Option<&str>, query: &str) -> Response<Content> {
    assert_eq!(
        query,
        "scope=repository%3Ateam%2Fpayments%3Apull&service=a%20registry"
    );
    let key = format!("Basic {KEY}");
    if state.wants == Wants::TokenForKey && authorization != Some(&key) {
        return status(401);
    }
    state.tokens += 1;
    let token = json!({ "token": format!("token-{}", state.tokens), "expires_in": 300 });
    Response::new(Content::from(token.to_string()))
}

fn blob(state: &mut State, digest: &str, range: Option<&str>) -> Response<Content> {
    let fault = state.faults.pop_front().unwrap_or(Fault::None);
    if let Fault::Refused(code, challenge) = fault {
        return Response::builder()
            .status(code)
            .header("www-authenticate", challenge)
            .body(Content::from("{}"))
            .unwrap();
    }
    let Some(blob) = state.blobs.get(digest).cloned() else {
        return status(404);
    };
    let start: usize = range.map_or(0, |range| {
        let range = range.strip_prefix("bytes=").unwrap();
        range.strip_suffix('-').unwrap().parse().unwrap()
    });
    let (code, body) = match range {
        Some(_) if start >= blob.len() => return status(416),
        Some(_) => (206, blob.slice(start..)),
        None => (200, blob.clone()),
    };
    let last = blob.len() - 1;
    Response::builder()
        .status(code)
        .header("content-length", body.len())
        .header(
            "content-range",
            format!("bytes {start}-{last}/{}", blob.len()),
        )
        .body(Content::failing(body, fault))
        .unwrap()
}

fn status(status: u16) -> Response<Content> {
    Response::builder()
        .status(status)
        .body(Content::from("{}"))
        .unwrap()
}
