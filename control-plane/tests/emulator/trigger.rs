//! The trigger's batches.

use control_plane::trigger;
use control_plane_model::item::name;
use control_plane_model::status::Status;
use serde_json::{Value, json};

use crate::cloud::Cloud;

fn record(number: u32, id: &str, old: &str, new: &str) -> Value {
    let image = |status: &str| json!({"id": {"S": id}, "status": {"S": status}});
    json!({
        "eventName": "MODIFY",
        "dynamodb": {
            "Keys": {"id": {"S": id}},
            "SequenceNumber": number.to_string(),
            "OldImage": image(old),
            "NewImage": image(new),
        },
    })
}

async fn handle(cloud: &Cloud, records: Vec<Value>) -> Value {
    let event = json!({ "Records": records });
    trigger::handle(&cloud.store, &cloud.workflows, &event).await
}

#[tokio::test]
async fn a_refused_write_is_put_back_with_the_reason() {
    let cloud = Cloud::start().await;
    cloud.put("e-1", Status::PendingDestroy, &[]).await;
    let refused = || vec![record(5, "e-1", "DEPLOYING", "PENDING_DESTROY")];
    let answer = handle(&cloud, refused()).await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    let item = cloud.store.get("e-1").await.unwrap().unwrap();
    assert_eq!(item.status(), Some(Status::Deploying));
    assert_eq!(item.error_type.as_deref(), Some("Refused"));
    // The same record again, when a later and legal request is there.
    cloud
        .put(
            "e-1",
            Status::PendingDestroy,
            &[(name::REFUSED, item.refused.as_deref().unwrap())],
        )
        .await;
    handle(&cloud, refused()).await;
    assert_eq!(cloud.status("e-1").await, Some(Status::PendingDestroy));
}

#[tokio::test]
async fn a_poisoned_record_does_not_block_those_behind_it() {
    let cloud = Cloud::start().await;
    cloud.put("e-1", Status::PendingDeploy, &[]).await;
    cloud.put("e-2", Status::PendingDestroy, &[]).await;
    let mut poison = record(1, "e-1", "FAILED", "PENDING_DEPLOY");
    poison["dynamodb"]["NewImage"]["providerConfig"] = json!({"M": 7});
    let behind = record(2, "e-2", "DEPLOYING", "PENDING_DESTROY");
    let answer = handle(&cloud, vec![poison, json!(7), behind]).await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    let item = cloud.store.get("e-1").await.unwrap().unwrap();
    assert_eq!(item.status(), Some(Status::Failed));
    assert_eq!(item.error_type.as_deref(), Some("UnreadableRequest"));
    assert_eq!(cloud.status("e-2").await, Some(Status::Deploying));
}

#[tokio::test]
async fn a_start_that_fails_is_reported_for_another_delivery() {
    let cloud = Cloud::start().await;
    cloud.put("e-1", Status::PendingDeploy, &[]).await;
    let item = cloud.store.get("e-1").await.unwrap().unwrap();
    let mut request = record(9, "e-1", "FAILED", "PENDING_DEPLOY");
    request["dynamodb"]["NewImage"]["updated_at"] = json!({"S": item.updated_at.unwrap()});
    // The state machine does not exist.
    let answer = handle(&cloud, vec![request.clone()]).await;
    assert_eq!(answer["batchItemFailures"][0]["itemIdentifier"], "9");
    let item = cloud.store.get("e-1").await.unwrap().unwrap();
    assert!(
        item.request.unwrap().ends_with('9'),
        "the ticket is given out"
    );
    let again = handle(&cloud, vec![request]).await;
    assert_eq!(again, answer);
}
