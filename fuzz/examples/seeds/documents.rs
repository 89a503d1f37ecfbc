//! Attestation: the module's requests, documents, policies, the service, and what KMS
//! answers a document with.

use std::fs;
use std::path::Path;

use attestation::Document;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enveloped_data::{Encoding, RecipientKey, seal};
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use serde_json::json;
use software_nsm::{Identity, SoftwareNsm, TestRoot};

use crate::write;

pub(crate) fn write_all() {
    requests();
    documents();
    policies();
    answers_of_kms();
    requests_to_kms();
}

fn requests() {
    let attestation = Request::Attestation {
        user_data: Some(b"data".to_vec().into()),
        nonce: Some(b"nonce".to_vec().into()),
        public_key: None,
    };
    for (name, request) in [
        ("describe-pcr", Request::DescribePCR { index: 0 }),
        (
            "extend-pcr",
            Request::ExtendPCR {
                index: 16,
                data: b"data".to_vec(),
            },
        ),
        ("lock-pcr", Request::LockPCR { index: 31 }),
        ("lock-pcrs", Request::LockPCRs { range: 17 }),
        ("describe", Request::DescribeNSM),
        ("attestation", attestation),
        ("random", Request::GetRandom),
    ] {
        let mut bytes = Vec::new();
        ciborium::into_writer(&request, &mut bytes).expect("a request");
        write("nsm_request", name, &bytes);
    }
}

/// A document under a root of its own, and some that AWS signed.
fn documents() {
    let root = TestRoot::generate().expect("a root");
    fs::write("test-root.pem", root.certificate_pem()).expect("the root's certificate");
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements: Some(Measurements {
            pcr0: Pcr::new([1; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([3; 48]),
            pcr8: None,
        }),
    };
    let mut module = SoftwareNsm::new(identity, root).expect("a module");
    let answer = module.answer(Request::Attestation {
        user_data: Some(b"data".to_vec().into()),
        nonce: Some(b"nonce".to_vec().into()),
        public_key: Some(b"key".to_vec().into()),
    });
    let Response::Attestation { document } = answer else {
        panic!("{answer:?}");
    };
    write("attestation_document", "test-root", &document);
    chain("test-root", 0, &document);
    bodies(&document);
    let vectors = Path::new("../attestation/corpus/aws");
    for name in ["46591b92f9abefaa.cbor", "a72552688ab6de06.cbor"] {
        let document = fs::read(vectors.join(name)).expect("a vector");
        write("attestation_document", name, &document);
        chain(name, 1, &document);
    }
}

fn policies() {
    let pcr = |byte: u8| hex::encode([byte; 48]);
    let toml = format!(
        r#"nonce = "required"
max_age = "90s"
clock_skew = "1m"
module_id = "i-0123456789abcdef0-enc*"
purpose = "workload"
user_data = {{ sha256_of = "a1b2" }}
public_key = {{ prefix = "3076" }}
allow_debug = true

[[images]]
name = "payments 1.5"
[images.Measurements]
HashAlgorithm = "Sha384 {{ ... }}"
PCR0 = "{0}"
PCR1 = "{0}"
PCR2 = "{0}"
PCR8 = "{0}"

[pcrs]
3 = "{0}"
16 = ["{0}", "{1}"]
"#,
        pcr(1),
        pcr(2),
    );
    write("attestation_policy", "complete.toml", toml.as_bytes());
    let json: serde_json::Value = toml::from_str(&toml).expect("TOML");
    write(
        "attestation_policy",
        "complete.json",
        json.to_string().as_bytes(),
    );
    let tpm = "profile = \"nitro-tpm\"\nnonce = \"00ff\"\n[pcrs]\n0 = []\n";
    write("attestation_policy", "tpm.toml", tpm.as_bytes());
    let words = "allow_any_image = true\nrole_arn = \"arn:aws:iam::123456789012:role/a\"\ninstance_id = [\"i-0123456789abcdef0\", \"i-01234567\"]\nsigner = \"-----BEGIN CERTIFICATE-----\"\n";
    write("attestation_policy", "words.toml", words.as_bytes());
    let image = format!(
        r#"{{"profile":"nitro-tpm","images":[{{"Measurements":{{"PCR4":"{}","PCR12":"{}"}}}}]}}"#,
        pcr(4),
        pcr(0)
    );
    write("attestation_policy", "tpm-image.json", image.as_bytes());
    let any = "allow_any_image = true\nuser_data = { equal = \"\" }\n";
    write("attestation_policy", "any.toml", any.as_bytes());
}

/// The chain of a document, for the root of this number, at the document's time.
fn chain(name: &str, root: u8, document: &[u8]) {
    let document = Document::parse(document).expect("a document");
    let mut seed = vec![root];
    seed.extend(document.unverified_timestamp_ms().to_be_bytes());
    for der in document.unverified_certificates().skip(1) {
        let length = u16::try_from(der.len()).expect("a certificate");
        seed.extend(length.to_be_bytes());
        seed.extend(der);
    }
    write("attestation_chain", name, &seed);
}

/// What clients send to the verification service.
fn bodies(document: &[u8]) {
    let document = STANDARD.encode(document);
    let hash = "00".repeat(48);
    let inline = json!({
        "images": [{ "name": "a", "Measurements": { "PCR0": hash, "PCR1": hash, "PCR2": hash } }],
        "pcrs": { "3": hash, "16": [hash, hash] },
        "nonce": "required",
        "user_data": { "sha256_of": "00ff" },
        "public_key": { "prefix": "3076" },
        "module_id": "i-*",
        "max_age": "5m",
        "clock_skew": "1m",
    });
    for (name, body) in [
        ("challenge", json!({ "policy": "payments" })),
        (
            "named",
            json!({ "document": document, "policy": "payments", "challenge": "00ff" }),
        ),
        (
            "own-nonce",
            json!({ "document": "", "policy": "a", "nonce": "00ff", "ear": false }),
        ),
        (
            "inline",
            json!({ "document": "", "policy": inline, "nonce": "00", "ear": false }),
        ),
    ] {
        write(
            "attestation_service_body",
            name,
            body.to_string().as_bytes(),
        );
    }
    write("attestation_service_body", "empty", b"");
}

/// Messages of OpenSSL, and as KMS writes them: in one fragment, and in several.
fn answers_of_kms() {
    let vectors = Path::new("../crates/enveloped-data/tests/vectors");
    let read = |name| fs::read(vectors.join(name)).expect("a vector");
    for name in ["issuer.der", "key-identifier.der", "stream.ber"] {
        write("enveloped_data", name, &read(name));
    }
    let key = RecipientKey::from_pkcs8(&read("recipient.pk8")).expect("a key");
    for (name, length) in [("kms", 32), ("kms-fragments", 2000)] {
        let message = seal(key.public_key_der(), &vec![7; length], Encoding::Kms);
        write("enveloped_data", name, &message.expect("a message"));
    }
}

/// Bodies that are signed, and headers that were not made for their request.
fn requests_to_kms() {
    let recipient = json!({
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "AttestationDocument": "hEShATgioA==",
    });
    let context = json!({ "purpose": "test" });
    for (call, name, body) in [
        (
            0,
            "decrypt",
            json!({ "CiphertextBlob": "AQID", "EncryptionContext": context, "Recipient": recipient }),
        ),
        (1, "describe-key", json!({ "KeyId": "a" })),
        (2, "encrypt", json!({ "KeyId": "a", "Plaintext": "AQID" })),
        (3, "data-key", json!({ "KeyId": "a", "KeySpec": "AES_256" })),
        (
            4,
            "data-key-without",
            json!({ "KeyId": "a", "NumberOfBytes": 32 }),
        ),
        (
            5,
            "random",
            json!({ "NumberOfBytes": 32, "Recipient": recipient }),
        ),
        (
            7,
            "shared-secret",
            json!({ "KeyId": "a", "KeyAgreementAlgorithm": "ECDH", "PublicKey": "AQID" }),
        ),
        (
            8,
            "key-pair",
            json!({ "KeyId": "a", "KeyPairSpec": "ECC_NIST_P256" }),
        ),
        (
            9,
            "key-pair-without",
            json!({ "KeyId": "a", "KeyPairSpec": "RSA_2048" }),
        ),
        (10, "public-key", json!({ "KeyId": "a" })),
        (
            11,
            "re-encrypt",
            json!({ "CiphertextBlob": "AQID", "DestinationKeyId": "a" }),
        ),
        (
            12,
            "create-key",
            json!({ "KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT" }),
        ),
    ] {
        let bytes = [&[0x80 | call], body.to_string().as_bytes()].concat();
        write("kms_request", name, &bytes);
    }
    let headers = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/kms/aws4_request, \
        SignedHeaders=host;x-amz-date;x-amz-target, Signature=00\n20260101T000000Z\n{}";
    let bytes = [&[5], headers.as_bytes()].concat();
    write("kms_request", "not-signed", &bytes);
}
