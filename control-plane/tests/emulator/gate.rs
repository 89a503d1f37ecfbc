//! The gate, with documents of a software NSM.

use attestation::{Purpose, Roots, Verifier};
use aws_lc_rs::digest::{SHA384, digest};
use aws_sdk_kms::types::{KeySpec, KeyUsageType};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control_plane::gate::{EarSigner, Gate};
use control_plane_model::item::{
    AttestationState, Enclave, Image, PublishedImage, name, runtime_configuration,
};
use control_plane_model::status::Status;
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use serde_json::{Value, json};
use software_nsm::{Identity, SoftwareNsm, TestRoot};

use crate::cloud::Cloud;

pub(crate) const ID: &str = "e-1";
const OWNER: &str = "arn:aws:states:us-west-2:1:execution:deployment:deploy-e-1";

fn measurements(fill: u8) -> Measurements {
    Measurements {
        pcr0: Pcr::new([fill; 48]),
        pcr1: Pcr::new([fill; 48]),
        pcr2: Pcr::new([fill; 48]),
        pcr8: None,
    }
}

/// A cloud with one enclave that is being deployed, and the gate.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) gate: Gate,
    root_key: (String, String),
}

impl World {
    pub(crate) async fn start() -> Self {
        let cloud = Cloud::start().await;
        let image = Image {
            published: PublishedImage {
                reference: "app:1".to_owned(),
                bucket: "b".to_owned(),
                key: "k".to_owned(),
                sha256: "s".to_owned(),
                size: 1,
                measurements: serde_json::to_string(&measurements(1)).unwrap(),
                architecture: "x86_64".to_owned(),
            },
            runtime_configuration: runtime_configuration(ID),
            enable_debug: false,
        };
        let image = serde_json::to_string(&image).unwrap();
        let texts = [(name::EXECUTION_ARN, OWNER), (name::IMAGE, image.as_str())];
        cloud.put(ID, Status::Deploying, &texts).await;
        let root = TestRoot::generate().unwrap();
        let root_key = (root.certificate_pem().to_owned(), root.key_pem());
        let gate = Self::gate(&cloud, &root_key.0, None);
        Self {
            cloud,
            gate,
            root_key,
        }
    }

    fn gate(cloud: &Cloud, root: &str, ear: Option<EarSigner>) -> Gate {
        let roots = Roots::from_pem(root.as_bytes()).unwrap();
        let verifier = Verifier::new(roots);
        Gate::new(cloud.store.clone(), cloud.workflows.clone(), verifier, ear)
    }

    async fn issue(&self, execution: &str, lifetime: u64) -> Result<Value, String> {
        let event = json!({"action": "issue", "enclave_id": ID, "task_token": "token",
            "reason": "deploy", "execution_arn": execution, "lifetime_seconds": lifetime});
        self.gate
            .handle(event)
            .await
            .map_err(|failure| failure.kind)
    }

    async fn nonce(&self) -> Option<Vec<u8>> {
        let event = json!({"action": "challenge", "enclave_id": ID});
        let answer = self.gate.handle(event).await.unwrap();
        answer["challenge"]["nonce"]
            .as_str()
            .map(|nonce| hex::decode(nonce).unwrap())
    }

    /// The document of an enclave with these measurements and this configuration.
    fn document(&self, fill: u8, configuration: &str, nonce: &[u8]) -> String {
        self.document_for(fill, configuration, nonce, Purpose::RelayedChallenge, None)
    }

    /// The same, made for something else, with this key in it.
    pub(crate) fn document_for(
        &self,
        fill: u8,
        configuration: &str,
        nonce: &[u8],
        purpose: Purpose,
        public_key: Option<Vec<u8>>,
    ) -> String {
        let root = TestRoot::from_pem(&self.root_key.0, &self.root_key.1).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: Some(measurements(fill)),
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        let data = digest(&SHA384, configuration.as_bytes()).as_ref().to_vec();
        module.answer(Request::ExtendPCR { index: 16, data });
        module.answer(Request::LockPCR { index: 16 });
        let nonce = Some(nonce.to_vec().into());
        let request = Request::Attestation {
            user_data: purpose.user_data().map(Into::into),
            nonce,
            public_key: public_key.map(Into::into),
        };
        match module.answer(request) {
            Response::Attestation { document } => STANDARD.encode(document),
            other => panic!("{other:?}"),
        }
    }

    async fn submit(&self, document: &str) -> Value {
        let event = json!({"action": "document", "enclave_id": ID, "document": document});
        self.gate.handle(event).await.unwrap()
    }

    pub(crate) async fn item(&self) -> Enclave {
        self.cloud.store.get(ID).await.unwrap().unwrap()
    }

    async fn state(&self) -> AttestationState {
        self.item().await.attestation.unwrap().state
    }
}

#[tokio::test]
async fn the_right_document_passes_once_and_its_replay_is_harmless() {
    let world = World::start().await;
    assert_eq!(world.nonce().await, None);
    world.issue(OWNER, 600).await.unwrap();
    let nonce = world.nonce().await.unwrap();
    let document = world.document(1, &runtime_configuration(ID), &nonce);
    let answer = world.submit(&document).await;
    assert_eq!(answer["accepted"], true, "{answer}");
    assert_eq!(world.state().await, AttestationState::Passed);
    let item = world.item().await;
    assert_eq!(item.attestation_token, None);
    assert!(item.attestation.unwrap().verified_at.is_some());
    assert_eq!(world.nonce().await, None);
    assert_eq!(world.submit(&document).await["accepted"], true);
    let another = world.document(1, &runtime_configuration(ID), &nonce);
    assert_eq!(world.submit(&another).await["accepted"], false);
}

#[tokio::test]
async fn a_wrong_image_or_a_wrong_configuration_ends_it() {
    for (fill, configuration) in [
        (9, runtime_configuration(ID)),
        (1, runtime_configuration("e-2")),
    ] {
        let world = World::start().await;
        world.issue(OWNER, 600).await.unwrap();
        let nonce = world.nonce().await.unwrap();
        let answer = world
            .submit(&world.document(fill, &configuration, &nonce))
            .await;
        assert_eq!(answer["accepted"], false);
        assert_eq!(world.state().await, AttestationState::Failed);
        // The right one comes too late.
        let right = world.document(1, &runtime_configuration(ID), &nonce);
        assert_eq!(world.submit(&right).await["accepted"], false);
    }
}

#[tokio::test]
async fn a_document_for_another_nonce_does_not_use_up_the_challenge() {
    let world = World::start().await;
    world.issue(OWNER, 600).await.unwrap();
    let nonce = world.nonce().await.unwrap();
    let stale = world.document(9, &runtime_configuration(ID), &[7; 32]);
    for document in [stale.as_str(), "no base64!", ""] {
        assert_eq!(world.submit(document).await["accepted"], false);
    }
    assert_eq!(world.state().await, AttestationState::Waiting);
    let document = world.document(1, &runtime_configuration(ID), &nonce);
    assert_eq!(world.submit(&document).await["accepted"], true);
}

#[tokio::test]
async fn an_expired_challenge_is_not_answered_any_more() {
    let world = World::start().await;
    world.issue(OWNER, 600).await.unwrap();
    let nonce = world.nonce().await.unwrap();
    world.issue(OWNER, 0).await.unwrap();
    assert_eq!(world.nonce().await, None);
    let document = world.document(1, &runtime_configuration(ID), &nonce);
    let answer = world.submit(&document).await;
    assert!(
        answer["message"].as_str().unwrap().contains("expired"),
        "{answer}"
    );
}

#[tokio::test]
async fn two_documents_at_once_make_one_result() {
    let world = World::start().await;
    world.issue(OWNER, 600).await.unwrap();
    let nonce = world.nonce().await.unwrap();
    let configuration = runtime_configuration(ID);
    let documents = [(); 2].map(|()| world.document(1, &configuration, &nonce));
    let (first, second) = tokio::join!(world.submit(&documents[0]), world.submit(&documents[1]));
    assert!(
        first["accepted"] == true || second["accepted"] == true,
        "{first} {second}"
    );
    assert_eq!(world.state().await, AttestationState::Passed);
    assert_eq!(world.item().await.attestation_token, None);
}

#[tokio::test]
async fn only_the_owner_is_given_a_challenge() {
    let world = World::start().await;
    assert_eq!(world.issue("another", 600).await.unwrap_err(), "Superseded");
    assert_eq!(world.nonce().await, None);
}

#[tokio::test]
async fn a_result_is_signed_by_the_key_in_kms() {
    let mut world = World::start().await;
    let kms = aws_sdk_kms::Client::new(&world.cloud.config);
    let call = kms.create_key().key_spec(KeySpec::EccNistP384);
    let made = call.key_usage(KeyUsageType::SignVerify).send().await;
    let key = made.unwrap().key_metadata.unwrap().key_id;
    let signer = EarSigner::new(kms, key);
    world.gate = World::gate(&world.cloud, &world.root_key.0, Some(signer));

    world.issue(OWNER, 600).await.unwrap();
    let nonce = world.nonce().await.unwrap();
    let document = world.document(1, &runtime_configuration(ID), &nonce);
    assert_eq!(world.submit(&document).await["accepted"], true);
    let token = world.item().await.attestation.unwrap().ear.unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let part = |index: usize| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[index]).unwrap()).unwrap()
    };
    assert_eq!(part(1)["ear_status"], "affirming");
    let keys = world.gate.handle(json!({"action": "jwks"})).await.unwrap();
    assert_eq!(keys["keys"][0]["kid"], part(0)["kid"]);
}
