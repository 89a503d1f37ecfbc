//! An enclave whose workload is this program, the KMS that it calls, and what the host has.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use demo::kms::REGION;
use demo::signed::Place;
use enclave_tests::{Agent, Hypervisor, Programs, Workload};
use hyper::Request;
use hyper::body::Bytes;
use measurements::Measurements;
use nix::unistd::Pid;
use serde_json::{Value, json};
use software_nsm::TestRoot;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::cloud::{Cloud, HOST, create_key, of_host};
use crate::order::{Done, Order, Way};

/// What is decrypted: a data key.
const PLAINTEXT: [u8; 32] = [0xa5; 32];
/// Where the host calls KMS.
const KMS: Place<'static> = Place {
    authority: HOST,
    path: "/",
};

/// A key and what it has encrypted.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) key: String,
    pub(crate) ciphertext: String,
}

/// All that is measured.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    /// The root of the enclave's security module, certificate and key in PEM.
    pub(crate) nsm_root: (String, String),
    pub(crate) measurements: Measurements,
    /// Decrypted for the role.
    pub(crate) open: Sealed,
    /// Decrypted for this image alone.
    pub(crate) attested: Sealed,
    agent: Agent,
    orders: BufReader<TcpStream>,
}

impl World {
    pub(crate) async fn start(programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        let root = TestRoot::generate()?;
        let nsm_root = (root.certificate_pem().to_owned(), root.key_pem());
        let cloud = Cloud::start(&nsm_root.0).await?;
        let nsm = folder.join("nsm");
        fs::create_dir(&nsm)?;
        fs::write(nsm.join("root.pem"), &nsm_root.0)?;
        fs::write(nsm.join("root.key"), &nsm_root.1)?;

        let image = folder.join("image");
        fs::create_dir(&image)?;
        fs::write(image.join("roots.pem"), &cloud.authority)?;
        let manifest = format!(
            "[enclave]\nname = \"kms\"\nimage = \"oci:image\"\nmemory_mib = 256\n\n\
             [workload]\naws_credentials = true\n\n\
             [network]\negress = [\"{HOST}:443\"]\ningress = [{{ port = 8080, to = 8080 }}]\n\n\
             [kms]\nendpoint = \"https://{HOST}\"\nregion = \"{REGION}\"\nroots = \"roots.pem\"\n"
        );
        let image = Workload::build_from(programs, &image, "kms-figures", &[], &manifest)?;
        let pcr0 = image.measurements.pcr0.to_string();
        let demand = json!({ "StringEqualsIgnoreCase": { "kms:RecipientAttestation:PCR0": pcr0 } });
        let open = seal(&cloud, None)?;
        let attested = seal(&cloud, Some(demand))?;

        let (nsm, destination) = (
            nsm.display().to_string(),
            format!("{HOST}:443={}", cloud.kms_address),
        );
        let metadata = format!("http://{}", cloud.metadata_address);
        // Of this machine's own configuration nothing is used.
        let nowhere = folder.join("none").display().to_string();
        let mut agent = Agent::start_with(
            programs,
            &image,
            Hypervisor::Sim,
            "",
            &["--software-nsm-root", &nsm, "--connect-to", &destination],
            &[
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata),
                ("AWS_CONFIG_FILE", nowhere.clone()),
                ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
            ],
        )?;
        agent.line("listening").await?;
        let address = agent.ready().await?;
        Ok(Self {
            orders: BufReader::new(TcpStream::connect(address).await?),
            measurements: image.measurements,
            cloud,
            nsm_root,
            open,
            attested,
            agent,
        })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.orders);
        self.agent.stopped().await?;
        Ok(())
    }

    /// Has the workload call one after the other.
    pub(crate) async fn one_by_one(&mut self, way: Way, calls: u32) -> anyhow::Result<Done> {
        let done = self.order(way, calls, 1, None).await?;
        ensure!(done.failures.is_empty(), "{way:?}: {:?}", done.failures);
        Ok(done)
    }

    /// Has the workload call.
    pub(crate) async fn order(
        &mut self,
        way: Way,
        calls: u32,
        at_a_time: u32,
        rate: Option<u32>,
    ) -> anyhow::Result<Done> {
        let order = Order {
            way,
            ciphertext: self.attested.ciphertext.clone(),
            key: self.attested.key.clone(),
            plaintext: STANDARD.encode(PLAINTEXT),
            calls,
            at_a_time,
            rate,
        };
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await?;
        let mut done = String::new();
        self.orders.read_line(&mut done).await?;
        serde_json::from_str(&done).context("the workload gives no answer")
    }

    /// The processes that a call goes through, beside this one.
    pub(crate) fn processes(&self) -> anyhow::Result<[(&'static str, Pid); 4]> {
        let one = |word: &str| -> anyhow::Result<Pid> {
            let found = self.agent.processes(word)?;
            found.first().copied().with_context(|| format!("no {word}"))
        };
        Ok([
            ("enclave-init", one("sim-pid1")?),
            ("parent-agent", self.agent.pid()?),
            ("security module", one("software-nsm")?),
            ("workload", one("kms-figures")?),
        ])
    }
}

/// A request of the host's, signed now.
pub(crate) fn host_request(operation: &str, body: &Bytes) -> anyhow::Result<Request<Bytes>> {
    KMS.request(operation, body, &of_host(), SystemTime::now())
}

/// A new key, and what it encrypts.
fn seal(cloud: &Cloud, condition: Option<Value>) -> anyhow::Result<Sealed> {
    let key = create_key(&cloud.kms, condition)?;
    let body = json!({ "KeyId": key, "Plaintext": STANDARD.encode(PLAINTEXT) });
    let request = host_request("Encrypt", &body.to_string().into())?;
    let answer = cloud.kms.handle(&request);
    let answer: Value = serde_json::from_slice(answer.body())?;
    let ciphertext = answer.get("CiphertextBlob").and_then(Value::as_str);
    let ciphertext = ciphertext.with_context(|| format!("nothing is encrypted: {answer}"))?;
    Ok(Sealed {
        key,
        ciphertext: ciphertext.to_owned(),
    })
}

impl Sealed {
    /// The body of a `Decrypt`, for this document's enclave or for whoever calls.
    pub(crate) fn body(&self, document: Option<&[u8]>) -> Bytes {
        let mut body = json!({ "CiphertextBlob": self.ciphertext, "KeyId": self.key });
        if let Some(document) = document
            && let Some(members) = body.as_object_mut()
        {
            let recipient = json!({
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": STANDARD.encode(document),
            });
            members.insert("Recipient".to_owned(), recipient);
        }
        body.to_string().into()
    }
}

/// What an answer has in a member, in base64.
pub(crate) fn decoded(answer: &[u8], member: &str) -> anyhow::Result<Vec<u8>> {
    let answer: Value = serde_json::from_slice(answer)?;
    let value = answer.get(member).and_then(Value::as_str);
    Ok(STANDARD.decode(value.with_context(|| format!("no {member}"))?)?)
}

/// Whether this is what was encrypted.
pub(crate) fn check(plaintext: &[u8]) -> anyhow::Result<()> {
    ensure!(plaintext == PLAINTEXT, "another plaintext");
    Ok(())
}
