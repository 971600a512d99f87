fn main() -> std::io::Result<()> {
    let protos = std::env::var("PEER_PROTOS").expect("PEER_PROTOS: where payloadstore/v1 lies");
    tonic_prost_build::configure()
        .build_client(false)
        .generate_default_stubs(true)
        .bytes(".")
        .compile_protos(&[format!("{protos}/payloadstore/v1/payload_store.proto")], &[protos])
}
