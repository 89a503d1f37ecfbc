//! The KMS of a region and an account.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use attestation::Roots;
use aws_lc_rs::rand;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use key_policy::{Account, Action, CallerError, Decision, KeyArn, Policy};

use crate::error::{Kind, Refusal};
use crate::key::{Ciphertext, Key, KeyError, KeyId};
use crate::operation::{
    Answer, Decrypt, DescribeKey, Encrypt, GenerateDataKey, GenerateRandom, KeyMetadata, Operation,
    SYMMETRIC_DEFAULT,
};
use crate::recipient::{DocumentVerifier, Enclave};
use crate::signature::{self, Client, Credentials};
use crate::wire::{self, Blob, Context, Recipient};

/// Largest plaintext in bytes that is encrypted.
const MAX_PLAINTEXT_BYTES: usize = 4096;
/// Largest ciphertext in bytes that is decrypted.
const MAX_CIPHERTEXT_BYTES: usize = 6144;

/// A KMS with the keys of one account in one region.
pub struct SoftwareKms {
    region: String,
    account: Account,
    documents: DocumentVerifier,
    clients: Vec<Client>,
    keys: RwLock<BTreeMap<KeyId, Key>>,
}

impl SoftwareKms {
    /// A KMS without keys, which nobody may call, and which believes the documents of
    /// modules under these roots.
    pub fn new(region: &str, account: Account, roots: Roots) -> Self {
        Self {
            region: region.to_owned(),
            account,
            documents: DocumentVerifier::new(roots),
            clients: Vec::new(),
            keys: RwLock::default(),
        }
    }

    /// Knows the credentials' owner from now on.
    pub fn admit(&mut self, credentials: Credentials) -> Result<(), CallerError> {
        self.clients.push(Client::new(credentials)?);
        Ok(())
    }

    /// A new symmetric key.
    pub fn create_key(&self, policy: Policy) -> Result<KeyArn, KeyError> {
        let prefix = format!("arn:aws:kms:{}:{}", self.region, self.account);
        let key = Key::generate(&prefix, policy)?;
        let arn = key.arn.clone();
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.id, key);
        Ok(arn)
    }

    /// Replaces a key's policy. Whether there is such a key is returned.
    pub fn put_key_policy(&self, arn: &KeyArn, policy: Policy) -> bool {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let key = keys.values_mut().find(|key| key.arn == *arn);
        key.map(|key| key.policy = policy).is_some()
    }

    /// Answers a request of AWS's JSON 1.1 protocol, by the system's clock. A refusal is a
    /// response, too.
    pub fn handle(&self, request: &Request<Bytes>) -> Response<Bytes> {
        match self.answer(request) {
            Ok(answer) => wire::response(StatusCode::OK, &answer),
            Err(refusal) => refusal.response(),
        }
    }

    fn answer(&self, request: &Request<Bytes>) -> Result<Answer, Refusal> {
        let target = request.headers().get("x-amz-target");
        let target = target.and_then(|target| target.to_str().ok());
        let (Some(target), &Method::POST, "/") = (target, request.method(), request.uri().path())
        else {
            return Err(Refusal::bare(Kind::UnknownOperation));
        };
        let now = SystemTime::now();
        let client = signature::verify(request, &self.region, &self.clients, now)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let call = Call {
            kms: self,
            client,
            keys: &keys,
        };
        match Operation::parse(target, request.body())? {
            Operation::Decrypt(request) => call.decrypt(&request),
            Operation::DescribeKey(request) => call.describe_key(&request),
            Operation::Encrypt(request) => call.encrypt(&request),
            Operation::GenerateDataKey(request) => {
                call.generate_data_key(&request, &Action::GENERATE_DATA_KEY)
            }
            Operation::GenerateDataKeyWithoutPlaintext(request) => {
                let answer = call.generate_data_key(&request, &without_plaintext())?;
                Ok(Answer {
                    plaintext: None,
                    ciphertext_for_recipient: None,
                    ..answer
                })
            }
            Operation::GenerateRandom(request) => call.generate_random(&request),
        }
    }
}

fn without_plaintext() -> Action {
    let action = "kms:GenerateDataKeyWithoutPlaintext".parse();
    action.expect("a call to KMS")
}

/// A call of somebody who is known.
struct Call<'a> {
    kms: &'a SoftwareKms,
    client: &'a Client,
    keys: &'a BTreeMap<KeyId, Key>,
}

/// How the caller has chosen a key.
#[derive(Clone, Copy)]
enum Chosen {
    ByName,
    ByCiphertext,
}

impl Call<'_> {
    fn decrypt(&self, request: &Decrypt) -> Result<Answer, Refusal> {
        let bytes = sized(
            "ciphertextBlob",
            request.ciphertext_blob.as_ref(),
            MAX_CIPHERTEXT_BYTES,
        )?;
        check_algorithm(request.encryption_algorithm.as_deref())?;
        let enclave = self.enclave(request.recipient.as_ref())?;
        let named = request.key_id.as_deref();
        let named = named.map(|name| self.key(Some(name))).transpose()?;
        let (ciphertext, key, chosen) = match (Ciphertext::parse(bytes), named) {
            (ciphertext, Some(key)) => (ciphertext, key, Chosen::ByName),
            (ciphertext, None) => {
                let ciphertext = ciphertext?;
                let key = self.keys.get(&ciphertext.key);
                let key = key.ok_or_else(|| self.hidden(&Action::DECRYPT))?;
                (Ok(ciphertext), key, Chosen::ByCiphertext)
            }
        };
        let context = &request.encryption_context;
        self.authorise(&Action::DECRYPT, key, context, enclave.as_ref(), chosen)?;
        let ciphertext = ciphertext?;
        if ciphertext.key != key.id {
            return Err(Refusal::new(
                Kind::IncorrectKey,
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ));
        }
        let plaintext = key.decrypt(&ciphertext, context)?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            encryption_algorithm: Some(SYMMETRIC_DEFAULT),
            ..revealed(plaintext, enclave.as_ref())?
        })
    }

    fn describe_key(&self, request: &DescribeKey) -> Result<Answer, Refusal> {
        let key = self.key(request.key_id.as_deref())?;
        let context = Context::new();
        self.authorise(&Action::DESCRIBE_KEY, key, &context, None, Chosen::ByName)?;
        let age = key.created.duration_since(SystemTime::UNIX_EPOCH);
        Ok(Answer {
            key_metadata: Some(KeyMetadata {
                account: self.kms.account.to_string(),
                arn: key.arn.to_string(),
                creation_date: age.unwrap_or_default().as_secs_f64(),
                enabled: true,
                encryption_algorithms: [SYMMETRIC_DEFAULT],
                key_id: key.id.to_string(),
                key_manager: "CUSTOMER",
                key_spec: SYMMETRIC_DEFAULT,
                key_state: "Enabled",
                key_usage: "ENCRYPT_DECRYPT",
                multi_region: false,
                origin: "AWS_KMS",
            }),
            ..Answer::default()
        })
    }

    fn encrypt(&self, request: &Encrypt) -> Result<Answer, Refusal> {
        let plaintext = request.plaintext.as_ref();
        let plaintext = sized("plaintext", plaintext, MAX_PLAINTEXT_BYTES)?;
        check_algorithm(request.encryption_algorithm.as_deref())?;
        let key = self.key(request.key_id.as_deref())?;
        let context = &request.encryption_context;
        self.authorise(&Action::ENCRYPT, key, context, None, Chosen::ByName)?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            ciphertext_blob: Some(Blob(key.encrypt(plaintext, context)?)),
            encryption_algorithm: Some(SYMMETRIC_DEFAULT),
            ..Answer::default()
        })
    }

    fn generate_data_key(
        &self,
        request: &GenerateDataKey,
        action: &Action,
    ) -> Result<Answer, Refusal> {
        let size = request.size()?;
        let enclave = self.enclave(request.recipient.as_ref())?;
        let key = self.key(request.key_id.as_deref())?;
        let context = &request.encryption_context;
        self.authorise(action, key, context, enclave.as_ref(), Chosen::ByName)?;
        let data_key = random(size)?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            ciphertext_blob: Some(Blob(key.encrypt(&data_key, context)?)),
            ..revealed(data_key, enclave.as_ref())?
        })
    }

    fn generate_random(&self, request: &GenerateRandom) -> Result<Answer, Refusal> {
        let size = request.size()?;
        let enclave = self.enclave(request.recipient.as_ref())?;
        revealed(random(size)?, enclave.as_ref())
    }

    fn enclave(&self, recipient: Option<&Recipient>) -> Result<Option<Enclave>, Refusal> {
        recipient
            .map(|recipient| self.kms.documents.verify(recipient))
            .transpose()
    }

    /// The key of this identifier or ARN.
    fn key(&self, name: Option<&str>) -> Result<&Key, Refusal> {
        let Some(name) = name else {
            return Err(Refusal::constraint("keyId", "not be null"));
        };
        let is_named = |key: &&Key| key.arn.as_str() == name || key.id.to_string() == name;
        self.keys.values().find(is_named).ok_or_else(|| {
            let arn = if name.starts_with("arn:") {
                name.to_owned()
            } else {
                format!(
                    "arn:aws:kms:{}:{}:key/{name}",
                    self.kms.region, self.kms.account
                )
            };
            Refusal::new(Kind::NotFound, format!("Key '{arn}' does not exist"))
        })
    }

    fn authorise(
        &self,
        action: &Action,
        key: &Key,
        context: &Context,
        enclave: Option<&Enclave>,
        chosen: Chosen,
    ) -> Result<(), Refusal> {
        let context = context
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let registers = enclave.into_iter().flat_map(|enclave| &enclave.registers);
        let request =
            key_policy::Request::new(self.client.caller.clone(), action.clone(), key.arn.clone())
                .encryption_context(context)
                .attested(registers.copied());
        let why = match key.policy.evaluate(&request) {
            Decision::Allow(_) => return Ok(()),
            Decision::LeftToIam(_) => {
                format!("because no identity-based policy allows the {action} action")
            }
            // Whether there is such a key is nothing that a stranger learns.
            _ if matches!(chosen, Chosen::ByCiphertext) => return Err(self.hidden(action)),
            Decision::ExplicitDeny(_) => {
                "with an explicit deny in a resource-based policy".to_owned()
            }
            Decision::ImplicitDeny => {
                format!("because no resource-based policy allows the {action} action")
            }
        };
        Err(Refusal::new(
            Kind::AccessDenied,
            format!(
                "User: {} is not authorized to perform: {action} on resource: {} {why}",
                self.client.arn(),
                key.arn
            ),
        ))
    }

    fn hidden(&self, action: &Action) -> Refusal {
        Refusal::new(
            Kind::AccessDenied,
            format!(
                "User: {} is not authorized to perform: {action} on the resource associated with this ciphertext because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access",
                self.client.arn()
            ),
        )
    }
}

/// A plaintext for the caller, or for the enclave that it speaks for.
fn revealed(plaintext: Vec<u8>, enclave: Option<&Enclave>) -> Result<Answer, Refusal> {
    let (plaintext, for_recipient) = match enclave {
        Some(enclave) => (Vec::new(), Some(enclave.encrypt(&plaintext)?)),
        None => (plaintext, None),
    };
    Ok(Answer {
        plaintext: Some(Blob(plaintext)),
        ciphertext_for_recipient: for_recipient,
        ..Answer::default()
    })
}

/// A parameter that has to be there, of a size that the service's model admits.
fn sized<'a>(member: &str, blob: Option<&'a Blob>, most: usize) -> Result<&'a [u8], Refusal> {
    match blob {
        None => Err(Refusal::constraint(member, "not be null")),
        Some(Blob(bytes)) if bytes.is_empty() => Err(Refusal::constraint(
            member,
            "have length greater than or equal to 1",
        )),
        Some(Blob(bytes)) if bytes.len() > most => Err(Refusal::constraint(
            member,
            &format!("have length less than or equal to {most}"),
        )),
        Some(Blob(bytes)) => Ok(bytes),
    }
}

fn check_algorithm(algorithm: Option<&str>) -> Result<(), Refusal> {
    match algorithm {
        None | Some(SYMMETRIC_DEFAULT) => Ok(()),
        Some(_) => Err(Refusal::constraint(
            "encryptionAlgorithm",
            "satisfy enum value set: [SYMMETRIC_DEFAULT]",
        )),
    }
}

fn random(size: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = vec![0; size];
    rand::fill(&mut bytes).map_err(|_| Refusal::bare(Kind::InternalFailure))?;
    Ok(bytes)
}
