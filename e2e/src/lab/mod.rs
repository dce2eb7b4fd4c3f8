//! The laboratory: a cluster, the operator in it, and what the stories do to both.
//!
//! Everything is done as a user would do it (kubectl, helm) or looked at through the API server, so it works on any
//! cluster. Only faults of nodes and of the control plane need the local cluster of `e2e/cluster`.

pub mod books;
pub mod desk;
pub mod dump;
pub mod faults;
pub mod guard;
pub mod install;
pub mod namespaces;
pub mod objects;
pub mod records;
pub mod report;
pub mod s3;
pub mod scene;
pub mod shell;
pub mod wait;

pub use install::Flavour;
pub use scene::Scene;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// What the tests were started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The repository.
    pub repository: PathBuf,
    /// The program `arborist` of this build.
    pub arborist: PathBuf,
    /// Registry, with the path in it, that has the images; none: the chart's own.
    pub registry: Option<String>,
    /// Image of SeaweedFS, for the stories with two operators.
    pub s3_image: String,
    /// Tag of the images; none: the chart's own.
    pub tag: Option<String>,
    /// The tool of the local cluster, when the tests run on one.
    pub cluster_tool: Option<PathBuf>,
    /// Address under which pods reach this process; none: the one this machine reaches the nodes from.
    pub address: Option<IpAddr>,
    /// Where what is left of a failed story goes.
    pub out: PathBuf,
    /// Size of the story `scale`.
    pub scale: Scale,
}

/// Size of the story `scale`.
#[derive(Debug, Clone, clap::Args)]
pub struct Scale {
    /// Simulated nodes of 32 cores and 64 GiB.
    #[arg(long = "scale-nodes", default_value_t = 200)]
    pub nodes: u32,
    /// Worker pods that run on them.
    #[arg(long = "scale-pods", default_value_t = 2_000)]
    pub pods: u32,
    /// Worker pods that no node takes, beside those.
    #[arg(long = "scale-pending", default_value_t = 0)]
    pub pending: u32,
    /// Transactions of the block, two calls each.
    #[arg(long = "scale-transactions", default_value_t = 61_440)]
    pub transactions: u32,
}

/// The cluster, and what is installed there at the moment.
pub struct Lab {
    /// The API server.
    pub client: Client,
    /// What the tests were started with.
    pub settings: Settings,
    /// Address under which pods reach this process.
    pub address: IpAddr,
    /// Whether no node has room for a worker of 32 cores and 64 GiB.
    pub small_machines: bool,
    /// Differs from run to run.
    pub run: u64,
    installed: Mutex<Option<Flavour>>,
}

impl Lab {
    /// Connects to the cluster that KUBECONFIG names.
    ///
    /// # Errors
    /// It does not answer, or has no node.
    pub async fn open(settings: Settings) -> Result<Self> {
        let client = Client::try_default().await.context("read KUBECONFIG")?;
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes.list(&ListParams::default()).await.context("list nodes")?.items;
        let address = match settings.address {
            Some(address) => address,
            None => own_address(&nodes)?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        Ok(Self {
            client,
            settings,
            address,
            small_machines: !nodes.iter().any(is_large),
            run: now.as_secs(),
            installed: Mutex::new(None),
        })
    }

    /// The path of a file of the repository.
    pub fn file(&self, path: impl AsRef<Path>) -> String {
        self.settings.repository.join(path).display().to_string()
    }

    /// Forgets which flavour is installed, so that the next story gets a new one.
    pub async fn spoiled(&self) {
        *self.installed.lock().await = None;
    }
}

/// Whether a node is labelled for large workers and large enough for one.
fn is_large(node: &Node) -> bool {
    let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    // a node of so many cores has the memory as well; fractions of cores are written in `m`
    let cores = allocatable.and_then(|a| a.get("cpu")).and_then(|q| match q.0.strip_suffix('m') {
        Some(millis) => millis.parse::<u64>().ok().map(|m| m / 1_000),
        None => q.0.parse().ok(),
    });
    node.labels().get(objects::NODE_LABEL).is_some_and(|class| class == "vm") && cores.unwrap_or(0) >= 32
}

/// The address from which this machine reaches the cluster's first node: no packet is sent to find it.
fn own_address(nodes: &[Node]) -> Result<IpAddr> {
    let addresses = nodes.iter().flat_map(|n| n.status.iter().flat_map(|s| s.addresses.iter().flatten()));
    let internal =
        addresses.into_iter().find(|a| a.type_ == "InternalIP").context("no node has an InternalIP")?;
    let node: IpAddr = internal.address.parse().context("a node's InternalIP")?;
    let from = if node.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(from)?;
    socket.connect((node, 9)).with_context(|| format!("no way to node {node}"))?;
    Ok(socket.local_addr()?.ip())
}
