//! One enclave: as it is, and until it is at rest.

use std::time::{Duration, Instant};

use command_output::{errln, out, outln};
use control_plane_model::item::{Attestation, AttestationState, Enclave, Image};
use control_plane_model::sealing::{Sealing, SealingState};
use control_plane_model::status::Status;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::End;
use crate::cli::Status as Arguments;
use crate::cloud::Cloud;
use crate::table::pairs;
use plain_text::plain;

/// How often an item is looked at.
const PAUSE: Duration = Duration::from_secs(2);

pub(crate) async fn status(
    cloud: &Cloud,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<End> {
    if arguments.watch {
        return follow(cloud, &arguments.id, arguments.timeout, json).await;
    }
    let item = cloud.enclave(&arguments.id).await?;
    if json {
        outln!("{}", as_json(&item));
    } else {
        out!("{}", as_text(&item));
    }
    Ok(if item.status() == Some(Status::Failed) {
        End::Failed
    } else {
        End::Done
    })
}

/// Prints each change until the enclave is at rest.
pub(crate) async fn follow(
    cloud: &Cloud,
    id: &str,
    timeout: u64,
    json: bool,
) -> anyhow::Result<End> {
    let start = Instant::now();
    let mut last = String::new();
    loop {
        let item = cloud.enclave(id).await?;
        let line = line(&item);
        if line != last {
            if json {
                outln!("{}", as_json(&item));
            } else {
                outln!("{}  {line}", elapsed(start.elapsed()));
            }
            last = line;
        }
        match item.status() {
            Some(Status::Failed) => return Ok(End::Failed),
            Some(status) if status.is_at_rest() => {
                return Ok(if item.error_type.as_deref() == Some("Refused") {
                    End::Refused
                } else {
                    End::Done
                });
            }
            _ => {}
        }
        if command_output::reader_is_gone() {
            return Ok(End::InMotion);
        }
        if start.elapsed() >= Duration::from_secs(timeout) {
            errln!("enclavectl: {id} is still in motion after {timeout} s; it continues by itself");
            return Ok(End::InMotion);
        }
        sleep(PAUSE).await;
    }
}

fn elapsed(time: Duration) -> String {
    format!("{:>2}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// What is new about an enclave, in a line.
fn line(item: &Enclave) -> String {
    let status = item.status_text.as_deref().unwrap_or("no status");
    let detail = match item.status() {
        Some(Status::PendingDeploy | Status::PendingDestroy) => {
            Some("waits for the control plane".to_owned())
        }
        Some(Status::Deploying | Status::Resuming)
            if item
                .attestation
                .as_ref()
                .is_some_and(|attestation| attestation.state == AttestationState::Waiting) =>
        {
            let waiting = item.waiting.as_ref();
            Some(waiting.map_or_else(
                || "waits for the enclave's attestation".to_owned(),
                |waiting| format!("the enclave is booting: {waiting}"),
            ))
        }
        Some(Status::Deploying | Status::Destroying) => item.progress.clone(),
        Some(Status::Pausing) => Some("the instance is being stopped".to_owned()),
        Some(Status::Resuming) => Some("the instance is being started".to_owned()),
        Some(Status::Deployed) => item
            .attestation
            .as_ref()
            .map(|attestation| attested(attestation, true)),
        _ => None,
    };
    let message = item.error_message.clone();
    let parts = [Some(status.to_owned()), detail, message];
    plain(&parts.into_iter().flatten().collect::<Vec<_>>().join("  "))
}

/// How an attestation stands, in words.
pub(crate) fn attested(attestation: &Attestation, short: bool) -> String {
    let at = attestation.verified_at.as_deref().unwrap_or("never");
    match (attestation.state, &attestation.message) {
        (AttestationState::Passed, _) => format!("attested at {at}"),
        (AttestationState::Waiting, _) => format!("asked to attest; last attested: {at}"),
        (AttestationState::Failed, Some(why)) if !short => {
            format!("did not attest: {why}; last attested: {at}")
        }
        (AttestationState::Failed, _) => format!("did not attest; last attested: {at}"),
    }
}

/// How the last sealed secret stands, in words.
fn sealed(sealing: &Sealing) -> String {
    let name = sealing.name.as_deref().unwrap_or("one");
    let expires_at = &sealing.expires_at;
    match sealing.state {
        SealingState::Asked => format!("asked for the enclave's document, until {expires_at}"),
        SealingState::Attested => format!("the enclave's document is there, until {expires_at}"),
        SealingState::Sealed => format!("{name} waits for the enclave, until {expires_at}"),
        SealingState::Opened => format!("{name} was opened, its agent says"),
        SealingState::Refused => {
            let why = sealing.message.as_deref().unwrap_or("without a reason");
            format!("{name} was refused: {why}")
        }
    }
}

/// The image of an item, if it has one.
pub(crate) fn image(item: &Enclave) -> Option<Image> {
    serde_json::from_str(item.image.as_deref()?).ok()
}

/// A text of Terraform's outputs.
pub(crate) fn output(item: &Enclave, name: &str) -> Option<String> {
    item.outputs.get(name)?.as_str().map(str::to_owned)
}

fn as_text(item: &Enclave) -> String {
    let image = image(item);
    let waiting = match item.status() {
        Some(Status::Failed) => "waited at last",
        _ => "waiting",
    };
    let rows = [
        ("id", Some(item.id.clone())),
        ("status", item.status_text.clone()),
        ("error", item.error_message.clone()),
        ("error type", item.error_type.clone()),
        ("progress", item.progress.clone()),
        (
            "image",
            image
                .as_ref()
                .map(|image| image.published.reference.clone()),
        ),
        ("image SHA-256", image.map(|image| image.published.sha256)),
        (
            "attestation",
            item.attestation.as_ref().map(|a| attested(a, false)),
        ),
        (waiting, item.waiting.clone()),
        ("sealed secret", item.sealing.as_ref().map(sealed)),
        ("instance", output(item, "instance_id")),
        ("address", output(item, "private_ip")),
        ("log group", output(item, "log_group_name")),
        ("owner", item.wallet_address.clone()),
        ("updated", item.updated_at.clone()),
    ];
    pairs(&rows.map(|(name, value)| (name, value.map(|value| plain(&value)))))
}

/// What a program wants to know of an item. Tokens are left out, and what is carried to
/// the enclave.
pub(crate) fn as_json(item: &Enclave) -> Value {
    let sealing = item.sealing.as_ref().map(|sealing| {
        json!({ "state": sealing.state, "name": sealing.name,
            "expires_at": sealing.expires_at, "message": sealing.message })
    });
    json!({
        "id": item.id,
        "status": item.status_text,
        "error_type": item.error_type,
        "error_message": item.error_message,
        "progress": item.progress,
        "request": item.provider_config,
        "image": image(item),
        "attestation": item.attestation,
        "waiting": item.waiting,
        "sealing": sealing,
        "outputs": item.outputs,
        "wallet_address": item.wallet_address,
        "generation": item.generation,
        "execution_arn": item.execution_arn,
        "updated_at": item.updated_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_going_on() {
        let mut item = Enclave {
            id: "a".to_owned(),
            status_text: Some("DEPLOYING".to_owned()),
            progress: Some("applying: 3 of 9 resources".to_owned()),
            ..Enclave::default()
        };
        assert_eq!(line(&item), "DEPLOYING  applying: 3 of 9 resources");
        item.status_text = Some("FAILED".to_owned());
        item.error_message = Some("no capacity".to_owned());
        assert_eq!(line(&item), "FAILED  no capacity");
        assert_eq!(elapsed(Duration::from_secs(125)), " 2:05");
    }

    #[test]
    fn waiting_is_said_while_the_deployment_waits_for_the_enclave() {
        let attestation = json!({ "state": "waiting", "reason": "deploy", "nonce": "00",
            "expires_at": "", "execution_arn": "arn" });
        let item = Enclave {
            status_text: Some("DEPLOYING".to_owned()),
            attestation: serde_json::from_value(attestation).unwrap(),
            waiting: Some("waits for the sealed secret `a`".to_owned()),
            ..Enclave::default()
        };
        let said = "DEPLOYING  the enclave is booting: waits for the sealed secret `a`";
        assert_eq!(line(&item), said);
        assert!(as_text(&item).contains("waiting"));
        assert!(as_text(&item).contains("waits for the sealed secret `a`"));
        let failed = Enclave {
            status_text: Some("FAILED".to_owned()),
            ..item
        };
        assert!(as_text(&failed).contains("waited at last"));
    }

    #[test]
    fn sealing_is_said_without_what_is_carried() {
        let sealing = json!({ "state": "refused", "nonce": "nonce", "expires_at": "soon",
            "name": "password", "sealed": "carried", "message": "another sender" });
        let item = Enclave {
            sealing: serde_json::from_value(sealing).unwrap(),
            ..Enclave::default()
        };
        let said = "password was refused: another sender";
        assert!(as_text(&item).contains(said), "{}", as_text(&item));
        let shown = as_json(&item);
        assert_eq!(shown["sealing"]["message"], "another sender");
        assert!(!shown.to_string().contains("carried"));
    }

    #[test]
    fn a_token_is_never_shown() {
        let item = Enclave {
            attestation_token: Some("secret".to_owned()),
            ..Enclave::default()
        };
        assert!(!as_json(&item).to_string().contains("secret"));
        assert!(!as_text(&item).contains("secret"));
    }
}
