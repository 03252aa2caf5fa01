//! Sets of probes that take turns in one run, so that what the machine does by itself meets all of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::hooks::{self, Empty};
use super::measure::{cpu, machine};
use super::programs::probes;
use super::ratios::{error, loss, median, verdict};
use netsonde_tests::{Agent, Netns, wait::until_true};

/// What every agent has while it is another's turn.
const IDLE: &str = "probes: []";
/// A configuration is taken by then, and a machine that did not come to rest never does.
const RESTS: Duration = Duration::from_secs(10);

/// Probes that are measured together.
pub struct Set {
    pub what: String,
    config: String,
    /// With programs that do nothing in place of the agent's.
    empty: bool,
    /// Of the other agent.
    beside: bool,
}

impl Set {
    fn new(what: &str, config: &str) -> Self {
        Self { what: what.into(), config: config.into(), empty: false, beside: false }
    }

    /// What the others are compared with.
    pub fn none() -> Self {
        Self::new("no probes", IDLE)
    }

    /// Those that an agent without a configuration has.
    pub fn default() -> Self {
        Self::new("the default set", "")
    }

    pub fn every() -> Self {
        Self::new("every probe", &every())
    }

    /// Programs that do nothing, where the agent has its own with every probe.
    pub fn empty() -> Self {
        Self { empty: true, ..Self::new("empty programs", IDLE) }
    }
}

/// `probes:` with the name of each.
fn every() -> String {
    format!("probes: [{}]", probes().join(", "))
}

/// How many turns, and the sets: `bench PART 30 flow,tcpretrans packetloss` has 30 turns of no probes and of these two.
/// `NETSONDE_BESIDE` names another netsonde, whose turns with the same sets are in the same run.
pub fn asked(turns: usize, sets: Vec<Set>) -> (usize, Vec<Set>) {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let turns = words.first().map_or(turns, |word| word.parse().expect("how many turns of each set"));
    let named = words.iter().skip(1).map(|probes| Set::new(probes, &format!("probes: [{probes}]")));
    let mut sets: Vec<Set> =
        if words.len() > 1 { std::iter::once(Set::none()).chain(named).collect() } else { sets };
    if other().is_some() {
        let twin = |set: &Set| Set { beside: true, ..Set::new(&format!("{} *", set.what), &set.config) };
        let twins: Vec<Set> = sets[1..].iter().filter(|set| !set.empty).map(twin).collect();
        sets.extend(twins);
    }
    (turns, sets)
}

fn other() -> Option<PathBuf> {
    std::env::var_os("NETSONDE_BESIDE").map(PathBuf::from)
}

/// Measures each set as often, while an agent that knows `pod` has its probes.
pub fn alternate<T>(turns: usize, sets: &[Set], pod: &Netns, mut measure: impl FnMut() -> T) -> Vec<Vec<T>> {
    let config = format!("node_name: bench\nsinks: []\n{IDLE}\n");
    let agent = Agent::start(&config);
    let other = other().map(|program| Agent::start_program(&program, &config));
    agent.find(pod.name());
    let hooks = sets.iter().any(|set| set.empty).then(|| places(&agent));
    let empty = hooks.map(|places| (hooks::compile(&places), places));
    let mut found: Vec<Vec<T>> = sets.iter().map(|_| Vec::new()).collect();
    for turn in 0..turns {
        for which in order(turn, sets.len()) {
            let set = &sets[which];
            take(&agent, if set.beside { IDLE } else { &set.config });
            if let Some(other) = &other {
                take(other, if set.beside { &set.config } else { IDLE });
            }
            let empty = empty.as_ref().filter(|_| set.empty);
            let attached = empty.map(|(object, places)| Empty::attach(object, places));
            rest(&agent);
            found[which].push(measure());
            drop(attached);
        }
    }
    agent.stop();
    found
}

/// Every set is first, middle and last as often, and before each of the others as often as behind it.
fn order(turn: usize, sets: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sets).map(|place| (place + turn / 2) % sets).collect();
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}

/// Where an agent with every probe has programs.
fn places(agent: &Agent) -> BTreeSet<String> {
    take(agent, &every());
    rest(agent);
    hooks::of(agent)
}

/// The agent takes a configuration.
fn take(agent: &Agent, config: &str) {
    let reloads = || agent.scrape().find("netsonde_config_reloads_total", &[("result", "ok")]);
    let before = reloads();
    agent.write_config(&format!("node_name: bench\nsinks: []\n# {:?}\n{config}\n", Instant::now()));
    until_true("the configuration is taken", RESTS, || reloads() != before);
}

/// Programs are loaded and verified, connections listed, and those that went are freed. On a machine with other work that is
/// not waited for forever.
fn rest(agent: &Agent) {
    const STEP: Duration = Duration::from_millis(200);
    let now = || (cpu(agent.pid()), machine());
    let (start, mut then) = (Instant::now(), now());
    loop {
        std::thread::sleep(STEP);
        let (own, all) = std::mem::replace(&mut then, now());
        let rests = then.0.saturating_sub(own) <= STEP / 20 && then.1.saturating_sub(all) <= STEP * 3 / 20;
        if rests || start.elapsed() > RESTS {
            return;
        }
    }
}

/// Which way a figure is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Worse {
    Less,
    More,
    /// It is told and not compared.
    Neither,
}

/// A figure of every set, beside that of no probes.
pub struct Column<'a, T> {
    pub head: &'a str,
    pub of: fn(&T) -> f64,
    pub worse: Worse,
    /// Which sets lose at most how many percent.
    pub budgets: &'a [(&'a str, f64)],
}

/// Prints medians, and the medians of what each turn lost against that of no probes beside it.
pub fn report<T>(sets: &[Set], found: &[Vec<T>], columns: &[Column<'_, T>]) {
    println!(
        "medians of {} turns of each set, alternated; the loss is the median of each turn's own",
        found[0].len()
    );
    println!("against the turn of no probes beside it, give or take its standard error\n");
    print!("{:>18}", "");
    for column in columns {
        print!(" {:>10}", column.head);
        match column.worse {
            Worse::Less => print!(" {:>13}", "less %"),
            Worse::More => print!(" {:>13}", "more %"),
            Worse::Neither => {}
        }
    }
    println!();
    for (set, mine) in sets.iter().zip(found) {
        print!("{:>18}", set.what);
        for column in columns {
            print!(" {:>10.2}", median(mine.iter().map(column.of).collect()));
            if column.worse != Worse::Neither {
                let lost = lost(column, mine, &found[0]);
                let cell = format!("{:.1} +- {:.1}", median(lost.clone()), error(&lost));
                print!(" {cell:>13}");
            }
        }
        println!();
    }
    println!();
    for column in columns {
        for (set, mine) in sets.iter().zip(found) {
            let budget = column.budgets.iter().find(|(what, _)| *what == set.what.trim_end_matches(" *"));
            if let Some((_, budget)) = budget {
                let verdict = verdict(&lost(column, mine, &found[0]), *budget);
                println!("{}, {}: budget {budget} %: {verdict}", set.what, column.head);
            }
        }
    }
    if let Some(other) = other() {
        println!("* with {}", other.display());
    }
}

/// By how many percent each turn was worse than that without probes.
fn lost<T>(column: &Column<'_, T>, mine: &[T], none: &[T]) -> Vec<f64> {
    let pairs = mine.iter().zip(none).map(|(mine, none)| ((column.of)(mine), (column.of)(none)));
    pairs
        .map(
            |(mine, none)| {
                if column.worse == Worse::More { 0.0 - loss(none, mine) } else { loss(none, mine) }
            },
        )
        .collect()
}
