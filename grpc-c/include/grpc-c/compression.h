/*
 * Compression of messages, each by itself, with gzip or deflate.
 *
 * Sending: a call has one algorithm, fixed with its headers, and each message goes compressed or as
 * it is. One that would not get smaller goes as it is. A server compresses only for clients that
 * say they take it; a client that compresses for a server that does not gets UNIMPLEMENTED.
 *
 * Receiving: always on, within bounds: the limit on a message's size holds for what it inflates to,
 * too, and a server holds no more inflated bytes at a time than `memory_quota_bytes`.
 */
#ifndef GRPC_C_COMPRESSION_H
#define GRPC_C_COMPRESSION_H

enum grpc_c_compression {
    GRPC_C_IDENTITY, /* none */
    GRPC_C_GZIP,
    GRPC_C_DEFLATE
};

#endif
