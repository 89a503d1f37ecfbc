//! An enclave's attestation: the signed result, verified, and a new one on demand.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use command_output::{errln, out, outln};
use control_plane_model::Failure;
use control_plane_model::execution::execution_name;
use control_plane_model::item::{Attestation, AttestationState};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::End;
use crate::cli::Attest;
use crate::cloud::Cloud;
use crate::table::pairs;
use crate::watch::attested;
use plain_text::plain;

const PAUSE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kid: String,
    x: String,
    y: String,
}

pub(crate) async fn run(cloud: &Cloud, arguments: &Attest, json: bool) -> anyhow::Result<End> {
    let id = arguments.id.as_str();
    if arguments.again {
        let end = attest_again(cloud, id, arguments.timeout).await?;
        if end != End::Done {
            return Ok(end);
        }
    }
    let item = cloud.enclave(id).await?;
    let Some(attestation) = item.attestation else {
        errln!("enclavectl: {id} has not been asked to attest yet");
        return Ok(End::Failed);
    };
    let result = match &attestation.ear {
        Some(token) => Some(verify(token, &keys(cloud).await?)?),
        None => None,
    };
    if json {
        outln!(
            "{}",
            json!({ "attestation": attestation, "result": result })
        );
    } else {
        out!("{}", as_text(&attestation, result.as_ref()));
    }
    Ok(if attestation.state == AttestationState::Failed {
        End::Failed
    } else {
        End::Done
    })
}

async fn attest_again(cloud: &Cloud, id: &str, timeout: u64) -> anyhow::Result<End> {
    let before = cloud.enclave(id).await?.attestation;
    let now = OffsetDateTime::now_utc().unix_timestamp().to_string();
    let machine = &cloud.parts.state_machines.attestation;
    cloud
        .states
        .start_execution()
        .state_machine_arn(machine)
        .name(execution_name("schedule", id, &now))
        .input(json!({ "enclave_id": id, "reason": "schedule" }).to_string())
        .send()
        .await
        .map_err(|error| Failure::of_call("StartExecution", machine, &error))?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(timeout) {
        sleep(PAUSE).await;
        let now = cloud.enclave(id).await?.attestation;
        let nonce = |attestation: &Option<Attestation>| {
            attestation
                .as_ref()
                .map(|attestation| attestation.nonce.clone())
        };
        let answered = now
            .as_ref()
            .is_some_and(|attestation| attestation.state != AttestationState::Waiting);
        if answered && nonce(&now) != nonce(&before) {
            return Ok(End::Done);
        }
    }
    errln!("enclavectl: {id} has not attested within {timeout} s");
    Ok(End::InMotion)
}

async fn keys(cloud: &Cloud) -> anyhow::Result<KeySet> {
    let answer = cloud
        .ask_gate(&json!({ "action": "jwks" }))
        .await
        .context("the keys of signed results cannot be read")?;
    Ok(serde_json::from_slice(&answer)?)
}

/// The claims of a token whose signature holds.
fn verify(token: &str, keys: &KeySet) -> anyhow::Result<Value> {
    let (signed, signature) = token.rsplit_once('.').context("the result is no JWT")?;
    let (header, claims) = signed.split_once('.').context("the result is no JWT")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    if header.get("alg").and_then(Value::as_str) != Some("ES384") {
        bail!("the result is not signed with ES384");
    }
    let kid = header
        .get("kid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let key = keys
        .keys
        .iter()
        .find(|key| key.kid == kid)
        .with_context(|| {
            format!("the result is signed with the key {kid}, which the gate does not have")
        })?;
    let mut point = vec![4];
    point.extend(URL_SAFE_NO_PAD.decode(&key.x)?);
    point.extend(URL_SAFE_NO_PAD.decode(&key.y)?);
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(signed.as_bytes(), &signature)
        .ok()
        .context("the result's signature is not valid: it was not made by this control plane")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}

fn as_text(attestation: &Attestation, result: Option<&Value>) -> String {
    let submod = |path: &str| {
        let value = result?.pointer(&format!("/submods/nitro-enclave/{path}"))?;
        Some(
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        )
    };
    let tier = result
        .and_then(|result| result.get("ear_status"))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let rows = [
        ("state", Some(attested(attestation, false))),
        ("asked for", Some(attestation.reason.name().to_owned())),
        ("nonce", Some(attestation.nonce.clone())),
        (
            "result",
            tier.map(|tier| format!("{tier}, signature verified")),
        ),
        ("enclave", submod("ear_attester_claims/module_id")),
        ("image", submod("ear_appraisal_policy_ids/0")),
        ("PCR0", submod("ear_attester_claims/pcrs/0")),
        ("PCR1", submod("ear_attester_claims/pcrs/1")),
        ("PCR2", submod("ear_attester_claims/pcrs/2")),
        ("PCR8", submod("ear_attester_claims/pcrs/8")),
        ("PCR16", submod("ear_attester_claims/pcrs/16")),
    ];
    pairs(&rows.map(|(name, value)| (name, value.map(|value| plain(&value)))))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn signed(algorithm: &str) -> (String, KeySet) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
        let keys = KeySet {
            keys: vec![Key {
                kid: "k".to_owned(),
                x: URL_SAFE_NO_PAD.encode(x),
                y: URL_SAFE_NO_PAD.encode(y),
            }],
        };
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "kid": "k"}).to_string());
        let claims = URL_SAFE_NO_PAD.encode(json!({"ear_status": "affirming"}).to_string());
        let text = format!("{header}.{claims}");
        let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        (
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)),
            keys,
        )
    }

    #[test]
    fn a_signed_result_is_verified() {
        let (token, keys) = signed("ES384");
        assert_eq!(verify(&token, &keys).unwrap()["ear_status"], "affirming");
    }

    #[test]
    fn a_result_of_another_signer_is_refused() {
        let (token, _) = signed("ES384");
        let (_, keys) = signed("ES384");
        assert!(verify(&token, &keys).is_err());
        let (none, keys) = signed("none");
        assert!(verify(&none, &keys).is_err());
        for broken in ["", "a", "a.b", "a.b.c", "..", "é.é.é"] {
            assert!(verify(broken, &keys).is_err());
        }
    }
}
