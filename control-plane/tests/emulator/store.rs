//! Conditional writes.

use control_plane_model::attributes::text;
use control_plane_model::item::name;
use control_plane_model::status::{Event, Status};
use control_plane_model::store::Outcome;
use control_plane_model::update::{Condition, Update};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::cloud::{Cloud, INDEX};

#[tokio::test]
async fn of_fifty_claims_one_wins() {
    let cloud = Cloud::start().await;
    cloud
        .put("e-1", Status::PendingDeploy, &[(name::REQUEST, "7")])
        .await;
    let mut claims = JoinSet::new();
    for number in 0..50 {
        let store = cloud.store.clone();
        claims.spawn(async move {
            let arn = format!("arn-{number}");
            let update = Update::transition("e-1", Event::ClaimDeploy, OffsetDateTime::now_utc())
                .when(Condition::Equal(name::REQUEST, text("7")))
                .set(name::EXECUTION_ARN, text(arn.as_str()));
            (arn, store.apply(&update).await.unwrap())
        });
    }
    let outcomes = claims.join_all().await;
    let winners: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Done)
        .collect();
    assert_eq!(winners.len(), 1);
    let item = cloud.store.get("e-1").await.unwrap().unwrap();
    assert_eq!(item.status(), Some(Status::Deploying));
    assert_eq!(item.execution_arn.as_ref(), Some(&winners[0].0));
}

#[tokio::test]
async fn no_event_is_written_over_a_status_that_the_table_does_not_permit() {
    let cloud = Cloud::start().await;
    for event in Event::ALL {
        for status in Status::ALL {
            cloud.put("e-1", status, &[]).await;
            let update = Update::transition("e-1", event, OffsetDateTime::now_utc());
            let done = cloud.store.apply(&update).await.unwrap() == Outcome::Done;
            let legal = event.from().contains(&status);
            assert_eq!(done, legal, "{event:?} over {status}");
            let after = if legal { event.to() } else { status };
            assert_eq!(cloud.status("e-1").await, Some(after));
        }
    }
}

#[tokio::test]
async fn nothing_is_made_of_an_item_that_is_not_there() {
    let cloud = Cloud::start().await;
    let update = Update::amend("nobody", OffsetDateTime::now_utc());
    assert_eq!(cloud.store.apply(&update).await.unwrap(), Outcome::Lost);
    assert_eq!(cloud.store.get("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn the_index_gives_items_by_status() {
    let cloud = Cloud::start().await;
    cloud.put("e-1", Status::Pausing, &[]).await;
    cloud.put("e-2", Status::Deployed, &[]).await;
    let page = cloud
        .store
        .with_status(INDEX, Status::Pausing, None)
        .await
        .unwrap();
    let ids: Vec<_> = page.enclaves.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["e-1"]);
}
