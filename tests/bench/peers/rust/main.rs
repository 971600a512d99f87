//! The contract's Append and Read on tonic, for the benchmarks: one file, no fsync, nothing else.
//!
//!     peer-rust --data-dir DIRECTORY --listen ADDRESS

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tonic::{Request, Response, Status};

mod pb {
    // Stubs of all methods stand in it, and messages that are not used here.
    #![allow(dead_code)]
    tonic::include_proto!("payloadstore.v1");
}
use pb::payload_store_server::{PayloadStore, PayloadStoreServer};

const PREFIX: usize = 4;
const MESSAGE_MAX: usize = (64 << 20) + 1024;

struct Store {
    file: File,
    end: AtomicU64,
}

#[tonic::async_trait]
impl PayloadStore for Store {
    async fn append(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let payload = request.into_inner().payload;
        let mut record = Vec::with_capacity(PREFIX + payload.len());
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(&payload);
        let offset = self.end.fetch_add(record.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(&record, offset)?;
        let r#ref = pb::PayloadRef {
            file_id: 0,
            offset,
            length: payload.len() as u32,
            crc32c: crc32c::crc32c(&payload),
        };
        Ok(Response::new(pb::AppendResponse { r#ref: Some(r#ref) }))
    }

    async fn read(
        &self,
        request: Request<pb::ReadRequest>,
    ) -> Result<Response<pb::ReadResponse>, Status> {
        let r#ref = request.into_inner().r#ref.unwrap_or_default();
        if r#ref.length as usize > MESSAGE_MAX {
            return Err(Status::invalid_argument("the ref is longer than a payload can be"));
        }
        let mut record = vec![0; PREFIX + r#ref.length as usize];
        self.file
            .read_exact_at(&mut record, r#ref.offset)
            .map_err(|_| Status::not_found("no record starts there"))?;
        if record[..PREFIX] != r#ref.length.to_le_bytes() {
            return Err(Status::not_found("no record of that length starts there"));
        }
        let payload = Bytes::from(record).slice(PREFIX..);
        if r#ref.crc32c != 0 && crc32c::crc32c(&payload) != r#ref.crc32c {
            return Err(Status::data_loss("the record's checksum differs"));
        }
        Ok(Response::new(pb::ReadResponse { payload }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|a| a == flag);
        at.and_then(|i| arguments.get(i + 1)).cloned().expect(flag)
    };
    let directory = value("--data-dir");
    std::fs::create_dir_all(&directory)?;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(format!("{directory}/payload_0000.dat"))?;
    let store = Store { file, end: AtomicU64::new(0) };
    tonic::transport::Server::builder()
        .add_service(PayloadStoreServer::new(store).max_decoding_message_size(MESSAGE_MAX))
        .serve(value("--listen").parse()?)
        .await?;
    Ok(())
}
