//! Writes down what judges see, a file per rollout, for `wingbeat replay`.
//!
//! ```text
//!  engine ─► JudgedWindow ─► queue (bounded) ─► thread ─► NAMESPACE_NAME_ROLLOUT.jsonl
//!     ▲                    │ full: lost        │ cannot be written: lost
//!     └──── RecordingLoss, told once and shown ◄────────┘
//! ```
//!
//! Recording is never in the way of judging: what cannot be written is counted and told, and rollouts go on.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use wingbeat_control::recording::{JudgedWindow, RecordingLoss};
use wingbeat_core::id::{CanaryName, RolloutId};

/// Windows that may wait for the disk: some seconds of hundreds of rollouts.
const QUEUE: usize = 4_096;
/// Files of rollouts with the same number that are told apart, before they are given up.
const MAX_FILES: u32 = 10_000;
/// What has to fit onto the disk at the beginning: some minutes of a rollout.
const ROOM: usize = 256 * 1_024;

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written ({why}): is there room on the disk, and may this user write there?")]
pub struct RecorderError {
    path: String,
    why: std::io::Error,
}

/// A thread that writes. Dropping it waits until what was put is written.
#[derive(Debug)]
pub struct Recorder {
    queue: Option<SyncSender<JudgedWindow>>,
    losses: Losses,
    thread: Option<JoinHandle<()>>,
}

/// What is lost of the latest rollout of each canary.
type Lost = BTreeMap<CanaryName, RecordingLoss>;

/// The same, shared with the thread. Held for an entry at a time, never while something is written.
#[derive(Debug, Clone, Default)]
struct Losses(Arc<Mutex<Lost>>);

impl Recorder {
    /// Starts to record into this folder, which is made if it is not there.
    pub fn start(folder: &Path) -> Result<Self, RecorderError> {
        Self::start_with(folder, QUEUE)
    }

    fn start_with(folder: &Path, queue: usize) -> Result<Self, RecorderError> {
        let unwritable = |why| RecorderError { path: folder.display().to_string(), why };
        std::fs::create_dir_all(folder).map_err(unwritable)?;
        let probe = folder.join(format!(".room-{}", std::process::id()));
        let tried = File::create(&probe).and_then(|mut file| {
            file.write_all(&vec![b'\n'; ROOM])?;
            file.sync_all()
        });
        // It has no use any more, and would be overwritten.
        let removed = std::fs::remove_file(&probe);
        tried.and(removed).map_err(unwritable)?;
        let (sender, receiver) = sync_channel(queue);
        let losses = Losses::default();
        let mut writer = Writer { folder: folder.to_owned(), files: BTreeMap::new(), losses: losses.clone() };
        let thread = std::thread::Builder::new().name("recorder".to_owned());
        let thread = thread.spawn(move || writer.run(&receiver)).map_err(unwritable)?;
        Ok(Self { queue: Some(sender), losses, thread: Some(thread) })
    }

    /// Lets a window be written. One that finds no room in the queue is lost.
    pub fn put(&self, recorded: JudgedWindow) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(recorded) {
            Ok(()) => {}
            Err(TrySendError::Full(lost)) => self.losses.add(&lost, "the disk is too slow"),
            Err(TrySendError::Disconnected(lost)) => self.losses.add(&lost, "the recorder has ended"),
        }
    }

    /// Returns what is lost of the latest rollout of each canary.
    pub fn losses(&self) -> BTreeMap<CanaryName, RecordingLoss> {
        self.losses.lock().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Losses {
    fn add(&self, lost: &JudgedWindow, why: &str) {
        let mut losses = self.lock();
        let before = losses.get(&lost.canary).filter(|loss| loss.rollout == lost.rollout);
        let windows = before.map_or(0, |loss| loss.windows).saturating_add(1);
        losses.insert(lost.canary.clone(), RecordingLoss { rollout: lost.rollout, windows, why: why.to_owned() });
    }

    /// Forgets what was lost of a rollout before this one.
    fn begin(&self, canary: &CanaryName, rollout: RolloutId) {
        let mut losses = self.lock();
        if losses.get(canary).is_some_and(|loss| loss.rollout != rollout) {
            losses.remove(canary);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    folder: PathBuf,
    /// The file of the latest rollout of each canary.
    files: BTreeMap<CanaryName, Recording>,
    losses: Losses,
}

struct Recording {
    rollout: RolloutId,
    path: PathBuf,
    /// The last write may have ended in the middle of a line.
    torn: bool,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<JudgedWindow>) {
        while let Ok(recorded) = queue.recv() {
            if let Err(error) = self.write(&recorded) {
                self.losses.add(&recorded, &error.to_string());
            }
        }
    }

    /// Adds a line. The file is opened for each: there may be many rollouts, and somebody may take files away.
    fn write(&mut self, recorded: &JudgedWindow) -> std::io::Result<()> {
        self.losses.begin(&recorded.canary, recorded.rollout);
        let known = self.files.get(&recorded.canary).is_some_and(|file| file.rollout == recorded.rollout);
        if !known {
            let (rollout, path) = (recorded.rollout, self.path(recorded)?);
            self.files.insert(recorded.canary.clone(), Recording { rollout, path, torn: recorded.resumed });
        }
        let Some(recording) = self.files.get_mut(&recorded.canary) else { return Ok(()) };
        let mut text = if recording.torn { "\n".to_owned() } else { String::new() };
        text.push_str(&serde_json::to_string(&recorded.line)?);
        text.push('\n');
        recording.torn = true;
        let mut file = OpenOptions::new().create(true).append(true).open(&recording.path)?;
        file.write_all(text.as_bytes())?;
        recording.torn = false;
        Ok(())
    }

    /// Returns the file of a rollout: the last one of this number if it goes on, a new one if it is new. Numbers begin
    /// again where no state is kept.
    fn path(&self, recorded: &JudgedWindow) -> std::io::Result<PathBuf> {
        let JudgedWindow { canary: CanaryName { namespace, name, .. }, rollout, resumed, .. } = recorded;
        // Names have no underscore.
        let stem = format!("{namespace}_{name}_{rollout}");
        let mut last = None;
        for number in 1..=MAX_FILES {
            let file = if number == 1 { format!("{stem}.jsonl") } else { format!("{stem}.{number}.jsonl") };
            let path = self.folder.join(file);
            if !path.try_exists()? {
                return Ok(last.filter(|_| *resumed).unwrap_or(path));
            }
            last = Some(path);
        }
        Err(std::io::Error::other(format!("there are {MAX_FILES} recordings {stem} already")))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use wingbeat_core::analysis::replay::{Line, RecordedWindow};
    use wingbeat_core::analysis::window::Batch;
    use wingbeat_core::time::Timestamp;
    use wingbeat_core::weight::BasisPoints;

    use super::*;

    fn recorded(rollout: u64, t_ms: u64, resumed: bool) -> JudgedWindow {
        let batch = Batch { end: Timestamp::from_millis(t_ms), ..Batch::default() };
        let seen = RecordedWindow { attempt: NonZeroU32::MIN, step_began: None, switched: false, batch };
        JudgedWindow {
            canary: CanaryName::new("prod", "backend"),
            rollout: RolloutId::new(rollout),
            resumed,
            line: Line::recorded(BasisPoints::from_percent(5), seen),
        }
    }

    fn times(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str::<Line>(line).unwrap().t_ms).collect()
    }

    #[test]
    fn each_rollout_has_a_file_that_goes_on_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |all: &[JudgedWindow]| {
            let recorder = Recorder::start(&folder.path().join("new")).unwrap();
            all.iter().for_each(|recorded| recorder.put(recorded.clone()));
            assert_eq!(recorder.losses(), BTreeMap::new());
        };
        write(&[recorded(1, 200, false), recorded(1, 400, false), recorded(2, 600, false)]);
        // A restart goes on with the second one; one that keeps no state begins to count again.
        write(&[recorded(2, 800, true)]);
        write(&[recorded(1, 1_000, false), recorded(1, 1_200, false)]);
        let file = |name: &str| times(&folder.path().join("new").join(name));
        assert_eq!(file("prod_backend_1.jsonl"), [200, 400]);
        assert_eq!(file("prod_backend_2.jsonl"), [600, 800]);
        assert_eq!(file("prod_backend_1.2.jsonl"), [1_000, 1_200]);
        assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 3, "the probe is gone");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_refused_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let told = Recorder::start(&file.join("below")).unwrap_err().to_string();
        assert!(told.contains("is there room on the disk"), "{told}");
    }

    #[test]
    fn what_cannot_be_written_is_counted_until_another_rollout_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("records");
        let mut writer = Writer { folder: place.clone(), files: BTreeMap::new(), losses: Losses::default() };
        let put = |writer: &mut Writer, recorded: &JudgedWindow| {
            if let Err(error) = writer.write(recorded) {
                writer.losses.add(recorded, &error.to_string());
            }
        };
        // The folder was taken away.
        put(&mut writer, &recorded(1, 200, false));
        put(&mut writer, &recorded(1, 400, false));
        let lost = |writer: &Writer| writer.losses.lock().values().map(|loss| loss.windows).collect::<Vec<_>>();
        assert_eq!(lost(&writer), [2]);
        std::fs::create_dir(&place).unwrap();
        put(&mut writer, &recorded(1, 600, false));
        assert_eq!(lost(&writer), [2], "the recording has a gap, and keeps it");
        put(&mut writer, &recorded(2, 800, false));
        assert!(lost(&writer).is_empty());
        assert_eq!(times(&place.join("prod_backend_1.jsonl")), [600]);
    }

    #[test]
    fn a_queue_that_is_full_loses_the_newest_and_says_so() {
        let (queue, waiting) = sync_channel(1);
        let recorder = Recorder { queue: Some(queue), losses: Losses::default(), thread: None };
        (1..=3).for_each(|number| recorder.put(recorded(1, number * 200, false)));
        let losses = recorder.losses();
        let loss = losses.values().next().unwrap();
        assert_eq!((loss.windows, loss.why.as_str()), (2, "the disk is too slow"));
        assert_eq!(waiting.try_recv().unwrap().line.t_ms, 200);
    }
}
