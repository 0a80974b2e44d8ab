//! The documents of many canaries, in one file each or in bundles.

use std::collections::BTreeSet;

use wingbeat_benches::site::listener;

/// Canaries of a listener.
pub(super) const OF_A_LISTENER: usize = 100;
/// Canaries of a file that holds many.
const OF_A_BUNDLE: usize = 100;
/// The first port that listeners have. Nobody listens there: no Envoy runs.
const FIRST_PORT: usize = 20_000;

/// How canaries are spread over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One in each.
    Files,
    /// A hundred in each.
    Bundles,
}

impl Layout {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Bundles => "bundles",
        }
    }

    pub(super) const fn canaries_a_file(self) -> usize {
        match self {
            Self::Files => 1,
            Self::Bundles => OF_A_BUNDLE,
        }
    }
}

/// What changes of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Another revision is asked for: a rollout begins.
    Revision,
    /// How long requests may take: no rollout begins.
    Timeout,
}

/// Documents as they are now.
#[derive(Debug)]
pub(super) struct Documents {
    layout: Layout,
    /// Revision and timeout of each canary.
    canaries: Vec<(u64, u64)>,
}

impl Documents {
    pub(super) fn new(canaries: usize, layout: Layout) -> Self {
        Self { layout, canaries: vec![(1, 15); canaries] }
    }

    /// Returns all files, each with its name.
    pub(super) fn all(&self) -> Vec<(String, String)> {
        let listeners = (0..self.canaries.len().div_ceil(OF_A_LISTENER)).map(|number| {
            let port = u16::try_from(FIRST_PORT + number).unwrap_or(u16::MAX);
            (of_listener(number), listener(&of_listener(number), ([127, 0, 0, 1], port).into()))
        });
        let files = self.canaries.len().div_ceil(self.layout.canaries_a_file());
        (0..files).map(|file| self.file(file)).chain(listeners).collect()
    }

    /// Changes canaries. Returns the files that are different now.
    pub(super) fn change(&mut self, canaries: &[usize], change: Change) -> Vec<(String, String)> {
        for canary in canaries {
            if let Some((revision, timeout)) = self.canaries.get_mut(*canary) {
                match change {
                    Change::Revision => *revision += 1,
                    Change::Timeout => *timeout += 1,
                }
            }
        }
        let files: BTreeSet<usize> = canaries.iter().map(|canary| canary / self.layout.canaries_a_file()).collect();
        files.into_iter().map(|file| self.file(file)).collect()
    }

    fn file(&self, file: usize) -> (String, String) {
        let each = self.layout.canaries_a_file();
        let canaries = self.canaries.iter().enumerate().skip(file * each).take(each);
        let texts: Vec<String> =
            canaries.map(|(number, (revision, timeout))| document(number, *revision, *timeout)).collect();
        (format!("{}-{file:05}", self.layout.name()), texts.join("---\n"))
    }
}

/// Returns the name of a canary.
pub(super) fn name(number: usize) -> String {
    format!("canary-{number:05}")
}

/// Returns the name of a listener, and of the cluster of proxies that it is for.
pub(super) fn of_listener(number: usize) -> String {
    format!("edge-{number:03}")
}

fn document(number: usize, revision: u64, timeout: u64) -> String {
    let (name, listener) = (name(number), of_listener(number / OF_A_LISTENER));
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: prod}}\nspec:\n  \
         revision: \"{revision}\"\n  revisions:\n    \"1\": {{endpoints: [\"127.0.0.1:8081\"]}}\n    \
         \"2\": {{endpoints: [\"127.0.0.1:8082\"]}}\n---\n\
         apiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}, namespace: prod}}\nspec:\n  \
         targetRef: {{kind: Workload, name: {name}}}\n  \
         service: {{port: 80, hosts: [{name}.local], listeners: [{listener}], timeout: {timeout}s}}\n  \
         analysis: {{interval: 10m, threshold: 100, maxWeight: 50, stepWeight: 5}}\n"
    )
}
