/*
 * Verification of attestation documents of AWS Nitro Enclaves.
 *
 * Pointers that a function gives are freed by the function of their type, once;
 * what points into a result lives as long as the result. Verifiers, policies and
 * results never change: threads may share them. No function keeps what it is
 * given, and none ends the process.
 *
 * The tests compare this file with the library: change it there.
 */

#ifndef ATTESTATION_H
#define ATTESTATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Check at the system's time: for documents that claim to be live.
#define ATTESTATION_TIME_NOW 0

// Check at the document's own time: for audits that ask only whether it was
// valid when it was made.
#define ATTESTATION_TIME_OF_DOCUMENT UINT64_MAX

// A policy is TOML.
#define ATTESTATION_FORMAT_TOML 0

// A policy is JSON with the same keys.
#define ATTESTATION_FORMAT_JSON 1

// Bytes of a register.
#define ATTESTATION_PCR_BYTES 48

// What a verifier demands of an enclave.
typedef struct attestation_policy attestation_policy;

// What came of a verification.
typedef struct attestation_result attestation_result;

// What a verifier trusts, and the certificates that it has checked. Keep one.
typedef struct attestation_verifier attestation_verifier;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// A verifier. It trusts the certificates in `roots`, PEM of `length` bytes, or
// AWS's root for the commercial regions where `roots` is null.
//
// Null if the certificates cannot be read; `error`, unless it is null, then
// gets a text that `attestation_string_free` frees.
//
// # Safety
//
// `roots` is null or has `length` bytes. `error` is null or can be written to.
attestation_verifier *attestation_verifier_new(const uint8_t *roots, size_t length, char **error);

// Frees a verifier; null is left alone.
//
// # Safety
//
// `verifier` is null or comes from `attestation_verifier_new`, and is not used
// again.
void attestation_verifier_free(attestation_verifier *verifier);

// The policy in a text of `length` bytes in UTF-8, in `ATTESTATION_FORMAT_TOML`
// or `ATTESTATION_FORMAT_JSON`. It can name no files.
//
// Null if it is no policy; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees.
//
// # Safety
//
// `text` has `length` bytes. `error` is null or can be written to.
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

// Verifies a document.
//
// `nonce` is the one of this challenge, which the document must then carry; if
// it is null, the policy decides. `time_ms` is `ATTESTATION_TIME_NOW`,
// `ATTESTATION_TIME_OF_DOCUMENT` or milliseconds since 1970.
//
// A rejected document gives a result, too. Null only if an argument cannot be
// used; `error`, unless it is null, then gets a text that
// `attestation_string_free` frees.
//
// # Safety
//
// `verifier` and `policy` come from this library and have not been freed.
// `document` has `document_length` bytes; `nonce` is null or has `nonce_length`.
// `error` is null or can be written to.
attestation_result *attestation_verify(const attestation_verifier *verifier,
                                       const attestation_policy *policy,
                                       const uint8_t *document,
                                       size_t document_length,
                                       const uint8_t *nonce,
                                       size_t nonce_length,
                                       uint64_t time_ms,
                                       char **error);

// Frees a result; null is left alone.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`, and neither it nor what
// points into it is used again.
void attestation_result_free(attestation_result *result);

// Whether every rule was kept; false for null.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`.
bool attestation_result_accepted(const attestation_result *result);

// The identifier of the first rule that was broken; null if accepted.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`.
const char *attestation_result_rule(const attestation_result *result);

// The report of every check, JSON.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`.
const char *attestation_result_report(const attestation_result *result);

// The enclave's identity; null unless accepted.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`.
const char *attestation_result_module_id(const attestation_result *result);

// When the document was made, in milliseconds since 1970; 0 unless accepted.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`.
uint64_t attestation_result_timestamp_ms(const attestation_result *result);

// A register, `ATTESTATION_PCR_BYTES` bytes; null unless accepted, and if the
// document does not hold it.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`.
const uint8_t *attestation_result_pcr(const attestation_result *result, size_t index);

// The nonce, and its `length`; null unless accepted, and if there is none.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`. `length` is null or can
// be written to.
const uint8_t *attestation_result_nonce(const attestation_result *result, size_t *length);

// What the enclave's software put into the document, and its `length`; null
// unless accepted, and if there is nothing. What is empty is not null.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`. `length` is null or can
// be written to.
const uint8_t *attestation_result_user_data(const attestation_result *result, size_t *length);

// The key that the enclave's software bound to the document, and its `length`;
// null unless accepted, and if there is none.
//
// # Safety
//
// `result` is null or comes from `attestation_verify`. `length` is null or can
// be written to.
const uint8_t *attestation_result_public_key(const attestation_result *result, size_t *length);

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
