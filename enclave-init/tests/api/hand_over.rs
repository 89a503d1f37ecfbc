//! Seeds that one enclave hands to another of its family, over parents that may be hostile.

use std::num::NonZeroU32;

use attestation::Purpose;
use fleet_key::Seed;
use fleet_key::hand_over::{CHALLENGE_BYTES, Context, Gift, Member, REGISTER, Request, Rules};
use link::Bytes;
use link::control::{EndCause, FromAgent, FromInit, HealthState, KeyStep, MAX_NONCE};
use link::logs::LogStream;
use measurements::{Measurements, Pcr};
use sealed_secret::{PublicKey, SealingKey, seal_seed};
use serde_json::{Value, json};
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::agent::Control;
use crate::enclave::{Enclave, Image, MEASUREMENTS, ending, ending_with_code, message};
use crate::malformed;

/// PCR8 of the family's images.
const SIGNER: Pcr = Pcr::new([8; 48]);
const ASKS: [&str; 4] = [
    "request tcp GET /v1/keys",
    "request tcp GET /v1/keys/session-tokens",
    "say done",
    "wait",
];

/// Images of a release, by what they measure to.
fn release(number: u8) -> Measurements {
    Measurements {
        pcr0: Pcr::new([number; 48]),
        pcr8: Some(SIGNER),
        ..MEASUREMENTS
    }
}

fn keys(family: &str, generation: u32) -> Value {
    json!({
        "family": family,
        "siblings": {"signer": SIGNER.to_string(), "generation": generation},
    })
}

/// An image of the family `payments` in which it can begin.
fn first(root: &TestRoot) -> Image {
    image(root, 1, keys("payments", 1))
}

/// An image of a later generation, for the seed with this fingerprint.
fn later(root: &TestRoot, generation: u8, fingerprint: &str) -> Image {
    let mut keys = keys("payments", generation.into());
    keys["siblings"]["fingerprint"] = fingerprint.into();
    image(root, generation, keys)
}

fn image(root: &TestRoot, generation: u8, keys: Value) -> Image {
    Image::new(&ASKS)
        .with("/keys", keys)
        .measuring(release(generation))
        .signed_by(root)
}

/// An enclave, and its control connection.
struct Sibling {
    enclave: Enclave,
    control: Control,
    last: u64,
}

impl Sibling {
    async fn boot(image: Image) -> Self {
        let (enclave, control) = image.boot().await;
        Self {
            enclave,
            control,
            last: 0,
        }
    }

    async fn step(&mut self, step: KeyStep) -> Result<Vec<u8>, String> {
        self.last += 1;
        let id = self.last;
        self.control.send(FromAgent::Keys { id, step }).await;
        message(&mut self.control, |message| match message {
            FromInit::KeysDone { id: of, answer } if *of == id => Some(Ok(answer.to_vec())),
            FromInit::KeysRefused { id: of, reason } if *of == id => Some(Err(reason.to_string())),
            _ => None,
        })
        .await
    }

    async fn create(&mut self) -> Result<String, String> {
        let fingerprint = self.step(KeyStep::Create).await?;
        Ok(String::from_utf8(fingerprint).unwrap())
    }

    async fn challenge(&mut self) -> Result<Vec<u8>, String> {
        self.step(KeyStep::Challenge).await
    }

    async fn request(&mut self, challenge: &[u8]) -> Result<Vec<u8>, String> {
        let challenge = Bytes::<MAX_NONCE>::new(challenge).unwrap();
        self.step(KeyStep::Request { challenge }).await
    }

    async fn give(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        let request = Bytes::new(request).unwrap();
        self.step(KeyStep::Give { request }).await
    }

    async fn take(&mut self, gift: &[u8]) -> Result<String, String> {
        let gift = Bytes::new(gift).unwrap();
        let fingerprint = self.step(KeyStep::Take { gift }).await?;
        Ok(String::from_utf8(fingerprint).unwrap())
    }

    /// Waits until the agent is told what the enclave waits for.
    async fn waits(&mut self) -> String {
        message(&mut self.control, |message| match message {
            FromInit::Health { state, detail } if detail.contains("waits for the seed") => {
                assert_eq!(*state, HealthState::Starting);
                Some(detail.to_string())
            }
            _ => None,
        })
        .await
    }
}

/// Has one enclave hand its seed to another.
async fn hand_over(giver: &mut Sibling, receiver: &mut Sibling) -> Result<String, String> {
    let challenge = giver.challenge().await?;
    let request = receiver.request(&challenge).await?;
    let gift = giver.give(&request).await?;
    receiver.take(&gift).await
}

/// A document of whoever has images that the family's signer has signed, but not with
/// `user_data` of the init's choice.
fn document(
    root: &TestRoot,
    (measurements, generation): (Measurements, u32),
    user_data: Option<Vec<u8>>,
    nonce: &[u8],
    key: Option<&PublicKey>,
) -> Vec<u8> {
    use nsm::{Request, Response};
    let root = TestRoot::from_pem(root.certificate_pem(), &root.key_pem()).unwrap();
    let identity = Identity {
        instance_id: "i-00000000000000000".to_owned(),
        enclave_id: "enc0000000000000001".to_owned(),
        measurements: Some(measurements),
    };
    let mut module = SoftwareNsm::new(identity, root).unwrap();
    let generation = NonZeroU32::new(generation).unwrap();
    let measured = fleet_key::hand_over::measured(&"payments".parse().unwrap(), generation);
    let index = REGISTER.into();
    let data = measured.to_vec();
    module.answer(Request::ExtendPCR { index, data });
    module.answer(Request::LockPCR { index });
    let request = Request::Attestation {
        user_data: user_data.map(Into::into),
        nonce: Some(nonce.to_vec().into()),
        public_key: key.map(|key| key.to_spki().into()),
    };
    match module.answer(request) {
        Response::Attestation { document } => document,
        other => panic!("{other:?}"),
    }
}

/// What a gift for this request is bound to, as everybody can compute it.
fn context(request: &Request, generation: NonZeroU32) -> Context {
    let mut receiver = Member::<(), ()>::new(Rules {
        family: "payments".parse().unwrap(),
        generation,
        signer: SIGNER,
        role: None,
        fingerprint: None,
    })
    .unwrap();
    receiver.request(&request.document, ()).unwrap();
    let gift = Gift {
        generation,
        sealed: Vec::new(),
        document: Vec::new(),
    };
    receiver.context(&gift).unwrap()
}

#[tokio::test]
async fn hand_over_gives_the_next_generation_the_same_keys_and_no_lower_one() {
    let root = TestRoot::generate().unwrap();
    let mut original = Sibling::boot(first(&root)).await;
    let detail = original.waits().await;
    assert!(detail.contains("`parent-agent keys create`"), "{detail}");
    // The workload is not started without the seed. Whoever else asks is told why.
    let socket = original.enclave.pid1();
    let socket = format!("/proc/{socket}/root/enclave/0/api.sock");
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let get = malformed::request("GET /v1/keys/session-tokens HTTP/1.1", &[], "");
    stream.write_all(&get).await.unwrap();
    let answer = malformed::rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains(r#""code":"no-seed""#), "{answer}");
    // Nothing can be given yet.
    let refused = original.challenge().await.unwrap_err();
    assert!(refused.contains("no seed to give"), "{refused}");
    let fingerprint = original.create().await.unwrap();
    original.enclave.said("done").await;

    let mut second = Sibling::boot(later(&root, 2, &fingerprint)).await;
    let mut replica = Sibling::boot(later(&root, 2, &fingerprint)).await;
    second.waits().await;
    assert!(second.enclave.lines(LogStream::Application).is_empty());
    let given = hand_over(&mut original, &mut second).await;
    assert_eq!(given, Ok(fingerprint.clone()));
    second.enclave.said("done").await;
    // From the second generation on to another of it.
    let given = hand_over(&mut second, &mut replica).await;
    assert_eq!(given, Ok(fingerprint.clone()));
    replica.enclave.said("done").await;

    let mut older = Sibling::boot(first(&root)).await;
    let refused = hand_over(&mut second, &mut older).await.unwrap_err();
    assert!(refused.contains("of a lower generation"), "{refused}");
    // One of the original generation may still give it to its like.
    let given = hand_over(&mut original, &mut older).await;
    assert_eq!(given, Ok(fingerprint.clone()));
    older.enclave.said("done").await;

    let key = original.enclave.answers()[1].clone();
    assert_eq!((key.0, key.1.len()), (200, 32));
    for (sibling, generation) in [(&original, 1), (&second, 2), (&replica, 2), (&older, 1)] {
        let answers = sibling.enclave.answers();
        assert_eq!(answers[1], key);
        let about: Value = serde_json::from_slice(&answers[0].1).unwrap();
        let expected = json!({
            "family": "payments", "fingerprint": fingerprint, "generation": generation,
        });
        assert_eq!(about, expected);
        let line = format!("keys: family=payments fingerprint={fingerprint}");
        sibling.enclave.line(LogStream::System, &line).await;
    }
    let given = "the seed was given to i-00000000000000000-enc0123456789abcdef, of generation 2";
    original.enclave.line(LogStream::System, given).await;
    let taken = "the seed was taken from i-00000000000000000-enc0123456789abcdef, of generation 1";
    second.enclave.line(LogStream::System, taken).await;

    // What is held stays.
    for sibling in [&mut original, &mut second] {
        let refused = sibling.create().await.unwrap_err();
        assert!(refused.contains("has a seed already"), "{refused}");
        let refused = sibling.request(&[1; CHALLENGE_BYTES]).await.unwrap_err();
        assert!(refused.contains("has a seed already"), "{refused}");
    }
}

#[tokio::test]
async fn hand_over_refuses_receivers_that_are_not_of_the_family() {
    let root = TestRoot::generate().unwrap();
    let mut giver = Sibling::boot(first(&root)).await;
    giver.create().await.unwrap();
    let other_signer = Measurements {
        pcr8: Some(Pcr::new([9; 48])),
        ..release(1)
    };
    let unsigned = Measurements {
        pcr8: None,
        ..release(1)
    };
    let other_root = TestRoot::generate().unwrap();
    for (image, reason) in [
        (first(&root).measuring(other_signer), "(PCR8, `signer`"),
        (first(&root).measuring(unsigned), "(PCR8, `signer`"),
        (
            first(&root).with("/keys", keys("billing", 1)),
            "of another family",
        ),
        (first(&root).debug(), "policy.debug"),
        (first(&other_root), "document was refused: chain.root: "),
    ] {
        let mut receiver = Sibling::boot(image).await;
        let refused = hand_over(&mut giver, &mut receiver).await.unwrap_err();
        assert!(refused.contains(reason), "{reason}: {refused}");
        // Nor does a seed of theirs come into the family, even where any seed is accepted.
        receiver.create().await.unwrap();
        let mut waiting = Sibling::boot(first(&root)).await;
        let refused = hand_over(&mut receiver, &mut waiting).await.unwrap_err();
        assert!(refused.contains(reason), "{reason}: {refused}");
        let about = waiting.enclave.lines(LogStream::System);
        assert!(!about.iter().any(|line| line.contains("was taken")));
    }
}

#[tokio::test]
async fn hand_over_of_a_hostile_parent_gives_it_nothing() {
    let root = TestRoot::generate().unwrap();
    let mut giver = Sibling::boot(first(&root)).await;
    let fingerprint = giver.create().await.unwrap();
    let mut receiver = Sibling::boot(later(&root, 2, &fingerprint)).await;
    let own_key = SealingKey::generate().unwrap().public_key();
    let challenge = giver.challenge().await.unwrap();
    let nonce: [u8; CHALLENGE_BYTES] = challenge.clone().try_into().unwrap();

    // A document of an honest image, which its workload or a challenger can have had made.
    for user_data in [
        None,
        Some(b"enclave-purpose:relayed-challenge".to_vec()),
        Some(b"enclave-purpose:sealing".to_vec()),
        Some(b"enclave-purpose:key-gift".to_vec()),
    ] {
        let document = document(&root, (release(2), 2), user_data, &nonce, Some(&own_key));
        let request = Request {
            challenge: nonce,
            generation: NonZeroU32::new(2).unwrap(),
            document,
        };
        let refused = giver.give(&request.to_bytes()).await.unwrap_err();
        assert!(refused.contains("was not made for this"), "{refused}");
    }
    // The right request, changed.
    let request = receiver.request(&challenge).await.unwrap();
    let parsed = Request::parse(&request).unwrap();
    let stated = Request {
        generation: NonZeroU32::new(3).unwrap(),
        ..parsed.clone()
    };
    let refused = giver.give(&stated.to_bytes()).await.unwrap_err();
    assert!(refused.contains("than is stated"), "{refused}");
    for place in [0, 10, 50, request.len() / 2, request.len() - 1] {
        let mut changed = request.clone();
        changed[place] ^= 1;
        assert!(giver.give(&changed).await.is_err(), "{place}");
    }
    assert!(giver.give(&[]).await.is_err());
    // What was refused has not used the challenge; what was given has.
    let gift = giver.give(&request).await.unwrap();
    let refused = giver.give(&request).await.unwrap_err();
    assert!(refused.contains("answers no challenge"), "{refused}");
    // A request with a nonce that the giver did not give.
    let mut other = Sibling::boot(later(&root, 2, &fingerprint)).await;
    let foreign = other.request(&[7; CHALLENGE_BYTES]).await.unwrap();
    let refused = giver.give(&foreign).await.unwrap_err();
    assert!(refused.contains("answers no challenge"), "{refused}");

    // The gift, changed, for another, and made up.
    for place in [0, 10, 50, gift.len() / 2, gift.len() - 1] {
        let mut changed = gift.clone();
        changed[place] ^= 1;
        assert!(receiver.take(&changed).await.is_err(), "{place}");
    }
    assert!(other.take(&gift).await.is_err());
    let lowest = NonZeroU32::MIN;
    let to_receiver = context(&parsed, lowest);
    let key = attestation::Document::parse(&parsed.document).unwrap();
    let key = PublicKey::from_spki(key.unverified_public_key().unwrap()).unwrap();
    let sealed = seal_seed(&[7; Seed::BYTES], &key, to_receiver.as_bytes()).unwrap();
    let nonce = to_receiver.gift_nonce(&sealed);
    for (of, user_data, reason) in [
        ((release(1), 1), None, "was not made for this"),
        (
            (release(1), 1),
            Some(b"enclave-purpose:relayed-challenge".to_vec()),
            "was not made for this",
        ),
        (
            (MEASUREMENTS, 1),
            Purpose::KeyGift.user_data(),
            "(PCR8, `signer`",
        ),
        (
            (release(1), 2),
            Purpose::KeyGift.user_data(),
            "than is stated",
        ),
    ] {
        let gift = Gift {
            generation: lowest,
            sealed: sealed.clone(),
            document: document(&root, of, user_data, &nonce, None),
        };
        let refused = receiver.take(&gift.to_bytes()).await.unwrap_err();
        assert!(refused.contains(reason), "{reason}: {refused}");
    }
    // A seed of the parent's beside the giver's document.
    let swapped = Gift {
        sealed,
        ..Gift::parse(&gift).unwrap()
    };
    assert!(receiver.take(&swapped.to_bytes()).await.is_err());
    // A later request is another one.
    receiver.request(&[7; CHALLENGE_BYTES]).await.unwrap();
    assert!(receiver.take(&gift).await.is_err());

    // After all that an honest hand-over still succeeds, and is not repeated.
    let challenge = giver.challenge().await.unwrap();
    let request = receiver.request(&challenge).await.unwrap();
    let gift = giver.give(&request).await.unwrap();
    receiver.take(&gift).await.unwrap();
    let refused = receiver.take(&gift).await.unwrap_err();
    assert!(refused.contains("has a seed already"), "{refused}");
    receiver.enclave.said("done").await;
    assert_eq!(
        receiver.enclave.answers()[1],
        giver.enclave.answers()[1],
        "the keys differ"
    );
}

#[tokio::test]
async fn hand_over_of_another_seed_than_the_pinned_one_is_refused() {
    let root = TestRoot::generate().unwrap();
    let mut original = Sibling::boot(first(&root)).await;
    let fingerprint = original.create().await.unwrap();
    // Of a retired image, say, whose fault tells the parent what it holds.
    let mut fork = Sibling::boot(first(&root)).await;
    assert_ne!(fork.create().await.unwrap(), fingerprint);
    let mut pinned = keys("payments", 1);
    pinned["siblings"]["fingerprint"] = fingerprint.as_str().into();
    for image in [
        later(&root, 2, &fingerprint),
        first(&root).with("/keys", pinned),
    ] {
        let mut next = Sibling::boot(image).await;
        let detail = next.waits().await;
        assert!(!detail.contains("keys create"), "{detail}");
        let refused = next.create().await.unwrap_err();
        assert!(refused.contains("one seed only"), "{refused}");
        let refused = hand_over(&mut fork, &mut next).await.unwrap_err();
        assert!(refused.contains("another seed than"), "{refused}");
        let given = hand_over(&mut original, &mut next).await;
        assert_eq!(given.as_ref(), Ok(&fingerprint));
        next.enclave.said("done").await;
    }
}

#[tokio::test]
async fn hand_over_to_a_later_generation_needs_a_fingerprint() {
    let root = TestRoot::generate().unwrap();
    let (enclave, mut control) = image(&root, 2, keys("payments", 2)).boot().await;
    let (cause, detail) = ending(&mut control).await;
    assert_eq!(cause, EndCause::BootFailed);
    let reason = "`siblings` of generation 2 has no `fingerprint`";
    assert!(detail.contains(reason), "{detail}");
    drop(enclave);
}

#[tokio::test]
async fn hand_over_that_nobody_makes_ends_the_boot_in_time_and_with_a_shutdown() {
    let root = TestRoot::generate().unwrap();
    let mut short = keys("payments", 1);
    short["siblings"]["wait"] = "100ms".into();
    let mut late = Sibling::boot(first(&root).with("/keys", short)).await;
    let (cause, detail, code) = ending_with_code(&mut late.control).await;
    assert_eq!((cause, &*code), (EndCause::BootFailed, "boot.keys"));
    let expected = "boot step keys failed: nobody had the seed of the family `payments`";
    assert!(detail.starts_with(expected), "{detail}");
    assert_eq!(late.enclave.ended().await.0, 1);

    let mut waiting = Sibling::boot(first(&root)).await;
    waiting.waits().await;
    let grace_ms = None;
    waiting.control.send(FromAgent::Shutdown { grace_ms }).await;
    assert_eq!(ending(&mut waiting.control).await.0, EndCause::Shutdown);
    assert!(waiting.enclave.lines(LogStream::Application).is_empty());
}

#[tokio::test]
async fn hand_over_needs_an_image_that_says_so() {
    let mut other = Sibling::boot(Image::new(&["wait"])).await;
    let refused = other.create().await.unwrap_err();
    assert!(refused.contains("[keys]"), "{refused}");
    // The register is the family's alone.
    let (enclave, mut control) = first(&TestRoot::generate().unwrap())
        .attestation("open_registers", json!([31]))
        .boot()
        .await;
    let (cause, detail) = ending(&mut control).await;
    assert_eq!(cause, EndCause::BootFailed);
    assert!(detail.contains("register 31"), "{detail}");
    drop(enclave);
}
