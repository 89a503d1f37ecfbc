//! The state machines, as the functions start and ask them.

use aws_sdk_sfn::Client;
use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::error::SdkError;
use aws_sdk_sfn::operation::describe_execution::DescribeExecutionError;
use aws_sdk_sfn::operation::start_execution::StartExecutionError;
use aws_sdk_sfn::types::ExecutionStatus;
use control_plane_model::Failure;
use control_plane_model::execution::{Action, Input};

/// Clients and ARNs.
#[derive(Debug, Clone)]
pub struct Workflows {
    client: Client,
    arns: Arns,
}

/// The state machines' ARNs. A function has only those that it starts.
#[derive(Debug, Clone, Default)]
pub struct Arns {
    /// `DEPLOYMENT_STEP_FUNCTION_ARN`
    pub deployment: Option<String>,
    /// `CLEANUP_STEP_FUNCTION_ARN`
    pub cleanup: Option<String>,
    /// `ATTESTATION_STEP_FUNCTION_ARN`
    pub attestation: Option<String>,
}

impl Arns {
    /// From the function's environment.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|arn| !arn.is_empty());
        Self {
            deployment: variable("DEPLOYMENT_STEP_FUNCTION_ARN"),
            cleanup: variable("CLEANUP_STEP_FUNCTION_ARN"),
            attestation: variable("ATTESTATION_STEP_FUNCTION_ARN"),
        }
    }
}

/// How far an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// It runs.
    Running,
    /// It succeeded, failed, timed out or was stopped.
    Ended,
    /// There is none: it never started, or it is forgotten after 90 days.
    Absent,
}

/// Whether somebody still waited for a task's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The execution goes on.
    Done,
    /// It has ended, or has been told before.
    TooLate,
}

impl Workflows {
    /// Those of an account.
    pub fn new(client: Client, arns: Arns) -> Self {
        Self { client, arns }
    }

    /// Starts `deployment` or `cleanup`, unless that was done before, and gives the
    /// execution's name.
    pub async fn start(&self, input: &Input) -> Result<String, Failure> {
        let (arn, variable) = match input.action {
            Action::Deploy => (&self.arns.deployment, "DEPLOYMENT_STEP_FUNCTION_ARN"),
            Action::Destroy => (&self.arns.cleanup, "CLEANUP_STEP_FUNCTION_ARN"),
        };
        let arn = arn.as_deref().ok_or_else(|| Failure::unset(variable))?;
        let name = input.execution_name();
        let input = serde_json::to_string(input).map_err(Failure::internal)?;
        self.start_named(arn, &name, input).await?;
        Ok(name)
    }

    /// The ARN of `attestation`.
    pub fn attestation_arn(&self) -> Result<&str, Failure> {
        self.arns
            .attestation
            .as_deref()
            .ok_or_else(|| Failure::unset("ATTESTATION_STEP_FUNCTION_ARN"))
    }

    /// Starts an execution, unless one of the name was started before.
    pub async fn start_named(&self, arn: &str, name: &str, input: String) -> Result<(), Failure> {
        let result = self
            .client
            .start_execution()
            .state_machine_arn(arn)
            .name(name)
            .input(input)
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), StartExecutionError::ExecutionAlreadyExists(_)) =>
            {
                Ok(())
            }
            Err(error) => Err(Failure::of_call("StartExecution", arn, &error)),
        }
    }

    /// How far an execution is.
    pub async fn progress(&self, arn: &str) -> Result<Progress, Failure> {
        match self
            .client
            .describe_execution()
            .execution_arn(arn)
            .send()
            .await
        {
            Ok(output) => Ok(match output.status() {
                ExecutionStatus::Running | ExecutionStatus::PendingRedrive => Progress::Running,
                _ => Progress::Ended,
            }),
            Err(SdkError::ServiceError(error))
                if matches!(
                    error.err(),
                    DescribeExecutionError::ExecutionDoesNotExist(_)
                ) =>
            {
                Ok(Progress::Absent)
            }
            Err(error) => Err(Failure::of_call("DescribeExecution", arn, &error)),
        }
    }

    /// Tells the execution that waits under a token that its task is done.
    pub async fn succeed(&self, token: &str, output: String) -> Result<Sent, Failure> {
        let result = self
            .client
            .send_task_success()
            .task_token(token)
            .output(output)
            .send()
            .await;
        sent("SendTaskSuccess", result)
    }

    /// Tells the execution that waits under a token that its task failed.
    pub async fn fail(&self, token: &str, kind: &str, cause: &str) -> Result<Sent, Failure> {
        let result = self
            .client
            .send_task_failure()
            .task_token(token)
            .error(kind)
            .cause(cause)
            .send()
            .await;
        sent("SendTaskFailure", result)
    }
}

/// What an answer to a token has come to. The code tells, whose shape some
/// stand-ins leave out.
fn sent<O, E, R>(call: &'static str, result: Result<O, SdkError<E, R>>) -> Result<Sent, Failure>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match result {
        Ok(_) => Ok(Sent::Done),
        Err(SdkError::ServiceError(error))
            if matches!(
                error.err().code(),
                Some("TaskTimedOut" | "TaskDoesNotExist" | "InvalidToken")
            ) =>
        {
            Ok(Sent::TooLate)
        }
        Err(error) => Err(Failure::of_call(call, "the execution", &error)),
    }
}
