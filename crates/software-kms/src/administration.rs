//! The call that replaces a key's policy.

use key_policy::{Action, Decision, KeyArn, Policy};

use crate::call::{Call, Wanted};
use crate::error::{Kind, Refusal};
use crate::operation::PutKeyPolicy;

impl Call<'_> {
    /// The policy that a key is to have, and the key.
    pub(crate) fn new_policy(&self, request: &PutKeyPolicy) -> Result<(KeyArn, Policy), Refusal> {
        let Some(policy) = &request.policy else {
            return Err(Refusal::constraint("policy", "not be null"));
        };
        let key = self.key("keyId", request.key_id.as_deref())?;
        let wanted = Wanted::new(&Action::PUT_KEY_POLICY);
        self.authorise(key, &wanted)?;
        let policy = policy.parse::<Policy>();
        let policy = policy.map_err(|error| Refusal::malformed(&error))?;
        let may_again = matches!(
            self.decision(&policy, key, &wanted),
            Decision::Allow(_) | Decision::LeftToIam(_)
        );
        if may_again || request.bypass_policy_lockout_safety_check {
            Ok((key.arn.clone(), policy))
        } else {
            Err(Refusal::new(
                Kind::MalformedPolicyDocument,
                "The new key policy will not allow you to update the key policy in the future.",
            ))
        }
    }
}
