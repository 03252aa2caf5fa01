//! The thread that enters network namespaces. Nothing else in the process calls setns.
//!
//! A job runs inside the namespace and must be short: open files or sockets, nothing more. The thread goes home
//! after each job; if it cannot, it ends and the next job gets a new thread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Task {
    ns: Arc<OwnedFd>,
    job: Job,
}

/// A handle to the thread; it starts with the first job.
#[derive(Debug, Default)]
pub(super) struct Enterer {
    tasks: Mutex<Option<Sender<Task>>>,
}

impl Enterer {
    /// Runs `job` inside the namespace behind `ns` and gives its result.
    ///
    /// Fails with the kernel's answer where the namespace cannot be entered: `EPERM` without CAP_SYS_ADMIN,
    /// `EINVAL` where `ns` is no network namespace.
    pub(super) fn run<T, F>(&self, ns: &Arc<OwnedFd>, job: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let (reply, answer) = channel();
        let task = Task {
            ns: Arc::clone(ns),
            job: Box::new(move |entered| {
                // The receiver waits below for as long as this thread lives.
                let _ = reply.send(entered.and_then(|()| job()));
            }),
        };
        self.send(task)?;
        answer.recv().map_err(|_| io::Error::other("the thread that enters namespaces ended"))?
    }

    fn send(&self, task: Task) -> io::Result<()> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let task = match tasks.as_ref() {
            Some(sender) => match sender.send(task) {
                Ok(()) => return Ok(()),
                Err(back) => back.0,
            },
            None => task,
        };
        let sender = start()?;
        sender.send(task).map_err(|_| io::Error::other("the thread that enters namespaces ended"))?;
        *tasks = Some(sender);
        Ok(())
    }
}

fn start() -> io::Result<Sender<Task>> {
    let home: OwnedFd = fs::File::open("/proc/thread-self/ns/net")?.into();
    let (sender, tasks) = channel::<Task>();
    thread::Builder::new().name("netns".into()).stack_size(256 * 1024).spawn(move || {
        for task in tasks {
            let entered = move_into_link_name_space(task.ns.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from);
            let inside = entered.is_ok();
            (task.job)(entered);
            drop(task.ns);
            if inside && move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
                return;
            }
        }
    })?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_that_is_no_namespace_is_refused_with_the_kernels_answer() {
        let enterer = Enterer::default();
        let file: OwnedFd = fs::File::open("/dev/null").expect("it is there").into();
        let answer = enterer.run(&Arc::new(file), || Ok(1));
        assert!(answer.is_err());
        // and the thread still works
        let file: OwnedFd = fs::File::open("/dev/null").expect("it is there").into();
        assert!(enterer.run(&Arc::new(file), || Ok(1)).is_err());
    }
}
