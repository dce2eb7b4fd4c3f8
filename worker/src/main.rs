//! `arborist-worker`: see `arborist-worker --help`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    arborist_worker::cli::main()
}
