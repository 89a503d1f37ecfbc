//! The definitions of the state machines write only what the table of statuses
//! permits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use control_plane_model::status::{Actor, Status, TABLE, permits};
use serde_json::Value;

/// A write of a status, as a definition has it.
#[derive(Debug)]
struct Write {
    condition: String,
    from: Vec<Status>,
    to: Option<Status>,
}

/// A definition with something in each of its places.
fn definition(name: &str) -> Value {
    let path =
        Path::new("../terraform/modules/step-functions").join(format!("{name}.asl.json.tftpl"));
    let template = std::fs::read_to_string(&path).unwrap();
    let mut text = template.replace("${jsonencode(subnet_ids)}", "[]");
    while let Some(start) = text.find("${") {
        let end = start + text[start..].find('}').unwrap();
        text.replace_range(start..=end, "1");
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn writes(definition: &Value) -> Vec<Write> {
    let states = definition["States"].as_object().unwrap();
    let updates = states.iter().filter(|(_, state)| {
        let resource = state["Resource"].as_str().unwrap_or_default();
        resource.ends_with("dynamodb:updateItem")
    });
    updates
        .map(|(name, state)| {
            let arguments = &state["Arguments"];
            let named = |alias: &str| {
                let value = arguments["ExpressionAttributeValues"][alias]["S"].as_str()?;
                Some(Status::parse(value).unwrap_or_else(|| panic!("{name}: {value}")))
            };
            Write {
                condition: arguments["ConditionExpression"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
                from: [":from", ":pending"]
                    .into_iter()
                    .filter_map(named)
                    .collect(),
                to: named(":to"),
            }
        })
        .collect()
}

const MACHINES: [(&str, Actor); 3] = [
    ("deployment", Actor::Deployment),
    ("cleanup", Actor::Cleanup),
    ("attestation", Actor::Attestation),
];

#[test]
fn every_status_that_a_workflow_writes_is_in_the_table() {
    let mut found = 0;
    for (name, actor) in MACHINES {
        for write in writes(&definition(name)) {
            assert!(!write.from.is_empty(), "{name}: {write:?}");
            let Some(to) = write.to else { continue };
            // Where the error handler fails, the workflow marks the item itself.
            let actor = match to {
                Status::Failed => Actor::ErrorHandler,
                _ => actor,
            };
            for from in &write.from {
                assert!(permits(Some(*from), actor, to), "{name}: {write:?}");
                found += 1;
            }
        }
    }
    assert!(found >= 8, "{found} writes");
}

#[test]
fn every_write_of_a_workflow_demands_that_the_item_is_its_own() {
    for (name, _) in MACHINES {
        for write in writes(&definition(name)) {
            let owned = write.condition.contains("execution_arn = :own")
                || write
                    .condition
                    .contains("attribute_not_exists(execution_arn)");
            assert!(owned, "{name}: {write:?}");
            let pending = [Status::PendingDeploy, Status::PendingDestroy];
            if write.from.iter().any(|from| pending.contains(from)) {
                assert!(
                    write.condition.contains("request = :request"),
                    "{name}: {write:?}"
                );
            }
        }
    }
}

#[test]
fn every_transition_of_a_workflow_is_in_its_definition() {
    for (name, actor) in MACHINES {
        let writes = writes(&definition(name));
        for row in TABLE.iter().filter(|row| row.event.actor() == actor) {
            let from = row.from.unwrap();
            assert!(
                writes
                    .iter()
                    .any(|write| write.to == Some(row.event.to()) && write.from.contains(&from)),
                "{name}: {row:?}"
            );
        }
    }
}
