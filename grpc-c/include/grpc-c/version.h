/* Which grpc-c these headers belong to. The build reads the number here. */
#ifndef GRPC_C_VERSION_H
#define GRPC_C_VERSION_H

#define GRPC_C_VERSION       "0.1.0"
#define GRPC_C_VERSION_MAJOR 0
#define GRPC_C_VERSION_MINOR 1
#define GRPC_C_VERSION_PATCH 0

#endif
