//! The nonce that a live document must carry.

use crate::policy;
use crate::report::Report;
use crate::rule::Rule;
use crate::shown::{or_empty, shown};

/// Whether a live document answers a challenge, which only a nonce shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonce<'a> {
    /// The document must carry this nonce. It is fresh if whoever verifies drew it at
    /// random for this document alone: nobody can then have kept the document from
    /// before. One of no bytes is refused.
    Fresh(&'a [u8]),
    /// Nobody gave a challenge, so the document may be a copy, as old as the policy's
    /// `max_age` allows. A policy that demands a nonce refuses it.
    Unchallenged,
}

impl Nonce<'_> {
    /// Checks the nonce of a document: it must be this one, and the one that the policy
    /// demands.
    pub(crate) fn check(self, demand: &policy::Nonce, actual: Option<&[u8]>, report: &mut Report) {
        let shown = shown(actual);
        let expected = match (self, demand) {
            (Self::Unchallenged, policy::Nonce::NotChecked) => {
                report.not_checked(Rule::PolicyNonce, shown);
                return;
            }
            (Self::Unchallenged, policy::Nonce::Required) => {
                Err("a nonce, which the verifier was not given".to_owned())
            }
            (Self::Fresh([]), _) => Err("a nonce, and the one given is empty".to_owned()),
            (Self::Fresh(fresh), policy::Nonce::Equal(fixed)) if fresh != fixed => Err(format!(
                "the challenge's {}, and the policy's {} too",
                hex::encode(fresh),
                hex::encode(fixed)
            )),
            (Self::Unchallenged, policy::Nonce::Equal(nonce)) => Ok(nonce.as_slice()),
            (Self::Fresh(nonce), _) => Ok(nonce),
        };
        report.compare(
            Rule::PolicyNonce,
            expected
                .as_ref()
                .is_ok_and(|expected| actual == Some(*expected)),
            expected.map_or_else(|reason| reason, or_empty),
            shown,
        );
    }
}
