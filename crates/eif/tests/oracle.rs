//! AWS's own crate reads what this one writes, and the other way round.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aws_nitro_enclaves_image_format::defs::EifIdentityInfo;
use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use aws_nitro_enclaves_image_format::utils::{EifBuilder, PcrSignatureChecker, SignKeyData};
use common::{Parts, build, identity, metadata, small};
use eif::{Architecture, Eif, Measurements, SectionKind, Signer};
use proptest::prelude::*;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512};
use serde_json::json;
use sha2::{Digest, Sha384};
use tempfile::TempDir;

/// Key and certificate as files.
struct Identity {
    key: String,
    certificate: String,
}

impl Identity {
    fn signer(&self) -> Signer {
        Signer::from_pem(self.key.as_bytes(), self.certificate.as_bytes()).unwrap()
    }

    fn files(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
        fs::write(&key, &self.key).unwrap();
        fs::write(&certificate, &self.certificate).unwrap();
        (key, certificate)
    }
}

/// The measurements that AWS's reader finds. Its findings on CRC and signature
/// are asserted.
fn measure_with_oracle(path: &Path, signed: bool) -> Measurements {
    let path = path.to_str().unwrap().to_owned();
    let mut reader = EifReader::from_eif(path.clone()).unwrap();
    assert!(reader.check_crc());
    let measurements = reader.get_measurements().unwrap();
    if signed {
        reader.get_certificate_info(measurements.clone()).unwrap();
        assert_eq!(reader.sign_check, Some(true));
        PcrSignatureChecker::from_eif(&path)
            .unwrap()
            .verify()
            .unwrap();
    }
    parse(&measurements)
}

/// What AWS's crate prints, read by ours.
fn parse(measurements: &BTreeMap<String, String>) -> Measurements {
    serde_json::from_value(json!({"Measurements": measurements})).unwrap()
}

fn oracle_metadata() -> EifIdentityInfo {
    serde_json::from_value(serde_json::to_value(metadata()).unwrap()).unwrap()
}

fn assert_oracle_agrees_on_ours(parts: &Parts, identity: Option<&Identity>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ours.eif");
    let signer = identity.map(Identity::signer);
    let (image, measurements) = build(parts, signer.as_ref());
    fs::write(&path, image).unwrap();
    assert_eq!(measurements, measure_with_oracle(&path, identity.is_some()));
    let metadata = EifReader::from_eif(path.to_str().unwrap().to_owned())
        .unwrap()
        .get_metadata();
    assert_eq!(
        serde_json::to_value(metadata).unwrap(),
        serde_json::to_value(oracle_metadata()).unwrap()
    );
}

fn assert_we_agree_on_the_oracles(parts: &Parts, identity: Option<&Identity>) {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    };
    let flags = match parts.architecture {
        Architecture::X86_64 => 0,
        Architecture::Aarch64 => 1,
    };
    let mut builder = EifBuilder::new(
        &file("kernel", &parts.kernel),
        parts.command_line.clone(),
        identity.map(|identity| {
            let (key, certificate) = identity.files(folder.path());
            SignKeyData::new(key.to_str().unwrap(), &certificate).unwrap()
        }),
        Sha384::new(),
        flags,
        oracle_metadata(),
    );
    for (index, ramdisk) in parts.ramdisks.iter().enumerate() {
        builder.add_ramdisk(&file(&format!("ramdisk{index}"), ramdisk));
    }
    let path = folder.path().join("theirs.eif");
    let theirs = builder.write_to(&mut File::create(&path).unwrap());

    let mut image = Eif::open(File::open(&path).unwrap()).unwrap();
    assert_eq!(image.measurements(), parse(&theirs));
    assert_eq!(image.measurements().pcr8.is_some(), identity.is_some());
    assert_eq!(image.header().architecture, parts.architecture);
    assert_eq!(image.command_line(), parts.command_line);
    assert_eq!(image.metadata(), Some(&metadata()));
    let ramdisks = image.sections().to_vec().into_iter();
    let ramdisks = ramdisks.filter(|section| section.kind == SectionKind::Ramdisk);
    for (section, expected) in ramdisks.zip(&parts.ramdisks) {
        let mut contents = Vec::new();
        std::io::copy(&mut image.contents(section).unwrap(), &mut contents).unwrap();
        assert_eq!(contents, *expected);
    }
    if identity.is_none() {
        assert_eq!(
            fs::read(&path).unwrap(),
            build(parts, None).0,
            "not the same bytes"
        );
    }
}

fn assert_agreement(parts: &Parts, identity: Option<&Identity>) {
    assert_oracle_agrees_on_ours(parts, identity);
    assert_we_agree_on_the_oracles(parts, identity);
}

#[test]
fn unsigned_images() {
    assert_agreement(&small(), None);
    let mut parts = small();
    parts.architecture = Architecture::Aarch64;
    assert_agreement(&parts, None);
}

#[test]
fn images_with_few_or_many_ramdisks_of_odd_sizes() {
    let mut parts = small();
    parts.kernel = vec![0; 100_003];
    parts.ramdisks.truncate(1);
    assert_agreement(&parts, None);
    parts.ramdisks = (0..eif::MAX_RAMDISKS).map(|n| vec![7; n * n * n]).collect();
    assert_agreement(&parts, None);
}

#[test]
fn images_with_empty_sections() {
    let mut parts = small();
    parts.kernel.clear();
    parts.command_line.clear();
    parts.ramdisks = vec![vec![], vec![]];
    assert_agreement(&parts, None);
}

#[test]
fn signed_images_on_every_curve() {
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
    ] {
        let (key, certificate) = identity(algorithm);
        assert_agreement(&small(), Some(&Identity { key, certificate }));
    }
}

#[test]
fn keys_as_openssl_writes_them() {
    // SEC1 with a block of parameters in front: `openssl ecparam -genkey`.
    let (key, certificate) = identity(&PKCS_ECDSA_P384_SHA384);
    let key = openssl::ec::EcKey::private_key_from_pem(key.as_bytes()).unwrap();
    let key = String::from_utf8(key.private_key_to_pem().unwrap()).unwrap();
    assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    let parameters = "-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n";
    let key = format!("{parameters}{key}");
    assert_agreement(&small(), Some(&Identity { key, certificate }));
}

#[test]
fn a_certificate_with_its_chain() {
    // Only the oracle writes such files; both readers take the first certificate.
    let (key, certificate) = identity(&PKCS_ECDSA_P384_SHA384);
    let issuer = identity(&PKCS_ECDSA_P384_SHA384).1;
    let certificate = format!("{certificate}{issuer}");
    assert_we_agree_on_the_oracles(&small(), Some(&Identity { key, certificate }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_unsigned_image(
        kernel in prop::collection::vec(any::<u8>(), 0..2000),
        command_line in "[ -~]{0,200}",
        ramdisks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..500), 1..6),
        arm in any::<bool>(),
    ) {
        let architecture = if arm { Architecture::Aarch64 } else { Architecture::X86_64 };
        assert_agreement(&Parts { architecture, kernel, command_line, ramdisks }, None);
    }
}
