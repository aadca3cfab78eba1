//! `podman`, and `buildah`, which takes the same options: clients that keep images unpacked, in a
//! storage of their own, and pack their layers anew when they push.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{note, output, run};

/// The images of one user. They go when this is dropped.
pub struct Podman {
    program: PathBuf,
    folder: TempDir,
    /// Whether its storage takes parts of layers.
    takes_parts: bool,
}

impl Podman {
    /// No images yet. `program` is podman, or buildah.
    pub fn new(program: PathBuf) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self { program, folder, takes_parts: false }
    }

    /// No images yet, in a storage that takes of a layer in the format `zstd:chunked` only the files that it
    /// has not got. `None`, and a line that says so, where podman can't have one.
    pub async fn taking_parts(program: PathBuf) -> Option<Self> {
        let podman = Self { takes_parts: true, ..Self::new(program) };
        let folder = podman.folder.path().display();
        let configuration = format!(
            "[storage]\n\
             driver = \"overlay\"\n\
             graphroot = \"{folder}/root\"\n\
             runroot = \"{folder}/run\"\n\
             [storage.options]\n\
             pull_options = {{ enable_partial_images = \"true\" }}\n"
        );
        fs::write(podman.configuration(), configuration).expect("a file");
        let trial = output(&mut podman.command(&["images"])).await;
        if !trial.status.success() {
            let complaint = String::from_utf8_lossy(&trial.stderr);
            note(&format!("left out: podman has no overlay storage here: {complaint}"));
            return None;
        }
        Some(podman)
    }

    /// Pulls an image, and gives its id: the hex digits of its configuration's digest.
    pub async fn pull(&self, registry: SocketAddr, reference: &str) -> String {
        let source = format!("docker://{registry}/{reference}");
        self.run(&["pull", "--quiet", "--tls-verify=false", &source]).await
    }

    /// Pushes an image by its id, and gives the digest of what it pushed.
    pub async fn push(&self, id: &str, registry: SocketAddr, reference: &str) -> String {
        let file = self.folder.path().join("digest");
        let destination = format!("docker://{registry}/{reference}");
        let path = file.to_str().expect("the path is text");
        self.run(&[
            "push",
            "--quiet",
            "--tls-verify=false",
            "--digestfile",
            path,
            id,
            &destination,
        ])
        .await;
        fs::read_to_string(file).expect("the digest is written")
    }

    /// Builds an image from the Containerfile in `folder`, and gives its id.
    pub async fn build(&self, folder: &Path) -> String {
        self.run(&["build", "--quiet", folder.to_str().expect("the path is text")]).await
    }

    /// The tags of a repository. For podman alone: buildah doesn't list them.
    pub async fn list_tags(&self, registry: SocketAddr, name: &str) -> Value {
        let repository = format!("{registry}/{name}");
        let search = ["search", "--tls-verify=false", "--list-tags", "--format=json", &repository];
        let found: Value = serde_json::from_str(&self.run(&search).await).expect("JSON");
        found[0]["Tags"].clone()
    }

    /// Runs podman with these arguments on its storage, and gives what it printed.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.command(arguments)).await;
        String::from_utf8(output).expect("text").trim().to_owned()
    }

    /// podman, on its storage, with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if self.takes_parts {
            command.env("CONTAINERS_STORAGE_CONF", self.configuration());
        } else {
            command
                .arg("--root")
                .arg(self.folder.path().join("root"))
                .arg("--runroot")
                .arg(self.folder.path().join("run"))
                .args(["--storage-driver", "vfs"]);
        }
        command.args(arguments);
        command
    }

    /// The command line of podman on its storage, for scripts that are told how to build images.
    pub fn command_line(&self) -> String {
        let command = self.command(&[]);
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Starts a container with these options, image and arguments, in the network of this machine.
    pub async fn start(&self, arguments: &[&str]) -> Container<'_> {
        let mut run = vec!["--runtime", "runc", "run", "--detach", "--network", "host"];
        // podman's defaults are more than those have that run tests in a container.
        run.extend(["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]);
        run.extend(arguments);
        Container { podman: self, id: self.run(&run).await }
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("storage.conf")
    }
}

/// A container. It ends when this is dropped.
pub struct Container<'a> {
    podman: &'a Podman,
    id: String,
}

impl Container<'_> {
    /// What podman knows of it, by a format of its `inspect`.
    pub async fn inspect(&self, format: &str) -> String {
        self.podman.run(&["container", "inspect", "--format", format, &self.id]).await
    }

    /// Runs a program in it, and gives what it printed.
    pub async fn exec(&self, program: &[&str]) -> String {
        let mut arguments = vec!["--runtime", "runc", "exec", &self.id];
        arguments.extend(program);
        self.podman.run(&arguments).await
    }

    /// Tells it to end, waits for that so many seconds, and gives its status.
    pub async fn stop(&self, seconds: u32) -> String {
        let seconds = seconds.to_string();
        self.podman.run(&["--runtime", "runc", "stop", "--time", &seconds, &self.id]).await;
        self.inspect("{{.State.ExitCode}}").await
    }

    /// What it has written, to standard output and standard error.
    pub async fn logs(&self) -> String {
        let output = output(&mut self.podman.command(&["logs", &self.id])).await;
        let written = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&written).into_owned()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let remove = ["--runtime", "runc", "rm", "--force", "--time", "0", &self.id];
        // Nothing is left to be done for one that can't be removed.
        let _ = self.podman.command(&remove).as_std_mut().output();
    }
}
