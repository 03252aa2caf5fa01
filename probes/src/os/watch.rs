//! The thread that lets go of namespaces: it watches their processes (pidfd) and their names (inotify) and releases
//! what netsonde holds open at once, so that nothing of ours keeps a deleted pod's veth alive.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use std::{io, thread};

use rustix::event::epoll;
use rustix::fs::inotify;

use super::netns::Netns;

/// Wakes the one who waits for changes of the set of namespaces.
#[derive(Debug)]
pub struct Changes(Receiver<()>);

impl Changes {
    /// Waits until something changed or `at_most` has passed; `false` when there is no one left to tell.
    pub fn wait(&self, at_most: Duration) -> bool {
        !matches!(self.0.recv_timeout(at_most), Err(RecvTimeoutError::Disconnected))
    }
}

const INOTIFY: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Watched {
    /// By descriptor number: the pidfd and the namespace that ends with it.
    processes: HashMap<i32, (OwnedFd, Weak<Netns>)>,
    /// By folder and name.
    names: HashMap<(PathBuf, String), Weak<Netns>>,
    folders: HashMap<i32, PathBuf>,
}

/// The watching thread's end of things.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
    inotify: OwnedFd,
    watched: Mutex<Watched>,
    tell: SyncSender<()>,
}

impl Watch {
    /// Starts the thread. It ends when the last handle is dropped.
    pub(super) fn start() -> io::Result<(Arc<Self>, Changes)> {
        let (tell, changes) = sync_channel(1);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        epoll::add(&epoll, &inotify, epoll::EventData::new_u64(INOTIFY), epoll::EventFlags::IN)?;
        let watch = Arc::new(Self { epoll, inotify, watched: Mutex::default(), tell });
        let weak = Arc::downgrade(&watch);
        thread::Builder::new().name("watch".into()).stack_size(128 * 1024).spawn(move || {
            while let Some(watch) = weak.upgrade() {
                if watch.turn().is_err() {
                    return;
                }
            }
        })?;
        Ok((watch, Changes(changes)))
    }

    /// Wakes the one who waits for [`Changes`].
    pub(super) fn wake(&self) {
        // A full channel means that the other side is already told.
        let _ = self.tell.try_send(());
    }

    /// Releases `netns` when this process ends.
    pub(super) fn process(&self, pidfd: OwnedFd, netns: &Arc<Netns>) -> io::Result<()> {
        let number = pidfd.as_raw_fd();
        let data = epoll::EventData::new_u64(u64::from(number.unsigned_abs()));
        let mut watched = self.lock();
        epoll::add(&self.epoll, &pidfd, data, epoll::EventFlags::IN)?;
        watched.processes.insert(number, (pidfd, Arc::downgrade(netns)));
        Ok(())
    }

    /// Releases `netns` when this name is removed.
    pub(super) fn name(&self, folder: &Path, name: &str, netns: &Arc<Netns>) {
        self.lock().names.insert((folder.to_owned(), name.to_owned()), Arc::downgrade(netns));
    }

    /// Tells of names that appear in or leave `folder`. Where it does not exist yet, the caller tries again later.
    pub(super) fn folder(&self, folder: &Path) -> io::Result<()> {
        if self.lock().folders.values().any(|f| f == folder) {
            return Ok(());
        }
        let kinds = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVE
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::ONLYDIR;
        let number = inotify::add_watch(&self.inotify, folder, kinds)?;
        self.lock().folders.insert(number, folder.to_owned());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for at most a second (so that a dropped handle is noticed) and deals with what happened.
    fn turn(&self) -> io::Result<()> {
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 64];
        let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        let events = match epoll::wait(&self.epoll, &mut events, Some(&second)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut changed = false;
        for event in &*events {
            changed = true;
            match event.data.u64() {
                INOTIFY => self.names_changed(),
                number => self.process_ended(number),
            }
        }
        if changed {
            self.wake();
        }
        Ok(())
    }

    fn process_ended(&self, number: u64) {
        let ended = i32::try_from(number).ok().and_then(|n| self.lock().processes.remove(&n));
        if let Some((pidfd, netns)) = ended {
            // Without this the kernel would report it again for as long as the descriptor is open elsewhere.
            let _ = epoll::delete(&self.epoll, pidfd.as_fd());
            release(&netns);
        }
    }

    fn names_changed(&self) {
        let mut space = [const { std::mem::MaybeUninit::<u8>::uninit() }; 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        while let Ok(event) = events.next() {
            let mut watched = self.lock();
            if event.events().contains(inotify::ReadFlags::IGNORED) {
                watched.folders.remove(&event.wd());
                continue;
            }
            let left = inotify::ReadFlags::DELETE | inotify::ReadFlags::MOVED_FROM;
            if !event.events().intersects(left) {
                continue;
            }
            let key = watched
                .folders
                .get(&event.wd())
                .zip(event.file_name().and_then(|n| n.to_str().ok()))
                .map(|(folder, name)| (folder.clone(), name.to_owned()));
            let netns = key.and_then(|key| watched.names.remove(&key));
            drop(watched);
            if let Some(netns) = netns {
                release(&netns);
            }
        }
    }

    /// Stops watching what was released by other means.
    pub(super) fn tidy(&self) {
        let mut watched = self.lock();
        let live = |netns: &Weak<Netns>| netns.upgrade().is_some_and(|n| n.is_live());
        watched.processes.retain(|_, (_, netns)| live(netns));
        watched.names.retain(|_, netns| live(netns));
    }
}

fn release(netns: &Weak<Netns>) {
    if let Some(netns) = netns.upgrade() {
        netns.release();
    }
}
