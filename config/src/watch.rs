//! Tells when the content of the file has changed.
//!
//! It watches the directory, never the file: a ConfigMap is a swap of the symlink `..data`, and an editor renames a
//! new file over the old one; both leave a watch on the file with an inode that nobody writes any more. Events only
//! wake the thread; what counts is the content, compared byte by byte. A poll finds what events miss: a link into
//! another directory, a network file system, a directory that was itself replaced, a kernel out of inotify instances.
//!
//! One thread of its own. `notify` is called on it, never twice at once, and should only hand the news on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::load::{Content, read};

/// Why a file cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no such directory, so no file can appear in it.
    #[error("cannot watch {}: {} is not a directory; the file is not reloaded when it changes", path.display(), directory.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
        /// The directory that should hold it.
        directory: PathBuf,
    },
    /// No thread could be started.
    #[error("cannot watch {}: no thread could be started: {source}; the file is not reloaded when it changes", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Watches one file until it is dropped.
///
/// The content at the time of [`Watch::new`] is what changes are measured against, so create it before loading the
/// file: a change between the two then costs one more reload and is never missed.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
    only_polls: Option<String>,
}

/// How long the thread waits for what.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// Without events for this long, a change is over.
    quiet: Duration,
    /// A file that is written all the time is looked at this often nevertheless.
    longest: Duration,
    /// The content is compared this often without any event.
    poll: Duration,
}

const TIMING: Timing = Timing {
    quiet: Duration::from_millis(300),
    longest: Duration::from_secs(2),
    poll: Duration::from_secs(10),
};

impl Watch {
    /// Calls `notify` after each change of the content of `path`. A file that is away, or whose new content is the same,
    /// is no change; a file that does not exist yet is one when it appears.
    pub fn new(path: &Path, notify: impl Fn() + Send + 'static) -> Result<Self, WatchError> {
        Self::with_timing(path, TIMING, notify)
    }

    /// Why changes are found by polling only, within 10 s; `None`: they are found at once.
    pub fn only_polls(&self) -> Option<&str> {
        self.only_polls.as_deref()
    }

    fn with_timing(
        path: &Path,
        timing: Timing,
        notify: impl Fn() + Send + 'static,
    ) -> Result<Self, WatchError> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if !directory.is_dir() {
            return Err(WatchError::NoDirectory { path: path.into(), directory });
        }
        // One slot: a second event while the first waits says nothing new.
        let (wake, events) = sync_channel(1);
        let (watcher, only_polls) = match watch_directory(&directory, wake.clone()) {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let stop = Arc::new(AtomicBool::new(false));
        // Read here and not on the thread: what changes after this call returns is a change.
        let last = read(path).ok();
        let thread_loop =
            Loop { path: path.into(), directory, timing, stop: Arc::clone(&stop), events, watcher, last };
        let thread = thread::Builder::new()
            .name("config-watch".to_owned())
            .spawn(move || thread_loop.run(&notify))
            .map_err(|source| WatchError::Thread { path: path.into(), source })?;
        Ok(Self { stop, wake, thread: Some(thread), only_polls })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Full is as good: the thread is about to wake.
        let _ = self.wake.try_send(());
        // `notify` itself may drop the watch; a thread cannot wait for itself.
        if let Some(thread) =
            self.thread.take().filter(|thread| thread.thread().id() != thread::current().id())
        {
            // A panic in `notify` has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn watch_directory(directory: &Path, wake: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading opens and closes the file; it must not wake us again. An error may hide a change.
        let read_only = event.is_ok_and(|event| match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Access(_) => true,
            _ => false,
        });
        if !read_only {
            let _ = wake.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

struct Loop {
    path: PathBuf,
    directory: PathBuf,
    timing: Timing,
    stop: Arc<AtomicBool>,
    events: Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    last: Option<Content>,
}

impl Loop {
    fn run(mut self, notify: &impl Fn()) {
        while !self.stopped() {
            match self.events.recv_timeout(self.timing.poll) {
                Ok(()) => self.settle(),
                Err(RecvTimeoutError::Timeout) => self.renew(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.stopped() && self.changed() {
                notify();
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits until the events stop, so that a file written in pieces is read once, whole.
    fn settle(&self) {
        let begun = Instant::now();
        while !self.stopped() && begun.elapsed() < self.timing.longest {
            if self.events.recv_timeout(self.timing.quiet).is_err() {
                return;
            }
        }
    }

    /// A directory that was removed and made again has lost its watch. Watching what is watched already changes nothing.
    fn renew(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            // A directory that is away for now is tried again at the next poll.
            let _ = watcher.watch(&self.directory, RecursiveMode::NonRecursive);
        }
    }

    /// Whether the content differs from the last that was seen. A file that cannot be read keeps the last.
    fn changed(&mut self) -> bool {
        match read(&self.path) {
            Ok(content) if self.last.as_ref() != Some(&content) => {
                self.last = Some(content);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
