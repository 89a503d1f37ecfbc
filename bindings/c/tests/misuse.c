/*
 * What a caller can get wrong, and what threads share:
 *
 *     misuse AWS-DOCUMENT ROOT LIVE-DOCUMENT NONCE
 *
 * Ends with 0 if all of it is as the header says. Every pointer that a function is to
 * write begins as GARBAGE, as a variable that nobody initialised may.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attestation.h"
#include "check.h"

struct bytes {
    uint8_t at[1 << 16];
    size_t length;
};

static struct bytes archived, root, live, nonce;
static attestation_verifier *verifier, *live_verifier;
static attestation_policy *policy;
static attestation_verification *verification;
static attestation_audit *audit;

static attestation_policy *parse(uint32_t format, const char *text)
{
    return attestation_policy_parse(format, text, strlen(text), &error);
}

static int verify(const attestation_verifier *by, const struct bytes *document,
                  const uint8_t *with, size_t length)
{
    verification = GARBAGE;
    return attestation_verify(by, policy, document->at, document->length, with, length,
                              &verification, &error);
}

/* Nothing was verified, and the caller holds nothing that could be taken for a result. */
static void check_unusable(int status, const char *text)
{
    CHECK(status == ATTESTATION_UNUSABLE);
    CHECK(verification == NULL);
    check_error(text);
}

/* Nothing of a refused document can be believed. */
static void check_no_evidence(const attestation_evidence *evidence)
{
    size_t length = 7;
    CHECK(evidence == NULL);
    CHECK(attestation_evidence_profile(evidence) == NULL);
    CHECK(attestation_evidence_module_id(evidence) == NULL);
    CHECK(attestation_evidence_purpose(evidence) == NULL);
    CHECK(attestation_evidence_partition(evidence) == NULL);
    CHECK(attestation_evidence_timestamp_ms(evidence) == 0);
    CHECK(attestation_evidence_pcr(evidence, 0) == NULL);
    CHECK(attestation_evidence_nonce(evidence, &length) == NULL && length == 0);
    length = 7;
    CHECK(attestation_evidence_user_data(evidence, &length) == NULL && length == 0);
    length = 7;
    CHECK(attestation_evidence_public_key(evidence, &length) == NULL && length == 0);
    CHECK(attestation_evidence_public_key(evidence, NULL) == NULL);
}

/* The document was refused by this rule, and says nothing. */
static void check_refused(int status, const char *rule)
{
    CHECK(status == ATTESTATION_REFUSED && status != 0);
    check_no_error();
    CHECK(strcmp(attestation_verification_rule(verification), rule) == 0);
    CHECK(strlen(attestation_verification_reason(verification)) > 0);
    CHECK(strstr(attestation_verification_report(verification), "\"accepted\":false") != NULL);
    check_no_evidence(attestation_verification_evidence(verification));
    attestation_verification_free(verification);
}

static void the_version_is_the_headers(void)
{
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", ATTESTATION_VERSION_MAJOR,
             ATTESTATION_VERSION_MINOR, ATTESTATION_VERSION_PATCH);
    CHECK(strcmp(attestation_version(), version) == 0);
}

static void roots_that_are_none_are_an_error(void)
{
    const uint8_t no_pem[] = "no PEM";
    CHECK(attestation_verifier_with_roots(no_pem, sizeof no_pem, &error) == NULL);
    check_error("root certificate");
    CHECK(attestation_verifier_with_roots(no_pem, SIZE_MAX, &error) == NULL);
    check_error("roots cannot have");
    /* A file that could not be read is not AWS's root. */
    CHECK(attestation_verifier_with_roots(NULL, 0, &error) == NULL);
    check_error("roots is null");
    CHECK(attestation_verifier_with_roots(NULL, 7, &error) == NULL);
    check_error("roots is null");
    CHECK(attestation_verifier_with_roots(no_pem, sizeof no_pem, NULL) == NULL);
    CHECK(attestation_verifier_for_partition(NULL, &error) == NULL);
    check_error("partition is null");
    CHECK(attestation_verifier_for_partition("aws-cn", &error) == NULL);
    check_error("no partition whose root AWS publishes");
    attestation_verifier *gov_cloud = attestation_verifier_for_partition("aws-us-gov", &error);
    CHECK(gov_cloud != NULL);
    check_no_error();
    attestation_verifier_free(gov_cloud);
    verifier = attestation_verifier_new(&error);
    CHECK(verifier != NULL);
    check_no_error();
    live_verifier = attestation_verifier_with_roots(root.at, root.length, &error);
    CHECK(live_verifier != NULL);
    check_no_error();
}

static void policies_that_are_none_are_an_error(void)
{
    CHECK(attestation_policy_parse(ATTESTATION_FORMAT_TOML, NULL, 1, &error) == NULL);
    check_error("text is null");
    CHECK(attestation_policy_parse(ATTESTATION_FORMAT_TOML, NULL, 0, &error) == NULL);
    check_error("text is null");
    CHECK(parse(ATTESTATION_FORMAT_TOML, "") == NULL);
    check_error("names no ");
    CHECK(parse(ATTESTATION_FORMAT_TOML, "\xff") == NULL);
    check_error("utf-8");
    CHECK(parse(ATTESTATION_FORMAT_JSON, "{") == NULL);
    check_error("EOF");
    CHECK(parse(ATTESTATION_FORMAT_JSON,
                "{\"role_arn\": \"arn:aws:iam::123456789012:role/Webserver\"}") == NULL);
    check_error("names no code");
    CHECK(parse(7, "{}") == NULL);
    check_error("7 is no format");
    policy = parse(ATTESTATION_FORMAT_JSON, "{\"allow_any_image\": true}");
    CHECK(policy != NULL);
    check_no_error();
}

static void arguments_that_cannot_be_used_accept_nothing(void)
{
    const struct bytes *document = &live;
    check_unusable(verify(NULL, document, nonce.at, nonce.length), "verifier is null");
    attestation_policy *good = policy;
    policy = NULL;
    check_unusable(verify(live_verifier, document, nonce.at, nonce.length), "policy is null");
    policy = good;

    /* A nonce that is missing by accident is no live document without a challenge. */
    check_unusable(verify(live_verifier, document, NULL, 0), "nonce is null");
    check_unusable(verify(live_verifier, document, NULL, 32), "nonce is null");
    check_unusable(verify(live_verifier, document, nonce.at, 0), "nonce is empty");
    check_unusable(verify(live_verifier, document, live.at, 1 << 13), "nonce has 8192 bytes");
    check_unusable(verify(live_verifier, document, nonce.at, SIZE_MAX), "nonce cannot have");

    verification = GARBAGE;
    check_unusable(attestation_verify(live_verifier, policy, NULL, 0, nonce.at, nonce.length,
                                      &verification, &error),
                   "document is null");
    verification = GARBAGE;
    check_unusable(attestation_verify_unchallenged(live_verifier, policy, NULL, 1,
                                                   &verification, &error),
                   "document is null");
    verification = GARBAGE;
    check_unusable(attestation_verify_unchallenged(live_verifier, policy, live.at, SIZE_MAX,
                                                   &verification, &error),
                   "document cannot have");

    /* Whoever wants neither is told by the status. */
    CHECK(attestation_verify(NULL, NULL, NULL, 0, NULL, 0, NULL, NULL) == ATTESTATION_UNUSABLE);

    audit = GARBAGE;
    CHECK(attestation_audit_at(verifier, NULL, archived.at, archived.length, 0, &audit,
                               &error) == ATTESTATION_UNUSABLE);
    CHECK(audit == NULL);
    check_error("policy is null");
    audit = GARBAGE;
    CHECK(attestation_audit_of_document(verifier, policy, NULL, 0, &audit, &error) ==
          ATTESTATION_UNUSABLE);
    CHECK(audit == NULL);
    check_error("document is null");
}

static void a_live_document_is_accepted_by_its_own_nonce(void)
{
    CHECK(verify(live_verifier, &live, nonce.at, nonce.length) == ATTESTATION_ACCEPTED);
    check_no_error();
    CHECK(ATTESTATION_ACCEPTED == 0);
    CHECK(attestation_verification_rule(verification) == NULL);
    CHECK(attestation_verification_reason(verification) == NULL);
    const attestation_evidence *evidence = attestation_verification_evidence(verification);
    size_t length = 0;
    const uint8_t *carried = attestation_evidence_nonce(evidence, &length);
    CHECK(length == nonce.length && memcmp(carried, nonce.at, length) == 0);
    CHECK(strcmp(attestation_evidence_profile(evidence), "enclave") == 0);
    CHECK(strcmp(attestation_evidence_purpose(evidence), "workload") == 0);
    /* The root is a test's. */
    CHECK(attestation_evidence_partition(evidence) == NULL);
    CHECK(strstr(attestation_verification_report(verification), "\"mode\":\"live\"") != NULL);
    attestation_verification_free(verification);

    /* The status alone is enough, and a document is no challenge's by itself. */
    CHECK(attestation_verify(live_verifier, policy, live.at, live.length, nonce.at,
                             nonce.length, NULL, NULL) == ATTESTATION_ACCEPTED);
    check_refused(verify(live_verifier, &live, nonce.at, nonce.length - 1), "policy.nonce");
    verification = GARBAGE;
    CHECK(attestation_verify_unchallenged(live_verifier, policy, live.at, live.length,
                                          &verification, &error) == ATTESTATION_ACCEPTED);
    check_no_error();
    attestation_verification_free(verification);

    attestation_policy *any = policy;
    policy = parse(ATTESTATION_FORMAT_TOML, "allow_any_image = true\nnonce = \"required\"");
    CHECK(policy != NULL);
    check_no_error();
    check_refused(attestation_verify_unchallenged(live_verifier, policy, live.at, live.length,
                                                  &verification, &error),
                  "policy.nonce");
    attestation_policy_free(policy);
    policy = any;

    /* Another root's; none at all; and AWS's, which has expired. */
    check_refused(verify(verifier, &live, nonce.at, nonce.length), "chain.root");
    check_refused(attestation_verify_unchallenged(verifier, policy, live.at, 0, &verification,
                                                  &error),
                  "cbor.encoding");
    check_refused(attestation_verify_unchallenged(verifier, policy, archived.at,
                                                  archived.length, &verification, &error),
                  "certificate.validity");
}

static int audit_at(uint64_t time)
{
    audit = GARBAGE;
    int status = attestation_audit_at(verifier, policy, archived.at, archived.length, time,
                                      &audit, &error);
    check_no_error();
    return status;
}

static void the_time_of_an_audit_means_nothing_else(void)
{
    CHECK(attestation_audit_of_document(verifier, policy, archived.at, archived.length, &audit,
                                        &error) == ATTESTATION_ACCEPTED);
    check_no_error();
    const attestation_evidence *evidence = attestation_audit_evidence(audit);
    CHECK(attestation_audit_rule(audit) == NULL && attestation_audit_reason(audit) == NULL);
    CHECK(strstr(attestation_audit_report(audit), "\"mode\":\"audit\"") != NULL);
    CHECK(strcmp(attestation_evidence_partition(evidence), "aws") == 0);
    CHECK(attestation_evidence_pcr(evidence, 0) != NULL);
    CHECK(attestation_evidence_pcr(evidence, 32) == NULL);
    CHECK(attestation_evidence_pcr(evidence, SIZE_MAX) == NULL);
    uint64_t made = attestation_evidence_timestamp_ms(evidence);
    attestation_audit_free(audit);
    CHECK(audit_at(made) == ATTESTATION_ACCEPTED);
    attestation_audit_free(audit);

    /* What a failed clock gives, and a variable that nobody set. */
    const uint64_t wrong[] = {0, 1, (uint64_t)-1, INT64_MAX};
    for (size_t index = 0; index < sizeof wrong / sizeof *wrong; index++) {
        CHECK(audit_at(wrong[index]) == ATTESTATION_REFUSED);
        CHECK(strcmp(attestation_audit_rule(audit), "certificate.validity") == 0);
        CHECK(strlen(attestation_audit_reason(audit)) > 0);
        check_no_evidence(attestation_audit_evidence(audit));
        attestation_audit_free(audit);
    }
}

static void null_is_left_alone(void)
{
    CHECK(attestation_verification_evidence(NULL) == NULL);
    CHECK(attestation_verification_rule(NULL) == NULL);
    CHECK(attestation_verification_reason(NULL) == NULL);
    CHECK(attestation_verification_report(NULL) == NULL);
    CHECK(attestation_audit_evidence(NULL) == NULL);
    CHECK(attestation_audit_rule(NULL) == NULL);
    CHECK(attestation_audit_reason(NULL) == NULL);
    CHECK(attestation_audit_report(NULL) == NULL);
    check_no_evidence(NULL);
    attestation_verification_free(NULL);
    attestation_audit_free(NULL);
    attestation_policy_free(NULL);
    attestation_verifier_free(NULL);
    attestation_string_free(NULL);
}

static void *audit_many(void *unused)
{
    (void)unused;
    for (int round = 0; round < 20; round++) {
        attestation_audit *own = GARBAGE;
        CHECK(attestation_audit_of_document(verifier, policy, archived.at, archived.length,
                                            &own, NULL) == ATTESTATION_ACCEPTED);
        CHECK(attestation_evidence_module_id(attestation_audit_evidence(own)) != NULL);
        attestation_audit_free(own);
    }
    return NULL;
}

static void threads_share_a_verifier(void)
{
    pthread_t threads[4];
    for (int index = 0; index < 4; index++) {
        CHECK(pthread_create(&threads[index], NULL, audit_many, NULL) == 0);
    }
    for (int index = 0; index < 4; index++) {
        CHECK(pthread_join(threads[index], NULL) == 0);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc == 5);
    archived.length = read_file(argv[1], archived.at, sizeof archived.at);
    root.length = read_file(argv[2], root.at, sizeof root.at);
    live.length = read_file(argv[3], live.at, sizeof live.at);
    nonce.length = read_file(argv[4], nonce.at, sizeof nonce.at);
    error = GARBAGE;

    the_version_is_the_headers();
    roots_that_are_none_are_an_error();
    policies_that_are_none_are_an_error();
    arguments_that_cannot_be_used_accept_nothing();
    a_live_document_is_accepted_by_its_own_nonce();
    the_time_of_an_audit_means_nothing_else();
    null_is_left_alone();
    threads_share_a_verifier();

    attestation_policy_free(policy);
    attestation_verifier_free(live_verifier);
    attestation_verifier_free(verifier);
    return 0;
}
