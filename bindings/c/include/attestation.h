/*
 * Verification of attestation documents of AWS Nitro Enclaves.
 *
 * A document is accepted if and only if a function for live documents returns
 * ATTESTATION_ACCEPTED, which is 0 as the success of a system call is. What it says is
 * then in the verification's evidence. A document that was refused has no evidence: the
 * function that asks for it returns null, and what reads null evidence returns null or 0.
 *
 * Null is an error wherever bytes, a text, a verifier or a policy are wanted, whatever the
 * length beside it. Pointers through which a function returns something may be null if
 * that is not wanted; otherwise they are always written, with null if there is nothing.
 *
 * What a function returns is freed by the function of its type, once, and so is an error
 * by attestation_string_free; what points into a verification or an audit lives as long as
 * that. Verifiers, policies, verifications and audits never change: threads may share
 * them. No function keeps what it is given.
 *
 * The tests compare this file with the library: change it there.
 */

#ifndef ATTESTATION_H
#define ATTESTATION_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ATTESTATION_MUST_USE __attribute__((warn_unused_result))
#else
#define ATTESTATION_MUST_USE
#endif

// The document keeps every rule of the verifier and of the policy.
#define ATTESTATION_ACCEPTED 0

// It breaks one, which the verification or the audit names.
#define ATTESTATION_REFUSED 1

// An argument cannot be used, so nothing was verified. The error says which, and why.
#define ATTESTATION_UNUSABLE 2

// The version of this header. Before 1.0 another minor version may break its callers,
// from then on only another major version.
#define ATTESTATION_VERSION_MAJOR 0

// See `ATTESTATION_VERSION_MAJOR`.
#define ATTESTATION_VERSION_MINOR 1

// See `ATTESTATION_VERSION_MAJOR`.
#define ATTESTATION_VERSION_PATCH 0

// Bytes of a register.
#define ATTESTATION_PCR_BYTES 48

// A policy is TOML.
#define ATTESTATION_FORMAT_TOML 0

// A policy is JSON with the same keys.
#define ATTESTATION_FORMAT_JSON 1

// What came of the audit of an archived document. It says nothing about now.
typedef struct attestation_audit attestation_audit;

// What a document says that keeps every rule. Whether it does now, or did at another
// time, is said by what it was taken from: a verification or an audit.
typedef struct attestation_evidence attestation_evidence;

// What is expected of a result.
typedef struct attestation_expectations attestation_expectations;

// The keys of those whose results are believed.
typedef struct attestation_key_set attestation_key_set;

// What a verifier demands of an enclave.
typedef struct attestation_policy attestation_policy;

// What came of the verification of a signed result.
typedef struct attestation_result attestation_result;

// What came of the verification of a live document.
typedef struct attestation_verification attestation_verification;

// What a verifier trusts, and the certificates that it has checked. Keep one.
typedef struct attestation_verifier attestation_verifier;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that is loaded, such as "0.1.0".
const char *attestation_version(void);

// Frees the text of an error; null is left alone.
//
// # Safety
//
// `text` is null or is an error of this library, and is not used again.
void attestation_string_free(char *text);

// What made the document: "enclave" or "nitro-tpm"; null if `evidence` is.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_profile(const attestation_evidence *evidence);

// The enclave's identity; null if `evidence` is.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_module_id(const attestation_evidence *evidence);

// What the document was made for, such as "workload"; null for a NitroTPM's, and if
// `evidence` is. It holds as far as the enclave's image is one with `enclave-init`.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_purpose(const attestation_evidence *evidence);

// The partition of AWS whose root the document's certificates lead to, such as "aws"; null
// if the root is not AWS's, as in tests, and if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_partition(const attestation_evidence *evidence);

// When the document was made, in milliseconds since 1970; 0 if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
uint64_t attestation_evidence_timestamp_ms(const attestation_evidence *evidence);

// A register, `ATTESTATION_PCR_BYTES` bytes; null if the document does not hold it, and
// if `evidence` is.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const uint8_t *attestation_evidence_pcr(const attestation_evidence *evidence, size_t index);

// The nonce, and its `length`; null and 0 if there is none, and if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
// `length` is null or can be written to.
const uint8_t *attestation_evidence_nonce(const attestation_evidence *evidence, size_t *length);

// What the enclave's software put into the document, and its `length`; null and 0 if
// there is nothing, and if `evidence` is null. What is empty is not null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
// `length` is null or can be written to.
const uint8_t *attestation_evidence_user_data(const attestation_evidence *evidence, size_t *length);

// The key that the enclave's software bound to the document, and its `length`; null and
// 0 if there is none, and if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
// `length` is null or can be written to.
const uint8_t *attestation_evidence_public_key(const attestation_evidence *evidence,
                                               size_t *length);

// The policy in a text of `length` bytes in UTF-8, in `ATTESTATION_FORMAT_TOML`
// or `ATTESTATION_FORMAT_JSON`. It can name no files.
//
// Null if it is no policy; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `text` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_policy *attestation_policy_parse(uint32_t format,
                                             const char *text,
                                             size_t length,
                                             char **error);

// Frees a policy; null is left alone.
//
// # Safety
//
// `policy` is null or comes from `attestation_policy_parse`, and is not used
// again.
void attestation_policy_free(attestation_policy *policy);

// The keys in a JWK set, JSON of `length` bytes.
//
// Null if it is none; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `json` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_key_set *attestation_key_set_parse(const char *json,
                                               size_t length,
                                               char **error);

// Frees a key set; null is left alone.
//
// # Safety
//
// `keys` is null or comes from `attestation_key_set_parse`, and is not used again.
void attestation_key_set_free(attestation_key_set *keys);

// The expectations in a JSON text of `length` bytes. `docs/attest.md` lists its keys. They
// have to say what may run in the enclave, or that any policy of the issuer is good.
//
// Null if they cannot be used; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `json` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_expectations *attestation_expectations_parse(const char *json,
                                                         size_t length,
                                                         char **error);

// Frees expectations; null is left alone.
//
// # Safety
//
// `expectations` is null or comes from `attestation_expectations_parse`, and is not used
// again.
void attestation_expectations_free(attestation_expectations *expectations);

// Verifies a signed result now, by the system's clock. It must be for this nonce, of 8 to
// 64 bytes, which was drawn for it alone.
//
// Returns `ATTESTATION_ACCEPTED`, which is 0, only if a key of the set has signed the
// result and it is what is expected. Whether it is accepted or refused, `result`, unless
// it is null, gets what `attestation_result_free` frees. After `ATTESTATION_UNUSABLE` it
// gets null, and `error`, unless it is null, a text that `attestation_string_free` frees;
// otherwise `error` gets null.
//
// # Safety
//
// `keys` and `expectations` are null or come from this library and have not been freed.
// `token` has `token_length` bytes, and `nonce` has `nonce_length`. `result` and `error`
// are null or can be written to.
ATTESTATION_MUST_USE
int attestation_result_verify(const attestation_key_set *keys,
                              const attestation_expectations *expectations,
                              const char *token,
                              size_t token_length,
                              const uint8_t *nonce,
                              size_t nonce_length,
                              attestation_result **result,
                              char **error);

// As `attestation_result_verify`, for any nonce or none: whoever has the result can show it
// again until it expires.
//
// # Safety
//
// As for `attestation_result_verify`.
ATTESTATION_MUST_USE
int attestation_result_verify_unchallenged(const attestation_key_set *keys,
                                           const attestation_expectations *expectations,
                                           const char *token,
                                           size_t token_length,
                                           attestation_result **result,
                                           char **error);

// What the accepted result says, JSON; null if it was refused, and if `result` is null.
//
// # Safety
//
// `result` is null or comes from this library and has not been freed.
const char *attestation_result_claims(const attestation_result *result);

// The identifier of the first rule that was broken; null if the result was accepted.
//
// # Safety
//
// `result` is null or comes from this library and has not been freed.
const char *attestation_result_rule(const attestation_result *result);

// How that rule was broken, in a line for people; null if the result was accepted.
//
// # Safety
//
// `result` is null or comes from this library and has not been freed.
const char *attestation_result_reason(const attestation_result *result);

// Frees what came of the verification of a result; null is left alone.
//
// # Safety
//
// `result` is null or comes from this library, and neither it nor what points into it is
// used again.
void attestation_result_free(attestation_result *result);

// Verifies a live document, which must carry the nonce of this challenge: 32 random
// bytes, say, that were drawn for it alone.
//
// Returns `ATTESTATION_ACCEPTED`, which is 0, only if the document keeps every rule now.
// Whether it is accepted or refused, `verification`, unless it is null, gets what
// `attestation_verification_free` frees. After `ATTESTATION_UNUSABLE` it gets null, and
// `error`, unless it is null, a text that `attestation_string_free` frees; otherwise
// `error` gets null.
//
// # Safety
//
// `verifier` and `policy` are null or come from this library and have not been freed.
// `document` has `document_length` bytes, and `nonce` has `nonce_length`.
// `verification` and `error` are null or can be written to.
ATTESTATION_MUST_USE
int attestation_verify(const attestation_verifier *verifier,
                       const attestation_policy *policy,
                       const uint8_t *document,
                       size_t document_length,
                       const uint8_t *nonce,
                       size_t nonce_length,
                       attestation_verification **verification,
                       char **error);

// As `attestation_verify`, for a document that answers no challenge: it may be a copy, as
// old as the policy's `max_age` allows. A policy that demands a nonce refuses it.
//
// # Safety
//
// As for `attestation_verify`.
ATTESTATION_MUST_USE
int attestation_verify_unchallenged(const attestation_verifier *verifier,
                                    const attestation_policy *policy,
                                    const uint8_t *document,
                                    size_t document_length,
                                    attestation_verification **verification,
                                    char **error);

// Checks an archived document as of another time, in milliseconds since 1970. There is
// no challenge: a nonce that the document must carry is one that the policy states.
//
// Returns `ATTESTATION_ACCEPTED`, which is 0, only if the document kept every rule at
// that time. The rest is as for `attestation_verify`; `attestation_audit_free` frees the
// audit.
//
// # Safety
//
// As for `attestation_verify`, with `audit` in the place of `verification`.
ATTESTATION_MUST_USE
int attestation_audit_at(const attestation_verifier *verifier,
                         const attestation_policy *policy,
                         const uint8_t *document,
                         size_t document_length,
                         uint64_t time_ms,
                         attestation_audit **audit,
                         char **error);

// As `attestation_audit_at`, as of the document's own time: whether it was good when it
// was made. It says nothing about when that was.
//
// # Safety
//
// As for `attestation_audit_at`.
ATTESTATION_MUST_USE
int attestation_audit_of_document(const attestation_verifier *verifier,
                                  const attestation_policy *policy,
                                  const uint8_t *document,
                                  size_t document_length,
                                  attestation_audit **audit,
                                  char **error);

// What the accepted document says; null if it was refused, and if `verification` is null.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const attestation_evidence *attestation_verification_evidence(const attestation_verification *verification);

// The identifier of the first rule that was broken; null if the document was accepted.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const char *attestation_verification_rule(const attestation_verification *verification);

// How that rule was broken, in a line for people; null if the document was accepted.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const char *attestation_verification_reason(const attestation_verification *verification);

// The report of every check, JSON; null if `verification` is.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const char *attestation_verification_report(const attestation_verification *verification);

// Frees a verification; null is left alone.
//
// # Safety
//
// `verification` is null or comes from this library, and neither it nor what points into
// it is used again.
void attestation_verification_free(attestation_verification *verification);

// What the document says that was good at that time; null if it was refused, and if
// `audit` is null.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const attestation_evidence *attestation_audit_evidence(const attestation_audit *audit);

// The identifier of the first rule that was broken; null if there is none.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const char *attestation_audit_rule(const attestation_audit *audit);

// How that rule was broken, in a line for people; null if none was.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const char *attestation_audit_reason(const attestation_audit *audit);

// The report of every check, JSON; null if `audit` is.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const char *attestation_audit_report(const attestation_audit *audit);

// Frees an audit; null is left alone.
//
// # Safety
//
// `audit` is null or comes from this library, and neither it nor what points into it is
// used again.
void attestation_audit_free(attestation_audit *audit);

// A verifier that trusts AWS's root for the commercial regions.
//
// Null only after an internal error; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `error` is null or can be written to.
ATTESTATION_MUST_USE attestation_verifier *attestation_verifier_new(char **error);

// A verifier that trusts AWS's root for the regions of a partition: "aws", which
// `attestation_verifier_new` trusts, or "aws-us-gov", GovCloud (US).
//
// Null if there is no such partition; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `partition` is null or ends with a zero. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_verifier *attestation_verifier_for_partition(const char *partition,
                                                         char **error);

// A verifier that trusts the certificates in `roots`, PEM of `length` bytes, and no
// others: those of several partitions, as `attest roots --pem` prints them, or such as sign
// the documents of tests.
//
// Null if the certificates cannot be used; `error`, unless it is null, then gets a text
// that `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `roots` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_verifier *attestation_verifier_with_roots(const uint8_t *roots,
                                                      size_t length,
                                                      char **error);

// Frees a verifier; null is left alone.
//
// # Safety
//
// `verifier` is null or comes from this library, and is not used again.
void attestation_verifier_free(attestation_verifier *verifier);

// A verifier that trusts AWS's root for the commercial regions.
//
// Null only after an internal error; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `error` is null or can be written to.
ATTESTATION_MUST_USE attestation_verifier *attestation_verifier_new(char **error);

// A verifier that trusts AWS's root for the regions of a partition: "aws", which
// `attestation_verifier_new` trusts, or "aws-us-gov", GovCloud (US).
//
// Null if there is no such partition; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `partition` is null or ends with a zero. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_verifier *attestation_verifier_for_partition(const char *partition,
                                                         char **error);

// A verifier that trusts the certificates in `roots`, PEM of `length` bytes, and no
// others: those of several partitions, as `attest roots --pem` prints them, or such as sign
// the documents of tests.
//
// Null if the certificates cannot be used; `error`, unless it is null, then gets a text
// that `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `roots` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_verifier *attestation_verifier_with_roots(const uint8_t *roots,
                                                      size_t length,
                                                      char **error);

// Frees a verifier; null is left alone.
//
// # Safety
//
// `verifier` is null or comes from this library, and is not used again.
void attestation_verifier_free(attestation_verifier *verifier);

// The policy in a text of `length` bytes in UTF-8, in `ATTESTATION_FORMAT_TOML`
// or `ATTESTATION_FORMAT_JSON`. It can name no files.
//
// Null if it is no policy; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `text` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_policy *attestation_policy_parse(uint32_t format,
                                             const char *text,
                                             size_t length,
                                             char **error);

// Frees a policy; null is left alone.
//
// # Safety
//
// `policy` is null or comes from `attestation_policy_parse`, and is not used
// again.
void attestation_policy_free(attestation_policy *policy);

// Verifies a live document, which must carry the nonce of this challenge: 32 random
// bytes, say, that were drawn for it alone.
//
// Returns `ATTESTATION_ACCEPTED`, which is 0, only if the document keeps every rule now.
// Whether it is accepted or refused, `verification`, unless it is null, gets what
// `attestation_verification_free` frees. After `ATTESTATION_UNUSABLE` it gets null, and
// `error`, unless it is null, a text that `attestation_string_free` frees; otherwise
// `error` gets null.
//
// # Safety
//
// `verifier` and `policy` are null or come from this library and have not been freed.
// `document` has `document_length` bytes, and `nonce` has `nonce_length`.
// `verification` and `error` are null or can be written to.
ATTESTATION_MUST_USE
int attestation_verify(const attestation_verifier *verifier,
                       const attestation_policy *policy,
                       const uint8_t *document,
                       size_t document_length,
                       const uint8_t *nonce,
                       size_t nonce_length,
                       attestation_verification **verification,
                       char **error);

// As `attestation_verify`, for a document that answers no challenge: it may be a copy, as
// old as the policy's `max_age` allows. A policy that demands a nonce refuses it.
//
// # Safety
//
// As for `attestation_verify`.
ATTESTATION_MUST_USE
int attestation_verify_unchallenged(const attestation_verifier *verifier,
                                    const attestation_policy *policy,
                                    const uint8_t *document,
                                    size_t document_length,
                                    attestation_verification **verification,
                                    char **error);

// Checks an archived document as of another time, in milliseconds since 1970. There is
// no challenge: a nonce that the document must carry is one that the policy states.
//
// Returns `ATTESTATION_ACCEPTED`, which is 0, only if the document kept every rule at
// that time. The rest is as for `attestation_verify`; `attestation_audit_free` frees the
// audit.
//
// # Safety
//
// As for `attestation_verify`, with `audit` in the place of `verification`.
ATTESTATION_MUST_USE
int attestation_audit_at(const attestation_verifier *verifier,
                         const attestation_policy *policy,
                         const uint8_t *document,
                         size_t document_length,
                         uint64_t time_ms,
                         attestation_audit **audit,
                         char **error);

// As `attestation_audit_at`, as of the document's own time: whether it was good when it
// was made. It says nothing about when that was.
//
// # Safety
//
// As for `attestation_audit_at`.
ATTESTATION_MUST_USE
int attestation_audit_of_document(const attestation_verifier *verifier,
                                  const attestation_policy *policy,
                                  const uint8_t *document,
                                  size_t document_length,
                                  attestation_audit **audit,
                                  char **error);

// What the accepted document says; null if it was refused, and if `verification` is null.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const attestation_evidence *attestation_verification_evidence(const attestation_verification *verification);

// The identifier of the first rule that was broken; null if the document was accepted.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const char *attestation_verification_rule(const attestation_verification *verification);

// How that rule was broken, in a line for people; null if the document was accepted.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const char *attestation_verification_reason(const attestation_verification *verification);

// The report of every check, JSON; null if `verification` is.
//
// # Safety
//
// `verification` is null or comes from this library and has not been freed.
const char *attestation_verification_report(const attestation_verification *verification);

// Frees a verification; null is left alone.
//
// # Safety
//
// `verification` is null or comes from this library, and neither it nor what points into
// it is used again.
void attestation_verification_free(attestation_verification *verification);

// What the document says that was good at that time; null if it was refused, and if
// `audit` is null.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const attestation_evidence *attestation_audit_evidence(const attestation_audit *audit);

// The identifier of the first rule that was broken; null if there is none.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const char *attestation_audit_rule(const attestation_audit *audit);

// How that rule was broken, in a line for people; null if none was.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const char *attestation_audit_reason(const attestation_audit *audit);

// The report of every check, JSON; null if `audit` is.
//
// # Safety
//
// `audit` is null or comes from this library and has not been freed.
const char *attestation_audit_report(const attestation_audit *audit);

// Frees an audit; null is left alone.
//
// # Safety
//
// `audit` is null or comes from this library, and neither it nor what points into it is
// used again.
void attestation_audit_free(attestation_audit *audit);

// What made the document: "enclave" or "nitro-tpm"; null if `evidence` is.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_profile(const attestation_evidence *evidence);

// The enclave's identity; null if `evidence` is.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_module_id(const attestation_evidence *evidence);

// What the document was made for, such as "workload"; null for a NitroTPM's, and if
// `evidence` is. It holds as far as the enclave's image is one with `enclave-init`.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_purpose(const attestation_evidence *evidence);

// The partition of AWS whose root the document's certificates lead to, such as "aws"; null
// if the root is not AWS's, as in tests, and if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const char *attestation_evidence_partition(const attestation_evidence *evidence);

// When the document was made, in milliseconds since 1970; 0 if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
uint64_t attestation_evidence_timestamp_ms(const attestation_evidence *evidence);

// A register, `ATTESTATION_PCR_BYTES` bytes; null if the document does not hold it, and
// if `evidence` is.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
const uint8_t *attestation_evidence_pcr(const attestation_evidence *evidence, size_t index);

// The nonce, and its `length`; null and 0 if there is none, and if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
// `length` is null or can be written to.
const uint8_t *attestation_evidence_nonce(const attestation_evidence *evidence, size_t *length);

// What the enclave's software put into the document, and its `length`; null and 0 if
// there is nothing, and if `evidence` is null. What is empty is not null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
// `length` is null or can be written to.
const uint8_t *attestation_evidence_user_data(const attestation_evidence *evidence, size_t *length);

// The key that the enclave's software bound to the document, and its `length`; null and
// 0 if there is none, and if `evidence` is null.
//
// # Safety
//
// `evidence` is null or comes from this library, and what it points into lives.
// `length` is null or can be written to.
const uint8_t *attestation_evidence_public_key(const attestation_evidence *evidence,
                                               size_t *length);

// The keys in a JWK set, JSON of `length` bytes.
//
// Null if it is none; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `json` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_key_set *attestation_key_set_parse(const char *json,
                                               size_t length,
                                               char **error);

// Frees a key set; null is left alone.
//
// # Safety
//
// `keys` is null or comes from `attestation_key_set_parse`, and is not used again.
void attestation_key_set_free(attestation_key_set *keys);

// The expectations in a JSON text of `length` bytes. `docs/attest.md` lists its keys. They
// have to say what may run in the enclave, or that any policy of the issuer is good.
//
// Null if they cannot be used; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees, and null otherwise.
//
// # Safety
//
// `json` has `length` bytes. `error` is null or can be written to.
ATTESTATION_MUST_USE
attestation_expectations *attestation_expectations_parse(const char *json,
                                                         size_t length,
                                                         char **error);

// Frees expectations; null is left alone.
//
// # Safety
//
// `expectations` is null or comes from `attestation_expectations_parse`, and is not used
// again.
void attestation_expectations_free(attestation_expectations *expectations);

// Verifies a signed result now, by the system's clock. It must be for this nonce, of 8 to
// 64 bytes, which was drawn for it alone.
//
// Returns `ATTESTATION_ACCEPTED`, which is 0, only if a key of the set has signed the
// result and it is what is expected. Whether it is accepted or refused, `result`, unless
// it is null, gets what `attestation_result_free` frees. After `ATTESTATION_UNUSABLE` it
// gets null, and `error`, unless it is null, a text that `attestation_string_free` frees;
// otherwise `error` gets null.
//
// # Safety
//
// `keys` and `expectations` are null or come from this library and have not been freed.
// `token` has `token_length` bytes, and `nonce` has `nonce_length`. `result` and `error`
// are null or can be written to.
ATTESTATION_MUST_USE
int attestation_result_verify(const attestation_key_set *keys,
                              const attestation_expectations *expectations,
                              const char *token,
                              size_t token_length,
                              const uint8_t *nonce,
                              size_t nonce_length,
                              attestation_result **result,
                              char **error);

// As `attestation_result_verify`, for any nonce or none: whoever has the result can show it
// again until it expires.
//
// # Safety
//
// As for `attestation_result_verify`.
ATTESTATION_MUST_USE
int attestation_result_verify_unchallenged(const attestation_key_set *keys,
                                           const attestation_expectations *expectations,
                                           const char *token,
                                           size_t token_length,
                                           attestation_result **result,
                                           char **error);

// What the accepted result says, JSON; null if it was refused, and if `result` is null.
//
// # Safety
//
// `result` is null or comes from this library and has not been freed.
const char *attestation_result_claims(const attestation_result *result);

// The identifier of the first rule that was broken; null if the result was accepted.
//
// # Safety
//
// `result` is null or comes from this library and has not been freed.
const char *attestation_result_rule(const attestation_result *result);

// How that rule was broken, in a line for people; null if the result was accepted.
//
// # Safety
//
// `result` is null or comes from this library and has not been freed.
const char *attestation_result_reason(const attestation_result *result);

// Frees what came of the verification of a result; null is left alone.
//
// # Safety
//
// `result` is null or comes from this library, and neither it nor what points into it is
// used again.
void attestation_result_free(attestation_result *result);

// Frees the text of an error; null is left alone.
//
// # Safety
//
// `text` is null or is an error of this library, and is not used again.
void attestation_string_free(char *text);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ATTESTATION_H */
