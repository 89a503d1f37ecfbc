//! The definitions of the state machines write only what the table of statuses
//! permits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use control_plane_model::item::name;
use control_plane_model::sealing::STATUSES;
use control_plane_model::status::{Actor, Status, TABLE, permits};
use serde_json::Value;

/// A write of a status, as a definition has it.
#[derive(Debug)]
struct Write {
    update: String,
    condition: String,
    from: Vec<Status>,
    to: Option<Status>,
    removed: Vec<String>,
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

/// The attributes that an update removes.
fn removed(update: &str) -> Vec<String> {
    let (_, names) = update.split_once(" REMOVE ").unwrap_or_default();
    names.split(", ").map(str::to_owned).collect()
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
                update: arguments["UpdateExpression"].as_str().unwrap().to_owned(),
                condition: arguments["ConditionExpression"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
                from: [":from", ":pending"]
                    .into_iter()
                    .filter_map(named)
                    .collect(),
                to: named(":to"),
                removed: removed(arguments["UpdateExpression"].as_str().unwrap()),
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
fn every_end_of_a_boot_and_every_claim_of_a_new_one_removes_what_is_about_it() {
    let mut found = 0;
    for (name, _) in MACHINES {
        for write in writes(&definition(name)) {
            let Some(to) = write.to else { continue };
            let same_boot = |status| STATUSES.contains(status);
            if same_boot(&to) && write.from.iter().all(same_boot) {
                continue;
            }
            for attribute in name::OF_A_BOOT {
                let is_removed = write.removed.iter().any(|removed| removed == attribute);
                // What a failed enclave waited for may be why it failed.
                let is_kept = to == Status::Failed && attribute == name::WAITING;
                assert_eq!(is_removed, !is_kept, "{name}: {attribute}: {write:?}");
            }
            found += 1;
        }
    }
    assert_eq!(found, 6, "of three machines");
}

#[test]
fn progress_may_be_written_from_the_claim_to_the_end_by_that_executions_runner() {
    let mut claims = 0;
    for name in ["deployment", "cleanup"] {
        for write in writes(&definition(name)) {
            let is_claim = write.update.contains("execution_arn = :own");
            let claims_it = write.update.contains("runner = :own");
            let removes_it = write.removed.iter().any(|removed| removed == name::RUNNER);
            assert_eq!(claims_it, is_claim, "{name}: {write:?}");
            assert_eq!(removes_it, !is_claim, "{name}: {write:?}");
            assert!(
                write
                    .removed
                    .iter()
                    .any(|removed| removed == name::PROGRESS)
            );
            claims += usize::from(is_claim);
        }
    }
    assert_eq!(claims, 2);
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
