//! `enclavectl secret put`: a secret sealed to a running enclave, carried there by the
//! control plane, which can neither read it nor make another of it.
//!
//! Nothing that the control plane says is relied on: the document must carry a nonce of
//! this command's, lead to a root of AWS's, and have the measurements that the operator
//! has given and the register that names the enclave.

mod offer;

use std::time::{Duration, Instant};

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use command_output::{errln, outln};
use control_plane_model::item::Enclave;
use control_plane_model::sealing::{STATUSES, SealingState};
use plain_text::plain;
use sealed_secret::SealToError;
use serde_json::json;
use tokio::time::sleep;

use crate::End;
use crate::cli::PutSecret;
use crate::cloud::Cloud;

use offer::Offer;

/// How often the item is looked at.
const PAUSE: Duration = Duration::from_secs(2);

/// How far the enclave is.
#[derive(Debug, PartialEq, Eq)]
enum Progress<'a> {
    /// It is somebody else's turn.
    Waits,
    /// Its document is there, in base64.
    Attested(&'a str),
    /// It has opened the secret.
    Opened,
    /// It has refused, with these words.
    Refused(&'a str),
    /// Another command has asked since.
    Replaced,
    /// The enclave does not run any more.
    Ended,
}

pub(crate) async fn put(cloud: &Cloud, arguments: &PutSecret, json: bool) -> anyhow::Result<End> {
    let id = arguments.id.as_str();
    let offer = match Offer::read(arguments) {
        Ok(offer) => offer,
        Err(error) => {
            errln!("enclavectl: {error:#}");
            return Ok(End::Refused);
        }
    };
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let tell = |what: &str| {
        if !json {
            outln!("{what}");
        }
    };
    if let Some(end) = until_it_runs(cloud, id, deadline).await? {
        return Ok(end);
    }
    let nonce = hex::encode(offer.nonce);
    let request = json!({ "action": "seal_request", "enclave_id": id, "nonce": nonce,
        "lifetime_seconds": arguments.timeout });
    cloud.ask_gate(&request).await?;
    tell("asked for the enclave's document");
    let mut sealed_to = None;
    loop {
        let item = cloud.enclave(id).await?;
        match progress(&item, &nonce) {
            Progress::Attested(document) if sealed_to.is_none() => {
                let (claims, sealed) = match offer.seal(document) {
                    Ok(sealed) => sealed,
                    Err(error) => {
                        errln!("enclavectl: nothing was sealed: {error:#}");
                        return Ok(match error.downcast_ref() {
                            Some(SealToError::Secret(_)) => End::Refused,
                            _ => End::Failed,
                        });
                    }
                };
                let put = json!({ "action": "seal_put", "enclave_id": id, "nonce": nonce,
                    "sealed": STANDARD.encode(sealed) });
                cloud.ask_gate(&put).await?;
                tell(&format!("verified and sealed to {}", claims.module_id()));
                sealed_to = Some(claims.module_id().to_owned());
            }
            Progress::Opened => {
                if json {
                    outln!(
                        "{}",
                        json!({ "id": id, "name": offer.name, "opened": true, "enclave": sealed_to })
                    );
                } else {
                    outln!("opened, its agent says");
                }
                return Ok(End::Done);
            }
            Progress::Refused(words) => {
                errln!(
                    "enclavectl: {id} has refused `{}`: {}",
                    offer.name,
                    plain(words)
                );
                return Ok(End::Failed);
            }
            Progress::Replaced => bail!(
                "another `secret put` for {id} has replaced this one: put one secret after the other"
            ),
            Progress::Ended => {
                errln!(
                    "enclavectl: {id} is {} by now: `enclavectl status {id}` says why",
                    status(&item)
                );
                return Ok(End::Failed);
            }
            Progress::Attested(_) | Progress::Waits => {}
        }
        if Instant::now() >= deadline || command_output::reader_is_gone() {
            let what = match sealed_to {
                None => "brought no document",
                Some(_) => "not answered to the sealed secret",
            };
            errln!(
                "enclavectl: {id} has {what} within {} s: its agent's log says what happened; put the secret again",
                arguments.timeout
            );
            return Ok(End::InMotion);
        }
        sleep(PAUSE).await;
    }
}

/// Waits until the enclave is one that can be sealed to. Gives how the command ends if it
/// does not come to that.
async fn until_it_runs(cloud: &Cloud, id: &str, deadline: Instant) -> anyhow::Result<Option<End>> {
    loop {
        let item = cloud.enclave(id).await?;
        match item.status() {
            Some(status) if STATUSES.contains(&status) => return Ok(None),
            Some(status) if !status.is_at_rest() => {}
            _ => {
                errln!(
                    "enclavectl: {id} is {}: secrets are sealed to an enclave that is being deployed, deployed or resuming",
                    status(&item)
                );
                return Ok(Some(End::Failed));
            }
        }
        if Instant::now() >= deadline {
            errln!("enclavectl: {id} is still {}", status(&item));
            return Ok(Some(End::InMotion));
        }
        sleep(PAUSE).await;
    }
}

fn status(item: &Enclave) -> String {
    plain(item.status_text.as_deref().unwrap_or("without a status"))
}

/// What has become of the request with this nonce.
fn progress<'a>(item: &'a Enclave, nonce: &str) -> Progress<'a> {
    let Some(sealing) = item.sealing.as_ref().filter(|s| s.nonce == nonce) else {
        return Progress::Replaced;
    };
    match (sealing.state, &sealing.document) {
        (SealingState::Opened, _) => Progress::Opened,
        (SealingState::Refused, _) => {
            Progress::Refused(sealing.message.as_deref().unwrap_or("without a reason"))
        }
        _ if !item.status().is_some_and(|s| STATUSES.contains(&s)) => Progress::Ended,
        (SealingState::Attested, Some(document)) => Progress::Attested(document),
        _ => Progress::Waits,
    }
}

#[cfg(test)]
mod tests {
    use control_plane_model::sealing::Sealing;

    use super::*;

    #[test]
    fn secret_progress_is_what_the_item_says_of_this_request() {
        let mut item = Enclave {
            status_text: Some("DEPLOYED".to_owned()),
            ..Enclave::default()
        };
        assert_eq!(progress(&item, "aa"), Progress::Replaced);
        let sealing = |state, document: Option<&str>, message: Option<&str>| Sealing {
            state,
            nonce: "aa".to_owned(),
            expires_at: String::new(),
            name: None,
            document: document.map(str::to_owned),
            sealed: None,
            message: message.map(str::to_owned),
        };
        for (told, expected) in [
            (sealing(SealingState::Asked, None, None), Progress::Waits),
            (
                sealing(SealingState::Attested, Some("d"), None),
                Progress::Attested("d"),
            ),
            // The document is gone if its time is up.
            (sealing(SealingState::Attested, None, None), Progress::Waits),
            (sealing(SealingState::Sealed, None, None), Progress::Waits),
            (sealing(SealingState::Opened, None, None), Progress::Opened),
            (
                sealing(SealingState::Refused, None, Some("no")),
                Progress::Refused("no"),
            ),
        ] {
            item.sealing = Some(told);
            assert_eq!(progress(&item, "aa"), expected);
            assert_eq!(progress(&item, "bb"), Progress::Replaced);
        }
        item.sealing = Some(sealing(SealingState::Sealed, None, None));
        item.status_text = Some("FAILED".to_owned());
        assert_eq!(progress(&item, "aa"), Progress::Ended);
    }
}
