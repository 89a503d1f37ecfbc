//! Lambda function between agents and workflows: verifies documents.

#![forbid(unsafe_code)]

use control_plane::function;
use control_plane::gate::{Gate, roots};
use control_plane::store::Store;
use control_plane::workflows::{Arns, Workflows};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    function::log();
    let config = function::sdk_config().await;
    let store = Store::from_environment(aws_sdk_dynamodb::Client::new(&config))?;
    let workflows = Workflows::new(aws_sdk_sfn::Client::new(&config), Arns::default());
    let gate = Gate::new(store, workflows, roots()?);
    function::serve(|event| gate.handle(event)).await
}
