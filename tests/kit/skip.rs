//! Skipping a test loudly.
//!
//! A test that cannot run here adds a line to the file that `NETSONDE_SKIPS` names; `make test` counts those lines and
//! prints them. Without that variable nobody would see it, so the test fails instead.

use std::fs::OpenOptions;
use std::io::Write as _;

use crate::shell;

/// The rest of the test runs only as root, with `ip` at hand. Otherwise it is skipped, loudly.
#[macro_export]
macro_rules! needs_root {
    () => {
        fn here() {}
        if !$crate::skip::as_root(std::any::type_name_of_val(&here)) {
            return;
        }
    };
}

/// The rest of the test runs only where these programs are. Otherwise it is skipped, loudly.
#[macro_export]
macro_rules! needs_programs {
    ($($program:literal),+) => {
        fn and_here() {}
        if !$crate::skip::with_programs(std::any::type_name_of_val(&and_here), &[$($program),+]) {
            return;
        }
    };
}

/// The rest of the test runs only where this is something. Otherwise it is skipped, loudly, for this reason.
#[macro_export]
macro_rules! needs {
    ($what:expr, $why:expr) => {{
        fn there() {}
        match $what {
            Some(what) => what,
            None => return $crate::skip::without(std::any::type_name_of_val(&there), $why),
        }
    }};
}

/// Whether network namespaces can be made here; notes the skip where not.
pub fn as_root(place: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return skip(place, "it needs root, to make network namespaces");
    }
    with_programs(place, &["ip", "nsenter", "setpriv"])
}

/// Whether all programs can be found; notes the skip where not.
pub fn with_programs(place: &str, programs: &[&str]) -> bool {
    match programs.iter().find(|program| !shell::exists(program)) {
        Some(missing) => skip(place, &format!("there is no program {missing}")),
        None => true,
    }
}

/// Notes a skip.
pub fn without(place: &str, why: &str) {
    skip(place, why);
}

fn skip(place: &str, why: &str) -> bool {
    let test = place.trim_end_matches("::there").trim_end_matches("::and_here").trim_end_matches("::here");
    let line = format!("SKIPPED: {test}: {why}\n");
    let Some(path) = std::env::var_os("NETSONDE_SKIPS") else {
        panic!("{test} cannot run: {why}. `make test` sets NETSONDE_SKIPS and then counts it as skipped");
    };
    eprint!("{line}");
    let file = OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|e| panic!("cannot note in {} that {test} is skipped: {e}", path.display()));
    false
}
