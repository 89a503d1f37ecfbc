//! Sealed secrets on their way through the gate.

use std::time::Duration;

use attestation::Purpose;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control_plane_model::attributes::text;
use control_plane_model::item::{name, runtime_configuration};
use control_plane_model::sealing::{Sealing, SealingState};
use control_plane_model::status::Status;
use control_plane_model::store::Outcome;
use control_plane_model::update::Update;
use measurements::Pcr;
use sealed_secret::{Binding, SealingKey, SenderKey, seal};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::gate::{ID, World};

const SENDER: &[u8] = include_bytes!("../../../crates/sealed-secret/tests/vectors/sender.key");

/// An operator's nonce.
fn nonce(fill: u8) -> String {
    hex::encode([fill; 32])
}

/// A sealed secret of this size, which no enclave of these tests opens.
fn sealed(size: usize) -> String {
    let key = SealingKey::generate().unwrap().public_key();
    let sender = SenderKey::from_pem(SENDER).unwrap();
    let binding = Binding::new("i", [(0, Pcr::ZERO)]);
    let sealed = seal(&vec![7; size], "password", &key, &binding, &sender);
    STANDARD.encode(sealed.unwrap())
}

impl World {
    async fn ask(&self, mut event: Value) -> Result<Value, String> {
        event["enclave_id"] = ID.into();
        let answer = self.gate.handle(event).await;
        answer.map_err(|failure| failure.kind)
    }

    async fn seal_request(&self, nonce: &str, lifetime: u64) -> Result<Value, String> {
        self.ask(json!({"action": "seal_request", "nonce": nonce, "lifetime_seconds": lifetime}))
            .await
    }

    /// What an agent is offered.
    async fn offered(&self) -> Value {
        let answer = self.ask(json!({"action": "challenge"})).await;
        answer.unwrap()["sealing"].clone()
    }

    async fn bring(&self, nonce: &str, document: &str) -> Value {
        self.ask(json!({"action": "seal_document", "nonce": nonce, "document": document}))
            .await
            .unwrap()
    }

    async fn put(&self, nonce: &str, sealed: &str) -> Result<Value, String> {
        self.ask(json!({"action": "seal_put", "nonce": nonce, "sealed": sealed}))
            .await
    }

    async fn outcome(&self, nonce: &str, opened: bool, message: &str) -> bool {
        let outcome = json!({"action": "seal_outcome", "nonce": nonce, "opened": opened,
            "message": message});
        self.ask(outcome).await.unwrap()["noted"] == true
    }

    /// Makes the item another provider's.
    async fn disown(&self) {
        let update = Update::note(ID).set(name::PROVIDER_ID, text("another"));
        assert_eq!(
            self.cloud.store.apply(&update).await.unwrap(),
            Outcome::Done
        );
    }

    async fn sealing(&self) -> Sealing {
        self.item().await.sealing.unwrap()
    }

    /// The enclave's document for a nonce.
    fn own(&self, nonce: &str) -> String {
        let key = SealingKey::generate().unwrap().public_key().to_spki();
        let nonce = hex::decode(nonce).unwrap();
        self.document_for(
            1,
            &runtime_configuration(ID),
            &nonce,
            Purpose::Sealing,
            Some(key),
        )
    }

    /// As far as the document.
    async fn attested(nonce: &str) -> Self {
        let world = Self::start().await;
        world.seal_request(nonce, 600).await.unwrap();
        let answer = world.bring(nonce, &world.own(nonce)).await;
        assert_eq!(answer["accepted"], true, "{answer}");
        world
    }
}

#[tokio::test]
async fn sealing_goes_from_the_question_to_the_enclaves_answer() {
    let world = World::start().await;
    let nonce = nonce(1);
    assert_eq!(world.offered().await, Value::Null);
    let before = world.item().await;
    world.seal_request(&nonce, 600).await.unwrap();
    assert_eq!(world.offered().await, json!({ "nonce": nonce }));
    let document = world.own(&nonce);
    assert_eq!(world.bring(&nonce, &document).await["accepted"], true);
    // Its answer may have been lost.
    assert_eq!(world.bring(&nonce, &document).await["accepted"], true);
    assert_eq!(world.sealing().await.document.as_ref(), Some(&document));
    assert_eq!(world.offered().await, Value::Null);
    // The largest there is.
    let sealed = sealed(sealed_secret::MAX_SECRET);
    world.put(&nonce, &sealed).await.unwrap();
    world.put(&nonce, &sealed).await.unwrap();
    let kept = world.sealing().await;
    assert_eq!(kept.name.as_deref(), Some("password"));
    assert_eq!(kept.document, None);
    let offered = world.offered().await;
    assert_eq!(offered, json!({ "nonce": nonce, "sealed": sealed }));
    assert!(world.outcome(&nonce, true, "").await);
    let settled = world.sealing().await;
    assert_eq!(settled.state, SealingState::Opened);
    assert_eq!(settled.sealed, None);
    assert_eq!(world.offered().await, Value::Null);
    // Nothing else of the item was written, its age included.
    let mut after = world.item().await;
    after.sealing = None;
    assert_eq!(after, before);
}

#[tokio::test]
async fn sealing_shows_the_enclaves_own_words_where_it_refuses() {
    let nonce = nonce(1);
    let world = World::attested(&nonce).await;
    world.put(&nonce, &sealed(1)).await.unwrap();
    assert!(world.outcome(&nonce, false, "no such secret").await);
    let settled = world.sealing().await;
    assert_eq!(settled.state, SealingState::Refused);
    assert_eq!(settled.message.as_deref(), Some("no such secret"));
    assert_eq!(settled.sealed, None);
    assert!(!world.outcome(&nonce, true, "").await, "it is settled");
    assert_eq!(
        world.put(&nonce, &sealed(1)).await.unwrap_err(),
        "SealingState"
    );
    // An image that declares none says so in place of a document.
    let again = self::nonce(2);
    world.seal_request(&again, 600).await.unwrap();
    assert!(!world.outcome(&again, true, "").await, "nothing was sealed");
    assert!(world.outcome(&again, false, "none declared").await);
    assert_eq!(world.sealing().await.state, SealingState::Refused);
}

#[tokio::test]
async fn sealing_takes_no_document_but_the_enclaves_for_this_nonce() {
    let world = World::start().await;
    let nonce = nonce(1);
    let own = world.own(&nonce);
    let answer = world.bring(&nonce, &own).await;
    assert_eq!(answer["accepted"], false, "nobody has asked");
    world.seal_request(&nonce, 600).await.unwrap();
    let bytes = hex::decode(&nonce).unwrap();
    let key = Some(SealingKey::generate().unwrap().public_key().to_spki());
    let made = |fill, id, purpose| {
        world.document_for(
            fill,
            &runtime_configuration(id),
            &bytes,
            purpose,
            key.clone(),
        )
    };
    for (document, rule) in [
        (world.own(&self::nonce(2)), "nonce"),
        (made(9, ID, Purpose::Sealing), "image"),
        (made(1, "e-2", Purpose::Sealing), "policy.pcr.16"),
        (made(1, ID, Purpose::RelayedChallenge), "purpose"),
        ("no base64!".to_owned(), "base64"),
        ("A".repeat(64 * 1024), "larger"),
    ] {
        let answer = world.bring(&nonce, &document).await;
        assert_eq!(answer["accepted"], false, "{rule}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(rule), "{rule}: {message}");
    }
    assert_eq!(world.bring(&self::nonce(2), &own).await["accepted"], false);
    // Nothing of it counts, and the right one still does.
    assert_eq!(world.sealing().await.state, SealingState::Asked);
    assert_eq!(world.bring(&nonce, &own).await["accepted"], true);
    let another = world.own(&nonce);
    assert_eq!(world.bring(&nonce, &another).await["accepted"], false);
}

#[tokio::test]
async fn sealing_keeps_nothing_that_is_no_sealed_secret_or_that_nobody_asked_for() {
    let nonce = nonce(1);
    let world = World::start().await;
    let refused = |answer: Result<Value, String>| answer.unwrap_err();
    assert_eq!(
        refused(world.put(&nonce, &sealed(1)).await),
        "SealingReplaced"
    );
    world.seal_request(&nonce, 600).await.unwrap();
    // There is no document yet that it could be sealed to.
    assert_eq!(refused(world.put(&nonce, &sealed(1)).await), "SealingState");
    let answer = world.bring(&nonce, &world.own(&nonce)).await;
    assert_eq!(answer["accepted"], true);
    let too_large = STANDARD.encode(vec![0; sealed_secret::MAX_SEALED + 1]);
    for bytes in [too_large.as_str(), "A", "AAAA", "", &"A".repeat(1 << 20)] {
        assert_eq!(refused(world.put(&nonce, bytes).await), "InvalidInput");
    }
    let other = self::nonce(2);
    assert_eq!(
        refused(world.put(&other, &sealed(1)).await),
        "SealingReplaced"
    );
    assert!(!world.outcome(&nonce, true, "").await, "nothing was sealed");
    assert_eq!(world.sealing().await.state, SealingState::Attested);
    for bad in ["", "00", &"AB".repeat(32), &"zz".repeat(32)] {
        assert_eq!(refused(world.seal_request(bad, 600).await), "InvalidInput");
    }
}

#[tokio::test]
async fn sealing_requests_replace_each_other_and_expire() {
    let (first, second) = (nonce(1), nonce(2));
    let world = World::attested(&first).await;
    world.seal_request(&second, 600).await.unwrap();
    let refused = world.put(&first, &sealed(1)).await.unwrap_err();
    assert_eq!(refused, "SealingReplaced");
    assert!(!world.outcome(&first, false, "late").await);
    assert_eq!(world.sealing().await.nonce, second);
    // The second's time is up as well.
    let answer = world.bring(&second, &world.own(&second)).await;
    assert_eq!(answer["accepted"], true);
    world.seal_request(&second, 1).await.unwrap();
    let answer = world.bring(&second, &world.own(&second)).await;
    assert_eq!(answer["accepted"], true);
    sleep(Duration::from_secs(2)).await;
    let refused = world.put(&second, &sealed(1)).await.unwrap_err();
    assert_eq!(refused, "SealingExpired");
    assert!(world.sealing().await.document.is_some());
    assert_eq!(world.offered().await, Value::Null);
    assert_eq!(world.sealing().await.document, None, "it is kept no longer");
}

#[tokio::test]
async fn sealing_is_for_enclaves_that_run() {
    let world = World::start().await;
    let unknown = json!({"action": "seal_request", "enclave_id": "nobody",
        "nonce": nonce(1), "lifetime_seconds": 60});
    let failure = world.gate.handle(unknown).await.unwrap_err();
    assert_eq!(failure.kind, "UnknownEnclave");
    for status in Status::ALL {
        world.cloud.put(ID, status, &[]).await;
        let asked = world.seal_request(&nonce(1), 60).await;
        let runs = matches!(
            status,
            Status::Deploying | Status::Deployed | Status::Resuming
        );
        assert_eq!(asked.is_ok(), runs, "{status}");
    }
    let foreign = [(name::PROVIDER_ID, "another")];
    world.cloud.put(ID, Status::Deployed, &foreign).await;
    let refused = world.seal_request(&nonce(1), 60).await.unwrap_err();
    assert_eq!(refused, "NotRunning");
}

#[tokio::test]
async fn sealing_and_waiting_leave_items_of_other_providers_alone() {
    let nonce = nonce(1);
    let world = World::attested(&nonce).await;
    world.disown().await;
    let before = world.item().await;
    assert!(before.is_foreign() && before.sealing.is_some());
    let waits = json!({"action": "challenge", "waiting": "waits for the sealed secret `a`"});
    let answer = world.ask(waits).await.unwrap();
    assert_eq!(answer["sealing"], Value::Null);
    let refused = world.put(&nonce, &sealed(1)).await.unwrap_err();
    assert_eq!(refused, "SealingReplaced");
    assert_eq!(
        world.bring(&nonce, &world.own(&nonce)).await["accepted"],
        false
    );
    assert!(!world.outcome(&nonce, false, "no").await);
    assert_eq!(world.item().await, before);
}

#[tokio::test]
async fn waiting_is_told_by_agents_and_forgotten() {
    let world = World::start().await;
    let wait = |waiting: Option<&'static str>| {
        world.ask(json!({"action": "challenge", "waiting": waiting}))
    };
    wait(Some("waits for the sealed secret `a`")).await.unwrap();
    let told = world.item().await.waiting;
    assert_eq!(told.as_deref(), Some("waits for the sealed secret `a`"));
    wait(None).await.unwrap();
    assert_eq!(world.item().await.waiting, None);
}
