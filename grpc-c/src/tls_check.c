/*
 * Whether the text of files is what TLS needs: core says so too late, without a file's name, and of
 * files that are read anew only to its log.
 */
#include <stdbool.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "tls.h"

static X509 *first_certificate(const char *text)
{
    BIO *from = BIO_new_mem_buf(text, -1);
    X509 *certificate = from == NULL ? NULL : PEM_read_bio_X509(from, NULL, NULL, NULL);

    BIO_free(from);
    return certificate;
}

/* The empty passphrase keeps OpenSSL from asking for one at the terminal, as core does. */
static EVP_PKEY *private_key(const char *text)
{
    BIO *from = BIO_new_mem_buf(text, -1);
    EVP_PKEY *key = from == NULL ? NULL : PEM_read_bio_PrivateKey(from, NULL, NULL, (void *)"");

    BIO_free(from);
    return key;
}

/* Errors left in OpenSSL's queue would be taken for those of the thread's next handshake. */
bool gci_tls_check_authorities(const char *path, const char *text, char *error, size_t size)
{
    X509 *certificate;

    ERR_set_mark();
    certificate = first_certificate(text);
    ERR_pop_to_mark();
    if (certificate == NULL) {
        (void)snprintf(error, size, "%s: holds no certificate", path);
        return false;
    }
    X509_free(certificate);
    return true;
}

bool gci_tls_check_pair(const struct gci_tls_pair *pair, char *error, size_t size)
{
    X509 *certificate;
    EVP_PKEY *key;
    bool fit = false;

    ERR_set_mark();
    certificate = first_certificate(pair->certificate);
    key = private_key(pair->key);
    if (certificate == NULL) {
        (void)snprintf(error, size, "%s: holds no certificate", pair->certificate_file);
    } else if (key == NULL) {
        (void)snprintf(error, size, "%s: holds no private key, or one with a passphrase",
                       pair->key_file);
    } else if (X509_check_private_key(certificate, key) != 1) {
        (void)snprintf(error, size, "%s: not the key to the certificate in %s", pair->key_file,
                       pair->certificate_file);
    } else {
        fit = true;
    }
    X509_free(certificate);
    EVP_PKEY_free(key);
    ERR_pop_to_mark();
    return fit;
}
