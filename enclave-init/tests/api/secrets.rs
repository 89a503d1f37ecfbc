//! Declared secrets: opened by a KMS in software that verifies documents, delivered to the
//! workload, looked for again, and told to nobody else.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use attestation::Roots;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Request;
use link::control::{EndCause, FromInit};
use link::logs::LogStream;
use serde_json::{Value, json};
use software_kms::SoftwareKms;
use software_nsm::TestRoot;

use crate::agent::Control;
use crate::credentials::answers;
use crate::enclave::{Enclave, Image, MEASUREMENTS, ending_with_code, message};
use crate::kms_world::{boot, sdk_credentials};
use crate::tls::{HOST, S3_HOST, SSM_HOST, Tls};

const ID: &str = "ASIA1";
/// Part of every value: the tests look for it where none may be.
const MARK: &str = "hush-value";

/// A KMS, and what Systems Manager answers, before there is an enclave.
struct Services {
    root: TestRoot,
    tls: Tls,
    kms: Arc<SoftwareKms>,
    key: String,
    parameter: Arc<Mutex<Value>>,
    /// Status and body of what S3 answers.
    object: Arc<Mutex<(u16, String)>>,
}

impl Services {
    /// A KMS that releases what only this image may have, by its PCR0.
    fn new(pcr0: &str) -> Self {
        let root = TestRoot::generate().unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let mut kms = SoftwareKms::new("eu-west-1", "123456789012".parse().unwrap(), roots);
        kms.admit(sdk_credentials(ID)).unwrap();
        let statement = |action: &str| {
            json!({
                "Effect": "Allow",
                "Principal": { "AWS": sdk_credentials(ID).arn },
                "Action": action,
                "Resource": "*",
            })
        };
        let mut released = statement("kms:Decrypt");
        released["Condition"] = json!({
            "StringEqualsIgnoreCase": { "kms:RecipientAttestation:ImageSha384": pcr0 }
        });
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [released, statement("kms:Encrypt")],
        });
        let key = kms.create_key(policy.to_string().parse().unwrap());
        let key = key.unwrap().to_string();
        Self {
            root,
            tls: Tls::new(),
            kms: Arc::new(kms),
            key,
            parameter: Arc::default(),
            object: Arc::default(),
        }
    }

    /// A value's ciphertext, as `aws kms encrypt` prints it.
    fn encrypt(&self, value: &str) -> String {
        let body = json!({
            "KeyId": self.key,
            "Plaintext": STANDARD.encode(value),
            "EncryptionContext": {"app": "test"},
        });
        let body = body.to_string();
        let headers = [
            ("host", HOST),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "TrentService.Encrypt"),
        ];
        let known = sdk_credentials(ID);
        let (secret, token) = (known.secret_access_key, known.session_token);
        let identity = Credentials::new(ID, secret, token, None, "test").into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-west-1")
            .name("kms")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let signable = SignableRequest::new(
            "POST",
            format!("https://{HOST}/"),
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signed = sign(signable.unwrap(), &parameters.into()).unwrap();
        let (instructions, _) = signed.into_parts();
        let mut request = Request::post("/");
        for (name, value) in headers.into_iter().chain(instructions.headers()) {
            request = request.header(name, value);
        }
        let answer = self.kms.handle(&request.body(Bytes::from(body)).unwrap());
        let answer: Value = serde_json::from_slice(answer.body()).unwrap();
        let text = answer["CiphertextBlob"].as_str();
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// What Systems Manager has from now on.
    fn store(&self, value: &str) {
        *self.parameter.lock().unwrap() = json!({
            "Parameter": {
                "ARN": "arn:aws:ssm:eu-west-1:123456789012:parameter/app/password",
                "Name": "/app/password",
                "Type": "String",
                "Value": value,
            }
        });
    }

    fn image(&self, instructions: &[&str], secrets: Value) -> Image {
        let kms = json!({
            "endpoint": format!("https://{HOST}"),
            "region": "eu-west-1",
            "roots": self.tls.authority_pem.trim_end(),
        });
        Image::new(instructions)
            .with("/workload/aws_credentials", true.into())
            .with("/network/egress", json!([format!("{HOST}:443")]))
            .with("/network/aws_services", json!(["ssm", "s3"]))
            .with("/kms", kms)
            .with("/secrets", secrets)
            .signed_by(&self.root)
    }

    /// Boots it, with credentials and its connections carried.
    async fn boot(&self, image: Image) -> (Enclave, Control) {
        let (parameter, object) = (Arc::clone(&self.parameter), Arc::clone(&self.object));
        boot(image, ID, &self.kms, &self.tls, move |host, request| {
            let answer = if host == S3_HOST {
                assert!(is_signed_for_s3(&request), "{request:?}");
                object.lock().unwrap().clone()
            } else {
                assert_eq!(host, SSM_HOST);
                let target = request.headers()["x-amz-target"].clone();
                assert_eq!(target, "AmazonSSM.GetParameter");
                let body = parameter.lock().unwrap().clone();
                let status = if body["__type"].is_null() { 200 } else { 400 };
                (status, body.to_string())
            };
            std::future::ready(answer)
        })
        .await
    }
}

/// Whether AWS's own crate signs the request as the init has, at a time of the last seconds.
fn is_signed_for_s3(request: &Request<Bytes>) -> bool {
    let known = sdk_credentials(ID);
    let (secret, token) = (known.secret_access_key, known.session_token);
    let identity = Credentials::new(ID, secret, token, None, "test").into();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let url = format!("https://{S3_HOST}{}", request.uri());
    (0..30).any(|seconds| {
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-west-1")
            .name("s3")
            .time(SystemTime::now() - Duration::from_secs(seconds))
            .settings(settings.clone())
            .build()
            .unwrap();
        let headers = std::iter::once(("host", S3_HOST));
        let body = SignableBody::Bytes(b"");
        let signable = SignableRequest::new("GET", &url, headers, body).unwrap();
        let (instructions, _) = sign(signable, &parameters.into()).unwrap().into_parts();
        let mut headers = instructions.headers();
        request.method() == "GET" && headers.all(|(name, value)| request.headers()[name] == value)
    })
}

fn pcr0() -> String {
    MEASUREMENTS.pcr0.to_string()
}

fn secret(name: &str, ciphertext: &Value, rest: &Value) -> Value {
    let mut secret = json!({
        "name": name,
        "origin": {"kms": {
            "ciphertext": ciphertext,
            "encryption_context": {"app": "test"},
        }},
        "on_failure": "stop",
    });
    let members = rest.as_object().unwrap().clone();
    secret.as_object_mut().unwrap().extend(members);
    secret
}

fn file(name: &str) -> Value {
    json!({"path": format!("/run/secrets/{name}"), "mode": "0400"})
}

/// What the init says holds no value.
fn nothing_is_told(enclave: &Enclave) {
    for stream in [LogStream::System, LogStream::Errors, LogStream::Health] {
        let lines = enclave.lines(stream).join("\n");
        assert!(!lines.contains("hush"), "{lines}");
    }
}

#[tokio::test]
async fn secrets_are_files_and_variables_before_the_workload_starts() {
    let services = Services::new(&pcr0());
    let (password, token) = (format!("{MARK} 1"), format!("{MARK} 2"));
    let inline = |value: &str| json!({ "inline": services.encrypt(value) });
    services.store(&services.encrypt(&token));
    let key_id = services.key.clone();
    let mut checked = secret(
        "token",
        &json!({"ssm": "/app/password"}),
        &json!({"env": "TOKEN"}),
    );
    checked["origin"]["kms"]["key_id"] = key_id.into();
    let secrets = json!([
        secret(
            "password",
            &inline(&password),
            &json!({"file": file("password")})
        ),
        checked,
    ]);
    let image = services.image(
        &[
            "show /run/secrets/password",
            "list /run/secrets",
            "surroundings",
            "write /run/secrets/password /run/secrets/other",
            "say done",
            "wait",
        ],
        secrets,
    );
    // Another user than the init's, without capabilities.
    let image = image.with("/workload/user", json!({"uid": 1000, "gid": 1000}));
    let (enclave, _control) = services.boot(image).await;
    enclave.said("done").await;
    let said = enclave.lines(LogStream::Application);
    for line in [
        format!("{password:?}"),
        "list /run/secrets: password".to_owned(),
        format!("variable TOKEN={token}"),
        "write /run/secrets/password: EACCES".to_owned(),
        "write /run/secrets/other: EROFS".to_owned(),
    ] {
        assert!(said.contains(&line), "{line}: {said:?}");
    }
    let system = enclave.line(LogStream::System, "secrets: ").await;
    assert_eq!(system, "secrets: 2 of 2 delivered");
    enclave.line(LogStream::System, "boot step=secrets").await;
    nothing_is_told(&enclave);
}

#[tokio::test]
async fn secrets_of_another_image_end_the_boot_in_kmss_words() {
    let services = Services::new(&MEASUREMENTS.pcr1.to_string());
    let ciphertext = json!({ "inline": services.encrypt(MARK) });
    let secrets = json!([secret("password", &ciphertext, &json!({"env": "PASSWORD"}))]);
    let image = services.image(&["say started", "wait"], secrets);
    let (mut enclave, mut control) = services.boot(image).await;
    let (cause, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(cause, EndCause::BootFailed);
    assert_eq!(code, "boot.secrets");
    let expected = "boot step secrets failed: the secret `password`: KMS refused the call: AccessDeniedException: ";
    assert!(detail.starts_with(expected), "{detail}");
    assert!(
        detail.contains("have the key's policy allow kms:Decrypt"),
        "{detail}"
    );
    let (code, console) = enclave.ended().await;
    assert_eq!(code, 1);
    assert!(
        console.contains(&detail) && !console.contains("hush"),
        "{console}"
    );
    assert!(enclave.lines(LogStream::Application).is_empty());
    nothing_is_told(&enclave);
}

#[tokio::test]
async fn secrets_that_may_be_absent_are_named_and_the_workload_starts() {
    let services = Services::new(&pcr0());
    services.store("not a ciphertext");
    let parameter = json!({"ssm": "/app/password"});
    let mut other = secret(
        "other",
        &json!({ "inline": services.encrypt(MARK) }),
        &json!({"env": "OTHER", "on_failure": "continue"}),
    );
    other["origin"]["kms"]["encryption_context"] = json!({"app": "another"});
    let zero = secret(
        "zero",
        &json!({ "inline": services.encrypt(&format!("{MARK}\0")) }),
        &json!({"env": "ZERO", "on_failure": "continue"}),
    );
    let stored = secret(
        "stored",
        &parameter,
        &json!({"file": file("stored"), "on_failure": "continue"}),
    );
    let there = secret(
        "there",
        &json!({ "inline": services.encrypt(MARK) }),
        &json!({"file": file("there")}),
    );
    let secrets = json!([other, zero, stored, there]);
    let image = services.image(
        &["list /run/secrets", "surroundings", "say done", "wait"],
        secrets,
    );
    let (enclave, _control) = services.boot(image).await;
    enclave.said("done").await;
    let said = enclave.lines(LogStream::Application);
    assert!(
        said.contains(&"list /run/secrets: there".to_owned()),
        "{said:?}"
    );
    assert!(!said.iter().any(|line| line.contains("hush")), "{said:?}");
    for reason in [
        "without the secret `other`: KMS refused the call: InvalidCiphertextException",
        "without the secret `zero`: its value has a zero byte",
        "without the secret `stored`: ",
    ] {
        enclave.line(LogStream::Errors, reason).await;
    }
    enclave
        .line(LogStream::System, "secrets: 1 of 4 delivered")
        .await;
    nothing_is_told(&enclave);
}

#[tokio::test]
async fn secrets_are_refreshed_and_the_workload_is_told() {
    let services = Services::new(&pcr0());
    services.store(&services.encrypt(&format!("{MARK} old")));
    let secrets = json!([secret(
        "password",
        &json!({"ssm": "/app/password"}),
        &json!({
            "file": file("password"),
            "env": "PASSWORD",
            "refresh": "1s",
            "on_change": {"signal": "SIGHUP"},
        }),
    )]);
    let image = services
        .image(
            &[
                "show /run/secrets/password",
                "surroundings",
                "catch SIGHUP",
                "show /run/secrets/password",
                "say changed",
                "exit 0",
            ],
            secrets,
        )
        .restarted(5);
    let (enclave, _control) = services.boot(image).await;
    enclave.said("catching").await;
    // A failure leaves the value, and is told once.
    *services.parameter.lock().unwrap() = json!({"__type": "ParameterNotFound", "message": "gone"});
    let failed = "`password` cannot be refreshed and keeps its value: the parameter /app/password of Systems Manager cannot be read: ParameterNotFound: gone";
    enclave.line(LogStream::Errors, failed).await;
    services.store(&services.encrypt(&format!("{MARK} new")));
    enclave.said("changed").await;
    let said = enclave.lines(LogStream::Application);
    let old = format!("\"{MARK} old\"");
    assert!(said.contains(&old), "{said:?}");
    assert!(said.contains(&format!("\"{MARK} new\"")), "{said:?}");
    assert!(
        said.contains(&format!("variable PASSWORD={MARK} old")),
        "{said:?}"
    );
    enclave
        .line(LogStream::System, "can be refreshed again, after")
        .await;
    let errors = enclave.lines(LogStream::Errors);
    let told = errors.iter().filter(|line| line.contains("refreshed"));
    assert_eq!(told.count(), 1, "{errors:?}");
    // The next start has the new value in the environment, too.
    enclave.said(&format!("variable PASSWORD={MARK} new")).await;
    nothing_is_told(&enclave);
}

#[tokio::test]
async fn secrets_of_s3_are_read_and_refreshed() {
    let services = Services::new(&pcr0());
    let put = |status, body: &str| *services.object.lock().unwrap() = (status, body.to_owned());
    put(200, &services.encrypt(&format!("{MARK} old")));
    let secrets = json!([secret(
        "password",
        &json!({"s3": "s3://my.bucket/app/pass word.kms"}),
        &json!({
            "file": file("password"),
            "api": true,
            "refresh": "1s",
            "on_change": {"signal": "SIGHUP"},
        }),
    )]);
    let instructions = [
        "request tcp GET /v1/secrets/password",
        "catch SIGHUP",
        "request tcp GET /v1/secrets/password",
        "say finished",
        "wait",
    ];
    let image = services
        .image(&instructions, secrets)
        .with("/workload/user", json!({"uid": 1000, "gid": 1000}));
    let (enclave, mut control) = services.boot(image).await;
    enclave.said("catching").await;
    let refusal = "<Error><Code>AccessDenied</Code><Message>its words</Message></Error>";
    put(403, refusal);
    let failed = "the object s3://my.bucket/app/pass word.kms cannot be read: AccessDenied: its words; does it exist";
    enclave.line(LogStream::Errors, failed).await;
    let mut failed_refreshes = async |more_than| {
        let counts = message(&mut control, |message| match message {
            FromInit::Secrets(counts) if counts.failed_refreshes > more_than => Some(*counts),
            _ => None,
        });
        let counts = counts.await;
        assert_eq!((counts.declared, counts.delivered), (1, 1));
        counts.failed_refreshes
    };
    let refused = failed_refreshes(0).await;
    // Larger than any ciphertext; the answer before it may still be on its way.
    put(200, &"A".repeat(12 * 1024 + 1));
    failed_refreshes(refused + 1).await;
    put(200, &services.encrypt(&format!("{MARK} new")));
    enclave.said("finished").await;
    let said = enclave.lines(LogStream::Application);
    assert!(said.contains(&"caught SIGHUP".to_owned()), "{said:?}");
    let bodies = said.iter().filter_map(|line| line.strip_prefix("api 200 "));
    let expected = ["old", "new"].map(|value| STANDARD.encode(format!("{MARK} {value}")));
    assert!(bodies.eq(expected.iter().map(String::as_str)), "{said:?}");
    nothing_is_told(&enclave);
}

#[tokio::test]
async fn kms_calls_without_an_sdk_are_answered_with_plaintext() {
    let services = Services::new(&pcr0());
    let (ciphertext, key) = (services.encrypt(MARK), services.key.clone());
    let context = "\"encryption_context\":{\"app\":\"test\"}";
    let requests = [
        format!("decrypt {{\"ciphertext\":\"{ciphertext}\",\"key_id\":\"{key}\",{context}}}"),
        format!("decrypt {{\"ciphertext\":\"{ciphertext}\"}}"),
        "decrypt {\"CiphertextBlob\":\"AA==\"}".to_owned(),
        "random {\"bytes\":16}".to_owned(),
    ];
    let mut instructions = requests
        .map(|request| format!("request tcp POST /v1/kms/{request}"))
        .to_vec();
    instructions.extend(["say done", "wait"].map(str::to_owned));
    let instructions: Vec<&str> = instructions.iter().map(String::as_str).collect();
    let image = services.image(&instructions, json!([]));
    let (enclave, _control) = services.boot(image).await;
    enclave.said("done").await;
    let found = answers(&enclave);
    assert_eq!(found[0].0, 200, "{found:?}");
    assert_eq!(found[0].1["plaintext"], STANDARD.encode(MARK));
    assert_eq!(found[0].1["key_id"], key);
    assert_eq!(
        (found[1].0, &found[1].1["code"]),
        (400, &json!("kms-refused"))
    );
    let error = found[1].1["error"].as_str().unwrap();
    assert!(error.contains("InvalidCiphertextException"), "{error}");
    assert_eq!(
        (found[2].0, &found[2].1["code"]),
        (400, &json!("invalid-request"))
    );
    let error = found[2].1["error"].as_str().unwrap();
    assert!(error.contains("unknown field `CiphertextBlob`"), "{error}");
    assert_eq!(found[3].0, 200, "{found:?}");
    let random = found[3].1["plaintext"].as_str().unwrap();
    assert_eq!(STANDARD.decode(random).unwrap().len(), 16);
    nothing_is_told(&enclave);
}
