//! Disks that can be filled, and disks that stop answering. All of it needs root: where that is missing the reason is
//! printed and the test skipped.

use super::wait_for;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What is done about a folder when the standard input ends: also when the test's own process was killed.
const UNMOUNT: &str = "trap '' INT TERM HUP; cat >/dev/null; umount -l \"$0\"";
const THAW_AND_UNMOUNT: &str =
    "trap '' INT TERM HUP; cat >/dev/null; fsfreeze -u \"$0\" 2>/dev/null; umount -l \"$0\"";

/// Mounts a small memory disk; `None`, with the reason printed, where that is not allowed.
pub fn small_disk(folder: &Path, size: &str) -> Option<Mounted> {
    fs::create_dir_all(folder).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "arborist-test"]).arg(folder);
    done(&mut mount, "no disk to fill")?;
    Some(Mounted::keep(folder, UNMOUNT))
}

/// Runs it; `None`, with the reason printed, when it fails.
fn done(command: &mut Command, lacking: &str) -> Option<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let why = match command.output() {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped, {lacking}: {program}: {why}");
    None
}

/// A mounted disk; thawed and unmounted when dropped.
pub struct Mounted {
    folder: PathBuf,
    keeper: Child,
}

impl Mounted {
    fn keep(folder: &Path, clean_up: &str) -> Self {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", clean_up]).arg(folder).stdin(Stdio::piped()).process_group(0);
        let keeper = keeper.spawn().expect("a shell");
        Self { folder: folder.to_owned(), keeper }
    }

    /// Makes room on a memory disk.
    pub fn enlarge(&self) {
        let status =
            Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.folder).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if !self.keeper.wait().is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.display());
        }
    }
}

/// A disk that takes no more writes while it is frozen: whoever writes waits, and can't be killed before it is thawed.
/// To be dropped before the processes that use it, so declared after them.
pub struct Freezer {
    mounted: Mounted,
}

impl Freezer {
    /// Mounts one; `None`, with the reason printed, where that can't be done.
    pub fn new(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let image = folder.with_extension("image");
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
        let lacking = "no disk to freeze";
        done(Command::new("fsfreeze").arg("--version"), lacking)?;
        done(Command::new("mkfs.ext4").arg("-q").arg(&image), lacking)?;
        done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(folder), lacking)?;
        Some(Self { mounted: Mounted::keep(folder, THAW_AND_UNMOUNT) })
    }

    /// From now on writes wait.
    pub fn freeze(&self) {
        self.tell("-f");
    }

    /// Those that wait go on.
    pub fn thaw(&self) {
        self.tell("-u");
    }

    fn tell(&self, option: &str) {
        let status = Command::new("fsfreeze").arg(option).arg(&self.mounted.folder).status().unwrap();
        assert!(status.success(), "fsfreeze {option}: {status}");
    }
}

/// A folder that nothing is answered from, as that of a file server that is gone: a file system without anybody behind
/// it lies over it. Whoever asks for something in it waits. When this is dropped the calls that wait fail, and the folder
/// is as it was. To be dropped before the processes that use it, as a [`Freezer`] is: some of them can't be killed before.
pub struct Dead {
    // in this order: taken away before those who wait are let go
    mounted: Mounted,
    _nobody: File,
}

impl Dead {
    /// Covers the folder; `None`, with the reason printed, where that can't be done.
    pub fn over(folder: &Path) -> Option<Self> {
        let device = Path::new("/dev/fuse");
        let nobody = match File::options().read(true).write(true).open(device) {
            Ok(nobody) => nobody,
            Err(error) => {
                println!("skipped, no folder to cover: {}: {error}", device.display());
                return None;
            }
        };
        let mut mount = Command::new("mount");
        mount
            // the device is its standard input
            .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "arborist-test"])
            .arg(folder)
            .stdin(nobody.try_clone().expect("a handle"));
        done(&mut mount, "no folder to cover")?;
        Some(Self { mounted: Mounted::keep(folder, UNMOUNT), _nobody: nobody })
    }

    /// Takes the cover away.
    pub fn recover(self) {
        let folder = self.mounted.folder.clone();
        drop(self);
        wait_for("the folder answers", String::new, || fs::read_dir(&folder).ok());
    }
}
