//! A KMS with a client, and enclaves.

#![allow(dead_code, reason = "not every test needs all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

pub(crate) mod link;
pub(crate) mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use attestation::{Pcr, Roots};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use enveloped_data::RecipientKey;
use http::{Request, StatusCode};
use key_policy::Policy;
use measurements::Measurements;
use serde_json::{Value, json};
use software_kms::{Credentials, KeySpec, SoftwareKms};
use software_nsm::{Identity, SoftwareNsm, TestRoot};

pub(crate) const REGION: &str = "eu-west-1";
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/Enclave";

/// Who signs requests.
pub(crate) struct Client {
    pub(crate) credentials: Credentials,
    pub(crate) region: &'static str,
    pub(crate) service: &'static str,
    pub(crate) time: SystemTime,
}

impl Client {
    pub(crate) fn new(arn: &str) -> Self {
        let name = arn.rsplit('/').next().unwrap();
        Self {
            credentials: Credentials {
                access_key_id: format!("AKID{}", name.to_uppercase()),
                secret_access_key: format!("the secret of {name}"),
                session_token: Some(format!("the token of {name}")),
                arn: arn.to_owned(),
            },
            region: REGION,
            service: "kms",
            time: SystemTime::now(),
        }
    }

    pub(crate) fn request(&self, call: &str, body: &Value) -> Request<Bytes> {
        let body = Bytes::from(body.to_string());
        let target = format!("TrentService.{call}");
        let headers = [
            ("host", "kms.test"),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", &target),
        ];
        let identity = aws_credential_types::Credentials::new(
            &self.credentials.access_key_id,
            &self.credentials.secret_access_key,
            self.credentials.session_token.clone(),
            None,
            "test",
        );
        let identity = identity.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let signable =
            SignableRequest::new("POST", "/", headers.into_iter(), SignableBody::Bytes(&body));
        let signed = sign(signable.unwrap(), &parameters.into()).unwrap();
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body.clone()).unwrap();
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        request
    }
}

pub(crate) struct World {
    pub(crate) kms: Arc<SoftwareKms>,
    pub(crate) client: Client,
    pub(crate) role: String,
    pub(crate) root: (String, String),
    /// By how many seconds the KMS's clock is ahead.
    ahead: Arc<AtomicI64>,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = TestRoot::generate().unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let ahead = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&ahead);
        let kms = SoftwareKms::new(REGION, "123456789012".parse().unwrap(), roots);
        let mut kms = kms.with_clock(move || ahead_by(clock.load(Ordering::SeqCst)));
        let client = Client::new(ROLE);
        let stranger = Client::new("arn:aws:iam::123456789012:role/Stranger");
        for known in [&client, &stranger] {
            kms.admit(known.credentials.clone()).unwrap();
        }
        Self {
            kms: Arc::new(kms),
            client,
            role: ROLE.to_owned(),
            root: (root.certificate_pem().to_owned(), root.key_pem()),
            ahead,
        }
    }

    /// Moves the KMS's clock, and has the client sign by it.
    pub(crate) fn set_ahead(&mut self, seconds: i64) {
        self.ahead.store(seconds, Ordering::SeqCst);
        self.client.time = ahead_by(seconds);
    }

    /// The ARN of a new key, under a policy as [`policy`] makes it.
    pub(crate) fn key(&self, statements: &[Statement<'_>]) -> String {
        self.key_of(KeySpec::SymmetricDefault, statements)
    }

    /// The same of another kind of key.
    pub(crate) fn key_of(&self, spec: KeySpec, statements: &[Statement<'_>]) -> String {
        let key = self.kms.create_key_of(spec, policy(statements));
        key.unwrap().to_string()
    }

    pub(crate) fn answer(&self, request: &Request<Bytes>) -> (StatusCode, Value) {
        let response = self.kms.handle(request);
        let body = serde_json::from_slice(response.body()).unwrap();
        (response.status(), body)
    }

    pub(crate) fn call(&self, call: &str, body: &Value) -> Value {
        let (status, answer) = self.answer(&self.client.request(call, body));
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    pub(crate) fn refusal(&self, call: &str, body: &Value) -> Value {
        self.refusal_of(&self.client, call, body)
    }

    pub(crate) fn refusal_of(&self, client: &Client, call: &str, body: &Value) -> Value {
        let (status, answer) = self.answer(&client.request(call, body));
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        answer
    }

    /// An enclave of this image (or in debug mode), under the root that the KMS trusts.
    pub(crate) fn enclave(&self, image: Option<Pcr>) -> Enclave {
        let (certificate, key) = &self.root;
        Enclave::new(image, TestRoot::from_pem(certificate, key).unwrap())
    }
}

fn ahead_by(seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::now() - by
    } else {
        SystemTime::now() + by
    }
}

/// Action, principal, and an image if the statement is for one.
pub(crate) type Statement<'a> = (&'a str, &'a str, Option<Pcr>);

/// A key policy that allows what the statements say.
pub(crate) fn policy(statements: &[Statement<'_>]) -> Policy {
    policy_text(statements).parse().unwrap()
}

pub(crate) fn policy_text(statements: &[Statement<'_>]) -> String {
    let statements = statements.iter().map(|(action, principal, image)| {
        let mut statement = json!({
            "Effect": "Allow",
            "Principal": { "AWS": principal },
            "Action": action,
            "Resource": "*",
        });
        if let Some(image) = image {
            let image = json!({ "kms:RecipientAttestation:ImageSha384": image.to_string() });
            statement["Condition"] = json!({ "StringEqualsIgnoreCase": image });
        }
        statement
    });
    let statements: Vec<_> = statements.collect();
    let policy = json!({ "Version": "2012-10-17", "Statement": statements });
    policy.to_string()
}

/// A module, and the key of the software that runs on it.
pub(crate) struct Enclave {
    module: SoftwareNsm,
    pub(crate) key: RecipientKey,
}

impl Enclave {
    pub(crate) fn new(image: Option<Pcr>, root: TestRoot) -> Self {
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: image.map(|pcr0| Measurements {
                pcr0,
                pcr1: Pcr::new([2; 48]),
                pcr2: Pcr::new([3; 48]),
                pcr8: None,
            }),
        };
        Self {
            module: SoftwareNsm::new(identity, root)
                .unwrap()
                .on_parent_with(&ROLE.parse().unwrap()),
            key: RecipientKey::generate().unwrap(),
        }
    }

    /// A document with this `public_key`.
    pub(crate) fn document(&mut self, public_key: Option<&[u8]>) -> Vec<u8> {
        let request = nsm::Request::Attestation {
            user_data: None,
            nonce: None,
            public_key: public_key.map(|key| key.to_vec().into()),
        };
        match self.module.answer(request) {
            nsm::Response::Attestation { document } => document,
            other => panic!("{other:?}"),
        }
    }

    /// The value of `Recipient` that asks for answers to the enclave's key.
    pub(crate) fn recipient(&mut self) -> Value {
        let key = self.key.public_key_der().to_vec();
        recipient(&self.document(Some(&key)))
    }
}

pub(crate) fn recipient(document: &[u8]) -> Value {
    json!({
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "AttestationDocument": base64(document),
    })
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}
