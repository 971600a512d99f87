// The contract's Append and Read on libgrpc++'s callback API, for the benchmarks: one file, no fsync,
// nothing else.
//
//   peer-cpp --data-dir DIRECTORY --listen ADDRESS

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <atomic>
#include <cstring>
#include <iostream>
#include <string>

#include <grpcpp/grpcpp.h>
#include <isa-l/crc.h>

#include "payloadstore/v1/payload_store.grpc.pb.h"

namespace pb = payloadstore::v1;

constexpr size_t kPrefix = 4;
constexpr int kMessageMax = (64 << 20) + 1024;

static uint32_t crc32c(const std::string &data)
{
    auto *bytes = reinterpret_cast<unsigned char *>(const_cast<char *>(data.data()));
    return ~crc32_iscsi(bytes, static_cast<int>(data.size()), ~0u);
}

class Store final : public pb::PayloadStore::CallbackService
{
public:
    explicit Store(int file) : file_(file)
    {
    }

    grpc::ServerUnaryReactor *Append(grpc::CallbackServerContext *context,
                                     const pb::AppendRequest *request,
                                     pb::AppendResponse *response) override
    {
        auto *reactor = context->DefaultReactor();
        const std::string &payload = request->payload();
        uint32_t length = static_cast<uint32_t>(payload.size());
        size_t size = kPrefix + payload.size();
        uint64_t offset = end_.fetch_add(size, std::memory_order_relaxed);
        iovec parts[] = {{&length, kPrefix}, {const_cast<char *>(payload.data()), payload.size()}};
        if (pwritev(file_, parts, 2, static_cast<off_t>(offset)) != static_cast<ssize_t>(size)) {
            reactor->Finish({grpc::StatusCode::INTERNAL, "the write failed"});
            return reactor;
        }
        pb::PayloadRef *ref = response->mutable_ref();
        ref->set_offset(offset);
        ref->set_length(length);
        ref->set_crc32c(crc32c(payload));
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }

    grpc::ServerUnaryReactor *Read(grpc::CallbackServerContext *context,
                                   const pb::ReadRequest *request,
                                   pb::ReadResponse *response) override
    {
        auto *reactor = context->DefaultReactor();
        reactor->Finish(ReadTo(request->ref(), response->mutable_payload()));
        return reactor;
    }

private:
    grpc::Status ReadTo(const pb::PayloadRef &ref, std::string *payload) const
    {
        if (ref.length() > kMessageMax) {
            return {grpc::StatusCode::INVALID_ARGUMENT, "longer than a payload can be"};
        }
        uint32_t length = 0;
        payload->resize(ref.length());
        iovec parts[] = {{&length, kPrefix}, {&(*payload)[0], payload->size()}};
        ssize_t size = static_cast<ssize_t>(kPrefix + payload->size());
        if (preadv(file_, parts, 2, static_cast<off_t>(ref.offset())) != size ||
            length != ref.length()) {
            return {grpc::StatusCode::NOT_FOUND, "no record of that length starts there"};
        }
        if (ref.crc32c() != 0 && crc32c(*payload) != ref.crc32c()) {
            return {grpc::StatusCode::DATA_LOSS, "the record's checksum differs"};
        }
        return grpc::Status::OK;
    }

    int file_;
    std::atomic<uint64_t> end_{0};
};

int main(int argc, char **argv)
{
    std::string directory, address;
    for (int i = 1; i + 1 < argc; i += 2) {
        (std::strcmp(argv[i], "--listen") == 0 ? address : directory) = argv[i + 1];
    }
    mkdir(directory.c_str(), 0755);
    std::string path = directory + "/payload_0000.dat";
    int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    Store store(file);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(kMessageMax);
    builder.RegisterService(&store);
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (file < 0 || !server) {
        std::cerr << "peer-cpp: cannot serve " << directory << " on " << address << "\n";
        return 1;
    }
    server->Wait();
    return 0;
}
