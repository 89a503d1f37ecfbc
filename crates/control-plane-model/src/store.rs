//! The tables: conditional writes and consistent reads.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValue;

use crate::attributes::{Attributes, text};
use crate::environment::variable;
use crate::failure::Failure;
use crate::item::{Enclave, PublishedImage, name};
use crate::status::Status;
use crate::update::Update;

/// The table of enclaves, and that of images.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    enclaves: String,
}

/// How a conditional write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was made.
    Done,
    /// A condition did not hold: nothing was written.
    Lost,
}

/// A page of the index of statuses.
#[derive(Debug)]
pub struct Page {
    /// The items.
    pub enclaves: Vec<Enclave>,
    /// Where the next begins, if there is one.
    pub next: Option<Attributes>,
}

impl Store {
    /// The table of this name.
    pub fn new(client: Client, enclaves: impl Into<String>) -> Self {
        Self {
            client,
            enclaves: enclaves.into(),
        }
    }

    /// The table that the function's environment names.
    pub fn from_environment(client: Client) -> Result<Self, Failure> {
        Ok(Self::new(client, variable("DYNAMODB_TABLE_NAME")?))
    }

    /// An item as it is now.
    pub async fn get(&self, id: &str) -> Result<Option<Enclave>, Failure> {
        let output = self
            .client
            .get_item()
            .table_name(&self.enclaves)
            .key(name::ID, text(id))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| Failure::of_call("GetItem", &self.enclaves, &error))?;
        Ok(output.item().map(Enclave::from_attributes))
    }

    /// Makes a write, if its conditions hold.
    pub async fn apply(&self, update: &Update) -> Result<Outcome, Failure> {
        let expressions = update.expressions();
        let result = self
            .client
            .update_item()
            .table_name(&self.enclaves)
            .key(name::ID, text(update.id.as_str()))
            .update_expression(expressions.update)
            .condition_expression(expressions.condition)
            .set_expression_attribute_names(Some(expressions.names))
            .set_expression_attribute_values(Some(expressions.values))
            .return_values(ReturnValue::None)
            .send()
            .await;
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(SdkError::ServiceError(error))
                if matches!(
                    error.err(),
                    UpdateItemError::ConditionalCheckFailedException(_)
                ) =>
            {
                Ok(Outcome::Lost)
            }
            Err(error) => Err(Failure::of_call("UpdateItem", &self.enclaves, &error)),
        }
    }

    /// Items of a status, from an index, oldest first.
    pub async fn with_status(
        &self,
        index: &str,
        status: Status,
        start: Option<Attributes>,
    ) -> Result<Page, Failure> {
        let output = self
            .client
            .query()
            .table_name(&self.enclaves)
            .index_name(index)
            .key_condition_expression("#status = :status")
            .expression_attribute_names("#status", name::STATUS)
            .expression_attribute_values(":status", text(status.name()))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| Failure::of_call("Query", index, &error))?;
        Ok(Page {
            enclaves: output
                .items()
                .iter()
                .map(Enclave::from_attributes)
                .collect(),
            next: output.last_evaluated_key().cloned(),
        })
    }
}

/// What was published under a name, if anything was.
pub async fn published_image(
    client: &Client,
    table: &str,
    reference: &str,
) -> Result<Option<PublishedImage>, Failure> {
    let output = client
        .get_item()
        .table_name(table)
        .key("reference", text(reference))
        .consistent_read(true)
        .send()
        .await
        .map_err(|error| Failure::of_call("GetItem", table, &error))?;
    let Some(attributes) = output.item() else {
        return Ok(None);
    };
    PublishedImage::from_attributes(attributes)
        .map(Some)
        .map_err(|error| {
            Failure::new(
                "UnreadableImage",
                format!("{reference} in {table}: {error}: publish it again"),
            )
        })
}
