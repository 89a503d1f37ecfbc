//! What the runner does when all goes well, and when Terraform does not.

use serde_json::{Value, json};

use crate::world::{DEPLOYED, World};

#[tokio::test]
async fn a_deployment_is_planned_applied_and_reported() {
    let world = World::new(DEPLOYED).await;
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(world.commands(), ["init", "plan", "apply"]);
    let output = world.workflow.only("SendTaskSuccess");
    assert_eq!(output["taskToken"], "the-token-of-the-task");
    let output: Value = serde_json::from_str(output["output"].as_str().unwrap()).unwrap();
    assert_eq!(
        output,
        json!({
            "action": "deploy",
            "outputs": {"instance_id": "i-0123"},
            "changes": {"add": 2, "change": 0, "remove": 0}
        })
    );
    assert!(!world.workflow.calls("SendTaskHeartbeat").is_empty());
    assert!(world.workflow.calls("SendTaskFailure").is_empty());
    // Each line is an event, and none has a secret.
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(
            event["level"].is_string() && event["message"].is_string(),
            "{line}"
        );
    }
    assert!(
        !log.contains("hunter2") && !log.contains("the-token-of-the-task"),
        "{log}"
    );
}

#[tokio::test]
async fn the_stack_gets_its_variables_and_its_backend() {
    let world = World::new(DEPLOYED).await;
    world.run().await;
    let variables: Value = serde_json::from_str(&world.read("terraform.tfvars.json")).unwrap();
    assert_eq!(
        variables,
        json!({
            "enclave_id": "payments-1", "wallet_address": "0xabc", "environment": "dev",
            "project_name": "toolkit", "aws_region": "us-west-2", "vpc_id": "vpc-1",
            "subnet_id": "subnet-1", "security_group_id": "sg-1",
            "instance_profile_name": "enclave", "instance_type": "m6i.xlarge",
            "cpu_count": 2, "memory_mib": 1024, "enable_debug": false,
            "workload_type": "service", "health_check_path": "/health",
            "health_check_interval": 30, "aws_services": ["kms"], "expose_ports": [8080],
            "image": {"reference": "payments:1", "bucket": "artifacts", "key": "images/a.eif",
                "sha256": "a".repeat(64), "size": 7},
            "agent": {"bucket": "artifacts", "key": "agent/parent-agent", "sha256": "b".repeat(64)},
            "gate_function_name": "gate",
            "runtime_configuration": "{\"enclave_id\":\"payments-1\"}",
            "log_retention_days": 30
        })
    );
    let backend: Value = serde_json::from_str(&world.read("backend.tfbackend.json")).unwrap();
    assert_eq!(
        backend,
        json!({
            "bucket": "state", "key": "enclaves/payments-1/terraform.tfstate",
            "region": "us-west-2", "use_lockfile": true, "use_path_style": true
        })
    );
}

#[tokio::test]
async fn a_lock_table_replaces_the_lock_file() {
    let mut world = World::new(DEPLOYED).await;
    world.set("TF_STATE_DYNAMODB_TABLE", "locks");
    world.run().await;
    let backend: Value = serde_json::from_str(&world.read("backend.tfbackend.json")).unwrap();
    assert_eq!(backend["dynamodb_table"], "locks");
    assert_eq!(backend.get("use_lockfile"), None);
}

#[tokio::test]
async fn terraform_does_not_get_what_is_for_the_runner_alone() {
    let mut world = World::new(DEPLOYED).await;
    world.set("TF_LOG", "trace");
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "{log}");
    let environment = world.read("environment");
    for name in ["TASK_TOKEN", "CONFIGURATION", "EXECUTION_ARN", "TF_LOG"] {
        assert!(!environment.contains(&format!("{name}=")), "{name}");
    }
    assert!(environment.contains("TF_IN_AUTOMATION=1"));
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let mut world = World::new(DEPLOYED).await;
    world.set("ACTION", "plan");
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(world.commands(), ["init", "plan"]);
    let output = world.workflow.only("SendTaskSuccess");
    assert!(output["output"].as_str().unwrap().contains(r#""add":2"#));
}

#[tokio::test]
async fn a_destroy_plans_a_destruction_whatever_was_asked_for() {
    let mut world = World::new(DEPLOYED).await;
    world.set("ACTION", "destroy");
    world.set("CONFIGURATION", r#"{"cpu_count":"nonsense"}"#);
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "{log}");
    assert!(world.read("commands").contains("-destroy"));
    assert_eq!(world.commands(), ["init", "plan", "apply"]);
}

#[tokio::test]
async fn progress_is_written_while_the_execution_owns_the_item() {
    let world = World::new(&DEPLOYED.replace(
        "echo '{\"@level\":\"info\",\"@message\":\"done\"",
        "sleep 4\n  echo '{\"@level\":\"info\",\"@message\":\"done\"",
    ))
    .await;
    let child = world.start();
    let write = world
        .workflow
        .wait("UpdateItem", |body| {
            body["ExpressionAttributeValues"][":progress"]["S"]
                .as_str()
                .is_some_and(|line| line == "creating aws_instance.enclave (1 of 2)")
        })
        .await;
    assert_eq!(write["Key"]["id"]["S"], "payments-1");
    assert_eq!(write["ConditionExpression"], "runner = :own");
    let (code, log) = world.end(child).await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test]
async fn progress_that_cannot_be_written_is_no_failure() {
    let world = World::new(DEPLOYED).await;
    world
        .workflow
        .fail("UpdateItem", 400, "ConditionalCheckFailedException", 10);
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test]
async fn terraforms_errors_reach_the_workflow() {
    let world = World::new(
        r#"[ $1 = apply ] || exit 0
echo '{"@level":"error","@message":"Error: no capacity","diagnostic":{"severity":"error","summary":"creating EC2 Instance","detail":"InsufficientInstanceCapacity","address":"aws_instance.enclave","snippet":{"values":[{"statement":"hunter2"}]}},"type":"diagnostic"}'
exit 1"#,
    )
    .await;
    let (code, log) = world.run().await;
    assert_eq!(code, 3, "{log}");
    let failure = world.workflow.only("SendTaskFailure");
    assert_eq!(failure["error"], "TerraformFailed");
    let cause: Value = serde_json::from_str(failure["cause"].as_str().unwrap()).unwrap();
    assert_eq!(cause["exit_code"], 1);
    assert_eq!(
        cause["errorMessage"],
        "`terraform apply` failed (exit code 1): aws_instance.enclave: creating EC2 Instance: InsufficientInstanceCapacity"
    );
    assert!(!log.contains("hunter2"));
}

#[tokio::test]
async fn a_crash_is_told_with_its_last_words() {
    let world =
        World::new("[ $1 = plan ] || exit 0\necho 'panic: runtime error' >&2\nkill -9 $$").await;
    let (code, log) = world.run().await;
    assert_eq!(code, 3, "{log}");
    let cause = world.workflow.only("SendTaskFailure")["cause"].to_string();
    assert!(
        cause.contains("ended by a signal") && cause.contains("panic: runtime error"),
        "{cause}"
    );
}

#[tokio::test]
async fn garbage_and_endless_lines_are_survived() {
    let world = World::new(&format!(
        "head -c 3000000 /dev/zero | tr '\\0' x\nhead -c 100000 /dev/urandom\necho\nfor i in $(seq 30000); do echo \"{{\\\"type\\\":$i\"; done\n{DEPLOYED}"
    ))
    .await;
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "the log has {} bytes", log.len());
    assert!(log.contains("output-cut"));
    let output = world.workflow.only("SendTaskSuccess")["output"].to_string();
    assert!(output.contains("i-0123"), "{output}");
}

#[tokio::test]
async fn an_environment_that_cannot_be_used_is_told_with_every_problem() {
    let mut world = World::new(DEPLOYED).await;
    world.set("VPC_ID", "");
    world.set("AGENT_SHA256", "abc");
    let (code, log) = world.run().await;
    assert_eq!(code, 2, "{log}");
    let failure = world.workflow.only("SendTaskFailure");
    assert_eq!(failure["error"], "InvalidConfiguration");
    let cause = failure["cause"].as_str().unwrap();
    assert!(
        cause.contains("VPC_ID") && cause.contains("AGENT_SHA256"),
        "{cause}"
    );
    assert!(world.commands().is_empty());
}

#[tokio::test]
async fn a_terraform_that_is_not_there_is_told() {
    let mut world = World::new(DEPLOYED).await;
    world.set("TERRAFORM", "/nowhere/terraform");
    let (code, log) = world.run().await;
    assert_eq!(code, 1, "{log}");
    let failure = world.workflow.only("SendTaskFailure");
    assert_eq!(failure["error"], "RunnerFailed");
    assert!(
        failure["cause"]
            .as_str()
            .unwrap()
            .contains("/nowhere/terraform")
    );
}

#[tokio::test]
async fn a_stack_that_is_not_there_is_told() {
    let mut world = World::new(DEPLOYED).await;
    world.set("STACK_DIR", "/nowhere/stack");
    let (code, log) = world.run().await;
    assert_eq!(code, 1, "{log}");
    assert!(
        world.workflow.only("SendTaskFailure")["cause"]
            .as_str()
            .unwrap()
            .contains("STACK_DIR")
    );
}

#[tokio::test]
async fn a_state_that_could_not_be_written_is_tried_again() {
    let world = World::new(
        r#"case "$1" in
apply) echo '{"resources":[]}' > errored.tfstate; exit 1 ;;
state) [ -e $HERE/once ] || { touch $HERE/once; exit 1; } ;;
esac"#,
    )
    .await;
    let failure = world
        .run_here(tokio::sync::watch::Sender::new(None))
        .await
        .unwrap_err();
    assert_eq!(failure.name(), "TerraformFailed");
    assert_eq!(
        world.commands(),
        ["init", "plan", "apply", "state", "state"]
    );
}

#[tokio::test]
async fn without_a_token_the_result_is_the_exit_code() {
    let mut world = World::new(DEPLOYED).await;
    world.variables.remove("TASK_TOKEN");
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "{log}");
    assert!(world.workflow.calls("SendTaskSuccess").is_empty());
    assert!(world.workflow.calls("SendTaskHeartbeat").is_empty());
}
