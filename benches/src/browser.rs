//! A headless Chromium, spoken to over pipes by its DevTools protocol: what a page shows, what keys do, what it costs.
//!
//! Chromium is taken from `$CHROMIUM`, from the PATH or, on Debian, from the package `chromium`, which is unpacked with what
//! it needs under `target/`: nothing is installed.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// Longest time to wait for an answer, or for what a page has to show.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often a page is looked at.
const POLL: Duration = Duration::from_millis(50);
/// The version of axe-core, which looks for what keeps people out.
const AXE: &str = "axe-core@4.14.1";

/// A running browser with one page. Killed when dropped.
#[derive(Debug)]
pub struct Browser {
    _process: Child,
    _profile: TempDir,
    sends: ChildStdin,
    says: BufReader<ChildStdout>,
    last: u64,
    session: Option<String>,
    /// What the page itself complained of.
    complaints: VecDeque<String>,
    /// Answers that come instead of the server's.
    instead: Vec<Instead>,
}

/// An answer to requests for addresses that end like this, in place of the server's.
#[derive(Debug, Clone)]
pub struct Instead {
    /// The end of the address.
    pub address: String,
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its text.
    pub body: String,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// Whether light text on a dark ground is asked for.
    pub scheme: Scheme,
}

/// The colours that a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Dark text on a light ground.
    Light,
    /// Light text on a dark ground.
    Dark,
}

/// A desktop's window.
pub const WINDOW: Look = Look { width: 1_240, height: 900, scheme: Scheme::Light };
/// A phone, held upright.
pub const PHONE: Look = Look { width: 390, height: 844, scheme: Scheme::Light };

impl Browser {
    /// Starts it.
    pub async fn start() -> anyhow::Result<Self> {
        let program = chromium().await?;
        let profile = tempfile::tempdir()?;
        let mut data = std::ffi::OsString::from("--user-data-dir=");
        data.push(profile.path());
        // It reads commands from 3 and writes to 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"]).arg(&program.path).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            "--font-render-hinting=none",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--lang=en",
            "--remote-debugging-pipe",
        ]);
        command.arg(data).arg("about:blank").env("TZ", "UTC").env("LD_LIBRARY_PATH", &program.libraries);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().context("Chromium does not start")?;
        let sends = process.stdin.take().context("a pipe")?;
        let says = BufReader::new(process.stdout.take().context("a pipe")?);
        let mut browser = Self {
            _process: process,
            _profile: profile,
            sends,
            says,
            last: 0,
            session: None,
            complaints: VecDeque::new(),
            instead: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let target = target.get("targetId").cloned().context("a page")?;
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true})).await?;
        browser.session = attached.get("sessionId").and_then(Value::as_str).map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        let watch = "window.longTasks = []; new PerformanceObserver((list) => longTasks.push(...list.getEntries().map((task) => \
                     task.duration))).observe({ type: 'longtask', buffered: true });";
        browser.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": watch})).await?;
        Ok(browser)
    }

    /// Sends a command and returns its result; what happens meanwhile is taken in.
    async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let id = self.send(method, params).await?;
        loop {
            let message = timeout(PATIENCE, self.message()).await.with_context(|| format!("{method}: no answer"))??;
            if message.get("id").and_then(Value::as_u64) == Some(id) {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message.get("result").cloned().unwrap_or_default());
            }
            self.happened(&message).await?;
        }
    }

    async fn send(&mut self, method: &str, params: Value) -> anyhow::Result<u64> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let (Some(session), Some(fields)) = (&self.session, message.as_object_mut()) {
            fields.insert("sessionId".to_owned(), json!(session));
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.sends.write_all(&bytes).await?;
        Ok(self.last)
    }

    async fn message(&mut self) -> anyhow::Result<Value> {
        let mut bytes = Vec::new();
        ensure!(self.says.read_until(0, &mut bytes).await? > 0, "Chromium has ended");
        bytes.pop();
        Ok(serde_json::from_slice(&bytes)?)
    }

    async fn happened(&mut self, message: &Value) -> anyhow::Result<()> {
        let at = |path: &str| message.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        match at("/method").as_str() {
            "Runtime.exceptionThrown" => {
                let text = at("/params/exceptionDetails/exception/description");
                self.complaints.push_back(text);
            }
            "Log.entryAdded" if at("/params/entry/level") == "error" => {
                self.complaints.push_back(format!("{} {}", at("/params/entry/text"), at("/params/entry/url")));
            }
            "Runtime.consoleAPICalled" if at("/params/type") == "error" => {
                self.complaints.push_back(at("/params/args/0/description"));
            }
            "Fetch.requestPaused" => {
                let (id, address) = (at("/params/requestId"), at("/params/request/url"));
                let instead = self.instead.iter().find(|instead| address.ends_with(&instead.address)).cloned();
                match instead {
                    Some(Instead { status, headers, body, .. }) => {
                        let headers: Vec<Value> =
                            headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                        let body = base64::prelude::BASE64_STANDARD.encode(body);
                        let answer =
                            json!({"requestId": id, "responseCode": status, "responseHeaders": headers, "body": body});
                        self.send("Fetch.fulfillRequest", answer).await?
                    }
                    None => self.send("Fetch.continueRequest", json!({"requestId": id})).await?,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens a page and looks at it like this.
    pub async fn open(&mut self, address: &str, look: Look) -> anyhow::Result<()> {
        self.look(look).await?;
        // An address that differs after the hash alone would not be loaded anew.
        self.call("Page.navigate", json!({"url": "about:blank"})).await?;
        self.call("Page.navigate", json!({"url": address})).await?;
        self.until("the page is loaded", "document.readyState === 'complete' && location.href !== 'about:blank'").await
    }

    /// Looks at the page like this from now on.
    pub async fn look(&mut self, look: Look) -> anyhow::Result<()> {
        let Look { width, height, scheme } = look;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = if scheme == Scheme::Dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    /// Answers like this in place of the server, from now on.
    pub async fn answer_instead(&mut self, instead: Vec<Instead>) -> anyhow::Result<()> {
        let (method, params) = if instead.is_empty() {
            ("Fetch.disable", json!({}))
        } else {
            ("Fetch.enable", json!({"patterns": [{"urlPattern": "*"}]}))
        };
        self.instead = instead;
        self.call(method, params).await?;
        Ok(())
    }

    /// Returns what an expression comes to in the page.
    pub async fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params).await?;
        if let Some(thrown) = result.pointer("/exceptionDetails/exception/description") {
            bail!("{expression}: {thrown}");
        }
        Ok(result.pointer("/result/value").cloned().unwrap_or_default())
    }

    /// Returns the text that an expression comes to.
    pub async fn text(&mut self, expression: &str) -> anyhow::Result<String> {
        Ok(self.eval(expression).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression is true in the page.
    pub async fn until(&mut self, what: &str, expression: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut poll = tokio::time::interval(POLL);
        loop {
            poll.tick().await;
            if self.eval(expression).await.is_ok_and(|holds| holds == json!(true)) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                let shown = self.text("document.body.innerText").await.unwrap_or_default();
                bail!("{what}: it never came about; the page complains of {:?} and shows\n{shown}", self.complaints);
            }
        }
    }

    /// Presses a key, as a person does. Returns what then has the focus.
    pub async fn press(&mut self, key: &str) -> anyhow::Result<String> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "End" => (35, ""),
            "Home" => (36, ""),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowDown" => (40, ""),
            other => bail!("no such key: {other}"),
        };
        let event =
            |kind: &str| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", event(if text.is_empty() { "rawKeyDown" } else { "keyDown" })).await?;
        self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}))
            .await?;
        self.focus().await
    }

    /// Returns what has the focus: its text, or its name.
    pub async fn focus(&mut self) -> anyhow::Result<String> {
        let focus = "(() => { const it = document.activeElement; return (it.labels?.[0]?.innerText || it.getAttribute('aria-label') \
                     || it.innerText || it.tagName).trim(); })()";
        self.text(focus).await
    }

    /// Writes a text where the focus is.
    pub async fn type_text(&mut self, text: &str) -> anyhow::Result<()> {
        for letter in text.chars() {
            let event = |kind: &str| json!({"type": kind, "text": letter.to_string(), "key": letter.to_string()});
            self.call("Input.dispatchKeyEvent", event("keyDown")).await?;
            self.call("Input.dispatchKeyEvent", event("keyUp")).await?;
        }
        Ok(())
    }

    /// Takes a picture of the whole page. Returns its size in bytes.
    pub async fn picture(&mut self, file: &Path, most_height: u32) -> anyhow::Result<usize> {
        let size = self.eval("[document.documentElement.clientWidth, document.documentElement.scrollHeight]").await?;
        let number = |place: usize| size.get(place).and_then(Value::as_f64).unwrap_or_default();
        let clip =
            json!({"x": 0, "y": 0, "width": number(0), "height": number(1).min(f64::from(most_height)), "scale": 1});
        let params = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let taken = self.call("Page.captureScreenshot", params).await?;
        let data = taken.get("data").and_then(Value::as_str).context("a picture")?;
        let bytes = crate::picture::shrunk(&base64::prelude::BASE64_STANDARD.decode(data)?)?;
        std::fs::write(file, &bytes)?;
        Ok(bytes.len())
    }

    /// Returns what axe-core finds that keeps people out, seriously or worse.
    pub async fn barriers(&mut self, axe: &str) -> anyhow::Result<Vec<String>> {
        self.eval(axe).await?;
        let run = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.filter(({ impact }) => \
                   ['serious', 'critical'].includes(impact)).map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => \
                   node.html.slice(0, 120) + ' ' + node.failureSummary).join(' | ')}`))";
        let found = self.eval(run).await?;
        let found = found.as_array().context("axe says nothing")?;
        Ok(found.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Returns how long the page held the browser up, in milliseconds, each time that it was long; and forgets it.
    pub async fn long_tasks(&mut self) -> anyhow::Result<Vec<f64>> {
        let tasks = self.eval("longTasks.splice(0)").await?;
        Ok(tasks.as_array().into_iter().flatten().filter_map(Value::as_f64).collect())
    }

    /// Returns what the page complained of, and forgets it.
    pub fn complaints(&mut self) -> Vec<String> {
        self.complaints.drain(..).collect()
    }
}

/// Chromium, and where it finds what it was built with.
struct Chromium {
    path: PathBuf,
    libraries: std::ffi::OsString,
}

async fn chromium() -> anyhow::Result<Chromium> {
    let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Ok(Chromium { path: path.into(), libraries });
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let installed = std::env::split_paths(&folders).flat_map(|folder| names.map(|name| folder.join(name)));
    if let Some(path) = installed.into_iter().find(|path| path.is_file()) {
        return Ok(Chromium { path, libraries });
    }
    let folder = std::path::absolute("target/chromium")?;
    let path = folder.join("usr/lib/chromium/chromium");
    if !path.is_file() {
        std::fs::create_dir_all(&folder)?;
        unpack(&folder).await.context("there is no Chromium: put chromium into the PATH, or name it in $CHROMIUM")?;
    }
    let library = folder.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    Ok(Chromium { path, libraries: std::env::join_paths([library.clone(), library.join("pulseaudio")])? })
}

/// Unpacks the package and those that it needs and that are not installed.
async fn unpack(folder: &Path) -> anyhow::Result<()> {
    let planned = run("apt-get", &["-s", "install", "--no-install-recommends", "chromium"], folder).await?;
    let needed: Vec<&str> = planned.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).collect();
    run("apt-get", &[&["download", "--quiet"], needed.as_slice()].concat(), folder).await?;
    for package in std::fs::read_dir(folder)? {
        let package = package?.path();
        if package.extension() == Some(OsStr::new("deb")) {
            run("dpkg", &["-x", &package.display().to_string(), &folder.display().to_string()], folder).await?;
            std::fs::remove_file(package)?;
        }
    }
    Ok(())
}

/// Returns the script of axe-core, from npm.
pub async fn axe() -> anyhow::Result<String> {
    let folder = std::path::absolute("target/axe")?;
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.is_file() {
        std::fs::create_dir_all(&folder)?;
        let args = ["install", "--no-save", "--no-package-lock", "--ignore-scripts", "--prefix", ".", AXE];
        let installed = run("npm", &args, &folder).await;
        installed.context("axe-core comes from npm: install Node.js, which brings it (Debian: apt-get install npm)")?;
    }
    Ok(std::fs::read_to_string(script)?)
}

async fn run(program: &str, args: &[&str], folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).current_dir(folder).output().await;
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
