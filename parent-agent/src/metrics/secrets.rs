//! What is known of the enclave's secrets, its calls to KMS, and what these are signed with.

use link::kms::{Operation, Outcome};

use super::page::Page;
use crate::credentials::CredentialsStatus;
use crate::enclave::SecretsStatus;
use crate::kms::KmsStatus;

pub(super) fn delivery(page: &mut Page, secrets: SecretsStatus) {
    page.family(
        "enclave_secrets",
        "gauge",
        "Secrets that the image declares, by their state.",
    );
    page.count(&[("state", "delivered")], secrets.delivered.into());
    page.count(&[("state", "missing")], secrets.missing().into());
    page.family(
        "enclave_secret_refresh_failures_total",
        "counter",
        "Attempts to look for another ciphertext of a secret that failed.",
    );
    page.count(&[], secrets.failed_refreshes);
}

pub(super) fn kms(page: &mut Page, kms: &KmsStatus) {
    page.family(
        "enclave_kms_calls_total",
        "counter",
        "Calls to KMS that the init has made, by operation and what came of them.",
    );
    for operation in Operation::ALL {
        for outcome in Outcome::ALL {
            let labels = [("operation", operation.name()), ("outcome", outcome.name())];
            page.count(&labels, kms.count(operation, outcome));
        }
    }
    page.family(
        "enclave_kms_calls_open",
        "gauge",
        "Calls to KMS that are being made.",
    );
    page.count(&[], kms.open.into());
    page.family(
        "enclave_kms_calls_waiting",
        "gauge",
        "Those of them that wait because too many others are being made.",
    );
    page.count(&[], kms.waiting.into());
}

pub(super) fn credentials(page: &mut Page, credentials: &CredentialsStatus) {
    page.family(
        "enclave_credentials_renewals_total",
        "counter",
        "Times that there were new AWS credentials for the enclave.",
    );
    page.count(&[], credentials.renewals);
    page.family(
        "enclave_credentials_failures_total",
        "counter",
        "Times that no AWS credentials were to be had.",
    );
    page.count(&[], credentials.failures);
    let (Some(age), Some(left)) = (credentials.age_s, credentials.left_s) else {
        return;
    };
    page.family(
        "enclave_credentials_age_seconds",
        "gauge",
        "Since the last new AWS credentials.",
    );
    page.count(&[], age);
    page.family(
        "enclave_credentials_left_seconds",
        "gauge",
        "Until the AWS credentials expire.",
    );
    page.count(&[], left);
}
