//! Runs many schedules side by side, and says how to replay the one that fails.

use std::num::NonZero;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::scheduler::Scheduler;
use super::world::{Options, Subject, World};

/// What schedules were like, added up: a test that passes because nothing happens is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub schedules: u64,
    pub turns: u64,
    pub virtual_time: Duration,
    pub puts: u64,
    pub puts_acknowledged: u64,
    pub gets: u64,
    pub gets_answered: u64,
    pub joins: u64,
    pub leaves: u64,
    /// Schedules in which somebody left without handing over all keys, and said so.
    pub incomplete_leaves: u64,
    pub crashes: u64,
    pub restarts: u64,
    pub stops: u64,
    pub partitions: u64,
    pub slow_spells: u64,
    /// Of clocks.
    pub steps: u64,
    pub narrow: u64,
    pub suspends: u64,
    pub links_cut: u64,
    /// Nodes were asked so often whether all is safe, where they judge, and said yes so often.
    pub asked_for_safety: u64,
    pub said_safe: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.turns += other.turns;
        self.virtual_time += other.virtual_time;
        self.puts += other.puts;
        self.puts_acknowledged += other.puts_acknowledged;
        self.gets += other.gets;
        self.gets_answered += other.gets_answered;
        self.joins += other.joins;
        self.leaves += other.leaves;
        self.incomplete_leaves += other.incomplete_leaves;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.stops += other.stops;
        self.partitions += other.partitions;
        self.slow_spells += other.slow_spells;
        self.steps += other.steps;
        self.narrow += other.narrow;
        self.suspends += other.suspends;
        self.links_cut += other.links_cut;
        self.asked_for_safety += other.asked_for_safety;
        self.said_safe += other.said_safe;
    }
}

/// One schedule's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub failure: Option<String>,
    pub trace_hash: u64,
    pub trace: Vec<String>,
    pub figures: Figures,
}

/// Runs one world until `play` ends. What `play` returns as an error is the failure.
pub fn run_world(
    seed: u64,
    subject: &Arc<dyn Subject>,
    options: Options,
    play: impl FnOnce(&Arc<World>) -> Result<Figures, String> + Send + 'static,
) -> Verdict {
    let scheduler = Scheduler::new(seed, options.turns_max, options.print);
    let world = World::new(seed, subject.clone(), options, scheduler.clone());
    let figures = Arc::new(Mutex::new(Figures::default()));
    let (stage, noted) = (world.clone(), figures.clone());
    let report = scheduler.run(move || match play(&stage) {
        Ok(figures) => *noted.lock().expect("BUG: nobody panics with it") = figures,
        Err(failure) => stage.scheduler.fail(failure),
    });
    world.close();
    let mut figures = *figures.lock().expect("BUG: nobody panics with it");
    figures.schedules = 1;
    figures.turns = report.turns;
    figures.virtual_time = report.virtual_time;
    Verdict {
        failure: report.failure,
        trace_hash: report.trace_hash,
        trace: report.trace,
        figures,
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Whether traces are to be printed as they are written: `SIM_TRACE`.
pub fn print_trace() -> bool {
    env::var_os("SIM_TRACE").is_some()
}

/// Runs `schedules` of them, or as many as `SIM_SCHEDULES` says, from seed 1 or `SIM_SEED` on (that one
/// alone, unless `SIM_SCHEDULES` is there too), and prints what they were like.
///
/// With `SIM_KEEP_GOING`, the first failure doesn't end it, and each has a line.
///
/// `test` is how to get here again, the arguments of `cargo test --test`; `tests/docs.rs` holds it against the tests.
///
/// # Panics
/// At the first failure, with its seed, the command that replays it, and the end of its trace.
pub fn run_many(test: &str, schedules: u64, play: impl Fn(u64) -> Verdict + Sync) -> Figures {
    let seed = number("SIM_SEED");
    let many = number("SIM_SCHEDULES").unwrap_or(if seed.is_some() { 1 } else { schedules });
    let first = seed.unwrap_or(1);
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let keep_going = env::var_os("SIM_KEEP_GOING").is_some();
    let failures = Mutex::new(Vec::new());
    let total = Mutex::new(Figures::default());
    // Its lanes take all cores: with the lanes of another test beside them, both take far longer.
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let lanes = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + many || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let verdict = play(seed);
                    *total.lock().expect("BUG: adding panicked") += verdict.figures;
                    if let Some(failure) = &verdict.failure {
                        if keep_going {
                            let first = failure.lines().next().unwrap_or_default();
                            println!("{test}: seed {seed}: {first}");
                        }
                        failed.store(!keep_going, Ordering::Relaxed);
                        let mut failures = failures.lock().expect("BUG: pushing panicked");
                        failures.push((seed, verdict));
                    }
                }
            });
        }
    });
    drop(turn);
    let total = *total.lock().expect("BUG: adding panicked");
    println!("{test}: {total:?}, {:.1?}", began.elapsed());
    let mut failures = failures.into_inner().expect("BUG: pushing panicked");
    failures.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, verdict)) = failures.first() {
        let trace = verdict.trace.join("\n");
        let failure = verdict.failure.as_deref().unwrap_or_default();
        panic!(
            "{trace}\n\nseed {seed}: {failure}\n\
             replay: SIM_SEED={seed} cargo test --release --test {test} -- --nocapture (whole trace: SIM_TRACE=1)"
        );
    }
    total
}
