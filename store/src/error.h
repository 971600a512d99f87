/* Filling an error buffer. */
#ifndef PLSI_ERROR_H
#define PLSI_ERROR_H

#include "payloadstore/error.h"

/* Sets code and text where error is not NULL. Returns the code. */
enum pls_code plsi_fail(struct pls_error *error, enum pls_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<format>: " before the text of a filled error, on its way outward. Returns its code. */
enum pls_code plsi_wrap(struct pls_error *error, enum pls_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Success, and an empty text. */
enum pls_code plsi_ok(struct pls_error *error);

#endif
