//! The bodies of requests as types.

use std::borrow::Cow;

use attestation::{MAX_NONCE, Policy};
use attestation_results::NONCE_BYTES;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::policies::{self, MAX_NAME};
use crate::problem::Problem;

/// The body of `POST /v1/challenges`; it may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object, as in `{\"policy\": \"NAME\"}`"
)]
pub struct ChallengeRequest {
    /// The policy that the document will be verified against; without one, any.
    pub policy: Option<String>,
}

impl ChallengeRequest {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let request: Self = from_json(body)?;
        if request.policy.as_deref().is_some_and(is_no_name) {
            return Err(Problem::UnknownPolicy);
        }
        Ok(request)
    }
}

/// The body of `POST /v1/verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRequest {
    /// The document's bytes, of whatever form.
    pub document: Vec<u8>,
    /// What to verify it against.
    pub policy: PolicyChoice,
    /// What shows that it is new.
    pub nonce: NonceChoice,
    /// Whether to issue a signed result.
    pub ear: bool,
}

/// A policy of the service's, or one in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyChoice {
    /// By its name.
    Named(String),
    /// In the keys of a policy file.
    Inline(Box<Policy>),
}

/// The nonce that the document must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NonceChoice {
    /// None: what the policy says holds.
    NotGiven,
    /// One that this service issued, for one acceptance.
    Challenge(Vec<u8>),
    /// One that the caller chose, and answers for.
    Own(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `document` and `policy`"
)]
struct VerifyBody<'a> {
    #[serde(borrow)]
    document: Cow<'a, str>,
    #[serde(borrow)]
    policy: &'a RawValue,
    #[serde(borrow)]
    challenge: Option<Cow<'a, str>>,
    #[serde(borrow)]
    nonce: Option<Cow<'a, str>>,
    ear: Option<bool>,
}

impl VerifyRequest {
    /// Reads a body; whoever calls has limited its size.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let body: VerifyBody<'_> = from_json(body)?;
        let document = STANDARD
            .decode(body.document.as_bytes())
            .map_err(|error| malformed(&format_args!("`document` is not base64: {error}")))?;
        let nonce = match (body.challenge, body.nonce) {
            (None, None) => NonceChoice::NotGiven,
            (Some(challenge), None) => NonceChoice::Challenge(hex_nonce("challenge", &challenge)?),
            (None, Some(nonce)) => NonceChoice::Own(hex_nonce("nonce", &nonce)?),
            (Some(_), Some(_)) => {
                return Err(malformed(
                    &"give either `challenge`, of this service, or `nonce`, your own",
                ));
            }
        };
        let ear = body.ear.unwrap_or(true);
        if let NonceChoice::Own(nonce) = &nonce
            && ear
            && !NONCE_BYTES.contains(&nonce.len())
        {
            return Err(malformed(&format_args!(
                "`nonce` has {} bytes, and a signed result repeats {} to {} (RFC 9711): use another, or ask for the report alone with `\"ear\": false`",
                nonce.len(),
                NONCE_BYTES.start(),
                NONCE_BYTES.end()
            )));
        }
        Ok(Self {
            document,
            policy: policy(body.policy.get())?,
            nonce,
            ear,
        })
    }
}

fn policy(json: &str) -> Result<PolicyChoice, Problem> {
    if json.starts_with('"') {
        let name: String = from_json(json.as_bytes())?;
        if is_no_name(&name) {
            return Err(Problem::UnknownPolicy);
        }
        return Ok(PolicyChoice::Named(name));
    }
    let invalid = |reason: String| Problem::InvalidPolicy(plain_text::plain(&reason));
    let policy = Policy::from_json(json).map_err(|error| invalid(error.to_string()))?;
    policies::check(&policy).map_err(|error| invalid(error.to_string()))?;
    Ok(PolicyChoice::Inline(Box::new(policy)))
}

fn hex_nonce(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let nonce = hex::decode(text)
        .map_err(|error| malformed(&format_args!("`{field}` is not hexadecimal: {error}")))?;
    if !(1..=MAX_NONCE).contains(&nonce.len()) {
        return Err(malformed(&format_args!(
            "`{field}` has {} bytes, not 1 to {MAX_NONCE}",
            nonce.len()
        )));
    }
    Ok(nonce)
}

/// Whether no policy can have this name, which need not be looked for then.
fn is_no_name(name: &str) -> bool {
    name.is_empty() || name.len() > MAX_NAME
}

fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

fn malformed(reason: &impl ToString) -> Problem {
    Problem::MalformedRequest(plain_text::plain(&reason.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: &str) -> String {
        VerifyRequest::parse(body.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_request_is_read_whole() {
        let body = r#"{"document":"0oQ=","policy":"payments","challenge":"00ff","ear":false}"#;
        assert_eq!(
            VerifyRequest::parse(body.as_bytes()).unwrap(),
            VerifyRequest {
                document: vec![0xd2, 0x84],
                policy: PolicyChoice::Named("payments".to_owned()),
                nonce: NonceChoice::Challenge(vec![0, 0xff]),
                ear: false,
            }
        );
        let body =
            r#"{"document":"","policy":{"allow_any_image":true},"nonce":"0001020304050607"}"#;
        let request = VerifyRequest::parse(body.as_bytes()).unwrap();
        assert!(matches!(request.policy, PolicyChoice::Inline(_)));
        assert_eq!(request.nonce, NonceChoice::Own((0..8).collect()));
        assert!(request.ear);
    }

    #[test]
    fn a_nonce_is_of_a_size_that_a_result_can_repeat_where_one_is_asked_for() {
        let parse = |size: usize, ear: &str| {
            let nonce = "00".repeat(size);
            let body = format!(r#"{{"document":"","policy":"a","nonce":"{nonce}"{ear}}}"#);
            VerifyRequest::parse(body.as_bytes())
        };
        for size in [8, 64] {
            assert!(parse(size, "").is_ok(), "{size}");
        }
        for size in [1, 7, 65, MAX_NONCE] {
            for ear in ["", r#","ear":true"#, r#","ear":null"#] {
                let problem = parse(size, ear).unwrap_err().to_string();
                assert!(problem.contains("8 to 64"), "{problem}");
            }
            assert!(parse(size, r#","ear":false"#).is_ok(), "{size}");
        }
    }

    #[test]
    fn a_wrong_request_is_refused_by_what_is_wrong() {
        for (body, expected) in [
            ("", "EOF"),
            ("[]", "expected an object with `document`"),
            (r#"{"document":""}"#, "missing field `policy`"),
            (r#"{"document":"","policy":"a","nounce":"00"}"#, "nounce"),
            (
                r#"{"document":"!","policy":"a"}"#,
                "`document` is not base64",
            ),
            (
                r#"{"document":"","policy":"a","nonce":"0"}"#,
                "`nonce` is not hex",
            ),
            (
                r#"{"document":"","policy":"a","nonce":""}"#,
                "not 1 to 1024",
            ),
            (
                r#"{"document":"","policy":"a","nonce":"00","challenge":"00"}"#,
                "either",
            ),
            (r#"{"document":"","policy":""}"#, "no policy of this name"),
            (r#"{"document":"","policy":3}"#, "cannot be used"),
            (r#"{"document":"","policy":{}}"#, "names no code"),
            (r#"{"document":"","policy":[]}"#, "expected a policy"),
            (
                r#"{"document":"","policy":{"images":[{"file":"/etc/shadow"}]}}"#,
                "cannot name one",
            ),
            (
                r#"{"document":"","policy":{"allow_any_image":true,"nonce":"00"}}"#,
                "fixes a nonce",
            ),
        ] {
            let problem = problem(body);
            assert!(problem.contains(expected), "{body}: {problem}");
        }
    }

    #[test]
    fn a_problem_does_not_repeat_control_characters() {
        for body in [
            r#"{"document":"","policy":"a","\u001b[31m":1}"#,
            r#"{"document":"","policy":{"\u001b[31m":1}}"#,
        ] {
            let problem = problem(body);
            assert!(!problem.contains(char::is_control), "{problem:?}");
        }
    }
}
