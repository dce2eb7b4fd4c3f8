//! Compiles the protobuf files in pure Rust: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/wire");
    let files = protox::compile(["dispatch.proto"], ["src/wire"])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
