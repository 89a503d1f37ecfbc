//! The software NSM behaves as the device, and its documents verify.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use attestation::{Document, Nonce, Policy, Roots, Rule, Verifier};
use measurements::{InstanceId, Measurements, Pcr, RoleArn};
use nsm::{Nsm, NsmError, Refusal, Request, Response, unverified_timestamp_ms};
use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

const MEASUREMENTS: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

struct Server {
    folder: TempDir,
    roots: Roots,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(measurements: Option<Measurements>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = TestRoot::generate().unwrap();
        // What a caller keeps on disk is enough to go on with.
        let root = TestRoot::from_pem(root.certificate_pem(), &root.key_pem()).unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".into(),
            enclave_id: "enc0123456789abcdef".into(),
            measurements,
        };
        let module = SoftwareNsm::new(identity, root).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let listener = tokio::net::UnixListener::bind(folder.path().join("nsm")).unwrap();
        runtime.spawn(serve(listener, module));
        Self {
            folder,
            roots,
            _runtime: runtime,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("nsm")
    }

    fn client(&self) -> Nsm {
        Nsm::socket(&self.path()).unwrap()
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, NsmError>) -> Refusal {
    match result {
        Err(NsmError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn documents_verify_against_the_test_root_only() {
    let server = Server::start(Some(MEASUREMENTS));
    let document = server
        .client()
        .attestation(Some(b"data"), Some(b"nonce"), Some(b"key"))
        .unwrap();
    let policy = Policy::builder()
        .measurements(MEASUREMENTS)
        .user_data(b"data".to_vec())
        .public_key(b"key".to_vec())
        .build()
        .unwrap();
    let accepted = Verifier::new(server.roots.clone())
        .verify(&document, &policy, Nonce::Fresh(b"nonce"))
        .outcome
        .unwrap();
    assert_eq!(
        accepted.module_id(),
        "i-0123456789abcdef0-enc0123456789abcdef"
    );
    let refused = Verifier::new(Roots::aws())
        .verify(&document, &policy, Nonce::Fresh(b"nonce"))
        .outcome
        .unwrap_err();
    assert_eq!(refused.rule, Rule::ChainRoot);
}

#[test]
fn openssl_and_the_cose_crate_agree() {
    let server = Server::start(Some(MEASUREMENTS));
    let bytes = server.client().attestation(None, None, None).unwrap();
    let document = Document::parse(&bytes).unwrap();
    let pem: Vec<String> = document
        .unverified_certificates()
        .map(|der| {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            let lines: Vec<_> = body
                .as_bytes()
                .chunks(64)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                lines.join("\n")
            )
        })
        .collect();
    let [root, between @ .., leaf] = pem.as_slice() else {
        panic!()
    };
    let write = |name: &str, text: &str| {
        let path = server.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (root, between, leaf) = (
        write("root", root),
        write("between", &between.concat()),
        write("leaf", leaf),
    );
    let output = std::process::Command::new("openssl")
        .args(["verify", "-CAfile"])
        .args([&root, Path::new("-untrusted"), &between, &leaf])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let parsed = aws_nitro_enclaves_cose::CoseSign1::from_bytes(&bytes).unwrap();
    let payload = parsed.get_payload::<Untouched>(None).unwrap();
    let parsed = aws_nitro_enclaves_nsm_api::api::AttestationDoc::from_binary(&payload).unwrap();
    assert_eq!(parsed.pcrs.len(), 16);
    assert_eq!(parsed.pcrs[&2].as_slice(), [3; 48]);
}

#[test]
fn the_timestamp_is_read_from_documents_that_nobody_signs_too() {
    let server = Server::start(Some(MEASUREMENTS));
    let bytes = server.client().attestation(None, None, None).unwrap();
    let timestamp = Document::parse(&bytes).unwrap().unverified_timestamp_ms();
    assert_eq!(unverified_timestamp_ms(&bytes).unwrap(), timestamp);

    // The signature, and then its length: a verifier reads such a document no more.
    let mut unsigned = bytes.clone();
    let signature = unsigned.len() - 96;
    unsigned.truncate(signature - 2);
    unsigned.push(0x40);
    assert!(Document::parse(&unsigned).is_err());
    assert_eq!(unverified_timestamp_ms(&unsigned).unwrap(), timestamp);

    for cut in 0..bytes.len() {
        assert!(unverified_timestamp_ms(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(unverified_timestamp_ms(b"\x84\x40\xa0\x41\xa0\x40").is_err());
}

struct Untouched;

impl aws_nitro_enclaves_cose::crypto::Hash for Untouched {
    fn hash(
        _: aws_nitro_enclaves_cose::crypto::MessageDigest,
        data: &[u8],
    ) -> Result<Vec<u8>, aws_nitro_enclaves_cose::error::CoseError> {
        Ok(data.to_vec())
    }
}

#[test]
fn certificates_have_the_shape_of_aws() {
    let aws = std::fs::read("../../attestation/corpus/aws/8e5652f3b009e620.cbor").unwrap();
    let server = Server::start(Some(MEASUREMENTS));
    let ours = server.client().attestation(None, None, None).unwrap();
    let shape = |bytes: &[u8]| -> Vec<Vec<String>> {
        Document::parse(bytes)
            .unwrap()
            .unverified_certificates()
            .map(|der| {
                let (_, certificate) = X509Certificate::from_der(der).unwrap();
                let mut facts: Vec<String> = certificate
                    .extensions()
                    .iter()
                    .map(|extension| match extension.parsed_extension() {
                        x509_parser::prelude::ParsedExtension::BasicConstraints(value) => {
                            format!(
                                "{} critical={} {value:?}",
                                extension.oid, extension.critical
                            )
                        }
                        x509_parser::prelude::ParsedExtension::KeyUsage(value) => {
                            format!("{} {value:?}", extension.oid)
                        }
                        _ => format!("{} critical={}", extension.oid, extension.critical),
                    })
                    .collect();
                facts.sort();
                facts.push(format!("{}", certificate.version()));
                facts.push(certificate.signature_algorithm.algorithm.to_string());
                let life = certificate.validity().not_after.timestamp()
                    - certificate.validity().not_before.timestamp();
                // The zonal certificate's varies between five and six days.
                let unit = if life > 2 * 86_400 {
                    10 * 86_400
                } else {
                    3_600
                };
                facts.push(format!("{} units of {unit} s", (life + unit / 2) / unit));
                facts
            })
            .collect()
    };
    let (aws, ours) = (shape(&aws), shape(&ours));
    assert_eq!(aws.len(), 5);
    for (aws, ours) in aws.iter().zip(&ours).skip(1) {
        assert_eq!(aws, ours);
    }
    // Root: the same but for the days of leap years.
    assert_eq!(aws[0][..aws[0].len() - 1], ours[0][..ours[0].len() - 1]);
}

#[test]
fn registers_extend_and_lock_as_on_the_device() {
    let server = Server::start(Some(MEASUREMENTS));
    let mut nsm = server.client();
    assert_eq!(nsm.describe_pcr(0).unwrap(), (MEASUREMENTS.pcr0, true));
    for index in 0..16 {
        assert_eq!(refusal(nsm.extend_pcr(index, b"x")), Refusal::ReadOnlyIndex);
        assert_eq!(refusal(nsm.lock_pcr(index)), Refusal::ReadOnlyIndex);
    }
    for index in 16..32 {
        assert_eq!(nsm.describe_pcr(index).unwrap(), (Pcr::ZERO, false));
    }
    let once = nsm.extend_pcr(16, b"a").unwrap();
    assert_eq!(once, Pcr::ZERO.extend(b"a"));
    assert_eq!(nsm.extend_pcr(16, b"b").unwrap(), once.extend(b"b"));
    nsm.lock_pcr(16).unwrap();
    assert_eq!(refusal(nsm.extend_pcr(16, b"c")), Refusal::ReadOnlyIndex);
    assert_eq!(nsm.describe_pcr(16).unwrap(), (once.extend(b"b"), true));
    nsm.lock_pcrs(20).unwrap();
    assert_eq!(refusal(nsm.extend_pcr(19, b"c")), Refusal::ReadOnlyIndex);
    nsm.extend_pcr(20, b"c").unwrap();
    for index in [32, u16::MAX] {
        assert_eq!(refusal(nsm.describe_pcr(index)), Refusal::InvalidIndex);
        assert_eq!(refusal(nsm.extend_pcr(index, b"x")), Refusal::InvalidIndex);
        assert_eq!(refusal(nsm.lock_pcr(index)), Refusal::InvalidIndex);
    }
    assert_eq!(refusal(nsm.lock_pcrs(33)), Refusal::InvalidIndex);
    let described = nsm.describe().unwrap();
    assert_eq!(described.locked_pcrs, (0..20).collect::<Vec<_>>());
    assert_eq!(described.max_pcrs, 32);
    // Locked registers are in the document; PCR20 is not locked.
    let document = nsm.attestation(None, None, None).unwrap();
    let document = Document::parse(&document).unwrap();
    assert_eq!(
        document.unverified_pcr(16),
        Some(once.extend(b"b").as_bytes())
    );
    assert_eq!(document.unverified_pcr(20), None);
}

#[test]
fn limits_are_those_of_the_device() {
    let server = Server::start(Some(MEASUREMENTS));
    let mut nsm = server.client();
    let bytes = vec![0; 1025];
    nsm.attestation(
        Some(&bytes[..512]),
        Some(&bytes[..512]),
        Some(&bytes[..1024]),
    )
    .unwrap();
    assert_eq!(
        refusal(nsm.attestation(Some(&bytes[..513]), None, None)),
        Refusal::InputTooLarge
    );
    assert_eq!(
        refusal(nsm.attestation(None, Some(&bytes[..513]), None)),
        Refusal::InputTooLarge
    );
    assert_eq!(
        refusal(nsm.attestation(None, None, Some(&bytes))),
        Refusal::InputTooLarge
    );
    // A document with such a key would break its own rules.
    assert_eq!(
        refusal(nsm.attestation(None, None, Some(&[]))),
        Refusal::InvalidArgument
    );
    assert_eq!(
        refusal(nsm.extend_pcr(16, &[0; 4096])),
        Refusal::InputTooLarge
    );
    let (first, second) = (nsm.random().unwrap(), nsm.random().unwrap());
    assert_eq!(first.len(), 256);
    assert_ne!(first, second);
}

#[test]
fn a_module_id_cannot_tamper_with_a_terminal() {
    let root = TestRoot::generate().unwrap();
    let identity = Identity {
        instance_id: "i-\u{1b}[2J\n0".into(),
        enclave_id: "enc0".into(),
        measurements: None,
    };
    let mut module = SoftwareNsm::new(identity, root).unwrap();
    let answer = module.answer(Request::Attestation {
        user_data: None,
        nonce: None,
        public_key: None,
    });
    let Response::Attestation { document } = answer else {
        panic!("{answer:?}");
    };
    let rejection = Document::parse(&document).unwrap_err();
    assert_eq!(rejection.rule, Rule::PayloadModuleId);
    assert!(!rejection.reason.contains(char::is_control));
}

#[test]
fn a_debug_enclave_has_zero_registers_but_that_of_its_instance() {
    let server = Server::start(None);
    let mut nsm = server.client();
    let instance: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    for index in 0..16 {
        let value = if index == 4 {
            instance.pcr4()
        } else {
            Pcr::ZERO
        };
        assert_eq!(nsm.describe_pcr(index).unwrap(), (value, true));
    }
}

#[test]
fn hostile_clients_do_not_disturb_others() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let server = Server::start(Some(MEASUREMENTS));
    // Half a length, then silence.
    let mut half_open = UnixStream::connect(server.path()).unwrap();
    half_open.write_all(&[0, 0]).unwrap();
    // A length beyond the device's buffer is refused and the connection closed.
    let mut oversized = UnixStream::connect(server.path()).unwrap();
    oversized.write_all(&u32::MAX.to_be_bytes()).unwrap();
    let mut answer = Vec::new();
    oversized.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("InputTooLarge"));
    // Bytes that are no request.
    let mut garbage = UnixStream::connect(server.path()).unwrap();
    garbage.write_all(&[0, 0, 0, 2, 0xff, 0xff]).unwrap();
    let mut answer = [0; 4];
    garbage.read_exact(&mut answer).unwrap();
    let mut nsm = server.client();
    assert_eq!(nsm.describe_pcr(1).unwrap().0, MEASUREMENTS.pcr1);
}

#[test]
fn parents_roles_are_measured_into_pcr_3() {
    let identity = || Identity {
        instance_id: "i-0123456789abcdef0".into(),
        enclave_id: "enc0123456789abcdef".into(),
        measurements: Some(MEASUREMENTS),
    };
    let role: RoleArn = "arn:aws:iam::123456789012:role/Enclave".parse().unwrap();
    let module = || SoftwareNsm::new(identity(), TestRoot::generate().unwrap()).unwrap();
    for (mut module, expected) in [
        (module(), Pcr::ZERO),
        (module().on_parent_with(&role), role.pcr3()),
    ] {
        let Response::DescribePCR { lock, data } = module.answer(Request::DescribePCR { index: 3 })
        else {
            panic!("no register");
        };
        assert!(lock);
        assert_eq!(data, expected.as_bytes());
    }
}
