/*
 * What the test programs check with. Each function writes to `error`, which begins as
 * GARBAGE, as a variable that nobody initialised may.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
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

#define GARBAGE ((void *)(uintptr_t)0xa5a5a5a5)

static char *error = GARBAGE;

/* A file, of which there is room for `size` bytes; gives its length. */
static size_t read_file(const char *name, void *at, size_t size)
{
    FILE *file = fopen(name, "rb");
    CHECK(file != NULL);
    size_t length = fread(at, 1, size, file);
    fclose(file);
    return length;
}

/* The error says this; it is freed. */
static void check_error(const char *text)
{
    CHECK(error != NULL && error != GARBAGE);
    if (strstr(error, text) == NULL) {
        fprintf(stderr, "\"%s\" does not say \"%s\"\n", error, text);
        exit(1);
    }
    attestation_string_free(error);
    error = GARBAGE;
}

/* A call succeeded: the error was written, and there is none. */
static void check_no_error(void)
{
    CHECK(error == NULL);
    error = GARBAGE;
}

#endif
