//! Documents of enclaves that do not exist, for the scenarios of
//! `tests/control-plane`: signed by a software NSM whose root is kept in a folder, as
//! `root.pem` and `root.key`.
//!
//! Each line of standard input is a request, each line of standard output its
//! document in base64.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use attestation::Purpose;
use aws_lc_rs::digest::{SHA384, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use measurements::Measurements;
use nsm::{Request, Response};
use serde::Deserialize;
use software_nsm::{Identity, SoftwareNsm, TestRoot};

/// The register of the runtime configuration.
const CONFIGURATION_PCR: u16 = 16;

/// What a document is to say.
#[derive(Deserialize)]
struct Line {
    /// None for an enclave in debug mode.
    measurements: Option<Measurements>,
    runtime_configuration: String,
    /// In hex.
    nonce: String,
}

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("usage: enclave-documents FOLDER")?;
    let mut output = io::stdout().lock();
    // So that the root is there before anybody asks for a document.
    root(&folder)?;
    writeln!(output, "ready")?;
    for line in io::stdin().lock().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        writeln!(
            output,
            "{}",
            STANDARD.encode(document(&line, root(&folder)?)?)
        )?;
        output.flush()?;
    }
    Ok(())
}

fn root(folder: &Path) -> anyhow::Result<TestRoot> {
    let (certificate, key) = (folder.join("root.pem"), folder.join("root.key"));
    if !certificate.exists() {
        let root = TestRoot::generate()?;
        fs::write(&key, root.key_pem())?;
        fs::write(&certificate, root.certificate_pem())?;
    }
    let read = |path| fs::read_to_string(path).context("the root cannot be read");
    Ok(TestRoot::from_pem(&read(certificate)?, &read(key)?)?)
}

fn document(line: &Line, root: TestRoot) -> anyhow::Result<Vec<u8>> {
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements: line.measurements,
    };
    let mut module = SoftwareNsm::new(identity, root)?;
    let configuration = digest(&SHA384, line.runtime_configuration.as_bytes());
    module.answer(Request::ExtendPCR {
        index: CONFIGURATION_PCR,
        data: configuration.as_ref().to_vec(),
    });
    module.answer(Request::LockPCR {
        index: CONFIGURATION_PCR,
    });
    let request = Request::Attestation {
        user_data: Purpose::RelayedChallenge.user_data().map(Into::into),
        nonce: Some(hex::decode(&line.nonce)?.into()),
        public_key: None,
    };
    match module.answer(request) {
        Response::Attestation { document } => Ok(document),
        other => bail!("the module answered {other:?}"),
    }
}
