/* All of grpc-c: gRPC services and clients in C, with protobuf-c messages. */
#ifndef GRPC_C_GRPC_C_H
#define GRPC_C_GRPC_C_H

#include "grpc-c/bytes.h"
#include "grpc-c/client.h"
#include "grpc-c/compression.h"
#include "grpc-c/metadata.h"
#include "grpc-c/server.h"
#include "grpc-c/service.h"
#include "grpc-c/status.h"
#include "grpc-c/tls.h"
#include "grpc-c/version.h"

#endif
