//! All enclaves.

use anyhow::Context;
use command_output::{out, outln};
use control_plane_model::item::Enclave;
use control_plane_model::status::Status;
use measurements::Measurements;
use serde_json::{Value, json};

use crate::End;
use crate::cloud::Cloud;
use crate::table::columns;
use crate::watch::{as_json, attested, image, output};
use plain_text::plain;

/// Enclaves that are listed, at most.
const MAX: usize = 10_000;

pub(crate) async fn list(cloud: &Cloud, status: Option<&str>, json: bool) -> anyhow::Result<End> {
    let statuses = match status {
        None => Status::ALL.to_vec(),
        Some(name) => {
            let upper = name.to_ascii_uppercase();
            let names: Vec<_> = Status::ALL.iter().map(|status| status.name()).collect();
            vec![Status::parse(&upper).with_context(|| {
                format!("{name} is not a status: use one of {}", names.join(", "))
            })?]
        }
    };
    let items = enclaves(cloud, &statuses).await?;
    if json {
        outln!("{}", items.iter().map(as_json).collect::<Value>());
        return Ok(End::Done);
    }
    if items.is_empty() {
        outln!("no enclaves");
        return Ok(End::Done);
    }
    let rows: Vec<_> = items.iter().map(row).collect();
    out!(
        "{}",
        columns(
            &["ID", "STATUS", "UPDATED", "INSTANCE", "IMAGE", "NOTE"],
            &rows
        )
    );
    Ok(End::Done)
}

fn row(item: &Enclave) -> Vec<String> {
    let note = item
        .error_message
        .clone()
        .or_else(|| item.progress.clone())
        .or_else(|| item.attestation.as_ref().map(|a| attested(a, true)));
    let dash = || "-".to_owned();
    [
        Some(item.id.clone()),
        item.status_text.clone(),
        item.updated_at.clone(),
        output(item, "instance_id"),
        image(item).map(|image| image.published.reference),
        note,
    ]
    .map(|cell| cell.map_or_else(dash, |cell| plain(&cell)))
    .to_vec()
}

/// What auditors ask for: which code runs where, and since when that is known.
pub(crate) async fn inventory(cloud: &Cloud, json: bool) -> anyhow::Result<End> {
    let items = enclaves(cloud, &[Status::Deployed, Status::Paused]).await?;
    let rows: Vec<_> = items.iter().map(entry).collect();
    if json {
        outln!("{}", Value::from(rows));
        return Ok(End::Done);
    }
    if rows.is_empty() {
        outln!("nothing is deployed");
        return Ok(End::Done);
    }
    for row in rows {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(plain);
        outln!(
            "{}",
            crate::table::pairs(&[
                ("id", text("id")),
                ("status", text("status")),
                ("instance", text("instance_id")),
                ("image", text("image")),
                ("SHA-256", text("sha256")),
                ("PCR0", text("pcr0")),
                ("PCR8", text("pcr8")),
                ("attested", text("verified_at")),
            ])
        );
    }
    Ok(End::Done)
}

fn entry(item: &Enclave) -> Value {
    let image = image(item);
    let measurements: Option<Measurements> = image
        .as_ref()
        .and_then(|image| serde_json::from_str(&image.published.measurements).ok());
    json!({
        "id": item.id,
        "status": item.status_text,
        "instance_id": output(item, "instance_id"),
        "image": image.as_ref().map(|image| image.published.reference.as_str()),
        "sha256": image.as_ref().map(|image| image.published.sha256.as_str()),
        "pcr0": measurements.map(|measured| measured.pcr0.to_string()),
        "pcr8": measurements.and_then(|measured| measured.pcr8).map(|pcr8| pcr8.to_string()),
        "debug": image.as_ref().map(|image| image.enable_debug),
        "verified_at": item.attestation.as_ref().and_then(|a| a.verified_at.as_deref()),
    })
}

/// The enclaves of these statuses, from the index, by id.
pub(crate) async fn enclaves(cloud: &Cloud, statuses: &[Status]) -> anyhow::Result<Vec<Enclave>> {
    let mut items = Vec::new();
    for status in statuses {
        let mut next = None;
        loop {
            let index = &cloud.parts.status_index;
            let page = cloud.store.with_status(index, *status, next).await?;
            items.extend(page.enclaves.into_iter().filter(|item| !item.is_foreign()));
            next = page.next;
            if next.is_none() || items.len() >= MAX {
                break;
            }
        }
    }
    items.sort_by(|first, second| first.id.cmp(&second.id));
    Ok(items)
}
