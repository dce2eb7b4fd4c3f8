//! A plug-in that misbehaves on purpose, for tests: `arborist-plugin-bad MODE prove FOLDER`. What is not
//! in its mode it does as the reference plug-in.

use arborist_core::backend::Proof;
use arborist_worker::backend::process::contract::{ProveRequest, RESULT_FILE};
use arborist_worker::plugin::{self, Call};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Where the mode that takes memory stops, in case nobody stops it.
const MOST_MIB: usize = 1024;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((mode, rest)) = args.split_first() else {
        eprintln!("usage: arborist-plugin-bad MODE info | prove FOLDER | verify FOLDER");
        return ExitCode::from(2);
    };
    match (mode.as_str(), Call::read(rest)) {
        ("info-crashes", Some(Call::Info)) => ExitCode::FAILURE,
        ("verify-crashes", Some(Call::Verify(_))) => {
            eprintln!("Traceback: something unrelated");
            ExitCode::FAILURE
        }
        ("verify-crashes", _) | (_, Some(Call::Info | Call::Verify(_)) | None) => plugin::serve(rest),
        (mode, Some(Call::Prove(folder))) => {
            plugin::end_with_the_worker();
            match misbehave(mode, &folder) {
                Ok(code) => code,
                Err(text) => {
                    eprintln!("{text}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn misbehave(mode: &str, folder: &Path) -> Result<ExitCode, String> {
    let request: ProveRequest = plugin::read_request(folder)?;
    let output = folder.join(&request.output);
    let mut proof = plugin::make(folder, &request)?;
    match mode {
        "bad-proof" => flip_last(&mut proof),
        "oversize" => proof.bytes.resize(plugin::MAX_PROOF_BYTES as usize + 1000, 7),
        "partial-proof" => proof.bytes.truncate(proof.bytes.len() / 2),
        "wrong-public-inputs" => proof.public_inputs.push(1),
        "exits-1" => return Err("no luck today".into()),
        "bad-input" => return Ok(ExitCode::from(11)),
        "no-result" => return Ok(ExitCode::SUCCESS),
        "hangs" => hang(),
        "ignores-sigterm" => {
            SigSet::from(Signal::SIGTERM).thread_block().map_err(|error| error.to_string())?;
            hang();
        }
        "leaves-a-child" => {
            let child = Command::new("sleep").arg("600").spawn().map_err(|error| error.to_string())?;
            eprintln!("child {}", child.id());
            return Ok(ExitCode::FAILURE);
        }
        "takes-memory" => take_memory(),
        "killed" => kill(Pid::this(), Signal::SIGKILL).map_err(|error| error.to_string())?,
        _ => {}
    }
    plugin::write_result(&output, &proof, Instant::now())?;
    let result = output.join(RESULT_FILE);
    let spoil = |bytes: &[u8]| fs::write(&result, bytes).map_err(|error| error.to_string());
    match mode {
        "garbage-json" => spoil(b"{]")?,
        "partial-result" => {
            let whole = fs::read(&result).map_err(|error| error.to_string())?;
            spoil(&whole[..whole.len() / 2])?;
        }
        "path-outside" => {
            let text = fs::read_to_string(&result).map_err(|error| error.to_string())?;
            spoil(text.replace(r#""proof":"proof""#, r#""proof":"../out/proof""#).as_bytes())?;
        }
        "link" => {
            fs::remove_file(output.join("proof")).map_err(|error| error.to_string())?;
            std::os::unix::fs::symlink("/dev/zero", output.join("proof"))
                .map_err(|error| error.to_string())?;
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn flip_last(proof: &mut Proof) {
    if let Some(last) = proof.bytes.last_mut() {
        *last ^= 1;
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn take_memory() -> ! {
    let mut taken = vec![];
    while taken.len() < MOST_MIB {
        taken.push(vec![1_u8; MIB]);
        std::thread::sleep(Duration::from_millis(1));
    }
    hang()
}
