//! Asks a registry for manifests and blobs.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::keys::{Key, Keys};
use super::{Challenge, MAX_MANIFEST, Reference};
use crate::digest::Sha256;
use crate::web::{self, Failure, Web, range};

/// What a manifest may be; an index is asked for to be refused by its name.
const MANIFESTS: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
/// How often an answer may lead somewhere else: registries keep blobs elsewhere.
const MAX_REDIRECTS: usize = 5;
/// Most bytes of an answer with a token.
const MAX_TOKEN: usize = 64 * 1024;

/// What does not stand for itself in a query: everything but RFC 3986's unreserved
/// characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A registry, asked for one image.
#[derive(Debug)]
pub(crate) struct Registry {
    reference: Reference,
    /// Scheme and host.
    base: String,
    web: Web,
    keys: Keys,
    /// What the registry was shown last.
    authorization: Option<Authorization>,
}

/// The value of the header, which is secret.
struct Authorization(String);

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization(..)")
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// The registry of an image; it is not asked yet.
    pub(crate) fn new(reference: Reference) -> Self {
        Self {
            base: reference.base(),
            reference,
            web: Web::new(),
            keys: Keys::from_environment(),
            authorization: None,
        }
    }

    /// The image.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// What is missing where it may not be read, and to whom.
    pub(crate) fn permission(&self) -> (&'static str, &'static str) {
        if self.reference.ecr_region().is_some() {
            return (
                "ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer",
                "the instance's role",
            );
        }
        (
            "pulling from the repository",
            "the account that /etc/enclaves/docker.json, or Docker's own configuration, has for the registry",
        )
    }

    /// Status and body of the answer to a question for the manifest; no body if it
    /// is too large.
    pub(crate) async fn manifest(&mut self) -> Result<(u16, Option<Vec<u8>>), Failure> {
        let version = self.reference.version();
        let path = format!("/v2/{}/manifests/{version}", self.reference.repository());
        let headers = vec![("accept", MANIFESTS.to_owned())];
        let answer = self.get(&path, headers).await?;
        let status = answer.status().as_u16();
        let body = web::collect(answer, MAX_MANIFEST).await;
        Ok((status, body.map_err(Failure::Passing)?))
    }

    /// The answer to a question for a blob from byte `start` on.
    pub(crate) async fn blob(
        &mut self,
        sha256: Sha256,
        start: u64,
    ) -> Result<HttpResponse, Failure> {
        let repository = self.reference.repository();
        let path = format!("/v2/{repository}/blobs/sha256:{sha256}");
        self.get(&path, range(start)).await
    }

    /// Asks, and shows once what the registry then wants to be shown.
    async fn get(
        &mut self,
        path: &str,
        headers: Vec<(&'static str, String)>,
    ) -> Result<HttpResponse, Failure> {
        let url = format!("{}{path}", self.base);
        let (answer, is_own) = self.follow(&url, &headers).await?;
        // What somebody else asks for, where the registry has led, is not shown.
        if answer.status().as_u16() != 401 || !is_own {
            return Ok(answer);
        }
        self.authorize(&answer).await?;
        Ok(self.follow(&url, &headers).await?.0)
    }

    /// Asks, and where the answer leads; says whether the last one was the
    /// registry's own. Only the registry sees the authorization.
    async fn follow(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
    ) -> Result<(HttpResponse, bool), Failure> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let is_own = origin(&url).is_some_and(|origin| origin == self.base);
            let mut headers = headers.to_vec();
            if is_own && let Some(Authorization(value)) = &self.authorization {
                headers.push(("authorization", value.clone()));
            }
            let answer = self.web.get(&url, &headers).await;
            let answer = answer.map_err(Failure::Passing)?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((answer, is_own));
            }
            let next = answer.headers().get("location").unwrap_or_default();
            url = self.resolve(&url, next).ok_or_else(|| {
                Failure::Denied("it leads to a place that is no https:// URL".to_owned())
            })?;
        }
        Err(Failure::Denied(format!(
            "it leads on more than {MAX_REDIRECTS} times"
        )))
    }

    /// Where an answer leads to, if that may be asked.
    fn resolve(&self, from: &str, location: &str) -> Option<String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(format!("{}{location}", origin(from)?));
        }
        self.permits(location).then(|| location.to_owned())
    }

    /// Whether an URL is encrypted, or on this host as the registry itself is.
    fn permits(&self, url: &str) -> bool {
        let Ok(uri) = url.parse::<Uri>() else {
            return false;
        };
        let Some(authority) = uri.authority() else {
            return false;
        };
        let is_here = web::is_this_host(authority.as_str()) && self.base.starts_with("http://");
        !authority.as_str().contains('@')
            && match uri.scheme_str() {
                Some("https") => true,
                Some("http") => is_here,
                _ => false,
            }
    }

    /// Gets what the registry wants to be shown.
    async fn authorize(&mut self, answer: &HttpResponse) -> Result<(), Failure> {
        let challenges = answer.headers().get_all("www-authenticate");
        let challenges: Vec<_> = challenges.filter_map(Challenge::parse).collect();
        let token = challenges
            .iter()
            .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = token.or(challenges.first()) else {
            return Err(Failure::Denied(
                "the registry answers with status 401".to_owned(),
            ));
        };
        let key = self.keys.find(&self.reference).await;
        let key = key.map_err(Failure::Denied)?;
        let value = match (challenge, key) {
            (Challenge::Basic, Some(key)) => format!("Basic {}", key.as_base64()),
            (Challenge::Basic, None) => {
                return Err(Failure::Denied(
                    "the registry asks for a name and a password, and there are none for it"
                        .to_owned(),
                ));
            }
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                key,
            ) => {
                let token = self
                    .token(realm, service.as_deref(), scope.as_deref(), key.as_ref())
                    .await?;
                format!("Bearer {token}")
            }
        };
        self.authorization = Some(Authorization(value));
        Ok(())
    }

    /// A token, for the key's owner or for anybody.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        key: Option<&Key>,
    ) -> Result<String, Failure> {
        if !self.permits(realm) {
            return Err(Failure::Denied(
                "the registry names a server for tokens that is no https:// URL".to_owned(),
            ));
        }
        let pull = format!("repository:{}:pull", self.reference.repository());
        let scope = utf8_percent_encode(scope.unwrap_or(&pull), RESERVED);
        let separator = if realm.contains('?') { '&' } else { '?' };
        let mut url = format!("{realm}{separator}scope={scope}");
        if let Some(service) = service {
            url += "&service=";
            url.extend(utf8_percent_encode(service, RESERVED));
        }
        let headers: Vec<_> = key
            .map(|key| ("authorization", format!("Basic {}", key.as_base64())))
            .into_iter()
            .collect();
        let answer = self.web.get(&url, &headers).await;
        let answer = answer.map_err(Failure::Passing)?;
        let words =
            |status| format!("the registry's server for tokens answers with status {status}");
        match answer.status().as_u16() {
            200 => {}
            status @ (429 | 500..=599) => return Err(Failure::Passing(words(status))),
            status => return Err(Failure::Denied(words(status))),
        }
        let body = web::collect(answer, MAX_TOKEN).await;
        let body = body.map_err(Failure::Passing)?.unwrap_or_default();
        let token = serde_json::from_slice::<Token>(&body).ok();
        token
            .and_then(|answer| answer.token.or(answer.access_token))
            .ok_or_else(|| {
                Failure::Denied("the registry's server for tokens gives none".to_owned())
            })
    }
}

/// Scheme and host of an URL.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
}
