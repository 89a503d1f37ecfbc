/*
 * Verifies an attestation document:
 *
 *     verify DOCUMENT POLICY.toml NONCE
 *     verify DOCUMENT POLICY.toml --unchallenged
 *     verify DOCUMENT POLICY.toml --audit MILLISECONDS|of-document
 *
 * The first two are for live documents: NONCE is the one of the challenge, in
 * hexadecimal. Prints the report. Ends with 0 if the document is accepted, 1 if it is
 * refused, 2 if the arguments cannot be used.
 *
 *     cc verify.c -o verify $(pkg-config --cflags --libs attestation)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attestation.h"

static char buffer[1 << 20];

/* The bytes of a file, at most as many as there is room for. */
static char *read_file(const char *name, size_t *length)
{
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        perror(name);
        exit(ATTESTATION_UNUSABLE);
    }
    *length = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    char *bytes = malloc(*length + 1);
    if (bytes == NULL) {
        exit(ATTESTATION_UNUSABLE);
    }
    memcpy(bytes, buffer, *length);
    return bytes;
}

/* The bytes of hexadecimal digits, and their number; 0 if they are none. */
static size_t from_hexadecimal(const char *text, uint8_t *bytes, size_t room)
{
    static const char digits[] = "0123456789abcdef";
    size_t length = 0;
    for (; text[0] != '\0' && text[1] != '\0' && length < room; text += 2) {
        const char *high = strchr(digits, text[0]), *low = strchr(digits, text[1]);
        if (high == NULL || low == NULL) {
            return 0;
        }
        bytes[length++] = (uint8_t)((high - digits) << 4 | (low - digits));
    }
    return text[0] == '\0' ? length : 0;
}

static int unusable(char *error)
{
    fprintf(stderr, "verify: %s\n", error);
    attestation_string_free(error);
    return ATTESTATION_UNUSABLE;
}

static void print(const attestation_evidence *evidence)
{
    const uint8_t *pcr0 = attestation_evidence_pcr(evidence, 0);
    size_t length;
    const uint8_t *user_data = attestation_evidence_user_data(evidence, &length);
    printf("accepted: %s at %llu", attestation_evidence_module_id(evidence),
           (unsigned long long)attestation_evidence_timestamp_ms(evidence));
    if (pcr0 != NULL) {
        printf(", PCR0 %02x%02x...", pcr0[0], pcr0[1]);
    }
    printf(", user data %s of %zu bytes\n", user_data == NULL ? "absent," : "there,", length);
}

static int verify(const attestation_verifier *verifier, const attestation_policy *policy,
                  const uint8_t *document, size_t length, const char *hexadecimal)
{
    attestation_verification *verification;
    char *error;
    int status;
    if (strcmp(hexadecimal, "--unchallenged") == 0) {
        status = attestation_verify_unchallenged(verifier, policy, document, length,
                                                 &verification, &error);
    } else {
        uint8_t nonce[1024];
        size_t nonce_length = from_hexadecimal(hexadecimal, nonce, sizeof nonce);
        status = attestation_verify(verifier, policy, document, length, nonce, nonce_length,
                                    &verification, &error);
    }
    if (status == ATTESTATION_UNUSABLE) {
        return unusable(error);
    }
    printf("%s\n", attestation_verification_report(verification));
    if (status == ATTESTATION_ACCEPTED) {
        print(attestation_verification_evidence(verification));
    } else {
        printf("refused: %s: %s\n", attestation_verification_rule(verification),
               attestation_verification_reason(verification));
    }
    attestation_verification_free(verification);
    return status;
}

static int audit(const attestation_verifier *verifier, const attestation_policy *policy,
                 const uint8_t *document, size_t length, const char *time)
{
    attestation_audit *audit;
    char *error;
    int status;
    if (strcmp(time, "of-document") == 0) {
        status =
            attestation_audit_of_document(verifier, policy, document, length, &audit, &error);
    } else {
        char *end;
        errno = 0;
        unsigned long long milliseconds = strtoull(time, &end, 10);
        if (errno != 0 || end == time || *end != '\0') {
            fprintf(stderr, "verify: %s is no time in milliseconds\n", time);
            return ATTESTATION_UNUSABLE;
        }
        status = attestation_audit_at(verifier, policy, document, length, milliseconds, &audit,
                                      &error);
    }
    if (status == ATTESTATION_UNUSABLE) {
        return unusable(error);
    }
    printf("%s\n", attestation_audit_report(audit));
    if (status == ATTESTATION_ACCEPTED) {
        print(attestation_audit_evidence(audit));
    } else {
        printf("refused: %s: %s\n", attestation_audit_rule(audit),
               attestation_audit_reason(audit));
    }
    attestation_audit_free(audit);
    return status;
}

int main(int argc, char **argv)
{
    int is_audit = argc == 5 && strcmp(argv[3], "--audit") == 0;
    if (argc != 4 && !is_audit) {
        fprintf(stderr, "usage: verify DOCUMENT POLICY.toml NONCE|--unchallenged|--audit TIME\n");
        return ATTESTATION_UNUSABLE;
    }

    char *error;
    size_t length;
    char *text = read_file(argv[2], &length);
    attestation_policy *policy =
        attestation_policy_parse(ATTESTATION_FORMAT_TOML, text, length, &error);
    free(text);
    if (policy == NULL) {
        return unusable(error);
    }
    attestation_verifier *verifier = attestation_verifier_new(&error);
    if (verifier == NULL) {
        attestation_policy_free(policy);
        return unusable(error);
    }

    char *document = read_file(argv[1], &length);
    const uint8_t *bytes = (const uint8_t *)document;
    int status = is_audit ? audit(verifier, policy, bytes, length, argv[4])
                          : verify(verifier, policy, bytes, length, argv[3]);
    free(document);
    attestation_verifier_free(verifier);
    attestation_policy_free(policy);
    return status;
}
