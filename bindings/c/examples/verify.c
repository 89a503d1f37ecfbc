/*
 * Verifies an attestation document:
 *
 *     verify DOCUMENT POLICY.toml now|document|MILLISECONDS [NONCE]
 *
 * Prints the report. Ends with 0 if the document is accepted, 1 if it is
 * rejected, 2 if the arguments cannot be used.
 */
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
        exit(2);
    }
    *length = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    char *bytes = malloc(*length + 1);
    if (bytes == NULL) {
        exit(2);
    }
    memcpy(bytes, buffer, *length);
    return bytes;
}

static int fail(char *error)
{
    fprintf(stderr, "verify: %s\n", error);
    attestation_string_free(error);
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: verify DOCUMENT POLICY.toml now|document|MILLISECONDS [NONCE]\n");
        return 2;
    }
    uint64_t time_ms;
    if (strcmp(argv[3], "now") == 0) {
        time_ms = ATTESTATION_TIME_NOW;
    } else if (strcmp(argv[3], "document") == 0) {
        time_ms = ATTESTATION_TIME_OF_DOCUMENT;
    } else {
        time_ms = strtoull(argv[3], NULL, 10);
    }
    const char *nonce = argc > 4 ? argv[4] : NULL;

    char *error = NULL;
    size_t length;
    char *text = read_file(argv[2], &length);
    attestation_policy *policy =
        attestation_policy_parse(ATTESTATION_FORMAT_TOML, text, length, &error);
    free(text);
    if (policy == NULL) {
        return fail(error);
    }
    attestation_verifier *verifier = attestation_verifier_new(NULL, 0, &error);
    if (verifier == NULL) {
        attestation_policy_free(policy);
        return fail(error);
    }

    char *document = read_file(argv[1], &length);
    attestation_result *result = attestation_verify(
        verifier, policy, (const uint8_t *)document, length, (const uint8_t *)nonce,
        nonce == NULL ? 0 : strlen(nonce), time_ms, &error);
    free(document);
    attestation_verifier_free(verifier);
    attestation_policy_free(policy);
    if (result == NULL) {
        return fail(error);
    }

    printf("%s\n", attestation_result_report(result));
    bool accepted = attestation_result_accepted(result);
    if (accepted) {
        const uint8_t *pcr0 = attestation_result_pcr(result, 0);
        size_t user_data_length;
        const uint8_t *user_data = attestation_result_user_data(result, &user_data_length);
        printf("accepted: %s at %llu, PCR0 %02x%02x..., user data %s of %zu bytes\n",
               attestation_result_module_id(result),
               (unsigned long long)attestation_result_timestamp_ms(result), pcr0[0], pcr0[1],
               user_data == NULL ? "absent," : "there,", user_data_length);
    } else {
        printf("rejected: %s\n", attestation_result_rule(result));
    }
    attestation_result_free(result);
    return accepted ? 0 : 1;
}
