//! The enclave's verification of its own document.
//!
//! Whoever relies on an enclave relies on the module that it asks for documents.
//! So the first document is for the enclave itself: it must verify as any verifier
//! would have it, under the measured root, and it must say what the module says
//! when it is asked directly. Its nonce is drawn for it, which is what makes it
//! new. Its certificates are held against the document's own time, and where the
//! clock follows the hypervisor against the clock's.

use attestation::{AuditTime, Nonce, Policy, PolicyError, Purpose, Rejection, Rule, is_unsigned};
use link::control::{CheckOutcome, FromInit};
use link::{Bytes, EndCode, Text};
use manifest::{Attestation, EnclaveName, SelfCheck};
use measurements::Pcr;
use nsm::NsmError;
use serde_json::{Map, Value, json};

use crate::error::InitError;
use crate::logs::Logs;
use crate::registers::{REGISTERS, is_open};
use crate::security_module::{Module, OwnDocument, SecurityModule};
use crate::steps::Steps;
use crate::trust::Trust;

/// What the module said, all at once.
#[derive(Debug)]
pub(crate) struct Evidence {
    module_id: String,
    /// Value and whether it is locked, by index.
    registers: Vec<(Pcr, bool)>,
    nonce: Vec<u8>,
    document: Vec<u8>,
}

/// How a machine's documents are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signing {
    /// By the module, always.
    Always,
    /// By nobody, perhaps: QEMU's module has no key.
    Perhaps,
}

/// What the check came to.
#[derive(Debug)]
pub(crate) struct Finding {
    outcome: CheckOutcome,
    rule: String,
    detail: String,
    document: Vec<u8>,
    module_id: String,
    /// Value and whether it is locked, by index, as the module said beside the document.
    registers: Vec<(Pcr, bool)>,
}

/// Verifies the enclave's own document. `now` gives the time in milliseconds since 1970, if
/// it is known. What came of it is noted in `found` even if it ends the boot.
pub(crate) async fn check_itself(
    steps: &mut Steps,
    found: &mut Option<FromInit>,
    nsm: &SecurityModule,
    trust: &Trust,
    demands: &Attestation,
    signing: Signing,
    now: impl Fn() -> Option<u64>,
) -> Result<Finding, InitError> {
    steps
        .run(EndCode::BootSelfCheck, async {
            let evidence = nsm.run(Evidence::gather).await?;
            let finding = evidence.judge(trust, demands, signing, now());
            *found = Some(finding.message());
            match (finding.outcome(), demands.self_check) {
                (CheckOutcome::Failed, SelfCheck::Required) => Err(InitError::SelfCheck {
                    finding: finding.sentence(),
                    advice: finding.advice(),
                }),
                _ => Ok(finding),
            }
        })
        .await
}

/// A rule that the document broke, and how.
struct Refusal {
    rule: String,
    detail: String,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            rule: rejection.rule.to_string(),
            detail: rejection.reason,
        }
    }
}

impl Refusal {
    fn register(index: usize, detail: String) -> Self {
        Self {
            rule: format!("policy.pcr.{index}"),
            detail,
        }
    }
}

impl Evidence {
    /// Asks the module: its registers, and a document for the self-check.
    pub(crate) fn gather(nsm: &mut Module) -> Result<Self, NsmError> {
        let registers = (0..REGISTERS)
            .map(|index| nsm.describe_pcr(index))
            .collect::<Result<_, _>>()?;
        let module_id = nsm.describe()?.module_id;
        let OwnDocument { document, nonce } = nsm.self_check()?;
        Ok(Self {
            module_id,
            registers,
            nonce,
            document,
        })
    }

    /// Verifies the document, also at `now`, in milliseconds since 1970, if the time
    /// is known.
    pub(crate) fn judge(
        self,
        trust: &Trust,
        demands: &Attestation,
        signing: Signing,
        now: Option<u64>,
    ) -> Finding {
        let verdict = self.check_locks(demands).and_then(|()| {
            if signing == Signing::Perhaps && is_unsigned(&self.document) {
                return Ok(CheckOutcome::Unsigned);
            }
            let policy = self.policy()?;
            let verifier = trust.verifier();
            // Without a clock there is only the document's own time.
            let audit = verifier.audit(&self.document, &policy, AuditTime::OfDocument);
            let said = audit.outcome?;
            check_mode(&said, demands.allow_debug)?;
            self.check_absent(&said)?;
            if let Some(now_ms) = now {
                let nonce = Nonce::Fresh(&self.nonce);
                let verification = verifier.verify_at(&self.document, &policy, nonce, now_ms);
                verification.outcome?;
            }
            Ok(CheckOutcome::Passed)
        });
        let (outcome, rule, detail) = match verdict {
            Ok(CheckOutcome::Unsigned) => (
                CheckOutcome::Unsigned,
                String::new(),
                "nobody signs this machine's documents, so they prove nothing".to_owned(),
            ),
            Ok(outcome) => (outcome, String::new(), String::new()),
            Err(Refusal { rule, detail }) => (CheckOutcome::Failed, rule, detail),
        };
        Finding {
            outcome,
            rule,
            detail,
            document: self.document,
            module_id: self.module_id,
            registers: self.registers,
        }
    }

    /// The registers are locked as this boot has left them.
    fn check_locks(&self, demands: &Attestation) -> Result<(), Refusal> {
        for (index, (_, is_locked)) in self.registers.iter().enumerate() {
            let is_open =
                u16::try_from(index).is_ok_and(|index| is_open(&demands.open_registers, index));
            let reason = match (is_open, is_locked) {
                (false, false) => "the module says that the register is not locked",
                (true, true) => {
                    "the module says that the register is locked, which the image leaves open"
                }
                _ => continue,
            };
            return Err(Refusal::register(index, reason.to_owned()));
        }
        Ok(())
    }

    /// What the document must say: what the module says when it is asked directly.
    fn policy(&self) -> Result<Policy, Refusal> {
        let mut policy = Policy::builder()
            .allow_any_image()
            // Registers of debug mode are zero, and compared like others; whether the
            // mode is allowed is checked of the document.
            .allow_debug()
            .module_id(self.module_id.as_str())
            .nonce(self.nonce.clone())
            .purpose(Purpose::SelfCheck);
        for (index, (value, is_locked)) in (0..).zip(&self.registers) {
            if *is_locked {
                policy = policy.pcr(index, *value);
            }
        }
        policy.build().map_err(|error| {
            let rule = match error {
                PolicyError::ModuleIdPattern => Rule::PolicyModuleId,
                // Some of its registers are those of debug mode, and some are not.
                _ => Rule::PolicyDebug,
            };
            Refusal {
                rule: rule.to_string(),
                detail: format!("no document can be as the module says of itself: {error}"),
            }
        })
    }

    /// A document holds the registers that are locked and no other, and no key.
    fn check_absent(&self, said: &attestation::Evidence<'_>) -> Result<(), Refusal> {
        for (index, (_, is_locked)) in self.registers.iter().enumerate() {
            if !is_locked && said.pcr(index).is_some() {
                let detail = "the document holds the register, which is not locked";
                return Err(Refusal::register(index, detail.to_owned()));
            }
        }
        if said.public_key().is_some() {
            return Err(Refusal {
                rule: Rule::PolicyPublicKey.to_string(),
                detail: "the document holds a key that nobody gave".to_owned(),
            });
        }
        Ok(())
    }
}

/// An enclave in debug mode, whose memory its parent can read, has a PCR0 of zero.
fn check_mode(said: &attestation::Evidence<'_>, debug_allowed: bool) -> Result<(), Refusal> {
    if debug_allowed || said.pcr(0).is_some_and(|pcr0| pcr0 != Pcr::ZERO) {
        return Ok(());
    }
    Err(Refusal {
        rule: Rule::PolicyDebug.to_string(),
        detail: "expected not in debug mode, found in debug mode: PCR0 is zero".to_owned(),
    })
}

impl Finding {
    pub(crate) fn outcome(&self) -> CheckOutcome {
        self.outcome
    }

    pub(crate) fn log(&self, logs: &Logs) {
        let line = format!("self-check: {}", self.sentence());
        match self.outcome {
            CheckOutcome::Failed => logs.error(line),
            CheckOutcome::Passed | CheckOutcome::Unsigned => logs.system(line),
        }
    }

    /// The enclave's measurements, for the workload: the registers that are locked, so that
    /// they stay what they are, as the module says. If the check has passed, that is what the
    /// document says.
    pub(crate) fn measurements(&self, name: &EnclaveName) -> Value {
        let registers = self.registers.iter().enumerate();
        let locked = registers.filter(|(_, (_, is_locked))| *is_locked);
        let pcrs: Map<String, Value> = locked
            .map(|(index, (value, _))| (index.to_string(), value.to_string().into()))
            .collect();
        let is_debug = self.registers.first().map(|(pcr0, _)| *pcr0) == Some(Pcr::ZERO);
        let outcome = match self.outcome {
            CheckOutcome::Passed => "passed",
            CheckOutcome::Failed => "failed",
            CheckOutcome::Unsigned => "unsigned",
        };
        let detail = (self.outcome != CheckOutcome::Passed).then(|| self.sentence());
        json!({
            "name": name.as_str(),
            "module_id": self.module_id,
            "debug": is_debug,
            "pcrs": pcrs,
            "self_check": outcome,
            "detail": detail,
        })
    }

    /// The same for people.
    pub(crate) fn sentence(&self) -> String {
        match self.outcome {
            CheckOutcome::Passed => "the enclave's own document was accepted".to_owned(),
            CheckOutcome::Failed => format!(
                "the enclave's own document was refused: {}: {}",
                self.rule, self.detail
            ),
            CheckOutcome::Unsigned => self.detail.clone(),
        }
    }

    /// What an image that is to run all the same would have to say.
    pub(crate) fn advice(&self) -> &'static str {
        if self.rule == Rule::PolicyDebug.to_string() {
            "an image that may run in debug mode has `allow_debug = true` in its manifest's [attestation]"
        } else {
            "an image that is to run all the same has `self_check = \"report\"` in its manifest's [attestation]"
        }
    }

    /// The same for the agent.
    pub(crate) fn message(&self) -> FromInit {
        FromInit::SelfCheck {
            outcome: self.outcome,
            rule: Text::new(self.rule.as_str()),
            detail: Text::new(self.detail.as_str()),
            // One that is too large for the module's own buffer breaks a rule too.
            document: Bytes::new(self.document.as_slice()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use attestation::Document;
    use nsm::{Request, Response};
    use software_nsm::{Identity, SoftwareNsm, TestRoot};

    use super::*;

    /// What QEMU's module says: every register locked, nothing signed.
    fn of_qemu() -> Evidence {
        let mut document = vec![0x84, 0x43, 0xa1, 0x01, 0x20, 0xa0, 0x41, 0xa0, 0x58, 64];
        document.extend([0; 64]);
        Evidence {
            module_id: "i-234-enc5678".to_owned(),
            registers: vec![(Pcr::ZERO, true); usize::from(REGISTERS)],
            nonce: vec![1; 32],
            document,
        }
    }

    fn judged(evidence: Evidence, signing: Signing) -> Finding {
        let demands = Attestation::default();
        let trust = Trust::read(&demands, None).unwrap();
        evidence.judge(&trust, &demands, signing, None)
    }

    /// What an honest module says, and the time of its document.
    fn honest(root: TestRoot) -> (Evidence, u64) {
        let identity = Identity {
            instance_id: "i-00000000000000000".to_owned(),
            enclave_id: "enc0000000000000001".to_owned(),
            measurements: Some(measurements::Measurements {
                pcr0: Pcr::new([1; 48]),
                pcr1: Pcr::new([2; 48]),
                pcr2: Pcr::new([3; 48]),
                pcr8: None,
            }),
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        module.answer(Request::LockPCRs { range: REGISTERS });
        let registers =
            (0..REGISTERS).map(
                |index| match module.answer(Request::DescribePCR { index }) {
                    Response::DescribePCR { lock, data } => {
                        (Pcr::new(data.try_into().unwrap()), lock)
                    }
                    other => panic!("{other:?}"),
                },
            );
        let registers = registers.collect();
        let request = Request::Attestation {
            user_data: Purpose::SelfCheck.user_data().map(Into::into),
            nonce: Some(vec![1; 32].into()),
            public_key: None,
        };
        let Response::Attestation { document } = module.answer(request) else {
            panic!("no document");
        };
        let made = Document::parse(&document)
            .unwrap()
            .unverified_timestamp_ms();
        let evidence = Evidence {
            module_id: "i-00000000000000000-enc0000000000000001".to_owned(),
            registers,
            nonce: vec![1; 32],
            document,
        };
        (evidence, made)
    }

    #[test]
    fn a_clock_that_is_right_must_agree_with_the_document() {
        const MINUTE: u64 = 60_000;
        let folder = tempfile::tempdir().unwrap();
        let pem = folder.path().join("root.pem");
        for (after, expected) in [
            (None, ""),
            (Some(0), ""),
            (Some(MINUTE), ""),
            (Some(10 * MINUTE), "freshness.age"),
            (Some(24 * 60 * MINUTE), "certificate.validity"),
        ] {
            let root = TestRoot::generate().unwrap();
            std::fs::write(&pem, root.certificate_pem()).unwrap();
            let demands = Attestation::default();
            let trust = Trust::read(&demands, Some(&pem)).unwrap();
            let (evidence, made) = honest(root);
            let now = after.map(|after| made + after);
            let finding = evidence.judge(&trust, &demands, Signing::Always, now);
            assert_eq!(finding.rule, expected, "{finding:?}");
            assert_eq!(
                finding.outcome() == CheckOutcome::Passed,
                expected.is_empty()
            );
        }
    }

    #[test]
    fn a_document_without_a_signature_is_let_pass_only_where_nobody_signs() {
        let finding = judged(of_qemu(), Signing::Perhaps);
        assert_eq!(finding.outcome(), CheckOutcome::Unsigned);
        assert!(finding.rule.is_empty());
        let finding = judged(of_qemu(), Signing::Always);
        assert_eq!(finding.outcome(), CheckOutcome::Failed);
        assert_eq!(finding.rule, "cose.protected-header");
    }

    #[test]
    fn where_nobody_signs_a_signature_is_verified_and_locks_are_compared() {
        let mut signed = of_qemu();
        if let Some(last) = signed.document.last_mut() {
            *last = 1;
        }
        let finding = judged(signed, Signing::Perhaps);
        assert_eq!(finding.outcome(), CheckOutcome::Failed);
        let mut unlocked = of_qemu();
        if let Some(register) = unlocked.registers.get_mut(5) {
            register.1 = false;
        }
        let finding = judged(unlocked, Signing::Perhaps);
        assert_eq!(finding.rule, "policy.pcr.5");
    }

    #[test]
    fn the_advice_is_about_the_rule_that_was_broken() {
        let finding = |rule: &str| Finding {
            outcome: CheckOutcome::Failed,
            rule: rule.to_owned(),
            detail: String::new(),
            document: Vec::new(),
            module_id: String::new(),
            registers: Vec::new(),
        };
        assert!(finding("policy.debug").advice().contains("allow_debug"));
        assert!(finding("chain.root").advice().contains("self_check"));
    }
}
