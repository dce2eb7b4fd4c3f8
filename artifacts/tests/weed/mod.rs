//! Starts a real S3 server, SeaweedFS, for a test: `hack/install-weed.sh` installs it.

use arborist_artifacts::{ArtifactStore, StoreOptions};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);
const CREDENTIALS: &str = r#"{"identities":[{"name":"test","credentials":[{"accessKey":"id","secretKey":"secret"}],
"actions":["Admin","Read","Write","List"]}]}"#;

/// A server that lives as long as this does.
pub struct Weed {
    process: Child,
    dir: tempfile::TempDir,
    s3_port: u16,
    /// The server makes them in /tmp and leaves them there.
    sockets: Vec<PathBuf>,
}

impl Drop for Weed {
    fn drop(&mut self) {
        // it may have died of itself
        let _dead = self.process.kill();
        let _reaped = self.process.wait();
        for socket in &self.sockets {
            let _never_made = std::fs::remove_file(socket);
        }
    }
}

fn binary() -> Option<PathBuf> {
    let given = std::env::var_os("ARBORIST_S3_TEST_WEED").map(PathBuf::from);
    if let Some(path) = given {
        assert!(path.is_file(), "ARBORIST_S3_TEST_WEED={} is no file", path.display());
        return Some(path);
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/seaweedfs/bin/weed");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("weed"));
    std::iter::once(installed).chain(on_path).find(|path| path.is_file())
}

/// Ports that were free a moment ago; all held until all are found, so that they differ.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Weed {
    /// A running server; `None`, with a word on how to get it, where it is not installed.
    pub async fn start() -> Option<Self> {
        let Some(binary) = binary() else {
            println!("skipped: no S3 server. Install one with hack/install-weed.sh");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let [master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_port, s3_grpc] = free_ports();
        let config = dir.path().join("s3.json");
        std::fs::write(&config, CREDENTIALS).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(binary);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
        command.args(["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.preStopSeconds=0"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        for (option, port) in [
            ("master.port", master),
            ("master.port.grpc", master_grpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_grpc),
            ("filer.port", filer),
            ("filer.port.grpc", filer_grpc),
            ("s3.port", s3_port),
            ("s3.port.grpc", s3_grpc),
        ] {
            command.arg(format!("-{option}={port}"));
        }
        command.arg(format!("-s3.config={}", config.display()));
        command.arg(format!("-dir={}", dir.path().display()));
        command.current_dir(dir.path()).env("TMPDIR", dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap();
        let sockets = [
            ("filer", filer),
            ("filer-grpc", filer_grpc),
            ("master-grpc", master_grpc),
            ("s3", s3_port),
            ("s3-grpc", s3_grpc),
            ("volume-grpc", volume_grpc),
        ];
        let sockets =
            sockets.map(|(kind, port)| format!("/tmp/seaweedfs-{kind}-{port}.sock").into()).to_vec();
        let mut weed = Self { process, dir, s3_port, sockets };
        weed.wait_until_ready().await;
        Some(weed)
    }

    /// The one bucket, with this secret key; `secret` is the right one.
    pub fn store(&self, secret: &str) -> ArtifactStore {
        let settings = [
            ("aws_endpoint", format!("http://127.0.0.1:{}", self.s3_port)),
            ("aws_allow_http", "true".to_owned()),
            ("aws_access_key_id", "id".to_owned()),
            ("aws_secret_access_key", secret.to_owned()),
        ];
        let options = StoreOptions {
            bucket_settings: settings.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            ..StoreOptions::default()
        };
        ArtifactStore::open("s3://bucket/some/prefix", &options).unwrap()
    }

    async fn wait_until_ready(&mut self) {
        let store = self.store("secret");
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let Err(error) = store.check_conditional_create().await else { return };
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the S3 server ended with {status}:\n{}", log());
            }
            assert!(Instant::now() < deadline, "the S3 server is not ready: {error}\n{}", log());
            tokio::time::sleep(POLL).await;
        }
    }
}
