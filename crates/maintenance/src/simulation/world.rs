//! Virtual time, chance, and the order in which things happen.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::executor::LocalPool;
use futures::future::{AbortHandle, LocalBoxFuture, abortable};
use futures::task::LocalSpawnExt as _;

use crate::time::Clock;

/// What happens at some moment.
type Event = Box<dyn FnOnce()>;

/// A world of its own.
pub struct World {
    now: Cell<Duration>,
    random: Cell<u64>,
    /// What is to happen, in its order.
    events: RefCell<BTreeMap<(Duration, u64), Event>>,
    made: Cell<u64>,
    pool: RefCell<Option<LocalPool>>,
    /// Whether calls take no time and never fail.
    pub is_quiet: Cell<bool>,
}

impl World {
    /// The world of this seed, ten days after it began.
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(Duration::from_secs(1_790_000_000)),
            random: Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF0),
            events: RefCell::default(),
            made: Cell::default(),
            pool: RefCell::new(Some(LocalPool::new())),
            is_quiet: Cell::default(),
        })
    }

    /// A random number (SplitMix64).
    pub fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A random number below `limit`.
    pub fn below(&self, limit: usize) -> usize {
        (self.random() % limit as u64) as usize
    }

    /// Whether something happens that does so once in `odds` times.
    pub fn one_in(&self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    /// Any of some things.
    pub fn any<'a, T>(&self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }

    /// A random time up to `limit`.
    pub fn time_up_to(&self, limit: Duration) -> Duration {
        Duration::from_millis(self.random() % (limit.as_millis() as u64 + 1))
    }

    /// How long something takes on its way: mostly moments, and now and then so long that others overtake it.
    pub fn latency(&self) -> Duration {
        if self.is_quiet.get() {
            return Duration::ZERO;
        }
        let limit = match self.below(20) {
            0 => 12_000,
            1..4 => 2_000,
            _ => 50,
        };
        self.time_up_to(Duration::from_millis(limit))
    }

    /// Has something happen after a time.
    pub fn after(&self, time: Duration, event: impl FnOnce() + 'static) {
        let number = self.made.replace(self.made.get() + 1);
        let at = self.now.get() + time;
        self.events.borrow_mut().insert((at, number), Box::new(event));
    }

    /// Waits.
    pub fn wait(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        let (sender, receiver) = oneshot::channel::<()>();
        self.after(time, move || drop(sender));
        receiver.map(drop)
    }

    /// Begins something beside what is going on. It can be made to break off.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let (task, handle) = abortable(task);
        let pool = self.pool.borrow();
        let spawner = pool.as_ref().map(LocalPool::spawner);
        // While the pool runs, nobody begins anything.
        let spawned = spawner.map(|spawner| spawner.spawn_local(task.map(drop)));
        assert!(matches!(spawned, Some(Ok(()))), "a task is begun while others run");
        handle
    }

    /// Goes on until nothing more happens.
    pub fn run(&self) {
        let mut pool = self.pool.take().expect("the world runs once at a time");
        loop {
            pool.run_until_stalled();
            let next = self.events.borrow_mut().pop_first();
            let Some(((at, _), event)) = next else {
                break;
            };
            self.now.set(at.max(self.now.get()));
            event();
        }
        self.pool.replace(Some(pool));
    }

    /// Does one thing without haste or failure, and gives what comes of it.
    pub fn quietly<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        self.is_quiet.set(true);
        let result = Rc::new(Cell::new(None));
        let slot = Rc::clone(&result);
        self.spawn(async move { slot.set(Some(task.await)) });
        self.run();
        self.is_quiet.set(false);
        result.take().expect("it comes to its end")
    }

    /// Time passes while nothing happens.
    pub fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }
}

impl Clock for World {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn sleep(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        self.wait(time).boxed_local()
    }
}
