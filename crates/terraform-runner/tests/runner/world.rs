//! The runner's surroundings: a stack, a Terraform and an environment.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use tempfile::TempDir;
use terraform_runner::{Assignment, Callback, Failure, Progress, Report, Settings, Stop};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::workflow::{LIMIT, Workflow};

/// What a deployment's Terraform says.
pub(crate) const DEPLOYED: &str = r#"
case "$1" in
plan)
  echo '{"@level":"info","@message":"Plan: 2 to add, 0 to change, 0 to destroy.","changes":{"add":2,"change":0,"remove":0,"operation":"plan"},"type":"change_summary"}'
  : > plan.tfplan ;;
apply)
  echo '{"@level":"info","@message":"creating","hook":{"resource":{"addr":"aws_instance.enclave"},"action":"create"},"type":"apply_start"}'
  echo '{"@level":"info","@message":"done","hook":{"resource":{"addr":"aws_instance.enclave"},"action":"create","elapsed_seconds":3},"type":"apply_complete"}'
  echo '{"@level":"info","@message":"Apply complete!","changes":{"add":2,"change":0,"remove":0,"operation":"apply"},"type":"change_summary"}'
  echo '{"@level":"info","@message":"Outputs: 2","outputs":{"instance_id":{"sensitive":false,"type":"string","value":"i-0123"},"secret":{"sensitive":true,"type":"string","value":"hunter2"}},"type":"outputs"}' ;;
esac
"#;

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) workflow: Workflow,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) settings: Settings,
}

impl World {
    /// `terraform` is the body of a shell script; each call is noted before it.
    pub(crate) async fn new(terraform: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workflow = Workflow::start().await;
        let stack = folder.path().join("stack");
        fs::create_dir(&stack).unwrap();
        fs::write(stack.join("main.tf"), "# the stack").unwrap();
        let notes = folder.path().display();
        let script = format!(
            "#!/bin/bash\nexport HERE={notes}\necho \"$*\" >> $HERE/commands\nenv > $HERE/environment\ncp *.json $HERE\n{terraform}"
        );
        let program = folder.path().join("terraform");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let variables = [
            ("ENCLAVE_ID", "payments-1"),
            ("ACTION", "deploy"),
            (
                "CONFIGURATION",
                r#"{"instance_type":"m6i.xlarge","cpu_count":2,"memory_mib":1024,"enable_debug":false,"workload_type":"service","health_check_path":"/health","health_check_interval":30,"aws_services":["kms"],"expose_ports":[8080],"image":{"reference":"payments:1","bucket":"artifacts","key":"images/a.eif","sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":7},"runtime_configuration":"{\"enclave_id\":\"payments-1\"}"}"#,
            ),
            ("WALLET_ADDRESS", "0xabc"),
            ("ENVIRONMENT", "dev"),
            ("PROJECT_NAME", "toolkit"),
            ("AWS_DEFAULT_REGION", "us-west-2"),
            ("AWS_REGION", "us-west-2"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_ENDPOINT_URL", workflow.endpoint.as_str()),
            ("VPC_ID", "vpc-1"),
            ("SUBNET_ID", "subnet-1"),
            ("SHARED_SECURITY_GROUP_ID", "sg-1"),
            ("INSTANCE_PROFILE_NAME", "enclave"),
            ("GATE_FUNCTION_NAME", "gate"),
            ("LOG_RETENTION_DAYS", "30"),
            ("AGENT_BUCKET", "artifacts"),
            ("AGENT_KEY", "agent/parent-agent"),
            (
                "AGENT_SHA256",
                "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            ),
            ("TF_STATE_BUCKET", "state"),
            ("DYNAMODB_TABLE_NAME", "enclaves"),
            ("EXECUTION_ARN", "arn:aws:states:us-west-2:1:execution:deployment:a"),
            ("TASK_TOKEN", "the-token-of-the-task"),
            ("TERRAFORM", program.to_str().unwrap()),
            ("STACK_DIR", stack.to_str().unwrap()),
            ("TMPDIR", folder.path().to_str().unwrap()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let mut settings = Settings::new(program, stack);
        settings.answer_pause = Duration::from_millis(5);
        settings.rescue_pause = Duration::from_millis(5);
        Self {
            folder,
            workflow,
            variables,
            settings,
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a file holds that the stand-in wrote.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Terraform's sub-commands so far.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.read("commands")
            .lines()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    }

    /// Starts the program.
    pub(crate) fn start(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_terraform-runner"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Runs the program to its end.
    pub(crate) async fn end(&self, child: Child) -> (i32, String) {
        let output: Output = timeout(LIMIT, child.wait_with_output())
            .await
            .expect("the runner does not end")
            .unwrap();
        let mut text = String::from_utf8(output.stdout).unwrap();
        text.push_str(&String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap(), text)
    }

    /// Starts the program and awaits it.
    pub(crate) async fn run(&self) -> (i32, String) {
        self.end(self.start()).await
    }

    /// Runs in this process, with this world's settings.
    pub(crate) async fn run_here(
        &self,
        stop: watch::Sender<Option<Stop>>,
    ) -> Result<Report, Failure> {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(&self.workflow.endpoint)
            .region(Region::new("us-west-2"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .load()
            .await;
        let assignment = Assignment::from_environment(&self.variables).unwrap();
        let callback = self.variables.get("TASK_TOKEN").map(|token| {
            let client = aws_sdk_sfn::Client::new(&config);
            Callback::new(client, token.clone(), self.settings.answer_pause)
        });
        let run = terraform_runner::run(
            &assignment,
            &self.settings,
            callback,
            Progress::nowhere(),
            stop,
        );
        timeout(LIMIT, run).await.expect("the runner does not end")
    }

    /// Waits for a file that the stand-in writes.
    pub(crate) async fn appears(&self, name: &str) {
        let path = self.path(name);
        let waiting = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, waiting).await.expect("the file never came");
    }
}

/// Whether a process still runs.
pub(crate) fn is_running(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}
