//! The KMS of a region and an account.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use attestation::Roots;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use key_policy::{Account, Action, CallerError, KeyArn, Policy};
use serde_json::json;

use crate::answer::Answer;
use crate::call::Call;
use crate::description;
use crate::error::{Kind, Refusal};
use crate::key::{Key, KeyError, KeySpec};
use crate::key_id::KeyId;
use crate::operation::{CreateKey, Operation};
use crate::recipient::DocumentVerifier;
use crate::signature::{self, Client, Credentials};
use crate::wire;

/// Most keys that requests make; programs may make more.
const MAX_KEYS: usize = 1000;

/// A KMS with the keys of one account in one region.
pub struct SoftwareKms {
    region: String,
    account: Account,
    documents: DocumentVerifier,
    clients: Vec<Client>,
    keys: RwLock<BTreeMap<KeyId, Key>>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

impl SoftwareKms {
    /// A KMS without keys, which nobody may call, and which believes the documents of
    /// modules under these roots. It goes by the system's clock.
    pub fn new(region: &str, account: Account, roots: Roots) -> Self {
        Self {
            region: region.to_owned(),
            account,
            documents: DocumentVerifier::new(roots),
            clients: Vec::new(),
            keys: RwLock::default(),
            clock: Box::new(SystemTime::now),
        }
    }

    /// Goes by another clock: signatures and documents are fresh or not by it.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Knows the credentials' owner from now on.
    pub fn admit(&mut self, credentials: Credentials) -> Result<(), CallerError> {
        self.clients.push(Client::new(credentials)?);
        Ok(())
    }

    /// A new symmetric key.
    pub fn create_key(&self, policy: Policy) -> Result<KeyArn, KeyError> {
        self.create_key_of(KeySpec::SymmetricDefault, policy)
    }

    /// A new key of this kind.
    pub fn create_key_of(&self, spec: KeySpec, policy: Policy) -> Result<KeyArn, KeyError> {
        let key = self.generate(spec, policy)?;
        let arn = key.arn.clone();
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.id, key);
        Ok(arn)
    }

    fn generate(&self, spec: KeySpec, policy: Policy) -> Result<Key, KeyError> {
        let prefix = format!("arn:aws:kms:{}:{}", self.region, self.account);
        Key::generate(&prefix, spec, policy, (self.clock)())
    }

    /// Replaces a key's policy. Whether there is such a key is returned.
    pub fn put_key_policy(&self, arn: &KeyArn, policy: Policy) -> bool {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let key = keys.values_mut().find(|key| key.arn == *arn);
        key.map(|key| key.policy = policy).is_some()
    }

    /// Answers a request of AWS's JSON 1.1 protocol. A refusal is a response, too.
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
        let now = (self.clock)();
        let client = signature::verify(request, &self.region, &self.clients, now)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let call = Call {
            region: &self.region,
            account: &self.account,
            documents: &self.documents,
            client,
            keys: &keys,
            now,
        };
        match Operation::parse(target, request.body())? {
            Operation::CreateKey(request) => {
                drop(keys);
                self.create(request)
            }
            Operation::Decrypt(request) => call.decrypt(&request),
            Operation::DeriveSharedSecret(request) => call.derive_shared_secret(&request),
            Operation::DescribeKey(request) => call.describe_key(&request),
            Operation::Encrypt(request) => call.encrypt(&request),
            Operation::GenerateDataKey(request) => {
                call.generate_data_key(&request, &Action::GENERATE_DATA_KEY)
            }
            Operation::GenerateDataKeyPair(request) => {
                call.generate_data_key_pair(&request, &Action::GENERATE_DATA_KEY_PAIR)
            }
            Operation::GenerateDataKeyPairWithoutPlaintext(request) => {
                let action = "kms:GenerateDataKeyPairWithoutPlaintext".parse();
                let action = action.expect("a call to KMS");
                let answer = call.generate_data_key_pair(&request.without_recipient(), &action)?;
                Ok(answer.without_secret())
            }
            Operation::GenerateDataKeyWithoutPlaintext(request) => {
                let action = "kms:GenerateDataKeyWithoutPlaintext".parse();
                let action = action.expect("a call to KMS");
                let answer = call.generate_data_key(&request.without_recipient(), &action)?;
                Ok(answer.without_secret())
            }
            Operation::GenerateRandom(request) => call.generate_random(&request),
            Operation::GetPublicKey(request) => call.get_public_key(&request),
            Operation::PutKeyPolicy(request) => {
                let (arn, policy) = call.new_policy(&request)?;
                drop(keys);
                self.put_key_policy(&arn, policy);
                Ok(Answer::default())
            }
            Operation::ReEncrypt(request) => call.re_encrypt(&request),
        }
    }

    /// No key policy is about it, and everybody who is known may call it.
    fn create(&self, request: CreateKey) -> Result<Answer, Refusal> {
        let spec = KeySpec::parse(request.key_spec.as_deref(), request.key_usage.as_deref())?;
        let policy = request.policy.unwrap_or_else(|| self.default_policy());
        let policy = policy.parse().map_err(|error| Refusal::malformed(&error))?;
        let key = self.generate(spec, policy);
        let key = key.map_err(|_| Refusal::bare(Kind::InternalFailure))?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS {
            let message = format!("This KMS has {MAX_KEYS} keys, and takes no more.");
            return Err(Refusal::new(Kind::LimitExceeded, message));
        }
        let metadata = description::metadata(&key, &self.account);
        keys.insert(key.id, key);
        Ok(Answer {
            key_metadata: Some(metadata),
            ..Answer::default()
        })
    }

    /// The policy of a key that is made without one: IAM decides.
    fn default_policy(&self) -> String {
        let statement = json!({
            "Effect": "Allow",
            "Principal": { "AWS": format!("arn:aws:iam::{}:root", self.account) },
            "Action": "kms:*",
            "Resource": "*",
        });
        json!({ "Version": "2012-10-17", "Statement": statement }).to_string()
    }
}
