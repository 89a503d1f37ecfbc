//! Lambda function between agents and workflows: verifies documents.

#![forbid(unsafe_code)]

use control_plane::function;
use control_plane::gate::{EarSigner, Gate, verifier};
use control_plane::workflows::{Arns, Workflows};
use control_plane_model::clients::sdk_config;
use control_plane_model::environment::optional;
use control_plane_model::log;
use control_plane_model::store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    log::start();
    let config = sdk_config().await;
    let store = Store::from_environment(aws_sdk_dynamodb::Client::new(&config))?;
    let workflows = Workflows::new(aws_sdk_sfn::Client::new(&config), Arns::default());
    let kms = aws_sdk_kms::Client::new(&config);
    let ear = optional("EAR_KEY_ID").map(|key| EarSigner::new(kms, key));
    let gate = Gate::new(store, workflows, verifier()?, ear);
    function::serve(|event| gate.handle(event)).await
}
