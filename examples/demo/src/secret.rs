//! A secret of the operator's, which KMS gives to one image and to nobody else.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use software_nsm::TestRoot;
use tokio::task::JoinSet;

use demo::kms::{Clock, ENCLAVE_ROLE, LocalKms, OPERATOR, REGION};

use crate::Hypervisor;
use crate::agent::{Agent, output};
use crate::calls::{Caller, Kms};
use crate::carrier::Carrier;
use crate::images::{self, Image};
use crate::parent;
use crate::prices;
use crate::proof;
use crate::runs::Runs;
use crate::scene::{Scene, arguments, connect};
use crate::screen::Screen;
use crate::service;

/// The byte of the program that A′ has changed: one of an ELF header's that nothing reads
/// (`EI_PAD`), so that A′ does what A does.
const CHANGED_BYTE: usize = 15;
/// What the init says before KMS's own words, and after them.
const BEFORE_WORDS: &str = "KMS refused the call: ";
const AFTER_WORDS: &str = "; ";
/// How a run differs from the one that is given the secret.
struct Difference<'a> {
    label: &'a str,
    image: &'a Image,
    hypervisor: Hypervisor,
    caller: &'a Caller,
    /// The folder of the software NSM's root.
    nsm: Option<&'a Path>,
    debug: bool,
    /// What KMS calls its refusal.
    refusal: &'static str,
}

/// Has image A given a secret, and everybody else refused.
pub(crate) async fn tell(
    runs: &Runs<'_>,
    folder: &Path,
    agent: &mut Option<Agent>,
    screen: &Arc<Screen>,
) -> anyhow::Result<()> {
    screen.phase(
        "secret",
        match runs.cli.hypervisor {
            Hypervisor::Sim => "Give it a secret, and nobody else",
            Hypervisor::Qemu => {
                "Give it a secret, and nobody else (sim signs what KMS has to verify)"
            }
        },
    );
    let (nsm, nsm_of_parent) = (folder.join("nsm"), folder.join("nsm-of-parent"));
    let root = new_root(&nsm)?;
    new_root(&nsm_of_parent)?;
    let kms_folder = folder.join("kms");
    let local = LocalKms::bind(([127, 0, 0, 1], 0).into(), &root, &kms_folder).await?;
    let (kms_address, clock) = (local.address()?, local.clock());
    let mut tasks = JoinSet::new();
    tasks.spawn(local.serve());

    let scene = prepare(runs, folder, kms_address, clock, root, nsm, screen).await?;
    let carrier = Carrier::start(kms_address).await?;
    let document = given(runs, &scene, &carrier, agent, screen).await?;
    let changed = changed_image(runs, folder, &scene).await?;
    let like_a = Difference {
        label: "image A",
        image: &scene.image,
        hypervisor: Hypervisor::Sim,
        caller: &scene.enclave,
        nsm: Some(&scene.nsm),
        debug: false,
        refusal: "AccessDeniedException",
    };
    let differences = [
        Difference {
            label: "A′, one byte changed",
            image: &changed,
            ..like_a
        },
        Difference {
            label: "A in debug mode",
            debug: true,
            ..like_a
        },
        Difference {
            label: "A as role/Other",
            caller: &scene.other,
            ..like_a
        },
        Difference {
            label: "A, another NSM's root",
            nsm: Some(&nsm_of_parent),
            refusal: "ValidationException",
            ..like_a
        },
        Difference {
            label: "A in QEMU, unsigned",
            hypervisor: Hypervisor::Qemu,
            nsm: None,
            refusal: "ValidationException",
            ..like_a
        },
    ];
    for difference in differences {
        if runs.cli.hypervisor == Hypervisor::Sim && difference.hypervisor == Hypervisor::Qemu {
            continue;
        }
        refused(runs, &scene, &difference, agent, screen).await?;
    }
    screen.proven(
        "KMS gives image A a secret, and refuses it to an image with one byte changed, in debug mode, to another role, and to documents of another root",
    );

    screen.phase("theft", "Try to take it, as the parent");
    parent::tell(runs, &scene, &carrier, &document, folder, agent, screen).await
}

/// A root of a software NSM, kept as `parent-agent run --software-nsm-root` keeps it.
fn new_root(folder: &Path) -> anyhow::Result<String> {
    let root = TestRoot::generate().context("no root for a software NSM")?;
    fs::create_dir(folder).with_context(|| folder.display().to_string())?;
    fs::write(folder.join("root.pem"), root.certificate_pem())?;
    fs::write(folder.join("root.key"), root.key_pem())?;
    Ok(root.certificate_pem().to_owned())
}

/// What an operator does: a key, a ciphertext, an image, and the key's policy.
async fn prepare(
    runs: &Runs<'_>,
    folder: &Path,
    kms_address: SocketAddr,
    clock: Clock,
    root: String,
    nsm: PathBuf,
    screen: &Screen,
) -> anyhow::Result<Scene> {
    let kms_folder = folder.join("kms");
    let read = |name| Caller::read(&kms_folder.join(name));
    let operator = read("operator.env")?;
    let authority = fs::read_to_string(kms_folder.join("authority.pem"))?;
    let kms = Kms::new(kms_address, &authority, clock.clone())?;

    // The ciphertext is in the image, whose measurements are in the policy: nobody decrypts
    // before that is put.
    let first = json!({
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": { "AWS": OPERATOR },
            "Action": ["kms:Encrypt", "kms:PutKeyPolicy"],
            "Resource": "*",
        },
    });
    let request = json!({ "Policy": first.to_string() });
    let made = kms.answer(&operator, "CreateKey", &request).await?;
    let key = text(&made, "/KeyMetadata/Arn")?;
    let request = json!({ "KeyId": key, "Plaintext": STANDARD.encode(&runs.prices.key) });
    let encrypted = kms.answer(&operator, "Encrypt", &request).await?;
    let ciphertext = text(&encrypted, "/CiphertextBlob")?;
    screen.fact(
        "secret",
        "the price source's key; user/operator has had KMS encrypt it",
    );

    let image_folder = folder.join("a");
    fs::create_dir(&image_folder).context("no folder for image A")?;
    fs::write(image_folder.join("authority.pem"), &authority)?;
    fs::write(image_folder.join("price-source-key.kms"), &ciphertext)?;
    let manifest = images::manifest_with_secret(kms_address.port(), REGION, &key)?;
    let program = &runs.cli.workload;
    let image = images::build(runs.cli, &image_folder, &manifest, program).await?;
    screen.fact(
        "image A",
        &format!(
            "with the ciphertext; PCR0 {}",
            proof::short(&image.measurements.pcr0)
        ),
    );

    let policy = policy(runs, folder, &image).await?;
    let request = json!({ "KeyId": key, "PolicyName": "default", "Policy": policy });
    kms.answer(&operator, "PutKeyPolicy", &request).await?;
    screen.fact(
        "the key's policy",
        "image-builder kms-policy wrote it from A's measurements, for role/Enclave",
    );
    Ok(Scene {
        kms,
        kms_address,
        port: kms_address.port(),
        clock,
        enclave: read("enclave.env")?,
        key,
        ciphertext,
        root,
        nsm,
        image,
        other: read("other.env")?,
    })
}

/// The key's policy, written and checked by `image-builder`.
async fn policy(runs: &Runs<'_>, folder: &Path, image: &Image) -> anyhow::Result<String> {
    let mut arguments: Vec<OsString> = vec![
        "kms-policy".into(),
        "--measurements".into(),
        image.measurements_file.clone().into(),
    ];
    for (option, principal) in [
        ("--caller", ENCLAVE_ROLE),
        ("--administrator", OPERATOR),
        ("--encrypter", OPERATOR),
    ] {
        arguments.extend([option.into(), principal.into()]);
    }
    let policy = output(&runs.cli.image_builder, arguments).await;
    let policy = policy.context("image-builder kms-policy")?;
    let file = folder.join("policy.json");
    fs::write(&file, &policy).context("cannot write the key's policy")?;
    let check = ["kms-policy".into(), "check".into(), file.into()];
    output(&runs.cli.image_builder, check)
        .await
        .context("image-builder kms-policy check")?;
    String::from_utf8(policy).context("image-builder kms-policy")
}

fn text(answer: &serde_json::Value, pointer: &str) -> anyhow::Result<String> {
    let text = answer.pointer(pointer).and_then(serde_json::Value::as_str);
    let text = text.with_context(|| format!("KMS's answer has no {pointer}"))?;
    Ok(text.to_owned())
}

/// The image with one byte of its program changed.
async fn changed_image(runs: &Runs<'_>, folder: &Path, scene: &Scene) -> anyhow::Result<Image> {
    let (original, changed) = (folder.join("a"), folder.join("a-changed"));
    fs::create_dir(&changed).context("no folder for image A′")?;
    for name in ["authority.pem", "price-source-key.kms"] {
        fs::copy(original.join(name), changed.join(name)).context(name)?;
    }
    let manifest = fs::read_to_string(original.join("enclave.toml"))?;
    let mut program = fs::read(&runs.cli.workload).context("cannot read the workload")?;
    let byte = program.get_mut(CHANGED_BYTE);
    *byte.context("the workload is no program")? ^= 1;
    let file = changed.join("price-oracle");
    fs::write(&file, program)?;
    let image = images::build(runs.cli, &changed, &manifest, &file).await?;
    ensure!(
        image.measurements.pcr0 != scene.image.measurements.pcr0,
        "an image with another byte has the same PCR0"
    );
    Ok(image)
}

/// Image A, over a parent that changes a byte and keeps everything; gives a document of it.
async fn given(
    runs: &Runs<'_>,
    scene: &Scene,
    carrier: &Carrier,
    agent: &mut Option<Agent>,
    screen: &Arc<Screen>,
) -> anyhow::Result<Vec<u8>> {
    let arguments = arguments(runs, scene, carrier.address);
    let running = runs.start(arguments, &scene.enclave.environment, None)?;
    let running = agent.insert(running);
    let enclave = running.ready().await.context("image A")?;
    let quote = service::quote(&enclave, prices::SIGNED_PAIR, prices::SIGNED_PRICE).await?;
    screen.fact(
        "image A",
        &format!(
            "given: it signs with the key, and the source tells it {} for {}",
            quote.quote.price,
            prices::SIGNED_PAIR
        ),
    );
    let mut arguments = runs.target("attest");
    let nonce = hex::encode(proof::fresh_nonce()?);
    arguments.extend(["--nonce".into(), nonce.into()]);
    let document = output(&runs.cli.parent_agent, arguments).await;
    let document = document.context("parent-agent attest")?;
    let stop = runs.target("stop");
    output(&runs.cli.parent_agent, stop).await?;
    running.stopped().await?;
    *agent = None;
    Ok(document)
}

/// An enclave that KMS refuses the secret.
async fn refused(
    runs: &Runs<'_>,
    scene: &Scene,
    difference: &Difference<'_>,
    agent: &mut Option<Agent>,
    screen: &Arc<Screen>,
) -> anyhow::Result<()> {
    let Difference { label, image, .. } = difference;
    let mut arguments = runs.arguments(difference.hypervisor, &image.file);
    if let Some(nsm) = difference.nsm {
        arguments.extend(["--software-nsm-root".into(), nsm.into()]);
    }
    if difference.debug {
        arguments.push("--debug".into());
    }
    arguments.extend(connect(scene.port, scene.kms_address));
    let running = runs.start(arguments, &difference.caller.environment, None)?;
    let message = agent
        .insert(running)
        .refused()
        .await
        .context((*label).to_owned())?;
    *agent = None;
    let words = message.split_once(BEFORE_WORDS).map(|(_, words)| words);
    let words = words.and_then(|words| words.rsplit_once(AFTER_WORDS));
    let words = words.map_or("", |(words, _)| words);
    ensure!(
        words.starts_with(difference.refusal),
        "{label}: {message}, where KMS should have said {}",
        difference.refusal
    );
    screen.quoted(label, &format!("refused: {}", scene.shortened(words)));
    Ok(())
}
