/*
 * What a caller can get wrong, and what threads share. Ends with 0 if all of it
 * is as the header says.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attestation.h"

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static uint8_t document[1 << 16];
static size_t document_length;
static attestation_verifier *verifier;
static attestation_policy *policy;

/* The error says this; it is freed. */
static void check_error(char **error, const char *text)
{
    CHECK(*error != NULL);
    if (strstr(*error, text) == NULL) {
        fprintf(stderr, "\"%s\" does not say \"%s\"\n", *error, text);
        exit(1);
    }
    attestation_string_free(*error);
    *error = NULL;
}

static attestation_policy *parse(uint32_t format, const char *text, char **error)
{
    return attestation_policy_parse(format, text, strlen(text), error);
}

static void *verify_many(void *unused)
{
    (void)unused;
    for (int round = 0; round < 20; round++) {
        attestation_result *result =
            attestation_verify(verifier, policy, document, document_length, NULL, 0,
                               ATTESTATION_TIME_OF_DOCUMENT, NULL);
        CHECK(attestation_result_accepted(result));
        size_t length = 0;
        CHECK(attestation_result_nonce(result, &length) != NULL);
        CHECK(length == 32);
        attestation_result_free(result);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    FILE *file = fopen(argv[1], "rb");
    CHECK(file != NULL);
    document_length = fread(document, 1, sizeof document, file);
    fclose(file);
    char *error = NULL;

    /* Roots. */
    const uint8_t no_pem[] = "no PEM";
    CHECK(attestation_verifier_new(no_pem, sizeof no_pem, &error) == NULL);
    check_error(&error, "root certificate");
    CHECK(attestation_verifier_new(no_pem, SIZE_MAX, &error) == NULL);
    check_error(&error, "roots cannot have");
    CHECK(attestation_verifier_new(no_pem, sizeof no_pem, NULL) == NULL);
    verifier = attestation_verifier_new(NULL, 0, &error);
    CHECK(verifier != NULL && error == NULL);

    /* Policies. */
    CHECK(attestation_policy_parse(ATTESTATION_FORMAT_TOML, NULL, 1, &error) == NULL);
    check_error(&error, "text is null");
    CHECK(parse(ATTESTATION_FORMAT_TOML, "", &error) == NULL);
    check_error(&error, "names no code");
    CHECK(parse(ATTESTATION_FORMAT_TOML, "\xff", &error) == NULL);
    check_error(&error, "utf-8");
    CHECK(parse(ATTESTATION_FORMAT_JSON, "{", &error) == NULL);
    check_error(&error, "EOF");
    CHECK(parse(7, "{}", &error) == NULL);
    check_error(&error, "7 is no format");
    policy = parse(ATTESTATION_FORMAT_JSON, "{\"allow_any_image\": true}", &error);
    CHECK(policy != NULL && error == NULL);

    /* Arguments of the verification. */
    CHECK(attestation_verify(NULL, policy, document, document_length, NULL, 0, 0, &error) == NULL);
    check_error(&error, "verifier is null");
    CHECK(attestation_verify(verifier, NULL, document, document_length, NULL, 0, 0, &error) == NULL);
    check_error(&error, "policy is null");
    CHECK(attestation_verify(verifier, policy, NULL, 1, NULL, 0, 0, &error) == NULL);
    check_error(&error, "document is null");
    CHECK(attestation_verify(verifier, policy, document, SIZE_MAX, NULL, 0, 0, &error) == NULL);
    check_error(&error, "document cannot have");
    CHECK(attestation_verify(verifier, policy, document, document_length, document, 0, 0, &error) ==
          NULL);
    check_error(&error, "nonce is empty");
    CHECK(attestation_verify(verifier, policy, document, document_length, document, 1025, 0,
                             &error) == NULL);
    check_error(&error, "nonce");

    /* A rejected document has a report, and nothing that could be believed. */
    attestation_result *rejected =
        attestation_verify(verifier, policy, document, 0, NULL, 0, ATTESTATION_TIME_NOW, &error);
    CHECK(rejected != NULL && error == NULL);
    CHECK(!attestation_result_accepted(rejected));
    CHECK(strcmp(attestation_result_rule(rejected), "cbor.encoding") == 0);
    CHECK(strstr(attestation_result_report(rejected), "\"accepted\":false") != NULL);
    size_t length = 7;
    CHECK(attestation_result_nonce(rejected, &length) == NULL && length == 0);
    CHECK(attestation_result_user_data(rejected, NULL) == NULL);
    CHECK(attestation_result_public_key(rejected, NULL) == NULL);
    CHECK(attestation_result_pcr(rejected, 0) == NULL);
    CHECK(attestation_result_module_id(rejected) == NULL);
    CHECK(attestation_result_timestamp_ms(rejected) == 0);
    attestation_result_free(rejected);

    /* An accepted one has no more than it has. */
    attestation_result *accepted =
        attestation_verify(verifier, policy, document, document_length, NULL, 0,
                           ATTESTATION_TIME_OF_DOCUMENT, &error);
    CHECK(attestation_result_accepted(accepted));
    CHECK(attestation_result_rule(accepted) == NULL);
    CHECK(attestation_result_pcr(accepted, 0) != NULL);
    CHECK(attestation_result_pcr(accepted, 32) == NULL);
    CHECK(attestation_result_pcr(accepted, SIZE_MAX) == NULL);
    attestation_result_free(accepted);

    /* Null is left alone. */
    CHECK(!attestation_result_accepted(NULL));
    CHECK(attestation_result_report(NULL) == NULL);
    CHECK(attestation_result_rule(NULL) == NULL);
    attestation_result_free(NULL);
    attestation_policy_free(NULL);
    attestation_verifier_free(NULL);
    attestation_string_free(NULL);

    pthread_t threads[4];
    for (int index = 0; index < 4; index++) {
        CHECK(pthread_create(&threads[index], NULL, verify_many, NULL) == 0);
    }
    for (int index = 0; index < 4; index++) {
        CHECK(pthread_join(threads[index], NULL) == 0);
    }
    attestation_policy_free(policy);
    attestation_verifier_free(verifier);
    return 0;
}
