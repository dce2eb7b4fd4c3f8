//! A disk that can be filled.

use std::path::Path;
use std::process::Command;

/// Mounts a small memory disk; `None`, with the reason printed, where that is not allowed.
pub fn small_disk(folder: &Path, size: &str) -> Option<Mounted> {
    std::fs::create_dir_all(folder).unwrap();
    let mut mount = Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "arborist-test"]).arg(folder);
    match mount.output() {
        Ok(output) if output.status.success() => Some(Mounted(folder.to_owned())),
        Ok(output) => {
            println!("skipped, no disk to fill: {}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            println!("skipped, no disk to fill: mount: {error}");
            None
        }
    }
}

/// A mounted disk; unmounted when dropped.
pub struct Mounted(std::path::PathBuf);

impl Mounted {
    /// Makes room.
    pub fn enlarge(&self) {
        let status = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("-l").arg(&self.0).status();
        if !gone.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}
