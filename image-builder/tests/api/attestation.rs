//! The `[attestation]` table and the files that it names.

use manifest::{Attestation, MEASURED_CONFIG_PATH, MeasuredConfig, Root, SelfCheck};
use measurements::Pcr;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, SignatureAlgorithm,
};

use crate::project::Project;
use crate::ramdisk::{file, ramdisks};

/// The table in the image that a project's manifest gives with these lines more.
fn measured(project: &Project, more: &str) -> Attestation {
    project.manifest(more);
    let [_, application] = ramdisks(&project.build()).try_into().unwrap();
    let config = file(&application, MEASURED_CONFIG_PATH);
    MeasuredConfig::from_json(&config).unwrap().attestation
}

fn certificate(algorithm: &'static SignatureAlgorithm, is_ca: IsCa) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = is_ca;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn authority() -> IsCa {
    IsCa::Ca(BasicConstraints::Unconstrained)
}

#[test]
fn a_manifest_without_the_table_has_the_self_check_required() {
    let project = Project::new();
    let attestation = measured(&project, "");
    assert_eq!(attestation, Attestation::default());
    assert_eq!(attestation.self_check, SelfCheck::Required);
}

#[test]
fn the_root_and_the_peers_policies_are_measured() {
    let project = Project::new();
    let root = certificate(&PKCS_ECDSA_P384_SHA384, authority());
    project.write(
        "root.pem",
        format!("a comment\r\n{}", root.replace('\n', "\r\n")),
    );
    let zero = Pcr::ZERO;
    let one = Pcr::new([1; 48]);
    project.write(
        "oracle.json.txt",
        format!(
            r#"{{"Measurements": {{"HashAlgorithm": "x", "PCR0": "{one}", "PCR1": "{one}", "PCR2": "{one}"}}}}"#
        ),
    );
    project.write(
        "oracle.toml",
        format!("images = [{{ file = \"oracle.json.txt\" }}]\npcrs = {{ 17 = \"{zero}\" }}\n"),
    );
    let attestation = measured(
        &project,
        "[attestation]\nself_check = \"report\"\nroot = \"root.pem\"\nopen_registers = [20]\n\
         [[attestation.peers]]\nname = \"oracle\"\npolicy = \"oracle.toml\"\n",
    );
    assert_eq!(attestation.self_check, SelfCheck::Report);
    assert_eq!(attestation.root, Root::Pem(root.trim_end().to_owned()));
    assert_eq!(*attestation.open_registers, [20]);
    let [peer] = attestation.peers.as_slice() else {
        panic!("{attestation:?}");
    };
    assert_eq!(peer.name.as_str(), "oracle");
    let policy = attestation::Policy::from_json(&peer.policy).unwrap();
    let expected = attestation::Policy::read(&project.path("oracle.toml")).unwrap();
    assert_eq!(policy, expected);
}

#[test]
fn roots_that_no_chain_can_begin_with_are_refused_with_the_line() {
    let project = Project::new();
    project.manifest("[attestation]\nroot = \"root.pem\"\n");
    let line = "enclave.toml:6: root.pem: ";
    project.refused(2, &[line, "it cannot be read: No such file"]);
    let good = certificate(&PKCS_ECDSA_P384_SHA384, authority());
    for (text, words) in [
        ("no certificate".to_owned(), "no PEM block"),
        (good.repeat(2), "there are 2 of them"),
        (
            certificate(&PKCS_ECDSA_P256_SHA256, authority()),
            "signature is ECDSA with SHA-384",
        ),
        (
            certificate(&PKCS_ECDSA_P384_SHA384, IsCa::ExplicitNoCa),
            "it is not a certificate authority",
        ),
        ("x".repeat(9000), "more than 8192 bytes"),
    ] {
        project.write("root.pem", text);
        project.refused(2, &[line, words]);
    }
    project.write("root.pem", b"0\x82");
    project.refused(2, &[line, "no PEM block"]);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let der = CertificateParams::default().self_signed(&key).unwrap();
    project.write("root.pem", der.der());
    project.refused(2, &[line, "is in DER, not in PEM", "openssl x509"]);
    project.write("root.pem", key.serialize_pem());
    project.refused(2, &[line, "there is a PRIVATE KEY where a root"]);
    std::fs::remove_file(project.path("root.pem")).unwrap();
    std::fs::create_dir(project.path("root.pem")).unwrap();
    project.refused(2, &[line, "it is not a file"]);
}

#[test]
fn policies_that_demand_nothing_are_refused_with_the_line() {
    let project = Project::new();
    project.manifest(
        "[attestation]\n[[attestation.peers]]\nname = \"oracle\"\npolicy = \"oracle.toml\"\n",
    );
    let line = "enclave.toml:8: ";
    project.refused(2, &[line, "oracle.toml", "cannot be read"]);
    for (text, words) in [
        ("", "names no code, so any would pass"),
        ("nonce = \"required\"\n", "names no code"),
        (
            "allow_any_image = true\n",
            "accepts whatever runs in an enclave",
        ),
        (
            "allow_any_image = true\n[pcrs]\n20 = \"VALUE\"\n",
            "accepts whatever runs in an enclave",
        ),
        ("[pcrs]\n20 = \"ZERO\"\n", "names no code"),
        ("[pcrs]\n20 = \"VALUE\"\n", "names no code"),
        ("[pcrs]\n0 = \"ZERO\"\n", "PCR0 is zeros"),
        (
            "allow_debug = true\n[[images]]\n[images.Measurements]\nPCR0 = \"ZERO\"\nPCR1 = \"ZERO\"\nPCR2 = \"ZERO\"\n",
            "image 1: PCR0 is zeros",
        ),
        (
            "[[images]]\n[images.Measurements]\nPCR0 = \"VALUE\"\nPCR1 = \"VALUE\"\nPCR2 = \"ZERO\"\n",
            "image 1: PCR2 is zeros",
        ),
        (
            "max_age = \"0s\"\n[pcrs]\n0 = \"VALUE\"\n",
            "max_age is 0 ms",
        ),
        (
            "nonce = \"00ff\"\n[pcrs]\n0 = \"VALUE\"\n",
            "oracle.toml: the policy fixes a nonce",
        ),
        ("images = [{ file = \"absent.json\" }]\n", "absent.json"),
        ("\nlevel = 1\n", "line 2: unknown field `level`"),
    ] {
        let text = text.replace("ZERO", &"00".repeat(48));
        project.write("oracle.toml", text.replace("VALUE", &"01".repeat(48)));
        project.refused(2, &[line, "the policy of the peer `oracle`: ", words]);
    }
}

#[test]
fn registers_and_values_that_cannot_be_are_refused_with_the_line() {
    let project = Project::new();
    for (text, words) in [
        ("self_check = \"off\"", "unknown variant `off`"),
        ("open_registers = [16]", "register 16 cannot be left open"),
        ("open_registers = [17, 17]", "register 17 is named twice"),
        ("debug = true", "unknown field `debug`"),
    ] {
        project.manifest(&format!("[attestation]\n{text}\n"));
        project.refused(2, &["enclave.toml:6: ", words]);
    }
}
