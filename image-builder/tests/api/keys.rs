//! Images whose siblings know each other by their signer.

use std::process::Command;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

use crate::project::Project;

const KEYS: &str =
    "[keys]\nfamily = \"payments\"\nsiblings = { signer = \"signer.pem\", generation = 1 }\n";

/// A project whose siblings have a signer; another key is beside its.
fn project() -> Project {
    let project = Project::new();
    project.manifest(KEYS);
    for name in ["signer", "other"] {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        project.write(&format!("{name}.key"), key.serialize_pem());
        project.write(&format!("{name}.pem"), certificate.pem());
    }
    project
}

fn signed(project: &Project, name: &str) -> Command {
    let mut command = project.command();
    command
        .args(["--signing-key", &format!("{name}.key")])
        .args(["--signing-certificate", &format!("{name}.pem")]);
    command
}

#[test]
fn keys_of_siblings_need_an_image_that_their_signer_signs() {
    let project = project();
    let line = "enclave.toml:7: ";
    let other = signed(&project, "other");
    project.refuses(other, 2, &[line, "under another certificate"]);
    project.refused(2, &[line, "the image is not signed", "--signing-key"]);
    let output = signed(&project, "signer").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
