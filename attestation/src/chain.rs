//! From a document's leaf certificate to a pinned root (RFC 5280, section 6,
//! narrowed to what AWS issues).

use crate::cache::{Cache, digests};
use crate::certificate::{Certificate, Position, RULES};
use crate::clock::Clock;
use crate::crypto::Crypto;
use crate::document::Document;
use crate::report::Report;
use crate::roots::{PinnedRoot, Roots};
use crate::rule::{Rejection, Rule};
use crate::validated::{Authority, Leaf, Validity};

/// The rules that a chain is held against, in the order of checking.
fn rules() -> impl Iterator<Item = Rule> {
    [Rule::ChainRoot, Rule::CertificateEncoding]
        .into_iter()
        .chain(RULES)
        .chain([Rule::ChainNames, Rule::ChainSignature])
}

/// Checks every certificate and every link, root first, but for what the cache
/// knows, and reports the root, and each rule once it holds for the whole chain.
pub(crate) fn verify(
    document: &Document<'_>,
    roots: &Roots,
    cache: &Cache,
    crypto: &dyn Crypto,
    clock: Clock,
    report: &mut Report,
) -> Result<(PinnedRoot, Leaf), Rejection> {
    let ders: Vec<&[u8]> = document.unverified_certificates().collect();
    let root = roots.find(ders.first().copied().unwrap_or_default(), crypto)?;
    report.root = Some(root.clone());
    let digests = digests(&ders, crypto);
    let Some((whole, parts)) = digests.split_last() else {
        return Err(no_leaf());
    };
    if let Some(leaf) = cache.leaf(whole, clock) {
        rules().for_each(|rule| report.passed(rule));
        return Ok((root, leaf));
    }
    report.passed(Rule::ChainRoot);
    let (first, mut above) = match cache.authority(parts, clock) {
        Some((index, authority)) => (index + 1, Some(authority)),
        None => (0, None),
    };
    let mut certificates = read(&ders, first, crypto)?;
    report.passed(Rule::CertificateEncoding);
    for rule in RULES {
        for certificate in &mut certificates {
            certificate.check(rule, clock)?;
        }
        if rule == Rule::CertificateValidity {
            check_together(&certificates, above.as_ref())?;
        }
        report.passed(rule);
    }
    check_names(&certificates, first, above.as_ref())?;
    report.passed(Rule::ChainNames);

    for (index, certificate) in (first..).zip(certificates) {
        // The pinned root is its own issuer: its bytes are what is trusted.
        if let Some(issuer) = &above
            && !certificate.is_signed_by(&issuer.key)
        {
            return Err(Rejection::new(
                Rule::ChainSignature,
                format!("{certificate} is not signed by the certificate above it"),
            ));
        }
        let valid = above
            .as_ref()
            .map_or(Validity::ALWAYS, |above| above.valid)
            .and(certificate.valid_ms());
        let below = above
            .as_ref()
            .map_or(usize::MAX, |above| above.below.saturating_sub(1))
            .min(certificate.path_length().unwrap_or(usize::MAX));
        let subject = certificate.subject().into();
        // Every key has been checked above.
        let Some(key) = certificate.into_key() else {
            break;
        };
        if index + 1 == ders.len() {
            report.passed(Rule::ChainSignature);
            let leaf = Leaf { key, valid };
            cache.keep_leaf(*whole, &leaf);
            return Ok((root, leaf));
        }
        let authority = Authority {
            key,
            subject,
            valid,
            below,
        };
        if let Some(part) = parts.get(index) {
            cache.keep_authority(*part, &authority);
        }
        above = Some(authority);
    }
    Err(no_leaf())
}

fn no_leaf() -> Rejection {
    Rejection::new(Rule::ChainSignature, "there is no leaf")
}

fn read<'a>(
    ders: &[&'a [u8]],
    first: usize,
    crypto: &'a dyn Crypto,
) -> Result<Vec<Certificate<'a>>, Rejection> {
    let mut certificates = Vec::with_capacity(ders.len());
    for (index, der) in ders.iter().enumerate().skip(first) {
        let position = match ders.len() - index {
            1 => Position::Leaf,
            // The leaf does not count.
            left => Position::Authority { below: left - 2 },
        };
        certificates.push(Certificate::parse(der, index, position, crypto)?);
    }
    Ok(certificates)
}

/// Checks that there is an instant at which all of them are valid: what each is spared for
/// a clock that may be wrong would add up otherwise.
fn check_together(
    certificates: &[Certificate<'_>],
    above: Option<&Authority>,
) -> Result<(), Rejection> {
    let mut valid = above.map_or(Validity::ALWAYS, |above| above.valid);
    for certificate in certificates {
        valid = valid.and(certificate.valid_ms());
        if valid.is_empty() {
            let reason = format!("{certificate}: it is never valid together with those above it");
            return Err(Rejection::new(Rule::CertificateValidity, reason));
        }
    }
    Ok(())
}

fn check_names(
    certificates: &[Certificate<'_>],
    first: usize,
    above: Option<&Authority>,
) -> Result<(), Rejection> {
    let mut issuer = above.map(|above| above.subject.as_ref());
    for (index, certificate) in (first..).zip(certificates) {
        let refused = |reason| {
            Err(Rejection::new(
                Rule::ChainNames,
                format!("{certificate} {reason}"),
            ))
        };
        if issuer.is_some_and(|issuer| issuer != certificate.issuer()) {
            return refused("is not issued by the certificate above it");
        }
        if index > 0 && certificate.issuer() == certificate.subject() {
            return refused("names itself as its issuer, and is not the root");
        }
        issuer = Some(certificate.subject());
    }
    Ok(())
}
