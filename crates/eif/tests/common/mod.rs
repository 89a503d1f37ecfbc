//! What the tests of this folder build images from.

#![allow(dead_code, reason = "every test uses some of it")]

use std::io::{Cursor, Read};

use eif::{Architecture, BuildMetadata, Image, Measurements, Metadata, Signer};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm};
use serde_json::json;

/// The contents of an image's sections.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) architecture: Architecture,
    pub(crate) kernel: Vec<u8>,
    pub(crate) command_line: String,
    pub(crate) ramdisks: Vec<Vec<u8>>,
}

/// Parts of a small image.
pub(crate) fn small() -> Parts {
    Parts {
        architecture: Architecture::X86_64,
        kernel: b"a kernel".to_vec(),
        command_line: "console=ttyS0 reboot=k".to_owned(),
        ramdisks: vec![b"boot".to_vec(), b"application".to_vec()],
    }
}

/// The image that these parts make.
pub(crate) fn build(parts: &Parts, signer: Option<&Signer>) -> (Vec<u8>, Measurements) {
    let mut ramdisks: Vec<_> = parts.ramdisks.iter().map(Vec::as_slice).collect();
    let mut file = Cursor::new(Vec::new());
    let measurements = eif::write(
        Image {
            architecture: parts.architecture,
            default_memory: 1 << 30,
            default_cpus: 2,
            kernel: &mut parts.kernel.as_slice(),
            command_line: &parts.command_line,
            metadata: &metadata(),
            ramdisks: ramdisks
                .iter_mut()
                .map(|ramdisk| ramdisk as &mut dyn Read)
                .collect(),
            signer,
        },
        &mut file,
    );
    (file.into_inner(), measurements.unwrap())
}

pub(crate) fn metadata() -> Metadata {
    Metadata {
        image_name: "payments".to_owned(),
        image_version: "1.2".to_owned(),
        build_metadata: BuildMetadata {
            build_time: "1970-01-01T00:00:00Z".to_owned(),
            build_tool: "a test".to_owned(),
            build_tool_version: "0.1".to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version: "6.12".to_owned(),
        },
        docker_info: json!({"Architecture": "amd64"}).into(),
        custom_metadata: json!({"host": [1, 2, 3]}).into(),
    }
}

/// A key and a certificate for it, PEM.
pub(crate) fn identity(algorithm: &'static SignatureAlgorithm) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    (key.serialize_pem(), certificate.pem())
}

pub(crate) fn signer() -> Signer {
    let (key, certificate) = identity(&PKCS_ECDSA_P384_SHA384);
    Signer::from_pem(key.as_bytes(), certificate.as_bytes()).unwrap()
}

/// Puts the right CRC into an image's header.
pub(crate) fn fix_crc(image: &mut [u8]) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&image[..eif::HEADER_BYTES - 4]);
    crc.update(&image[eif::HEADER_BYTES..]);
    image[eif::HEADER_BYTES - 4..eif::HEADER_BYTES].copy_from_slice(&crc.finalize().to_be_bytes());
}
