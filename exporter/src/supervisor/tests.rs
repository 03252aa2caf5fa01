//! Probes that fail on purpose, and what that costs the others.

#![allow(clippy::unwrap_used, clippy::trivially_copy_pass_by_ref, clippy::unnecessary_wraps)]

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netsonde_config::Wanted;
use netsonde_framework::event::Rate;
use netsonde_framework::probe::Started;
use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    Catalogue, CollectError, Emitter, Event, EventDef, Limits, Probe, ProbeInfo, ProbeSpec, Samples,
    Severity, StartError, View,
};
use netsonde_probes::os::{Host, Paths};
use serde_json::json;

use super::{Gathered, State, Supervisor};
use crate::discovery::Discovery;
use crate::events::{self, Bus};

mod good {
    netsonde_framework::metrics! {
        /// Scrapes seen.
        SEEN: Counter<()> = "good_seen".source("the test");
    }
}

enum Way {
    Good(u64),
    Panics,
    Hangs,
}

impl Probe for Way {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        match self {
            Self::Good(seen) => {
                *seen += 1;
                for (id, _) in view.topology.iter() {
                    out.push(&good::SEEN, id, (), *seen);
                }
            }
            Self::Panics => panic!("on purpose"),
            Self::Hangs => thread::sleep(Duration::from_secs(3)),
        }
        Ok(())
    }
}

fn good(args: &serde_json::Value, _: &()) -> Started {
    match args.get("refuse").and_then(serde_json::Value::as_str) {
        Some("settings") => Err(StartError::Settings("refuse: not this".into())),
        Some("kernel") => Err(StartError::Unsupported("this kernel is too old".into())),
        Some("now") => Err(StartError::Failed("not now".into())),
        _ => Ok(Box::new(Way::Good(0))),
    }
}
fn panics(_: &serde_json::Value, (): &()) -> Started {
    Ok(Box::new(Way::Panics))
}
fn hangs(_: &serde_json::Value, (): &()) -> Started {
    Ok(Box::new(Way::Hangs))
}

/// Has as many records as its pipe has bytes, and takes two at once; `x` makes it panic.
struct Tells {
    records: OwnedFd,
    _writer: OwnedFd,
}

static TOLD: EventDef = EventDef { name: "Told", help: "A byte.", severity: Severity::Info, fields: &[] };

impl Probe for Tells {
    fn collect(&mut self, _: &View<'_>, _: &mut Samples) -> Result<(), CollectError> {
        Ok(())
    }
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.records.as_fd())
    }
    fn drain(&mut self, out: &mut Emitter) -> Result<(), CollectError> {
        let mut bytes = [0u8; 2];
        let count = rustix::io::read(&self.records, &mut bytes).unwrap();
        for byte in &bytes[..count] {
            assert_ne!(*byte, b'x', "on purpose");
            let fields = vec![("byte", u64::from(*byte).into())];
            out.emit(Event { def: &TOLD, time_ns: 1, netns: None, flow: None, fields, suppressed: 0 });
        }
        Ok(())
    }
}

fn tells(args: &serde_json::Value, (): &()) -> Started {
    let (records, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, args["records"].as_str().unwrap().as_bytes()).unwrap();
    Ok(Box::new(Tells { records, _writer: writer }))
}

const fn info(name: &'static str) -> ProbeInfo {
    ProbeInfo {
        name,
        aliases: &[],
        about: "",
        guide: "",
        metrics: good::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<NoSettings>,
    }
}

static GOOD: ProbeSpec<()> = ProbeSpec { info: info("good"), start: good };
static PANICS: ProbeSpec<()> = ProbeSpec { info: info("bad_panics"), start: panics };
static HANGS: ProbeSpec<()> = ProbeSpec { info: info("bad_hangs"), start: hangs };
static TELLS: ProbeSpec<()> = ProbeSpec { info: info("tells"), start: tells };
static SPECS: &[&ProbeSpec<()>] = &[&GOOD, &PANICS, &HANGS, &TELLS];

fn supervisor() -> Supervisor {
    on_bus(Arc::default())
}

fn on_bus(bus: Arc<Bus>) -> Supervisor {
    let (host, _) = Host::new(Paths::default()).unwrap();
    let discovery = Discovery::new(host).unwrap();
    Supervisor::new(Arc::new(Catalogue::default().with(SPECS, &())), discovery, bus)
}

fn bus(burst: u32) -> Arc<Bus> {
    Arc::new(Bus::new("n", events::Limits { rate: Rate { per_second: 1, burst }, recent: 100 }))
}

/// The events so far, once there are as many as this.
fn told(bus: &Bus, count: usize) -> Vec<String> {
    let start = Instant::now();
    loop {
        let (kept, _) = bus.listen();
        if kept.len() >= count || start.elapsed() > Duration::from_secs(5) {
            return kept.iter().map(|record| record.json.clone()).collect();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_record_is_drained_without_a_scrape_and_in_order() {
    let bus = bus(100);
    let mut supervisor = on_bus(Arc::clone(&bus));
    supervisor.reconcile(&[want("tells", json!({"records": "abcde"}))], Limits::default()).unwrap();
    let told = told(&bus, 5);
    let bytes: Vec<u64> = told
        .iter()
        .map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap()["byte"].as_u64().unwrap())
        .collect();
    assert_eq!(bytes, [97, 98, 99, 100, 101]);
    assert_eq!(bus.tallies()["tells"].told["Told"], 5);
    assert_eq!(bus.tallies()["tells"].unattributed, 5, "they have no namespace");
}

#[test]
fn what_the_bounds_hold_back_is_counted() {
    let bus = bus(2);
    let mut supervisor = on_bus(Arc::clone(&bus));
    supervisor.reconcile(&[want("tells", json!({"records": "abcde"}))], Limits::default()).unwrap();
    told(&bus, 2);
    supervisor.stop(Duration::from_secs(5));
    assert_eq!(bus.tallies()["tells"].told["Told"], 2);
    assert_eq!(bus.tallies()["tells"].suppressed, 3);
}

#[test]
fn a_panic_while_draining_costs_only_that_probe() {
    let bus = bus(100);
    let mut supervisor = on_bus(Arc::clone(&bus));
    let wanted = [want("good", json!({})), want("tells", json!({"records": "abxc"}))];
    supervisor.reconcile(&wanted, Limits::default()).unwrap();
    assert_eq!(told(&bus, 2).len(), 2, "those before it are told");
    thread::sleep(Duration::from_millis(50));
    let gathered = supervisor.gather(Instant::now() + Duration::from_secs(5));
    assert_eq!(seen(&gathered), Some(1u64.into()));
    assert!(matches!(state(&supervisor, "tells"), State::Failed(why) if why.contains("on purpose")));
}

fn want(name: &str, args: serde_json::Value) -> Wanted {
    Wanted { name: name.into(), args }
}

fn seen(gathered: &Gathered) -> Option<netsonde_framework::Value> {
    let good = gathered.collected.iter().find(|c| c.probe == "good")?;
    let (id, _) = gathered.topology.iter().next()?;
    good.samples.value("good_seen", id, "")
}

fn state(supervisor: &Supervisor, name: &str) -> State {
    supervisor.records().find(|(info, ..)| info.name == name).unwrap().1.clone()
}

#[test]
fn a_probe_that_panics_costs_only_itself_and_is_started_again() {
    let mut supervisor = supervisor();
    supervisor
        .reconcile(&[want("good", json!({})), want("bad_panics", json!({}))], Limits::default())
        .unwrap();
    let gathered = supervisor.gather(Instant::now() + Duration::from_secs(5));
    assert_eq!(seen(&gathered), Some(1u64.into()));
    assert!(matches!(state(&supervisor, "bad_panics"), State::Failed(why) if why.contains("on purpose")));
    let record = |s: &Supervisor| s.records().find(|(i, ..)| i.name == "bad_panics").unwrap().2.clone();
    assert_eq!(record(&supervisor).failures.get("panic"), Some(&1));
    thread::sleep(Duration::from_millis(1100));
    supervisor.gather(Instant::now() + Duration::from_secs(5));
    assert_eq!(record(&supervisor).restarts, 1);
    assert_eq!(record(&supervisor).failures.get("panic"), Some(&2), "it panicked again");
}

#[test]
fn a_probe_that_hangs_is_left_out_and_counted_and_comes_back() {
    let mut supervisor = supervisor();
    supervisor
        .reconcile(&[want("good", json!({})), want("bad_hangs", json!({}))], Limits::default())
        .unwrap();
    let start = Instant::now();
    let gathered = supervisor.gather(start + Duration::from_millis(600));
    assert!(start.elapsed() < Duration::from_secs(2), "the deadline is kept");
    assert_eq!(seen(&gathered), Some(1u64.into()));
    let gathered = supervisor.gather(Instant::now() + Duration::from_millis(600));
    assert_eq!(seen(&gathered), Some(2u64.into()), "the good one is asked again");
    let timeouts = |s: &Supervisor| {
        s.records().find(|(i, ..)| i.name == "bad_hangs").unwrap().2.failures.get("timeout").copied()
    };
    assert_eq!(timeouts(&supervisor), Some(2));
    thread::sleep(Duration::from_secs(3));
    let gathered = supervisor.gather(Instant::now() + Duration::from_secs(5));
    assert!(gathered.collected.iter().any(|c| c.probe == "bad_hangs"), "its thread is free again");
}

#[test]
fn the_running_probe_stays_when_the_new_settings_are_refused() {
    let mut supervisor = supervisor();
    supervisor.reconcile(&[want("good", json!({}))], Limits::default()).unwrap();
    supervisor.gather(Instant::now() + Duration::from_secs(5));
    let refused = supervisor.reconcile(&[want("good", json!({"refuse": "settings"}))], Limits::default());
    assert!(refused.unwrap_err().contains("good: refuse: not this"));
    let gathered = supervisor.gather(Instant::now() + Duration::from_secs(5));
    assert_eq!(seen(&gathered), Some(2u64.into()), "the old one went on counting");
}

#[test]
fn a_probe_that_stays_in_the_list_is_not_touched() {
    let mut supervisor = supervisor();
    supervisor.reconcile(&[want("good", json!({}))], Limits::default()).unwrap();
    supervisor.gather(Instant::now() + Duration::from_secs(5));
    supervisor
        .reconcile(&[want("bad_panics", json!({})), want("good", json!({}))], Limits::default())
        .unwrap();
    let gathered = supervisor.gather(Instant::now() + Duration::from_secs(5));
    assert_eq!(seen(&gathered), Some(2u64.into()));
    supervisor.reconcile(&[], Limits::default()).unwrap();
    assert_eq!(supervisor.records().count(), 0);
}

#[test]
fn what_the_kernel_cannot_do_is_told_and_what_failed_is_tried_again() {
    let mut supervisor = supervisor();
    supervisor.reconcile(&[want("good", json!({"refuse": "kernel"}))], Limits::default()).unwrap();
    assert_eq!(state(&supervisor, "good"), State::Unsupported("this kernel is too old".into()));
    supervisor.reconcile(&[want("good", json!({"refuse": "now"}))], Limits::default()).unwrap();
    assert_eq!(state(&supervisor, "good"), State::Failed("not now".into()));
    thread::sleep(Duration::from_millis(1100));
    supervisor.gather(Instant::now() + Duration::from_secs(1));
    assert_eq!(supervisor.records().next().unwrap().2.restarts, 1);
}
