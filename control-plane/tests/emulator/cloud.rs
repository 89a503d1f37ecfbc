//! The emulator, and what the tests put into it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use control_plane::workflows::{Arns, Workflows};
use control_plane_model::attributes::{Attributes, text};
use control_plane_model::item::{name, timestamp};
use control_plane_model::status::Status;
use control_plane_model::store::Store;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub(crate) const TABLE: &str = "enclaves";
pub(crate) const INDEX: &str = "status-index";
const LIMIT: Duration = Duration::from_secs(120);

/// An emulator; it ends with this.
pub(crate) struct Cloud {
    pub(crate) config: SdkConfig,
    pub(crate) dynamodb: Client,
    pub(crate) store: Store,
    pub(crate) workflows: Workflows,
    child: Child,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        let python = std::env::var_os("ENCLAVE_TEST_PYTHON")
            .map(PathBuf::from)
            .expect("ENCLAVE_TEST_PYTHON is not set: run `cargo xtask test`");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let child = Command::new(python.with_file_name("ministack"))
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the emulator starts");
        let listening = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, listening)
            .await
            .expect("the emulator listens");
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .load()
            .await;
        let dynamodb = Client::new(&config);
        create_table(&dynamodb).await;
        let workflows = Workflows::new(
            aws_sdk_sfn::Client::new(&config),
            Arns {
                deployment: Some("arn:aws:states:us-west-2:000000000000:stateMachine:none".into()),
                ..Arns::default()
            },
        );
        Self {
            store: Store::new(dynamodb.clone(), TABLE),
            config,
            dynamodb,
            workflows,
            child,
        }
    }

    /// Puts an item with these further texts.
    pub(crate) async fn put(&self, id: &str, status: Status, texts: &[(&str, &str)]) {
        let mut item = Attributes::from([
            (name::ID.to_owned(), text(id)),
            (name::STATUS.to_owned(), text(status.name())),
            (
                name::UPDATED_AT.to_owned(),
                text(timestamp(OffsetDateTime::now_utc())),
            ),
        ]);
        for (name, value) in texts {
            item.insert((*name).to_owned(), text(*value));
        }
        let call = self.dynamodb.put_item().table_name(TABLE);
        call.set_item(Some(item)).send().await.unwrap();
    }

    pub(crate) async fn status(&self, id: &str) -> Option<Status> {
        self.store.get(id).await.unwrap().unwrap().status()
    }
}

async fn create_table(client: &Client) {
    let attribute = |name: &str| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .unwrap()
    };
    let key = |name: &str, kind| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(kind)
            .build()
            .unwrap()
    };
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .key_schema(key(name::STATUS, KeyType::Hash))
        .key_schema(key(name::UPDATED_AT, KeyType::Range))
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::All)
                .build(),
        )
        .build()
        .unwrap();
    client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(name::ID))
        .attribute_definitions(attribute(name::STATUS))
        .attribute_definitions(attribute(name::UPDATED_AT))
        .key_schema(key(name::ID, KeyType::Hash))
        .global_secondary_indexes(index)
        .send()
        .await
        .unwrap();
}
