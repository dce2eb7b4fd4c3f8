//! A small HTTP server in this process that pods reach: a coordinator that takes reports, and a shelf of block files.

use super::Lab;
use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One report as it came in.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What it was answered.
    pub answered: StatusCode,
}

#[derive(Debug)]
struct Books {
    posts: Vec<Posted>,
    answer: StatusCode,
    files: BTreeMap<String, Bytes>,
}

/// The server. While it is down its port refuses connections.
pub struct Desk {
    address: SocketAddr,
    books: Arc<Mutex<Books>>,
    server: Option<JoinHandle<()>>,
}

impl Desk {
    /// Opens a desk that takes every report.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn open(lab: &Lab) -> Result<Self> {
        let books = Books { posts: vec![], answer: StatusCode::OK, files: BTreeMap::new() };
        let listener = TcpListener::bind((lab.address, 0)).await.context("open the coordinator's port")?;
        let mut desk =
            Self { address: listener.local_addr()?, books: Arc::new(Mutex::new(books)), server: None };
        desk.serve(listener);
        Ok(desk)
    }

    fn serve(&mut self, listener: TcpListener) {
        let router = Router::new()
            .route("/reports", post(take))
            .route("/files/{*name}", get(hand_out))
            .with_state(self.books.clone());
        self.server = Some(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the coordinator's server ended: {error}");
            }
        }));
    }

    /// Where reports go.
    pub fn reports_url(&self) -> String {
        format!("http://{}/reports", self.address)
    }

    /// Puts a file on the shelf; its URL.
    pub fn put_file(&self, name: &str, bytes: impl Into<Bytes>) -> String {
        self.books().files.insert(name.to_owned(), bytes.into());
        format!("http://{}/files/{name}", self.address)
    }

    /// Answers every report like this from now on.
    pub fn answer(&self, status: StatusCode) {
        self.books().answer = status;
    }

    /// Everything that came in.
    pub fn posts(&self) -> Vec<Posted> {
        self.books().posts.clone()
    }

    /// What was taken, that is, answered with success.
    pub fn taken(&self) -> Vec<Posted> {
        self.posts().into_iter().filter(|p| p.answered.is_success()).collect()
    }

    /// Closes the port.
    pub async fn down(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // its end is the abort
            let _ = server.await;
        }
    }

    /// Opens the port again.
    ///
    /// # Errors
    /// Somebody else has taken it.
    pub async fn up(&mut self) -> Result<()> {
        self.down().await;
        let listener = TcpListener::bind(self.address).await.context("open the coordinator's port again")?;
        self.serve(listener);
        Ok(())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn take(
    State(books): State<Arc<Mutex<Books>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    let answered = books.answer;
    books.posts.push(Posted { headers, body, answered });
    (answered, format!("receipt-{}", books.posts.len()))
}

async fn hand_out(
    State(books): State<Arc<Mutex<Books>>>,
    Path(name): Path<String>,
) -> Result<Bytes, StatusCode> {
    let books = books.lock().unwrap_or_else(PoisonError::into_inner);
    books.files.get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
}
