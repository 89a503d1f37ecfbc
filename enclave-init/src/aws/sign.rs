//! Signature Version 4
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>),
//! of the init's own requests and, to verify them, of the workload's.
//!
//! AWS's crate for it, `aws-sigv4`, brings more than forty packages with it, futures and
//! a second HTTP stack's types among them. PID 1 does without: what it signs is an HMAC
//! over lines whose form has been the same since 2012, and the tests hold it against
//! AWS's vectors and what botocore signs.

use std::collections::BTreeMap;
use std::fmt::Write;

use aws_lc_rs::digest::SHA256;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign};
use zeroize::Zeroizing;

/// The only algorithm.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What a credential's scope ends with.
const TERMINATOR: &str = "aws4_request";
/// The digits of `x-amz-date` that are its date.
const DATE_DIGITS: usize = 8;

/// What a signature is valid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope<'a> {
    /// `20261130`.
    pub(crate) date: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

/// The parts of a request that are signed.
#[derive(Debug)]
pub(crate) struct Signable<'a> {
    pub(crate) method: &'a str,
    /// As the service's canonical request has it: encoded twice, but for S3.
    pub(crate) path: &'a str,
    /// Parameters in order, encoded.
    pub(crate) query: &'a str,
    /// Names in lower case, of the headers that are signed.
    pub(crate) headers: BTreeMap<&'a str, String>,
    /// [`digest`] of the body.
    pub(crate) body: &'a str,
}

/// Why something has no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsigned(pub(crate) &'static str);

/// The body's SHA-256 in hexadecimal.
pub(crate) fn digest(body: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&SHA256, body))
}

impl<'a> Scope<'a> {
    /// The scope of a request with this `x-amz-date`.
    pub(crate) fn new(time: &'a str, region: &'a str, service: &'a str) -> Result<Self, Unsigned> {
        let date = time
            .get(..DATE_DIGITS)
            .ok_or(Unsigned("x-amz-date has no date"))?;
        Ok(Self {
            date,
            region,
            service,
        })
    }

    /// Reads what follows the access key's identifier.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('/');
        let scope = Self {
            date: parts.next()?,
            region: parts.next()?,
            service: parts.next()?,
        };
        (parts.next() == Some(TERMINATOR) && parts.next().is_none()).then_some(scope)
    }

    fn text(&self) -> String {
        format!(
            "{}/{}/{}/{TERMINATOR}",
            self.date, self.region, self.service
        )
    }

    /// The key that is derived from the secret for this scope.
    fn key(&self, secret: &str) -> Key {
        let first = Zeroizing::new(format!("AWS4{secret}"));
        let parts = [self.date, self.region, self.service, TERMINATOR];
        parts
            .into_iter()
            .fold(Key::new(HMAC_SHA256, first.as_bytes()), |key, part| {
                Key::new(HMAC_SHA256, sign(&key, part.as_bytes()).as_ref())
            })
    }
}

impl Signable<'_> {
    /// The names of the headers that are signed, separated by semicolons.
    fn names(&self) -> String {
        let names: Vec<&str> = self.headers.keys().copied().collect();
        names.join(";")
    }

    fn canonical(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.method, self.path, self.query);
        for (name, value) in &self.headers {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            // To a string, which takes everything.
            let _ = writeln!(text, "{name}:{}", words.join(" "));
        }
        let _ = write!(text, "\n{}\n{}", self.names(), self.body);
        text
    }

    /// The signature's bytes, at the time that `x-amz-date` has.
    pub(crate) fn signature(&self, secret: &str, scope: &Scope<'_>) -> Result<Tag, Unsigned> {
        let time = self
            .headers
            .get("x-amz-date")
            .ok_or(Unsigned("x-amz-date is not signed"))?;
        let canonical = digest(self.canonical().as_bytes());
        let text = format!("{ALGORITHM}\n{time}\n{}\n{canonical}", scope.text());
        Ok(sign(&scope.key(secret), text.as_bytes()))
    }

    /// The value of `Authorization`.
    pub(crate) fn authorization(
        &self,
        access_key_id: &str,
        secret: &str,
        scope: &Scope<'_>,
    ) -> Result<String, Unsigned> {
        let signature = hex::encode(self.signature(secret, scope)?);
        Ok(format!(
            "{ALGORITHM} Credential={access_key_id}/{}, SignedHeaders={}, Signature={signature}",
            scope.text(),
            self.names()
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use time::OffsetDateTime;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// Method, query, content type, body and signature.
    type AwsCase = [&'static str; 5];

    /// Cases of AWS's own test suite.
    #[test]
    fn sign_gives_the_signatures_of_awss_test_suite() {
        let cases: [AwsCase; 4] = [
            [
                "GET",
                "",
                "",
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ],
            [
                "GET",
                "Param1=value1&Param2=value2",
                "",
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ],
            [
                "POST",
                "",
                "",
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ],
            [
                "POST",
                "",
                "application/x-www-form-urlencoded",
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ],
        ];
        for [method, query, content_type, body, expected] in cases {
            let mut headers = BTreeMap::from([
                ("host", "example.amazonaws.com".to_owned()),
                ("x-amz-date", "20150830T123600Z".to_owned()),
            ]);
            if !content_type.is_empty() {
                headers.insert("content-type", content_type.to_owned());
            }
            let body = digest(body.as_bytes());
            let signable = Signable {
                method,
                path: "/",
                query,
                headers,
                body: &body,
            };
            let scope = Scope::new("20150830T123600Z", "us-east-1", "service").unwrap();
            let signature = signable.signature(SECRET, &scope).unwrap();
            assert_eq!(hex::encode(signature), expected, "{method} {query}");
        }
    }

    /// A request that botocore has signed.
    #[derive(Deserialize)]
    struct Case {
        service: String,
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        body: String,
        token: Option<String>,
        time: i64,
        authorization: String,
    }

    #[test]
    fn sign_gives_the_signatures_of_botocore() {
        let cases = include_str!("../../../crates/aws-request/tests/signatures.json");
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        let mut tried = 0;
        for case in &cases {
            let uri: hyper::Uri = case.url.parse().unwrap();
            // What the others add is theirs to canonicalise.
            if uri.query().is_some() || (case.service != "s3" && uri.path() != "/") {
                continue;
            }
            let time = OffsetDateTime::from_unix_timestamp(case.time).unwrap();
            let time = super::super::client::timestamp(time);
            let body = digest(case.body.as_bytes());
            let mut headers = BTreeMap::from([
                ("host", uri.authority().unwrap().to_string()),
                ("x-amz-date", time.clone()),
            ]);
            for (name, value) in &case.headers {
                headers.insert(name, value.clone());
            }
            if let Some(token) = &case.token {
                headers.insert("x-amz-security-token", token.clone());
            }
            if case.service == "s3" {
                headers.insert("x-amz-content-sha256", body.clone());
            }
            let signable = Signable {
                method: &case.method,
                path: uri.path(),
                query: "",
                headers,
                body: &body,
            };
            let scope = Scope::new(&time, "us-west-2", &case.service).unwrap();
            let found = signable.authorization("AKIDEXAMPLE", SECRET, &scope);
            assert_eq!(found.unwrap(), case.authorization, "{}", case.url);
            tried += 1;
        }
        assert!(tried > 2, "{tried}");
    }

    #[test]
    fn sign_reads_scopes_that_are_whole() {
        let text = "20261130/eu-west-1/kms/aws4_request";
        let scope = Scope::parse(text).unwrap();
        assert_eq!(scope.text(), text);
        for text in [
            "",
            "20261130/eu-west-1/kms",
            "20261130/eu-west-1/kms/aws4",
            "20261130/eu-west-1/kms/aws4_request/",
        ] {
            assert_eq!(Scope::parse(text), None, "{text}");
        }
        assert!(Scope::new("2026", "a", "b").is_err());
    }
}
