//! Signature Version 4, verified: the request is signed again, and has to come out as it
//! was sent.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as SigningCredentials;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;
use key_policy::{Caller, CallerError};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::error::{Kind, Refusal};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "kms";
/// What ends the scope of credentials.
const TERMINATOR: &str = "aws4_request";
/// How far the time of signing may be from now.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
const DATE_HEADER: &str = "x-amz-date";
const TOKEN_HEADER: &str = "x-amz-security-token";
/// Headers that have to be signed if they are there, with all that begin with `x-amz-`.
const HOST_HEADER: &str = "host";
/// As a time is written in requests and errors.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// Whom the KMS knows, and what he signs with.
#[derive(Clone)]
pub struct Credentials {
    /// The access key's identifier.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: String,
    /// Where the credentials are temporary, the token that has to come with them.
    pub session_token: Option<String>,
    /// The ARN of the user, role or session whose they are.
    pub arn: String,
}

/// Who may be the sender of a request.
pub(crate) struct Client {
    credentials: Credentials,
    pub(crate) caller: Caller,
}

impl Client {
    pub(crate) fn new(credentials: Credentials) -> Result<Self, CallerError> {
        Ok(Self {
            caller: credentials.arn.parse()?,
            credentials,
        })
    }

    pub(crate) fn arn(&self) -> &str {
        &self.credentials.arn
    }
}

/// The value of `Authorization`.
struct Authorization<'a> {
    access_key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let fields = text.strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim().split_once('=')?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let mut scope = credential?.split('/');
        let mut part = || scope.next();
        let (access_key_id, date, region) = (part()?, part()?, part()?);
        let (service, terminator, end) = (part()?, part()?, part());
        (terminator == TERMINATOR && end.is_none()).then_some(Self {
            access_key_id,
            date,
            region,
            service,
            signed_headers: headers?.split(';').collect(),
            signature: signature?,
        })
    }
}

/// Who has signed the request, at about the time `now`, for the KMS of `region`.
pub(crate) fn verify<'c>(
    request: &Request<Bytes>,
    region: &str,
    clients: &'c [Client],
    now: SystemTime,
) -> Result<&'c Client, Refusal> {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let Some(authorization) = header(AUTHORIZATION.as_str()) else {
        return Err(Refusal::new(
            Kind::MissingAuthenticationToken,
            "Missing Authentication Token",
        ));
    };
    let incomplete = |what| Refusal::new(Kind::IncompleteSignature, what);
    let authorization = Authorization::parse(authorization).ok_or_else(|| {
        incomplete("Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters.")
    })?;
    let date = header(DATE_HEADER).ok_or_else(|| {
        incomplete("Authorization header requires existence of an 'X-Amz-Date' header.")
    })?;
    let signed_at = PrimitiveDateTime::parse(date, TIME)
        .map_err(|_| incomplete("Date must be in ISO-8601 'basic format'."))?
        .assume_utc();
    require_signed_headers(request, &authorization)?;
    check_scope(&authorization, region, date)?;

    // Whoever is unknown and whoever sends the wrong token hear the same.
    let unknown = || {
        Refusal::new(
            Kind::UnrecognizedClient,
            "The security token included in the request is invalid.",
        )
    };
    let client = clients
        .iter()
        .find(|client| client.credentials.access_key_id == authorization.access_key_id)
        .ok_or_else(unknown)?;
    let expected = client.credentials.session_token.as_deref();
    let token = header(TOKEN_HEADER);
    if token.is_some() != expected.is_some()
        || !same(token.unwrap_or_default(), expected.unwrap_or_default())
    {
        return Err(unknown());
    }
    check_time(date, signed_at, now)?;
    let signature = signature(
        request,
        &authorization,
        &client.credentials,
        signed_at.into(),
    )
    .map_err(|what| Refusal::new(Kind::IncompleteSignature, what))?;
    if same(&signature, authorization.signature) {
        Ok(client)
    } else {
        Err(Refusal::new(
            Kind::InvalidSignature,
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        ))
    }
}

fn same(one: &str, other: &str) -> bool {
    verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// What KMS acts on has to be signed.
fn require_signed_headers(
    request: &Request<Bytes>,
    authorization: &Authorization<'_>,
) -> Result<(), Refusal> {
    let amazons = request.headers().keys().map(http::HeaderName::as_str);
    let amazons = amazons.filter(|name| name.starts_with("x-amz-"));
    for name in amazons.chain([HOST_HEADER]) {
        if !authorization.signed_headers.contains(&name) {
            return Err(Refusal::new(
                Kind::InvalidSignature,
                format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."),
            ));
        }
    }
    Ok(())
}

fn check_scope(authorization: &Authorization<'_>, region: &str, date: &str) -> Result<(), Refusal> {
    let refused = |message| Err(Refusal::new(Kind::InvalidSignature, message));
    if authorization.region != region {
        return refused(format!(
            "Credential should be scoped to a valid region, not '{}'.",
            authorization.region
        ));
    }
    if authorization.service != SERVICE {
        return refused(format!(
            "Credential should be scoped to correct service: '{SERVICE}'."
        ));
    }
    if date.split('T').next() != Some(authorization.date) {
        return refused(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{date}'.",
            authorization.date
        ));
    }
    Ok(())
}

fn check_time(date: &str, signed_at: OffsetDateTime, now: SystemTime) -> Result<(), Refusal> {
    let now = OffsetDateTime::from(now);
    let shown = |time: OffsetDateTime| time.format(TIME).unwrap_or_default();
    let minutes = CLOCK_SKEW.as_secs() / 60;
    let message = if signed_at < now - CLOCK_SKEW {
        format!(
            "Signature expired: {date} is now earlier than {} ({} - {minutes} min.)",
            shown(now - CLOCK_SKEW),
            shown(now)
        )
    } else if signed_at > now + CLOCK_SKEW {
        format!(
            "Signature not yet current: {date} is still later than {} ({} + {minutes} min.)",
            shown(now + CLOCK_SKEW),
            shown(now)
        )
    } else {
        return Ok(());
    };
    Err(Refusal::new(Kind::InvalidSignature, message))
}

/// The signature that the request has if the client signed it.
fn signature(
    request: &Request<Bytes>,
    authorization: &Authorization<'_>,
    credentials: &Credentials,
    time: SystemTime,
) -> Result<String, String> {
    let mut settings = SigningSettings::default();
    // Whatever the client signed, and nothing else.
    settings.excluded_headers = None;
    let identity = Identity::from(SigningCredentials::new(
        &credentials.access_key_id,
        &credentials.secret_access_key,
        credentials.session_token.clone(),
        None,
        "software-kms",
    ));
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(authorization.region)
        .name(SERVICE)
        .time(time)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?;
    let mut headers = Vec::new();
    for (name, value) in request.headers() {
        if authorization.signed_headers.contains(&name.as_str()) {
            let value = value.to_str().map_err(|error| error.to_string())?;
            headers.push((name.as_str(), value));
        }
    }
    // Without it, the signer would want an authority in the URI.
    if !headers.iter().any(|(name, _)| *name == HOST_HEADER) {
        return Err("Authorization header requires existence of a 'Host' header.".to_owned());
    }
    let signable = SignableRequest::new(
        request.method().as_str(),
        request.uri().to_string(),
        headers.into_iter(),
        SignableBody::Bytes(request.body()),
    )
    .map_err(|error| error.to_string())?;
    let (_, signature) = sign(signable, &parameters.into())
        .map_err(|error| error.to_string())?
        .into_parts();
    Ok(signature)
}
