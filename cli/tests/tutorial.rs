//! What the tutorial says is what happens: its commands, one after the other, in one shell.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::port::Port;

/// Ends a shell and all that it started.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _gone = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _gone = self.0.wait();
    }
}

/// Returns the commands of a page: what is in its blocks of `console`.
fn commands(page: &str) -> String {
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix("console\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_the_tutorial_does_what_it_says() {
    let page = std::fs::read_to_string(format!("{}/../docs/tutorial.md", env!("CARGO_MANIFEST_DIR")));
    let mut script = commands(&page.expect("the tutorial"));
    assert!(script.lines().count() > 50, "{script}");
    // Others may listen where a person's machine has nobody.
    let ports: Vec<Port> = (0..6).map(|_| Port::hold().expect("a port")).collect();
    let port = |place: usize| ports.get(place).expect("one of them").address().port();
    let (xds, http) = (format!("127.0.0.1:{}", port(4)), format!("127.0.0.1:{}", port(5)));
    for (written, here) in [
        ("9001", port(0).to_string()),
        ("9002", port(1).to_string()),
        ("9003", port(2).to_string()),
        ("10000", port(3).to_string()),
        ("wingbeat serve ", format!("wingbeat serve --listen-xds {xds} --listen-http {http} ")),
        ("wingbeat bootstrap ", format!("wingbeat bootstrap --xds {xds} ")),
    ] {
        assert!(script.contains(written), "{written}");
        script = script.replace(written, &here);
    }
    let envoy = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
    let folder_of = |path: &Path| path.parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").expect("a PATH");
    let path = [folder_of(Path::new(env!("CARGO_BIN_EXE_wingbeat"))), folder_of(envoy.path()), path].join(":");
    let folder = tempfile::tempdir().expect("a folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let file = |path: &Path| Stdio::from(std::fs::File::create(path).expect("a file"));
    let shell = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("WINGBEAT_SERVER", format!("http://{http}"))
        .env_remove("WINGBEAT_TOKEN")
        .stdout(file(&out))
        .stderr(file(&err))
        .process_group(0)
        .spawn()
        .expect("a shell");
    let mut shell = Shell(shell);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut poll = tokio::time::interval(Duration::from_millis(100));
    let ended = async {
        while shell.0.try_wait().expect("it can be waited for").is_none() {
            poll.tick().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_mins(5), ended).await;
    let (out, err) = (read(&out), read(&err));
    assert!(ended.is_ok(), "it does not end:\n{out}\n{err}");
    let mut rest = out.as_str();
    for told in [
        "this is 1.0\n",
        "prod/shop Progressing, revision 1.1 at 25 %, 1.0 is the primary",
        "prod/shop Succeeded, revision 1.1\n",
        "New revision detected! Scaling up shop.prod",
        "prod/shop Failed, revision 1.2 at 0 %, 1.1 is the primary: ",
        "Phase:           Failed\n",
    ] {
        let (_, after) = rest.split_once(told).unwrap_or_else(|| panic!("{told:?} is missing in:\n{out}\n{err}"));
        rest = after;
    }
    // What users had: all of the good ones, and few of the bad.
    let answers = rest.lines().find(|line| line.starts_with("{'")).unwrap_or_else(|| panic!("no answers in:\n{out}"));
    let count = |answer: &str| -> u32 {
        let (_, after) = answers.split_once(&format!("'{answer}': ")).unwrap_or_default();
        after.split([',', '}']).next().and_then(|count| count.parse().ok()).unwrap_or_default()
    };
    let (good, bad) = (count("200 this is 1.0") + count("200 this is 1.1"), count("500 this is 1.2"));
    assert!(bad > 0 && bad < 100 && good > 10 * bad, "{answers}");
    assert!(!answers.contains("503") && !answers.contains("404"), "{answers}");
}
