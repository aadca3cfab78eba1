//! containerd, by its own client `ctr`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::daemon::Daemon;
use crate::image::Layout;
use crate::process::run;

/// A running containerd without images. It ends when this is dropped.
pub struct Containerd {
    ctr: PathBuf,
    daemon: Daemon,
}

impl Containerd {
    /// Starts `containerd`. `ctr` is the client.
    pub async fn start(ctr: PathBuf) -> Self {
        let program = ctr.clone();
        let daemon = Daemon::start(
            "containerd",
            &[],
            |folder| {
                let file = folder.join("config.toml");
                fs::write(&file, configuration(folder)).expect("a file");
                vec!["--config".to_owned(), file.display().to_string()]
            },
            |folder| {
                let mut command = Command::new(&program);
                command.arg("--address").arg(socket(folder)).arg("version");
                command
            },
        );
        Self { daemon: daemon.await, ctr }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        socket(self.daemon.folder())
    }

    /// Pushes an image with all its platforms from an OCI layout.
    pub async fn push(&self, layout: &Path, registry: SocketAddr, reference: &str) {
        let archive = self.daemon.folder().join("layout.tar");
        run(Command::new("tar").arg("-C").arg(layout).arg("-cf").arg(&archive).arg(".")).await;
        // containerd names what it imports by the layout's own name.
        let source = format!("{registry}/imported:image");
        let import = ["images", "import", "--no-unpack", "--all-platforms", "--base-name"];
        let base = format!("{registry}/imported");
        self.run(&[import.as_slice(), &[&base, text(&archive)]].concat()).await;
        let destination = format!("{registry}/{reference}");
        self.run(&["images", "push", "--plain-http", &destination, &source]).await;
        self.run(&["images", "rm", "--sync", &source]).await;
    }

    /// Fetches an image with all its platforms, and gives it as a layout.
    pub async fn pull(&self, registry: SocketAddr, reference: &str) -> Layout {
        let source = format!("{registry}/{reference}");
        self.run(&["content", "fetch", "--plain-http", "--all-platforms", &source]).await;
        let archive = self.daemon.folder().join("pulled.tar");
        let export = ["images", "export", "--skip-manifest-json", "--all-platforms"];
        self.run(&[export.as_slice(), &[text(&archive), &source]].concat()).await;
        self.run(&["images", "rm", "--sync", &source]).await;
        let layout = Layout::to_be_pulled();
        run(Command::new("tar").arg("-C").arg(layout.path()).arg("-xf").arg(&archive)).await;
        layout
    }

    /// Pulls the image for this platform and unpacks it as for a container. Gives the digest that the
    /// reference stands for, once everything of it is there.
    pub async fn unpack(&self, registry: SocketAddr, reference: &str) -> String {
        let source = format!("{registry}/{reference}");
        self.run(&["images", "pull", "--plain-http", "--snapshotter", "native", &source]).await;
        let name = format!("name=={source}");
        let image = self.run(&["images", "check", "--snapshotter", "native", &name]).await;
        // A table: name, type, digest, complete or not, sizes, whether it is unpacked.
        let words: Vec<_> = image.lines().last().unwrap_or_default().split_whitespace().collect();
        assert_eq!((words[3], words.last()), ("complete", Some(&"true")), "{image}");
        words[2].to_owned()
    }

    /// The client, with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(self.socket()).args(arguments);
        command
    }

    async fn run(&self, arguments: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(arguments)).await).expect("text")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

/// Without the plugins that reach out of the folder.
fn configuration(folder: &Path) -> String {
    let (folder, socket) = (folder.display(), socket(folder).display().to_string());
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
"#
    )
}
