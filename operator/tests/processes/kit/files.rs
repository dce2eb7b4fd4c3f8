//! A web server of a folder's files, and nothing else.

use super::http::read_request;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// Serves a folder until the test's process ends; gives back its URL, without a slash at the end.
pub fn serve_files(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let folder = folder.clone();
            std::thread::spawn(move || answer(stream, folder));
        }
    });
    url
}

fn answer(mut stream: TcpStream, folder: PathBuf) {
    let Some((method, target, _)) = read_request(&stream) else { return };
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match std::fs::read(folder.join(path.trim_start_matches('/'))) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", vec![]),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let body = if method == "HEAD" { vec![] } else { body };
    let _client_may_be_gone = stream.write_all(&[head.as_bytes(), &body].concat());
}
