//! What is decided about changes, and which are admitted.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn record(old: Option<&str>, new: &str) -> Value {
    let image = |status: &str| {
        json!({"id": {"S": "a"}, "status": {"S": status},
        "execution_arn": {"S": "arn"}, "providerConfig": {"M": {"cpuCount": {"N": "2"}}}})
    };
    let mut stream = json!({
        "Keys": {"id": {"S": "a"}},
        "SequenceNumber": "100",
        "NewImage": image(new),
    });
    if let Some(old) = old {
        stream["OldImage"] = image(old);
    }
    json!({ "eventName": "MODIFY", "dynamodb": stream })
}

fn decide(record: &Value) -> Decision {
    Change::parse(record).unwrap().decide(NOW)
}

#[test]
fn requests_start_their_workflow() {
    for (old, new, action) in [
        (None, "PENDING_DEPLOY", Action::Deploy),
        (Some("FAILED"), "PENDING_DEPLOY", Action::Deploy),
        (Some("DESTROYED"), "PENDING_DEPLOY", Action::Deploy),
        (Some("of another system"), "PENDING_DEPLOY", Action::Deploy),
        (None, "PENDING_DESTROY", Action::Destroy),
        (Some("DEPLOYED"), "PENDING_DESTROY", Action::Destroy),
        (Some("PAUSED"), "PENDING_DESTROY", Action::Destroy),
        (Some("PENDING_DEPLOY"), "PENDING_DESTROY", Action::Destroy),
    ] {
        let record = record(old, new);
        let Decision::Start(input) = decide(&record) else {
            panic!("{old:?} {new}");
        };
        assert_eq!(input.action, action);
        assert_eq!(input.sequence_number, sequence("100"));
        let change = Change::parse(&record).unwrap();
        let item = Enclave::from_attributes(change.new.as_ref().unwrap());
        let Admission::Ticket(ticket) = change.admit(&item, Some(Progress::Ended), NOW) else {
            panic!("{old:?} {new}");
        };
        assert!(ticket.set.contains(&(name::REQUEST, text(sequence("100")))));
    }
}

#[test]
fn a_request_beside_an_execution_that_goes_on_is_not_admitted() {
    let admission = |old: &str, status: &str, arn: &str, owner| {
        let mut record = record(Some(old), "PENDING_DESTROY");
        record["dynamodb"]["NewImage"]["execution_arn"] = json!({ "S": arn });
        let change = Change::parse(&record).unwrap();
        let mut item = Enclave::from_attributes(change.new.as_ref().unwrap());
        item.status_text = Some(status.to_owned());
        change.admit(&item, owner, NOW)
    };
    let running = Some(Progress::Running);
    let arn = "arn:aws:states:r:1:execution:m:deploy-a-1";
    let hidden = admission("PENDING_DEPLOY", "PENDING_DESTROY", arn, running);
    let Admission::PutBack(update) = hidden else {
        panic!("{hidden:?}");
    };
    assert!(update.set.contains(&(name::STATUS, text("DEPLOYING"))));
    assert_eq!(
        admission("DEPLOYED", "PENDING_DESTROY", arn, running),
        Admission::Later
    );
    assert_eq!(
        admission("DEPLOYED", "DESTROYING", arn, None),
        Admission::Past
    );
}

#[test]
fn an_execution_that_lost_its_item_gets_it_back_and_none_that_has_it_gets_more() {
    let arn = "arn:aws:states:r:1:execution:m:deploy-a-1";
    let mut record = record(Some("PENDING_DEPLOY"), "PENDING_DEPLOY");
    record["dynamodb"]["OldImage"]["execution_arn"] = json!({ "S": arn });
    let new = record["dynamodb"]["NewImage"].as_object_mut().unwrap();
    new.remove("execution_arn");
    let change = Change::parse(&record).unwrap();
    let mut item = Enclave::from_attributes(change.new.as_ref().unwrap());
    item.status_text = Some("PENDING_DESTROY".to_owned());
    assert_eq!(change.owner(&item).as_deref(), Some(arn));
    let running = Some(Progress::Running);
    let Admission::Restore(restore) = change.admit(&item, running, NOW) else {
        panic!("not restored");
    };
    assert_eq!(restore.restore, [(name::EXECUTION_ARN, text(arn))]);
    let ended = Some(Progress::Ended);
    assert_eq!(change.admit(&item, ended, NOW), Admission::Past);
    // Delivered again when another execution has claimed the item.
    item.execution_arn = Some("arn:aws:states:r:1:execution:m:deploy-a-2".to_owned());
    assert_eq!(change.admit(&item, running, NOW), Admission::Past);
}

#[test]
fn what_an_execution_would_get_back_that_has_ended_may_be_started_instead() {
    let Decision::Refuse { instead, .. } = decide(&record(Some("DEPLOYING"), "PENDING_DEPLOY"))
    else {
        panic!("not refused");
    };
    let (owner, input) = instead.unwrap();
    assert_eq!(owner, "arn");
    assert_eq!(input.action, Action::Deploy);
    let Decision::Refuse { instead, .. } = decide(&record(Some("DEPLOYED"), "PENDING_DEPLOY"))
    else {
        panic!("not refused");
    };
    assert_eq!(instead, None);
}

#[test]
fn illegal_requests_are_put_back_and_start_nothing() {
    for (old, new) in [
        ("DEPLOYING", "PENDING_DESTROY"),
        ("DEPLOYED", "PENDING_DEPLOY"),
        ("DESTROYED", "PENDING_DESTROY"),
        ("DESTROYING", "PENDING_DEPLOY"),
        ("DEPLOYING", "PAUSING"),
        ("FAILED", "RESUMING"),
    ] {
        let Decision::Refuse { put_back, .. } = decide(&record(Some(old), new)) else {
            panic!("{old} {new}");
        };
        assert!(
            put_back.set.contains(&(name::STATUS, text(old))),
            "{old} {new}"
        );
    }
}

#[test]
fn what_a_whole_item_dropped_is_restored() {
    let mut record = record(Some("DEPLOYING"), "PENDING_DESTROY");
    let new = record["dynamodb"]["NewImage"].as_object_mut().unwrap();
    new.remove("execution_arn");
    new.remove("providerConfig");
    let Decision::Refuse { put_back, .. } = decide(&record) else {
        panic!("not refused");
    };
    assert_eq!(put_back.restore, [(name::EXECUTION_ARN, text("arn"))]);
    assert!(
        put_back
            .set
            .iter()
            .any(|(name, _)| *name == "providerConfig")
    );
}

#[test]
fn the_control_planes_own_writes_start_nothing() {
    let mut ticket = record(Some("PENDING_DEPLOY"), "PENDING_DEPLOY");
    ticket["dynamodb"]["NewImage"]["request"] = json!({"S": sequence("99")});
    assert!(matches!(decide(&ticket), Decision::Ignore(_)));
    ticket["dynamodb"]["OldImage"]["request"] = json!({"S": sequence("98")});
    assert!(matches!(decide(&ticket), Decision::Ignore(_)));
    for (old, new) in [("DEPLOYING", "DEPLOYED"), ("DEPLOYING", "FAILED")] {
        assert!(matches!(
            decide(&record(Some(old), new)),
            Decision::Ignore(_)
        ));
    }
}

#[test]
fn a_request_that_was_put_back_starts_again() {
    let mut back = record(Some("PAUSING"), "PENDING_DEPLOY");
    back["dynamodb"]["NewImage"]["refused"] = json!({"S": sequence("99")});
    assert!(matches!(decide(&back), Decision::Start(_)));
}

#[test]
fn a_request_that_is_written_again_starts_again() {
    let mut again = record(Some("PENDING_DESTROY"), "PENDING_DESTROY");
    for image in ["OldImage", "NewImage"] {
        again["dynamodb"][image]["request"] = json!({"S": sequence("99")});
    }
    assert!(matches!(decide(&again), Decision::Start(_)));
}

#[test]
fn items_of_other_providers_are_left_alone() {
    let mut foreign = record(None, "PENDING_DEPLOY");
    foreign["dynamodb"]["NewImage"]["providerId"] = json!({"S": "phala"});
    assert!(matches!(decide(&foreign), Decision::Ignore(_)));
}

#[test]
fn a_record_that_cannot_be_read_is_marked_where_its_id_can() {
    let mut broken = record(None, "PENDING_DEPLOY");
    broken["dynamodb"]["NewImage"]["providerConfig"] = json!({"M": 7});
    let poison = Change::parse(&broken).unwrap_err();
    let update = poison.reject(NOW).unwrap();
    assert!(update.set.contains(&(name::STATUS, text("FAILED"))));
    assert_eq!(update.id, "a");
    for nothing in [
        json!(null),
        json!({"dynamodb": {"SequenceNumber": "x"}}),
        json!([]),
    ] {
        assert!(Change::parse(&nothing).unwrap_err().reject(NOW).is_none());
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!({"S": "PENDING_DEPLOY"})),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let keys = prop_oneof![
            "[A-Z]{1,2}",
            "dynamodb|NewImage|OldImage|Keys|id|status|SequenceNumber"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_record_brings_it_down(record in json_value()) {
        if let Ok(change) = Change::parse(&record) {
            let _ = change.decide(NOW);
        }
    }
}
