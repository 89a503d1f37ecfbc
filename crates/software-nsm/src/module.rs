//! The module's registers, and its answers to requests.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_nitro_enclaves_cose::CoseSign1;
use aws_nitro_enclaves_cose::crypto::{
    Hash, MessageDigest, SignatureAlgorithm, SigningPrivateKey, SigningPublicKey,
};
use aws_nitro_enclaves_cose::error::CoseError;
use aws_nitro_enclaves_cose::header_map::HeaderMap;
use measurements::{Measurements, PCR_COUNT, Pcr, RoleArn};
use nsm::{
    AttestationDoc, Digest, ErrorCode, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Request, Response,
};

use crate::authority::{Chain, RootError, TestRoot};

/// Registers that the hypervisor has locked before the enclave runs.
const PLATFORM_PCRS: usize = 16;
/// The register of the parent instance's role.
const ROLE_PCR: usize = 3;
/// Bytes of one answer to `GetRandom`.
const RANDOM_BYTES: usize = 256;

/// What a module is told about the enclave that it stands in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The parent instance's id, `i-…`.
    pub instance_id: String,
    /// The enclave's number on it, as in `enc0123456789abcdef`.
    pub enclave_id: String,
    /// What was measured at the start; `None` in debug mode, where the image's registers
    /// are zero.
    pub measurements: Option<Measurements>,
}

impl Identity {
    fn module_id(&self) -> String {
        format!("{}-{}", self.instance_id, self.enclave_id)
    }
}

/// The module of one enclave.
pub struct SoftwareNsm {
    identity: Identity,
    root: TestRoot,
    chain: Chain,
    pcrs: [Register; PCR_COUNT],
    clock: fn() -> SystemTime,
}

#[derive(Debug, Clone, Copy)]
struct Register {
    value: Pcr,
    locked: bool,
}

impl SoftwareNsm {
    /// The module as the hypervisor leaves it: registers 0 to 15 set and locked.
    pub fn new(identity: Identity, root: TestRoot) -> Result<Self, RootError> {
        Self::with_clock(identity, root, SystemTime::now)
    }

    /// The same where the hypervisor has this clock, which need not be a verifier's.
    pub fn with_clock(
        identity: Identity,
        root: TestRoot,
        clock: fn() -> SystemTime,
    ) -> Result<Self, RootError> {
        let mut pcrs = [Register {
            value: Pcr::ZERO,
            locked: false,
        }; PCR_COUNT];
        for (index, register) in pcrs.iter_mut().enumerate().take(PLATFORM_PCRS) {
            register.locked = true;
            register.value = match (index, identity.measurements) {
                (0, Some(measured)) => measured.pcr0,
                (1, Some(measured)) => measured.pcr1,
                (2, Some(measured)) => measured.pcr2,
                (8, Some(measured)) => measured.pcr8.unwrap_or(Pcr::ZERO),
                // What the parent is measured as, debug mode or not.
                (4, _) => Pcr::ZERO.extend(identity.instance_id.as_bytes()),
                _ => Pcr::ZERO,
            };
        }
        let module_id = identity.module_id();
        let chain = Chain::issue(&root, &identity.instance_id, &module_id, clock())?;
        Ok(Self {
            identity,
            root,
            chain,
            pcrs,
            clock,
        })
    }

    /// The same on a parent instance that has this IAM role: PCR3 is of it.
    #[must_use]
    pub fn on_parent_with(mut self, role: &RoleArn) -> Self {
        if let Some(register) = self.pcrs.get_mut(ROLE_PCR) {
            register.value = role.pcr3();
        }
        self
    }

    /// Answers a request as the device does.
    pub fn answer(&mut self, request: Request) -> Response {
        self.try_answer(request).unwrap_or_else(Response::Error)
    }

    fn try_answer(&mut self, request: Request) -> Result<Response, ErrorCode> {
        Ok(match request {
            Request::DescribePCR { index } => {
                let register = self.register(index)?;
                Response::DescribePCR {
                    lock: register.locked,
                    data: register.value.as_bytes().to_vec(),
                }
            }
            Request::ExtendPCR { index, data } => {
                let register = self.register(index)?;
                if register.locked {
                    return Err(ErrorCode::ReadOnlyIndex);
                }
                if data.is_empty() {
                    return Err(ErrorCode::InvalidArgument);
                }
                register.value = register.value.extend(&data);
                Response::ExtendPCR {
                    data: register.value.as_bytes().to_vec(),
                }
            }
            Request::LockPCR { index } => {
                let register = self.register(index)?;
                if register.locked {
                    return Err(ErrorCode::ReadOnlyIndex);
                }
                register.locked = true;
                Response::LockPCR
            }
            Request::LockPCRs { range } => {
                let registers = self.pcrs.get_mut(..usize::from(range));
                for register in registers.ok_or(ErrorCode::InvalidIndex)? {
                    register.locked = true;
                }
                Response::LockPCRs
            }
            Request::DescribeNSM => self.describe(),
            Request::Attestation {
                user_data,
                nonce,
                public_key,
            } => {
                let bounded = |value: &Option<serde_bytes::ByteBuf>, limit| {
                    value.as_ref().is_none_or(|value| value.len() <= limit)
                };
                if !bounded(&user_data, MAX_USER_DATA)
                    || !bounded(&nonce, MAX_NONCE)
                    || !bounded(&public_key, MAX_PUBLIC_KEY)
                {
                    return Err(ErrorCode::InputTooLarge);
                }
                // It would break a document's own rules.
                if public_key.as_ref().is_some_and(|key| key.is_empty()) {
                    return Err(ErrorCode::InvalidArgument);
                }
                let document = self
                    .document(user_data, nonce, public_key)
                    .map_err(|_| ErrorCode::InternalError)?;
                Response::Attestation { document }
            }
            Request::GetRandom => {
                let mut random = vec![0; RANDOM_BYTES];
                SystemRandom::new()
                    .fill(&mut random)
                    .map_err(|_| ErrorCode::InternalError)?;
                Response::GetRandom { random }
            }
            _ => return Err(ErrorCode::InvalidOperation),
        })
    }

    fn register(&mut self, index: u16) -> Result<&mut Register, ErrorCode> {
        self.pcrs
            .get_mut(usize::from(index))
            .ok_or(ErrorCode::InvalidIndex)
    }

    fn describe(&self) -> Response {
        Response::DescribeNSM {
            version_major: 1,
            version_minor: 0,
            version_patch: 0,
            module_id: self.identity.module_id(),
            max_pcrs: u16::try_from(PCR_COUNT).expect("thirty-two"),
            locked_pcrs: (0..)
                .zip(&self.pcrs)
                .filter_map(|(index, register)| register.locked.then_some(index))
                .collect(),
            digest: Digest::SHA384,
        }
    }

    fn document(
        &mut self,
        user_data: Option<serde_bytes::ByteBuf>,
        nonce: Option<serde_bytes::ByteBuf>,
        public_key: Option<serde_bytes::ByteBuf>,
    ) -> Result<Vec<u8>, DocumentError> {
        let now = (self.clock)();
        if self.chain.is_due(now) {
            self.chain = Chain::issue(
                &self.root,
                &self.identity.instance_id,
                &self.identity.module_id(),
                now,
            )?;
        }
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let document = AttestationDoc {
            module_id: self.identity.module_id(),
            digest: Digest::SHA384,
            timestamp: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            // As real documents do: the platform's registers, and further locked ones.
            pcrs: self
                .pcrs
                .iter()
                .enumerate()
                .filter(|(_, register)| register.locked)
                .map(|(index, register)| (index, register.value.as_bytes().to_vec().into()))
                .collect(),
            certificate: self.chain.leaf_der.clone().into(),
            cabundle: self
                .chain
                .cabundle
                .iter()
                .cloned()
                .map(Into::into)
                .collect(),
            public_key,
            user_data,
            nonce,
        };
        let mut payload = Vec::new();
        ciborium::into_writer(&document, &mut payload)
            .map_err(|error| DocumentError::Encode(error.to_string()))?;
        let cose = CoseSign1::new::<WholeMessage>(&payload, &HeaderMap::new(), &self.chain)?;
        Ok(cose.as_bytes(false)?)
    }
}

#[derive(Debug, thiserror::Error)]
enum DocumentError {
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("COSE: {0:?}")]
    Cose(Box<CoseError>),
    #[error("CBOR: {0}")]
    Encode(String),
}

impl From<CoseError> for DocumentError {
    fn from(error: CoseError) -> Self {
        Self::Cose(Box::new(error))
    }
}

/// Passes the message on as its own digest: aws-lc-rs hashes while it signs.
struct WholeMessage;

impl Hash for WholeMessage {
    fn hash(_: MessageDigest, data: &[u8]) -> Result<Vec<u8>, CoseError> {
        Ok(data.to_vec())
    }
}

impl SigningPublicKey for Chain {
    fn get_parameters(&self) -> Result<(SignatureAlgorithm, MessageDigest), CoseError> {
        Ok((SignatureAlgorithm::ES384, MessageDigest::Sha384))
    }

    fn verify(&self, _: &[u8], _: &[u8]) -> Result<bool, CoseError> {
        Err(CoseError::UnsupportedError(
            "the software NSM only signs".to_owned(),
        ))
    }
}

impl SigningPrivateKey for Chain {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CoseError> {
        Self::sign(self, message).map_err(|error| CoseError::SignatureError(Box::new(error)))
    }
}
