//! Nitro attestation documents: parse, verify, decide; the NSM client and the software NSM.
