//! Keys of a family whose seed a KMS in software wraps: made by the first enclave, the same
//! in the next ones and in the next release, and in no other image.

use std::sync::{Arc, Mutex};

use attestation::Roots;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::EndCause;
use link::logs::LogStream;
use measurements::{Measurements, Pcr};
use serde_json::{Value, json};
use software_kms::SoftwareKms;
use software_nsm::TestRoot;
use tokio::sync::Barrier;

use crate::agent::Control;
use crate::enclave::{Enclave, Image, MEASUREMENTS, ending_with_code};
use crate::kms_world::{boot, sdk_credentials};
use crate::tls::{HOST, SSM_HOST, Tls};

const ID: &str = "ASIA1";
const NEXT: Measurements = Measurements {
    pcr0: Pcr::new([11; 48]),
    ..MEASUREMENTS
};
const OTHER: Measurements = Measurements {
    pcr0: Pcr::new([12; 48]),
    ..MEASUREMENTS
};

/// Systems Manager, as far as one parameter is concerned.
#[derive(Default)]
struct Parameter {
    value: Option<String>,
    /// Of another account than the key's.
    is_elsewhere: bool,
    /// Those who look first: they wait for each other, and find nothing.
    meeting: Vec<Arc<Barrier>>,
    /// The operations that were called.
    calls: Vec<String>,
}

impl Parameter {
    fn answer(&mut self, operation: &str, body: &Value) -> Value {
        self.calls.push(operation.to_owned());
        assert_eq!(body["Name"], "/payments/seed");
        match operation {
            "AmazonSSM.GetParameter" => match &self.value {
                Some(value) => {
                    let account = if self.is_elsewhere {
                        "444455556666"
                    } else {
                        "123456789012"
                    };
                    let arn = format!("arn:aws:ssm:eu-west-1:{account}:parameter/payments/seed");
                    json!({"Parameter": {"ARN": arn, "Value": value}})
                }
                None => json!({"__type": "ParameterNotFound"}),
            },
            "AmazonSSM.PutParameter" => {
                assert_eq!(body["Overwrite"], false);
                if self.value.is_some() {
                    return json!({"__type": "ParameterAlreadyExists"});
                }
                self.value = Some(body["Value"].as_str().unwrap().to_owned());
                json!({"Version": 1})
            }
            other => panic!("{other}"),
        }
    }
}

/// Answers a call; the first ones together.
async fn answer(parameter: &Mutex<Parameter>, operation: &str, body: &Value) -> Value {
    let (answer, meeting) = {
        let mut parameter = parameter.lock().unwrap();
        (parameter.answer(operation, body), parameter.meeting.pop())
    };
    if let Some(meeting) = meeting {
        meeting.wait().await;
    }
    answer
}

struct Cloud {
    root: TestRoot,
    tls: Tls,
    kms: Arc<SoftwareKms>,
    key: String,
    other_key: String,
    parameter: Arc<Mutex<Parameter>>,
}

impl Cloud {
    fn new() -> Self {
        let root = TestRoot::generate().unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let mut kms = SoftwareKms::new("eu-west-1", "123456789012".parse().unwrap(), roots);
        kms.admit(sdk_credentials(ID)).unwrap();
        let releases = [MEASUREMENTS, NEXT].map(|image| image.pcr0.to_string());
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "AWS": sdk_credentials(ID).arn },
                "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
                "Resource": "*",
                "Condition": { "StringEqualsIgnoreCase": {
                    "kms:RecipientAttestation:ImageSha384": releases,
                } },
            }],
        });
        let key = || {
            let key = kms.create_key(policy.to_string().parse().unwrap());
            key.unwrap().to_string()
        };
        let (key, other_key) = (key(), key());
        Self {
            root,
            tls: Tls::new(),
            kms: Arc::new(kms),
            key,
            other_key,
            parameter: Arc::default(),
        }
    }

    fn image(&self, family: &str, key: &str, instructions: &[&str]) -> Image {
        let kms = json!({
            "endpoint": format!("https://{HOST}"),
            "region": "eu-west-1",
            "roots": self.tls.authority_pem.trim_end(),
        });
        let keys = json!({
            "family": family,
            "kms": {"key_id": key, "ssm": "/payments/seed"},
        });
        Image::new(instructions)
            .with("/workload/aws_credentials", true.into())
            .with("/network/egress", json!([format!("{HOST}:443")]))
            .with("/network/aws_services", json!(["ssm"]))
            .with("/kms", kms)
            .with("/keys", keys)
            .signed_by(&self.root)
    }

    /// Boots it, with credentials and its connections carried.
    async fn boot(&self, image: Image) -> (Enclave, Control) {
        let parameter = Arc::clone(&self.parameter);
        boot(image, ID, &self.kms, &self.tls, move |host, request| {
            let parameter = Arc::clone(&parameter);
            async move {
                assert_eq!(host, SSM_HOST);
                let body = serde_json::from_slice(request.body()).unwrap();
                let operation = request.headers()["x-amz-target"].to_str().unwrap();
                let answer = answer(&parameter, operation, &body).await;
                let is_refusal = answer["__type"].is_string();
                (if is_refusal { 400 } else { 200 }, answer.to_string())
            }
        })
        .await
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.parameter.lock().unwrap().calls)
    }
}

/// Whether what leaves the enclave has the secret, in any of the usual forms.
fn is_told(enclave: &Enclave, secret: &[u8]) -> bool {
    let streams = [LogStream::System, LogStream::Errors, LogStream::Health];
    let mut lines = streams.into_iter().flat_map(|stream| enclave.lines(stream));
    let forms = [
        hex::encode(secret),
        STANDARD.encode(secret),
        format!("{secret:?}"),
    ];
    lines.any(|line| forms.iter().any(|form| line.contains(form)))
}

const ASKS: [&str; 9] = [
    "request tcp GET /v1/keys",
    "request tcp GET /v1/keys/session-tokens",
    "request unix GET /v1/keys/session-tokens?bytes=32",
    "request tcp GET /v1/keys/session-tokens?bytes=64",
    "request tcp GET /v1/keys/database",
    "request tcp GET /v1/keys/a%20b",
    "request tcp GET /v1/keys/database?bytes=8",
    "say done",
    "wait",
];

#[tokio::test]
async fn keys_are_the_same_in_the_enclaves_of_a_family_and_in_its_next_release() {
    let cloud = Cloud::new();
    let image = || cloud.image("payments", &cloud.key, &ASKS);
    // Neither of the first two finds a seed, so that both make one.
    let barrier = Arc::new(Barrier::new(2));
    cloud.parameter.lock().unwrap().meeting = vec![Arc::clone(&barrier), barrier];
    let (first, second) = tokio::join!(cloud.boot(image()), cloud.boot(image()));
    first.0.said("done").await;
    second.0.said("done").await;
    let calls = cloud.calls();
    let puts = calls.iter().filter(|call| call.contains("Put")).count();
    assert_eq!((calls.len(), puts), (6, 2), "{calls:?}");
    let (third, _control) = cloud.boot(image().measuring(NEXT)).await;
    third.said("done").await;
    assert_eq!(cloud.calls(), ["AmazonSSM.GetParameter"]);

    let found = first.0.answers();
    assert_eq!(second.0.answers(), found);
    assert_eq!(third.answers(), found);
    let statuses: Vec<u16> = found.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 400, 400]);
    let about: Value = serde_json::from_slice(&found[0].1).unwrap();
    let fingerprint = about["fingerprint"].as_str().unwrap();
    let keys: Vec<_> = found[1..5].iter().map(|(_, key)| key).collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!((keys[0].len(), keys[2].len()), (32, 64));
    assert_ne!(keys[0], keys[3]);
    assert_ne!(keys[0][..], keys[2][..32]);

    let line = format!("keys: family=payments fingerprint={fingerprint}");
    for enclave in [&first.0, &second.0, &third] {
        enclave.line(LogStream::System, &line).await;
        enclave.line(LogStream::System, "boot step=keys").await;
        assert!(!keys.iter().any(|key| is_told(enclave, key)));
    }
    let made = [&first.0, &second.0, &third].map(|enclave| {
        let lines = enclave.lines(LogStream::System);
        lines
            .iter()
            .any(|line| line.contains("the first seed of payments"))
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
}

#[tokio::test]
async fn keys_of_other_images_families_and_ciphertexts_end_the_boot() {
    let cloud = Cloud::new();
    let (enclave, _control) = cloud.boot(cloud.image("payments", &cloud.key, &ASKS)).await;
    enclave.said("done").await;
    let good = cloud.parameter.lock().unwrap().value.clone().unwrap();
    let cut = STANDARD.encode(&STANDARD.decode(&good).unwrap()[1..]);
    let image = |family: &str, key: &str| cloud.image(family, key, &["say started", "wait"]);
    for (image, stored, reason) in [
        (
            image("payments", &cloud.key).measuring(OTHER),
            &*good,
            "KMS refused the call: AccessDeniedException",
        ),
        (
            image("payments", &cloud.key).debug(),
            &*good,
            "KMS refused the call: AccessDeniedException",
        ),
        (
            image("billing", &cloud.key),
            &*good,
            "put back what was there, or delete the parameter",
        ),
        (
            image("payments", &cloud.other_key),
            &*good,
            "IncorrectKeyException",
        ),
        (image("payments", &cloud.key), &*cut, "InvalidCiphertext"),
        (
            image("payments", &cloud.key),
            "not base64",
            "holds no ciphertext of KMS's",
        ),
    ] {
        cloud.parameter.lock().unwrap().value = Some(stored.to_owned());
        let (mut enclave, mut control) = cloud.boot(image).await;
        let (cause, detail, code) = ending_with_code(&mut control).await;
        assert_eq!((cause, &*code), (EndCause::BootFailed, "boot.keys"));
        let expected = "boot step keys failed: the seed in the parameter /payments/seed: ";
        assert!(detail.starts_with(expected), "{detail}");
        assert!(detail.contains(reason), "{reason}: {detail}");
        assert_eq!(enclave.ended().await.0, 1);
        assert!(enclave.lines(LogStream::Application).is_empty());
    }
    // What was there, in an account of somebody else's.
    {
        let mut parameter = cloud.parameter.lock().unwrap();
        parameter.value = Some(good);
        parameter.is_elsewhere = true;
    }
    let (_enclave, mut control) = cloud.boot(image("payments", &cloud.key)).await;
    let (cause, detail, code) = ending_with_code(&mut control).await;
    assert_eq!((cause, &*code), (EndCause::BootFailed, "boot.keys"));
    assert!(
        detail.contains("in another account than the key"),
        "{detail}"
    );
    // What was there was never replaced.
    let puts = cloud
        .calls()
        .iter()
        .filter(|call| call.contains("Put"))
        .count();
    assert_eq!(puts, 1);
}

#[tokio::test]
async fn keys_are_not_there_without_a_family() {
    let (enclave, _control) = Image::new(&[
        "request tcp GET /v1/keys",
        "request tcp GET /v1/keys/a",
        "say done",
        "wait",
    ])
    .boot()
    .await;
    enclave.said("done").await;
    let answers = enclave.answers();
    assert_eq!(answers.len(), 2);
    for (status, body) in answers {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let error = body["error"].as_str().unwrap();
        assert!(
            status == 404 && error.contains("[keys]"),
            "{status} {error}"
        );
    }
}
