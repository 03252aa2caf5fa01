//! `netsonde-lab-worker`: a process that holds what it is told to hold until its standard input ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::{Netns, Running};

/// A worker that is ready.
#[derive(Debug)]
pub struct Worker {
    process: Running,
}

impl Worker {
    /// Starts `program`, the worker, in `ns` with words such as `files=3 sockets=2 threads=4 writes=100 reads=50`
    /// or `listens4=80` (a port, with a queue for one that nobody empties), and waits until it has done all that.
    pub fn start(program: &Path, ns: &Netns, what: &str) -> Self {
        let mut command = ns.mortal(program);
        command.args(what.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running::start(&mut command);
        let out = process.child().stdout.take().expect("its output is a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("the worker's output can be read");
        assert_eq!(line, "ready\n", "the worker {what:?} did not get ready");
        Self { process }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many descriptors it has, and how many of them are sockets.
    pub fn descriptors(&self) -> (usize, usize) {
        let folder = self.process.proc().join("fd");
        let links = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let targets: Vec<_> = links.flatten().filter_map(|e| std::fs::read_link(e.path()).ok()).collect();
        let sockets = targets.iter().filter(|t| t.to_string_lossy().starts_with("socket:")).count();
        (targets.len(), sockets)
    }
}
