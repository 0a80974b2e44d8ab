//! Volumes at their paths: a container that has some gets mounts of its own, and sees the machine's files beside them.

use std::path::Path;

use tokio::process::Command;

use crate::cri::v1::Mount;
use crate::process::bound_to_thread;

/// What kubelet gives every container, and a process does without.
const OF_EVERY_CONTAINER: [&str; 2] = ["/etc/hosts", "/dev/termination-log"];

/// Mounts what is at `$1` of the machine at `$2` of the container, pair by pair up to `--`, and becomes the program after it.
///
/// Where there is no such path, its folder is hidden by one that holds links to what is there, and the path is made in that.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs wingbeat /media
hidden=
hide() {
  behind=$(mktemp -d -p /media)
  mount --rbind "$1" "$behind"
  mount -t tmpfs wingbeat "$1"
  for entry in "$behind"/* "$behind"/.[!.]*; do
    if [ -L "$entry" ]; then cp -P "$entry" "$1/"; elif [ -e "$entry" ]; then ln -s "$entry" "$1/"; fi
  done
  hidden="$hidden $1"
}
is_hidden() {
  for folder in $hidden; do
    case "$1/" in "$folder"/*) return 0;; esac
  done
  return 1
}
while [ "$1" != -- ]; do
  if ! [ -e "$2" ]; then
    parent=$(dirname "$2")
    while ! [ -e "$parent" ]; do parent=$(dirname "$parent"); done
    parent=$(readlink -f "$parent")
    is_hidden "$parent" || hide "$parent"
    if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")"; touch "$2"; fi
  fi
  mount --bind "$1" "$2"
  shift 2
done
shift
exec "$@"
"#;

/// Returns a program that sees these volumes, and ends with the calling thread. Without any but those that every container has,
/// it has the machine's mounts.
pub(super) fn within(mounts: &[Mount], program: &Path) -> Command {
    if mounts.iter().all(|mount| OF_EVERY_CONTAINER.contains(&mount.container_path.as_str())) {
        return bound_to_thread(program);
    }
    let mut command = bound_to_thread(Path::new("unshare"));
    command.args(["--mount", "--", "sh", "-c", SCRIPT, "sh"]);
    // Names that are known by a file of the Pod are known; how it ended is told by its process.
    for mount in mounts.iter().filter(|mount| mount.container_path != "/dev/termination-log") {
        command.args([&mount.host_path, &mount.container_path]);
    }
    command.arg("--").arg(program);
    command
}
