//! Instances of EC2.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::request::{Body, Request, encode};
use crate::xml::{self, Element};

/// The version of the API whose answers are understood.
const VERSION: &str = "2016-11-15";
/// Instances in an answer, which then has at most about 5 MiB.
const PAGE: &str = "200";
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Answers that are read one after the other.
const MAX_PAGES: usize = 50;

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its identifier, such as `i-0123456789abcdef0`.
    pub id: String,
    /// Its state, such as `running`.
    pub state: String,
    /// Its address within the VPC, while it has one.
    pub private_ip: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What one answer says of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The instances.
    pub instances: Vec<Instance>,
    /// What the next page is asked for with, if there is one.
    pub next: Option<String>,
}

impl Page {
    /// Reads the answer to `DescribeInstances`, and says in words what is wrong
    /// with it.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        Ok(Self::of(&xml::parse(body)?)?)
    }

    fn of(answer: &Element) -> Result<Self, &'static str> {
        let mut instances = Vec::new();
        for reservation in answer.items("reservationSet") {
            for item in reservation.items("instancesSet") {
                let instance = instance(item);
                instances.push(instance.ok_or("an instance has no instanceId or no state")?);
            }
        }
        let next = answer.text_of("nextToken");
        Ok(Self {
            instances,
            next: next.filter(|token| !token.is_empty()).map(str::to_owned),
        })
    }
}

/// Calls to EC2.
#[derive(Debug, Clone, Copy)]
pub struct Ec2<'a>(&'a Client);

impl Client {
    /// EC2.
    pub fn ec2(&self) -> Ec2<'_> {
        Ec2(self)
    }
}

impl Ec2<'_> {
    /// The instances that pass every filter, each a name such as `tag:EnclaveId`
    /// and the values of which one must match. At most 10,000 are returned.
    pub async fn instances(self, filters: &[(&str, &[&str])]) -> Result<Vec<Instance>, Error> {
        const OPERATION: &str = "DescribeInstances";
        let mut parameters = vec![("MaxResults".to_owned(), PAGE.to_owned())];
        for (index, (name, values)) in (1..).zip(filters) {
            parameters.push((format!("Filter.{index}.Name"), (*name).to_owned()));
            for (number, value) in (1..).zip(*values) {
                let key = format!("Filter.{index}.Value.{number}");
                parameters.push((key, (*value).to_owned()));
            }
        }
        let malformed = |reason: &str| Error::Malformed {
            service: Service::Ec2,
            operation: OPERATION,
            reason: reason.to_owned(),
        };
        let mut instances = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut page = parameters.clone();
            page.extend(next.take().map(|token| ("NextToken".to_owned(), token)));
            let answer = self.call(OPERATION, &page).await?;
            let page = Page::of(&answer).map_err(malformed)?;
            instances.extend(page.instances);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        Ok(instances)
    }

    /// Stops instances; those that are stopped stay so.
    pub async fn stop(self, ids: &[&str]) -> Result<(), Error> {
        self.call("StopInstances", &identifiers(ids)).await?;
        Ok(())
    }

    /// Starts instances; those that run stay so.
    pub async fn start(self, ids: &[&str]) -> Result<(), Error> {
        self.call("StartInstances", &identifiers(ids)).await?;
        Ok(())
    }

    async fn call(
        self,
        operation: &'static str,
        parameters: &[(String, String)],
    ) -> Result<Element, Error> {
        let mut form = format!("Action={operation}&Version={VERSION}");
        for (name, value) in parameters {
            for part in ["&", &encode(name, false), "=", &encode(value, false)] {
                form.push_str(part);
            }
        }
        let request = Request::new(Service::Ec2, operation, Method::POST, "/")
            .header(
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            )
            .body(Body::Bytes(Bytes::from(form)))
            .idempotent(true)
            .max_answer(MAX_ANSWER);
        let response = self.0.send(request).await?;
        xml::parse(&response.body).map_err(|reason| Error::Malformed {
            service: Service::Ec2,
            operation,
            reason,
        })
    }
}

fn identifiers(ids: &[&str]) -> Vec<(String, String)> {
    (1..)
        .zip(ids)
        .map(|(number, id): (u32, _)| (format!("InstanceId.{number}"), (*id).to_owned()))
        .collect()
}

fn instance(item: &Element) -> Option<Instance> {
    let tags = item
        .items("tagSet")
        .filter_map(|tag| {
            Some((
                tag.text_of("key")?.to_owned(),
                tag.text_of("value")?.to_owned(),
            ))
        })
        .collect();
    Some(Instance {
        id: item.text_of("instanceId")?.to_owned(),
        state: item.child("instanceState")?.text_of("name")?.to_owned(),
        private_ip: item.text_of("privateIpAddress").map(str::to_owned),
        tags,
    })
}
