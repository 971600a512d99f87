// The contract's Append and Read on grpc-go, for the benchmarks: one file, no fsync, nothing else.
//
//	peer-go --data-dir DIRECTORY --listen ADDRESS
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"hash/crc32"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "peer/payloadstore/v1"
)

const (
	prefix     = 4
	messageMax = 64<<20 + 1024
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type store struct {
	pb.UnimplementedPayloadStoreServer
	file *os.File
	end  atomic.Int64
}

func (s *store) Append(_ context.Context, request *pb.AppendRequest) (*pb.AppendResponse, error) {
	payload := request.GetPayload()
	record := make([]byte, prefix+len(payload))
	binary.LittleEndian.PutUint32(record, uint32(len(payload)))
	copy(record[prefix:], payload)
	offset := s.end.Add(int64(len(record))) - int64(len(record))
	if _, err := s.file.WriteAt(record, offset); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &pb.AppendResponse{Ref: &pb.PayloadRef{
		Offset: uint64(offset),
		Length: uint32(len(payload)),
		Crc32C: crc32.Checksum(payload, castagnoli),
	}}, nil
}

func (s *store) Read(_ context.Context, request *pb.ReadRequest) (*pb.ReadResponse, error) {
	ref := request.GetRef()
	if ref.GetLength() > messageMax {
		return nil, status.Error(codes.InvalidArgument, "the ref is longer than a payload can be")
	}
	record := make([]byte, prefix+int(ref.GetLength()))
	if _, err := s.file.ReadAt(record, int64(ref.GetOffset())); err != nil {
		return nil, status.Error(codes.NotFound, "no record starts there")
	}
	if binary.LittleEndian.Uint32(record) != ref.GetLength() {
		return nil, status.Error(codes.NotFound, "no record of that length starts there")
	}
	payload := record[prefix:]
	if ref.GetCrc32C() != 0 && crc32.Checksum(payload, castagnoli) != ref.GetCrc32C() {
		return nil, status.Error(codes.DataLoss, "the record's checksum differs")
	}
	return &pb.ReadResponse{Payload: payload}, nil
}

func main() {
	directory := flag.String("data-dir", "payloads", "where the file lies")
	address := flag.String("listen", "127.0.0.1:50051", "host:port")
	flag.Parse()
	if err := os.MkdirAll(*directory, 0o755); err != nil {
		log.Fatal(err)
	}
	file, err := os.Create(filepath.Join(*directory, "payload_0000.dat"))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(messageMax))
	pb.RegisterPayloadStoreServer(server, &store{file: file})
	log.Fatal(server.Serve(listener))
}
