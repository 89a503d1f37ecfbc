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
    /// It has opened the secret, the control plane says.
    Opened,
    /// It has opened a secret, the control plane says, of which nothing was sealed yet.
    Invented,
    /// It makes no document to seal to, with these words.
    NoDocument(&'a str),
    /// It has refused what was sealed, with these words.
    Refused(&'a str),
    /// The request is not on the item any more.
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
    tell(&format!("{id} is asked for its document"));
    let mut sealed_to: Option<String> = None;
    loop {
        let item = cloud.enclave(id).await?;
        let progress = progress(&item, &nonce, sealed_to.is_some());
        if let Some(why) = failure(&progress, &offer.name, &item) {
            errln!("enclavectl: {id} {why}");
            return Ok(End::Failed);
        }
        match progress {
            Progress::Attested(document) => {
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
                tell(&format!(
                    "{id} is verified; `{}` is sealed to {}",
                    offer.name,
                    claims.module_id()
                ));
                sealed_to = Some(claims.module_id().to_owned());
            }
            Progress::Opened => {
                if json {
                    outln!(
                        "{}",
                        json!({ "id": id, "name": offer.name, "opened": true, "enclave": sealed_to })
                    );
                } else {
                    outln!("{id} has opened `{}`, its agent says", offer.name);
                }
                return Ok(End::Done);
            }
            Progress::Replaced => bail!(
                "the request is no longer there: another `secret put` for {id} has replaced it, or {id} was deployed anew; put one secret after the other"
            ),
            Progress::Invented
            | Progress::NoDocument(_)
            | Progress::Refused(_)
            | Progress::Ended
            | Progress::Waits => {}
        }
        let missing = match sealed_to {
            None => "brought no document",
            Some(_) => "not answered to the sealed secret",
        };
        if Instant::now() >= deadline {
            errln!(
                "enclavectl: {id} has {missing} within {} s: its agent's log says what happened; put the secret again",
                arguments.timeout
            );
            return Ok(End::InMotion);
        }
        if command_output::reader_is_gone() {
            errln!(
                "enclavectl: nobody reads the output any more, and {id} has {missing} yet: `enclavectl status {id}` says what becomes of it"
            );
            return Ok(End::InMotion);
        }
        sleep(PAUSE).await;
    }
}

/// What the enclave has done, or the control plane says of it, after which the secret cannot
/// be put.
fn failure(progress: &Progress<'_>, name: &str, item: &Enclave) -> Option<String> {
    Some(match progress {
        Progress::Invented => format!(
            "has opened `{name}`, the control plane says, but it was not sealed to it: nothing was handed over. Another instance with the gate's permissions may have said so; put the secret again"
        ),
        Progress::NoDocument(words) => format!(
            "makes no document to seal `{name}` to: {}; nothing was sealed",
            plain(words)
        ),
        Progress::Refused(words) => format!("has refused `{name}`: {}", plain(words)),
        Progress::Ended => format!(
            "is {} by now: `enclavectl status {}` says why",
            status(item),
            plain(&item.id)
        ),
        Progress::Waits | Progress::Attested(_) | Progress::Opened | Progress::Replaced => {
            return None;
        }
    })
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
            errln!(
                "enclavectl: {id} is still {}, and secrets are sealed to an enclave that is being deployed, deployed or resuming: `enclavectl status {id} --watch` follows it; put the secret again then, or with a longer --timeout",
                status(&item)
            );
            return Ok(Some(End::InMotion));
        }
        sleep(PAUSE).await;
    }
}

fn status(item: &Enclave) -> String {
    plain(item.status_text.as_deref().unwrap_or("without a status"))
}

/// What has become of the request with this nonce, to which this command has sealed the
/// secret or not yet. What the item says is compared with that: everybody who may invoke the
/// gate can answer there.
fn progress<'a>(item: &'a Enclave, nonce: &str, is_sealed: bool) -> Progress<'a> {
    let runs = item.status().is_some_and(|s| STATUSES.contains(&s));
    let Some(sealing) = item.sealing.as_ref().filter(|s| s.nonce == nonce) else {
        // An enclave that ends takes the request with it.
        return if runs {
            Progress::Replaced
        } else {
            Progress::Ended
        };
    };
    let words = sealing.message.as_deref().unwrap_or("without a reason");
    match (sealing.state, &sealing.document) {
        (SealingState::Opened, _) if is_sealed => Progress::Opened,
        (SealingState::Opened, _) => Progress::Invented,
        (SealingState::Refused, _) if is_sealed => Progress::Refused(words),
        (SealingState::Refused, _) => Progress::NoDocument(words),
        _ if !runs => Progress::Ended,
        (SealingState::Attested, Some(document)) if !is_sealed => Progress::Attested(document),
        _ => Progress::Waits,
    }
}

#[cfg(test)]
mod tests {
    use control_plane_model::sealing::Sealing;

    use super::Progress::{Attested, Invented, NoDocument, Opened, Refused, Waits};
    use super::*;

    #[test]
    fn secret_progress_is_what_the_item_says_of_this_request() {
        let mut item = Enclave {
            status_text: Some("DEPLOYED".to_owned()),
            ..Enclave::default()
        };
        assert_eq!(progress(&item, "aa", false), Progress::Replaced);
        let sealing = |state, document: Option<&str>, message: Option<&str>| Sealing {
            state,
            nonce: "aa".to_owned(),
            expires_at: String::new(),
            name: None,
            document: document.map(str::to_owned),
            sealed: None,
            message: message.map(str::to_owned),
        };
        // The item's state, document and message; then what that is before this command has
        // sealed, and after.
        for (state, document, message, before, after) in [
            (SealingState::Asked, None, None, Waits, Waits),
            (
                SealingState::Attested,
                Some("d"),
                None,
                Attested("d"),
                Waits,
            ),
            // The document is gone if its time is up.
            (SealingState::Attested, None, None, Waits, Waits),
            (SealingState::Sealed, None, None, Waits, Waits),
            // Where nothing was sealed, nothing can have been opened or refused.
            (SealingState::Opened, None, None, Invented, Opened),
            (
                SealingState::Refused,
                None,
                Some("no"),
                NoDocument("no"),
                Refused("no"),
            ),
        ] {
            item.sealing = Some(sealing(state, document, message));
            assert_eq!(progress(&item, "aa", false), before);
            assert_eq!(progress(&item, "aa", true), after);
            assert_eq!(progress(&item, "bb", true), Progress::Replaced);
        }
        item.sealing = Some(sealing(SealingState::Sealed, None, None));
        item.status_text = Some("FAILED".to_owned());
        assert_eq!(progress(&item, "aa", true), Progress::Ended);
        item.sealing = None;
        assert_eq!(progress(&item, "aa", true), Progress::Ended);
    }
}
