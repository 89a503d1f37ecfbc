/*
 * Signed results, and what a caller can get wrong about them:
 *
 *     result KEYS EXPECTATIONS TOKEN NONCE
 *
 * Ends with 0 if all of it is as the header says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attestation.h"
#include "check.h"

struct text {
    char at[1 << 14];
    size_t length;
};

static struct text keys_json, expectations_json, token, nonce;
static attestation_key_set *keys;
static attestation_expectations *expectations;
static attestation_result *result;

static int verify(const char *text, size_t text_length, const char *with, size_t length)
{
    result = GARBAGE;
    return attestation_result_verify(keys, expectations, text, text_length,
                                     (const uint8_t *)with, length, &result, &error);
}

static void check_unusable(int status, const char *text)
{
    CHECK(status == ATTESTATION_UNUSABLE && result == NULL);
    check_error(text);
}

static void check_refused(int status, const char *rule)
{
    CHECK(status == ATTESTATION_REFUSED);
    check_no_error();
    CHECK(attestation_result_claims(result) == NULL);
    CHECK(strcmp(attestation_result_rule(result), rule) == 0);
    CHECK(strlen(attestation_result_reason(result)) > 0);
    attestation_result_free(result);
}

int main(int argc, char **argv)
{
    CHECK(argc == 5);
    keys_json.length = read_file(argv[1], keys_json.at, sizeof keys_json.at);
    expectations_json.length = read_file(argv[2], expectations_json.at, sizeof expectations_json.at);
    token.length = read_file(argv[3], token.at, sizeof token.at);
    nonce.length = read_file(argv[4], nonce.at, sizeof nonce.at);

    CHECK(attestation_key_set_parse(NULL, 0, &error) == NULL);
    check_error("json is null");
    CHECK(attestation_key_set_parse("{}", 2, &error) == NULL);
    check_error("JWK set");
    keys = attestation_key_set_parse(keys_json.at, keys_json.length, &error);
    CHECK(keys != NULL);
    check_no_error();
    CHECK(attestation_expectations_parse(NULL, 0, &error) == NULL);
    check_error("json is null");
    CHECK(attestation_expectations_parse("{}", 2, &error) == NULL);
    check_error("nothing says what may run");
    const char twice[] = "{\"pcrs\": {\"0\": [], \"0\": []}}";
    CHECK(attestation_expectations_parse(twice, sizeof twice - 1, &error) == NULL);
    check_error("PCR0");
    const char unknown[] = "{\"allow_any_policy\": true, \"x\": 1}";
    CHECK(attestation_expectations_parse(unknown, sizeof unknown - 1, &error) == NULL);
    check_error("unknown field `x`");
    expectations =
        attestation_expectations_parse(expectations_json.at, expectations_json.length, &error);
    CHECK(expectations != NULL);
    check_no_error();

    /* What is missing by accident accepts nothing. */
    check_unusable(verify(token.at, token.length, NULL, 0), "nonce is null");
    check_unusable(verify(token.at, token.length, NULL, 32), "nonce is null");
    check_unusable(verify(token.at, token.length, nonce.at, 0), "0 bytes");
    check_unusable(verify(NULL, 0, nonce.at, nonce.length), "token is null");
    attestation_key_set *good = keys;
    keys = NULL;
    check_unusable(verify(token.at, token.length, nonce.at, nonce.length), "keys is null");
    keys = good;
    attestation_expectations *expected = expectations;
    expectations = NULL;
    check_unusable(verify(token.at, token.length, nonce.at, nonce.length),
                   "expectations is null");
    expectations = expected;

    CHECK(verify(token.at, token.length, nonce.at, nonce.length) == ATTESTATION_ACCEPTED);
    check_no_error();
    CHECK(strstr(attestation_result_claims(result), "\"status\":\"affirming\"") != NULL);
    CHECK(attestation_result_rule(result) == NULL);
    CHECK(attestation_result_reason(result) == NULL);
    attestation_result_free(result);
    CHECK(attestation_result_verify_unchallenged(keys, expectations, token.at, token.length,
                                                 NULL, NULL) == ATTESTATION_ACCEPTED);

    check_refused(verify(token.at, token.length, nonce.at, nonce.length - 1), "nonce");
    /* No base64 has this length, whatever the signature's last bits are. */
    check_refused(verify(token.at, token.length - 3, nonce.at, nonce.length), "token.form");
    check_refused(verify(token.at, 0, nonce.at, nonce.length), "token.form");
    token.at[token.length / 2] ^= 1;
    CHECK(verify(token.at, token.length, nonce.at, nonce.length) == ATTESTATION_REFUSED);
    check_no_error();
    attestation_result_free(result);

    CHECK(attestation_result_claims(NULL) == NULL);
    CHECK(attestation_result_rule(NULL) == NULL);
    CHECK(attestation_result_reason(NULL) == NULL);
    attestation_result_free(NULL);
    attestation_key_set_free(NULL);
    attestation_expectations_free(NULL);
    attestation_expectations_free(expectations);
    attestation_key_set_free(keys);
    return 0;
}
